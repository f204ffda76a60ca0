# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The manifest of a backup set: what is in it, read and written with every field checked.

A set is a folder: ``manifest.json`` and ``components/<component name>/<file name>``. The format is ours; its number is
SCHEMA_VERSION. The field "checksum" is the sha256 of the canonical JSON (sorted keys, no spaces) of all other fields.
The only field that is added to a committed set is "proven", by a drill.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._version import COLLECTION_VERSION

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
COMPONENTS = "components"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def check_name(name: str, what: str) -> str:
    """The name, when it can be a folder of its own. Raises InputError."""
    if not _NAME.match(name):
        raise InputError(
            f"{what} {name!r} cannot name a folder.",
            fix="Use letters, digits, '_', '-' and '.', at most 128, beginning with a letter, a digit or '_'.",
        )
    return name


@dataclass(frozen=True)
class Component:
    """One store's part of a set, as its backup module returned it; facts are all keys that only its engine knows."""

    engine: str
    name: str
    files: tuple[FileEntry, ...]
    started_at: str
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(file.bytes for file in self.files)

    def paths(self) -> Iterator[tuple[str, FileEntry]]:
        """Each file as (path relative to the set's folder, entry)."""
        for file in self.files:
            yield f"{COMPONENTS}/{self.name}/{file.name}", file

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            **self.facts,
            "engine": self.engine,
            "name": self.name,
            "files": [file.to_dict() for file in self.files],
            "started_at": self.started_at,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, value: Any) -> Component:
        """Check and take over what a backup module returned. Raises InputError."""
        fields = dict(_mapping(value, "A component"))
        name = check_name(_take(fields, "name", str, "A component"), "A component's name")
        where = f"Component {name!r}"
        files = tuple(_file(entry, where) for entry in _take(fields, "files", list, where))
        if not files:
            raise InputError(f"{where} lists no file.", fix="Run its backup module again and pass on what it returns.")
        if len({file.name for file in files}) != len(files):
            raise InputError(f"{where} lists a file twice.", fix="Pass on what its backup module returned, unchanged.")
        return cls(
            engine=_take(fields, "engine", str, where),
            name=name,
            files=files,
            started_at=_take(fields, "started_at", str, where),
            seconds=_take(fields, "seconds", (int, float), where),
            facts=fields,
        )


@dataclass(frozen=True)
class Manifest:
    """What one backup set holds. seconds: from begin to commit; schema_versions: component name to schema version.

    proven: what the last drill that restored the set found, as {"at", "seconds", "host", "components"}, or None.
    """

    id: str
    stack: str
    created_at: str
    seconds: float
    release: str | None
    hosts: tuple[str, ...]
    schema_versions: Mapping[str, Any]
    components: tuple[Component, ...]
    collection_version: str = COLLECTION_VERSION
    proven: Mapping[str, Any] | None = None

    @property
    def total_bytes(self) -> int:
        """Size of all components in bytes."""
        return sum(component.bytes for component in self.components)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary with its own checksum."""
        fields: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "stack": self.stack,
            "created_at": self.created_at,
            "seconds": self.seconds,
            "release": self.release,
            "hosts": list(self.hosts),
            "schema_versions": dict(self.schema_versions),
            "components": [component.to_dict() for component in self.components],
            "collection_version": self.collection_version,
            "total_bytes": self.total_bytes,
        }
        if self.proven is not None:
            fields["proven"] = dict(self.proven)
        return {**fields, "checksum": _checksum(fields)}

    @classmethod
    def from_dict(cls, value: Any) -> Manifest:
        """Check and take over what a manifest file holds. Raises StateError: newer format, edited, incomplete."""
        try:
            fields = dict(_mapping(value, "A manifest"))
            version = _take(fields, "schema_version", int, "The manifest")
            if version != SCHEMA_VERSION:
                raise InputError(
                    f"The manifest has format {version}; collection {COLLECTION_VERSION} reads {SCHEMA_VERSION}.",
                    fix="Use the version of the collection that wrote it (collection_version in the manifest).",
                )
            if _take(fields, "checksum", str, "The manifest") != _checksum({**fields, "schema_version": version}):
                raise InputError(
                    "The manifest is not as it was written: its checksum does not match.",
                    fix="Put the original manifest back, or use another set.",
                )
            manifest = cls(
                id=_take(fields, "id", str, "The manifest"),
                stack=_take(fields, "stack", str, "The manifest"),
                created_at=_take(fields, "created_at", str, "The manifest"),
                seconds=_take(fields, "seconds", (int, float), "The manifest"),
                release=_take(fields, "release", (str, type(None)), "The manifest"),
                hosts=tuple(map(str, _take(fields, "hosts", list, "The manifest"))),
                schema_versions=_take(fields, "schema_versions", dict, "The manifest"),
                components=tuple(map(Component.from_dict, _take(fields, "components", list, "The manifest"))),
                collection_version=_take(fields, "collection_version", str, "The manifest"),
            )
            if "proven" in fields:
                manifest = replace(manifest, proven=_proven(fields.pop("proven"), manifest.components))
            if _take(fields, "total_bytes", int, "The manifest") != manifest.total_bytes or fields:
                raise InputError(f"The manifest's total or fields {sorted(fields)} do not belong to format {version}.")
        except InputError as error:
            raise StateError(error.problem, fix=error.fix) from None
        return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into *folder*: mode 0600, fsync, rename."""
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False)
    write_file(folder / MANIFEST_NAME, f"{text}\n".encode())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the set in *folder*. Raises StateError: absent, no JSON, newer format, edited, another set's."""
    with os_errors(f"read {folder / MANIFEST_NAME}"):
        data = (folder / MANIFEST_NAME).read_bytes()
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StateError(f"The manifest is no JSON: {error}.", fix="Use another set.") from None
    return Manifest.from_dict(value)


def _checksum(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _proven(value: Any, components: tuple[Component, ...]) -> Mapping[str, Any]:
    fields = dict(_mapping(value, "The manifest's proof"))
    proven = {
        "at": _take(fields, "at", str, "The manifest's proof"),
        "seconds": _take(fields, "seconds", (int, float), "The manifest's proof"),
        "host": _take(fields, "host", str, "The manifest's proof"),
        "components": _take(fields, "components", dict, "The manifest's proof"),
    }
    if set(proven["components"]) != {component.name for component in components} or fields:
        raise InputError("The manifest's proof does not belong to its components.")
    return proven


def _file(value: Any, where: str) -> FileEntry:
    fields = dict(_mapping(value, f"A file of {where}"))
    name = _take(fields, "name", str, f"A file of {where}")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise InputError(f"{where} names the file {name!r}, which is no path inside its folder.")
    entry = FileEntry(
        name, _take(fields, "bytes", int, f"File {name!r}"), _take(fields, "sha256", str, f"File {name!r}")
    )
    if not _SHA256.match(entry.sha256) or entry.bytes < 0 or fields:
        raise InputError(f"{where} describes its file {name!r} with something else than name, bytes and sha256.")
    return entry


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is a dictionary, found {type(value).__name__}.")
    return value


def _take(fields: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Remove and return a field of the right type (true and false are no numbers)."""
    if key not in fields:
        raise InputError(f"{where} has no field {key!r}.", fix="Pass on what the backup module returned, unchanged.")
    value = fields.pop(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: the field {key!r} has the unusable value {value!r}.")
    return value
