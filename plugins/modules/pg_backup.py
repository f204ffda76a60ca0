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
  - The rows of every table are counted in the snapshot of the dump, so that a restore can be compared exactly.
  - The dump is read in full by C(pg_restore) before it gets its final name. When anything fails, no file is left.
extends_documentation_fragment: groundwork.backend._postgres
attributes:
  check_mode:
    description: Can run in check mode and return the status prediction without changing the target.
    support: full
    details:
      - Connects and compares the versions of client and server, and writes nothing. The files of RV(component) then
        have neither C(bytes) nor C(sha256).
  diff_mode:
    description: Returns what changed, or would change.
    support: none
    details:
      - A dump is a new file. There is nothing to compare it with.
  idempotent:
    description: A second run in a row changes nothing.
    support: none
    details:
      - Each run is a new dump. A folder that holds one already is refused.
options:
  container:
    description:
      - Name or id of the running container of the server. Its own client programs are used then, over its local
        socket unless O(login_host) is set, and C(docker) is needed on the managed host.
      - When it is not set, the client programs of the managed host are used.
    type: str
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
      - Format of the dump. V(custom) is PostgreSQL's own, compressed, and can be restored in parts.
    type: str
    default: custom
    choices: [custom]
  compression:
    description:
      - V(none), V(gzip), V(lz4) or V(zstd), with a level as in V(zstd:3); a bare number is a level of gzip.
      - V(lz4) and V(zstd) need C(pg_dump) 16 or newer. The default is that of C(pg_dump), which is gzip.
    type: str
  lock_timeout:
    description:
      - How long to wait for another session that changes a table, as PostgreSQL writes times. V(0) waits for ever.
    type: str
    default: 5min
  globals:
    description:
      - Whether to write the roles of the server with their password hashes to C(globals.sql). This needs a superuser.
    type: bool
    default: true
  bin_dir:
    description:
      - Folder with C(pg_dump), C(pg_dumpall), C(pg_restore) and C(psql) on the managed host.
      - The default is Debian's folder for the server's version, else what is on C(PATH).
    type: path
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
    - In check mode, only C(engine), C(name), C(database), C(format), C(files), C(server_version) and
      C(client_version) are there.
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
    files:
      description: The files in O(dest), each with C(name), C(bytes) and C(sha256).
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
      description: Rows by table, written as C(schema.table). Tables that belong to an extension are left out.
      type: dict
    started_at:
      description: UTC time of the begin.
      type: str
    seconds:
      description: How long it took, with the check, in seconds.
      type: float
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import check_name
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import (
    Job,
    check_time,
    compression_arguments,
    dump,
    require_client,
    require_unwritten,
    server_versions,
)
from ansible_collections.groundwork.backend.plugins.module_utils._postgres import login_options
from ansible_collections.groundwork.backend.plugins.module_utils._psql import (
    Session,
    Tools,
    environment,
    host_folder,
    major,
)


def execute(context: Context) -> dict[str, Any]:
    """Connect, choose the client, dump."""
    params = context.params
    job = Job(
        database=params["database"],
        name=check_name(params["name"] or params["database"], "The component's name"),
        dest=Path(params["dest"]),
        compression=params["compression"],
        lock_timeout=check_time(params["lock_timeout"]),
        with_globals=params["globals"],
    )
    require_unwritten(job)
    container = params["container"]
    tools = Tools(environment(params, f"groundwork pg_backup {os.getpid()}"), container)
    if container is None:
        tools = replace(tools, folder=host_folder(params["bin_dir"], None))
    else:
        tools.version()  # no such container, or no client in it: said before a failed login is
    session = context.cleanup.enter_context(Session(tools, params))
    server, server_major = server_versions(session)
    if container is None:
        tools = replace(tools, folder=host_folder(params["bin_dir"], server_major))
    client = tools.version()
    require_client(client, server, server_major, f"container {container}" if container else str(tools.folder))
    compression_arguments(job.compression, client)
    if major(client) > server_major:
        context.warn(f"pg_dump {client} is newer than the server ({server}), which may not be able to load its dump.")
    if context.check_mode:
        component = {
            "engine": "postgres",
            "name": job.name,
            "database": job.database,
            "format": params["format"],
            "files": [{"name": name, "bytes": None, "sha256": None} for name in job.file_names],
            "server_version": server,
            "client_version": client,
        }
    else:
        component = dump(job, tools, session, server=server, client=client)
    return {"changed": True, "component": component}


def main() -> None:
    """Run the module."""
    login = login_options()
    run_module(
        execute,
        argument_spec={
            **login["argument_spec"],
            "container": {"type": "str"},
            "dest": {"type": "path", "required": True},
            "name": {"type": "str"},
            "format": {"type": "str", "default": "custom", "choices": ["custom"]},
            "compression": {"type": "str"},
            "lock_timeout": {"type": "str", "default": "5min"},
            "globals": {"type": "bool", "default": True},
            "bin_dir": {"type": "path"},
        },
        mutually_exclusive=[("container", "bin_dir")],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
