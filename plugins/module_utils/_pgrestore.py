# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What pg_restore restores and under which names; pure but for the files of the set.

A database that belongs to a restore says so in its comment, behind what the comment holds besides (Mark). So the state
of a restore is in the server itself, and a run that was cut off is understood by the next one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    InputError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import (
    COMPONENTS,
    Component,
    Manifest,
    read_manifest,
)
from ansible_collections.groundwork.backend.plugins.module_utils._postgres import login_options
from ansible_collections.groundwork.backend.plugins.module_utils._psql import major

NAME_BYTES = 63  # PostgreSQL cuts longer names (NAMEDATALEN)
GLOBALS_NAME = "globals.sql"
DIRECTORY_NAME = "database.dir"
STAGING, STAGED, LIVE, BEFORE, REVERTED, FAILED = "staging", "staged", "live", "before", "reverted", "failed"

_MARK = re.compile(r"(?:\A|\n)groundwork\.restore (\{[^\n]*\})\Z")
_FIRST_FILE = {"custom": "database.dump", "directory": f"{DIRECTORY_NAME}/toc.dat", "plain": "database.sql"}
_PLAIN_ENDINGS = {"": "none", ".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
_DIGITS = 8


def restore_login_options() -> dict[str, Any]:
    """The options of login_options() where the database has a default, as arguments of AnsibleModule.

    They are documented in the fragment groundwork.backend._pgrestore.
    """
    return {"argument_spec": {**login_options()["argument_spec"], "database": {"type": "str"}}}


@dataclass(frozen=True)
class Names:
    """The databases of one restore: the live one, the one beside it, and what the live one is called afterwards."""

    set_id: str
    component: str
    database: str

    @property
    def staged(self) -> str:
        """The new database beside the live one."""
        return fitted(self.database, f"_restore_{self.set_id.lower()}")

    def before(self, number: int = 1) -> str:
        """The database that was live before the swap; the number tells repeated restores of one set apart."""
        return fitted(self.database, f"_before_{self.set_id.lower()}{'' if number == 1 else f'_{number}'}")

    def reverted(self, number: int = 1) -> str:
        """A database that was live until the swap was taken back, and that nothing drops."""
        return fitted(self.database, f"_reverted_{self.set_id.lower()}{'' if number == 1 else f'_{number}'}")

    def mark(self, state: str, before: str | None = None) -> Mark:
        """A mark of this restore."""
        return Mark(self.set_id, self.component, self.database, state, before)


@dataclass(frozen=True)
class Mark:
    """What a database says of the restore that it belongs to; database is the live name of that restore.

    before: on the live database, the name of the one that it took the place of.
    """

    set_id: str
    component: str
    database: str
    state: str
    before: str | None = None

    def comment(self, comment: str | None) -> str:
        """The comment with this mark behind it, in place of an earlier mark."""
        text = f"groundwork.restore {json.dumps(asdict(self))}"
        plain = unmarked(comment)
        return f"{plain}\n{text}" if plain else text


def unmarked(comment: str | None) -> str | None:
    """A comment without its mark; None when nothing is left."""
    return _MARK.sub("", comment or "") or None


def mark_in(comment: str | None) -> Mark | None:
    """The mark in a comment; None when there is none, or none that this version understands."""
    found = _MARK.search(comment or "")
    if not found:
        return None
    try:
        return Mark(**json.loads(found[1]))
    except (ValueError, TypeError):
        return None


def fitted(name: str, ending: str) -> str:
    """name and ending, in 63 bytes: a longer name is cut, and 8 digits of its sha256 tell it from its like."""
    room = NAME_BYTES - len(ending)
    data = name.encode()
    if len(data) <= room:
        return name + ending
    head = data[: room - _DIGITS - 1].decode(errors="ignore")
    return f"{head}_{hashlib.sha256(data).hexdigest()[:_DIGITS]}{ending}"


@dataclass(frozen=True)
class Dump:
    """A component of engine postgres in a committed set; folder is where its files are."""

    set_id: str
    component: Component
    folder: Path
    database: str
    format: str
    server_version: str
    client_version: str
    extensions: Mapping[str, str]
    counts: Mapping[str, int]
    properties: Mapping[str, Any] | None
    filter: Mapping[str, Any]
    database_bytes: int | None = None

    @property
    def main_file(self) -> Path:
        """What the client program is given: a file, or the folder of the format directory."""
        if self.format == "directory":
            return self.folder / DIRECTORY_NAME
        return next(self.folder / entry.name for entry in self.component.files if _is_first(self.format, entry.name))

    @property
    def compression(self) -> str:
        """How a plain dump is compressed: none, gzip, lz4 or zstd."""
        return _PLAIN_ENDINGS[self.main_file.name.removeprefix("database.sql")]

    @property
    def globals_file(self) -> Path | None:
        """The file with the roles, when the component has one."""
        found = any(entry.name == GLOBALS_NAME for entry in self.component.files)
        return self.folder / GLOBALS_NAME if found else None

    @property
    def data_bytes(self) -> int:
        """Size of the dump without the roles, in bytes."""
        return sum(entry.bytes for entry in self.component.files if entry.name != GLOBALS_NAME)

    def summary(self) -> dict[str, Any]:
        """What the result tells of it."""
        return {
            "engine": "postgres",
            "name": self.component.name,
            "database": self.database,
            "format": self.format,
            "set": self.set_id,
            "bytes": self.component.bytes,
            "server_version": self.server_version,
            "client_version": self.client_version,
        }


def load(set_path: Path, name: str) -> Dump:
    """The component of a committed set. Raises StateError: manifest (see read_manifest), component, its fields."""
    manifest = read_manifest(set_path)
    component = _component(manifest, name)
    facts = component.facts
    where = f"Component {name!r} of set {manifest.id}"
    if facts.get("format") not in _FIRST_FILE:
        raise StateError(
            f"{where} has the format {facts.get('format')!r}, which this version does not know.",
            fix="Use the version of the collection that wrote it (collection_version in the manifest).",
        )
    kinds = {"database": str, "server_version": str, "client_version": str, "extensions": dict, "counts": dict}
    for key, kind in kinds.items():
        if not isinstance(facts.get(key), kind):
            raise StateError(f"{where} does not tell {key}, so a restore could not be checked.", fix="Use another set.")
    if not any(_is_first(facts["format"], entry.name) for entry in component.files):
        raise StateError(f"{where} does not list {_FIRST_FILE[facts['format']]}.", fix="Use another set.")
    return Dump(
        set_id=manifest.id,
        component=component,
        folder=set_path / COMPONENTS / name,
        properties=facts.get("properties") or None,
        filter=facts.get("filter") or {},
        database_bytes=facts.get("database_bytes"),
        **{key: facts[key] for key in (*kinds, "format")},
    )


def require_versions(dump: Dump, *, client: str, server: str, server_major: int, where: str) -> None:
    """Refuse a server older than the dump's, and a client older than the one that wrote it.

    Raises StateError and DependencyError.
    """
    if server_major < major(dump.server_version):
        raise StateError(
            f"The dump is of a server of version {dump.server_version}, and this server is older ({server}).",
            fix=f"Restore it on PostgreSQL {major(dump.server_version)} or newer.",
        )
    needed = client_major(dump, server_major)
    if major(client) < major(dump.client_version) or major(client) < server_major:
        raise DependencyError(
            f"pg_restore {needed} or newer is needed for a dump of pg_dump {dump.client_version} on a server of "
            f"version {server}, found {client} in {where}.",
            fix=f"Install Debian's package postgresql-client-{needed}, or correct bin_dir or container.",
        )


def client_major(dump: Dump, server_major: int) -> int:
    """The version of the client programs that can read the dump and knows the server."""
    return max(server_major, major(dump.client_version))


def differences(expected: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """One phrase for each table whose rows are not as the dump's were counted, by name."""
    phrases = []
    for name in sorted({*expected, *found}):
        if name not in found:
            phrases.append(f"{name} is missing ({expected[name]} rows)")
        elif name not in expected:
            phrases.append(f"{name} was not in the dump ({found[name]} rows)")
        elif expected[name] != found[name]:
            phrases.append(f"{name} has {found[name]} rows instead of {expected[name]}")
    return phrases


def extension_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of extensions that are not there, and one sentence for each with another version."""
    missing = sorted(expected.keys() - found.keys())
    other = [
        f"Extension {name} is {found[name]} here and was {expected[name]} in the dump."
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    return missing, other


def listed(phrases: Sequence[str], most: int = 10) -> str:
    """Phrases in one line; of many, the first ones and how many more there are."""
    more = f", and {len(phrases) - most} more" if len(phrases) > most else ""
    return ", ".join(phrases[:most]) + more


def _component(manifest: Manifest, name: str) -> Component:
    for component in manifest.components:
        if component.name == name:
            if component.engine != "postgres":
                raise InputError(f"Component {name!r} of set {manifest.id} is of engine {component.engine!r}.")
            return component
    names = ", ".join(component.name for component in manifest.components)
    raise InputError(f"Set {manifest.id} has no component {name!r}; it has {names}.", fix="Correct component.")


def _is_first(kind: str, name: str) -> bool:
    first = _FIRST_FILE[kind]
    return name.startswith(first) and (name == first or (kind == "plain" and name[len(first) :] in _PLAIN_ENDINGS))
