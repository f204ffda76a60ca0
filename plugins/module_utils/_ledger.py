# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The table that remembers which migrations were applied.

A second table, <ledger>_progress, remembers the statement that a migration outside of a transaction has reached. It is
made only when there is such a migration. A third, <ledger>_repairs, remembers why an edited file was accepted.

The name of a constraint tells the format of the table. Unlike a comment it cannot be left out of a dump, and nobody
has a reason to write another one. A table without it is older than the first number, and of that format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import LedgerRow, Repair
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import literal

_COLUMNS = [
    ("version", "text"),
    ("name", "text"),
    ("checksum", "text"),
    ("applied_at", "timestamp with time zone"),
    ("execution_ms", "bigint"),
    ("applied_by", "text"),
    ("state", "text"),
]
FORMAT = 1  # a change that an older version of this collection would misread counts it up
_MARK = "groundwork_ledger_format_"
# how long the transaction runs already
_SPENT_MS = (
    "(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()) * 1000)"
    "::pg_catalog.int8"
)


@dataclass(frozen=True)
class Ledger:
    """The ledger schema.table of one database. Its methods let psycopg's errors through."""

    schema: str
    table: str

    def __post_init__(self) -> None:
        for name in (self.schema, self.table):
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,49}", name):
                raise InputError(
                    f"{name!r} cannot be the schema or the table of the ledger.",
                    fix="Use up to 50 ASCII letters, digits and underscores, and a letter first.",
                )

    @property
    def name(self) -> str:
        """The table's name for messages and results."""
        return f"{self.schema}.{self.table}"

    def rows(self, connection: Any) -> list[LedgerRow]:
        """What is recorded; an absent table holds nothing. Raises StateError when the table is another's."""
        columns = self._columns(connection, self.table)
        if not columns:
            return []
        number, _ = self._format(connection)
        if number > FORMAT:
            raise StateError(
                f"The ledger {self.name} was written by a newer version of this collection: it has the format "
                f"{number}, and this version knows {FORMAT}.",
                fix="Upgrade the collection groundwork.backend to the version that was used last.",
            )
        if columns != _COLUMNS:
            raise StateError(
                f"The table {self.name} exists and is not a ledger of this version of the module: its columns  "
                f"are {', '.join(name for name, _ in columns)}.",
                fix="Name another table with ledger_schema and ledger_table.",
            )
        reached = {}
        if self._columns(connection, self._progress):
            reached = {
                version: (statement, line)
                for version, statement, line in connection.execute(
                    f"SELECT version, statement, line FROM {self._quoted(self._progress)}"  # noqa: S608 - checked above
                )
            }
        columns_read = "version, name, checksum, applied_at, state"
        found = connection.execute(f"SELECT {columns_read} FROM {self._quoted(self.table)}")  # noqa: S608 - checked above
        rows = []
        for version, name, checksum, applied_at, state in found:
            statement, line = reached.get(version, (None, None))
            rows.append(LedgerRow(version, name, checksum, applied_at, state, statement, line))
        return rows

    def create(self, connection: Any) -> None:
        """Create the table, and its schema, when they are not there."""
        if self._columns(connection, self.table):
            return  # CREATE TABLE IF NOT EXISTS wants the right to create tables even then
        if connection.execute("SELECT to_regnamespace(%s)", [_quote(self.schema)]).fetchone() == (None,):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quote(self.schema)}")
        connection.execute(
            f"""CREATE TABLE IF NOT EXISTS {self._quoted(self.table)} (
                version text PRIMARY KEY,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL,
                execution_ms bigint NOT NULL,
                applied_by text NOT NULL,
                state text NOT NULL CHECK (state IN ('applied', 'baseline', 'failed', 'running')),
                CONSTRAINT {_MARK}{FORMAT} CHECK (true)
            )"""
        )

    def mark(self, connection: Any) -> None:
        """Write the format of a table that has none yet. What stands in the way is left to a later run."""
        import psycopg  # noqa: PLC0415 - optional on the host

        number, owned = self._format(connection)
        if number or not owned:
            return
        with suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute(f"ALTER TABLE {self._quoted(self.table)} ADD CONSTRAINT {_MARK}{FORMAT} CHECK (true)")

    def insertion(self, migration: Migration) -> str:
        """The statement that records a migration in its own transaction and returns its execution_ms.

        A second row of one version fails, so that a file is applied once even when the lock of migrations was lost.
        """
        again = (
            " ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum, applied_at = excluded.applied_at,"
            " execution_ms = excluded.execution_ms, applied_by = excluded.applied_by, state = excluded.state"
        )
        texts = ", ".join(literal(text) for text in (migration.version, migration.name, migration.checksum))
        return (
            f"INSERT INTO {self._quoted(self.table)}"  # noqa: S608 - checked above, and literals
            " (version, name, checksum, applied_at, execution_ms, applied_by, state)"
            f" VALUES ({texts}, pg_catalog.clock_timestamp(), {_SPENT_MS},"
            f" session_user, 'applied'){again if migration.repeatable else ''} RETURNING execution_ms"
        )

    def deletion(self, migration: Migration) -> str:
        """The statement that removes the row of a migration in the transaction that undoes it; returns milliseconds."""
        version = literal(migration.version.lstrip("0"))
        return (
            f"DELETE FROM {self._quoted(self.table)} WHERE pg_catalog.ltrim(version, '0') = {version}"  # noqa: S608 - as above
            f" RETURNING {_SPENT_MS}"
        )

    def record(self, connection: Any, migration: Migration, *, state: str, execution_ms: int) -> None:
        """Write the row of a migration, or bring it up to date."""
        connection.execute(
            f"""INSERT INTO {self._quoted(self.table)}
                (version, name, checksum, applied_at, execution_ms, applied_by, state)
                VALUES (%s, %s, %s, clock_timestamp(), %s, session_user, %s)
                ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum,
                applied_at = excluded.applied_at, execution_ms = excluded.execution_ms, state = excluded.state""",  # noqa: S608 - checked above
            [migration.version, migration.name, migration.checksum, execution_ms, state],
        )

    def adopt(self, connection: Any, migrations: Sequence[Migration]) -> None:
        """Record migrations as baseline, all or none."""
        with connection.transaction():
            for migration in migrations:
                self.record(connection, migration, state="baseline", execution_ms=0)

    def accept(self, connection: Any, repairs: Sequence[Repair]) -> None:
        """Take the content of edited files for what was applied, and remember why."""
        log = self._quoted(f"{self.table}_repairs")
        with connection.transaction():
            connection.execute(
                f"""CREATE TABLE IF NOT EXISTS {log} (
                    version text NOT NULL, checksum_before text NOT NULL, checksum text NOT NULL, reason text NOT NULL,
                    repaired_at timestamptz NOT NULL, repaired_by text NOT NULL)"""
            )
            for repair in repairs:
                migration = repair.migration
                connection.execute(
                    f"INSERT INTO {log} VALUES (%s, %s, %s, %s, clock_timestamp(), session_user)",  # noqa: S608 - checked above
                    [migration.version, repair.checksum_before, migration.checksum, repair.reason],
                )
                connection.execute(
                    f"UPDATE {self._quoted(self.table)} SET checksum = %s WHERE ltrim(version, '0') = %s",  # noqa: S608 - checked above
                    [migration.checksum, migration.version.lstrip("0")],
                )

    def create_progress(self, connection: Any) -> None:
        """Create the table of reached statements when it is not there."""
        connection.execute(
            f"""CREATE TABLE IF NOT EXISTS {self._quoted(self._progress)} (
                version text PRIMARY KEY, statement integer NOT NULL, line integer NOT NULL)"""
        )

    def reach(self, connection: Any, migration: Migration, statement: int, line: int) -> None:
        """Remember that a statement (counted from 1) is about to start."""
        connection.execute(
            f"""INSERT INTO {self._quoted(self._progress)} VALUES (%s, %s, %s)
                ON CONFLICT (version) DO UPDATE SET statement = excluded.statement, line = excluded.line""",  # noqa: S608 - checked above
            [migration.version, statement, line],
        )

    def forget_progress(self, connection: Any, migration: Migration) -> None:
        """Remove what reach() remembered of a migration."""
        connection.execute(
            f"DELETE FROM {self._quoted(self._progress)} WHERE version = %s",  # noqa: S608 - checked above
            [migration.version],
        )

    @property
    def _progress(self) -> str:
        return f"{self.table}_progress"

    def _quoted(self, table: str) -> str:
        return f"{_quote(self.schema)}.{_quote(table)}"

    def _format(self, connection: Any) -> tuple[int, bool]:
        """The number of the table's format, 0 without one, and whether this role may write it."""
        number, owned = connection.execute(
            "SELECT (SELECT max(substr(conname, length(%s) + 1)::int) FROM pg_constraint "
            "WHERE conrelid = pg_class.oid AND conname ~ ('^' || %s || '[0-9]{1,9}$')), "
            "pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)",
            [_MARK, _MARK, self._quoted(self.table)],
        ).fetchone()
        return number or 0, owned

    def _columns(self, connection: Any, table: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = connection.execute(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [self._quoted(table)],
        ).fetchall()
        return found


def _quote(name: str) -> str:
    return f'"{name}"'
