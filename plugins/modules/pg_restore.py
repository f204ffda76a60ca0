#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore one PostgreSQL database from a backup set, beside the live one, and swap the two."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore one PostgreSQL database beside the live one, check it, then swap the two
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Restores a component that M(groundwork.backend.pg_backup) wrote into a new database, and compares the rows of every
    table, the extensions and the indexes with what the backup recorded. Then the new database takes the name of the
    live one, which is kept under another name.
  - Whatever fails, the live database stays as it is and keeps serving. A run that was cut off is continued by the next.
  - Every file of the component is compared with the manifest while it is loaded, and nothing counts before that. It is
    compared first where an older database would be dropped, where roles are created, and for the format C(plain).
  - The new database is C(<database>_restore_<set id>), in lower case, the kept one C(<database>_before_<set id>), with
    C(_2) and so on behind it when that name is taken. A name of more than 63 bytes is cut, and gets the first 8 digits
    of the sha256 of O(database) behind the cut.
  - What a database is to a restore stands in the last line of its comment, which begins with C(groundwork.restore).
extends_documentation_fragment:
  - groundwork.backend._pgrestore
  - groundwork.backend._postgres_client
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads and compares every file of the component, connects, compares the versions and tells in RV(actions) what
        would be done. What only the restore itself can find out is not found.
  diff_mode:
    support: full
    details:
      - Shows the databases of the restore and what each of them is.
  idempotent:
    support: full
    details:
      - A database that is staged, or that is live already, from the same set is not restored once more, unless
        O(again) is set.
options:
  action:
    description:
      - V(stage) restores into a new database beside the live one and checks it.
      - V(swap) makes the staged database the live one. New connections wait while transactions end; the renames are one
        transaction. Where there is no live database, the staged one just gets its name.
      - V(restore) does both. It needs O(force) when the live database exists.
      - V(revert) takes a swap back. The database that was live until then becomes the staged one, with all that was
        written into it; the next V(stage) or V(discard) drops it.
      - V(discard) drops the staged database, and with O(before) the kept ones.
      - V(measure) tells whether the server has room for the restored database, and fails when it has not, as V(stage)
        does before it begins. It reads none of the files, and changes nothing.
      - V(finish) makes a swap final. It cannot be taken back any more; what was live before stays until it is dropped.
    type: str
    required: true
    choices: [restore, measure, stage, swap, revert, discard, finish]
  set_path:
    description:
      - Folder of the committed set on the managed host, as M(groundwork.backend.backup_set) returns it.
      - With V(swap), V(revert), V(discard) and V(finish), only the manifest is read.
      - With V(revert), V(discard) and V(finish), the set may be gone or damaged when O(database) is set. The name of
        the folder, which is the id of the set, and O(component) are enough then.
    type: path
    required: true
  component:
    description: Name of the component in the set.
    type: str
    required: true
  container_tmp:
    description:
      - Folder in the container for a copy of the dump, which is removed afterwards.
      - A copy is needed for the format C(directory), and for C(custom) with more than one of O(jobs).
    type: str
    default: /tmp
  maintenance_database:
    description:
      - Database to log in to for everything that is not inside of the restored one. It cannot be the live one.
    type: str
    default: postgres
  target:
    description:
      - With V(stage), the name of a scratch database to restore into, in place of the one beside the live one, for a
        drill. It is complete under this name only when the module succeeds.
      - One that exists is refused without O(force). The live database is never overwritten.
    type: str
  jobs:
    description:
      - How many processes restore and count. A plain dump is restored by one.
      - The default is the number of CPUs of the managed host, at most 4; into a container it is 1 for the format
        C(custom), which then needs no copy.
    type: int
  roles:
    description:
      - Whether to create the roles of C(globals.sql) that the server does not have, with their passwords, settings and
        memberships. A role that exists is never altered. Roles stay when the restore fails.
    type: bool
    default: true
  analyze:
    description:
      - Whether to make the planner's statistics, which are not in a dump, before the database goes live.
      - The default is V(true) without O(target).
    type: bool
  check_space:
    description:
      - Whether to refuse a restore for which the file system of the server's data directory plainly has no room.
      - What the restored database takes is estimated by its size when it was dumped (C(database_bytes) of the
        component, without tables of other tablespaces). A database that was bloated takes less than that, and so does
        one on a file system that compresses.
      - Nothing is asked when the set does not tell that size, and when the data directory cannot be seen, on a server
        of another machine, or by a role that neither is a superuser nor in C(pg_read_all_settings).
    type: bool
    default: true
  drain_seconds:
    description:
      - How long V(swap) and V(revert) let transactions go on, before they end the sessions that are left.
      - Sessions without a transaction are ended at once.
    type: float
    default: 10
  before:
    description:
      - With V(discard), whether to drop the databases that were live before a swap with this set as well. The restore
        is final then, and the same set can be restored again.
    type: bool
    default: false
  keep_reverted:
    description:
      - With V(discard), whether to keep a staged database that was live until a V(revert), as
        C(<database>_reverted_<set id>), with C(_2) and so on behind it when that name is taken. Nothing drops it.
    type: bool
    default: false
  again:
    description:
      - Whether to restore a set once more although the live database came from it.
    type: bool
    default: false
  force:
    description:
      - Whether V(restore) may replace a live database (which is kept), and V(stage) overwrite O(target).
    type: bool
    default: false
  keep_failed:
    description:
      - Whether to keep a new database that could not be completed, to look into it. The next V(stage) drops it.
    type: bool
    default: false
  progress_file:
    description:
      - File on the managed host that tells how far the restore is. It is set by the action plugin.
    type: path
seealso:
  - module: groundwork.backend.pg_backup
  - module: groundwork.backend.backup_set
"""

EXAMPLES = r"""
- name: Restore the newest set beside the live database, and check it
  groundwork.backend.pg_restore:
    action: stage
    container: verisphere-postgres-1
    set_path: "/var/backups/verisphere/{{ backups.latest }}"
    component: verisphere
  register: restored

- name: Make it the live one
  groundwork.backend.pg_restore:
    action: swap
    container: verisphere-postgres-1
    set_path: "/var/backups/verisphere/{{ backups.latest }}"
    component: verisphere
  register: swapped

- name: Say what became of the database that was live
  ansible.builtin.debug:
    msg: "{{ restored.staged }} is live now, and what was live is kept as {{ swapped.before }}"

- name: Prove that a set restores, without touching what is live
  groundwork.backend.pg_restore:
    action: stage
    login_host: scratch.example.org
    login_password: "{{ scratch_password }}"
    set_path: /var/backups/orders/20261121T061200Z
    component: orders
    target: orders_drill
    force: true

- name: Drop what was live before the restore
  groundwork.backend.pg_restore:
    action: discard
    container: verisphere-postgres-1
    set_path: /var/backups/verisphere/20261121T061200Z
    component: verisphere
    before: true
"""

RETURN = r"""
component:
  description:
    - What was restored, with C(engine), C(name), C(database), C(format), C(set), C(bytes), C(server_version) and
      C(client_version) of the backup. Of a set that cannot be read, the first three and C(set).
  returned: success
  type: dict
database:
  description: Name of the live database.
  returned: success
  type: str
  sample: verisphere
staged:
  description: Name of the restored database beside the live one or of the O(target); V(null) when there is none.
  returned: success
  type: str
  sample: verisphere_restore_20261121t061200z
before:
  description: Name of the database that was live before the swap; V(null) when there is none.
  returned: success
  type: str
  sample: verisphere_before_20261121t061200z
live_from_set:
  description: Whether the live database came from this set and the restore is not final yet.
  returned: success
  type: bool
counts:
  description: Rows by table, as the backup counted them and the restored database was found to hold them.
  returned: when action is restore or stage
  type: dict
  sample: {public.claims: 500}
extensions:
  description: Version by name of each extension in the restored database. Empty when nothing was restored.
  returned: when action is restore or stage
  type: dict
  sample: {vector: 0.8.5}
space:
  description:
    - Bytes that the restored database takes (C(needed)), bytes that it may take (C(free)), and where (C(path)).
    - What nobody can tell is V(null); all of it is, when O(check_space) is V(false).
  returned: when action is measure, or there is no room
  type: dict
  sample: {needed: 1288490188, free: 52613349376, path: /var/lib/postgresql/data/base}
actions:
  description: What was done, or in check mode would be done, in order.
  returned: success
  type: list
  elements: str
  sample: [create role app, create database app_restore_20261121t061200z with owner app]
ended_sessions:
  description: How many sessions of applications were ended.
  returned: when action is restore or swap or revert
  type: int
seconds:
  description: How long it took, in seconds.
  returned: success
  type: float
differences:
  description: One phrase for each table whose rows differ.
  returned: when the restored rows are not those of the backup
  type: list
  elements: str
  sample: [public.claims has 499 rows instead of 500]
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import (
    Dump,
    Names,
    client_major,
    load,
    require_versions,
    restore_login_options,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_actions import ACTIONS, BY_NAME, Run
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Server
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._psql import (
    Tools,
    client_options,
    environment,
    host_folder,
)
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held
from ansible_collections.groundwork.backend.plugins.module_utils._sets import is_id


def execute(context: Context) -> dict[str, Any]:
    """Read the manifest, connect, choose the client, do what the option action says."""
    clock = time.monotonic()
    params = context.params
    if params["target"] is not None and params["action"] != "stage":
        raise InputError("target is for action: stage.", fix="Leave it out.")
    set_path = Path(params["set_path"])
    dump = _dump(context, set_path)
    if dump is not None:
        params["database"] = params["database"] or dump.database
    if params["database"] == params["maintenance_database"]:
        raise InputError(
            f"maintenance_database is the live database {params['database']!r}.", fix="Set it to another, as template1."
        )
    server, server_major = _server(context, dump)
    set_id = dump.set_id if dump else set_path.name
    run = Run(
        context=context,
        names=Names(set_id, params["component"], params["database"]),
        found=dump,
        server=server,
        major=server_major,
        progress=context.cleanup.enter_context(Progress(params["progress_file"])),
    )
    with server.lock(params["target"] or params["database"]):
        result = ACTIONS[params["action"]](run)
    named = {"engine": "postgres", "name": params["component"], "database": params["database"], "set": set_id}
    summary = dump.summary() if dump else named
    return {**result, "component": summary, "seconds": round(time.monotonic() - clock, 3)}


def _dump(context: Context, set_path: Path) -> Dump | None:
    """The component; None when the set cannot be read and the action needs no more than its name."""
    params = context.params
    by_name = params["action"] in BY_NAME and params["database"] is not None and is_id(set_path.name)
    if not set_path.is_dir():
        if by_name:
            return None
        raise InputError(f"{set_path} is no folder of a backup set.", fix="Correct set_path.")
    try:
        if not context.cleanup.enter_context(held(set_path)):
            raise StateError(f"The set in {set_path} is being removed.", fix="Use another set.")
        return load(set_path, params["component"])
    except StateError:
        if by_name:
            return None
        raise


def _server(context: Context, dump: Dump | None) -> tuple[Server, int]:
    params = context.params
    maintenance = params["maintenance_database"]
    env = environment({**params, "database": maintenance}, f"groundwork pg_restore {os.getpid()}")
    container = params["container"]
    tools = Tools(env, container)
    if container is None:
        tools = replace(tools, folder=host_folder(params["bin_dir"], None))
    else:
        tools.version()  # no such container, or no client in it: said before a failed login is
    with Server(tools, params, maintenance) as found:
        version, server_major = found.versions()
    if container is None:
        needed = client_major(dump, server_major) if dump else server_major
        tools = replace(tools, folder=host_folder(params["bin_dir"], needed))
    if dump is not None:
        require_versions(
            dump,
            client=tools.version(),
            server=version,
            server_major=server_major,
            where=f"container {container}" if container else str(tools.folder),
        )
    return context.cleanup.enter_context(Server(tools, params, maintenance)), server_major


def main() -> None:
    """Run the module."""
    login, client = restore_login_options(), client_options()
    run_module(
        execute,
        argument_spec={
            **login["argument_spec"],
            "action": {"type": "str", "required": True, "choices": list(ACTIONS)},
            "set_path": {"type": "path", "required": True},
            "component": {"type": "str", "required": True},
            **client["argument_spec"],
            "container_tmp": {"type": "str", "default": "/tmp"},  # noqa: S108 - of the container; the copy's mode is 0700
            "maintenance_database": {"type": "str", "default": "postgres"},
            "target": {"type": "str"},
            "jobs": {"type": "int"},
            "roles": {"type": "bool", "default": True},
            "analyze": {"type": "bool"},
            "check_space": {"type": "bool", "default": True},
            "drain_seconds": {"type": "float", "default": 10},
            "before": {"type": "bool", "default": False},
            "keep_reverted": {"type": "bool", "default": False},
            "again": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "keep_failed": {"type": "bool", "default": False},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=client["mutually_exclusive"],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
