# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Compare two dumps of a MongoDB database, each a folder in mongodump's format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from support.collection import ROOT

# What mongodump wrote of a made-up database, plain and with gzip.
MONGODUMP = ROOT / "tests" / "fixtures" / "mongodump"
GZIP, DATA, METADATA = ".gz", ".bson", ".metadata.json"


def differences(expected: Path, found: Path) -> list[str]:
    """One sentence for each file that is not the same; compression, uuids and what prelude.json says do not count."""
    wanted, there = _files(expected), _files(found)
    told = [f"{name} is missing" for name in sorted(wanted.keys() - there.keys())]
    told += [f"{name} is too much" for name in sorted(there.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & there.keys()):
        one, other = wanted[name], there[name]
        if name.endswith(DATA) and one != other:
            told.append(f"{name} has other bytes: {len(one)} are expected, {len(other)} are there")
        elif name.endswith(METADATA) and definition(one) != definition(other):
            told.append(f"{name} says something else: {one.decode()} is expected, {other.decode()} is there")
    return told


def definition(metadata: bytes) -> dict[str, Any]:
    """What a metadata.json says but for the uuid, which is never the same twice.

    The order of options and of the keys of an index has a meaning, and that of an index's settings has none.
    """
    content: dict[str, Any] = json.loads(metadata)
    content.pop("uuid", None)
    indexes = [{**index, "key": list(index["key"].items())} for index in content.pop("indexes", None) or []]
    options = json.dumps(content.pop("options", None) or {})
    return {**content, "options": options, "indexes": sorted(indexes, key=lambda index: str(index["name"]))}


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.name.removesuffix(GZIP): gzip.decompress(path.read_bytes()) if path.suffix == GZIP else path.read_bytes()
        for path in folder.iterdir()
    }
