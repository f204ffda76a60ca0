# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_dump against a real server that speaks MongoDB's wire protocol."""

from __future__ import annotations

import gzip
import hashlib
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from support.modules import ModuleRunner
from support.mongo import APP, PASSWORD, MongoServer, Wire
from support.postgres import free_port
from support.processes import wait_for

Dump = Callable[..., dict[str, Any]]
LONG = "l" * 245  # with the database, the longest that servers allow
COLLECTIONS = {"orders": 500, "a/b": 1, "a?b": 1, "with space": 1, LONG: 1, "system.js": 1, "empty": 0, "log": 3}
LARGE = bson.encode({"_id": 1, "text": "x" * ((16 << 20) - 30)})
SMALL = bson.encode({"_id": 2, "text": "to be spoiled"})
VALID, INVALID = b"to be spoiled", b"to be \xff\xfeoiled"  # the server would not take the second one


@pytest.fixture(scope="module")
def shop(mongo: MongoServer) -> Iterator[Any]:
    """A database with all that a name, a document and a definition can be."""
    database = mongo.client[APP]
    database.create_collection("log", capped=True, size=65536, max=100)
    database.create_collection("empty")
    for name, count in COLLECTIONS.items():
        if count:  # by the command, because the driver's methods refuse some of these names
            database.command("insert", name, documents=[{"_id": number, "n": number} for number in range(count)])
    database.orders.create_index([("n", -1), ("a", 1)], name="n_a", unique=True)
    database.create_collection("recent", viewOn="orders", pipeline=[{"$match": {"n": {"$gt": 490}}}])
    database.create_collection("dangling", viewOn="nothing here", pipeline=[])
    database.command("insert", "raw", documents=[RawBSONDocument(LARGE)])
    database.raw.insert_one({"_id": 2, "text": VALID.decode()})
    yield database
    mongo.client.drop_database(APP)


@pytest.fixture
def dump(module: ModuleRunner, mongo: MongoServer, shop: Any, tmp_path: Path) -> Dump:
    """dump(database=…, …) runs the module against the server; the dump is in tmp_path / "mongo"."""

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"database": APP, "dest": str(tmp_path / "mongo"), **mongo.options(), **options}
        result = module("mongo_dump", {name: value for name, value in given.items() if value is not None}, check=check)
        assert PASSWORD not in result["_printed"]
        return result

    return run


def test_dump(dump: Dump, tmp_path: Path) -> None:
    """Counts, files, checksums and modes are what the component says; check mode foretells the names."""
    foretold = dump(check=True)
    assert foretold["changed"] is True, foretold
    assert not (tmp_path / "mongo").exists()
    result = dump(snapshot="required", users=True)
    assert result["changed"] is True, result
    component = result["component"]
    assert component["counts"] == {**COLLECTIONS, "raw": 2}
    assert component["views"] == ["dangling", "recent"]
    assert component["consistent"] is True
    assert component["compression"] == "gzip"
    folder = tmp_path / "mongo"
    names = [file["name"] for file in component["files"]]
    users = [name for name in names if "/$admin.system." in name]
    assert [one["name"] for one in foretold["component"]["files"]] == sorted(set(names) - set(users))
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == names
    for file in component["files"]:
        path = folder / file["name"]
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        assert path.stat().st_mode & 0o777 == 0o600
    assert (folder / APP).stat().st_mode & 0o777 == 0o700
    raw = gzip.decompress((folder / APP / "raw.bson.gz").read_bytes())
    assert raw == LARGE + SMALL
    (user,) = bson.decode_all(gzip.decompress((folder / APP / "$admin.system.users.bson.gz").read_bytes()))
    assert (user["_id"], user["user"], user["db"]) == (f"{APP}.app", "app", APP)
    assert "SCRAM-SHA-256" in user["credentials"]
    assert user["roles"] == [{"role": "dbOwner", "db": APP}]


def test_what_no_restore_can_put_in_the_place_of_what_is_live_is_told(dump: Dump, mongo: MongoServer) -> None:
    told = str(dump(check=True)["warnings"])
    assert "MongoDB cannot rename system.js" in told
    assert "restore it with mongorestore" in told
    mongo.client.plain.orders.insert_one({})
    try:
        assert not dump(database="plain", check=True).get("warnings")
    finally:
        mongo.client.drop_database("plain")


def test_the_owner_of_the_database_can_dump_it(dump: Dump, tmp_path: Path) -> None:
    """One that is known in that database alone; not compressed, one collection at a time."""
    login = {"login_user": "app", "auth_source": APP}
    result = dump(**login, gzip=False, jobs=1, users=True)
    assert result.get("changed") is True, result
    assert (tmp_path / "mongo" / APP / "raw.bson").read_bytes() == LARGE + SMALL
    assert len(bson.decode_all((tmp_path / "mongo" / APP / "orders.bson").read_bytes())) == COLLECTIONS["orders"]
    result = dump(**login)
    assert f"{tmp_path}/mongo/{APP} exists already" in result["msg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"login_password": "wrong"}, "refused the login of user 'root' with auth_source 'admin'"),
        ({"auth_source": APP}, f"refused the login of user 'root' with auth_source '{APP}'"),
        ({"login_user": None, "login_password": None}, "Could not"),
        ({"login_port": free_port()}, "connection refused"),
        ({"login_host": "no-such-host.invalid"}, "host name is unknown"),
        ({"ca_cert": "/absent.pem"}, "ca_cert needs TLS"),
        ({"database": "nothing_here"}, "There is no database 'nothing_here'"),
        ({"database": "admin"}, "belongs to the server itself"),
        ({"jobs": 0}, "jobs is 0"),
        ({"name": "../x"}, "cannot name a folder"),
        ({"dest": "/nowhere/at/all"}, "Could not create /nowhere/at/all"),
    ],
)
def test_what_cannot_be_dumped_is_told(dump: Dump, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    result = dump(**options)
    assert result.get("failed"), result
    assert words in result["msg"]
    assert not list(tmp_path.glob("mongo/*"))


def test_a_connection_string(module: ModuleRunner, mongo: MongoServer, shop: Any, tmp_path: Path) -> None:
    """In place of the options; a wrong one is not printed."""
    given = {"database": APP, "dest": str(tmp_path / "mongo")}
    uri = f"mongodb://app:{PASSWORD}@127.0.0.1:{mongo.port}/?authSource={APP}&directConnection=true"
    assert module("mongo_dump", {**given, "login_uri": uri}, check=True)["changed"] is True
    for wrong, words in (
        (f"mongo:{PASSWORD}", "is no connection string"),
        (uri.replace("/?", "x/?"), "is no connection string"),
    ):
        result = module("mongo_dump", {**given, "login_uri": wrong}, check=True)
        assert result.get("failed")
        assert words in result["msg"]
        assert PASSWORD not in result["_printed"]


def test_a_database_without_collections(dump: Dump, tmp_path: Path) -> None:
    """Only when that is said; it leaves a dump that says so."""
    result = dump(database="nothing_here", allow_empty=True, gzip=False)
    assert result["component"]["counts"] == {}
    assert [file["name"] for file in result["component"]["files"]] == ["nothing_here/prelude.json"]


def test_a_standalone_server(module: ModuleRunner, mongo_standalone: MongoServer, tmp_path: Path) -> None:
    """Is dumped with a warning, and says that the dump is not of one moment; not when that is required."""
    mongo_standalone.client.alone.things.insert_many([{"n": number} for number in range(30)])
    options = mongo_standalone.options(database="alone", dest=str(tmp_path / "mongo"))
    result = module("mongo_dump", {**options, "snapshot": "required"})
    assert "standalone server, which cannot show all collections as they were at one moment" in result["msg"]
    result = module("mongo_dump", options)
    assert result.get("changed") is True, result
    assert result["component"]["consistent"] is False
    assert result["component"]["counts"] == {"things": 30}
    assert "standalone server" in str(result["warnings"])


def test_a_collection_that_goes_while_others_are_dumped(
    module: ModuleRunner, mongo_standalone: MongoServer, tmp_path: Path
) -> None:
    """Is no empty one: a standalone server shows nothing of it any more."""
    database = mongo_standalone.client.going
    database.a_large_one.insert_many([{"data": random.Random(number).randbytes(1 << 20)} for number in range(40)])
    database.last.insert_one({})
    options = mongo_standalone.options(database="going", dest=str(tmp_path / "mongo"), jobs=1)
    process = module.start("mongo_dump", options)
    wait_for(lambda: [*tmp_path.rglob(".a_large_one*")], "the dump of the first collection", every=0.005)
    database.last.drop()
    told, _ = process.communicate(timeout=60)
    assert "last of 'going' was dropped, renamed or made anew while it was dumped." in told
    assert list((tmp_path / "mongo").iterdir()) == []
    mongo_standalone.client.drop_database("going")


def test_invalid_utf8_is_dumped_as_it_is(dump: Dump, mongo: MongoServer, tmp_path: Path) -> None:
    """MongoDB stores what its clients send. The server of the tests does not, so it is spoiled on the way."""
    with Wire(mongo.port, b"no such command", spoil=(VALID, INVALID)) as wire:
        assert dump(login_port=wire.port, gzip=False).get("changed") is True
    raw = (tmp_path / "mongo" / APP / "raw.bson").read_bytes()
    assert raw == LARGE + SMALL.replace(VALID, INVALID)


def test_a_lost_connection_leaves_nothing(dump: Dump, mongo: MongoServer, tmp_path: Path) -> None:
    with Wire(mongo.port, b"getMore", cut=True) as wire:
        result = dump(login_port=wire.port)
    assert "the connection was lost" in result["msg"]
    assert list((tmp_path / "mongo").iterdir()) == []


def test_what_a_killed_run_left_is_removed(
    module: ModuleRunner, dump: Dump, mongo: MongoServer, tmp_path: Path
) -> None:
    """Killed in the middle, it leaves no dump; the next one cleans up. While one runs, another is refused."""
    options = {"database": APP, "dest": str(tmp_path / "mongo"), **mongo.options()}
    with Wire(mongo.port, b"getMore") as wire:
        process = module.start("mongo_dump", {**options, "login_port": wire.port})
        assert wire.reached.wait(60)
        assert "Another backup is writing" in dump()["msg"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = (tmp_path / "mongo").iterdir()
    assert left.name.startswith(".dump.")
    assert list(left.iterdir())
    assert dump()["changed"] is True
    assert [path.name for path in (tmp_path / "mongo").iterdir()] == [APP]
