#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore one MongoDB database from a backup set, beside what is live, and swap the two."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mongo_restore
short_description: Restore one MongoDB database beside what is live, check it, then swap the two
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Restores a component in mongodump's directory format, as M(groundwork.backend.mongo_dump) writes it, into the live
    database, under names that begin with C(groundwork.restore.<set id>.). The documents of every collection and the
    definitions of indexes and views are compared with what the backup recorded. Then its collections take the place of
    the live ones, which are kept under names that begin with C(groundwork.before.<set id>.).
  - One document that the server refuses, one file that is not what the manifest says, or one difference is a failure.
    What was restored is dropped then. Until the swap, what is live stays as it is and keeps serving.
  - A swap renames collections inside of their database, which the server does at once and without copying, but one
    after the other. First everything that is live is set aside, then everything that was restored takes its place.
    Views, which cannot be renamed, are made under their new names. Stop what writes into the database before a swap.
  - A swap that was cut off leaves some collections restored and others set aside. The next V(swap) or V(restore) of
    O(action) with the same set finishes it, and V(revert) takes it back. It stands in the collection
    C(groundwork.restore) of the database how far it is. What a program has made meanwhile in the place of a collection
    that was set aside is set aside, too, under C(groundwork.before.<set id>_2.).
  - When a prefix is taken, C(_2) and so on is behind the id of the set. A server allows 255 bytes for the names of
    database and collection together; a collection whose name would be longer is called by its sha256 meanwhile.
  - M(groundwork.backend.mongo_dump) does not dump these collections.
  - The owner of the database (C(dbOwner)) has all the rights that are needed, but for O(target).
  - Users are not restored; C(mongorestore --restoreDbUsersAndRoles) reads them from the same folder.
  - A server of an older series than the one that was dumped is warned of. What it does not take is a failure.
  - Servers before MongoDB 8.0 put their own time in the place of an empty timestamp (C(Timestamp(0, 0)), at the top of
    a document and not in C(_id)) whenever a document is inserted, also here.
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
      - What is staged from the same set is not restored once more. Once it is live, V(restore) and V(stage) of
        O(action) restore the set again.
options:
  action:
    description:
      - V(stage) restores beside what is live and checks it.
      - V(swap) makes it live, or goes on with that.
      - V(restore) does both. It needs O(force) when the live database has collections.
      - V(revert) takes a swap back, also one that was cut off. What was live until then waits as
        C(groundwork.reverted.<set id>.), with all that was written into it; the next V(stage) or V(discard) drops it.
        Without a swap to take back, nothing is done.
      - V(discard) drops what is staged, and with O(before) what was live before.
      - V(measure) tells whether the server has room for what would be restored, and fails when it has not, as V(stage)
        does before it begins. It reads no documents, and changes nothing.
      - V(finish) makes a swap final. It cannot be taken back any more; what was live before stays until it is dropped.
    type: str
    required: true
    choices: [restore, measure, stage, swap, revert, discard, finish]
  set_path:
    description:
      - Folder of the committed set on the managed host, as M(groundwork.backend.backup_set) returns it.
      - With V(revert), V(discard) and V(finish) of O(action), the set may be gone or damaged when O(database) is set.
        The name of the folder, which is the id of the set, and O(component) are enough then.
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
      - With V(stage) and V(discard), the name of a scratch database to restore into, for a drill. The user needs rights
        there. One that this module has not made is refused without O(force). The live database is never overwritten.
    type: str
  jobs:
    description: How many collections to restore at a time, at most 64. Each takes some 20 MB of memory.
    type: int
    default: 4
  force:
    description:
      - Whether V(restore) may replace what is live (which is kept), and V(stage) overwrite O(target).
    type: bool
    default: false
  roles:
    description:
      - With V(stage) and V(restore), whether to create the roles of the database that the backup has (C(users) of
        M(groundwork.backend.mongo_dump)) and the server has not. A role that exists is never altered. Roles stay when
        the restore fails. Nothing is done for a O(target), or for another O(database) than the one that was dumped.
      - Users are not created, as a server takes the hashes of their passwords only from its own tools. Those that the
        server does not have are named in a warning.
    type: bool
    default: true
  check_space:
    description:
      - Whether to refuse a restore for which the server plainly has no room where it keeps its data.
      - What is restored is estimated by what its collections took when they were dumped (C(database_bytes) of the
        component). Nothing is asked when the set does not tell that, or the server does not tell what is free.
    type: bool
    default: true
  before:
    description:
      - With V(discard), whether to drop what was live before a swap with this set as well. The restore is final then.
    type: bool
    default: false
  keep_reverted:
    description:
      - With V(discard), whether to keep what was live until a V(revert). Nothing drops it then.
    type: bool
    default: false
  progress_file:
    description:
      - File on the managed host that tells how far the restore is. It is set by the action plugin.
    type: path
notes:
  - A sharded cluster is refused without O(target), and a member of a replica set that is not the primary in any case.
  - Time series, and C(system.js), can be restored into a O(target), and cannot be renamed. A set that has them is
    refused without O(target), and so is a live database with time series; restore it with C(mongorestore).
seealso:
  - module: groundwork.backend.mongo_dump
  - module: groundwork.backend.backup_set
"""

EXAMPLES = r"""
- name: Restore a set beside what is live, and check it
  groundwork.backend.mongo_restore:
    action: stage
    login_user: appuser
    login_password: "{{ mongo_password }}"
    auth_source: innova_db
    set_path: "/var/backups/innovaplus/{{ backups.latest }}"
    component: innova_db
  register: restored

- name: Say what is staged
  ansible.builtin.debug:
    msg: "{{ restored.counts | length }} collections are complete as {{ restored.staged }}"

- name: Make it live
  groundwork.backend.mongo_restore:
    action: swap
    login_user: appuser
    login_password: "{{ mongo_password }}"
    auth_source: innova_db
    set_path: "/var/backups/innovaplus/{{ backups.latest }}"
    component: innova_db
  register: swapped

- name: Say what became of what was live
  ansible.builtin.debug:
    msg: "What was live is kept as {{ swapped.before }}"

- name: Drop it
  groundwork.backend.mongo_restore:
    action: discard
    before: true
    login_user: appuser
    login_password: "{{ mongo_password }}"
    auth_source: innova_db
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
      the backup. Of a set that cannot be read, the first four.
  returned: success
  type: dict
database:
  description: Name of the live database.
  returned: success
  type: str
  sample: innova_db
staged:
  description:
    - What the restored collections are called while they are not live, or the O(target); V(null) when there are none.
  returned: success
  type: str
  sample: innova_db.groundwork.restore.20261121t061200z.*
before:
  description: What those that were live before the swap are called; V(null) when there are none, or the swap is final.
  returned: success
  type: str
  sample: innova_db.groundwork.before.20261121t061200z.*
live_from_set:
  description: Whether what is live came from this set and can be taken back.
  returned: success
  type: bool
space:
  description:
    - Bytes that the restored collections take (C(needed)), bytes that they may take (C(free)), and where (C(path)).
    - What nobody can tell is V(null); all of it is, when O(check_space) is V(false).
  returned: when action is measure, or there is no room
  type: dict
  sample: {needed: 1288490188, free: 52613349376, path: the data directory}
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
  sample: [restore 3 collections and 1 views into innova_db.groundwork.restore.20261121t061200z.*]
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
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump, load, parts
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_actions import ACTIONS, BY_NAME, Run
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import Place
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import Stage
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held
from ansible_collections.groundwork.backend.plugins.module_utils._sets import is_id


def execute(context: Context) -> dict[str, Any]:
    """Read the manifest and the definitions, connect, do what the option action says."""
    clock, params = time.monotonic(), context.params
    set_path, target, action = Path(params["set_path"]), params["target"], params["action"]
    if target is not None and action not in ("stage", "discard"):
        raise InputError("target is for action: stage and discard.", fix="Leave it out.")
    jobs = check_jobs(params["jobs"])
    dump = _dump(context, set_path)
    live = check_database(params["database"] or (dump.database if dump else ""))
    if target == live:
        raise InputError(f"The target {target!r} is the live database.", fix="Use another name.")
    work = Work(context.cleanup.enter_context(Progress(params["progress_file"])), "restore")
    server = context.cleanup.enter_context(connect(params, f"groundwork mongo_restore {os.getpid()}"))
    place = Place(
        server=server,
        database=check_database(target, "target") if target else live,
        set_id=dump.set_id if dump else set_path.name,
        component=params["component"],
        beside=target is None,
    )
    stage = None
    if dump is not None and action not in BY_NAME:
        work.total = dump.component.facts.get("data_bytes")
        stage = Stage(place, dump, parts(dump), jobs, work)
    run = Run(place, stage, params, context.check_mode, work, context.warn)
    result = ACTIONS[action](run)
    named = {"engine": "mongo", "name": place.component, "database": live, "set": place.set_id}
    summary = dump.summary() if dump else named
    return {**result, "database": live, "component": summary, "seconds": round(time.monotonic() - clock, 3)}


def _dump(context: Context, set_path: Path) -> Dump | None:
    """The component; None when the set cannot be read and the action needs no more than its name."""
    params = context.params
    by_name = params["action"] in BY_NAME and params["database"] is not None and is_id(set_path.name)
    try:
        if not set_path.is_dir():
            raise InputError(f"{set_path} is no folder of a backup set.", fix="Correct set_path.")
        if not context.cleanup.enter_context(held(set_path)):
            raise StateError(f"The set in {set_path} is being removed.", fix="Use another set.")
        dump = load(set_path, params["component"])
    except (StateError, InputError):
        if by_name:
            return None
        raise
    if by_name and not dump.folder.is_dir():
        return dump  # two runs have nothing to share
    context.cleanup.enter_context(directory_lock(dump.folder, lambda: _busy(params["component"])))
    return dump


def _busy(component: str) -> GroundworkError:
    return StateError(f"Component {component!r} of this set is being restored already.", fix="Wait until it has ended.")


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        **mongo_options(
            {
                "action": {"type": "str", "required": True, "choices": list(ACTIONS)},
                "set_path": {"type": "path", "required": True},
                "component": {"type": "str", "required": True},
                "database": {"type": "str"},
                "target": {"type": "str"},
                "jobs": {"type": "int", "default": 4},
                "force": {"type": "bool", "default": False},
                "roles": {"type": "bool", "default": True},
                "check_space": {"type": "bool", "default": True},
                "before": {"type": "bool", "default": False},
                "keep_reverted": {"type": "bool", "default": False},
                "progress_file": {"type": "path"},
            }
        ),
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
