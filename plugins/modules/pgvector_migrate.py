#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
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
      - While a statement runs, PostgreSQL shows it to superusers and to the same role, and it logs it when it is told to.
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
  description: The migrations that are still to be applied; only check mode leaves any on success.
  returned: success
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
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import MigrationLock
from ansible_collections.groundwork.backend.plugins.module_utils._migration_run import (
    Limits,
    MigrationRunner,
    milliseconds,
)
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Plan, discover, make_plan
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script, prepare
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import check_variables


def execute(context: Context) -> dict[str, Any]:
    """Plan, and unless in check mode apply what is pending under the lock."""
    params = context.params
    variables = check_variables(params["variables"])
    limits = _limits(params)
    ledger = Ledger(params["ledger_schema"], params["ledger_table"])
    migrations = discover(Path(params["directory"]))
    if not migrations:
        context.warn(f"The directory {params['directory']} holds no migration.")
    connection = _connect(context)

    def compare(*, alone: bool) -> Plan | None:
        """The plan; None while another run is at work, whose rows say nothing yet."""
        with _postgres.server_errors(f"read the ledger {ledger.name}"):
            rows = ledger.rows(connection)
        if not alone and any(row.state == "running" for row in rows):
            return None
        return make_plan(migrations, rows, ledger.name)

    plan = compare(alone=context.check_mode)
    if context.check_mode or (plan and not plan.pending):
        assert plan is not None  # noqa: S101 - for the type checker: check mode always has one
        _prepare(plan, variables)
        return _result(plan, ledger, [], plan)
    keeper = _connect(context)
    lock = MigrationLock(keeper)
    with _postgres.server_errors("take the lock of migrations"):
        lock.acquire(params["lock_wait"])
    plan = compare(alone=True)
    assert plan is not None  # noqa: S101 - for the type checker
    scripts = _prepare(plan, variables)
    if plan.pending:
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
        left = {key: value for key, value in _result(plan, ledger, applied, plan).items() if key not in ("diff", "pending")}
        error.details.update({**left, "changed": bool(applied)})
        raise
    return _result(plan, ledger, applied, plan)
