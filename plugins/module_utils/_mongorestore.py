# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What mongo_restore restores: the files of a component, read as mongodump's directory format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import COMPONENTS, Component, read_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_bson import CheckedFile, documents
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    BUCKETS,
    DATA,
    GZIP,
    METADATA,
    VIEW,
    Definition,
    collection_of,
    decode_metadata,
    file_stem,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import is_restores

_USERS_PREFIX = "$admin.system."


@dataclass(frozen=True)
class Part:
    """One collection or view of a dump, and the file with its documents (None for a view)."""

    definition: Definition
    data: FileEntry | None


@dataclass(frozen=True)
class Dump:
    """A component of engine mongo; folder is that of its files."""

    set_id: str
    folder: Path
    component: Component

    @property
    def database(self) -> str:
        """The database that was dumped."""
        return str(self.component.facts["database"])

    @property
    def counts(self) -> Mapping[str, int]:
        """Documents by collection, as the backup counted them; empty when it told none."""
        return self.component.facts.get("counts") or {}

    def summary(self) -> dict[str, Any]:
        """The component for a result."""
        return {
            "engine": self.component.engine,
            "name": self.component.name,
            "database": self.database,
            "set": self.set_id,
            "bytes": self.component.bytes,
            "server_version": self.component.facts.get("server_version"),
            "consistent": self.component.facts.get("consistent"),
        }

    def open(self, entry: FileEntry) -> CheckedFile:
        """A file of the component."""
        return CheckedFile(self.folder / entry.name, entry)

    def verify(self) -> None:
        """Read every file and compare it with the manifest. Raises StateError."""
        for entry in self.component.files:
            with self.open(entry) as file:
                file.require_whole()

    def documents(self, entry: FileEntry) -> Iterator[bytes]:
        """The documents of a file. Raises StateError: a damage comes before what it led to."""
        with self.open(entry) as file:
            try:
                yield from documents(file.read, str(file.path))
            except GroundworkError:
                file.require_whole()
                raise
            file.require_whole()


def load(set_path: Path, name: str) -> Dump:
    """A component of a committed set. Raises InputError and StateError."""
    manifest = read_manifest(set_path)
    found = {component.name: component for component in manifest.components}
    component = found.get(name)
    if component is None:
        raise InputError(
            f"Backup set {manifest.id} has no component {name!r}, it has {', '.join(sorted(found)) or 'none'}.",
            fix="Correct component, or use another set.",
        )
    if component.engine != "mongo" or not isinstance(component.facts.get("database"), str):
        raise InputError(
            f"Component {name!r} of backup set {manifest.id} is of engine {component.engine!r}, and mongo_restore "
            "restores those of engine 'mongo'.",
            fix="Use the module of that engine.",
        )
    return Dump(manifest.id, set_path / COMPONENTS / name, component)


def parts(dump: Dump) -> list[Part]:
    """Everything that is in a dump, by name. Reads the definitions. Raises StateError.

    What restores have kept in the database is left out, which a dump by another program holds, too.
    """
    data: dict[str, FileEntry] = {}
    found: dict[str, Definition] = {}
    for entry in dump.component.files:
        folder, _slash, file = entry.name.rpartition("/")
        name = file.removesuffix(GZIP)
        if folder != dump.database or name.startswith(_USERS_PREFIX):
            continue
        if name.endswith(METADATA):
            with dump.open(entry) as checked:
                content = checked.read()
                checked.require_whole()
            one = decode_metadata(content, name.removesuffix(METADATA), str(checked.path))
            if one.name in found:
                raise StateError(f"The dump defines {one.name!r} twice.", fix="Use another set.")
            found[one.name] = one
        elif name.endswith(DATA):
            data[name.removesuffix(DATA)] = entry
    result = []
    for one in found.values():
        file_of = data.pop(file_stem(one.source), None) if one.source is not None else None
        if file_of is None and one.kind != VIEW:
            raise StateError(f"The dump has no file with the documents of {one.name!r}.", fix="Use another set.")
        result.append(Part(one, file_of))
    result += [Part(_undefined(stem), entry) for stem, entry in data.items()]
    result = [part for part in result if not is_restores(part.definition.name)]
    return sorted(result, key=lambda part: part.definition.name)


def _undefined(stem: str) -> Definition:
    """A collection without metadata, as old or partial dumps have it: no options, no index but that of _id."""
    name = collection_of(stem)
    if name is None or name.startswith(BUCKETS):
        raise StateError(f"The dump has documents in {stem + DATA!r}, and nothing tells of which collection.")
    return Definition(name)
