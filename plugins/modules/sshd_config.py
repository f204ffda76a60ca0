#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Set what sshd does, without locking out who does it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_config
short_description: Set what sshd does, without locking out who does it
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Writes settings into one file in C(/etc/ssh/sshd_config.d) that comes before all others. As sshd takes the first
    value that it finds, the settings count, whatever an image or the provider put there.
  - Before anything goes live, the B(complete) configuration with the new file is tried by C(sshd -t), and C(sshd -T)
    is asked what it means for the SSH connection over which this task came. What would keep its user from coming in
    again is refused, and nothing is changed.
  - A password is only given up by who came in with a key, or when O(admins) can come in with theirs.
  - The port of the connection stays open beside those of the settings. Once a run comes in over one of these, it is
    closed.
  - sshd is reloaded, so that sessions stay. If it does not answer afterwards, the file from before comes back.
  - Not seen are settings that the client does not share, such as C(Ciphers), and what a firewall does to a new port.
requirements:
  - OpenSSH and systemd on the managed host.
attributes:
  check_mode:
    support: full
    description: Tries the complete configuration and looks for what would lock out, and changes nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: A second call writes and reloads nothing.
options:
  settings:
    description:
      - Keywords of sshd_config(5) with their values. Truth values become C(yes) and C(no). A list gives one line for
        each value for keywords such as C(Port) or C(AllowUsers), and for others one line with spaces or commas.
      - C(Match) and C(Include) belong into a file of your own, such as C(/etc/ssh/sshd_config.d/50-mine.conf).
      - Without settings the file is removed.
    type: dict
    default: {}
  admins:
    description: Users with a key and sudo. Where one of them can come in, no password is needed any more.
    type: list
    elements: str
    default: []
  require_connection:
    description:
      - Whether to refuse when the SSH connection of this task cannot be found. V(false) is for other connections.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Keys only
  groundwork.backend.sshd_config:
    settings:
      PasswordAuthentication: false
      KbdInteractiveAuthentication: false
      Port: [22, 2222]
  register: sshd

- name: Tell that a port will close later
  ansible.builtin.debug:
    msg: "Port {{ sshd.kept_port }} is closed once a run comes in over another one."
  when: sshd.kept_port > 0
"""

RETURN = r"""
kept_port:
  description: The connection's port, when it is open only because this run came over it; else 0.
  returned: success
  type: int
ports:
  description: The ports of sshd.
  returned: success
  type: list
  elements: int
  sample: [22, 2222]
reloaded:
  description: Whether a running sshd took over what is new.
  returned: success
  type: bool
connection:
  description: How this task came in, with C(user), C(address), C(port) of the host, and from sshd's log C(method) and
    C(key).
  returned: success
  type: dict
  sample: {user: debian, address: 198.51.100.7, port: 22, method: publickey, key: "SHA256:kE0s5vVV…"}
refused:
  description: What speaks against the change.
  returned: when it would lock out
  type: list
  elements: str
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _sshd
from ansible_collections.groundwork.backend.plugins.module_utils import _sshd_host as host
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._sshd_check import (
    FILE,
    NOBODY,
    attempt,
    keep_port,
    overruled,
    require_read,
    require_way_in,
    who_came,
)


def execute(context: Context) -> dict[str, Any]:
    """Try the settings, look for what would lock out, write and reload."""
    settings: dict[str, Any] = context.params["settings"]
    _sshd.lines(settings)
    before = FILE.read_text() if FILE.exists() else None
    who = who_came(context.params["require_connection"])
    came = (
        {"user": who.user, "address": who.address, "port": who.local_port, "method": who.method, "key": who.key}
        if who
        else {}
    )
    nothing: dict[str, Any] = {"changed": False, "kept_port": 0, "ports": [], "reloaded": False, "connection": came}
    binary = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if binary is None or not (host.ETC / "sshd_config").exists():
        if settings:
            raise DependencyError(
                "There is no OpenSSH server on this host.", fix="Install openssh-server, or leave the settings out."
            )
        return nothing
    if not settings and before is None and not host.PENDING.exists():
        return nothing
    socket = host.is_active("ssh.socket")
    if socket and {"port", "listenaddress"} & {keyword.lower() for keyword in settings}:
        raise InputError(
            "ssh.socket listens in place of sshd on this host, and does not read Port or ListenAddress.",
            fix="Set the ports in a drop-in of ssh.socket, or turn to ssh.service first.",
        )
    folder = Path(context.cleanup.enter_context(tempfile.TemporaryDirectory(prefix="groundwork-sshd-")))
    candidate = host.Candidate.copy(binary, folder, FILE)
    if told := candidate.test():
        raise StateError(
            f"sshd refuses the configuration that is on the host already, so that nothing was changed: {told}",
            fix="Correct the file that sshd names. The running sshd has an older state of it, and could not start.",
        )
    live = candidate.effective(who or NOBODY)
    text, kept = keep_port(candidate, settings, who, socket) if who else (_sshd.render(settings), 0)
    attempt(candidate, text)
    require_read(candidate, text)
    wanted = candidate.effective(who or NOBODY)
    listening = wanted.get("listenaddress", [])
    for one in sorted(set(listening) - set(live.get("listenaddress", []))):
        address, _, port = one.rpartition(":")
        if not socket and host.taken(address, int(port)):
            raise StateError(f"sshd shall listen on {one}, which another program has.", fix="Choose another port.")
    if who:
        require_way_in(candidate, live, who, context.params["admins"])
    for warning in overruled(candidate, settings, who or NOBODY) if text else []:
        context.warn(warning)
    changed = (before or "") != text
    pending = host.PENDING.exists()
    reloaded = False
    if not context.check_mode:
        if changed:
            reloaded = host.apply(FILE, before, text, [] if socket else listening)
        elif pending:
            reloaded = host.reload([] if socket else listening)
            host.PENDING.unlink(missing_ok=True)
    return {
        "changed": changed or pending,
        "kept_port": kept,
        "ports": _sshd.ports(wanted),
        "reloaded": reloaded,
        "connection": came,
        "diff": {"before": before or "", "after": text, "before_header": str(FILE), "after_header": str(FILE)},
    }


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        argument_spec={
            "settings": {"type": "dict", "default": {}},
            "admins": {"type": "list", "elements": "str", "default": []},
            "require_connection": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
