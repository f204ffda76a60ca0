#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dump one MongoDB database into a component folder of a backup set."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mongo_dump
short_description: Dump one MongoDB database in mongodump's directory format, with checksums and counts
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Dumps a database into a folder that C(mongorestore) and M(groundwork.backend.mongo_restore) read. The managed host
    needs no program of MongoDB, only Python's C(pymongo); or, with O(engine=mongodump), the program and no C(pymongo).
  - From a replica set, all collections are read as they were at one moment (a snapshot; MongoDB 5.0 or newer). One
    member is enough for that. A standalone server cannot do it; RV(component) then says so in C(consistent).
  - Documents are written as the server sends them and are never decoded. The documents of every collection are
    counted, so that a restore can be compared exactly.
  - When anything fails, no file is left. Files have mode C(0600) and folders C(0700), whatever the umask. What a killed
    run left is removed by the next one.
  - Views are dumped as definitions, and time series as their buckets. Collections whose names begin with C(system.)
    belong to the server and are left out, except C(system.js). Those that M(groundwork.backend.mongo_restore) keeps
    are left out, too.
extends_documentation_fragment:
  - groundwork.backend._mongo
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Connects, takes a snapshot, lists what would be dumped, and writes nothing. The files of RV(component) then have
        neither C(bytes) nor C(sha256).
      - By C(mongodump), only whether the program is there and something listens is looked at. Nobody logs in, and
        RV(component) has no C(files).
  diff_mode:
    support: none
    details:
      - A dump is a new folder. There is nothing to compare it with.
  idempotent:
    support: none
    details:
      - Each run is a new dump. A folder that holds one already is refused.
options:
  database:
    description: Name of the database.
    type: str
    required: true
  dest:
    description:
      - Folder for the dump, C(components/<name>) in the folder that M(groundwork.backend.backup_set) began. The files
        are in C(<database>) in it, so C(mongorestore) takes O(dest) as its C(--dir).
      - It is created with mode C(0700); the folder above it must exist.
    type: path
    required: true
  name:
    description:
      - Name of the component. The default is O(database).
    type: str
  engine:
    description:
      - V(driver) reads the documents with C(pymongo). V(mongodump) runs MongoDB's own program, and then reads all that
        it has written, so that the result has the same files, counts and checksums. V(auto) is V(driver) where
        C(pymongo) can be imported, and V(mongodump) where it cannot.
      - C(mongodump) cannot show all collections of one database as they were at one moment, not on a replica set
        either, so RV(component) says V(false) for C(consistent), and O(snapshot=required) is refused. It leaves out
        collections with a C($) in their names, and those whose names begin with C(groundwork.restore.2),
        C(groundwork.before.2) or C(groundwork.reverted.2).
      - C(mongodump) 100.3 or newer is needed. It reads its password from its standard input, so that it is in no
        process list and in no file.
      - This engine was written by the documentation and the source of C(mongodump), and tested with dumps that it had
        written and with a stand-in for the program. It was never run with the program itself.
    type: str
    default: auto
    choices: [auto, driver, mongodump]
  container:
    description:
      - With C(mongodump), the server's container on the managed host. The program is then run from the container's
        image, in a container of its own that has the network of the server's one, so O(login_host) and
        O(login_port) are what the server has inside of its container. It ends and is removed with the dump.
      - Without it, the program is that on C(PATH) of the managed host.
    type: str
  gzip:
    description: Whether to compress every file, as C(mongodump --gzip) does.
    type: bool
    default: true
  jobs:
    description:
      - How many collections to dump at a time, at most 64. Each takes some 20 MB of memory.
    type: int
    default: 4
  snapshot:
    description:
      - V(auto) reads from a snapshot where the server can. V(required) fails where it cannot. V(never) reads each
        collection as it is when its turn comes.
      - The server keeps a snapshot for C(minSnapshotHistoryWindowInSeconds), five minutes unless it is told otherwise.
        A dump that takes longer fails.
      - Before MongoDB 8.0, capped collections cannot be read in a snapshot. With V(auto) they are read outside of it,
        and listed in C(outside_snapshot) of RV(component).
    type: str
    default: auto
    choices: [auto, required, never]
  users:
    description:
      - Whether to write the users of the database, with the hashes of their passwords, and its roles, in the files of
        C(mongodump --dumpDbUsersAndRoles). C(mongorestore --restoreDbUsersAndRoles) reads them.
      - This needs the role C(userAdmin) on the database, which C(dbOwner) holds.
    type: bool
    default: false
  allow_empty:
    description: Whether a database without collections is dumped, which MongoDB cannot tell from one that is not there.
    type: bool
    default: false
  progress_file:
    description:
      - File on the managed host that tells how far the dump is. The action plugin sets it; leave it alone.
    type: path
seealso:
  - module: groundwork.backend.mongo_restore
  - module: groundwork.backend.backup_set
"""

EXAMPLES = r"""
- name: Dump a database of a replica set
  groundwork.backend.mongo_dump:
    login_user: appuser
    login_password: "{{ mongo_password }}"
    auth_source: innova_db
    database: innova_db
    dest: "{{ backup.path }}/components/innova_db"
    snapshot: required
  register: dump

- name: Put the component into the set
  groundwork.backend.backup_set:
    action: commit
    path: /var/backups/innovaplus
    stack: innovaplus
    id: "{{ backup.id }}"
    components: ["{{ dump.component }}"]

- name: Dump a database with mongodump of the server's image, on a host without pymongo
  groundwork.backend.mongo_dump:
    engine: mongodump
    container: mongodb
    login_user: appuser
    login_password: "{{ mongo_password }}"
    auth_source: innova_db
    database: innova_db
    dest: "{{ backup.path }}/components/innova_db"
  register: dump

- name: Dump a database over the network, with its users
  groundwork.backend.mongo_dump:
    login_host: db.example.org
    login_user: backup
    login_password: "{{ backup_password }}"
    tls: true
    ca_cert: /etc/ssl/certs/ca-certificates.crt
    database: orders
    dest: "{{ backup.path }}/components/orders"
    users: true
"""

RETURN = r"""
engine:
  description: V(driver) or V(mongodump), whichever has made the dump.
  returned: success
  type: str
component:
  description:
    - What M(groundwork.backend.backup_set) needs to commit the dump.
    - In check mode, only C(engine), C(name), C(database), C(format), C(compression), C(files) and C(server_version) are
      there.
  returned: success
  type: dict
  contains:
    engine:
      description: Always V(mongo).
      type: str
    name:
      description: Name of the component.
      type: str
    database:
      description: Name of the database.
      type: str
    format:
      description: Always V(mongodump).
      type: str
    compression:
      description: V(gzip), or V(null) when the dump is not compressed.
      type: str
    files:
      description: The files in O(dest), each with C(name) (C(innova_db/orders.bson.gz)), C(bytes) and C(sha256).
      type: list
      elements: dict
    server_version:
      description: Version of the server; V(null) when an old C(mongodump) has not told it.
      type: str
    consistent:
      description: Whether all documents are as they were at one moment.
      type: bool
    outside_snapshot:
      description: The capped collections that could not be read in the snapshot.
      type: list
      elements: str
    counts:
      description: Documents by collection that was dumped; of a time series, its buckets.
      type: dict
    views:
      description: Names of the views.
      type: list
      elements: str
    users:
      description: Whether users and roles are in the dump.
      type: bool
    data_bytes:
      description: What the documents take, uncompressed.
      type: int
    database_bytes:
      description:
        - What these collections and their indexes take on the server's disk; V(null) when the user may not see it,
          and after C(mongodump).
      type: int
    started_at:
      description: UTC time of the begin.
      type: str
    seconds:
      description: How long it took, in seconds.
      type: float
"""

import os
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import check_name
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import check_database, connect, mongo_options
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work, check_jobs
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job, require_unwritten
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_program import (
    ProgramDumper,
    Tool,
    choose,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_run import Dumper
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress


def job_of(params: dict[str, Any]) -> Job:
    """What the options ask for. Raises InputError."""
    return Job(
        database=check_database(params["database"]),
        name=check_name(params["name"] or params["database"], "The component's name"),
        dest=Path(params["dest"]),
        gzip=params["gzip"],
        jobs=check_jobs(params["jobs"]),
        snapshot=params["snapshot"],
        users=params["users"],
        allow_empty=params["allow_empty"],
    )


def execute(context: Context) -> dict[str, Any]:
    """Find out with what to dump, and do it."""
    params = context.params
    job = job_of(params)
    require_unwritten(job.dest)
    tool = choose(params["engine"], params["container"])
    if tool is not None:
        return {"changed": True, "engine": "mongodump", "component": by_program(context, job, tool)}
    return {"changed": True, "engine": "driver", "component": by_driver(context, job)}


def by_program(context: Context, job: Job, tool: Tool) -> dict[str, Any]:
    """Have mongodump dump."""
    progress = context.cleanup.enter_context(Progress(context.params["progress_file"]))
    dumper = ProgramDumper(job, tool, context.params, Work(progress, "verify"))
    if context.check_mode:
        dumper.check()
        component = job.facts()
    else:
        component = dumper.dump()
    if job.snapshot == "auto":
        context.warn(
            "mongodump dumps each collection as it is when its turn comes. For a dump of one moment, use engine: "
            "driver with a replica set, of which one member is enough."
        )
    tell_unmovable(context, dumper)
    return component


def by_driver(context: Context, job: Job) -> dict[str, Any]:
    """Connect and dump."""
    params = context.params
    server = context.cleanup.enter_context(connect(params, f"groundwork mongo_dump {os.getpid()}"))
    progress = context.cleanup.enter_context(Progress(params["progress_file"]))
    dumper = Dumper(job, server, Work(progress, "dump"))
    if context.check_mode:
        definitions, _at = dumper.plan()
        files = [{"name": name, "bytes": None, "sha256": None} for name in job.names(definitions)]
        component = {**job.facts(), "files": files, "server_version": server.version}
    else:
        component = dumper.dump()
    if job.snapshot == "auto" and not server.has_snapshots:
        context.warn(
            f"MongoDB at {server.place} is a standalone server: each collection is dumped as it is when its turn "
            "comes. Make it a replica set, of which one member is enough, for a dump of one moment."
        )
    tell_unmovable(context, dumper)
    return component


def tell_unmovable(context: Context, dumper: Dumper | ProgramDumper) -> None:
    """What is in the dump, and is not restored in the place of what is live."""
    if dumper.unmovable:
        context.warn(
            f"MongoDB cannot rename {', '.join(dumper.unmovable)} (a time series, or the server's own). mongo_restore "
            "puts this dump into a target, and refuses to put it in the place of the live database: be prepared to "
            "restore it with mongorestore."
        )


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        **mongo_options(
            {
                "database": {"type": "str", "required": True},
                "dest": {"type": "path", "required": True},
                "name": {"type": "str"},
                "engine": {"type": "str", "default": "auto", "choices": ["auto", "driver", "mongodump"]},
                "container": {"type": "str"},
                "gzip": {"type": "bool", "default": True},
                "jobs": {"type": "int", "default": 4},
                "snapshot": {"type": "str", "default": "auto", "choices": ["auto", "required", "never"]},
                "users": {"type": "bool", "default": False},
                "allow_empty": {"type": "bool", "default": False},
                "progress_file": {"type": "path"},
            }
        ),
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
