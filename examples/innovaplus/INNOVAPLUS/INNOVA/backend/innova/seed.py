# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill an empty database: ideas, and samples of every type that BSON knows, the deprecated ones among them.

    MONGO_URI=… DB_NAME=innova_db python -m innova.seed --documents 4000

The same call writes the same documents everywhere. A collection that has documents is left as it is.
"""

from __future__ import annotations

import argparse
import math
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pymongo
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument

from .settings import Settings
from .store import INDEXES

COUNTRIES = ("CI", "CM", "EG", "GH", "KE", "MA", "NG", "RW", "SN", "TN", "TZ", "ZA")
WORDS = ("solar", "water", "market", "school", "clinic", "harvest", "transport", "crédit", "énergie", "مياه", "🌍")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
DOUBLES = (0.0, -0.0, 0.1, math.pi, 1e308, 5e-324, math.inf, -math.inf, math.nan)
SUBTYPES = (0, 2, 4, 5, 9, 128)  # generic, old generic, UUID, MD5, vector, the user's own
SAMPLE_INDEXES = [
    pymongo.IndexModel([("type", pymongo.ASCENDING), ("number", pymongo.DESCENDING)], name="type_number"),
    pymongo.IndexModel(
        [("number", pymongo.ASCENDING)], name="late", partialFilterExpression={"number": {"$gte": 1000}}
    ),
]


def _moment(number: int) -> datetime:
    return BEGINNING + timedelta(minutes=7 * number)


def _id(number: int) -> ObjectId:
    """Ids in the order of the numbers."""
    return ObjectId(f"{int(_moment(number).timestamp()):08x}{number:016x}")


def _string(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<i", len(data)) + data


#: The types by the names that $type knows; the value of the sample with this number.
VALUES: dict[str, Callable[[int], Any]] = {
    "double": lambda number: DOUBLES[number % len(DOUBLES)],
    "string": lambda number: WORDS[number % len(WORDS)] * (number % 50),
    "object": lambda number: {"inner": {"number": number, "": None}},
    "array": lambda number: [number, str(number), [], {"in": [number]}],
    "binData": lambda number: Binary(number.to_bytes(16, "little"), SUBTYPES[number % len(SUBTYPES)]),
    "objectId": _id,
    "bool": lambda number: number % 2 == 0,
    "date": lambda number: _moment(-number * 1000),
    "null": lambda number: None,
    "regex": lambda number: Regex(f"^{number}[a-z]+$", "im"),
    "javascript": lambda number: Code(f"return {number}"),
    "javascriptWithScope": lambda number: Code("return n", {"n": number}),
    "int": lambda number: (-1) ** number * (2**31 - 1 - number),
    "timestamp": lambda number: Timestamp(1_767_225_600, number),
    "long": lambda number: Int64((-1) ** number * (2**62 + number)),
    "decimal": lambda number: Decimal128(f"{number}.10"),
    "minKey": lambda number: MinKey(),
    "maxKey": lambda number: MaxKey(),
}
#: Deprecated types, which PyMongo reads and does not write: the number of the type, and its bytes.
OLD_VALUES: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "undefined": (6, lambda number: b""),
    "dbPointer": (12, lambda number: _string("innova_db.ideas") + _id(number).binary),
    "symbol": (14, lambda number: _string(f"symbol {number}")),
}
TYPES = (*VALUES, *OLD_VALUES)


def ideas(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        word = WORDS[number % len(WORDS)]
        yield {
            "_id": _id(number),
            "slug": f"idea-{number}",
            "title": f"{word} {number}",
            "country": COUNTRIES[number % len(COUNTRIES)],
            "body": f"{word} " * (number % 200),
            "tags": list(WORDS[: number % 4]),
            "votes": number % 17,
            "created_at": _moment(number),
            "updated_at": _moment(number),
        }


def samples(count: int) -> Iterator[RawBSONDocument]:
    """Every type in turn, as bytes: only so can the deprecated ones be written."""
    for number in range(count):
        kind = TYPES[number % len(TYPES)]
        fields = {"_id": _id(number), "type": kind, "number": number}
        if kind in VALUES:
            yield _raw(bson.encode({**fields, "value": VALUES[kind](number)})[4:-1])
        else:
            code, value = OLD_VALUES[kind]
            yield _raw(bson.encode(fields)[4:-1] + bytes([code]) + b"value\0" + value(number))


def _raw(elements: bytes) -> RawBSONDocument:
    return RawBSONDocument(struct.pack("<i", len(elements) + 5) + elements + b"\0")


def seed(settings: Settings, count: int) -> list[str]:
    """Half of the documents are ideas, half are samples; a sentence for each collection."""
    told = []
    with pymongo.MongoClient[dict[str, Any]](settings.mongo_uri, serverSelectionTimeoutMS=10_000) as client:
        database = client[settings.db_name]
        for name, documents, indexes in (
            ("ideas", list(ideas(count // 2)), INDEXES),
            ("samples", list(samples(count - count // 2)), SAMPLE_INDEXES),
        ):
            if database[name].find_one({}, {"_id": 1}) is not None:
                told.append(f"{name} has documents already, and was left as it is")
                continue
            database[name].create_indexes(indexes)
            database[name].insert_many(documents)
            told.append(f"{name}: {len(documents)} documents")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill an empty database with examples.")
    parser.add_argument("--documents", type=int, default=4000)
    print(*seed(Settings.from_env(), parser.parse_args().documents), sep="\n")


if __name__ == "__main__":
    main()
