# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One run of migrations from the comparison to the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _pgvector, _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._foreign_ledgers import applied_elsewhere
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._limits import Limits
from ansible_collections.groundwork.backend.plugins.module_utils._lint import findings, losses
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import MigrationLock, holder
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import (
    LedgerRow,
    Plan,
    Policy,
    make_plan,
)
from ansible_collections.groundwork.backend.plugins.module_utils._migration_result import of_run, of_undo
from ansible_collections.groundwork.backend.plugins.module_utils._migration_run import (
    MigrationRunner,
    invalid_indexes,
    rehearsed,
)
from ansible_collections.groundwork.backend.plugins.module_utils._migration_undo import undoing
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script, prepare

_COPY = re.compile(r'_cc(?:new|old)[0-9]*"?$')


@dataclass
class Run:
    """What one run works on. connect() opens a connection that the caller closes; read_only is check mode.

    shm_bytes is the size of the server's /dev/shm where that is known without asking the server. secrets are values by
    name that messages must not quote, beside those of variables.
    """

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
    lint: str = "warn"
    import_from: str | None = None
    down_to: str | None = None
    shm_bytes: int | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)

    def execute(self) -> dict[str, Any]:
        """Do it, and return the module's result. On failure the error's details hold what was done until then."""
        connection = self.connect()
        rows = self._rows(connection)
        if self.down_to is not None:
            return self._undo(connection, self.down_to)
        if self.read_only:
            return self._predict(connection, rows)
        # the row of a run that is at work says nothing yet: then wait for the lock first
        if not self.rebuild and all(row.state != "running" for row in rows):
            plan = self._plan(connection, rows)
            if not plan.changes and not self._extension_change(connection):
                return self._success(connection, of_run(plan, self.ledger.name))
        keeper, lock = self._lock(connection)
        rebuilt = self._rebuild(connection)
        plan = self._plan(connection, self._rows(connection))
        scripts = self._scripts(connection, plan)
        changes = [] if self.rehearse else self._extension_change(connection)
        runner = MigrationRunner(connection, keeper, self.ledger, {**self.variables, **self.secrets})
        if self.rehearse:
            return self._rehearse(runner, plan, scripts)
        applied: list[dict[str, Any]] = []
        lossy = losses(scripts)
        with _postgres.server_errors("create or update the extension vector"):
            for statement in changes:
                connection.execute(statement)
        try:
            self._record(connection, plan)
            for migration, script in zip(plan.pending, scripts, strict=True):
                with _postgres.server_errors("keep the lock of migrations"):
                    lock.require(connection)
                applied.append(runner.apply(migration, script, plan.resumed.get(migration.version, 0)))
        except GroundworkError as error:
            result = of_run(plan, self.ledger.name, applied, rebuilt, lossy)
            done = bool(applied or plan.baselined or plan.repaired or rebuilt or changes)
            error.details.update({**result, "changed": done})
            error.details.pop("diff")
            raise
        return self._success(connection, of_run(plan, self.ledger.name, applied, rebuilt, lossy), changes)

    def _lock(self, connection: Any) -> tuple[Any, MigrationLock]:
        keeper = self.connect()
        lock = MigrationLock(keeper)
        with _postgres.server_errors("take the lock of migrations"):
            lock.acquire(self.lock_wait)
            lock.require(connection)
        return keeper, lock

    def _undo(self, connection: Any, down_to: str) -> dict[str, Any]:
        keeper, lock = (None, None) if self.read_only else self._lock(connection)
        rows = self._rows(connection)
        plan = make_plan(self.migrations, rows, self.ledger.name, Policy(out_of_order="apply"))
        pairs = undoing(self.migrations, rows, down_to, self.variables, self.limits)
        if lock is None:
            return of_undo(plan, self.ledger.name, [migration.to_dict() for migration, _ in pairs])
        runner = MigrationRunner(connection, keeper, self.ledger, {**self.variables, **self.secrets}, undo=True)
        undone: list[dict[str, Any]] = []
        try:
            for migration, script in pairs:
                with _postgres.server_errors("keep the lock of migrations"):
                    lock.require(connection)
                undone.append(runner.apply(migration, script))
        except GroundworkError as error:
            error.details.update(of_undo(plan, self.ledger.name, undone))
            error.details.pop("diff")
            raise
        return of_undo(plan, self.ledger.name, undone)

    def _predict(self, connection: Any, rows: Sequence[LedgerRow]) -> dict[str, Any]:
        if any(row.state == "running" for row in rows):
            with _postgres.server_errors("look who holds the lock of migrations"):
                at_work = holder(connection)
            if at_work:
                self.warn(f"Another run of migrations is at work ({at_work}); its migration is counted as pending.")
                rows = [row for row in rows if row.state != "running"]
        plan = self._plan(connection, rows)
        lossy = losses(self._scripts(connection, plan))
        with _postgres.server_errors("look for invalid indexes"):
            result = of_run(plan, self.ledger.name, [], invalid_indexes(connection) if self.rebuild else [], lossy)
        return self._success(connection, result, self._extension_change(connection))

    def _plan(self, connection: Any, rows: Sequence[LedgerRow]) -> Plan:
        policy = self.policy
        if self.import_from and not rows:
            with _postgres.server_errors(f"read the ledger of {self.import_from}"):
                policy = replace(
                    policy, imported=tuple(applied_elsewhere(connection, self.import_from, self.migrations))
                )
        return make_plan(self.migrations, rows, self.ledger.name, policy)

    def _rows(self, connection: Any) -> list[LedgerRow]:
        with _postgres.server_errors(f"read the ledger {self.ledger.name}"):
            return self.ledger.rows(connection)

    def _scripts(self, connection: Any, plan: Plan) -> list[Script]:
        """All of them before the first one runs, so that what can be refused is refused with nothing applied."""
        scripts = [prepare(migration.text, self.variables, migration.file, self.limits) for migration in plan.pending]
        for warning in plan.warnings:
            self.warn(warning)
        if not scripts and not self._extension_change(connection):
            return []
        self._lint(scripts)
        with _postgres.server_errors("look at pgvector"):
            _pgvector.refuse_large_indexes(
                scripts, lambda: _pgvector.known_columns(_pgvector.vector_columns(connection))
            )
            installed, available = _pgvector.versions(connection)
            made = self.extension != "unmanaged" or _pgvector.creates_extension(scripts)
            if self.extension == "latest" or (installed is None and made):
                installed = available
            _pgvector.refuse_bad_version(installed, self.allowed_vector_versions)
            if warning := _pgvector.memory_warning(connection, scripts, self.shm_bytes):
                self.warn(warning)
        return scripts

    def _lint(self, scripts: Sequence[Script]) -> None:
        found = [str(finding) for finding in findings(scripts)] if self.lint != "ignore" else []
        if found and self.lint == "fail":
            raise InputError(
                f"Dangerous statements: {' '.join(found)}",
                fix="Write them in another way, or allow one with the comment -- squawk-ignore RULE before it.",
            )
        for text in found:
            self.warn(text)

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
            self.ledger.mark(connection)
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
        changed = [script.file for script in scripts if script.transactional and rehearsed(script) != script.statements]
        if changed:
            self.warn(
                "Rehearsed without what they set for their transaction (such as ISOLATION LEVEL), because all files "
                f"share one there: {', '.join(changed)}."
            )
        result = {**of_run(plan, self.ledger.name, lossy=losses(scripts)), "changed": False}
        try:
            done = runner.rehearse([pair for pair in pairs if pair[1].transactional])
        except GroundworkError as error:
            error.details.update(result)
            error.details.pop("diff")
            raise
        return {**result, "rehearsed": done}
