# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Apply one migration to a server, so that its ledger row says what is true whatever happens."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._batch import Batch, BatchError
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._limits import NO_LIMITS, Limits
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import lost, take_work
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration
from ansible_collections.groundwork.backend.plugins.module_utils._script import (
    BuiltIndex,
    Script,
    built_index,
    runs_alone,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import redact

# What DISCARD ALL does, which may not share a message with other statements: no setting, role, temporary table or
# session lock of one file reaches the next.
_CLEAN = (
    "CLOSE ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ALL", "DEALLOCATE ALL", "UNLISTEN *",
    "SELECT pg_catalog.pg_advisory_unlock_all()", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES",
)  # fmt: skip
_RETRIED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
_LONGEST_PAUSE_SECONDS = 10.0
_jitter = random.SystemRandom()


def invalid_indexes(connection: Any) -> list[str]:
    """The names, for SQL, of indexes that are invalid; one that is being built is not counted."""
    found = connection.execute(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE relkind = 'i' AND NOT indisvalid AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS at_work "
        "WHERE at_work.index_relid = indexrelid AND at_work.datname = current_database()) ORDER BY 1"
    )
    return [str(name) for (name,) in found]


def rehearsed(script: Script) -> tuple[Statement, ...]:
    """The statements that a rehearsal runs: without modes of the transaction, which all files share there."""
    return tuple(statement for statement in script.statements if statement.words[:2] != ("SET", "TRANSACTION"))


class MigrationRunner:
    """Applies migrations on *connection*; *keeper* (the lock's connection) keeps the rows of those without transaction.

    Both are autocommit connections. variables are only needed to keep their values out of messages.

    With undo, a migration's row is removed.
    """

    def __init__(
        self, connection: Any, keeper: Any, ledger: Ledger, variables: Mapping[str, str], *, undo: bool = False
    ) -> None:
        self._connection = connection
        self._keeper = keeper
        self._ledger = ledger
        self._variables = variables
        self._row: Callable[[Migration], str] = ledger.deletion if undo else ledger.insertion
        self._statement: Statement | None = None  # where it is, for messages
        self._position = 0
        connection.prepare_threshold = None  # DISCARD ALL would take prepared statements away

    def apply(self, migration: Migration, script: Script, first: int = 0) -> dict[str, Any]:
        """Run a migration and record it: {"version", "name", "execution_ms"}.

        first is the statement (from 1) with which an interrupted one goes on; an invalid index of it is dropped before.

        Raises StateError with the details failed_migration and sqlstate. A transactional migration has left nothing
        then; another one is recorded as failed.
        """
        with self._explained(migration, script):
            if script.transactional:
                spent = self._retried(partial(self._in_transaction, migration, script), script.limits)
            else:
                spent = self._outside(migration, script, first)
        return {**migration.to_dict(), "execution_ms": spent}

    def rehearse(self, pairs: Sequence[tuple[Migration, Script]]) -> list[dict[str, Any]]:
        """Run transactional migrations in one transaction and take them back: [{"version", "name", "execution_ms"}].

        Raises as apply() does, and leaves nothing in any case (but sequences go on, as PostgreSQL has it).
        """
        done: list[dict[str, Any]] = []
        self._connection.execute("BEGIN")
        try:
            with _postgres.server_errors(f"create the ledger {self._ledger.name}"):
                self._ledger.create(self._connection)
            for migration, whole in pairs:
                started = time.monotonic()
                script = replace(whole, statements=rehearsed(whole))
                with self._explained(migration, script):
                    self._send(migration, script, (*_CLEAN, *self._settings("SET LOCAL", script.limits)), ())
                    self._check_constraints()
                done.append({**migration.to_dict(), "execution_ms": _elapsed_ms(started)})
        finally:
            self._roll_back()
        return done

    def _check_constraints(self) -> None:
        """Check what a commit would check, and let the next file find the constraints as they are declared."""
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        (deferred,) = self._connection.execute(
            "SELECT string_agg(DISTINCT format('%I.%I', nspname, conname), ', ') FROM pg_constraint "
            "JOIN pg_namespace ON pg_namespace.oid = connamespace "
            "WHERE condeferred AND has_schema_privilege(connamespace, 'USAGE')"
        ).fetchone()
        if deferred:
            self._connection.execute(f"SET CONSTRAINTS {deferred} DEFERRED")

    @contextmanager
    def _explained(self, migration: Migration, script: Script) -> Iterator[None]:
        import psycopg  # noqa: PLC0415 - optional on the host

        self._statement, self._position = None, 0
        try:
            yield
        except BatchError as error:
            self._statement, self._position = error.statement, error.position
            raise self._failure(migration, script, error.cause) from None
        except psycopg.Error as error:
            raise self._failure(migration, script, error) from None  # its text may quote the SQL that was sent
        except StateError as error:
            error.details.update(self._where(migration, script))
            raise

    def _in_transaction(self, migration: Migration, script: Script) -> int:
        # the comment names the file in pg_stat_activity and in the server's log
        begin = (f"-- {migration.file!a}\nBEGIN", *self._settings("SET LOCAL", script.limits))
        try:
            results = self._send(migration, script, begin, ("COMMIT", *_CLEAN))
        except Exception:
            self._roll_back()
            raise
        return int(results[-len(_CLEAN) - 2].get_value(0, 0))

    def _send(self, migration: Migration, script: Script, before: Sequence[str], after: Sequence[str]) -> list[Any]:
        """A transactional file and its row in one message, or in more.

        An index must be looked at before the commit; and a statement with a value of a variable goes alone, because
        the server logs the whole message when another statement of it fails.
        """
        batch = Batch()
        batch.add(*before)
        for statement in script.statements:
            alone = script.expanded.edited(statement.start, statement.end)
            if alone:
                batch.send(self._connection)
                batch = Batch()
            batch.add_statement(statement)
            index = built_index(statement)
            if alone or index:
                batch.send(self._connection)
                batch = Batch()
            if index:
                self._statement = statement
                self._refuse_invalid(index)
        self._statement = None
        batch.add("RESET SESSION AUTHORIZATION", "RESET ROLE", self._row(migration), *after)
        return batch.send(self._connection)

    def _roll_back(self) -> None:
        if not self._connection.broken:
            self._connection.rollback()
            self._connection.execute("DISCARD ALL")

    def _outside(self, migration: Migration, script: Script, first: int) -> int:
        self._connection.execute("DISCARD ALL")
        self._hold()
        self._ledger.create_progress(self._keeper)
        self._ledger.record(self._keeper, migration, state="running", execution_ms=0)
        started = time.monotonic()
        limits = None
        try:
            for number, statement in enumerate(script.statements, 1):
                if number < first:
                    continue
                self._statement = statement
                self._reach(migration, number, script.line(statement))
                alone = runs_alone(statement.words)
                wanted = NO_LIMITS if alone else script.limits  # a concurrent build waits for transactions by design
                if limits != wanted:  # not before each statement: the file may have set its own
                    self._connection.execute("; ".join(self._settings("SET", wanted)))
                    limits = wanted
                if number == first:
                    self._drop_left_over(statement)
                if alone:
                    self._run(statement)
                else:
                    self._retried(partial(self._run, statement), script.limits)
                if statement.words[:2] == ("DISCARD", "ALL"):
                    self._hold()
        except Exception:
            if (writer := self._writer()) is not None:
                self._ledger.record(writer, migration, state="failed", execution_ms=_elapsed_ms(started))
            raise
        spent = _elapsed_ms(started)
        writer = self._writer() or self._keeper
        self._ledger.record(writer, migration, state="applied", execution_ms=spent)
        self._ledger.forget_progress(writer, migration)
        self._connection.execute("DISCARD ALL")
        return spent

    def _hold(self) -> None:
        if not take_work(self._connection):
            raise lost("Nothing of this file was run.")

    def _reach(self, migration: Migration, number: int, line: int) -> None:
        """Remember the statement that comes next, on the lock's connection, which shows that the lock is held."""
        import psycopg  # noqa: PLC0415 - optional on the host

        try:
            self._ledger.reach(self._keeper, migration, number, line)
        except psycopg.Error:
            if (writer := self._writer()) is None or writer is self._keeper:
                raise
            self._ledger.reach(writer, migration, number, line)
            raise lost(
                f"{migration.file} was stopped before the statement in line {line}; what ran before it stays, and "
                "resume goes on with it."
            ) from None

    def _writer(self) -> Any:
        """The connection that can still write the ledger, or None."""
        import psycopg  # noqa: PLC0415 - optional on the host

        with suppress(psycopg.Error):
            self._keeper.execute("SELECT 1")
        if not self._keeper.broken:
            return self._keeper
        if self._connection.broken:
            return None
        # no other run starts while this one has the lock of its work; what the file set must not matter
        self._connection.execute("SET SESSION AUTHORIZATION DEFAULT")
        self._connection.execute("RESET ALL")
        return self._connection

    def _run(self, statement: Statement) -> None:
        self._statement = statement
        self._connection.execute(statement.text.encode())
        if index := built_index(statement):
            self._refuse_invalid(index)

    def _refuse_invalid(self, index: BuiltIndex) -> None:
        if self._invalid(index):
            raise StateError(
                f"The index {index.name} on {index.table} exists and is invalid, left by a concurrent build that "
                "failed; IF NOT EXISTS takes it for a good one.",
                fix=f"Run DROP INDEX CONCURRENTLY {index.name}, then run again.",
            )

    def _retried(self, attempt: Callable[[], Any], limits: Limits) -> Any:
        import psycopg  # noqa: PLC0415 - optional on the host

        for number in range(limits.lock_retries):
            try:
                return attempt()
            except (BatchError, psycopg.Error) as error:
                cause = error.cause if isinstance(error, BatchError) else error
                if cause.sqlstate not in _RETRIED:
                    raise
            time.sleep(_jitter.uniform(0.1, min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**number)))
        return attempt()

    @staticmethod
    def _settings(command: str, limits: Limits) -> list[str]:
        values = {
            "lock_timeout": limits.lock_timeout_ms,
            "statement_timeout": limits.statement_timeout_ms,
            "client_connection_check_interval": 2000,  # a killed module's statement ends soon, not when it is done
        }
        return [f"{command} {name} = {value}" for name, value in values.items()]

    def _drop_left_over(self, statement: Statement) -> None:
        index = built_index(statement)
        if index and (name := self._invalid(index)):
            self._connection.execute(f"DROP INDEX CONCURRENTLY {name}")

    def _invalid(self, index: BuiltIndex) -> str | None:
        """The index's name for SQL when it is invalid; that of a partitioned table is so by design for a while."""
        row = self._connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "WHERE indrelid = to_regclass(%s) AND relname = %s AND relkind = 'i' AND NOT indisvalid",
            [index.table, index.name],
        ).fetchone()
        return str(row[0]) if row else None

    def _where(self, migration: Migration, script: Script) -> dict[str, Any]:
        line = script.line(self._statement, self._position) if self._statement else None
        return {"failed_migration": {**migration.to_dict(), "file": migration.file, "line": line}}

    def _failure(self, migration: Migration, script: Script, error: Any) -> StateError:
        """The sentence for an error of the server; values of variables are kept out of it."""
        statement, told, sqlstate = self._statement, error.diag.message_primary, error.sqlstate
        if statement and not script.transactional:
            self._position = int(error.diag.statement_position or 1) - 1
        where = self._where(migration, script)
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
        if script.transactional and told is None:
            found += (
                " Unless it was lost at the very end, nothing of this file was kept; the next run goes on from there."
            )
        elif script.transactional:
            found += " Nothing of this file was kept."
        else:
            found += f" What ran before in this file stays, and the next run says where it ended.{self._left_over()}"
        return StateError(found, fix=_postgres.fix_for(sqlstate), sqlstate=sqlstate, **where)

    def _left_over(self) -> str:
        """What a failed CREATE INDEX or REINDEX … CONCURRENTLY left."""
        if not self._statement or self._connection.broken:
            return ""
        index = built_index(self._statement)
        names = [self._invalid(index)] if index else []
        if self._statement.words[0] == "REINDEX":
            names = [name for name in invalid_indexes(self._connection) if re.search(r"_ccnew\d*\"?$", name)]
        return "".join(
            f" The failed build left the invalid index {name}: run DROP INDEX CONCURRENTLY {name}."
            for name in names
            if name
        )


def _elapsed_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
