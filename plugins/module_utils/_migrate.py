# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One run of migrations from the comparison to the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _pgvector, _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._limits import Limits
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import MigrationLock, holder
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import (
    LedgerRow,
    Plan,
    Policy,
    make_plan,
)
from ansible_collections.groundwork.backend.plugins.module_utils._migration_run import MigrationRunner, invalid_indexes
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import REPEATABLE, Migration, key
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script, prepare

_COPY = re.compile(r'_cc(?:new|old)[0-9]*"?$')


@dataclass
class Run:
    """What one run works on. connect() opens a connection that the caller closes; read_only is check mode."""

    connect: Callable[[], Any]
    warn: Callable[[str], None]
    ledger: Ledger
    migrations: Sequence[Migration]
    policy: Policy
    limits: Limits
    variables: Mapping[str, str]
    lock_wait: float
    read_only: bool = False
    rehearse: bool = False
    rebuild: bool = False
    extension: str = "unmanaged"
    allowed_vector_versions: Sequence[str] = ()

    def execute(self) -> dict[str, Any]:
        """Do it, and return the module's result. On failure the error's details hold what was done until then."""
        connection = self.connect()
        rows = self._rows(connection)
        if self.read_only:
            return self._predict(connection, rows)
        # the row of a run that is at work says nothing yet: then wait for the lock first
        if not self.rebuild and all(row.state != "running" for row in rows):
            plan = self._plan(rows)
            if not plan.changes and not self._extension_change(connection):
                return self._success(connection, _result(plan, self.ledger))
        keeper = self.connect()
        lock = MigrationLock(keeper)
        with _postgres.server_errors("take the lock of migrations"):
            lock.acquire(self.lock_wait)
            lock.require(connection)
        rebuilt = self._rebuild(connection)
        plan = self._plan(self._rows(connection))
        scripts = self._scripts(connection, plan)
        changes = [] if self.rehearse else self._extension_change(connection)
        runner = MigrationRunner(connection, keeper, self.ledger, self.variables)
        if self.rehearse:
            return self._rehearse(runner, plan, scripts)
        applied: list[dict[str, Any]] = []
        try:
            with _postgres.server_errors("create or update the extension vector"):
                for statement in changes:
                    connection.execute(statement)
            self._record(connection, plan)
            for migration, script in zip(plan.pending, scripts, strict=True):
                with _postgres.server_errors("keep the lock of migrations"):
                    lock.require(connection)
                applied.append(runner.apply(migration, script, plan.resumed.get(migration.version, 0)))
        except GroundworkError as error:
            result = _result(plan, self.ledger, applied, rebuilt)
            error.details.update({**result, "changed": bool(applied or plan.baselined or plan.repaired or rebuilt)})
            error.details.pop("diff")
            raise
        return self._success(connection, _result(plan, self.ledger, applied, rebuilt), changes)

    def _predict(self, connection: Any, rows: Sequence[LedgerRow]) -> dict[str, Any]:
        if any(row.state == "running" for row in rows):
            with _postgres.server_errors("look who holds the lock of migrations"):
                at_work = holder(connection)
            if at_work:
                self.warn(f"Another run of migrations is at work ({at_work}); its migration is counted as pending.")
                rows = [row for row in rows if row.state != "running"]
        plan = self._plan(rows)
        self._scripts(connection, plan)
        with _postgres.server_errors("look for invalid indexes"):
            result = _result(plan, self.ledger, [], invalid_indexes(connection) if self.rebuild else [])
        return self._success(connection, result, self._extension_change(connection))

    def _plan(self, rows: Sequence[LedgerRow]) -> Plan:
        return make_plan(self.migrations, rows, self.ledger.name, self.policy)

    def _rows(self, connection: Any) -> list[LedgerRow]:
        with _postgres.server_errors(f"read the ledger {self.ledger.name}"):
            return self.ledger.rows(connection)

    def _scripts(self, connection: Any, plan: Plan) -> list[Script]:
        """All of them before the first one runs, so that what can be refused is refused with nothing applied."""
        scripts = [prepare(migration.text, self.variables, migration.file, self.limits) for migration in plan.pending]
        for warning in plan.warnings:
            self.warn(warning)
        if not scripts:
            return []
        with _postgres.server_errors("look at pgvector"):
            _pgvector.refuse_large_indexes(
                scripts, lambda: _pgvector.known_columns(_pgvector.vector_columns(connection))
            )
            installed, available = _pgvector.versions(connection)
            if self.extension == "latest" or (installed is None and _pgvector.creates_extension(scripts)):
                installed = available
            _pgvector.refuse_bad_version(installed, self.allowed_vector_versions)
            if _pgvector.builds_vector_index(scripts) and (warning := _pgvector.memory_warning(connection)):
                self.warn(warning)
        return scripts

    def _extension_change(self, connection: Any) -> list[str]:
        if self.extension == "unmanaged":
            return []
        with _postgres.server_errors("look at pgvector"):
            installed, available = _pgvector.versions(connection)
        if available is None:
            raise StateError(
                "The server has no files of the extension vector.",
                fix="Install pgvector on the server (Debian: postgresql-NN-pgvector), or use an image that has it.",
            )
        if installed is None:
            return ["CREATE EXTENSION vector"]
        return ["ALTER EXTENSION vector UPDATE"] if self.extension == "latest" and installed != available else []

    def _success(self, connection: Any, result: dict[str, Any], changes: Sequence[str] = ()) -> dict[str, Any]:
        with _postgres.server_errors("look at pgvector"):
            version, _ = _pgvector.versions(connection)
            columns = _pgvector.vector_columns(connection) if version else []
        return {
            **result,
            "changed": result["changed"] or bool(changes),
            "extension_changes": list(changes),
            "vector_version": version,
            "vector_columns": columns,
        }

    def _record(self, connection: Any, plan: Plan) -> None:
        with _postgres.server_errors(f"create the ledger {self.ledger.name}"):
            self.ledger.create(connection)
        with _postgres.server_errors(f"write the ledger {self.ledger.name}"):
            self.ledger.adopt(connection, plan.baselined)
            if plan.repaired:
                self.ledger.accept(connection, plan.repaired)

    def _rebuild(self, connection: Any) -> list[str]:
        if not self.rebuild:
            return []
        with _postgres.server_errors("rebuild the invalid indexes"):
            names = invalid_indexes(connection)
            for name in names:
                # what a failed REINDEX CONCURRENTLY left is a copy, and cannot be rebuilt itself
                command = "DROP INDEX" if _COPY.search(name) else "REINDEX INDEX"
                connection.execute(f"{command} CONCURRENTLY {name}")
        return names

    def _rehearse(self, runner: MigrationRunner, plan: Plan, scripts: Sequence[Script]) -> dict[str, Any]:
        pairs = list(zip(plan.pending, scripts, strict=True))
        left_out = [migration.file for migration, script in pairs if not script.transactional]
        if left_out:
            self.warn(f"Not rehearsed, because they run outside of a transaction: {', '.join(left_out)}.")
        try:
            rehearsed = runner.rehearse([pair for pair in pairs if pair[1].transactional])
        except GroundworkError as error:
            error.details.update({**_result(plan, self.ledger), "changed": False})
            error.details.pop("diff")
            raise
        return {**_result(plan, self.ledger), "changed": False, "rehearsed": rehearsed}


def _result(
    plan: Plan, ledger: Ledger, applied: Sequence[Mapping[str, Any]] = (), rebuilt: Sequence[str] = ()
) -> dict[str, Any]:
    after = [*plan.applied, *(migration.version for migration in plan.pending)]
    done = [*plan.applied, *(entry["version"] for entry in applied if not entry["version"].startswith(REPEATABLE))]
    pending = plan.pending[len(applied) :]
    adopted = {migration.version for migration in plan.baselined}
    before = [version for version in plan.applied if version not in adopted]
    return {
        "changed": plan.changes or bool(rebuilt),
        "applied": list(applied),
        "pending": [migration.to_dict() for migration in pending],
        "baselined": [migration.version for migration in plan.baselined],
        "repaired": [repair.migration.version for repair in plan.repaired],
        "rebuilt_indexes": list(rebuilt),
        "previous_version": before[-1] if before else None,
        "schema_version": max(done, key=key) if done else None,
        "ledger": ledger.name,
        "diff": [
            {
                "before_header": ledger.name,
                "after_header": ledger.name,
                "before": _lines(before),
                "after": _lines(after),
            },
            *(
                {"before_header": migration.file, "after_header": migration.file, "before": "", "after": migration.text}
                for migration in plan.pending
            ),
        ],
    }


def _lines(versions: Sequence[str]) -> str:
    return "".join(f"{version}\n" for version in sorted(versions, key=key))
