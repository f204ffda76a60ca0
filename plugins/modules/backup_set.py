#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Begin, commit, verify, prove, list and prune the backup sets of a stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_set
short_description: Begin, commit, verify, prove, list and prune the backup sets of a stack
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - A backup set is one folder with the dump of every store of a stack and one C(manifest.json).
    It is complete or absent.
  - O(action=begin) makes the folder that the store modules write into; O(action=commit) reads every file again,
    compares it with what the store modules reported, writes the manifest and gives the folder its final name.
  - The folder of a set that is being written begins with C(.partial-) and is never read as a backup. One that is being
    removed begins with C(.removing-); what a crash left of it is removed by the next begin, prune or prove.
  - Nothing but O(action=prune) ever removes a committed set.
extends_documentation_fragment:
  - groundwork.backend._backup_keep
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - With O(action=commit), files are compared only when the set that is to be committed exists.
  diff_mode:
    support: full
    details:
      - Shows the names of the committed sets and of those that are being written.
  idempotent:
    support: partial
    details:
      - O(action=begin) begins a new set each time.
      - O(action=commit) and O(action=abort) of a set that is committed or gone already change nothing.
      - O(action=prove) records each proof, with its time.
options:
  action:
    description:
      - V(begin) makes a new set's folder. Sets whose writing was cut off are removed, and free space is checked.
      - V(commit) completes the set with the id O(id). When it fails, the set stays as it is, uncommitted.
      - V(abort) removes the uncommitted set with the id O(id), for the C(rescue) of a backup that failed.
      - V(list) tells which sets exist.
      - V(verify) reads every file of the set O(id) again and compares it with the manifest. It fails when something
        differs, and writes nothing.
      - V(prune) removes the committed sets that no rule of O(keep) holds. Check mode is the dry run.
      - V(prove) writes into the manifest of the set O(id) that it was restored, which a drill found. The set is not
        restored by it. A later proof takes the place of the one before.
    type: str
    required: true
    choices: [begin, commit, abort, list, verify, prune, prove]
  path:
    description:
      - Folder of the stack's sets on the managed host, such as C(/var/backups/verisphere).
        Nothing else belongs into it.
      - O(action=begin) creates it with mode C(0700).
    type: path
    required: true
  stack:
    description:
      - Name of the stack. A set whose manifest names another stack counts as damaged.
    type: str
    required: true
  id:
    description:
      - Id of the set, a UTC time such as V(20261121T061200Z).
      - Required for O(action=commit), O(action=abort), O(action=verify) and O(action=prove). With O(action=begin), the
        default is the time of the host.
      - O(action=verify) takes V(latest) and V(all) as well. V(latest) is the set that RV(latest) names.
    type: str
  components:
    description:
      - For O(action=commit), what the store modules returned as C(component), unchanged. At least one.
      - For O(action=prove), what the drill found of each component of the set, with its C(name). It is kept in the
        manifest as it is.
    type: list
    elements: dict
  release:
    description:
      - Id of the release that was deployed when the set was made. It is kept in the manifest.
    type: str
  hosts:
    description:
      - Names of the hosts that the set was taken from. The default is the name of the managed host.
    type: list
    elements: str
  schema_versions:
    description:
      - Schema version by component name, kept in the manifest. What components report themselves need not be repeated.
    type: dict
    default: {}
  min_free_bytes:
    description:
      - Bytes that must stay free after a set that is 1.1 times as large as the last one.
    type: int
    default: 0
  stale_after:
    description:
      - Seconds without a change after which O(action=begin) takes an uncommitted set for interrupted and removes it.
      - One that was begun before the last boot of the host is interrupted at once.
    type: int
    default: 21600
  full:
    description:
      - For O(action=prune), read every file of every set first, so that one in which a bit has flipped does not count.
      - Otherwise a set counts when its manifest holds and its files have their sizes.
    type: bool
    default: false
  seconds:
    description:
      - For O(action=prove), how long the restore took.
    type: float
"""

EXAMPLES = r"""
- name: Begin a backup set
  groundwork.backend.backup_set:
    action: begin
    path: /var/backups/verisphere
    stack: verisphere
  register: backup

- name: Dump the database into it
  groundwork.backend.pg_backup:
    container: verisphere-postgres-1
    database: verisphere
    dest: "{{ backup.path }}/components/verisphere"
  register: dump

- name: Commit the set
  groundwork.backend.backup_set:
    action: commit
    path: /var/backups/verisphere
    stack: verisphere
    id: "{{ backup.id }}"
    components: ["{{ dump.component }}"]

- name: Find the newest set
  groundwork.backend.backup_set:
    action: list
    path: /var/backups/verisphere
    stack: verisphere
  register: backups

- name: Fail when there is none
  ansible.builtin.assert:
    that: backups.latest is not none

- name: Verify it
  groundwork.backend.backup_set:
    action: verify
    path: /var/backups/verisphere
    stack: verisphere
    id: latest

- name: Remove old sets
  groundwork.backend.backup_set:
    action: prune
    path: /var/backups/verisphere
    stack: verisphere
    keep: {daily: 7, weekly: 4, monthly: 12}
  register: pruned

- name: Tell why each set stays or goes
  ansible.builtin.debug:
    msg: "{{ pruned.explained }}"

- name: Record that a drill has restored the set
  groundwork.backend.backup_set:
    action: prove
    path: /var/backups/verisphere
    stack: verisphere
    id: "{{ backups.latest }}"
    seconds: 74.5
    components:
      - {name: verisphere, seconds: 71.2, counts: {public.claims: 40712}}
"""

RETURN = r"""
id:
  description: Id of the set.
  returned: when action is begin or commit or abort or prove
  type: str
  sample: 20261121T061200Z
path:
  description:
    - Folder of the set. After O(action=begin) the store modules write into C(components/<name>) inside it.
  returned: when action is begin or commit or abort or prove
  type: str
  sample: /var/backups/verisphere/.partial-20261121T061200Z
removed:
  description:
    - Ids of the sets that were removed, oldest first. With O(action=begin) and O(action=abort), the folders of
      interrupted sets and interrupted removals.
  returned: when action is begin or abort or prune
  type: list
  elements: str
removed_bytes:
  description: Size of the sets that were removed, in bytes.
  returned: when action is prune
  type: int
kept:
  description:
    - The sets that stay, newest first, each with C(id) and C(reasons), a list such as C(["daily 1", "weekly 1"]).
      Behind C((oldest\)) the rule has found too few periods. A damaged set has C(damaged), one from the future has
      C(future), and one that no rule holds but that is being read has C(in use).
  returned: when action is prune
  type: list
  elements: dict
explained:
  description: One sentence for each set, newest first, that says why it stays or goes.
  returned: when action is prune
  type: list
  elements: str
  sample:
    - "20261121T020000Z stays: daily 1, weekly 1, monthly 1."
    - "20261112T020000Z goes: daily: 7 newer days kept; weekly: 20261115T020000Z is the newest of its week."
verified:
  description: Ids of the sets that hold, file by file. Also returned when the task fails because of others.
  returned: when action is verify
  type: list
  elements: str
free_bytes:
  description: Free space on the file system of O(path) after the begin, in bytes.
  returned: when action is begin
  type: int
manifest:
  description: The manifest; V(null) in check mode when there is no set yet.
  returned: when action is commit or prove
  type: dict
sets:
  description:
    - The usable sets, newest first. Each has C(id), C(path), C(created_at), C(age_seconds), C(seconds), C(bytes),
      C(release), C(components), a list of names, and C(proven).
    - C(age_seconds) counts from the begin of the set, and is negative when the set is dated after the host's clock.
    - C(proven) is what the last drill that restored the set found, with C(at), C(seconds), C(host) and C(components),
      or V(null).
  returned: when action is list
  type: list
  elements: dict
newest:
  description:
    - Manifest of the set RV(latest), with C(path), C(age_seconds), C(bytes) and C(proven) as in RV(sets); or V(null).
  returned: when action is list
  type: dict
latest:
  description:
    - Id of the newest usable set, or V(null). One that is dated more than an hour after the clock of the host is the
      latest only when all are, so that a clock that once ran ahead does not hide newer sets.
  returned: when action is list
  type: str
count:
  description: How many usable sets there are.
  returned: when action is list
  type: int
bytes:
  description: Size of the committed set, or of all usable sets, in bytes.
  returned: when action is commit or list
  type: int
damaged:
  description:
    - Sets that cannot be used, each with C(id), C(path) and C(reason); with O(action=verify) also C(reasons), a list of
      all that is wrong. Also returned when the task fails because of them.
  returned: when action is list or prune or verify
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import check_name
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._retention import keep_options
from ansible_collections.groundwork.backend.plugins.module_utils._set_keep import list_sets, prove, prune, verify
from ansible_collections.groundwork.backend.plugins.module_utils._set_write import abort, begin, commit
from ansible_collections.groundwork.backend.plugins.module_utils._sets import parse_id

_ACTIONS = {
    "begin": begin,
    "commit": commit,
    "abort": abort,
    "list": list_sets,
    "verify": verify,
    "prune": prune,
    "prove": prove,
}


def execute(context: Context) -> dict[str, Any]:
    """Do what the option action says."""
    params = context.params
    words = ("all", "latest") if params["action"] == "verify" else ()
    if params["id"] is not None and params["id"] not in words:
        parse_id(params["id"])
    check_name(params["stack"], "The stack's name")
    return _ACTIONS[params["action"]](context, Path(params["path"]))


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        argument_spec={
            **keep_options()["argument_spec"],
            "action": {"type": "str", "required": True, "choices": list(_ACTIONS)},
            "path": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "id": {"type": "str"},
            "components": {"type": "list", "elements": "dict"},
            "release": {"type": "str"},
            "hosts": {"type": "list", "elements": "str"},
            "schema_versions": {"type": "dict", "default": {}},
            "min_free_bytes": {"type": "int", "default": 0},
            "stale_after": {"type": "int", "default": 21600},
            "full": {"type": "bool", "default": False},
            "seconds": {"type": "float"},
        },
        required_if=[
            ("action", "commit", ("id", "components")),
            ("action", "abort", ("id",)),
            ("action", "verify", ("id",)),
            ("action", "prune", ("keep",)),
            ("action", "prove", ("id", "seconds", "components")),
        ],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
