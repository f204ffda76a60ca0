# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_dump by a mongodump of the server's image: stand-ins for both, on this machine's own Docker Engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.mongo import PASSWORD
from support.postgres_container import docker, need_image
from support.processes import require_in_no_command_line, wait_for

BASE = "mongo:8.2"
STANDIN = Path(__file__).resolve().parents[1] / "fixtures" / "mongodump-stand-in"
PROGRAM = '#!/bin/sh\nexec /opt/secantus/bin/python /usr/local/lib/mongodump-stand-in "$@"\n'
SERVER = "gw-mongo-dump"
FILL = """
import pymongo
client = pymongo.MongoClient("127.0.0.1", 27017, username="root", password=open("/dev/stdin").read())
client.innova_db.orders.insert_many([{"_id": number} for number in range(70)])
print("filled")
"""


def image(name: str, programs: Path, *changes: str) -> str:
    """An image of this name: the stand-in of the server, with that of mongodump."""
    made = docker("create", BASE)
    docker("cp", str(STANDIN), f"{made}:/usr/local/lib/mongodump-stand-in")
    docker("cp", str(programs / "mongodump"), f"{made}:/usr/local/bin/mongodump")
    docker("commit", *(word for change in changes for word in ("--change", change)), made, name)
    docker("rm", "--force", "--volumes", made)
    return name


def started(name: str, of: str) -> None:
    """A server that nobody outside of its container reaches."""
    docker("run", "--detach", "--name", name, "--network=none", "--env=MONGO_INITDB_ROOT_USERNAME=root",
           f"--env=MONGO_INITDB_ROOT_PASSWORD={PASSWORD}", of)  # fmt: skip
    python = ("exec", "--interactive", name, "/opt/secantus/bin/python", "-c", FILL)
    wait_for(lambda: "filled" in docker(*python, check=False, stdin=PASSWORD.encode()), "the server does not start")


@pytest.fixture(scope="module")
def servers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Containers by what mongodump does in their images."""
    need_image(root, BASE)
    programs = tmp_path_factory.mktemp("programs")
    (programs / "mongodump").write_text(PROGRAM)
    (programs / "mongodump").chmod(0o755)
    images = [image("gw-mongo-dump:works", programs), image("gw-mongo-dump:hangs", programs, "ENV MONGODUMP_DO=hang")]
    names = {"works": f"{SERVER}-works", "hangs": f"{SERVER}-hangs", "without": f"{SERVER}-without"}
    docker("rm", "--force", "--volumes", *names.values(), check=False)
    try:
        started(names["works"], images[0])
        docker("create", "--name", names["without"], BASE)
        docker("create", "--name", names["hangs"], images[1])
        yield names
    finally:
        docker("rm", "--force", "--volumes", *names.values(), check=False)
        docker("image", "rm", "--force", *images, check=False)


@pytest.fixture
def options(servers: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    return {
        "engine": "mongodump", "container": servers["works"], "login_user": "root", "login_password": PASSWORD,
        "database": "innova_db", "dest": str(tmp_path / "mongo"),
    }  # fmt: skip


def own_containers() -> str:
    return docker("ps", "--all", "--filter=name=groundwork-mongo_dump-", "--format={{.Names}}")


def test_it_dumps_a_server_that_the_host_cannot_reach(
    module: ModuleRunner, options: dict[str, Any], tmp_path: Path
) -> None:
    """The files are root's alone, and of the program's container nothing is left."""
    assert module("mongo_dump", options, check=True)["changed"] is True
    assert not (tmp_path / "mongo").exists()
    result = module("mongo_dump", options)
    assert result.get("changed") is True, result
    assert PASSWORD not in result["_printed"]
    assert result["component"]["counts"] == {"orders": 70}
    assert (result["engine"], result["component"]["server_version"]) == ("mongodump", "8.2.11")
    found = list((tmp_path / "mongo" / "innova_db").iterdir())
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in found} == {(0, 0o600)}
    assert own_containers() == ""


def test_a_wrong_password_leaves_nothing(module: ModuleRunner, options: dict[str, Any], tmp_path: Path) -> None:
    result = module("mongo_dump", {**options, "login_password": "wrong"})
    assert "refused the login of user 'root' with auth_source 'admin'" in result["msg"]
    assert list((tmp_path / "mongo").iterdir()) == []
    assert own_containers() == ""


def test_an_image_without_mongodump_is_told(
    module: ModuleRunner, options: dict[str, Any], servers: dict[str, str]
) -> None:
    result = module("mongo_dump", {**options, "container": servers["without"]})
    assert "There is no usable mongodump in the image of the container" in result["msg"]


def test_the_container_of_the_program_ends_with_the_module(
    module: ModuleRunner, options: dict[str, Any], servers: dict[str, str], tmp_path: Path
) -> None:
    """Also with one that is killed; no argument and no inspection of it shows the password."""
    docker("start", servers["hangs"])
    process = module.start("mongo_dump", {**options, "container": servers["hangs"]})
    name = wait_for(own_containers, "no container of the program")
    require_in_no_command_line(PASSWORD, process)
    assert PASSWORD not in docker("inspect", name)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: own_containers() == "", "the container goes on")
    assert module("mongo_dump", options)["changed"] is True
    assert [path.name for path in (tmp_path / "mongo").iterdir()] == ["innova_db"]
