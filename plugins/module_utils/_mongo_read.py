# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read a database as it is: definitions of its collections, and their documents as the server sends them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, UnreachableError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import (
    NAMESPACE_NOT_FOUND,
    Server,
    server_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    COLLECTION,
    TIMESERIES,
    VIEW,
    Definition,
    is_dumped,
)

if TYPE_CHECKING:
    from bson.timestamp import Timestamp

# A collection takes a few times this in memory; the server would send up to 16 MiB.
_BATCH_BYTES = 1 << 20
_FIRST_DOCUMENTS, _MOST_DOCUMENTS = 10, 50_000
_MOST_INDEXES = 1000  # servers allow 64 for a collection


@dataclass(frozen=True)
class Batch:
    """Documents as the server sent them, one behind the other, and how many."""

    data: bytes
    count: int


def kinds(server: Server, database: str) -> dict[str, str]:
    """Kind by name of everything in a database, the server's own included. Raises StateError and UnreachableError."""
    return {info["name"]: info.get("type", COLLECTION) for info in _listed(server, database)}


def definitions(server: Server, database: str, taken: Callable[[str], bool] = is_dumped) -> tuple[Definition, ...]:
    """Every collection and view that is *taken*, by name. Raises StateError and UnreachableError."""
    listed = _listed(server, database)
    found = [_definition(server, database, info) for info in listed if taken(info["name"])]
    present = {info["name"] for info in listed}
    for one in found:
        if one.kind == TIMESERIES and one.source not in present:
            raise StateError(
                f"The time series {one.name!r} keeps its documents in no collection that the server lists.",
                fix="This version of MongoDB is newer than the collection knows: use mongodump.",
            )
    return tuple(sorted(found, key=lambda one: one.name))


def _listed(server: Server, database: str) -> list[Mapping[str, Any]]:
    with server_errors(f"list the collections of {database}"):
        return list(server.client[database].list_collections())


def snapshot_time(server: Server, database: str, collection: str) -> Timestamp:
    """A moment at which every collection can be read from now on. Raises StateError."""
    command = {"find": collection, "limit": 1, "singleBatch": True, "projection": {"_id": 1}}
    with server_errors("take a snapshot"):
        reply = server.client[database].command({**command, "readConcern": {"level": "snapshot"}})
    time: Timestamp | None = reply["cursor"].get("atClusterTime")
    if time is None:
        raise StateError(
            "The server did not say of which moment its snapshot is.",
            fix="Use MongoDB 5.0 or newer, or snapshot: never.",
        )
    return time


def batches(server: Server, database: str, collection: str, at: Timestamp | None) -> Generator[Batch, None, None]:
    """All documents of a collection in their natural order; *at* is the moment to read at, None for now.

    Memory stays flat, whatever the documents are. Raises StateError and UnreachableError.
    """
    from bson.codec_options import CodecOptions  # noqa: PLC0415 - optional on the host
    from bson.int64 import Int64  # noqa: PLC0415
    from bson.raw_bson import RawBSONDocument  # noqa: PLC0415
    from pymongo.errors import PyMongoError  # noqa: PLC0415

    raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
    # Without causal consistency: the driver would add a second time to read at.
    session = server.client.start_session(causal_consistency=False)
    selected, cursor = server.client[database], 0

    def ask(command: dict[str, Any]) -> tuple[int, Batch]:
        with server_errors(f"read {database}.{collection}"):
            reply: Any = selected.command(command, codec_options=raw, session=session)
            answer = reply["cursor"]
            found: Sequence[Any] = answer["firstBatch" if "firstBatch" in answer else "nextBatch"]
            return int(answer["id"]), Batch(b"".join(one.raw for one in found), len(found))

    concern = {} if at is None else {"readConcern": {"level": "snapshot", "atClusterTime": at}}
    find = {"find": collection, "batchSize": _FIRST_DOCUMENTS, "noCursorTimeout": True}
    try:
        cursor, batch = ask({**find, **concern})
        while True:
            if batch.count:
                yield batch
            if not cursor:
                return
            mean = max(1, len(batch.data) // max(1, batch.count))
            size = min(_MOST_DOCUMENTS, max(1, _BATCH_BYTES // mean))
            cursor, batch = ask({"getMore": Int64(cursor), "collection": collection, "batchSize": size})
    except UnreachableError:
        cursor = 0  # nobody to tell, and the driver would look for the server once more
        raise
    finally:
        with suppress(PyMongoError):  # the server closes the cursor itself when the session ends
            if cursor:
                selected.command({"killCursors": collection, "cursors": [Int64(cursor)]}, session=session)
        session.end_session()


def sizes(server: Server, database: str, collections: Sequence[str]) -> tuple[int, int] | None:
    """(bytes of the documents, bytes of their files and indexes), together; None when nobody may ask."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415 - optional on the host

    documents = stored = 0
    try:
        for name in collections:
            told = server.client[database].command("collStats", name)
            documents += int(told["size"])
            stored += int(told["storageSize"]) + int(told["totalIndexSize"])
    except (PyMongoError, KeyError, ValueError):
        return None
    return documents, stored


def _definition(server: Server, database: str, info: Mapping[str, Any]) -> Definition:
    name, kind = info["name"], info.get("type", COLLECTION)
    uuid = (info.get("info") or {}).get("uuid")
    indexes: tuple[Mapping[str, Any], ...] = ()
    if kind != VIEW:
        indexes = tuple(indexes_of(server, database, name))
    options = as_sent(info.get("options") or {})
    return Definition(name, kind, options, indexes, None if uuid is None else _hexadecimal(uuid))


def as_sent(value: Any) -> Any:
    """With the UUIDs as the server sends them, where the driver (3.11, in Debian 12) has made Python's own of them."""
    from bson.binary import Binary  # noqa: PLC0415 - optional on the host

    if isinstance(value, UUID):
        return Binary(value.bytes, 4)
    if isinstance(value, Mapping):
        return {key: as_sent(one) for key, one in value.items()}
    return [as_sent(one) for one in value] if isinstance(value, list) else value


def _hexadecimal(uuid: UUID | bytes) -> str:
    """The driver gives one or the other, by its version and settings."""
    return uuid.hex if isinstance(uuid, UUID) else bytes(uuid).hex()


def indexes_of(server: Server, database: str, collection: str) -> list[Mapping[str, Any]]:
    """The definitions of the indexes, in the server's order; none when the collection is not there any more."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - optional on the host

    # As a command, like all that names a collection: the driver's own methods refuse some names that servers have.
    command = {"listIndexes": collection, "cursor": {"batchSize": _MOST_INDEXES}}
    with server_errors(f"list the indexes of {database}.{collection}"):
        try:
            found: list[Mapping[str, Any]] = server.client[database].command(command)["cursor"]["firstBatch"]
            return [as_sent(one) for one in found]
        except OperationFailure as error:
            if error.code == NAMESPACE_NOT_FOUND:
                return []
            raise


def count(server: Server, database: str, collection: str) -> int:
    """The documents of a collection, counted one by one. Raises StateError and UnreachableError."""
    stages = [{"$group": {"_id": None, "n": {"$sum": 1}}}]
    with server_errors(f"count the documents of {database}.{collection}"):
        answer = server.client[database].command({"aggregate": collection, "pipeline": stages, "cursor": {}})
    return sum(int(group["n"]) for group in answer["cursor"]["firstBatch"])


def drop(server: Server, database: str, collection: str) -> None:
    """Drop a collection or view, if it is there. Raises StateError and UnreachableError."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - optional on the host

    with server_errors(f"drop {database}.{collection}"):
        try:
            server.client[database].command({"drop": collection})
        except OperationFailure as error:
            if error.code != NAMESPACE_NOT_FOUND:
                raise
