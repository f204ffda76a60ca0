# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The modules for MongoDB on Debian 12, whose driver is the oldest that they work with."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson.binary import Binary
from groundwork_testbed.constants import GATEWAY
from support.docker_host import DockerHost, fresh_host
from support.mongo import PASSWORD, MongoServer, replica_set
from support.mongo_dumps import MONGODUMP, differences
from support.mongo_sets import NAME, MongoSets
from support.scenario import Playbook

FIXTURE = MONGODUMP / "plain" / "fixture_db"
DRIVER = {"name": "groundwork.backend.backup", "tasks_from": "mongo"}
SETS = "/root/sets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A replica set of one member on this machine that the host reaches."""
    with replica_set(tmp_path_factory.mktemp("mongo-debian12"), host=GATEWAY) as one:
        yield one


@pytest.fixture(scope="module")
def host(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """Debian 12, with the driver that role backup installs."""
    folder = tmp_path_factory.mktemp("debian12-mongo")
    with fresh_host(root, {"mongo-debian12": "198.18.0.118"}, folder, "debian12") as one:
        one.sh("apt-get -q update")  # which role host does in site.yml
        task = {"name": "Install what is needed", "ansible.builtin.include_role": DRIVER}
        play = folder / "driver.yml"
        play.write_text(json.dumps([{"hosts": one.name, "become": True, "gather_facts": False, "tasks": [task]}]))
        run = Playbook(folder, one.inventory)(str(play))
        assert run.rc == 0, run.output
        assert one.sh("python3 -c 'import pymongo; print(pymongo.version)'").startswith("3.11.")
        yield one


def test_a_dump_of_mongodump_is_restored_and_dumped_again(
    host: DockerHost, server: MongoServer, mongo_sets: MongoSets, tmp_path: Path
) -> None:
    """The same bytes, and the same metadata but for the uuid."""
    given = _sent(host, mongo_sets.of_files(FIXTURE, "fixture_db"))
    options = {"set_path": given, "component": NAME, "database": "fixture_db", "target": "tried"}
    tried = _done(host, "mongo_restore", action="stage", **options, **server.options())
    assert sum(tried["counts"].values()) == 97
    server.client.tried.drop_collection("groundwork.restore")  # what tells that it was restored
    assert differences(FIXTURE, _dumped(host, server, "tried", tmp_path)) == []


def test_what_is_live_is_replaced_and_comes_back(
    host: DockerHost, server: MongoServer, mongo_sets: MongoSets, tmp_path: Path
) -> None:
    live = server.client.live
    owner = Binary.from_uuid(uuid.UUID(int=7))
    live.orders.insert_many([{"_id": Binary.from_uuid(uuid.UUID(int=number)), "n": number} for number in range(300)])
    live.orders.create_index("n", name="half", partialFilterExpression={"by": owner})
    path = _sent(host, mongo_sets.of_files(_dumped(host, server, "live", tmp_path), "live"))
    live.orders.drop()
    live.orders.insert_one({"_id": "since"})
    options = {"set_path": path, "component": NAME, "database": "live", **server.options()}
    _done(host, "mongo_restore", action="restore", force=True, **options)
    assert live.orders.count_documents({}) == 300
    assert live.orders.index_information()["half"]["partialFilterExpression"] == {"by": owner}
    _done(host, "mongo_restore", action="revert", **options)
    assert list(live.orders.find()) == [{"_id": "since"}]


def _dumped(host: DockerHost, server: MongoServer, database: str, into: Path) -> Path:
    """Dump a database on the host; a copy of the files."""
    dest = f"{SETS}/dumped-{database}"
    dumped = _done(host, "mongo_dump", **server.options(database=database, dest=dest, gzip=False, jobs=2))
    assert dumped["component"]["consistent"] is True
    packed = base64.b64decode(host.sh(f"tar -czC {dest} {database} | base64"))
    subprocess.run(["tar", "-xzC", into], input=packed, check=True)
    return into / database


def _sent(host: DockerHost, folder: Path) -> str:
    """The path of a copy of the set on the host."""
    argv = ["tar", "-czC", str(folder.parent), folder.name]
    packed = base64.encodebytes(subprocess.run(argv, check=True, capture_output=True).stdout).decode()
    host.sh(f"mkdir -p {SETS}; base64 -d <<'END' | tar -xzC {SETS}\n{packed}END\n")
    return f"{SETS}/{folder.name}"


def _done(host: DockerHost, name: str, **options: Any) -> dict[str, Any]:
    """Run a module on the host, and require that it changed something and that no password was printed."""
    result = host.module(name, options)
    assert result.get("changed") is True, result["msg"]
    assert PASSWORD not in result["_printed"]
    return result
