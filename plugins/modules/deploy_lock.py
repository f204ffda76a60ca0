#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let one deploy at a time work on a stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: Let one deploy at a time work on a stack
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Takes a lock on the managed host for the length of a run of Ansible, and lets go of it again. The lock is a file
    that says who holds it, since when and why. It belongs to the run, on all hosts and in all plays of it, so that a
    run takes its own lock again without waiting.
  - A run that was killed leaves its lock. The next run takes it over when the one before is provably dead, which the
    action plugin finds out on the controller. On the same boot of the same machine, no process may be left with that
    number and start time; or the machine of that name was booted again.
  - Nothing else is proof, and no clock is asked. A run on another controller, or in another container, is waited for.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Tells who holds the lock, and neither takes it nor waits for it nor fails.
  diff_mode:
    support: none
    details:
      - At the end of a run the lock is as it was before.
  idempotent:
    support: full
    details:
      - Taking the lock and letting go of it counts as no change, because nothing is left of it. Only removing a lock of
        somebody else is one.
options:
  path:
    description:
      - The lock file on the managed host. Its folder must exist and be on a local file system.
    type: path
    required: true
  state:
    description:
      - V(present) takes the lock.
      - V(absent) lets go of it. A lock that somebody else holds stays, and that is no error, so that this can stand in
        an C(always).
    type: str
    choices: [present, absent]
    default: present
  note:
    description:
      - What the lock is for, as others shall read it. It must hold no secret.
    type: str
    default: ""
  wait:
    description:
      - Seconds to wait for another run that holds the lock.
    type: float
    default: 0
  takeover:
    description:
      - Whether to take over from a run that is provably dead.
      - V(false) is for controllers that were resumed from one snapshot of a running machine. They cannot be told apart.
    type: bool
    default: true
  force:
    description:
      - Take or remove the lock whoever holds it, also one that cannot be read.
    type: bool
    default: false
  owner:
    description:
      - Who takes the lock. The action plugin sets it, and replaces what is given here.
    type: dict
  replaces:
    description:
      - The C(id) of a holder that is known to be dead. The action plugin sets it, and replaces what is given here.
    type: str
    default: ""
notes:
  - Two runs that lock several hosts at once can each get some of them, and then wait for each other until O(wait) is
    over. With C(throttle=1) on the task each takes the hosts in the order of the inventory, and that cannot happen.
  - What a killed run had started on the managed host may go on there for a while after its lock was taken over.
"""

EXAMPLES = r"""
- name: Take the lock
  groundwork.backend.deploy_lock:
    path: /srv/verisphere/deploy.lock
    note: "deploy of 3f9c0d1e2a4b"
    wait: 600
  throttle: 1
  register: lock

- name: Say that the run before was cut off
  ansible.builtin.debug:
    msg: "The deploy of {{ lock.taken_over_from.user }} was cut off. {{ lock.taken_over_from.reason }}"
  when: lock.taken_over_from

- name: Let go of the lock
  groundwork.backend.deploy_lock:
    path: /srv/verisphere/deploy.lock
    state: absent
"""

RETURN = r"""
taken:
  description: Whether this run holds the lock now.
  returned: success
  type: bool
released:
  description: Whether a lock was removed, or would be.
  returned: success
  type: bool
holder:
  description:
    - Who holds the lock, or held it before it was removed; V(null) when nobody does or did.
      Has C(id), C(controller), C(user), C(pid), C(process_started_at), C(taken_at), C(note), and what identifies
      the process, C(start_ticks), C(machine), C(boot_id), C(pid_namespace).
    - Also returned when the task fails because somebody else holds the lock.
  returned: success
  type: dict
verdict:
  description:
    - What is known of the holder. V(mine), V(alive), V(dead) or V(unknown); V(free) when there is none;
      V(damaged) when the lock cannot be read.
    - Also returned when the task fails because somebody else holds the lock.
  returned: success
  type: str
summary:
  description: Holder and verdict as one line for people.
  returned: success
  type: str
  sample: >-
    alice on ci-7 (process 4242, started 2026-11-21T06:11:02Z) since 2026-11-21T06:12:00Z (3 min): deploy of
    3f9c0d1e2a4b. Its process 4242 runs on this controller.
taken_over_from:
  description: The holder whose lock was replaced, with the reason as C(reason); V(null) when there was none.
  returned: success
  type: dict
run:
  description:
    - This run, with C(id), C(controller), C(user) and C(pid). The C(id) is the same in all tasks and on all hosts of a
      run.
  returned: success
  type: dict
waited:
  description: Seconds that were waited.
  returned: success
  type: float
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._lock_record import (
    DamagedError,
    Owner,
    Record,
    read,
    release,
    take,
)
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module


def execute(context: Context) -> dict[str, Any]:
    """Take the lock, let go of it, or tell who holds it."""
    params = context.params
    owner = _owner(params["owner"])
    if not params["wait"] >= 0:
        raise InputError(f"wait is {params['wait']}.", fix="Give a number of seconds, 0 or more.")
    path = Path(params["path"])
    begun = time.monotonic()
    if context.check_mode:
        outcome = _look(path, owner, removes=params["state"] == "absent", force=params["force"])
    elif params["state"] == "present":
        outcome = _take(path, owner, params)
    else:
        outcome = _release(context, path, owner)
    return {
        "changed": False,
        "taken": False,
        "released": False,
        "taken_over_from": None,
        "run": {"id": owner.id, "controller": owner.controller, "user": owner.user, "pid": owner.pid},
        "waited": round(time.monotonic() - begun, 1),
        **outcome,
    }


def _take(path: Path, owner: Owner, params: dict[str, Any]) -> dict[str, Any]:
    record, before = take(
        path, owner, params["note"], wait=params["wait"], replaces=params["replaces"], force=params["force"]
    )
    reason = "force was set." if params["force"] else "It was said to be dead."
    return {
        **_told(record, owner),
        "taken": True,
        "taken_over_from": {**asdict(before), "reason": reason} if before else None,
    }


def _release(context: Context, path: Path, owner: Owner) -> dict[str, Any]:
    try:
        holder, removed = release(path, owner.id, force=context.params["force"])
    except DamagedError as error:
        context.warn(str(error))
        return {"holder": None, "verdict": "damaged", "summary": error.problem}
    foreign = removed and (holder is None or holder.id != owner.id)
    return {**_told(holder, owner), "released": removed, "changed": foreign}


def _look(path: Path, owner: Owner, *, removes: bool, force: bool) -> dict[str, Any]:
    try:
        holder = read(path)
    except DamagedError as error:
        forced = removes and force
        return {
            "holder": None,
            "verdict": "damaged",
            "summary": error.problem,
            "released": forced,
            "changed": forced,
        }
    ours = holder is not None and holder.id == owner.id
    released = removes and holder is not None and (ours or force)
    return {**_told(holder, owner), "taken": ours, "released": released, "changed": released and not ours}


def _told(holder: Record | None, owner: Owner) -> dict[str, Any]:
    if holder is None:
        return {"holder": None, "verdict": "free", "summary": "free"}
    verdict = "mine" if holder.id == owner.id else "unknown"
    return {"holder": asdict(holder), "verdict": verdict, "summary": str(holder)}


def _owner(given: dict[str, Any] | None) -> Owner:
    if given is None:
        raise InputError(
            "The module deploy_lock was started without its action plugin, which says who takes the lock.",
            fix="Use it as a task, under its full name groundwork.backend.deploy_lock.",
        )
    try:
        return Owner.from_dict(given)
    except InputError as error:
        raise InputError(f"owner cannot be used: {error.problem}.", fix="Leave it to the action plugin.") from error


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "note": {"type": "str", "default": ""},
            "wait": {"type": "float", "default": 0},
            "takeover": {"type": "bool", "default": True},
            "force": {"type": "bool", "default": False},
            "owner": {"type": "dict"},
            "replaces": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
