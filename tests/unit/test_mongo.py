# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongodump's directory format, against a dump that mongodump wrote."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import sys
from pathlib import Path

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter, read_entry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Component
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import check_database, connect
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_bson import (
    CheckedFile,
    DocumentWriter,
    documents,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    Definition,
    collection_of,
    decode_metadata,
    encode_metadata,
    encode_prelude,
    file_stem,
    is_dumped,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump, Part, staged_name
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_swap import plan

DUMP = Path(__file__).resolve().parents[1] / "fixtures" / "mongodump"
METADATA = sorted((DUMP / "plain" / "fixture_db").glob("*.metadata.json"))
NAMES = ["every_type", "with space", "a/b", "per%cent", "ümlaut", "dots.in.name", "x" * 240]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_mongodump(name: str) -> None:
    assert (DUMP / "plain" / "fixture_db" / f"{file_stem(name)}.bson").is_file()


def test_a_name_is_cut_when_it_is_longer_than_238_bytes() -> None:
    assert file_stem("x" * 238) == "x" * 238
    assert file_stem("x" * 239) != file_stem("x" * 240)
    assert len(file_stem("ü" * 120)) == 238
    assert collection_of(file_stem("x" * 240)) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_short_name_comes_back(name: str) -> None:
    stem = file_stem(name)
    assert "/" not in stem
    assert collection_of(stem) == name


@pytest.mark.parametrize("path", METADATA, ids=lambda path: path.name[:20])
def test_metadata_is_written_as_mongodump_writes_it(path: Path) -> None:
    data = path.read_bytes()
    definition = decode_metadata(data, path.name.removesuffix(".metadata.json"), str(path))
    assert encode_metadata(definition) == data


def test_metadata_without_indexes_or_name() -> None:
    for text in (b"{}", b'{"indexes":null}', b'{"options":{},"indexes":[]}'):
        assert decode_metadata(text, "a%2Fb", "here") == Definition("a/b")
    assert encode_metadata(Definition("v", "view", {"viewOn": "x"})) == (
        b'{"options":{"viewOn":"x"},"indexes":[],"collectionName":"v","type":"view"}'
    )
    index = {"v": 2, "key": {"b": 1, "a": -1}, "name": "i", "ns": "db.c"}
    assert b'"key":{"b":{"$numberInt":"1"},"a":{"$numberInt":"-1"}},"name":"i"}]' in encode_metadata(
        Definition("c", indexes=(index,))
    )


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"\xff", b'{"indexes":[{"v":2}]}', b'{"options":3}', b'{"options":{"a":{"$numberInt":"x"}}}']
)
def test_what_is_no_metadata_is_refused(text: bytes) -> None:
    with pytest.raises(StateError, match="here is no metadata of mongodump"):
        decode_metadata(text, "c", "here")


def test_metadata_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StateError, match="mongorestore"):
        decode_metadata(b'{"type":"columns"}', "c", "here")


def test_prelude() -> None:
    written = (DUMP / "plain" / "fixture_db" / "prelude.json").read_bytes()
    assert encode_prelude("8.2.11", "built-without-version-string") == written


def test_the_servers_own_collections_are_left_out() -> None:
    assert [name for name in ("a", "system.views", "system.buckets.a", "system.js", "systems") if is_dumped(name)] == [
        "a", "system.js", "systems",
    ]  # fmt: skip


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_documents_come_one_by_one_whatever_the_reads(values: list[bytes], step: int) -> None:
    encoded = [bson.encode({"value": value}) for value in values]
    stream = io.BytesIO(b"".join(encoded))
    assert list(documents(lambda size: stream.read(min(size, step)), "here")) == encoded


WHOLE = bson.encode({"a": 1})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (WHOLE + WHOLE[:-1], f"ends inside of the document that begins at byte {len(WHOLE)}"),
        (WHOLE + WHOLE[:2], f"ends inside of the document that begins at byte {len(WHOLE)}"),
        (struct.pack("<i", 4) + b"\0", "a document of 4 bytes is announced"),
        (struct.pack("<i", -1) + b"\0", "a document of -1 bytes"),
        (struct.pack("<i", 1 << 30), "a document of 1073741824 bytes"),
        (WHOLE[:-1] + b"\1", "that begins at byte 0 has no end"),
    ],
)
def test_a_broken_file_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(StateError, match=f"here is no file of BSON documents: .*{words}"):
        list(documents(io.BytesIO(data).read, "here"))


def test_compressed_files_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.bson.gz"
    with ArtifactWriter(path) as writer:
        packed = DocumentWriter(writer, compressed=True)
        packed.write(WHOLE)
        packed.write(WHOLE)
        packed.finish()
    assert gzip.decompress(path.read_bytes()) == WHOLE * 2
    assert writer.entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with CheckedFile(path, writer.entry) as file:
        assert list(documents(file.read, "here")) == [WHOLE, WHOLE]
        file.require_whole()


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_damaged_file_is_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.bson{ending}"
    path.write_bytes(gzip.compress(WHOLE * 50) if ending else WHOLE * 50)
    entry = read_entry(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with CheckedFile(path, entry) as file, pytest.raises(StateError, match="is not what the backup wrote"):
        file.require_whole()
    path.write_bytes(data[:-1])
    with pytest.raises(StateError, match=f"found {len(data) - 1} bytes"):
        CheckedFile(path, entry)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "$a", "x" * 64, "admin", "local", "config"])
def test_what_is_no_database_of_an_application_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="The database"):
        check_database(name)


def test_missing_pymongo_names_debians_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(DependencyError, match="python3-pymongo"), connect({}, "test"):
        pass


def test_the_staged_database_has_room_for_the_longest_collection() -> None:
    component = Component("mongo", "c", (), "2026-11-21T00:00:00Z", 1.0, {"database": "innova_db"})
    dump = Dump("20261121T000000Z", Path(), component)

    def name_beside(collection: str) -> str:
        return staged_name(dump, "innova_db", [Part(Definition(collection), None)])

    assert name_beside("x" * 220) == "innova_db_restore_20261121t000000z"
    for length in (221, 240, 245):
        assert len(name_beside("x" * length)) + 1 + length <= 255
    with pytest.raises(StateError, match="too long for a database beside the live one"):
        name_beside("x" * 247)


def test_steps_of_a_swap() -> None:
    """Views in the way first, collections by name, views, and at last what the journal says is too much."""
    view, other = Definition("v", "view", {"viewOn": "a"}), Definition("w", "view", {"viewOn": "a"})
    staged = [Definition("a"), Definition("b"), view, other]
    live = [Definition("a", "view"), Definition("b"), Definition("gone"), Definition("new"), Definition("w")]
    steps = [(step.kind, step.name) for step in plan(staged, live, ["gone", "went"])]
    assert steps == [
        ("drop", "a"), ("move", "a"), ("move", "b"), ("view", "v"), ("drop", "w"), ("view", "w"), ("drop", "gone"),
    ]  # fmt: skip
