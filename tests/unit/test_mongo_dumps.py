# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How dumps are compared by make interop and by the tests of mongo_restore, with dumps that mongodump wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.mongo_dumps import MONGODUMP, differences

PLAIN = MONGODUMP / "plain" / "fixture_db"
EVERY = "every_type.metadata.json"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(PLAIN, tmp_path / "copy")


def test_the_same_dump_with_and_without_compression_is_equal() -> None:
    assert differences(PLAIN, MONGODUMP / "gzip" / "fixture_db") == []


def test_another_uuid_and_another_order_of_an_indexs_settings_are_equal(copy: Path) -> None:
    text = (copy / EVERY).read_text()
    begin = text.index('"uuid":"') + len('"uuid":"')
    text = text[:begin] + "0" * 32 + text[begin + 32 :]
    version = '"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}}'
    assert version in text
    (copy / EVERY).write_text(text.replace(version, ",".join(reversed(version.split(",", 1)))))
    assert differences(PLAIN, copy) == []


def test_files_that_are_missing_or_too_many_are_told(copy: Path) -> None:
    (copy / "empty.bson").rename(copy / "other.bson")
    assert differences(PLAIN, copy) == ["empty.bson is missing", "other.bson is too much"]


def test_one_byte_is_told(copy: Path) -> None:
    path = copy / "every_type.bson"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert differences(PLAIN, copy) == [
        f"every_type.bson has other bytes: {len(data)} are expected, {len(data)} are there"
    ]


def test_another_order_inside_of_an_indexs_key_is_told(copy: Path) -> None:
    given = '"key":{"a":{"$numberInt":"1"},"b":{"$numberInt":"-1"}}'
    turned = '"key":{"b":{"$numberInt":"-1"},"a":{"$numberInt":"1"}}'
    frame = '{{"indexes":[{{{0},"name":"i"}}],"uuid":"","collectionName":"c","type":"collection"}}'
    for folder, key in ((copy / "one", given), (copy / "other", turned)):
        folder.mkdir()
        (folder / "c.metadata.json").write_text(frame.format(key))
    (told,) = differences(copy / "one", copy / "other")
    assert told.startswith("c.metadata.json says something else")


def test_another_option_is_told(copy: Path) -> None:
    path = copy / "capped_log.metadata.json"
    path.write_text(path.read_text().replace('"capped":true', '"capped":false'))
    (told,) = differences(PLAIN, copy)
    assert told.startswith("capped_log.metadata.json says something else")
