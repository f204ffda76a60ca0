# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_dump with engine mongodump: a stand-in for the program (tests/fixtures/mongodump-stand-in), real dumps of the
real program, and a real server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.mongo import APP, PASSWORD, MongoServer
from support.mongo_dumps import MONGODUMP
from support.mongo_sets import NAME, MongoSets
from support.postgres import free_port
from support.processes import environments, require_in_no_command_line, wait_for

STANDIN = MONGODUMP.with_name("mongodump-stand-in")
Dump = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def shop(mongo: MongoServer) -> Iterator[Any]:
    database = mongo.client[APP]
    database.orders.insert_many([{"_id": number, "n": number} for number in range(300)])
    database.orders.create_index([("n", -1)], name="n_down", unique=True)
    database["a/b"].insert_one({"_id": 1})
    database["l" * 245].insert_one({"_id": 1})
    database.create_collection("empty")
    database.create_collection("recent", viewOn="orders", pipeline=[])
    yield database
    mongo.client.drop_database(APP)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the stand-in is the mongodump on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "mongodump"
    program.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(STANDIN)!r}, run_name='__main__')\n")
    program.chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.fixture
def dump(module: ModuleRunner, mongo: MongoServer, shop: Any, env: dict[str, str], tmp_path: Path) -> Dump:
    """dump(database=…, …) runs the module; the dump is in tmp_path / "mongo". more_env goes to the program."""

    def run(*, check: bool = False, more_env: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        own = {"database": APP, "dest": str(tmp_path / "mongo"), "engine": "mongodump"}
        given = {**mongo.options(), **own, **options}
        given = {name: value for name, value in given.items() if value is not None}
        result = module("mongo_dump", given, check=check, env={**env, **(more_env or {})})
        assert PASSWORD not in result["_printed"]
        return result

    return run


@pytest.fixture
def start(module: ModuleRunner, mongo: MongoServer, shop: Any, env: dict[str, str], tmp_path: Path) -> Any:
    """start(NAME=…) starts the same without waiting for its end; the names are variables of the program."""
    options = {**mongo.options(), "database": APP, "dest": str(tmp_path / "mongo"), "engine": "mongodump"}
    return lambda **more: module.start("mongo_dump", options, env={**env, **more})


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result["component"].items() if key not in ("started_at", "seconds")}


@pytest.mark.parametrize("gzip", [True, False])
def test_the_same_component_as_by_the_driver(dump: Dump, tmp_path: Path, gzip: bool) -> None:
    """But for the bytes of compression and definitions, what is known of the disk, and that it is not of one moment."""
    by_program = dump(gzip=gzip)
    assert by_program["engine"] == "mongodump", by_program
    by_driver = dump(gzip=gzip, engine="auto", dest=str(tmp_path / "other"))
    assert by_driver["engine"] == "driver"
    one, other = without_time(by_program), without_time(by_driver)
    assert [file["name"] for file in one.pop("files")] == [file["name"] for file in other.pop("files")]
    assert (one.pop("consistent"), other.pop("consistent")) == (False, True)
    assert one.pop("database_bytes") is None
    assert other.pop("database_bytes") > 0
    assert one == other
    assert "mongodump dumps each collection as it is when its turn comes" in str(by_program["warnings"])
    for path in (tmp_path / "mongo" / APP).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        if path.suffix == ".bson":
            assert path.read_bytes() == (tmp_path / "other" / APP / path.name).read_bytes()


def test_it_is_restored(
    module: ModuleRunner, mongo: MongoServer, shop: Any, env: dict[str, str], tmp_path: Path
) -> None:
    """As a component of a set, into a target, where counts and indexes are compared."""
    sets = MongoSets(lambda *given, **more: module(*given, **more, env=env), tmp_path / "sets")  # type: ignore[arg-type] # only called
    path = sets.dump(database=APP, engine="mongodump", **mongo.options())
    own = {"action": "stage", "set_path": str(path), "component": NAME, "database": APP, "target": "drilled"}
    result = module("mongo_restore", {**mongo.options(), **own})
    assert result["counts"] == {"orders": 300, "a/b": 1, "l" * 245: 1, "empty": 0}
    assert "n_down" in mongo.client.drilled.orders.index_information()
    mongo.client.drop_database("drilled")


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_what_the_real_mongodump_wrote_is_read_without_pymongo(dump: Dump, tmp_path: Path, kind: str) -> None:
    """By engine auto, on a host that has no pymongo."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("pymongo", "bson"):
        (hidden / f"{name}.py").write_text("raise ImportError('not on this host')\n")
    copied = {"MONGODUMP_COPY": str(MONGODUMP / kind / "fixture_db"), "PYTHONPATH": str(hidden)}
    result = dump(database="fixture_db", engine="auto", gzip=kind == "gzip", more_env=copied)
    assert result.get("changed") is True, result
    component = result["component"]
    assert result["engine"] == "mongodump"
    assert component["counts"]["every_type"] == 50
    assert component["counts"]["x" * 240] >= 0
    assert sum(component["counts"].values()) == 97
    assert component["views"] == ["only_small"]
    assert component["server_version"] == "8.2.11"
    assert len(component["files"]) == len(list((MONGODUMP / kind / "fixture_db").iterdir()))
    nothing = {**copied, "PATH": "/usr/bin:/bin"}
    without = dump(database="fixture_db", engine="auto", dest=str(tmp_path / "other"), more_env=nothing)
    assert "Neither the Python library pymongo nor a usable mongodump was found" in without["msg"]


def test_check_mode_looks_for_program_and_server(dump: Dump, tmp_path: Path) -> None:
    result = dump(check=True)
    assert result["changed"] is True
    assert "files" not in result["component"]
    assert not (tmp_path / "mongo").exists()
    assert "connection refused" in dump(check=True, login_port=free_port())["msg"]


@pytest.mark.parametrize(
    ("options", "more_env", "words"),
    [
        ({"login_password": "wrong"}, {}, "refused the login of user 'root' with auth_source 'admin'"),
        ({"auth_source": APP}, {}, f"refused the login of user 'root' with auth_source '{APP}'"),
        ({"login_port": free_port()}, {}, "connection refused"),
        ({"snapshot": "required"}, {}, "mongodump cannot show all collections of one database as they were"),
        ({"database": "nothing_here"}, {}, "There is no database 'nothing_here'"),
        ({"container": "no-such-container"}, {}, "no-such-container"),
        ({}, {"PATH": "/usr/bin:/bin"}, "mongodump was not found on PATH"),
        ({}, {"MONGODUMP_VERSION": "4.2.1"}, "mongodump 100.3 or newer is needed"),
        ({}, {"MONGODUMP_DO": "die"}, "it was ended by signal 9"),
        ({"gzip": False}, {"MONGODUMP_DO": "cut"}, "mongodump said that all went well, and: "),
        ({}, {"MONGODUMP_DO": "lose"}, "was not written"),
        ({}, {"MONGODUMP_DO": "full"}, "were free when the dump began"),
        ({}, {"MONGODUMP_DO": "fail"}, "it ended with 1: 2026-01-01T00:00:00.000+0000\twriting x to y"),
    ],
)
def test_a_failure_is_told_and_leaves_nothing(
    dump: Dump, tmp_path: Path, options: dict[str, Any], more_env: dict[str, str], words: str
) -> None:
    result = dump(**options, more_env=more_env)
    assert result.get("failed"), result
    assert words in result["msg"]
    assert not list(tmp_path.glob("mongo/*"))


def test_a_database_without_collections(dump: Dump) -> None:
    (file,) = dump(database="nothing_here", allow_empty=True)["component"]["files"]
    assert file["name"] == "nothing_here/prelude.json.gz"


def test_a_connection_string_goes_to_the_program_and_nowhere_else(dump: Dump, mongo: MongoServer) -> None:
    """Nor does a password that the program quotes."""
    uri = f"mongodb://app:{PASSWORD}@127.0.0.1:{mongo.port}/?authSource={APP}&directConnection=true"
    none = dict.fromkeys(mongo.options())
    failed = dump(**none, login_uri=uri, more_env={"MONGODUMP_DO": "fail", "MONGODUMP_QUOTE": f"app:{PASSWORD}@"})
    assert "uri app:********@ was not understood" in failed["msg"]
    assert dump(**none, login_uri=uri)["component"]["counts"]["orders"] == 300


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_program_ends_with_the_module(
    start: Callable[..., Any], dump: Dump, tmp_path: Path, ending: signal.Signals
) -> None:
    """Meanwhile no process list has the password; afterwards no process is left, and nothing that looks like a dump."""
    told = tmp_path / "pid"
    process = start(MONGODUMP_DO="hang", MONGODUMP_PID=str(told))
    wait_for(lambda: told.exists() and told.read_text() != "", "the program was not started")
    require_in_no_command_line(PASSWORD, process)
    assert not [line for line in environments().values() if PASSWORD in line]
    process.send_signal(ending)
    process.communicate(timeout=60)
    wait_for(lambda: not Path(f"/proc/{told.read_text()}").exists(), "the program goes on")
    left = [path.name for path in (tmp_path / "mongo").iterdir()]
    assert all(name.startswith(".dump.") for name in left)
    assert bool(left) == (ending == signal.SIGKILL)
    assert dump()["changed"] is True
    assert [path.name for path in (tmp_path / "mongo").iterdir()] == [APP]


def test_a_restore_that_was_cut_off_is_not_dumped(dump: Dump, shop: Any, tmp_path: Path) -> None:
    """What a restore keeps, and its record, are no part of a dump; one between old and new is refused."""
    record = {"_id": "20260101T000000Z mongo", "state": "live", "counts": [], "aside": [], "before": 1, "reverted": 1}
    shop["groundwork.restore"].insert_one(record)
    shop["groundwork.before.20260101t000000z.orders"].insert_one({})
    try:
        component = dump()["component"]
        assert not any("groundwork" in file["name"] for file in component["files"])
        assert not any("groundwork" in name for name in component["counts"])
        shop["groundwork.restore"].update_one({}, {"$set": {"state": "placing"}})
        refused = dump(dest=str(tmp_path / "again"))
        assert "A restore of set 20260101T000000Z mongo into 'innova_db' was cut off" in refused["msg"]
    finally:
        shop["groundwork.restore"].drop()
        shop["groundwork.before.20260101t000000z.orders"].drop()
