# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_restore against a real server that speaks MongoDB's wire protocol."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
import pytest
from support.backup_sets import copied, retold
from support.modules import ModuleRunner
from support.mongo import APP, PASSWORD, MongoServer, Wire
from support.mongo_sets import NAME, MongoSets, without_uuid

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "mongodump"
LARGE = bson.encode({"_id": 1, "text": "x" * ((16 << 20) - 30)})
INVALID = bson.encode({"_id": 2, "text": "abcd"}).replace(b"abcd", b"a\xff\xfed")  # MongoDB would take it
ODD = ("a/b", "a?b", "with space", "l" * 200)
_numbers = itertools.count(1)


@dataclass
class Bench:
    """mongo_restore of one set; the live database and all that begin with its name are those of one test."""

    module: ModuleRunner
    server: MongoServer
    set_path: Path
    live: str

    @property
    def staged(self) -> str:
        """The database beside the live one."""
        return f"{self.live}_restore_{self.set_path.name.lower()}"

    def options(self, action: str, **more: Any) -> dict[str, Any]:
        """The options of the module."""
        own = {"action": action, "set_path": str(self.set_path), "component": NAME, "database": self.live}
        return {**self.server.options(), **own, **more}

    def run(self, action: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run it to its end."""
        result = self.module("mongo_restore", self.options(action, **more), check=check)
        assert PASSWORD not in result["_printed"]
        return result

    def done(self, action: str, **more: Any) -> dict[str, Any]:
        """Run, and require that it changed something."""
        result = self.run(action, **more)
        assert result["changed"] is True, result
        return result

    def refused(self, action: str, words: str, **more: Any) -> None:
        """Run, and require this failure and that nothing has changed."""
        result = self.run(action, **more)
        assert result.get("failed"), result
        assert words in result["msg"], result["msg"]
        assert self.databases() == {self.live}
        assert self.database["present"].find_one() == {"_id": 1, "note": "not restored"}

    @property
    def database(self) -> Any:
        """The live database."""
        return self.server.client[self.live]

    def databases(self) -> set[str]:
        """Those of this test."""
        return {name for name in self.server.client.list_database_names() if name.startswith(self.live)}


@pytest.fixture(scope="module")
def mongo_sets(module: ModuleRunner, tmp_path_factory: pytest.TempPathFactory) -> MongoSets:
    return MongoSets(module, tmp_path_factory.mktemp("mongo-sets") / "sets")


@pytest.fixture(scope="module")
def set_path(mongo: MongoServer, mongo_sets: MongoSets) -> Path:
    """A set of a database with odd names, definitions and documents."""
    database = mongo.client["source"]
    for name in ODD:
        database.command("insert", name, documents=[{"_id": 1, "name": name}])
    database.orders.insert_many([{"_id": number, "n": number, "s": str(number)} for number in range(300)])
    database.orders.create_index([("s", 1), ("n", -1)], name="s_n", unique=True)
    database.orders.create_index([("n", 1)], name="half", partialFilterExpression={"n": {"$gt": 150}})
    database.create_collection("recent", viewOn="orders", pipeline=[{"$match": {"n": {"$gte": 290}}}])
    database.create_collection("dangling", viewOn="nothing here", pipeline=[])
    path = mongo_sets.dump(database="source", **mongo.options())
    mongo.client.drop_database("source")
    return path


@pytest.fixture
def bench(module: ModuleRunner, mongo: MongoServer, set_path: Path) -> Iterator[Bench]:
    """A live database with a collection and a view of the set's names in other roles, and one that it has not."""
    one = Bench(module, mongo, set_path, f"live{next(_numbers)}")
    one.database.present.insert_one({"_id": 1, "note": "not restored"})
    one.database.orders.insert_one({"_id": "old"})
    one.database.recent.insert_one({"_id": "a collection, and a view in the set"})
    one.database.create_collection("a/b", viewOn="present", pipeline=[])
    yield one
    for name in one.databases():
        mongo.client.drop_database(name)


def first(database: Any, collection: str) -> list[dict[str, Any]]:
    """The documents of a small collection; the driver's methods refuse some names that servers have."""
    found: list[dict[str, Any]] = database.command("find", collection)["cursor"]["firstBatch"]
    return found


def require_restored(database: Any) -> None:
    """The database is that of the set, and nothing besides."""
    names = {*ODD, "orders", "recent", "dangling"}
    assert {one["name"] for one in database.list_collections() if not one["name"].startswith("system.")} == names
    assert database.orders.count_documents({}) == 300
    indexes = {one["name"]: one for one in database.orders.list_indexes()}
    assert set(indexes) == {"_id_", "s_n", "half"}
    assert list(indexes["s_n"]["key"].items()) == [("s", 1), ("n", -1)]
    assert indexes["s_n"]["unique"] is True
    assert indexes["half"]["partialFilterExpression"] == {"n": {"$gt": 150}}
    assert database.recent.count_documents({}) == 10
    assert database.dangling.count_documents({}) == 0
    for name in ODD:
        assert first(database, name) == [{"_id": 1, "name": name}]


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_a_dump_of_mongodump(
    module: ModuleRunner, mongo: MongoServer, mongo_sets: MongoSets, tmp_path: Path, kind: str
) -> None:
    """Is restored, and a dump of the restored database has the same bytes, and the same metadata but for the uuid."""
    given = FIXTURES / kind / "fixture_db"
    target = f"fixture_{kind}"
    bench = Bench(module, mongo, mongo_sets.of_files(given, "fixture_db"), "fixture_db")
    result = bench.done("stage", target=target)
    assert result["counts"]["every_type"] == 50
    assert sum(result["counts"].values()) == 97
    mongo.client[target].drop_collection("groundwork.restore")
    options = mongo.options(database=target, dest=str(tmp_path / "mongo"), gzip=False)
    dumped = module("mongo_dump", options)
    assert dumped["component"]["counts"] == result["counts"]
    expected = FIXTURES / "plain" / "fixture_db"
    found = tmp_path / "mongo" / target
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())
    for path in expected.iterdir():
        if path.suffix == ".bson":
            assert (found / path.name).read_bytes() == path.read_bytes(), path.name
        elif path.name != "prelude.json":
            assert without_uuid(found / path.name) == without_uuid(path), path.name
    mongo.client.drop_database(target)


def test_restore(bench: Bench) -> None:
    """Check, stage, the same again, swap: nothing is left of what was live, and nothing of the restore."""
    before = bench.databases()
    foretold = bench.run("restore", check=True, force=True)
    assert bench.databases() == before
    staged = bench.done("stage")
    assert staged["staged"] == bench.staged
    assert staged["counts"]["orders"] == 300
    assert bench.database.present.count_documents({}) == 1
    again = bench.run("stage")
    assert again["changed"] is False
    assert again["counts"] == staged["counts"]
    swapped = bench.done("swap")
    assert staged["actions"] + swapped["actions"] == foretold["actions"]
    assert swapped["actions"][:2] == [f"drop {bench.live}.a/b", f"replace collection {bench.live}.a/b"]
    assert swapped["actions"][-2:] == [f"drop {bench.live}.present", f"drop database {bench.staged}"]
    require_restored(bench.database)
    assert bench.databases() == {bench.live}
    result = bench.run("swap")
    assert "Run action stage first" in result["msg"]


def test_a_live_database_is_replaced_only_when_that_is_said(bench: Bench) -> None:
    bench.refused("restore", "Set force: true")
    owner = {"login_user": "app", "auth_source": APP, "database": APP}
    bench.refused("stage", "Grant the missing right to login_user", **owner)
    bench.refused("stage", "target 'admin' belongs to the server", target="admin")
    for action in ("stage", "discard"):
        bench.refused(action, "is the live database", target=bench.live, force=True)
    bench.refused("swap", "target is for action", target="x")


def test_a_new_server(bench: Bench) -> None:
    """Where there is no live database, none has to be replaced."""
    bench.server.client.drop_database(bench.live)
    bench.done("restore", jobs=1)
    require_restored(bench.database)


def test_drill(bench: Bench) -> None:
    """A target is restored and dropped without a word about the live database; one that exists needs force."""
    target = f"{bench.live}_drill"
    bench.server.client[target].other.insert_one({})
    result = bench.run("stage", target=target)
    assert f"The target '{target}' exists already" in result["msg"]
    assert bench.done("stage", target=target, force=True)["counts"]["orders"] == 300
    assert bench.server.client[target].orders.count_documents({}) == 300
    bench.done("discard", target=target)
    assert bench.run("discard", target=target)["changed"] is False
    assert bench.database.present.count_documents({}) == 1
    assert bench.databases() == {bench.live}


def _flip(folder: Path) -> None:
    path = folder / "orders.bson.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(folder: Path) -> None:
    path = folder / "orders.bson.gz"
    path.write_bytes(path.read_bytes()[:-9])


def test_a_damaged_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Before the live database is touched, also in check mode."""
    whole = bench.set_path
    for damage in (_flip, _cut):
        bench.set_path = copied(whole, tmp_path / damage.__name__)
        damage(bench.set_path / "components" / NAME / "source")
        bench.refused("restore", "is not what the backup wrote: the manifest says", force=True)
    bench.refused("restore", "is not what the backup wrote: the manifest says", force=True, check=True)


def test_documents_that_are_not_those_that_were_counted(bench: Bench, tmp_path: Path) -> None:
    bench.set_path = copied(bench.set_path, tmp_path)
    retold(bench.set_path, lambda component: component["counts"].update(orders=301))
    bench.refused("restore", "orders has 300 documents instead of 301", force=True)


def _files(tmp_path: Path, **content: bytes) -> Path:
    folder = tmp_path / "files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in content.items():
        (folder / f"{name.replace('__', '.')}").write_bytes(data)
    return folder


TWICE = bson.encode({"_id": 1, "a": 1}) + bson.encode({"_id": 2, "a": 1})
UNIQUE = b'{"indexes":[{"v":2,"key":{"a":1},"name":"a_1","unique":true}],"collectionName":"c","type":"collection"}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"c__bson": TWICE, "c__metadata__json": UNIQUE}, "Could not make the indexes of"),
        ({"c__bson": TWICE + TWICE, "c__metadata__json": b"{}"}, "code 11000"),
        ({"c__bson": TWICE[:-3], "c__metadata__json": b"{}"}, "ends inside of the document"),
        ({"c__metadata__json": b"{}"}, "no file with the documents of 'c'"),
        ({"c__bson": TWICE, "c__metadata__json": b"[]"}, "is no metadata of mongodump"),
        ({"c__bson": b"", "c__metadata__json": b'{"options":{"nonsense":1}}'}, "Could not create collection"),
        ({"c__bson": INVALID, "c__metadata__json": b"{}"}, "Could not restore"),
        ({"a%24b__bson": TWICE}, "Invalid collection name: a$b"),
        ({"system__js__bson": b"", "system__js__metadata__json": b"{}"}, "cannot move system.js"),
    ],
)
def test_a_dump_that_cannot_be_restored(
    bench: Bench, mongo_sets: MongoSets, tmp_path: Path, content: dict[str, bytes], words: str
) -> None:
    bench.set_path = mongo_sets.of_files(_files(tmp_path, **content), "source")
    bench.refused("restore", words, force=True)


VALIDATOR = (
    b'{"options":{"validator":{"$jsonSchema":{"required":["a"]}}},"indexes":[{"key":{"a":1},"name":"a_1"}],'
    b'"collectionName":"c","type":"collection"}'
)


def test_large_documents_and_those_that_the_validator_would_refuse(
    bench: Bench, mongo_sets: MongoSets, tmp_path: Path
) -> None:
    """Are restored. A server that loses the validator in the swap, as that of the tests does, is found out."""
    files = _files(tmp_path, c__bson=LARGE, c__metadata__json=VALIDATOR)
    bench.set_path = mongo_sets.of_files(files, "source")
    target = f"{bench.live}_drill"
    assert bench.done("stage", target=target)["counts"] == {"c": 1}
    restored = bench.server.client[target]
    assert b"".join(restored.c.find_raw_batches()) == LARGE
    (found,) = restored.list_collections(filter={"name": "c"})
    assert found["options"]["validator"] == {"$jsonSchema": {"required": ["a"]}}
    result = bench.run("restore", force=True)
    assert result["differences"] == ["collection c has lost its validator"]
    assert bench.database.c.count_documents({}) == 1


def test_documents_without_metadata(bench: Bench, mongo_sets: MongoSets, tmp_path: Path) -> None:
    """Are a collection without options and indexes; metadata without indexes is the same."""
    files = _files(tmp_path, bare__bson=TWICE, c__bson=TWICE, c__metadata__json=b'{"indexes":null}')
    bench.set_path = mongo_sets.of_files(files, "source")
    assert bench.done("restore", force=True)["counts"] == {"bare": 2, "c": 2}
    assert [one["name"] for one in bench.database.bare.list_indexes()] == ["_id_"]


def test_the_next_run_finishes_a_swap_that_was_cut_off(bench: Bench) -> None:
    """Killed when one collection had been moved: nothing is lost, nothing else can be done, and swap goes on."""
    bench.done("stage")
    with Wire(bench.server.port, b"renameCollection", 2) as wire:
        process = bench.module.start("mongo_restore", bench.options("swap", login_port=wire.port))
        assert wire.reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert bench.databases() == {bench.live, bench.staged}
    assert first(bench.database, "a/b") == [{"_id": 1, "name": "a/b"}]
    assert bench.database.orders.find_one() == {"_id": "old"}
    bench.database.meanwhile.insert_one({})
    for action in ("stage", "discard"):
        assert "was cut off" in bench.run(action)["msg"]
    bench.done("swap")
    bench.database.drop_collection("meanwhile")  # the journal knew what to drop, and this was not there
    require_restored(bench.database)
    assert bench.databases() == {bench.live}


def test_what_a_killed_stage_left_is_replaced(bench: Bench) -> None:
    with Wire(bench.server.port, b"createIndexes") as wire:
        process = bench.module.start("mongo_restore", bench.options("stage", login_port=wire.port))
        assert wire.reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert bench.databases() == {bench.live, bench.staged}
    assert "Run action stage first" in bench.run("swap")["msg"]
    assert bench.done("stage")["actions"][0] == f"drop database {bench.staged}"
    bench.done("swap")
    require_restored(bench.database)


def test_a_swap_that_loses_the_server_says_what_it_leaves(bench: Bench) -> None:
    with Wire(bench.server.port, b"renameCollection", 3, cut=True) as wire:
        result = bench.run("restore", force=True, login_port=wire.port)
    assert "the connection was lost" in result["msg"]
    assert "run action swap again; it goes on" in result["msg"]
    bench.done("restore", force=True)
    require_restored(bench.database)


def test_what_is_in_the_way_is_not_dropped(bench: Bench) -> None:
    bench.server.client[bench.staged].precious.insert_one({})
    assert "was not made by mongo_restore" in bench.run("stage")["msg"]
    assert "was not made by mongo_restore" in bench.run("discard")["msg"]
    target = {"target": bench.staged, "force": True}
    assert "was not made by mongo_restore" in bench.run("discard", **target)["msg"]
    assert bench.server.client[bench.staged].precious.count_documents({}) == 1


def test_another_component(bench: Bench, tmp_path: Path) -> None:
    bench.refused("stage", "has no component 'absent'", component="absent")
    other = copied(bench.set_path, tmp_path)
    retold(other, lambda component: component.update(engine="postgres"))
    bench.refused("stage", "is of engine 'postgres'", set_path=str(other))
    bench.refused("stage", "is no folder of a backup set", set_path="/absent")
