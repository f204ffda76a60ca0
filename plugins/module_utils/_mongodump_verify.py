# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read everything that mongodump wrote: sizes, checksums, documents, and that each collection has its files.

It needs no library of MongoDB, because the host of a dump by mongodump may have none.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_bson import CheckedFile, documents
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    AUTH_VERSION,
    COLLECTION,
    DATA,
    METADATA,
    PRELUDE,
    ROLES,
    TIMESERIES,
    USERS,
    VIEW,
    Definition,
    collection_of,
    file_stem,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import STATE, is_restores
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job, cut_off
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import CUT_OFF

_ACCOUNTS = (USERS, ROLES, AUTH_VERSION)
_KINDS = (COLLECTION, VIEW, TIMESERIES)


@dataclass
class Found:
    """What is in the folder. counts: documents by the stem of their file; prelude: versions of server and program."""

    entries: list[FileEntry] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    prelude: Mapping[str, Any] = field(default_factory=dict)
    data_bytes: int = 0

    def component(self) -> dict[str, Any]:
        """What a component says of it, as after a dump by the driver."""
        found = sorted(self.definitions, key=lambda one: one.name)
        counts = {one.name: self.counts[file_stem(one.source)] for one in found if one.source is not None}
        return {
            "server_version": self.prelude.get("ServerVersion"),
            "consistent": not counts,
            "outside_snapshot": [],
            "counts": counts,
            "views": [one.name for one in found if one.kind == VIEW],
            "data_bytes": self.data_bytes,
            "database_bytes": None,
        }


def verify(folder: Path, job: Job, work: Work) -> Found:
    """Read every file of the folder; those of a restore's own record are removed. Raises StateError."""
    found, tasks = Found(), []
    for path in _files(folder):
        name = path.name.removesuffix(job.suffix)
        if job.suffix and name == path.name:
            raise _unknown(path)
        if name == PRELUDE:
            found.prelude = _object(_whole(path, found), path)
        elif name.endswith(METADATA):
            definition = _definition(_object(_whole(path, found), path), name.removesuffix(METADATA), path)
            found.definitions.append(definition)
        elif name.endswith(DATA):
            tasks.append(partial(_documents, path, name.removesuffix(DATA), job, found, work))
        else:
            raise _unknown(path)
    work.run(job.jobs, tasks)
    _leave_out_restores(folder, job, found)
    _require_pairs(job, found)
    return found


def _files(folder: Path) -> Iterator[Path]:
    with os_errors(f"read {folder}"):
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not path.is_file():
                raise _unknown(path)
            path.chmod(0o600)
            yield path


def _whole(path: Path, found: Found) -> bytes:
    with CheckedFile(path, None) as file:
        data = file.read()
        found.entries.append(_synced(path, file))
    return data


def _documents(path: Path, stem: str, job: Job, found: Found, work: Work) -> None:
    count = total = 0
    with CheckedFile(path, None) as file:
        try:
            for document in documents(file.read, str(path)):
                if stem == STATE:
                    _require_finished(document, job)
                count, total = count + 1, total + len(document)
                work.tell(stem, len(document))
        except StateError as error:
            raise StateError(f"mongodump said that all went well, and: {error.problem}", fix=error.fix) from error
        entry = _synced(path, file)
    with work.lock:
        found.entries.append(entry)
        found.counts[stem] = count
        found.data_bytes += 0 if stem in _ACCOUNTS or stem == STATE else total


def _synced(path: Path, file: CheckedFile) -> FileEntry:
    """The entry of a file that survives a power cut."""
    with os_errors(f"write {path} to the disk"), path.open("rb") as stream:
        os.fsync(stream.fileno())
    return file.rest()


def _require_finished(document: bytes, job: Job) -> None:
    """A record of mongo_restore, which is no dump's business unless it says that collections are half swapped."""
    for state in CUT_OFF:
        value = state.encode() + b"\0"
        if b"\x02state\0" + struct.pack("<i", len(value)) + value in document:
            raise cut_off(job, _text(document, b"_id"))


def _text(document: bytes, key: bytes) -> str:
    """A string of a document, by its key."""
    at = document.index(b"\x02" + key + b"\0") + len(key) + 2
    (length,) = struct.unpack_from("<i", document, at)
    return document[at + 4 : at + 3 + length].decode()


def _leave_out_restores(folder: Path, job: Job, found: Found) -> None:
    gone = {file_stem(one.name) for one in found.definitions if is_restores(one.name)}
    names = {stem + ending + job.suffix for stem in gone for ending in (DATA, METADATA)}
    with os_errors(f"clean {folder}"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
    found.entries = [entry for entry in found.entries if entry.name not in names]
    found.definitions = [one for one in found.definitions if not is_restores(one.name)]
    found.counts = {stem: count for stem, count in found.counts.items() if stem not in gone}


def _require_pairs(job: Job, found: Found) -> None:
    """Each collection has a file of documents and a definition, and no file is left over."""
    wanted = {file_stem(one.source) for one in found.definitions if one.source is not None}
    if job.users:
        wanted |= set(_ACCOUNTS)
    if different := sorted(wanted ^ found.counts.keys()):
        missing = "was not written" if different[0] in wanted else "has no definition beside it"
        raise StateError(
            f"mongodump said that all went well, and {different[0]}{DATA} {missing}.", fix="Run again; look at its log."
        )


def _definition(body: Mapping[str, Any], stem: str, path: Path) -> Definition:
    options, indexes = body.get("options") or {}, body.get("indexes") or []
    name = body.get("collectionName") or collection_of(stem)
    if not isinstance(options, dict) or not isinstance(indexes, list) or not isinstance(name, str):
        raise _no_json(path, "a field is missing or of the wrong type")
    kind = body.get("type") or (VIEW if "viewOn" in options else COLLECTION)
    if kind not in _KINDS:
        raise _no_json(path, f"it says that {name!r} is a {kind!r}")
    return Definition(name, kind)


def _object(data: bytes, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _no_json(path, str(error)) from None
    if not isinstance(body, dict):
        raise _no_json(path, "it is no object")
    return body


def _no_json(path: Path, found: str) -> StateError:
    return StateError(f"{path} is not what mongodump is known to write: {found}.", fix="Use engine: driver.")


def _unknown(path: Path) -> StateError:
    return StateError(
        f"mongodump wrote {path.name!r}, which this version of the collection does not know.", fix="Use engine: driver."
    )
