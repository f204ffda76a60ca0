#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply versioned SQL migrations, each once, in order."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgvector_migrate
short_description: Apply versioned SQL migrations to a PostgreSQL database
version_added: 0.1.0
description:
  - Runs the SQL files of a directory in the order of their versions, each exactly once, and remembers them in a table.
  - Each file runs in one transaction together with its row in that table, also when it carries its own
    C(BEGIN; ... COMMIT;). The file is one message to the server, but a statement with a variable goes alone.
  - A file with a statement that PostgreSQL refuses inside a transaction (such as C(CREATE INDEX CONCURRENTLY) or
    C(VACUUM)) runs statement by statement.
  - An applied file that was edited or deleted, and a new file below the highest applied version, are errors.
  - Repeatable files (C(R__name.sql)) run after all others, by name, whenever their content is not what ran last. They
    are in the table with the version C(R__name). With O(target) they do not run.
  - What a pooler in transaction mode cannot keep, a lock of a session, is noticed and refused.
  - A run that loses its lock stops, and a statement that a killed run left at work is waited for.
  - Needs Debian's package C(python3-psycopg) on the managed host.
author:
  - groundwork.backend contributors (@groundwork-backend)
extends_documentation_fragment:
  - groundwork.backend._postgres_dsn
  - groundwork.backend._attributes
options:
  container:
    description:
      - Name or id of the server's running container on the managed host, where it publishes no port.
      - The server is reached at the address that the container has on its bridge network, at O(login_port), whatever
        O(login_host) or the host in O(login_dsn) is. Only certificates are checked against those names.
    type: str
  directory:
    description:
      - Directory on the managed host with the migrations.
      - A file is named C(0001_name.sql), C(V2__name.sql), C(20260101120000_name.sql) or C(R__name.sql), also
        with C(.up.sql). Other names that end in C(.sql) are an error, but C(0001_name.down.sql) and files that are no
        SQL are left alone.
      - Files run by number; numbers need not follow each other, and two files of one number are an error.
      - "A comment before the first statement may set limits for its file,
        C(-- groundwork: lock_timeout=10s statement_timeout=1h)."
    type: path
    required: true
  variables:
    description:
      - Values for psql's variables in the files, written C(:name), C(:'name') (as a literal) or C(:"name") (as a name).
      - This keeps secrets out of committed files. Values are never printed, and never in the ledger or the diff.
        Write secrets as C(:'name'), so that a message of the server can be searched for the whole value.
      - While a statement runs, PostgreSQL shows it to superusers and to the same role, and logs it when told to.
    type: dict
    default: {}
  baseline:
    description:
      - The last version that a database has already which was made in another way. When the ledger is empty, the files
        up to this version are recorded with the state C(baseline) and not run. Later it has no effect.
    type: str
  import_from:
    description:
      - Another tool whose table tells which migrations a database has. When the ledger is empty, their files are
        recorded with the state C(baseline) and not run. The table of the other tool is only read.
      - That table can have the name of the ledger, then set O(ledger_table).
    type: str
    choices: [dbmate, golang-migrate, flyway]
  target:
    description: The last version to apply. Files above it, and repeatable ones, wait.
    type: str
  down_to:
    description:
      - Undo every applied version above this one, the highest first, and apply nothing. V(0) undoes all.
      - Each needs a file C(0001_name.down.sql), which runs in one transaction with the removal of the row. A version of
        the state C(baseline) cannot be undone.
    type: str
  out_of_order:
    description:
      - What to do with a new file below the highest applied version, as two branches that are merged leave it.
      - V(fail) applies nothing, V(warn) applies the file with a warning, V(apply) applies it.
    type: str
    choices: [fail, warn, apply]
    default: fail
  repair:
    description:
      - Edited files to accept as what was applied, a reason by version. They are not run again. The reason is kept in
        the table O(ledger_table) with C(_repairs) added to its name.
    type: dict
    default: {}
  resume:
    description:
      - Go on with a migration outside of transactions that failed or was interrupted, from the statement that was
        reached. That statement runs again; when it builds an index, what is left of the index is dropped before.
      - The file must be as it was.
    type: bool
    default: false
  rebuild_invalid_indexes:
    description:
      - Before the migrations, rebuild each index of the database that a concurrent build left invalid, with
        C(REINDEX INDEX CONCURRENTLY). Copies that a C(REINDEX) left are dropped.
    type: bool
    default: false
  vector_extension:
    description:
      - What to do about the extension C(vector) before the first file runs. V(present) creates it, V(latest) updates it
        as well to the version of the server's files, which otherwise does not happen when a package is upgraded.
      - When a file is pending that builds a vector index, an index over pgvector's limits is refused with its line.
      - C(maintenance_work_mem) above the size of the server's C(/dev/shm), where a parallel build of an HNSW index
        fails, is a warning. The size is known where the role may read the server's files or O(container) is set, and
        where somebody has set it, as Docker does.
    type: str
    choices: [unmanaged, present, latest]
    default: unmanaged
  allowed_vector_versions:
    description:
      - Versions of pgvector with known faults to run migrations on nevertheless, such as V(0.8.1).
      - Versions below 0.8.4 are refused otherwise, because their HNSW indexes can become corrupt, and 0.6.0 to 0.8.1
        have CVE-2026-3172.
    type: list
    elements: str
    default: []
  lint:
    description:
      - What to do about pending statements that lose data, break the release before or block for long. They are named
        with the rules of squawk (U(https://squawkhq.com)), such as C(ban-drop-column); tables that are made in the same
        run do not count.
      - The comment C(-- squawk-ignore RULE) before a statement allows it.
    type: str
    choices: [ignore, warn, fail]
    default: warn
  rehearse:
    description:
      - Run the pending files in one transaction and take it back, to find what the server would refuse. Nothing
        changes, but sequences go on. Files outside of transactions are left out, with a warning.
      - All files share the one transaction, so what they set for their own, such as C(ISOLATION LEVEL), is left out,
        with a warning.
      - All locks are held until the end, so do this on a copy or at a quiet time.
    type: bool
    default: false
  verify_only:
    description: Compare files and ledger, fail as a run would, list what is pending, and change nothing.
    type: bool
    default: false
  lock_wait:
    description: How long to wait, in seconds, for another run of migrations on the same database.
    type: float
    default: 60
  lock_timeout:
    description:
      - How long a statement waits for a lock of a table before the file is rolled back and tried again.
      - Written like V(5s), V(500ms), V(2min), V(1h) or V(500) (milliseconds); V(0) waits without an end.
        Concurrent builds of indexes are not limited.
    type: str
    default: 5s
  lock_retries:
    description: How often a file is tried again after O(lock_timeout) or a deadlock, with growing, random pauses.
    type: int
    default: 10
  statement_timeout:
    description: How long one statement may run, written like O(lock_timeout). There is no limit when it is not set.
    type: str
  ledger_schema:
    description: Schema of the table that remembers what was applied. It is made when it does not exist.
    type: str
    default: public
  ledger_table:
    description: Name of the table that remembers what was applied. It is made before the first file runs.
    type: str
    default: schema_migrations
attributes:
  check_mode:
    support: full
    details: Connects and compares; the SQL itself is not run, so an error that only the server finds is not found.
  diff_mode:
    support: full
    details: Shows the list of versions and the pending files as they are written, without the values of variables.
  idempotent:
    support: full
    details: Each version is applied once.
"""

EXAMPLES = r"""
- name: Bring the database up to date
  groundwork.backend.pgvector_migrate:
    database: verisphere
    login_host: 127.0.0.1
    login_password: "{{ postgres_password }}"
    directory: /srv/verisphere/current/ops/postgres/migrations
    variables:
      app_password: "{{ app_password }}"
  register: migrations

- name: Bring the database of a stack up to date whose server publishes no port
  groundwork.backend.pgvector_migrate:
    login_dsn: "{{ database_url }}"
    container: verisphere-postgres-1
    directory: /srv/verisphere/current/ops/postgres/migrations

- name: Adopt a database that has the first three migrations already
  groundwork.backend.pgvector_migrate:
    database: verisphere
    directory: /srv/verisphere/current/ops/postgres/migrations
    baseline: "0003"

- name: Find out before the deploy whether the server would take the new files
  groundwork.backend.pgvector_migrate:
    database: verisphere
    directory: /srv/verisphere/next/ops/postgres/migrations
    rehearse: true
  register: rehearsal
  failed_when: rehearsal is failed or rehearsal.rehearsed | length != rehearsal.pending | length

- name: Say what was done
  ansible.builtin.debug:
    msg: "From {{ migrations.previous_version }} to {{ migrations.schema_version }}"
  when: migrations is changed
"""

RETURN = r"""
applied:
  description: The migrations that were applied, in order. On failure those before the one that failed.
  returned: unless it failed before files and ledger were compared
  type: list
  elements: dict
  contains:
    version:
      description: Version as in the file name.
      type: str
    name:
      description: Name as in the file name.
      type: str
    execution_ms:
      description: Run time in milliseconds.
      type: int
    lossy:
      description:
        - The rules by which its statements lose data, so that the release before may miss something that is gone.
        - V(ban-drop-column), V(ban-drop-database), V(ban-drop-table), V(ban-truncate-cascade) and
          V(changing-column-type) are those of O(lint); V(truncate), V(drop-cascade) and V(drop-owned) come on top.
          Tables that the same run makes do not count; what a comment allows does.
        - C(DELETE), C(UPDATE) and what a C(DO) block or a function does are not seen.
      type: list
      elements: str
  sample: [{version: "0001", name: create_items, execution_ms: 12, lossy: []}]
pending:
  description: The migrations that are still to be applied; only check mode and a failure leave any.
  returned: unless it failed before files and ledger were compared
  type: list
  elements: dict
  contains:
    version:
      description: Version as in the file name.
      type: str
    name:
      description: Name as in the file name.
      type: str
    lossy:
      description: As in RV(applied).
      type: list
      elements: str
  sample: [{version: "0002", name: drop_old, lossy: [ban-drop-column]}]
undone:
  description: The migrations that were undone, like RV(applied) without C(lossy). Only the versions and RV(ledger) are
    returned beside.
  returned: with O(down_to)
  type: list
  elements: dict
  sample: [{version: "0002", name: add_index, execution_ms: 4}]
rehearsed:
  description: The migrations that ran and were taken back, like RV(applied) without C(lossy).
  returned: with O(rehearse), but not in check mode
  type: list
  elements: dict
  sample: [{version: "0002", name: add_index, execution_ms: 40}]
baselined:
  description: Versions that were recorded without running them.
  returned: unless it failed before files and ledger were compared
  type: list
  elements: str
  sample: ["0001"]
repaired:
  description: Versions whose edited files were accepted.
  returned: unless it failed before files and ledger were compared
  type: list
  elements: str
  sample: []
rebuilt_indexes:
  description: Invalid indexes that were rebuilt or dropped.
  returned: unless it failed before files and ledger were compared
  type: list
  elements: str
  sample: [items_embedding]
schema_version:
  description: The highest version that is applied, V(none) when there is no one.
  returned: unless it failed before files and ledger were compared
  type: str
  sample: "0001"
previous_version:
  description: RV(schema_version) before the run.
  returned: unless it failed before files and ledger were compared
  type: str
  sample: "0000"
ledger:
  description: The table that remembers what was applied.
  returned: unless it failed before files and ledger were compared
  type: str
  sample: public.schema_migrations
extension_changes:
  description: What was done to the extension C(vector), as SQL.
  returned: on success without O(rehearse)
  type: list
  elements: str
  sample: [ALTER EXTENSION vector UPDATE]
vector_version:
  description: Version of the extension C(vector) in the database, V(none) without it.
  returned: on success without O(rehearse)
  type: str
  sample: 0.8.5
vector_columns:
  description:
    - Every column of a vector type, with its indexes, also those on expressions. C(dimensions) is
      V(none) when the column takes any; C(valid) of an index is false after a failed build.
  returned: on success without O(rehearse)
  type: list
  elements: dict
  sample:
    - table: public.items
      column: embedding
      type: vector
      dimensions: 384
      indexes: [{name: items_embedding, method: hnsw, valid: true}]
failed_migration:
  description: The migration that failed, with its file and line.
  returned: when a migration failed
  type: dict
  sample: {version: "0002", name: add_index, file: 0002_add_index.sql, line: 3}
sqlstate:
  description: PostgreSQL's code of the error.
  returned: when the server refused a statement
  type: str
  sample: "42P01"
"""

import socket
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres, _postgres_container
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._limits import Limits, milliseconds
from ansible_collections.groundwork.backend.plugins.module_utils._migrate import Run
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import Policy
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import discover
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import check_variables


def execute(context: Context) -> dict[str, Any]:
    """Check the options, then run."""
    params = context.params
    variables = check_variables(params["variables"])
    secrets = _secrets(params["login_dsn"])
    migrations = discover(Path(params["directory"]))
    if not migrations:
        context.warn(f"The directory {params['directory']} holds no migration.")

    server = _postgres_container.find(params["container"]) if params["container"] else None

    def connect() -> Any:
        name = f"groundwork.backend pgvector_migrate on {socket.gethostname()}"
        connection = _postgres.connect(params, application_name=name[:63], address=server.address if server else None)
        context.cleanup.callback(connection.close)
        return connection

    run = Run(
        connect=connect,
        warn=context.warn,
        ledger=Ledger(params["ledger_schema"], params["ledger_table"]),
        migrations=migrations,
        policy=Policy(
            baseline=params["baseline"],
            target=params["target"],
            out_of_order=params["out_of_order"],
            repair={str(version): str(reason) for version, reason in params["repair"].items()},
            resume=params["resume"],
        ),
        limits=Limits(
            lock_timeout_ms=milliseconds("lock_timeout", params["lock_timeout"]),
            statement_timeout_ms=milliseconds("statement_timeout", params["statement_timeout"]),
            lock_retries=params["lock_retries"],
        ),
        variables=variables,
        secrets=secrets,
        lock_wait=params["lock_wait"],
        read_only=context.check_mode or params["verify_only"],
        rehearse=params["rehearse"],
        rebuild=params["rebuild_invalid_indexes"],
        lint=params["lint"],
        import_from=params["import_from"],
        down_to=params["down_to"],
        extension=params["vector_extension"],
        allowed_vector_versions=params["allowed_vector_versions"],
        shm_bytes=server.shm_bytes if server else None,
    )
    result = run.execute()
    return {**result, "changed": False} if params["verify_only"] else result


def _secrets(dsn: str | None) -> dict[str, str]:
    """The password in login_dsn, which Ansible does not know as a secret of its own."""
    password = _postgres.dsn_parameters(dsn).get("password") if dsn else None
    return {"login_dsn": password} if password else {}


def main() -> None:
    """Run the module."""
    login = _postgres.login_or_dsn_options()
    run_module(
        execute,
        unmasked=("variables",),
        argument_spec={
            **login["argument_spec"],
            "container": {"type": "str"},
            "directory": {"type": "path", "required": True},
            "variables": {"type": "dict", "default": {}, "no_log": True},
            "baseline": {"type": "str"},
            "import_from": {"type": "str", "choices": ["dbmate", "golang-migrate", "flyway"]},
            "target": {"type": "str"},
            "down_to": {"type": "str"},
            "out_of_order": {"type": "str", "default": "fail", "choices": ["fail", "warn", "apply"]},
            "repair": {"type": "dict", "default": {}},
            "resume": {"type": "bool", "default": False},
            "rebuild_invalid_indexes": {"type": "bool", "default": False},
            "vector_extension": {
                "type": "str",
                "default": "unmanaged",
                "choices": ["unmanaged", "present", "latest"],
            },
            "allowed_vector_versions": {"type": "list", "elements": "str", "default": []},
            "lint": {"type": "str", "default": "warn", "choices": ["ignore", "warn", "fail"]},
            "rehearse": {"type": "bool", "default": False},
            "verify_only": {"type": "bool", "default": False},
            "lock_wait": {"type": "float", "default": 60},
            "lock_timeout": {"type": "str", "default": "5s"},
            "lock_retries": {"type": "int", "default": 10},
            "statement_timeout": {"type": "str"},
            "ledger_schema": {"type": "str", "default": "public"},
            "ledger_table": {"type": "str", "default": "schema_migrations"},
        },
        required_one_of=login["required_one_of"],
        mutually_exclusive=[
            *login["mutually_exclusive"],
            ["baseline", "import_from", "down_to"],
            ["target", "down_to"],
            ["rehearse", "verify_only", "rebuild_invalid_indexes", "down_to"],
        ],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
