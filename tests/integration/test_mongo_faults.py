# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What goes wrong around mongo_dump and mongo_restore: full disks, lost servers, wrong logins, the longest names."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.disks import fill, small_disk
from support.modules import ModuleRunner
from support.mongo import PASSWORD, MongoServer, Wire, standalone
from support.mongo_sets import NAME, MongoSets

LONGEST = "n" * 250  # with the shortest names of databases, as long as servers allow
DATABASE = "long"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def big(mongo: MongoServer) -> Iterator[str]:
    """A database of 4 MiB that cannot be compressed."""
    data = random.Random(1)
    mongo.client.big.things.insert_many([{"_id": number, "data": data.randbytes(MEBIBYTE)} for number in range(4)])
    yield "big"
    mongo.client.drop_database("big")


@pytest.fixture(scope="module")
def big_set(module: ModuleRunner, mongo: MongoServer, big: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MongoSets(module, tmp_path_factory.mktemp("big-sets") / "sets").dump(database=big, **mongo.options())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


@pytest.mark.parametrize("gzip", [True, False])
def test_a_full_disk_leaves_no_dump_and_says_what_was_needed(
    module: ModuleRunner, mongo: MongoServer, big: str, disk: Path, gzip: bool
) -> None:
    """The folder of the component is empty, so no set can be made of it; with room, the next run works."""
    dest = disk / "mongo"
    result = module("mongo_dump", mongo.options(database=big, dest=str(dest), gzip=gzip))
    assert result.get("failed"), result
    assert f"The file system of {dest} is full, and the dump of 'big' was removed." in result["msg"]
    assert "The documents take 4.0 MiB" in result["msg"]
    assert "2.0 MiB were free when the dump began" in result["msg"]
    assert result["space"]["needed"] > 4 * MEBIBYTE
    assert list(dest.iterdir()) == []
    mongo.client.big.things.delete_many({"_id": {"$gt": 0}})
    try:
        assert module("mongo_dump", mongo.options(database=big, dest=str(dest), gzip=gzip))["changed"] is True
    finally:
        data = random.Random(2)
        rest = [{"_id": number, "data": data.randbytes(MEBIBYTE)} for number in range(1, 4)]
        mongo.client.big.things.insert_many(rest)


def test_a_disk_that_was_full_before_is_told(module: ModuleRunner, mongo: MongoServer, big: str, disk: Path) -> None:
    fill(disk)
    result = module("mongo_dump", mongo.options(database=big, dest=str(disk / "mongo")))
    assert result.get("failed"), result
    assert "No space left on device" in result["msg"] or "is full" in result["msg"]
    assert [path.name for path in disk.rglob("*")] in (["filler"], ["filler", "mongo"], ["mongo", "filler"])


@pytest.fixture(scope="module")
def long_set(module: ModuleRunner, mongo: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of a database with a collection of the longest name."""
    sets = MongoSets(module, tmp_path_factory.mktemp("mongo-faults") / "sets")
    database = mongo.client[DATABASE]
    database[LONGEST].insert_many([{"_id": number} for number in range(3)])
    database[LONGEST].create_index("n")
    path = sets.dump(database=DATABASE, **mongo.options())
    mongo.client.drop_database(DATABASE)
    return path


@pytest.fixture
def restore(module: ModuleRunner, mongo: MongoServer, long_set: Path) -> Iterator[Any]:
    """restore(action, …) runs mongo_restore of that set into its database."""

    def run(action: str, **more: Any) -> dict[str, Any]:
        own = {"action": action, "set_path": str(long_set), "component": NAME, "database": DATABASE}
        result = module("mongo_restore", {**mongo.options(), **own, **more})
        assert PASSWORD not in result["_printed"]
        return result

    yield run
    mongo.client.drop_database(DATABASE)


def test_a_collection_of_250_bytes_is_restored_swapped_and_taken_back(restore: Any, mongo: MongoServer) -> None:
    """Its name is too long for the prefix under which it waits."""
    database = mongo.client[DATABASE]
    database[LONGEST].insert_one({"_id": "live"})
    result = restore("restore", force=True)
    assert result.get("changed") is True, result
    assert database[LONGEST].count_documents({}) == 3
    assert [index["name"] for index in database[LONGEST].list_indexes()] == ["_id_", "n_1"]
    assert restore("revert")["changed"] is True
    assert database[LONGEST].find_one() == {"_id": "live"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"login_password": "wrong"}, "refused the login of user 'root' with auth_source 'admin'"),
        ({"auth_source": "elsewhere"}, "refused the login of user 'root' with auth_source 'elsewhere'"),
    ],
)
def test_a_wrong_login_restores_nothing(restore: Any, mongo: MongoServer, wrong: dict[str, str], words: str) -> None:
    result = restore("restore", **wrong)
    assert result.get("failed"), result
    assert words in result["msg"]
    assert DATABASE not in mongo.client.list_database_names()


def test_a_restore_that_loses_its_server_is_done_by_the_next_one(restore: Any, mongo: MongoServer) -> None:
    """As when the server's own disk is full and it ends: what was live stays, and what was staged is replaced."""
    database = mongo.client[DATABASE]
    database.live.insert_one({"_id": 1})
    with Wire(mongo.port, b"insert", cut=True) as wire:
        result = restore("restore", force=True, login_port=wire.port)
    assert "the connection was lost" in result["msg"]
    assert database.live.find_one() == {"_id": 1}
    assert database[LONGEST].count_documents({}) == 0
    assert restore("restore", force=True)["changed"] is True
    assert database[LONGEST].count_documents({}) == 3


def test_a_full_disk_of_the_server_while_it_restores_costs_nothing_that_is_live(
    module: ModuleRunner, big_set: Path, tmp_path: Path
) -> None:
    """The restore fails; once there is room and the server runs again, the next one works."""
    restore = {"action": "restore", "set_path": str(big_set), "component": NAME, "database": "big", "force": True}
    with small_disk(tmp_path / "server", "40m") as storage:
        with standalone(storage) as server:
            server.client.big.live.insert_one({"_id": 1})
            left = 2 * MEBIBYTE
            with (storage / "filler").open("wb") as filler:
                filler.write(bytes(shutil.disk_usage(storage).free - left))
            result = module("mongo_restore", server.options(**restore))
            assert result.get("failed"), result
            assert "Could not restore big.groundwork.restore." in result["msg"]
        (storage / "filler").unlink()
        with standalone(storage) as server:
            assert server.client.big.live.find_one() == {"_id": 1}
            assert server.client.big.things.count_documents({}) == 0
            result = module("mongo_restore", server.options(**restore))
            assert result.get("changed") is True, result
            assert server.client.big.things.count_documents({}) == 4
