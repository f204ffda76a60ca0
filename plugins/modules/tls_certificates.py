#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring certificates to where nginx reads them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificates
short_description: Bring certificates to where nginx reads them, by certbot or from files
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Each certificate is a link in one folder, which leads to C(fullchain.pem) and C(privkey.pem). Until there is a
    certificate, it leads to a self-signed placeholder, so that nginx can start and can answer the challenge.
  - A link is changed in one step, then nginx tests its configuration and is reloaded. When it refuses, the link is
    changed back.
  - The ACME server is asked only when a certificate is missing, is not what is wanted, or is due. What was there stays
    when the server does not give another one.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Tells what would be asked for. Whether the ACME server would give it is not known.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) brings O(certificates).
      - V(unlisted) removes those of O(app) that are not in O(keep) and that nginx does not name any more. Certificates
        that certbot had before stay with it.
    type: str
    choices: [present, unlisted]
    default: present
  certificates:
    description: What there shall be.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the link, and of certbot's certificate.
        type: str
        required: true
      names:
        description: The DNS names that it is for, also with a star as the first label.
        type: list
        elements: str
        required: true
      dns_plugin:
        description: certbot's plugin for a DNS challenge, such as V(rfc2136). Without it, O(webroot) is used.
        type: str
      dns_file:
        description: The plugin's file with credentials, on the host.
        type: path
      dns_propagation_seconds:
        description: Seconds that the DNS servers have to take the record up. By default the plugin's own.
        type: int
      certificate:
        description:
          - A certificate that you bring, instead of one by certbot, as PEM text with its chain behind it.
        type: str
      certificate_file:
        description: The same as a file on the host.
        type: path
      key:
        description: Its private key, as PEM text without a passphrase.
        type: str
      key_file:
        description: The same as a file on the host.
        type: path
  issue:
    description: With V(false), nothing is asked of an ACME server, and missing certificates are placeholders.
    type: bool
    default: true
  keep:
    description: For O(state=unlisted), the certificates that stay.
    type: list
    elements: str
    default: []
  app:
    description: The stack that the certificates belong to. Those of others are left alone.
    type: str
    default: main
  directory:
    description: The folder of the links.
    type: path
    default: /etc/groundwork/tls
  certbot_directory:
    description: certbot's folder.
    type: path
    default: /etc/letsencrypt
  server:
    description: The directory URL of the ACME server.
    type: str
    default: https://acme-v02.api.letsencrypt.org/directory
  ca_file:
    description: File on the host with CA certificates for the ACME server itself, beside those of the system.
    type: path
  email:
    description: Address of the account that is made when there is none.
    type: str
  webroot:
    description: The folder from which nginx answers challenges.
    type: path
    default: /var/lib/groundwork/acme
  key_type:
    description: The kind of key.
    type: str
    choices: [ecdsa, rsa]
    default: ecdsa
  profile:
    description: The profile to ask the ACME server for. Needs certbot 4; an older one warns.
    type: str
  profile_required:
    description: Whether a server or certbot that does not know the profile is an error.
    type: bool
    default: false
  addresses:
    description: Addresses that lead to this host beside its own, such as those of a router. Only for messages.
    type: list
    elements: str
    default: []
  fail_days:
    description:
      - A certificate that cannot be renewed is an error when it has fewer days left, and a warning before. For short
        lifetimes it is a quarter of the lifetime, if that is less.
    type: float
    default: 7
  dry_run:
    description: Whether a renewal is tried right after a certificate was issued. A trial that fails is a warning.
    type: bool
    default: false
seealso:
  - module: groundwork.backend.health_wait
"""

EXAMPLES = r"""
- name: Have a certificate for the site
  groundwork.backend.tls_certificates:
    email: admin@example.org
    certificates:
      - name: shop
        names: [shop.example.org, www.shop.example.org]
  register: certificates

- name: Tell how long it lives
  ansible.builtin.debug:
    msg: "{{ certificates.certificates.shop.days_left }} days left"
"""

RETURN = r"""
actions:
  description:
    - What was done, by certificate. V(placeholder), V(linked), V(installed), V(issued), V(renewed), V(renewal) (the
      time of its next renewal was set) or V(removed).
  returned: success
  type: dict
  sample: {shop: [placeholder, issued]}
certificates:
  description: What servers read now, by name. Empty in place of a certificate that is not there.
  returned: O(state=present)
  type: dict
  contains:
    names: {description: The names that it is for., type: list, elements: str}
    issuer: {description: Who signed it., type: str}
    serial: {description: Its serial number in hex., type: str}
    days_left: {description: Days until it ends., type: float}
    late_days: {description: Days before its end from which on it is too late., type: float}
    placeholder: {description: Whether it only stands in., type: bool}
failures:
  description: What an ACME server did not give, with C(name), C(kind), C(problem) and C(fix).
  returned: failure
  type: list
  elements: dict
reloaded:
  description: Whether nginx was reloaded.
  returned: O(state=present)
  type: bool
kept:
  description: Certificates that are not listed and that nginx still names.
  returned: O(state=unlisted)
  type: list
  elements: str
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._certbot_run import Certbot
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._tls_engine import Engine
from ansible_collections.groundwork.backend.plugins.module_utils._tls_remove import remove_unlisted
from ansible_collections.groundwork.backend.plugins.module_utils._tls_store import Store
from ansible_collections.groundwork.backend.plugins.module_utils._tls_wanted import Wanted, wanted
from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import CRYPTOGRAPHY

_LOCK_SECONDS = 300.0


def execute(context: Context) -> dict[str, Any]:
    """Bring or remove certificates under the lock of their folder."""
    params, check = context.params, context.check_mode
    store = Store(Path(params["directory"]), Path(params["certbot_directory"]))
    certbot = Certbot(tuple(params["addresses"]), Path(params["ca_file"]) if params["ca_file"] else None)
    if check and not CRYPTOGRAPHY:
        # A host without it has no certbot either, so that everything is still to be done.
        names = [entry["name"] for entry in params["certificates"]]
        return {"changed": bool(names), "actions": {}, "certificates": {name: {} for name in names}, "reloaded": False}
    if not check and params["state"] == "present":
        store.prepare()
    if not store.folder.is_dir():
        return _execute(context, store, certbot)
    busy = StateError(
        f"Another call has been changing the certificates in {store.folder} for {_LOCK_SECONDS:g} seconds.",
        fix="Wait for it to end, then run again.",
    )
    with directory_lock(store.folder, lambda: busy, wait_seconds=_LOCK_SECONDS):
        return _execute(context, store, certbot)


def _execute(context: Context, store: Store, certbot: Certbot) -> dict[str, Any]:
    params, check = context.params, context.check_mode
    if params["state"] == "unlisted":
        removed = remove_unlisted(store, certbot, params["app"], params["keep"], check=check)
        gone = removed.gone + removed.unrenewed
        lines = "".join(f"{name}\n" for name in sorted(gone))
        return {
            "changed": bool(gone),
            "actions": {name: ["removed"] for name in gone},
            "kept": removed.served,
            "diff": {"before": lines, "after": ""},
        }
    entries = [wanted(params, entry) for entry in params["certificates"]]
    if len({one.name for one in entries}) != len(entries):
        raise InputError("A certificate is listed twice.", fix="Give each name once, with all of its names.")
    before = _told(store, entries, params["fail_days"])
    engine = Engine(store, certbot, params["app"], params["fail_days"], check)
    engine.bring(entries, issue=params["issue"], dry_run=params["dry_run"])
    for warning in engine.warnings:
        context.warn(warning)
    after = _told(store, entries, params["fail_days"])
    if engine.problems:
        failures = [{"name": name, **vars(failure)} for name, failure in engine.problems]
        others = sorted(engine.done.keys() - {name for name, _ in engine.problems})
        worked = f" What else was asked for works: {', '.join(others)}." if others else ""
        raise StateError(
            " ".join(f"{failure.problem} {failure.fix}" for _, failure in engine.problems) + worked,
            failures=failures, actions=engine.done, certificates=after, changed=bool(engine.done),
        )  # fmt: skip
    return {
        "changed": bool(engine.done),
        "actions": engine.done,
        "certificates": after,
        "reloaded": engine.reloaded,
        "diff": {"before": _lines(before, {}), "after": _lines(after, engine.done if check else {})},
    }


def _told(store: Store, entries: list[Wanted], fail_days: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in entries:
        found[one.name] = {}
        if current := store.current(one.name):
            found[one.name] = {
                "names": list(current.names),
                "issuer": current.issuer,
                "serial": current.serial,
                "days_left": round(current.days_left(time.time()), 3),
                "late_days": round(current.late_days(fail_days), 3),
                "placeholder": current.placeholder,
            }
    return found


def _lines(certificates: dict[str, Any], foreseen: dict[str, list[str]]) -> str:
    shown = {
        name: {key: told.get(key) for key in ("names", "issuer", "serial")} | {"foreseen": foreseen.get(name, [])}
        for name, told in certificates.items()
    }
    return json.dumps(shown, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Entry point."""
    entry: dict[str, dict[str, Any]] = {
        "name": {"type": "str", "required": True},
        "names": {"type": "list", "elements": "str", "required": True},
        "dns_plugin": {"type": "str"},
        "dns_file": {"type": "path"},
        "dns_propagation_seconds": {"type": "int"},
        "certificate": {"type": "str"},
        "certificate_file": {"type": "path"},
        "key": {"type": "str", "no_log": True},
        "key_file": {"type": "path", "no_log": False},
    }
    run_module(
        execute,
        argument_spec={
            "state": {"type": "str", "choices": ["present", "unlisted"], "default": "present"},
            "certificates": {"type": "list", "elements": "dict", "options": entry, "default": []},
            "issue": {"type": "bool", "default": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "app": {"type": "str", "default": "main"},
            "directory": {"type": "path", "default": "/etc/groundwork/tls"},
            "certbot_directory": {"type": "path", "default": "/etc/letsencrypt"},
            "server": {"type": "str", "default": "https://acme-v02.api.letsencrypt.org/directory"},
            "ca_file": {"type": "path"},
            "email": {"type": "str"},
            "webroot": {"type": "path", "default": "/var/lib/groundwork/acme"},
            "key_type": {"type": "str", "choices": ["ecdsa", "rsa"], "default": "ecdsa", "no_log": False},
            "profile": {"type": "str"},
            "profile_required": {"type": "bool", "default": False},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "fail_days": {"type": "float", "default": 7},
            "dry_run": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
