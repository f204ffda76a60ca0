# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Compare the files with the ledger: what is left to do is the plan; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import REPEATABLE, Migration, key

_SHORT = 12  # characters of a checksum that a message shows


@dataclass(frozen=True)
class LedgerRow:
    """One row of the ledger. statement is the last one that was started when the state is running or failed."""

    version: str
    name: str
    checksum: str
    applied_at: datetime
    state: str
    statement: int | None = None
    line: int | None = None


@dataclass(frozen=True)
class Policy:
    """What the user allows: the options of the module of the same names.

    repair is reason by version. imported is what another tool has applied, to be recorded when the ledger is empty.
    """

    baseline: str | None = None
    target: str | None = None
    out_of_order: str = "fail"
    repair: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    imported: tuple[Migration, ...] = ()


@dataclass(frozen=True)
class Repair:
    """An edited file that is accepted as what was applied."""

    migration: Migration
    checksum_before: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    pending:   migrations to run, in order, the repeatable ones last.
    applied:   the versions (not the repeatable ones) that the ledger has or gets as baseline, in order.
    baselined: migrations to record without running them.
    repaired:  edited files to accept.
    resumed:   for a pending migration that was interrupted, by version, the statement (from 1) to go on with.
    """

    pending: tuple[Migration, ...]
    applied: tuple[str, ...]
    baselined: tuple[Migration, ...] = ()
    repaired: tuple[Repair, ...] = ()
    resumed: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def current(self) -> str | None:
        """The highest version that is applied."""
        return self.applied[-1] if self.applied else None

    @property
    def changes(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.pending or self.baselined or self.repaired)


def make_plan(
    migrations: Sequence[Migration], ledger: Sequence[LedgerRow], ledger_name: str, policy: Policy | None = None
) -> Plan:
    """Compare the files with the ledger (rows in any order).

    Raises StateError for what must not be passed over in silence: an interrupted migration, and a file that was
    edited, deleted, or added below a version that is applied; and InputError for a version that no file has.
    """
    policy = policy or Policy()
    files = {migration.key: migration for migration in migrations}
    rows = {_key(row, ledger_name): row for row in ledger}
    for option, version in [("baseline", policy.baseline), ("target", policy.target), *_named(policy.repair)]:
        if version is not None and _wanted(option, version) not in files:
            raise InputError(f"{option} names the version {version!r}, which no file has.", fix="Check the directory.")
    resumed = _resumed([row for _, row in sorted(rows.items())], files, policy, ledger_name)
    rows = {place: row for place, row in rows.items() if row.version not in resumed}
    _refuse_deleted([row for place, row in sorted(rows.items()) if place not in files and row.state != "baseline"])
    repaired = _repaired(migrations, rows, policy)
    last = _wanted("target", policy.target) if policy.target is not None else None
    first = _wanted("baseline", policy.baseline) if policy.baseline is not None and not ledger else (-1, "")
    imported = set() if ledger else {file.key for file in policy.imported}
    baselined = tuple(file for place, file in sorted(files.items()) if place <= first or place in imported)
    recorded = {file.key for file in baselined}
    pending = [
        file
        for place, file in sorted(files.items())
        if _runs(file, rows.get(place)) and place not in recorded and (last is None or place <= last)
    ]
    versions = {place: row.version for place, row in rows.items() if not row.version.startswith(REPEATABLE)}
    versions.update({file.key: file.version for file in baselined})
    late = [file for file in pending if versions and file.key < max(versions)]
    warnings = _out_of_order([file for file in late if file.version not in resumed], versions, policy)
    applied = tuple(version for _, version in sorted(versions.items()))
    return Plan(tuple(pending), applied, baselined, repaired, resumed, warnings)


def _runs(file: Migration, row: LedgerRow | None) -> bool:
    return row is None or (file.repeatable and row.checksum != file.checksum)


def _named(repair: Mapping[str, str]) -> list[tuple[str, str | None]]:
    for version, reason in repair.items():
        if not reason.strip():
            raise InputError(f"repair gives no reason for version {version}.", fix="Say why the edit is right.")
    return [("repair", version) for version in repair]


def _wanted(option: str, version: str) -> tuple[int, str]:
    try:
        return key(version)
    except ValueError as error:
        raise InputError(f"{option} is {version!r}, which is no version.", fix="Write it like 0002.") from error


def _key(row: LedgerRow, ledger_name: str) -> tuple[int, str]:
    if not row.version.startswith(REPEATABLE) and not (row.version.isascii() and row.version.isdecimal()):
        raise StateError(
            f"The ledger {ledger_name} holds the version {row.version!r}, which is no number.",
            fix="It was not written by this module: name another one with ledger_schema and ledger_table.",
        )
    return key(row.version)


def _resumed(
    rows: Sequence[LedgerRow], files: Mapping[tuple[int, str], Migration], policy: Policy, ledger_name: str
) -> dict[str, int]:
    found = {}
    for row in rows:
        if row.state not in {"running", "failed"}:
            continue
        file = files.get(key(row.version))
        if not policy.resume or not file or not row.statement:
            raise _interrupted(row, ledger_name)
        if file.checksum != row.checksum:
            raise StateError(
                f"{file.file} was edited since it was interrupted, so where to go on is not known.",
                fix=f"Restore its content, or make it safe to run from its start, delete the row of version "
                f"{row.version} from {ledger_name} and run again.",
            )
        found[file.version] = row.statement
    return found


def _interrupted(row: LedgerRow, ledger_name: str) -> StateError:
    reached = f" Statement {row.statement} (line {row.line}) was the last one started." if row.statement else ""
    how = "failed" if row.state == "failed" else "was interrupted"
    return StateError(
        f"Migration {row.version} ({row.name}) {how} outside of a transaction, so a part of it may be done.{reached}",
        fix="When that statement can be run again, set resume to go on with it. Otherwise look at what it left (an "
        "invalid index must be dropped), make the file safe to run from its start, then "
        f"delete the row of version {row.version} from {ledger_name} and run again.",
        failed_migration={"version": row.version, "name": row.name, "statement": row.statement, "line": row.line},
    )


def _refuse_deleted(rows: Sequence[LedgerRow]) -> None:
    if rows:
        names = ", ".join(f"{row.version} ({row.name})" for row in rows)
        raise StateError(
            f"Applied migrations have no file any more: {names}.",
            fix="Restore the files from version control; to undo one, write a new migration.",
        )


def _repaired(
    migrations: Sequence[Migration], rows: Mapping[tuple[int, str], LedgerRow], policy: Policy
) -> tuple[Repair, ...]:
    edited = [
        (file, rows[file.key].checksum)
        for file in migrations
        if not file.repeatable and file.key in rows and rows[file.key].checksum != file.checksum
    ]
    reasons = {key(version): reason for version, reason in policy.repair.items()}
    refused = [
        f"{file.file} (applied as {before[:_SHORT]}, now {file.checksum[:_SHORT]})"
        for file, before in edited
        if file.key not in reasons
    ]
    if refused:
        raise StateError(
            f"Applied migrations were edited: {', '.join(refused)}.",
            fix="Restore the content that was applied, and write the change as a new migration. When the edit is right "
            "(a comment), accept it with repair and a reason.",
        )
    return tuple(Repair(file, before, reasons[file.key]) for file, before in edited)


def _out_of_order(
    late: Sequence[Migration], versions: Mapping[tuple[int, str], str], policy: Policy
) -> tuple[str, ...]:
    if not late or policy.out_of_order == "apply":
        return ()
    names, highest = ", ".join(file.file for file in late), versions[max(versions)]
    if policy.out_of_order == "fail":
        raise StateError(
            f"{names} would run out of order: version {highest} is applied already.",
            fix="Give the new file a version above that, or set out_of_order.",
        )
    return (f"{names}: applied out of order, behind version {highest}.",)
