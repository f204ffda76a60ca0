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
    C(BEGIN; ... COMMIT;).
  - A file with a statement that PostgreSQL refuses inside a transaction (such as C(CREATE INDEX CONCURRENTLY) or
    C(VACUUM)) runs statement by statement.
  - An applied file that was edited or deleted, and a new file below the highest applied version, are errors.
  - Needs Debian's package C(python3-psycopg) on the managed host.
author:
  - groundwork.backend contributors (@groundwork-backend)
extends_documentation_fragment:
  - groundwork.backend._postgres
options:
  directory:
    description:
      - Directory on the managed host with the migrations.
      - A file is named C(0001_name.sql), C(V2__name.sql) or C(20260101120000_name.sql). Other names that end in C(.sql)
        are an error; all other files are left alone.
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
  lock_wait:
    description: How long to wait, in seconds, for another run of migrations on the same database.
    type: float
    default: 60
  lock_timeout:
    description:
      - How long a statement waits for a lock of a table before the file is rolled back and tried again.
      - Written like V(5s), V(500ms), V(2min) or V(500) (milliseconds); V(0) waits without an end. Concurrent builds of
        indexes are not limited.
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
    description: Can run in check mode and return the status prediction without changing the target.
    support: full
    details: Connects and compares; the SQL itself is not run, so an error that only the server finds is not found.
  diff_mode:
    description: Returns what changed, or would change.
    support: full
    details: Shows the list of versions and the pending files as they are written, without the values of variables.
  idempotent:
    description: A second run in a row changes nothing.
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

- name: Say what was done
  ansible.builtin.debug:
    msg: "From {{ migrations.previous_version }} to {{ migrations.schema_version }}"
  when: migrations is changed
"""

RETURN = r"""
applied:
  description: The migrations that were applied, in order. On failure those before the one that failed.
  returned: always
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
  sample: [{version: "0001", name: create_items, execution_ms: 12}]
pending:
  description: The migrations that are still to be applied; only check mode and a failure leave any.
  returned: always
  type: list
  elements: dict
  sample: [{version: "0002", name: add_index}]
schema_version:
  description: The highest version that is applied, V(none) when there is no one.
  returned: always
  type: str
  sample: "0001"
previous_version:
  description: RV(schema_version) before the run.
  returned: always
  type: str
  sample: "0000"
ledger:
  description: The table that remembers what was applied.
  returned: always
  type: str
  sample: public.schema_migrations
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import MigrationLock
from ansible_collections.groundwork.backend.plugins.module_utils._migration_run import (
    Limits,
    MigrationRunner,
    milliseconds,
)
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import LedgerRow, Plan, discover, make_plan
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script, prepare
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import check_variables


def execute(context: Context) -> dict[str, Any]:
    """Plan, and unless in check mode apply what is pending under the lock."""
    params = context.params
    variables = check_variables(params["variables"])
    limits = Limits(
        lock_timeout_ms=milliseconds("lock_timeout", params["lock_timeout"]),
        statement_timeout_ms=milliseconds("statement_timeout", params["statement_timeout"]),
        lock_retries=params["lock_retries"],
    )
    ledger = Ledger(params["ledger_schema"], params["ledger_table"])
    migrations = discover(Path(params["directory"]))
    if not migrations:
        context.warn(f"The directory {params['directory']} holds no migration.")
    connection = _connect(context)
    rows = _rows(ledger, connection)
    # the row of a run that is at work says nothing yet: without check mode, wait for the lock first
    if context.check_mode or all(row.state != "running" for row in rows):
        plan = make_plan(migrations, rows, ledger.name)
        if context.check_mode or not plan.pending:
            _scripts(plan, variables)
            return _result(plan, ledger, [])
    keeper = _connect(context)
    lock = MigrationLock(keeper)
    with _postgres.server_errors("take the lock of migrations"):
        lock.acquire(params["lock_wait"])
    plan = make_plan(migrations, _rows(ledger, connection), ledger.name)
    scripts = _scripts(plan, variables)
    with _postgres.server_errors(f"create the ledger {ledger.name}"):
        ledger.create(connection)
    runner = MigrationRunner(connection, keeper, ledger, limits, variables)
    applied: list[dict[str, Any]] = []
    try:
        for migration, script in zip(plan.pending, scripts, strict=True):
            with _postgres.server_errors("keep the lock of migrations"):
                lock.require()
            applied.append(runner.apply(migration, script))
    except GroundworkError as error:
        error.details.update({**_result(plan, ledger, applied), "changed": bool(applied)})
        error.details.pop("diff")
        raise
    return _result(plan, ledger, applied)


def _connect(context: Context) -> Any:
    name = f"groundwork.backend pgvector_migrate on {socket.gethostname()}"
    connection = _postgres.connect(context.params, application_name=name[:63])
    context.cleanup.callback(connection.close)
    return connection


def _rows(ledger: Ledger, connection: Any) -> list[LedgerRow]:
    with _postgres.server_errors(f"read the ledger {ledger.name}"):
        return ledger.rows(connection)


def _scripts(plan: Plan, variables: dict[str, str]) -> list[Script]:
    """All of them before the first one runs, so that what can be refused is refused with nothing applied."""
    return [prepare(migration.text, variables, migration.file) for migration in plan.pending]


def _result(plan: Plan, ledger: Ledger, applied: list[dict[str, Any]]) -> dict[str, Any]:
    after = [*plan.applied, *(migration.version for migration in plan.pending)]
    done = [*plan.applied, *(entry["version"] for entry in applied)]
    return {
        "changed": bool(plan.pending),
        "applied": applied,
        "pending": [migration.to_dict() for migration in plan.pending[len(applied) :]],
        "previous_version": plan.current,
        "schema_version": done[-1] if done else None,
        "ledger": ledger.name,
        "diff": [
            {
                "before_header": ledger.name,
                "after_header": ledger.name,
                "before": _lines(plan.applied),
                "after": _lines(after),
            },
            *(
                {"before_header": migration.file, "after_header": migration.file, "before": "", "after": migration.text}
                for migration in plan.pending
            ),
        ],
    }


def _lines(versions: Sequence[str]) -> str:
    return "".join(f"{version}\n" for version in versions)


def main() -> None:
    """Run the module."""
    login = _postgres.login_options()
    run_module(
        execute,
        unmasked=("variables",),
        argument_spec={
            **login["argument_spec"],
            "directory": {"type": "path", "required": True},
            "variables": {"type": "dict", "default": {}, "no_log": True},
            "lock_wait": {"type": "float", "default": 60},
            "lock_timeout": {"type": "str", "default": "5s"},
            "lock_retries": {"type": "int", "default": 10},
            "statement_timeout": {"type": "str"},
            "ledger_schema": {"type": "str", "default": "public"},
            "ledger_table": {"type": "str", "default": "schema_migrations"},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
