# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Restore a dump beside the live collections, or into a scratch database, and check it. What is live is not touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    COLLECTION,
    TIMESERIES,
    VIEW,
    Definition,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import RESTORE
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import count, definitions, drop, kinds
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_version import series
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump, Part
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import (
    STAGED,
    STAGING,
    Place,
    Record,
    require_written,
)

_BATCH_BYTES, _BATCH_DOCUMENTS = 1 << 20, 10_000
_SIMPLE = {"locale": "simple"}
_TIMESTAMPS_SINCE = (8, 0)


@dataclass(frozen=True)
class Stage:
    """What to restore and where."""

    place: Place
    dump: Dump
    parts: Sequence[Part]
    jobs: int
    work: Work

    @property
    def server(self) -> Server:
        """The server of the place."""
        return self.place.server

    @property
    def name(self) -> str:
        """The database."""
        return self.place.database

    def run(self) -> dict[str, int]:
        """Fill the collections and check them; their documents by name. They are dropped when anything fails."""
        self.drop()
        try:
            self.place.say(Record(STAGING, target=not self.place.beside))
            counts = self._fill()
            self.place.say(Record(STAGED, counts, target=not self.place.beside))
        except BaseException:
            with suppress(GroundworkError):  # the error that led here counts; the next run drops it
                self.drop()
            raise
        return counts

    def drop(self) -> None:
        """Drop what was staged, and the record."""
        drop_staged(self.place)

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
        self.require_equal(live=False)
        return dict(sorted(counts.items()))

    def _collection(self, part: Part) -> int:
        """Create a collection, load and count its documents, and only then make its indexes: one of them may have the
        server delete what has expired."""
        definition = part.definition
        self._create(definition)
        loaded = self._load(part)
        told = self.dump.counts.get(definition.name, loaded)
        found = count(self.server, self.name, self._source(definition))
        if not is_complete(definition, told=told, loaded=loaded, found=found):
            raise _different([f"{definition.name} has {found} documents instead of {told}"], self.name)
        if wanted := own_indexes(definition):
            name = self.place.staged_name(definition.name)
            with server_errors(f"make the indexes of {self.name}.{name}"):
                self.server.client[self.name].command({"createIndexes": name, "indexes": wanted})
        return loaded

    def _create(self, definition: Definition) -> None:
        name = self.place.staged_name(definition.name)
        with server_errors(f"create {definition.kind} {self.name}.{name}"):
            self.server.client[self.name].command({"create": name, **definition.options})

    def _source(self, definition: Definition) -> str:
        """The collection that gets the documents."""
        return str(definition.source) if definition.kind == TIMESERIES else self.place.staged_name(definition.name)

    def _load(self, part: Part) -> int:
        from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - optional on the host

        source, loaded = self._source(part.definition), 0
        assert part.data is not None  # noqa: S101 - parts() requires the file of all that is no view
        for batch in _batches(self.dump.documents(part.data)):
            with server_errors(f"restore {self.name}.{source}"):
                answer = self.server.client[self.name].command(
                    {
                        "insert": source,
                        "documents": [RawBSONDocument(document) for document in batch],
                        "ordered": True,
                        "bypassDocumentValidation": True,
                        **self._as_they_are(),
                    }
                )
                require_written(answer, f"{self.name}.{source}")
            loaded += answer["n"]
            self.work.tell(part.definition.name, sum(map(len, batch)))
        return loaded

    def _as_they_are(self) -> dict[str, bool]:
        """A server puts its own time in the place of an empty timestamp, unless it is one that can be told not to."""
        return {"bypassEmptyTsReplacement": True} if series(self.server.version) >= _TIMESTAMPS_SINCE else {}

    def require_equal(self, *, live: bool) -> None:
        """Compare the definitions of what was restored with the dump. Raises StateError, detail differences."""
        name_of = str if live else self.place.staged_name
        names = {name_of(part.definition.name) for part in self.parts}
        found = {one.name: one for one in definitions(self.server, self.name, names.__contains__)}
        differences = []
        for part in self.parts:
            wanted, there = part.definition, found.get(name_of(part.definition.name))
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
            raise _different(differences, self.name, live=live)


def drop_staged(place: Place) -> None:
    """Drop what was staged, and the record: all of a scratch database, and beside what is live only that."""
    if not place.beside:
        with server_errors(f"drop the database {place.database}"):
            place.server.client.drop_database(place.database)
        return
    for name in place.family(RESTORE).members(kinds(place.server, place.database)):
        drop(place.server, place.database, name)
    place.forget()


def is_complete(definition: Definition, *, told: int, loaded: int, found: int) -> bool:
    """Whether a collection has the documents that the backup counted.

    loaded: how many the server took; found: how many are there. Where documents expire by an option of the collection
    (a clustered one, a time series) and not by an index, the server deletes those of an old backup at once. One that is
    capped may have been read while it moved on, and then the dump has more documents than it can hold.
    """
    drops = definition.options.get("expireAfterSeconds") is not None or definition.options.get("capped")
    return loaded == told and (found <= loaded if drops else found == loaded)


def own_indexes(definition: Definition) -> list[dict[str, Any]]:
    """The indexes that the server does not make by itself.

    One without a collation, which is the simple one, would get that of its collection when it does not say so.
    """
    told = {"collation": _SIMPLE} if definition.options.get("collation") else {}
    return [
        {**told, **{key: value for key, value in index.items() if key != "ns"}}
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
    told = {key: value for key, value in index.items() if key not in ("v", "background")}
    return {**told, "collation": told.get("collation", _SIMPLE)}


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


def _different(differences: list[str], name: str, *, live: bool = False) -> StateError:
    return StateError(
        f"What was restored into {name} is not what the backup recorded: {'; '.join(differences)}.",
        fix="Run action revert, which puts back what was live." if live else "Use another set.",
        differences=differences,
    )
