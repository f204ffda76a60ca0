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
from support.mongo_dumps import MONGODUMP, differences
from support.mongo_sets import NAME, MongoSets

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

    def prefix(self, kind: str) -> str:
        """What the names begin with of collections that wait in the live database."""
        return f"groundwork.{kind}.{self.set_path.name.lower()}."

    def waiting(self, kind: str = "") -> list[str]:
        """The names of collections that wait there: of a kind, or of any, and the journal."""
        prefix = self.prefix(kind) if kind else "groundwork."
        return sorted(name for name in self.database.list_collection_names() if name.startswith(prefix))

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
        assert self.waiting() == []
        require_as_before(self.database)

    @property
    def database(self) -> Any:
        """The live database."""
        return self.server.client[self.live]

    def databases(self) -> set[str]:
        """Those of this test."""
        return {name for name in self.server.client.list_database_names() if name.startswith(self.live)}


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
    one.database.orders.create_index("n")
    one.database.recent.insert_one({"_id": "a collection, and a view in the set"})
    one.database.create_collection("a/b", viewOn="present", pipeline=[])
    yield one
    for name in one.databases():
        mongo.client.drop_database(name)


def first(database: Any, collection: str) -> list[dict[str, Any]]:
    """The documents of a small collection; the driver's methods refuse some names that servers have."""
    found: list[dict[str, Any]] = database.command("find", collection)["cursor"]["firstBatch"]
    return found


def own_names(database: Any) -> set[str]:
    """What is the application's own."""
    return {name for name in database.list_collection_names() if not name.startswith(("system.", "groundwork."))}


def require_as_before(database: Any) -> None:
    """What is live is what the fixture bench has made."""
    assert own_names(database) == {"present", "orders", "recent", "a/b"}
    assert database.present.find_one() == {"_id": 1, "note": "not restored"}
    assert database.orders.find_one() == {"_id": "old"}
    assert [one["name"] for one in database.orders.list_indexes()] == ["_id_", "n_1"]
    assert database.recent.find_one() == {"_id": "a collection, and a view in the set"}
    assert first(database, "a/b") == [{"_id": 1, "note": "not restored"}]


def require_restored(database: Any) -> None:
    """What is live is what the set has, and nothing besides."""
    assert own_names(database) == {*ODD, "orders", "recent", "dangling"}
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
    given = MONGODUMP / kind / "fixture_db"
    target = f"fixture_{kind}"
    bench = Bench(module, mongo, mongo_sets.of_files(given, "fixture_db"), "fixture_db")
    result = bench.done("stage", target=target)
    assert result["counts"]["every_type"] == 50
    assert sum(result["counts"].values()) == 97
    mongo.client[target].drop_collection("groundwork.restore")
    options = mongo.options(database=target, dest=str(tmp_path / "mongo"), gzip=False)
    dumped = module("mongo_dump", options)
    assert dumped["component"]["counts"] == result["counts"]
    assert differences(MONGODUMP / "plain" / "fixture_db", tmp_path / "mongo" / target) == []
    mongo.client.drop_database(target)


def test_restore(bench: Bench) -> None:
    """Check, stage, the same again, swap, the same again, finish: what was live is kept until it is dropped."""
    foretold = bench.run("restore", check=True, force=True)
    assert bench.waiting() == []
    staged = bench.done("stage")
    assert staged["staged"] == f"{bench.live}.{bench.prefix('restore')}*"
    assert staged["counts"]["orders"] == 300
    require_as_before(bench.database)
    again = bench.run("stage")
    assert again["changed"] is False
    assert again["counts"] == staged["counts"]
    swapped = bench.done("swap")
    assert staged["actions"] + swapped["actions"] == foretold["actions"]
    assert (swapped["before"], swapped["live_from_set"]) == (f"{bench.live}.{bench.prefix('before')}*", True)
    require_restored(bench.database)
    assert bench.run("swap")["changed"] is False
    assert bench.done("finish")["before"] is None
    assert bench.run("finish")["changed"] is False
    assert bench.run("revert")["changed"] is False
    assert bench.waiting() == [f"{bench.prefix('before')}{name}" for name in ("a/b", "orders", "present", "recent")]
    require_restored(bench.database)
    bench.done("discard", before=True)
    assert bench.waiting() == []


def test_what_was_kept_is_no_part_of_a_dump(bench: Bench, mongo_sets: MongoSets) -> None:
    bench.done("restore", force=True)
    bench.set_path = mongo_sets.dump(database=bench.live, **bench.server.options())
    assert set(bench.run("stage")["counts"]) == {*ODD, "orders"}


def test_the_owner_of_the_database_can_restore_it(bench: Bench) -> None:
    """One that is known in that database alone."""
    owner = {"login_user": "app", "auth_source": APP, "database": APP}
    database = bench.server.client[APP]
    database.present.insert_one({"_id": 1})
    bench.done("restore", force=True, **owner)
    require_restored(database)
    bench.done("revert", **owner)
    assert own_names(database) == {"present"}
    bench.done("discard", **owner)
    bench.server.client.drop_database(APP)


def test_roles_that_the_server_does_not_have(bench: Bench, mongo_sets: MongoSets) -> None:
    """Are created, and inherit from each other; those that it has stay. Users that it does not have are named."""
    database = bench.server.client[APP]
    find = {"resource": {"db": APP, "collection": "things"}, "actions": ["find"]}
    database.things.insert_one({"_id": 1})
    database.command("createRole", "reader", privileges=[find], roles=[])
    database.command("createRole", "auditor", privileges=[], roles=["reader"])
    database.command("createUser", "lost", pwd="x", roles=["auditor"])
    owner = {"login_user": "app", "auth_source": APP, "database": APP}
    bench.set_path = mongo_sets.dump(**{**bench.server.options(), **owner, "users": True})
    assert "create role" not in str(bench.done("restore", force=True, **owner))
    database.command("dropUser", "lost")
    for role in ("auditor", "reader"):
        database.command("dropRole", role)
    assert "create role auditor" in str(bench.run("stage", check=True, **owner)["actions"])
    assert database.command("rolesInfo")["roles"] == []
    restored = bench.done("stage", **owner)
    assert "the server has not, and that cannot be made from it: lost." in str(restored["warnings"])
    found = {one["role"]: one for one in database.command("rolesInfo", showPrivileges=True)["roles"]}
    assert found["reader"]["privileges"] == [find]
    assert found["auditor"]["roles"] == [{"role": "reader", "db": APP}]
    for role in ("auditor", "reader"):
        database.command("dropRole", role)
    bench.server.client.drop_database(APP)


def test_a_swap_is_taken_back(bench: Bench) -> None:
    """Once; what was live meanwhile is kept, with all that was written since, when that is said."""
    bench.done("restore", force=True)
    bench.database.orders.insert_one({"_id": "written since"})
    bench.database.new.insert_one({"_id": "made since"})
    foretold = bench.run("revert", check=True)
    reverted = bench.done("revert")
    assert reverted["actions"] == foretold["actions"]
    require_as_before(bench.database)
    assert bench.run("revert")["changed"] is False
    away = bench.prefix("reverted")
    names = (*ODD, "orders", "recent", "dangling", "new")
    assert bench.waiting("reverted") == sorted(f"{away}{name}" for name in names)
    kept = bench.done("discard", keep_reverted=True)
    assert "look whether something was written into it" in str(kept["warnings"])
    assert bench.database[f"{away}orders"].count_documents({}) == 301
    assert len(bench.waiting()) == len(names)
    bench.done("restore", force=True)
    bench.done("revert")
    assert f"{away[:-1]}_2.orders" in bench.waiting()
    bench.done("stage")
    bench.done("discard")
    assert len(bench.waiting()) == len(names)
    require_as_before(bench.database)


def test_a_swap_is_not_taken_back_when_what_was_live_is_gone(bench: Bench) -> None:
    bench.done("restore", force=True)
    bench.database[f"{bench.prefix('before')}present"].drop()
    assert "which was live before, is gone" in bench.run("revert")["msg"]
    require_restored(bench.database)


def test_the_same_set_once_more(bench: Bench) -> None:
    """Each restore keeps what was live before it; dropping that drops all of it."""
    for ending in ("", "_2"):
        kept = bench.done("restore", force=True)["before"]
        assert kept == f"{bench.live}.{bench.prefix('before')[:-1]}{ending}.*"
    require_restored(bench.database)
    bench.done("discard", before=True)
    assert bench.waiting() == []


def test_a_restore_without_its_set(bench: Bench, tmp_path: Path) -> None:
    """What was done can be taken back and dropped with the name of the set alone."""
    bench.done("restore", force=True)
    gone = tmp_path / bench.set_path.name
    bench.done("revert", set_path=str(gone))
    bench.done("discard", set_path=str(gone))
    assert bench.waiting() == []
    require_as_before(bench.database)
    assert "is no folder of a backup set" in bench.run("stage", set_path=str(gone))["msg"]


def test_a_damaged_set_is_no_hindrance_to_what_needs_only_its_name(bench: Bench, tmp_path: Path) -> None:
    bench.set_path = copied(bench.set_path, tmp_path)
    bench.done("restore", force=True)
    folder = bench.set_path / "components" / NAME
    for path in folder.glob("*/*.metadata.json.gz"):
        path.write_bytes(b"damaged")
    bench.done("revert")
    require_as_before(bench.database)
    shutil.rmtree(folder)
    bench.done("discard")
    assert bench.waiting() == []


def test_room(bench: Bench, mongo_sets: MongoSets, tmp_path: Path) -> None:
    """A dump tells what it took on the disk. Nothing is asked when the server does not tell what is free."""
    told = bench.run("measure")
    assert told["changed"] is False
    assert told["space"]["needed"] > 0
    assert told["space"]["free"] is None
    assert bench.run("measure", check_space=False)["space"] is None
    bench.set_path = mongo_sets.of_files(_files(tmp_path, c__bson=TWICE), "source")
    assert bench.run("measure")["space"]["needed"] is None


def test_a_live_database_is_replaced_only_when_that_is_said(bench: Bench) -> None:
    bench.refused("restore", "Set force: true")
    owner = {"login_user": "app", "auth_source": APP}
    bench.refused("stage", "Grant the missing right to login_user", **owner)
    bench.refused("stage", "target 'admin' belongs to the server", target="admin")
    for action in ("stage", "discard"):
        bench.refused(action, "is the live database", target=bench.live, force=True)
    bench.refused("swap", "target is for action", target="x")
    bench.refused("swap", "Run action stage first")


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


def test_a_live_database_is_no_target(bench: Bench) -> None:
    """Also one that was restored itself, and has the record of that."""
    bench.done("restore", force=True)
    for action, words in (("stage", "exists already"), ("discard", "was not made by mongo_restore")):
        assert words in bench.run(action, target=bench.live, database=f"{bench.live}_other")["msg"]
    require_restored(bench.database)
    bench.done("revert")


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


def test_a_server_that_is_older_than_the_dumped_one_is_warned_of(bench: Bench, tmp_path: Path) -> None:
    assert not bench.run("stage", check=True).get("warnings")
    bench.set_path = copied(bench.set_path, tmp_path)
    retold(bench.set_path, lambda component: component.update(server_version="99.0.1"))
    told = bench.run("stage", check=True)["warnings"]
    assert "The backup is of MongoDB 99.0.1, and this server is older" in str(told)


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
        ({"a%24b__bson": TWICE}, "Could not create collection"),
        ({"system__js__bson": b"", "system__js__metadata__json": b"{}"}, "cannot rename system.js"),
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
    """Are restored. A server that loses the validator in a rename, as that of the tests does, is found out."""
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
    assert "Run action revert" in result["msg"]
    bench.done("revert")
    require_as_before(bench.database)


def test_documents_without_metadata(bench: Bench, mongo_sets: MongoSets, tmp_path: Path) -> None:
    """Are a collection without options and indexes; metadata without indexes is the same."""
    files = _files(tmp_path, bare__bson=TWICE, c__bson=TWICE, c__metadata__json=b'{"indexes":null}')
    bench.set_path = mongo_sets.of_files(files, "source")
    assert bench.done("restore", force=True)["counts"] == {"bare": 2, "c": 2}
    assert [one["name"] for one in bench.database.bare.list_indexes()] == ["_id_"]


def _kill(bench: Bench, action: str, word: bytes, nth: int) -> None:
    """Run, and kill it when it asks the server for the nth time for this."""
    with Wire(bench.server.port, word, nth) as wire:
        process = bench.module.start("mongo_restore", bench.options(action, login_port=wire.port))
        assert wire.reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()


# Three collections are live, and five are restored: the sixth rename is in the second half of a swap.
@pytest.mark.parametrize("nth", [1, 6])
def test_a_swap_that_was_killed(bench: Bench, tmp_path: Path, nth: int) -> None:
    """Nothing is lost, nothing else can be done. It is taken back; the next one is finished."""
    for then in ("revert", "swap"):
        bench.done("stage")
        _kill(bench, "swap", b"renameCollection", nth)
        for action in ("stage", "discard"):
            assert "was cut off" in bench.run(action)["msg"]
        dump = bench.server.options(database=bench.live, dest=str(tmp_path / "dump"))
        assert "was cut off" in bench.module("mongo_dump", dump)["msg"]
        bench.done(then)
        if then == "revert":
            require_as_before(bench.database)
            bench.done("discard")
            assert bench.waiting() == []
    require_restored(bench.database)
    bench.done("revert")
    require_as_before(bench.database)


@pytest.mark.parametrize("nth", [2, 7])
def test_a_revert_that_was_killed_is_finished(bench: Bench, nth: int) -> None:
    bench.done("restore", force=True)
    _kill(bench, "revert", b"renameCollection", nth)
    for action in ("stage", "swap", "discard"):
        assert bench.run(action).get("failed")
    bench.done("revert")
    require_as_before(bench.database)
    bench.done("discard")
    assert bench.waiting() == []


# Five collections are live, and three are brought back: the sixth rename is in the second half.
@pytest.mark.parametrize(("nth", "name"), [(3, "a?b"), (6, "orders")])
def test_what_somebody_makes_in_the_middle_of_a_revert(bench: Bench, nth: int, name: str) -> None:
    """Is kept beside what the revert has moved away under the same name."""
    bench.done("restore", force=True)
    _kill(bench, "revert", b"renameCollection", nth)
    bench.database.command("insert", name, documents=[{"_id": "in the way"}])
    bench.done("revert")
    require_as_before(bench.database)
    kept = f"{bench.prefix('reverted').removesuffix('.')}_2.{name}"
    assert first(bench.database, kept) == [{"_id": "in the way"}]


def test_a_swap_looks_first_whether_all_is_still_there(bench: Bench) -> None:
    bench.done("stage")
    bench.database.drop_collection(f"{bench.prefix('restore')}orders")
    result = bench.run("swap")
    assert "collection orders is missing" in result["differences"]
    require_as_before(bench.database)
    bench.done("discard")


def test_a_swap_that_is_not_what_was_restored_is_not_done(bench: Bench) -> None:
    """Also when it is asked for once more; it can be taken back."""
    bench.done("stage")
    _kill(bench, "swap", b"renameCollection", 8)
    bench.database[f"{bench.prefix('restore')}orders"].create_index("foreign")
    bench.database.orders.create_index("foreign")
    for _ in range(2):
        assert "index foreign_1 of orders is not in the backup" in bench.run("swap")["differences"]
    bench.done("revert")
    require_as_before(bench.database)


def test_a_view_that_is_there_under_both_names(bench: Bench) -> None:
    """Killed between making and dropping it."""
    bench.done("stage")
    _kill(bench, "swap", b"\x02drop\x00", 1)
    assert {"a/b", f"{bench.prefix('before')}a/b"} <= set(bench.database.list_collection_names())
    bench.done("swap")
    require_restored(bench.database)
    bench.done("revert")
    require_as_before(bench.database)


@pytest.mark.parametrize("nth", [2, 4])
def test_what_somebody_makes_in_the_middle_of_a_swap(bench: Bench, nth: int) -> None:
    """Is kept, whether the swap is taken back or finished: a program that comes back makes its collections anew."""
    for then in ("revert", "swap"):
        bench.done("stage")
        _kill(bench, "swap", b"renameCollection", nth)
        bench.database.orders.insert_one({"_id": "in the way"})
        bench.done(then)
        if then == "revert":
            require_as_before(bench.database)
            assert first(bench.database, f"{bench.prefix('reverted')}orders") == [{"_id": "in the way"}]
            bench.done("discard")
    require_restored(bench.database)
    kept = f"{bench.prefix('before').removesuffix('.')}_2.orders"
    assert first(bench.database, kept) == [{"_id": "in the way"}]
    bench.done("revert")
    require_as_before(bench.database)
    bench.done("discard", before=True)
    assert bench.waiting() == []


def test_another_restore_waits_for_one_that_was_cut_off(bench: Bench, mongo_sets: MongoSets) -> None:
    """And makes one final that was not."""
    other_set = mongo_sets.dump(database=bench.live, **bench.server.options())
    other = Bench(bench.module, bench.server, other_set, bench.live)
    bench.done("stage")
    other.done("stage")
    _kill(bench, "swap", b"renameCollection", 2)
    assert f"swap of set {bench.set_path.name} {NAME} in" in other.run("swap")["msg"]
    bench.done("swap")
    assert "make final the restore of" in other.done("swap")["actions"][0]
    require_as_before(bench.database)
    assert bench.run("revert")["changed"] is False
    other.done("revert")
    require_restored(bench.database)


def test_what_a_killed_stage_left_is_replaced(bench: Bench) -> None:
    _kill(bench, "stage", b"createIndexes", 1)
    assert bench.waiting("restore")
    assert "Run action stage first" in bench.run("swap")["msg"]
    assert "that an earlier restore has left" in bench.done("stage")["actions"][0]
    bench.done("swap")
    require_restored(bench.database)


def test_a_swap_that_loses_the_server_says_what_it_leaves(bench: Bench) -> None:
    with Wire(bench.server.port, b"renameCollection", 3, cut=True) as wire:
        result = bench.run("restore", force=True, login_port=wire.port)
    assert "the connection was lost" in result["msg"]
    assert "run action swap again, which goes on" in result["msg"]
    bench.done("restore", force=True)
    require_restored(bench.database)


def test_what_is_in_the_way_is_not_dropped(bench: Bench) -> None:
    precious = f"{bench.prefix('restore')}precious"
    bench.database[precious].insert_one({})
    assert "was not made by mongo_restore" in bench.run("stage")["msg"]
    assert "was not made by mongo_restore" in bench.run("discard")["msg"]
    target = f"{bench.live}_other"
    bench.server.client[target].precious.insert_one({})
    assert "was not made by mongo_restore" in bench.run("discard", target=target, force=True)["msg"]
    assert bench.database[precious].count_documents({}) == 1
    assert bench.server.client[target].precious.count_documents({}) == 1


def test_another_component(bench: Bench, tmp_path: Path) -> None:
    bench.refused("stage", "has no component 'absent'", component="absent")
    other = copied(bench.set_path, tmp_path)
    retold(other, lambda component: component.update(engine="postgres"))
    bench.refused("stage", "is of engine 'postgres'", set_path=str(other))
    bench.refused("stage", "is no folder of a backup set", set_path="/absent")
