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
from uuid import UUID

import bson
import pytest
from bson.binary import Binary
from bson.regex import Regex
from hypothesis import example, given
from hypothesis import strategies as st
from support.mongo_dumps import MONGODUMP

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter, read_entry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, check_database, connect
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
    find_unmovable,
    is_dumped,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import Family, free_family, is_restores
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import as_sent
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_users import role_of
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_checks import require_restorable
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import Place, Record
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_space import free_bytes, require_room
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import is_complete, own_indexes
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_swap import live_names, moves

METADATA = sorted((MONGODUMP / "plain" / "fixture_db").glob("*.metadata.json"))
NAMES = ["every_type", "with space", "a/b", "per%cent", "ümlaut", "dots.in.name", "x" * 240]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_mongodump(name: str) -> None:
    assert (MONGODUMP / "plain" / "fixture_db" / f"{file_stem(name)}.bson").is_file()


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
    "condition", [{"$regex": "^a", "$ne": "ab"}, {"$regex": "^a"}, {"$regex": "a", "$options": "i"}]
)
def test_the_operator_regex_keeps_what_stands_beside_it(condition: dict[str, str]) -> None:
    """It is no regular expression, which is written in another way."""
    options = {"validator": {"name": condition, "mail": Regex("@", "i")}}
    written = encode_metadata(Definition("c", options=options))
    assert decode_metadata(written, "c", "here").options == options


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"\xff", b'{"indexes":[{"v":2}]}', b'{"options":3}', b'{"options":{"a":{"$numberInt":"x"}}}']
)
def test_what_is_no_metadata_is_refused(text: bytes) -> None:
    with pytest.raises(StateError, match="here is no metadata of mongodump"):
        decode_metadata(text, "c", "here")


def test_metadata_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StateError, match="mongorestore"):
        decode_metadata(b'{"type":"columns"}', "c", "here")


def test_an_index_does_not_get_the_collation_of_its_collection() -> None:
    """A server tells no collation of an index that has the simple one."""
    plain = {"v": 2, "key": {"a": 1}, "name": "a"}
    french = {**plain, "name": "b", "collation": {"locale": "fr"}}
    assert own_indexes(Definition("c", indexes=(plain, french))) == [plain, french]
    of_german = Definition("c", options={"collation": {"locale": "de"}}, indexes=(plain, french))
    assert own_indexes(of_german) == [{**plain, "collation": {"locale": "simple"}}, french]


def test_documents_that_expire_at_once_are_not_missed() -> None:
    plain, clustered = Definition("c"), Definition("c", options={"clusteredIndex": {}, "expireAfterSeconds": 60})
    capped = Definition("c", options={"capped": True, "size": 4096, "max": 4})
    assert is_complete(plain, told=5, loaded=5, found=5)
    assert not is_complete(plain, told=5, loaded=5, found=4)
    assert is_complete(clustered, told=5, loaded=5, found=4)
    assert not is_complete(clustered, told=5, loaded=4, found=4)
    assert not is_complete(clustered, told=5, loaded=5, found=6)
    assert is_complete(capped, told=5, loaded=5, found=4)  # it moved on while it was read
    assert not is_complete(capped, told=5, loaded=4, found=4)


def test_what_a_server_does_not_rename() -> None:
    encrypted = Definition("patients", options={"encryptedFields": {"fields": []}})
    found = [Definition("plain"), encrypted, Definition("system.js"), Definition("weather", kind="timeseries")]
    assert find_unmovable(found) == ["patients", "system.js", "weather"]


def test_uuids_that_the_driver_has_made_pythons_own_are_as_the_server_sends_them() -> None:
    """As pymongo 3.11 gives them, which Debian 12 has."""
    raw = bytes(range(16))
    told = as_sent({"pipeline": [{"$match": {"tenant": UUID(bytes=raw), "n": 1}}], "id": Binary(raw, 3)})
    assert told == {"pipeline": [{"$match": {"tenant": Binary(raw, 4), "n": 1}}], "id": Binary(raw, 3)}


def test_a_uuid_in_a_definition_is_what_the_driver_sends() -> None:
    """As in the rules for encrypted fields; a UUID of Python's own would be refused by the driver."""
    key = Binary(bytes(range(16)), 4)
    options = {"validator": {"$jsonSchema": {"properties": {"ssn": {"encrypt": {"keyId": [key]}}}}}}
    read = decode_metadata(encode_metadata(Definition("c", options=options)), "c", "here").options
    assert read == options
    assert bson.encode(dict(read)) == bson.encode(options)


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"isWritablePrimary": False, "setName": "rs0", "secondary": True}, "is not the primary of its replica set"),
        ({"isWritablePrimary": True, "msg": "isdbgrid"}, "would be sharded no more"),
    ],
)
def test_a_server_that_cannot_swap_is_refused(hello: dict[str, object], words: str) -> None:
    server = Server(None, "db:27017", "8.0.4", hello)
    with pytest.raises(StateError, match=words):
        require_restorable(Place(server, "shop", "20261121T061200Z", "shop", beside=True), [])


def test_restrictions_of_a_role_are_dumped_as_they_are_stored() -> None:
    source = {"clientSource": ["10.0.0.0/8"]}
    listed = {"role": "reader", "db": "d", "isBuiltin": False, "privileges": [], "roles": []}
    stored = {"_id": "d.reader", "role": "reader", "db": "d", "privileges": [], "roles": []}
    assert role_of({**listed, "authenticationRestrictions": [[source]]}, "d") == {
        **stored,
        "authenticationRestrictions": [source],
    }
    assert role_of({**listed, "authenticationRestrictions": []}, "d") == stored


def test_prelude() -> None:
    written = (MONGODUMP / "plain" / "fixture_db" / "prelude.json").read_bytes()
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


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=250))
@example("\n")
def test_what_waits_in_a_database_has_names_that_fit_and_are_told_apart(collection: str) -> None:
    family, other = (
        Family("innova_db", "restore", "20261121T000000Z"),
        Family("innova_db", "before", "20261121T000000Z"),
    )
    name = family.name(collection)
    assert len(f"innova_db.{name}".encode()) <= 255
    assert is_restores(name)
    assert not is_dumped(name)
    assert family.members([name, other.name(collection), collection]) == [name]
    assert name != family.name(f"{collection}.")


@pytest.mark.parametrize(
    "collection", ["groundwork", "groundwork.restored", "groundwork.restore.", "groundwork.before.2026.a", "before.a"]
)
def test_a_name_of_an_application_is_dumped(collection: str) -> None:
    assert is_dumped(collection)


def test_the_journal_of_a_restore_is_not_dumped() -> None:
    assert not is_dumped("groundwork.restore")


def test_a_family_gets_a_number_when_its_prefix_is_taken() -> None:
    names = ["a"]
    for number in (1, 2, 3):
        family = free_family("db", "before", "20261121T000000Z", names)
        assert family.number == number
        assert is_restores(family.name("a"))
        names.append(family.name("a"))
    assert names[1:] == [f"groundwork.before.20261121t000000z{end}.a" for end in ("", "_2", "_3")]
    assert Family("db", "before", "20261121T000000Z").members(names) == names[1:2]
    assert Family("db", "before", "20261121T000000Z").all_numbers(names) == sorted(names[1:])


def test_what_is_left_of_a_swap() -> None:
    """Collections by name, views last, and nothing that had its turn."""
    found = {"b": "collection", "v": "view", "a": "collection", "system.js": "collection", "groundwork.restore": "x"}
    names = {name: f"aside.{name}" for name in live_names(found)}
    told = [(move.kind, move.old, move.new) for move in moves(found, {**names, "gone": "aside.gone"})]
    assert told == [("collection", "a", "aside.a"), ("collection", "b", "aside.b"), ("view", "v", "aside.v")]


def test_the_record_of_a_restore_survives_the_database() -> None:
    record = Record("live", {"a.b": 2, "$c": 0}, ("a.b", "v"), 2, 3)
    assert Record.of(bson.decode(bson.encode(record.document()))) == record


@pytest.mark.parametrize(
    ("statistics", "free"),
    [({"fsTotalSize": 100.0, "fsUsedSize": 30.0}, 70), ({"fsTotalSize": 1, "fsUsedSize": 2}, 0), ({"ok": 1.0}, None)],
)
def test_room(statistics: dict[str, float], free: int | None) -> None:
    assert free_bytes(statistics) == free


def test_what_plainly_does_not_fit_is_refused() -> None:
    for needed, free in ((None, 1), (5, None), (5, 5)):
        require_room("db", {"needed": needed, "free": free})
    with pytest.raises(StateError, match=r"take about 6 B .* 5 B are free") as raised:
        require_room("db", {"needed": 6, "free": 5})
    assert raised.value.details["space"] == {"needed": 6, "free": 5}
