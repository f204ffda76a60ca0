# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Find migrations in a directory."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors

ACCEPTED = "0001_name.sql, V2__name.sql or 20260101120000_name.sql, or R__name.sql to run it again after each change"
REPEATABLE = "R__"
_LAST = 10**300  # above the number of any file name
_FILE_NAME = re.compile(r"(?:V(?P<v>[0-9]+)__|(?P<n>[0-9]+)_|(?P<r>R__))(?P<name>[^.]+)(?:\.up)?\.sql")
_DOWN = re.compile(r"(?:V[0-9]+__|[0-9]+_)[^.]+\.down\.sql")


@dataclass(frozen=True)
class Migration:
    """One file: version as in its name ("0001"), name, path, sha256 as hex, and its text without a byte-order mark.

    A repeatable one (R__name.sql) has the version "R__name", and runs again when its checksum changes.
    """

    version: str
    name: str
    path: Path
    checksum: str
    text: str

    @property
    def repeatable(self) -> bool:
        """Whether it runs again when it changes."""
        return self.version.startswith(REPEATABLE)

    @property
    def key(self) -> tuple[int, str]:
        """What decides the order, and what two files must not share: see key()."""
        return key(self.version)

    @property
    def file(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def to_dict(self) -> dict[str, str]:
        """Version and name, JSON-ready."""
        return {"version": self.version, "name": self.name}


def key(version: str) -> tuple[int, str]:
    """The place of a version in the order: by number, and repeatable ones behind all others by name.

    Raises ValueError for what is no version of this module.
    """
    return (_LAST, version) if version.startswith(REPEATABLE) else (int(version), "")


def discover(directory: Path) -> list[Migration]:
    """The migrations of a directory in numeric order, then the repeatable ones by name.

    Hidden files, folders, other suffixes and 0001_name.down.sql are left alone.

    Raises InputError (a name that is not accepted, two files of one version, an empty file, text that is not UTF-8)
    and StateError (the directory or a file cannot be read).
    """
    with os_errors(f"read the directory {directory}"), os.scandir(directory) as entries:
        # a link that leads nowhere is a mistake, and reading it will say so
        files = (entry for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.is_dir()))
        names = sorted(entry.name for entry in files if not entry.name.startswith("."))
    found: dict[tuple[int, str], Migration] = {}
    for name in names:
        if not name.lower().endswith(".sql") or _DOWN.fullmatch(name):
            continue
        migration = read(directory / name)
        other = found.setdefault(migration.key, migration)
        if other is not migration:
            raise InputError(
                f"{other.file} and {migration.file} have the same version {migration.key[0]} in {directory}.",
                fix="Give one of them the next free version.",
            )
    return [found[place] for place in sorted(found)]


def read(path: Path) -> Migration:
    """One file as a migration. Raises as discover() does."""
    match = _FILE_NAME.fullmatch(path.name)
    if not match:
        raise InputError(
            f"The file name {path.name} in {path.parent} is not that of a migration.",
            fix=f"Name it like {ACCEPTED} (no dot inside of name), or move it out of the directory.",
        )
    return load(path, match["v"] or match["n"] or REPEATABLE + match["name"], match["name"])


def load(path: Path, version: str, name: str) -> Migration:
    """A file whose version and name are known. Raises as discover() does for its content."""
    with os_errors(f"read {path}"):
        content = path.read_bytes()
    text = _decode(content, path.name)
    if not text.strip():
        raise InputError(f"{path.name} in {path.parent} is empty.", fix="Write its SQL, or remove the file.")
    return Migration(version, name, path, checksum(content), text)


def checksum(content: bytes) -> str:
    """sha256 as hex of a file's content without byte-order mark and with LF line ends, as git may change both."""
    return hashlib.sha256(content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")).hexdigest()


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
