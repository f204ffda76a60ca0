#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dump one PostgreSQL database into a component folder of a backup set."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Dump one PostgreSQL database with checksums, row counts and a full-read check
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Dumps a database with C(pg_dump), on the managed host or inside the server's container, and the roles of the server
    with C(pg_dumpall) beside it.
  - The rows of every table that is dumped are counted in the snapshot of the dump, so that a restore can be compared
    exactly. What belongs to the database itself (owner, locale, settings, privileges) is in RV(component), too.
  - The dump is read in full before it gets its final name. When anything fails, no file is left.
  - Files have mode C(0600) and folders C(0700), whatever the umask. What a killed run left is removed by the next one.
extends_documentation_fragment:
  - groundwork.backend._postgres
  - groundwork.backend._postgres_client
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Connects, compares the versions of client and server, has C(pg_dump) list what it would dump, and writes
        nothing. The files of RV(component) then have neither C(bytes) nor C(sha256); a directory is one entry.
  diff_mode:
    support: none
    details:
      - A dump is a new file. There is nothing to compare it with.
  idempotent:
    support: none
    details:
      - Each run is a new dump. A folder that holds one already is refused.
options:
  dest:
    description:
      - Folder for the files, C(components/<name>) in the folder that M(groundwork.backend.backup_set) began.
      - It is created with mode C(0700); the folder above it must exist.
    type: path
    required: true
  name:
    description:
      - Name of the component. The default is O(database).
    type: str
  format:
    description:
      - V(custom) is one file C(database.dump), compressed, of which parts can be restored.
      - V(directory) is a folder C(database.dir), which several processes write (O(jobs)) and restore. Inside a
        container it is first written to O(container_dir) in full, and then fetched.
      - V(plain) is an SQL script C(database.sql), with C(.gz), C(.lz4) or C(.zst) when it is compressed. C(psql)
        restores one that was cut off without an error, so its rows are counted as it is written, and the last line of
        C(pg_dump) is required.
    type: str
    default: custom
    choices: [custom, directory, plain]
  jobs:
    description:
      - How many tables to dump at a time; more than one for O(format=directory) only. The server needs two connections
        more than that, and the full read uses as many processes.
    type: int
    default: 1
  compression:
    description:
      - V(none), V(gzip), V(lz4) or V(zstd), with a level as in V(zstd:3); a bare number is a level of gzip.
      - V(lz4) and V(zstd) need C(pg_dump) 16 or newer that was built with it; to check a plain dump, also the program
        of that name on the managed host.
      - The default is V(gzip), and V(none) for O(format=plain).
    type: str
  schemas:
    description:
      - Patterns of the schemas to dump, as C(pg_dump --schema) takes them (V(app_*), V("Mixed case")). One that matches
        nothing is an error. Without O(schemas) and O(tables), all is dumped.
      - With O(schemas) or O(tables), the dump still creates the extensions of the database, which its columns may need.
    type: list
    elements: str
    default: []
  tables:
    description:
      - Patterns of the tables to dump, as C(pg_dump --table) takes them (V(app.orders)). O(schemas) and
        O(exclude_schemas) have no effect on what they select.
    type: list
    elements: str
    default: []
  exclude_schemas:
    description: Patterns of schemas to leave out.
    type: list
    elements: str
    default: []
  exclude_tables:
    description: Patterns of tables to leave out.
    type: list
    elements: str
    default: []
  lock_timeout:
    description:
      - How long to wait for another session that changes a table, as PostgreSQL writes times. V(0) waits for ever.
    type: str
    default: 5min
  globals:
    description:
      - Whether to write the roles of the server, with their grants to each other and their password hashes, to
        C(globals.sql). This needs a superuser.
    type: bool
    default: true
  verify:
    description:
      - Whether to read the dump in full, beside the dump itself for V(custom) and V(plain) of O(format), after it for
        V(directory). V(false) leaves only what C(pg_dump) says of itself.
    type: bool
    default: true
  container_dir:
    description:
      - Folder inside of O(container) for O(format=directory). It needs room for the whole dump meanwhile.
    type: str
    default: /tmp
  progress_file:
    description:
      - File on the managed host that tells how far the dump is. The action plugin sets it; leave it alone.
    type: path
notes:
  - Values that were set with C(ALTER DATABASE ... SET) are part of RV(component), so they are printed with C(-v) and
    stand in the manifest. Every role of the database can read them anyway; keep secrets elsewhere.
seealso:
  - module: groundwork.backend.backup_set
"""

EXAMPLES = r"""
- name: Dump the database of a Compose service
  groundwork.backend.pg_backup:
    container: verisphere-postgres-1
    database: verisphere
    dest: "{{ backup.path }}/components/verisphere"
  register: dump

- name: Dump a database over the network
  groundwork.backend.pg_backup:
    login_host: db.example.org
    login_user: backup
    login_password: "{{ backup_password }}"
    ssl_mode: verify-full
    ca_cert: /etc/ssl/certs/ca-certificates.crt
    database: orders
    dest: "{{ backup.path }}/components/orders"
    compression: zstd:3
    globals: false

- name: Dump a large database with four processes, without its logs
  groundwork.backend.pg_backup:
    container: verisphere-postgres-1
    database: verisphere
    dest: "{{ backup.path }}/components/verisphere"
    format: directory
    jobs: 4
    exclude_tables: ["audit.log_*"]
    container_dir: /var/lib/postgresql/data

- name: Put the component into the set
  groundwork.backend.backup_set:
    action: commit
    path: /var/backups/verisphere
    stack: verisphere
    id: "{{ backup.id }}"
    components: ["{{ dump.component }}"]
"""

RETURN = r"""
component:
  description:
    - What M(groundwork.backend.backup_set) needs to commit the dump.
    - In check mode, only C(engine), C(name), C(database), C(format), C(compression), C(filter), C(files),
      C(server_version) and C(client_version) are there.
  returned: success
  type: dict
  contains:
    engine:
      description: Always V(postgres).
      type: str
    name:
      description: Name of the component.
      type: str
    database:
      description: Name of the database.
      type: str
    format:
      description: Format of the dump.
      type: str
    compression:
      description: Method and level as in O(compression), or V(null) when the dump is not compressed.
      type: str
    filter:
      description: The patterns of O(schemas), O(tables), O(exclude_schemas) and O(exclude_tables), or V(null).
      type: dict
    files:
      description: The files in O(dest), each with C(name) (C(database.dir/toc.dat)), C(bytes) and C(sha256).
      type: list
      elements: dict
    server_version:
      description: Version of the server.
      type: str
    client_version:
      description: Version of C(pg_dump).
      type: str
    extensions:
      description: Version by name of each extension in the database.
      type: dict
    schema_version:
      description: Highest applied or baseline version in C(public.schema_migrations), as it stands there, or V(null).
      type: str
    counts:
      description:
        - Rows by table that was dumped, written as C(schema.table). Tables that belong to an extension are left out.
        - Hash partitions by an enum count as the root of their partitions, because a restore spreads their rows anew.
      type: dict
    properties:
      description:
        - What is the database's own and in no dump of it, C(owner), C(encoding), C(collate), C(ctype), C(provider)
          (V(libc), V(icu) or V(builtin)), C(locale) and C(icu_rules) of the provider, C(settings), C(acl),
          C(connection_limit), C(comment).
        - C(settings) are the statements C(ALTER DATABASE) and C(ALTER ROLE ... IN DATABASE), with C(%I) for the name
          and C(%%) for a percent sign, as the server's function C(format) takes them.
        - C(acl) is as in C(pg_database.datacl), V(null) for the server's default.
      type: dict
    database_bytes:
      description:
        - The tables that were dumped take so many bytes on the server's disk, with their indexes. What is in other
          tablespaces is left out.
      type: int
    read_in_full:
      description: Whether the dump was read in full (O(verify)).
      type: bool
    started_at:
      description: UTC time of the begin.
      type: str
    seconds:
      description: How long it took, with the check, in seconds.
      type: float
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _pgdump_facts as facts
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import check_name
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import (
    Filter,
    Job,
    check_jobs,
    check_time,
    parse_compression,
    require_client,
    require_reader,
    require_unwritten,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_container import application_name, run_name
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_meter import FIRST_WITH_VIEW, Meter
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_run import Dumper
from ansible_collections.groundwork.backend.plugins.module_utils._postgres import login_options
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._psql import (
    Session,
    Tools,
    client_options,
    environment,
    host_folder,
    major,
)

_PATTERNS = ("schemas", "tables", "exclude_schemas", "exclude_tables")


def job_of(params: dict[str, Any]) -> Job:
    """What the options ask for. Raises InputError."""
    return Job(
        database=params["database"],
        name=check_name(params["name"] or params["database"], "The component's name"),
        dest=Path(params["dest"]),
        format=params["format"],
        compression=parse_compression(params["compression"], params["format"]),
        lock_timeout=check_time(params["lock_timeout"]),
        with_globals=params["globals"],
        jobs=check_jobs(params["jobs"], params["format"]),
        filter=Filter(**{name: tuple(params[name]) for name in _PATTERNS}),
        read_in_full=params["verify"],
    )


def execute(context: Context) -> dict[str, Any]:
    """Connect, choose the client, dump."""
    params = context.params
    job = job_of(params)
    require_unwritten(job)
    require_reader(job)
    container, run_id = params["container"], run_name()
    tools = Tools(environment(params, application_name(run_id)), container)
    if container is None:
        tools = replace(tools, folder=host_folder(params["bin_dir"], None))
    else:
        tools.version()  # no such container, or no client in it: said before a failed login is
    session = context.cleanup.enter_context(Session(tools, params))
    server, server_major = facts.server_versions(session)
    if container is None:
        tools = replace(tools, folder=host_folder(params["bin_dir"], server_major))
    client = tools.version()
    require_client(client, server, server_major, f"container {container}" if container else str(tools.folder))
    job.compression.arguments(client)
    if major(client) > server_major:
        context.warn(f"pg_dump {client} is newer than the server ({server}), which may not be able to load its dump.")

    def meter_for(only: set[int] | None) -> Meter:
        progress = context.cleanup.enter_context(Progress(params["progress_file"]))
        if params["progress_file"] is None or server_major < FIRST_WITH_VIEW:
            return Meter(progress)
        sizes = facts.table_sizes(session, only)
        return Meter(progress, context.cleanup.enter_context(Session(tools, params)), sizes)

    dumper = Dumper(job, tools, session, client, run_id, params["container_dir"], meter_for)
    if not context.check_mode:
        return {"changed": True, "component": dumper.dump(server)}
    dumper.try_out()
    files = [{"name": name, "bytes": None, "sha256": None} for name in job.names]
    component = {**job.facts(), "files": files, "server_version": server, "client_version": client}
    return {"changed": True, "component": component}


def main() -> None:
    """Run the module."""
    login, client = login_options(), client_options()
    run_module(
        execute,
        argument_spec={
            **login["argument_spec"],
            **client["argument_spec"],
            "dest": {"type": "path", "required": True},
            "name": {"type": "str"},
            "format": {"type": "str", "default": "custom", "choices": ["custom", "directory", "plain"]},
            "jobs": {"type": "int", "default": 1},
            "compression": {"type": "str"},
            "schemas": {"type": "list", "elements": "str", "default": []},
            "tables": {"type": "list", "elements": "str", "default": []},
            "exclude_schemas": {"type": "list", "elements": "str", "default": []},
            "exclude_tables": {"type": "list", "elements": "str", "default": []},
            "lock_timeout": {"type": "str", "default": "5min"},
            "globals": {"type": "bool", "default": True},
            "verify": {"type": "bool", "default": True},
            "container_dir": {"type": "str", "default": "/tmp"},  # noqa: S108 - the container's own, a new folder in it
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=client["mutually_exclusive"],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
