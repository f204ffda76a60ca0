# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Restore a dump into a new database beside the live one, and check it. The live database is not touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    BUCKETS,
    COLLECTION,
    TIMESERIES,
    VIEW,
    Definition,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import count, definitions
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump, Part

STATE = "groundwork.restore"
STAGING, STAGED, SWAPPING = "staging", "staged", "swapping"
_BATCH_BYTES, _BATCH_DOCUMENTS = 2 << 20, 10_000
_SURE = {"w": "majority", "j": True}


@dataclass(frozen=True)
class Stage:
    """What to restore and where: *name* is the new database, *live* the one that it belongs to."""

    dump: Dump
    parts: Sequence[Part]
    server: Server
    name: str
    live: str
    jobs: int
    work: Work

    def mark(self, state: str, **more: Any) -> dict[str, Any]:
        """What the new database says of itself."""
        return {
            "state": state, "set": self.dump.set_id, "component": self.dump.component.name, "live": self.live, **more,
        }  # fmt: skip

    def say(self, state: str, **more: Any) -> None:
        """Write the mark into the new database, so that the next run knows it."""
        command = {
            "update": STATE,
            "updates": [{"q": {"_id": "state"}, "u": {"_id": "state", **self.mark(state, **more)}, "upsert": True}],
            "writeConcern": _SURE,
        }
        with server_errors(f"write the state of the restore into {self.name}"):
            _require_written(self.server.client[self.name].command(command), self.name)

    def state(self) -> Mapping[str, Any] | None:
        """The mark of the new database; None when it has none or is another restore's."""
        with server_errors(f"read the state of the restore in {self.name}"):
            found: Mapping[str, Any] | None = self.server.client[self.name][STATE].find_one({"_id": "state"})
        if found is None or any(found.get(key) != value for key, value in self._own.items()):
            return None
        return found

    @property
    def _own(self) -> dict[str, Any]:
        return {key: value for key, value in self.mark("").items() if key != "state"}

    def run(self) -> dict[str, int]:
        """Fill the new database and check it; its documents by collection. It is dropped when anything fails."""
        self.drop()
        try:
            self.say(STAGING)
            counts = self._fill()
            self.say(STAGED, counts=[[name, count] for name, count in counts.items()])
        except BaseException:
            with suppress(GroundworkError):  # the error that led here counts; the next run drops it
                self.drop()
            raise
        return counts

    def drop(self) -> None:
        """Drop the new database."""
        with server_errors(f"drop the database {self.name}"):
            self.server.client.drop_database(self.name)

    def _fill(self) -> dict[str, int]:
        counts: dict[str, int] = {}

        def one(part: Part) -> None:
            count = self._collection(part)
            with self.work.lock:
                counts[part.definition.name] = count

        collections = [part for part in self.parts if part.definition.kind != VIEW]
        self.work.run(self.jobs, [partial(one, part) for part in collections])
        for part in self.parts:
            if part.definition.kind == VIEW:
                self._create(part.definition)
        self.require_equal(self.name)
        return dict(sorted(counts.items()))

    def _collection(self, part: Part) -> int:
        """Create a collection, load and count its documents, and only then make its indexes: one of them may have the
        server delete what has expired."""
        definition = part.definition
        self._create(definition)
        loaded = self._load(part)
        told = self.dump.counts.get(definition.name, loaded)
        found = count(self.server, self.name, str(definition.source))
        if not found == loaded == told:
            raise _different([f"{definition.name} has {found} documents instead of {told}"], self.name)
        if wanted := own_indexes(definition):
            with server_errors(f"make the indexes of {self.name}.{definition.name}"):
                self.server.client[self.name].command({"createIndexes": definition.name, "indexes": wanted})
        return loaded

    def _create(self, definition: Definition) -> None:
        with server_errors(f"create {definition.kind} {self.name}.{definition.name}"):
            self.server.client[self.name].command({"create": definition.name, **definition.options})

    def _load(self, part: Part) -> int:
        from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - optional on the host

        source, loaded = str(part.definition.source), 0
        assert part.data is not None  # noqa: S101 - parts() requires the file of all that is no view
        for batch in _batches(self.dump.documents(part.data)):
            with server_errors(f"restore {self.name}.{source}"):
                answer = self.server.client[self.name].command(
                    {
                        "insert": source,
                        "documents": [RawBSONDocument(document) for document in batch],
                        "ordered": True,
                        "bypassDocumentValidation": True,
                    }
                )
                _require_written(answer, f"{self.name}.{source}")
            loaded += answer["n"]
            self.work.tell(part.definition.name, sum(map(len, batch)))
        return loaded

    def require_equal(self, database: str) -> None:
        """Compare the definitions in a database with those of the dump. Raises StateError, detail differences."""
        found = {one.name: one for one in definitions(self.server, database)}
        differences = []
        for part in self.parts:
            wanted, there = part.definition, found.get(part.definition.name)
            if there is None or there.kind != wanted.kind:
                differences.append(f"{wanted.kind} {wanted.name} is missing")
                continue
            differences += [
                f"{wanted.kind} {wanted.name} has lost its {option}"
                for option, value in wanted.options.items()
                if there.options.get(option) != value
            ]
            if wanted.kind == COLLECTION:
                differences += _index_differences(wanted, there)
        if differences:
            raise _different(differences, database)


def unmovable(parts: Sequence[Part]) -> list[str]:
    """Collections that renameCollection refuses to move."""
    return [
        part.definition.name
        for part in parts
        if part.definition.kind == TIMESERIES or part.definition.name.startswith(("system.", BUCKETS))
    ]


def own_indexes(definition: Definition) -> list[dict[str, Any]]:
    """The indexes that the server does not make by itself."""
    return [
        {key: value for key, value in index.items() if key != "ns"}
        for index in definition.indexes
        if list(index["key"].items()) != [("_id", 1)] and not index.get("clustered")
    ]


def _index_differences(wanted: Definition, found: Definition) -> list[str]:
    """Order inside of a key matters, order of the other settings does not; the format's version is the server's."""

    def by_name(definition: Definition) -> dict[str, Any]:
        return {index["name"]: (list(index["key"].items()), _settings(index)) for index in own_indexes(definition)}

    one, other = by_name(wanted), by_name(found)
    told = [f"index {name} of {wanted.name} is missing" for name in one.keys() - other.keys()]
    told += [f"index {name} of {wanted.name} is not in the backup" for name in other.keys() - one.keys()]
    told += [
        f"index {name} of {wanted.name} is defined in another way"
        for name in one.keys() & other.keys()
        if one[name] != other[name]
    ]
    return sorted(told)


def _settings(index: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in index.items() if key not in ("v", "background")}


def _batches(documents: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        if batch and (size + len(document) > _BATCH_BYTES or len(batch) == _BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield batch


def _require_written(answer: Mapping[str, Any], where: str) -> None:
    """A write that failed for a document is an answer, and no error. Raises OperationFailure."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - optional on the host

    if answer.get("writeErrors") or answer.get("writeConcernError"):
        raise OperationFailure(f"a document was refused in {where}", None, dict(answer))


def _different(differences: list[str], name: str) -> StateError:
    return StateError(
        f"What was restored into {name} is not what the backup recorded: {'; '.join(differences)}.",
        fix="Use another set.",
        differences=differences,
    )
