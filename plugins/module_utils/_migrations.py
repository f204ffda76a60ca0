# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Find migrations in a directory and compare them with the ledger: what is left to do is the plan."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors

ACCEPTED = "0001_name.sql, V2__name.sql or 20260101120000_name.sql"
_FILE_NAME = re.compile(r"(?:V(?P<v>[0-9]+)__|(?P<n>[0-9]+)_)(?P<name>[^.]+)\.sql")
_SHORT = 12  # characters of a checksum that a message shows


@dataclass(frozen=True)
class Migration:
    """One file: version as in its name ("0001"), name, path, sha256 as hex, and its text without a byte-order mark."""

    version: str
    name: str
    path: Path
    checksum: str
    text: str

    @property
    def number(self) -> int:
        """What decides the order."""
        return int(self.version)

    @property
    def file(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def to_dict(self) -> dict[str, str]:
        """Version and name, JSON-ready."""
        return {"version": self.version, "name": self.name}


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
class Plan:
    """What is left to do: pending migrations in order, and the versions that the ledger has already, in order."""

    pending: tuple[Migration, ...]
    applied: tuple[str, ...]

    @property
    def current(self) -> str | None:
        """The highest version that is applied."""
        return self.applied[-1] if self.applied else None


def discover(directory: Path) -> list[Migration]:
    """The migrations of a directory in numeric order; hidden files, folders and other suffixes are left alone.

    Raises InputError (a name that is not accepted, two files of one version, an empty file, text that is not UTF-8)
    and StateError (the directory or a file cannot be read).
    """
    with os_errors(f"read the directory {directory}"):
        paths = sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())
    found: dict[int, Migration] = {}
    for path in paths:
        if path.suffix.lower() != ".sql":
            continue
        migration = read(path)
        other = found.setdefault(migration.number, migration)
        if other is not migration:
            raise InputError(
                f"{other.file} and {migration.file} have the same version {migration.number} in {directory}.",
                fix="Give one of them the next free version.",
            )
    return [found[number] for number in sorted(found)]


def read(path: Path) -> Migration:
    """One file as a migration. Raises as discover() does."""
    match = _FILE_NAME.fullmatch(path.name)
    if not match:
        raise InputError(
            f"The file name {path.name} in {path.parent} is not that of a migration.",
            fix=f"Name it like {ACCEPTED} (no dot inside of name), or move it out of the directory.",
        )
    with os_errors(f"read {path}"):
        content = path.read_bytes()
    text = _decode(content, path.name)
    if not text.strip():
        raise InputError(f"{path.name} in {path.parent} is empty.", fix="Write its SQL, or remove the file.")
    return Migration(match["v"] or match["n"], match["name"], path, checksum(content), text)


def checksum(content: bytes) -> str:
    """sha256 as hex of a file's content without byte-order mark and with LF line ends, as git may change both."""
    return hashlib.sha256(content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")).hexdigest()


def make_plan(migrations: Sequence[Migration], ledger: Sequence[LedgerRow], ledger_name: str) -> Plan:
    """Compare the files with the ledger (rows in any order).

    Raises StateError for what must not be passed over in silence: an interrupted migration, and a file that was
    edited, deleted, or added below a version that is applied.
    """
    rows = {_number(row, ledger_name): row for row in ledger}
    for _, row in sorted(rows.items()):
        if row.state in {"running", "failed"}:
            raise _interrupted(row, ledger_name)
    files = {migration.number: migration for migration in migrations}
    _refuse_deleted([row for number, row in sorted(rows.items()) if number not in files])
    _refuse_edited([(file, rows[file.number]) for file in migrations if file.number in rows])
    pending = [migration for migration in migrations if migration.number not in rows]
    highest = max(rows, default=-1)
    late = [migration.file for migration in pending if migration.number < highest]
    if late:
        raise StateError(
            f"{', '.join(late)} would run out of order: version {rows[highest].version} is applied already.",
            fix="Give the new file a version above that.",
        )
    return Plan(tuple(pending), tuple(row.version for _, row in sorted(rows.items())))


def _decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # with a byte-order mark the codec counts from behind it
        at = error.start + (len(content) - len(error.object))
        line = content.count(b"\n", 0, at) + 1
        raise InputError(
            f"{name} is not UTF-8: byte 0x{content[at]:02x} at offset {at}, line {line}.", fix="Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise InputError(
            f"{name} holds a NUL byte in line {text[: text.index(chr(0))].count(chr(10)) + 1}.", fix="Save it as UTF-8."
        )
    return text


def _number(row: LedgerRow, ledger_name: str) -> int:
    if not re.fullmatch("[0-9]+", row.version):
        raise StateError(
            f"The ledger {ledger_name} holds the version {row.version!r}, which is no number.",
            fix="It was not written by this module: name another one with ledger_schema and ledger_table.",
        )
    return int(row.version)


def _interrupted(row: LedgerRow, ledger_name: str) -> StateError:
    reached = f" Statement {row.statement} (line {row.line}) was the last one started." if row.statement else ""
    how = "failed" if row.state == "failed" else "was interrupted"
    return StateError(
        f"Migration {row.version} ({row.name}) {how} outside of a transaction, so a part of it may be done.{reached}",
        fix="Look at what it left (an invalid index must be dropped), make the file safe to run from its start, then "
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


def _refuse_edited(pairs: Sequence[tuple[Migration, LedgerRow]]) -> None:
    edited = [
        f"{file.file} (applied as {row.checksum[:_SHORT]}, now {file.checksum[:_SHORT]})"
        for file, row in pairs
        if row.checksum != file.checksum
    ]
    if edited:
        raise StateError(
            f"Applied migrations were edited: {', '.join(edited)}.",
            fix="Restore the content that was applied, and write the change as a new migration.",
        )
