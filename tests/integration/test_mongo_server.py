# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_server against the test bed's stand-in for mongod, which takes an administrator's commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from support.modules import ModuleRunner
from support.mongo import PASSWORD, run_mongod
from support.postgres import free_port

NEW = "canary-new-3c"


class Bench:
    """A storage with the user root, and the module against servers on it."""

    def __init__(self, module: ModuleRunner, folder: Path) -> None:
        self.module, self.storage, self.port = module, folder, free_port()
        with run_mongod(folder, self.port, version="8.0.12"), self.client() as client:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])

    def client(self, **login: Any) -> Any:
        options = {"serverSelectionTimeoutMS": 20000, "directConnection": True, **login}
        return pymongo.MongoClient("127.0.0.1", self.port, **options)

    @contextmanager
    def running(self, *options: str, version: str = "8.0.12") -> Iterator[None]:
        """A server that wants a login."""
        with run_mongod(self.storage, self.port, "--auth", *options, version=version):
            with self.client() as client:
                client.admin.command("ping")
            yield

    def __call__(self, check: bool = False, **options: Any) -> dict[str, Any]:
        login = {"login_user": "root", "login_password": PASSWORD, "login_port": self.port}
        result = self.module("mongo_server", {**login, **options}, check=check)
        assert not [secret for secret in (NEW, PASSWORD) if secret in result["_printed"]]
        return result


@pytest.fixture
def server(module: ModuleRunner, tmp_path: Path) -> Bench:
    """The storage of a server 8.0."""
    return Bench(module, tmp_path)


def test_a_replica_set_is_made_once(server: Bench) -> None:
    with server.running("--replSet", "rs0"):
        foretold = server(check=True, replica_set="rs0")
        assert foretold["actions"] == [f"make the replica set rs0 with the member 127.0.0.1:{server.port}"]
        assert foretold["replica_set"] is None
        made = server(replica_set="rs0")
        assert made["actions"] == foretold["actions"]
        assert made["diff"] == foretold["diff"]
        assert (made["diff"]["before"]["replica_set"], made["diff"]["after"]["replica_set"]) == (None, "rs0")
        with server.client(username="root", password=PASSWORD) as client:
            (member,) = client.admin.command("replSetGetStatus")["members"]
            assert (member["name"], member["stateStr"]) == (f"127.0.0.1:{server.port}", "PRIMARY")
        assert [server(check=check, replica_set="rs0")["changed"] for check in (True, False)] == [False, False]
        assert "is in the replica set 'rs0', and not in 'rs1'" in server(replica_set="rs1")["msg"]


def test_a_server_without_a_replica_set(server: Bench) -> None:
    with server.running():
        told = server()
        assert (told["changed"], told["version"], told["feature_compatibility_version"]) == (False, "8.0.12", "8.0")
        assert told["replica_set"] is None
        assert "was not started for a replica set. Start it with --replSet rs0" in server(replica_set="rs0")["msg"]


def test_the_password_changes_once(server: Bench) -> None:
    new = {"login_password": NEW, "login_password_before": PASSWORD}
    with server.running(), server.client(username="root", password=PASSWORD) as open_one:
        open_one.admin.command("listDatabases")
        assert server(check=True, **new)["actions"] == ["set the password of root@admin"]
        assert server()["changed"] is False
        assert server(**new)["changed"] is True
        open_one.admin.command("listDatabases")
        assert server(**new)["changed"] is False
        assert server(login_password=NEW)["changed"] is False
        assert "refused the login" in server(login_password=PASSWORD, login_password_before="neither")["msg"]


def test_the_version_of_the_data_only_goes_up(server: Bench) -> None:
    with server.running(version="8.2.3"):
        told = server()
        assert (told["version"], told["feature_compatibility_version"]) == ("8.2.3", "8.0")
        assert "is 8.3, and the server is MongoDB 8.2.3" in server(feature_compatibility_version="8.3")["msg"]
        wanted = {"feature_compatibility_version": "8.2"}
        foretold = server(check=True, **wanted)
        assert foretold["actions"] == ["set the feature compatibility version to 8.2, from 8.0"]
        assert server()["feature_compatibility_version"] == "8.0"
        assert server(**wanted)["actions"] == foretold["actions"]
        assert server(**wanted)["changed"] is False
        assert "There is no way back" in server(feature_compatibility_version="8.0")["msg"]
