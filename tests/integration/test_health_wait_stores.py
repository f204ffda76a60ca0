# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait against a real Redis, and a real server that speaks MongoDB's wire protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from support.modules import ModuleRunner
from support.mongo import run_server
from support.postgres import free_port

CANARY = "canary-9f-password"
IMAGE = "redis:7-alpine"
Wait = Callable[..., dict[str, Any]]


@pytest.fixture
def wait(module: ModuleRunner) -> Wait:
    """wait({"kind": "redis", …}, …) runs the module."""

    def run(*checks: dict[str, Any], timeout: float = 0.5, check: bool = False, **options: Any) -> dict[str, Any]:
        filled = [{"name": f"c{position}", **given} for position, given in enumerate(checks, 1)]
        result = module("health_wait", {"timeout": timeout, "checks": filled}, check=check, **options)
        assert CANARY not in result["_printed"]
        return result

    return run


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def redis() -> Iterator[tuple[str, int]]:
    """Container and port of a server with a password, which loads its data set slowly."""
    there = (
        shutil.which("docker")
        and not subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode
    )
    if not there:
        told = f"no image {IMAGE} (python3 tests/testbed up {IMAGE})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    name, port = f"gw-health-redis-{uuid.uuid4().hex[:8]}", free_port()
    settings = ("--requirepass", CANARY, "--enable-debug-command", "yes", "--key-load-delay", "1000",
                "--loading-process-events-interval-bytes", "1024")  # fmt: skip
    network = ("--network=groundwork-testbed", "-p", f"127.0.0.1:{port}:6379")
    _docker("run", "--detach", "--name", name, *network, IMAGE, "redis-server", *settings)
    yield name, port
    _docker("rm", "--force", "--volumes", name)


def test_redis(wait: Wait, redis: tuple[str, int]) -> None:
    """PONG with the password; without it, or with another one, the server's words; a data set that loads is not up."""
    name, port = redis
    good = {"kind": "redis", "port": port, "password": CANARY}
    for check in (False, True):
        result = wait(good, {**good, "username": "default"}, timeout=20, check=check)
        assert not result.get("failed"), result["msg"]
        assert result["checks"]["c1"]["status"] == "PONG"
    result = wait({"kind": "redis", "port": port}, {**good, "password": "wrong"}, {**good, "port": free_port()})
    told = [one["last_error"] for one in result["checks"].values()]
    assert "refused PING: NOAUTH" in told[0]
    assert "refused AUTH: WRONGPASS" in told[1]
    assert "connection refused" in told[2]
    result = wait({**good, "password": "wrong", "fail_fast": True}, timeout=60)
    assert result["checks"]["c1"]["state"] == "failed"

    cli = ("exec", "--env", f"REDISCLI_AUTH={CANARY}", name, "redis-cli")
    _docker(*cli, "debug", "populate", "5000")
    _docker(*cli, "save")
    _docker("restart", name)
    deadline = time.monotonic() + 20
    while (result := wait(good, timeout=0.3))["checks"]["c1"]["status"] != "loading":
        assert time.monotonic() < deadline, result
        assert result.get("failed"), "the data set was loaded before the first look"
    assert "is loading its data set" in result["msg"]
    result = wait(good, timeout=60)
    assert not result.get("failed"), result["msg"]


def test_what_listens_is_not_redis(wait: Wait) -> None:
    """Told in words."""
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/var/empty" if Path("/var/empty").is_dir() else "/",
    ) as server:
        try:
            wait({"kind": "tcp", "port": port}, timeout=20)
            result = wait({"kind": "redis", "port": port}, timeout=2)
        finally:
            server.terminate()
    assert "does not speak Redis's protocol" in result["msg"] or "closed the connection" in result["msg"]


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with authentication, a one-member replica set."""
    storage, port = tmp_path_factory.mktemp("mongo"), free_port()
    with run_server(storage, port), pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=20000) as client:
        role = [{"role": "dbOwner", "db": "innova"}]
        client.innova.command("createUser", "app", pwd=CANARY, roles=role)
    with run_server(storage, port, "--auth"):
        yield port


def test_mongo(wait: Wait, mongo: int) -> None:
    """The ping with a user; a wrong password and another replica set are told."""
    good = {"kind": "mongo", "login_port": mongo, "login_user": "app", "login_password": CANARY, "database": "innova"}
    member = {"replica_set": "secantus", "member_state": "primary"}
    for check in (False, True):
        result = wait(good, {**good, **member}, timeout=30, check=check)
        assert not result.get("failed"), result["msg"]
        assert result["checks"]["c2"]["status"] == "primary"
    result = wait(
        {**good, "login_password": "wrong"},
        {**good, "database": "other"},
        {**good, "replica_set": "rs0"},
        {**good, "member_state": "secondary"},
        {**good, "login_port": free_port()},
        {**good, "tls": True, "attempt_timeout": 1},
        timeout=3,
    )
    told = [one["last_error"] for one in result["checks"].values()]
    assert "refused the login of user 'app' (database 'innova')" in told[0]
    assert "refused the login of user 'app' (database 'other')" in told[1]
    assert "is in the replica set 'secantus', expected 'rs0'" in told[2]
    assert "is primary, expected secondary" in told[3]
    assert "connection refused" in told[4]
    assert told[5]
    result = wait({**good, "login_password": "wrong", "fail_fast": True}, timeout=60)
    assert result["checks"]["c1"]["state"] == "failed"


def test_pymongo_is_missing(wait: Wait, tmp_path: Path) -> None:
    """Told before any waiting, with Debian's package."""
    (tmp_path / "pymongo.py").write_text("raise ImportError")
    result = wait({"kind": "mongo"}, timeout=60, env={"PYTHONPATH": str(tmp_path)})
    assert result["msg"].startswith("The Python library pymongo is needed")
    assert "python3-pymongo" in result["msg"]
