# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What one would write oneself: every collection into a file with pymongo's raw documents, and back.

usage: _mongo_plain.py dump|restore PORT DATABASE FOLDER     the password of root comes on standard input
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
BATCH_BYTES = 2 << 20


def dump(database: Any, folder: Path) -> None:
    """One file for each collection."""
    folder.mkdir()
    for name in database.list_collection_names():
        with (folder / f"{name}.bson").open("wb") as file:
            for document in database.get_collection(name, codec_options=RAW).find():
                file.write(document.raw)


def restore(database: Any, folder: Path) -> None:
    """The documents of each file, and then the index."""
    for path in sorted(folder.glob("*.bson")):
        for batch in batches(path):
            database[path.stem].insert_many(batch)
        database[path.stem].create_index("group")


def batches(path: Path) -> Iterator[list[Any]]:
    """Documents of a file, about two MiB at a time."""
    batch, size = [], 0
    with path.open("rb") as file:
        for document in bson.decode_file_iter(file, RAW):
            batch.append(document)
            size += len(document.raw)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


if __name__ == "__main__":
    action, port, name, folder = sys.argv[1:]
    with pymongo.MongoClient("127.0.0.1", int(port), username="root", password=sys.stdin.read()) as client:
        {"dump": dump, "restore": restore}[action](client[name], Path(folder))
