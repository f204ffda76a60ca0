#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write and read the log of a stack's deploys."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_log
short_description: Write and read the log of a stack's deploys
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Appends one line of JSON per step of a deploy to a file on the managed host, and reads the last ones.
  - A line is on the disk when the task has ended. Several runs can append at once. A line that a crash has cut off
    harms no other one; it is left out and counted when the log is read.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Says what would be appended, and whether the folder is there.
  diff_mode:
    support: full
    details:
      - Shows the appended entry.
  idempotent:
    support: partial
    details:
      - O(action=append) appends each time. O(action=read) changes nothing.
options:
  action:
    description:
      - V(append) adds an entry, with the time of the managed host.
      - V(read) returns the last entries.
    type: str
    choices: [append, read]
    default: append
  path:
    description:
      - The log on the managed host. Its folder must exist; the file is made with mode C(0600).
    type: path
    required: true
  deploy:
    description:
      - Id of the deploy that the entry belongs to, such as C(run.id) of M(groundwork.backend.deploy_lock).
      - Required for O(action=append). With O(action=read), only its entries are returned.
    type: str
  step:
    description:
      - The step of the deploy, such as V(migrate). Required for O(action=append).
    type: str
  result:
    description:
      - How it went. Required for O(action=append).
    type: str
    choices: [started, ok, failed, rolled_back]
  release:
    description:
      - Id of the release.
    type: str
  host:
    description:
      - Name of the host that the step was done on. The default is the name that the managed host has for itself.
    type: str
  user:
    description:
      - Who deploys.
    type: str
  controller:
    description:
      - The machine that deploys.
    type: str
  note:
    description:
      - Anything else, as others shall read it, such as the reason of a failure. It must hold no secret.
    type: str
    default: ""
  seconds:
    description:
      - How long the step took.
    type: float
  last:
    description:
      - For O(action=read), how many entries to return.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Say that the migrations were applied
  groundwork.backend.deploy_log:
    path: /srv/verisphere/deploy.jsonl
    deploy: "{{ lock.run.id }}"
    step: migrate
    result: ok
    release: 3f9c0d1e2a4b
    host: "{{ inventory_hostname }}"
    user: "{{ lock.run.user }}"
    controller: "{{ lock.run.controller }}"

- name: Read the last entries
  groundwork.backend.deploy_log:
    action: read
    path: /srv/verisphere/deploy.jsonl
    last: 5
  register: log

- name: Show them
  ansible.builtin.debug:
    msg: "{{ log.entries }}"
"""

RETURN = r"""
entry:
  description: The entry, as it was appended. What was not given is V(null).
  returned: when action is append
  type: dict
  sample:
    time: "2026-11-21T06:12:00Z"
    deploy: 5b0cf1a7d2e94c30
    step: migrate
    result: ok
    release: 3f9c0d1e2a4b
    host: app1
    user: alice
    controller: ci-7
    note: ""
    seconds: 1.5
entries:
  description: The last entries, oldest first.
  returned: when action is read
  type: list
  elements: dict
torn:
  description: How many lines of the whole log were cut off by a crash and are left out.
  returned: when action is read
  type: int
"""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._audit import append, read, require_loggable
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module

_FIELDS = ("deploy", "step", "result", "release", "host", "user", "controller", "note", "seconds")


def execute(context: Context) -> dict[str, Any]:
    """Append or read."""
    params = context.params
    path = Path(params["path"])
    if params["action"] == "read":
        if params["last"] < 1:
            raise InputError(f"last is {params['last']}.", fix="Give how many entries to return, 1 or more.")
        entries, torn = read(path, params["last"], params["deploy"])
        return {"changed": False, "entries": entries, "torn": torn}
    entry = {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **{name: params[name] for name in _FIELDS},
        "host": params["host"] or platform.node(),
    }
    if context.check_mode:
        require_loggable(path)
    else:
        append(path, entry)
    return {"changed": True, "entry": entry, "diff": {"before": {}, "after": entry}}


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        argument_spec={
            "action": {"type": "str", "choices": ["append", "read"], "default": "append"},
            "path": {"type": "path", "required": True},
            "deploy": {"type": "str"},
            "step": {"type": "str"},
            "result": {"type": "str", "choices": ["started", "ok", "failed", "rolled_back"]},
            "release": {"type": "str"},
            "host": {"type": "str"},
            "user": {"type": "str"},
            "controller": {"type": "str"},
            "note": {"type": "str", "default": ""},
            "seconds": {"type": "float"},
            "last": {"type": "int", "default": 20},
        },
        required_if=[("action", "append", ("deploy", "step", "result"))],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
