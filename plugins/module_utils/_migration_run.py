# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Apply one migration to a server, so that its ledger row says what is true whatever happens."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration
from ansible_collections.groundwork.backend.plugins.module_utils._script import (
    BuiltIndex,
    Script,
    built_index,
    runs_alone,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import redact

_UNITS_MS = {"": 1, "ms": 1, "s": 1000, "min": 60_000}
_RETRIED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
_LONGEST_PAUSE_SECONDS = 10.0
_jitter = random.SystemRandom()


@dataclass(frozen=True)
class Limits:
    """How long a statement waits for a lock and runs (milliseconds, 0: no limit), and how often a wait is repeated."""

    lock_timeout_ms: int
    statement_timeout_ms: int
    lock_retries: int


def milliseconds(option: str, value: str | None) -> int:
    """A duration such as "5s", "500ms", "2min" or "500" (milliseconds). Raises InputError that names the option."""
    match = re.fullmatch(r"([0-9]{1,9})\s*(ms|s|min|)", (value or "0").strip())
    if not match:
        raise InputError(f"{option} is {value!r}, which is no duration.", fix="Write it like 5s, 500ms or 2min.")
    return int(match[1]) * _UNITS_MS[match[2]]


class MigrationRunner:
    """Applies migrations on *connection*; *keeper* (the lock's connection) keeps the rows of those without transaction.

    Both are autocommit connections. variables are only needed to keep their values out of messages.
    """

    def __init__(
        self, connection: Any, keeper: Any, ledger: Ledger, limits: Limits, variables: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._keeper = keeper
        self._ledger = ledger
        self._limits = limits
        self._variables = variables
        self._statement: Statement | None = None
        connection.prepare_threshold = None  # DISCARD ALL would take prepared statements away

    def apply(self, migration: Migration, script: Script) -> dict[str, Any]:
        """Run a migration and record it: {"version", "name", "execution_ms"}.

        Raises StateError with the details failed_migration and sqlstate. A transactional migration has left nothing
        then; another one is recorded as failed.
        """
        import psycopg  # noqa: PLC0415 - optional on the host

        self._statement = None
        try:
            self._connection.execute("DISCARD ALL")  # no setting, role or temporary table of the file before
            if script.transactional:
                spent = self._retried(partial(self._in_transaction, migration, script))
            else:
                spent = self._outside(migration, script)
        except psycopg.Error as error:
            raise self._failure(migration, script, error) from None  # its text may quote the SQL that was sent
        except StateError as error:
            error.details.update(self._where(migration, script))
            raise
        return {**migration.to_dict(), "execution_ms": spent}

    def _in_transaction(self, migration: Migration, script: Script) -> int:
        started = time.monotonic()
        try:
            self._connection.execute(f"BEGIN; {self._settings('SET LOCAL', self._limits)}")
            for statement in script.statements:
                self._run(statement)
            self._statement = None
            self._connection.execute("RESET SESSION AUTHORIZATION; RESET ROLE")
            spent = _elapsed_ms(started)
            self._ledger.record(self._connection, migration, state="applied", execution_ms=spent)
            self._connection.execute("COMMIT")
        except Exception:
            if not self._connection.broken:
                self._connection.rollback()
            raise
        return spent

    def _outside(self, migration: Migration, script: Script) -> int:
        self._ledger.create_progress(self._keeper)
        self._ledger.record(self._keeper, migration, state="running", execution_ms=0)
        started = time.monotonic()
        unlimited = Limits(0, 0, 0)  # a concurrent build waits for old transactions by design
        limits = None
        try:
            for number, statement in enumerate(script.statements, 1):
                self._ledger.reach(self._keeper, migration, number, script.line(statement))
                alone = runs_alone(statement.words)
                wanted = unlimited if alone else self._limits
                if limits != wanted:  # not before each statement: the file may have set its own
                    self._connection.execute(self._settings("SET", wanted))
                    limits = wanted
                if alone:
                    self._run(statement)
                else:
                    self._retried(partial(self._run, statement))
        except Exception:
            if not self._keeper.broken:
                self._ledger.record(self._keeper, migration, state="failed", execution_ms=_elapsed_ms(started))
            raise
        spent = _elapsed_ms(started)
        self._ledger.record(self._keeper, migration, state="applied", execution_ms=spent)
        self._ledger.forget_progress(self._keeper, migration)
        return spent

    def _run(self, statement: Statement) -> None:
        self._statement = statement
        self._connection.execute(statement.text.encode())
        index = built_index(statement)
        if index and self._invalid(self._connection, index):
            raise StateError(
                f"The index {index.name} on {index.table} exists and is invalid, left by a concurrent build that "
                "failed; IF NOT EXISTS takes it for a good one.",
                fix=f"Run DROP INDEX CONCURRENTLY {index.name}, then run again.",
            )

    def _retried(self, attempt: Callable[[], Any]) -> Any:
        import psycopg  # noqa: PLC0415 - optional on the host

        for number in range(self._limits.lock_retries):
            try:
                return attempt()
            except psycopg.Error as error:
                if error.sqlstate not in _RETRIED:
                    raise
            time.sleep(_jitter.uniform(0.1, min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**number)))
        return attempt()

    @staticmethod
    def _settings(command: str, limits: Limits) -> str:
        values = {
            "lock_timeout": limits.lock_timeout_ms,
            "statement_timeout": limits.statement_timeout_ms,
            "client_connection_check_interval": 2000,  # a killed module's statement ends soon, not when it is done
        }
        return "; ".join(f"{command} {name} = {value}" for name, value in values.items())

    @staticmethod
    def _invalid(connection: Any, index: BuiltIndex) -> bool:
        """Whether the index is invalid; that of a partitioned table is so by design until all parts are attached."""
        found = connection.execute(
            "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "WHERE indrelid = to_regclass(%s) AND relname = %s AND relkind = 'i' AND NOT indisvalid",
            [index.table, index.name],
        )
        return found.fetchone() is not None

    def _where(self, migration: Migration, script: Script, position: int = 0) -> dict[str, Any]:
        line = script.line(self._statement, position) if self._statement else None
        return {"failed_migration": {**migration.to_dict(), "file": migration.file, "line": line}}

    def _failure(self, migration: Migration, script: Script, error: Any) -> StateError:
        """The sentence for an error of the server; values of variables are kept out of it."""
        statement, told, sqlstate = self._statement, error.diag.message_primary, error.sqlstate
        position = int(error.diag.statement_position or 1) - 1 if statement else 0
        where = self._where(migration, script, position)
        line = where["failed_migration"]["line"]
        place = f"{migration.file}, line {line}" if line else f"{migration.file}, before or after its statements"
        if told is None:
            found = f"{place}: the connection to the server was lost."
        else:
            found = f"{place}: {redact(told, self._variables)} (SQLSTATE {sqlstate})."
            # a detail may quote a part of a value, which redact() cannot know
            detail = error.diag.message_detail
            if detail and not (statement and script.expanded.edited(statement.start, statement.end)):
                found += f" {redact(detail, self._variables)}"
        if script.transactional:
            found += " Nothing of this file was kept."
        else:
            found += f" What ran before in this file stays, and the ledger has it as failed.{self._left_over()}"
        return StateError(found, fix=_postgres.fix_for(sqlstate), sqlstate=sqlstate, **where)

    def _left_over(self) -> str:
        index = built_index(self._statement) if self._statement else None
        if index and not self._connection.broken and self._invalid(self._connection, index):
            return f" The failed build left the invalid index {index.name}: run DROP INDEX CONCURRENTLY {index.name}."
        return ""


def _elapsed_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
