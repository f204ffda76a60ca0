#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore one MongoDB database from a backup set, beside the live one, and swap the two."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mongo_restore
short_description: Restore one MongoDB database beside the live one, check it, then swap the two
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Restores a component in mongodump's directory format, as M(groundwork.backend.mongo_dump) writes it, into a new
    database. The documents of every collection and the definitions of indexes and views are compared with what the
    backup recorded. Then its collections take the place of the live ones.
  - One document that the server refuses, one file that is not what the manifest says, or one difference is a failure.
    The new database is dropped then. Until the swap, the live database stays as it is and keeps serving.
  - The new database is C(<database>_restore_<set id>), in lower case. A name of more than 63 bytes is cut, and gets
    the first 8 digits of the sha256 of O(database) behind the cut. A server allows 255 bytes for the names of database
    and collection together, so beside a very long name of a collection it is C(g) and digits of a sha256.
  - MongoDB cannot rename a database, so the swap moves one collection after the other, in this order. The plan is
    written into the new database. Live views that have the name of a restored collection are dropped. Each collection
    replaces the live one of its name, by name. Views are made anew. What the backup does not have is dropped. The new
    database is dropped.
  - A swap that was cut off leaves some collections restored and others as they were. The next V(swap) or V(restore) of
    O(action) with the same set finishes it. Stop what writes into the database before a swap.
  - A swap replaces what was live and cannot be taken back; take a backup before it. To move a collection from one
    database to another, the server copies it, so there must be room for the data twice.
  - The user needs rights for both databases, as the role C(root) has them, or C(readWriteAnyDatabase) together with
    C(dbAdminAnyDatabase). The owner of the live database alone cannot restore it.
  - Users and roles are not restored; C(mongorestore --restoreDbUsersAndRoles) reads them from the same folder.
extends_documentation_fragment:
  - groundwork.backend._mongo
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads and compares every file of the component, connects, and tells in RV(actions) what would be done. What only
        the restore itself can find out is not found.
  diff_mode:
    support: none
    details:
      - RV(actions) tells what is done. Documents are not compared.
  idempotent:
    support: partial
    details:
      - A database that is staged from the same set is not restored once more. Once it is live, nothing tells where it
        came from, so V(restore) of O(action) restores it again.
options:
  action:
    description:
      - V(stage) restores into a new database beside the live one and checks it.
      - V(swap) makes the staged database the live one, or goes on with that.
      - V(restore) does both. It needs O(force) when the live database exists.
      - V(discard) drops the staged database.
    type: str
    required: true
    choices: [restore, stage, swap, discard]
  set_path:
    description: Folder of the committed set on the managed host, as M(groundwork.backend.backup_set) returns it.
    type: path
    required: true
  component:
    description: Name of the component in the set.
    type: str
    required: true
  database:
    description: Name of the live database. The default is the one that was dumped.
    type: str
  target:
    description:
      - With V(stage) and V(discard), the name of a scratch database in place of the one beside the live one, for a
        drill. One that exists is refused without O(force). The live database is never overwritten.
    type: str
  jobs:
    description: How many collections to restore at a time, at most 64. Each takes some 20 MB of memory.
    type: int
    default: 4
  force:
    description:
      - Whether V(restore) may replace a live database, and V(stage) overwrite O(target).
    type: bool
    default: false
  progress_file:
    description:
      - File on the managed host that tells how far the restore is. It is set by the action plugin.
    type: path
notes:
  - Time series, and C(system.js), can be restored into a O(target), and not be moved from there. A set that has them is
    refused without O(target); restore it with C(mongorestore).
seealso:
  - module: groundwork.backend.mongo_dump
  - module: groundwork.backend.backup_set
"""

EXAMPLES = r"""
- name: Restore a set beside the live database, and check it
  groundwork.backend.mongo_restore:
    action: stage
    login_user: admin
    login_password: "{{ mongo_admin_password }}"
    set_path: "/var/backups/innovaplus/{{ backups.latest }}"
    component: innova_db
  register: restored

- name: Say what is staged
  ansible.builtin.debug:
    msg: "{{ restored.counts | length }} collections are complete in {{ restored.staged }}"

- name: Make it the live one
  groundwork.backend.mongo_restore:
    action: swap
    login_user: admin
    login_password: "{{ mongo_admin_password }}"
    set_path: "/var/backups/innovaplus/{{ backups.latest }}"
    component: innova_db

- name: Prove that a set restores, without touching what is live
  groundwork.backend.mongo_restore:
    action: stage
    login_port: 27018
    set_path: /var/backups/innovaplus/20261121T061200Z
    component: innova_db
    target: innova_drill
    force: true
"""

RETURN = r"""
component:
  description:
    - What was restored, with C(engine), C(name), C(database), C(set), C(bytes), C(server_version) and C(consistent) of
      the backup.
  returned: success
  type: dict
database:
  description: Name of the live database.
  returned: success
  type: str
  sample: innova_db
staged:
  description: Name of the restored database beside the live one or of the O(target); V(null) when there is none.
  returned: success
  type: str
  sample: innova_db_restore_20261121t061200z
counts:
  description:
    - Documents by collection, as the backup counted them and the restored database was found to hold them.
    - V(null) when nothing was restored.
  returned: success
  type: dict
  sample: {customers: 500}
actions:
  description: What was done, or in check mode would be done, in order.
  returned: success
  type: list
  elements: str
  sample: [restore 3 collections and 1 views into innova_db_restore_20261121t061200z]
seconds:
  description: How long it took, in seconds.
  returned: success
  type: float
differences:
  description: One phrase for each collection, view or index that is not as the backup recorded it.
  returned: when what was restored is not what the backup recorded
  type: list
  elements: str
  sample: [customers has 499 documents instead of 500]
"""

import os
import time
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import check_database, connect, mongo_options
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work, check_jobs
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import load, parts, staged_name
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_actions import ACTIONS, Run
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import Stage
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held


def execute(context: Context) -> dict[str, Any]:
    """Read the manifest and the definitions, connect, do what the option action says."""
    clock, params = time.monotonic(), context.params
    set_path, target = Path(params["set_path"]), params["target"]
    if target is not None and params["action"] not in ("stage", "discard"):
        raise InputError("target is for action: stage and discard.", fix="Leave it out.")
    if not set_path.is_dir():
        raise InputError(f"{set_path} is no folder of a backup set.", fix="Correct set_path.")
    if not context.cleanup.enter_context(held(set_path)):
        raise StateError(f"The set in {set_path} is being removed.", fix="Use another set.")
    dump = load(set_path, params["component"])
    context.cleanup.enter_context(directory_lock(dump.folder, lambda: _busy(params["component"])))
    live = check_database(params["database"] or dump.database)
    if target == live:
        raise InputError(f"The target {target!r} is the live database.", fix="Use another name.")
    work = Work(context.cleanup.enter_context(Progress(params["progress_file"])), "restore")
    work.total = dump.component.facts.get("data_bytes")
    server = context.cleanup.enter_context(connect(params, f"groundwork mongo_restore {os.getpid()}"))
    found = parts(dump)
    stage = Stage(
        dump=dump,
        parts=found,
        server=server,
        name=check_database(target, "target") if target else staged_name(dump, live, found),
        live=live,
        jobs=check_jobs(params["jobs"]),
        work=work,
    )
    run = Run(stage, target is not None, params["force"], context.check_mode)
    result = ACTIONS[params["action"]](run)
    return {**result, "component": dump.summary(), "seconds": round(time.monotonic() - clock, 3)}


def _busy(component: str) -> GroundworkError:
    return StateError(f"Component {component!r} of this set is being restored already.", fix="Wait until it has ended.")


def main() -> None:
    """Run the module."""
    login = mongo_options()
    run_module(
        execute,
        argument_spec={
            **login["argument_spec"],
            "action": {"type": "str", "required": True, "choices": ["restore", "stage", "swap", "discard"]},
            "set_path": {"type": "path", "required": True},
            "component": {"type": "str", "required": True},
            "database": {"type": "str"},
            "target": {"type": "str"},
            "jobs": {"type": "int", "default": 4},
            "force": {"type": "bool", "default": False},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=login["mutually_exclusive"],
        required_together=login["required_together"],
        required_by=login["required_by"],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
