# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait against real PostgreSQL servers, and against one whose image is still initialising."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.postgres import PostgresServer, free_port

CANARY = "canary-9f-password"
IMAGE = "pgvector/pgvector:pg16"
Wait = Callable[..., dict[str, Any]]


@pytest.fixture
def wait(module: ModuleRunner) -> Wait:
    """wait({"database": …}, …) runs the module; the kind is postgres unless told."""

    def run(*checks: dict[str, Any], timeout: float = 0.6, **options: Any) -> dict[str, Any]:
        filled = [{"kind": "postgres", "name": f"c{position}", **given} for position, given in enumerate(checks, 1)]
        return module("health_wait", {"timeout": timeout, "checks": filled}, **options)

    return run


def test_a_query_the_ledger_and_an_extension(wait: Wait, postgres: PostgresServer, database: str) -> None:
    """Versions are compared as numbers; rows that are not done do not count."""
    login = postgres.login(database)
    result = wait(login, {**login, "minimum_schema_version": "1"}, {**login, "extension": "vector"})
    assert result["unmet"] == ["c2", "c3"]
    assert result["checks"]["c1"]["status"].startswith(str(postgres.major))
    assert "c2: the schema version in public.schema_migrations is not recorded, expected at least 1" in result["msg"]
    assert f"c3: the extension vector is not in database '{database}'" in result["msg"]
    with postgres.connect(database) as connection:
        connection.execute(
            """CREATE EXTENSION vector;
            CREATE TABLE schema_migrations (version text PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
                applied_at timestamptz NOT NULL, execution_ms bigint NOT NULL, applied_by text NOT NULL, state text);
            INSERT INTO schema_migrations VALUES ('0009', 'a', '', now(), 0, '', 'baseline'),
                ('10', 'b', '', now(), 0, '', 'applied'), ('0011', 'c', '', now(), 0, '', 'failed')"""
        )
    good = {**login, "minimum_schema_version": "0010", "extension": "vector"}
    for check in (False, True):
        result = wait(good, check=check)
        assert not result.get("failed"), result["msg"]
    result = wait({**login, "minimum_schema_version": "11"})
    assert "the schema version in public.schema_migrations is 10, expected at least 11" in result["msg"]
    with postgres.connect(database) as connection:
        connection.execute("ALTER TABLE schema_migrations DROP COLUMN state")
    assert "is not a ledger of this version" in wait(good)["msg"]


def test_each_refusal_is_told_and_waited_for(wait: Wait, postgres16: PostgresServer) -> None:
    """An image that initialises says the same for a moment; fail_fast says that it does not. No password is shown."""
    login = postgres16.login("postgres")
    wrong = [
        ({**login, "login_password": CANARY}, "the server rejected the password of user 'postgres'"),
        ({**login, "database": "absent"}, "the server has no such database"),
        ({**login, "login_user": "nobody", "login_password": CANARY}, "rejected the password of user 'nobody'"),
        ({**login, "login_port": free_port()}, "nothing listens there (connection refused)"),
        ({**login, "login_host": "no-such-host.invalid"}, "the name of no-such-host.invalid"),
        ({**login, "ssl_mode": "require"}, "the TLS connection failed"),
    ]  # fmt: skip
    result = wait(*[check for check, _ in wrong], timeout=2)
    assert {one["state"] for one in result["checks"].values()} == {"timeout"}
    for (_, told), one in zip(wrong, result["checks"].values(), strict=True):
        assert told in one["last_error"]
    assert CANARY not in result["_printed"]
    for check, told in wrong[:3]:
        result = wait({**check, "fail_fast": True}, timeout=60)
        assert result["elapsed"] < 15
        assert told in result["msg"]


def test_a_server_that_hangs(wait: Wait) -> None:
    """It accepts, and says nothing: the deadline holds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = wait({"database": "a", "login_port": port}, timeout=2.5)
    assert 2.4 < result["elapsed"] < 9
    assert "c1: " in result["msg"]


def test_psycopg_is_missing(wait: Wait, tmp_path: Path) -> None:
    """Told before any waiting, with Debian's package."""
    (tmp_path / "psycopg.py").write_text("raise ImportError")
    result = wait({"database": "a"}, timeout=60, env={"PYTHONPATH": str(tmp_path)})
    assert result["msg"].startswith("The Python library psycopg 3 is needed")
    assert "python3-psycopg" in result["msg"]


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def test_an_image_that_is_still_initialising(wait: Wait, tmp_path: Path) -> None:
    """Trap 22: pg_isready says ready over the socket while the init scripts run; the check waits."""
    if not shutil.which("docker") or _docker("image", "inspect", IMAGE).returncode != 0:
        told = f"no image {IMAGE} (python3 tests/testbed up {IMAGE})"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    script = tmp_path / "10_slow.sh"
    folder = "/docker-entrypoint-initdb.d"
    extension = "psql -qU postgres -d app -c 'CREATE EXTENSION vector'"
    script.write_text(f"until [ -e {folder}/go ]; do sleep 0.1; done\n{extension}\n")
    tmp_path.chmod(0o755)
    name, port = f"gw-health-pg-{uuid.uuid4().hex[:8]}", free_port()
    mount = f"{tmp_path}:{folder}:ro"
    env = ("--env", f"POSTGRES_PASSWORD={CANARY}", "--env", "POSTGRES_DB=app")
    network = "--network=groundwork-testbed"
    started = _docker(
        "run", "--detach", network, "--name", name, "-p", f"127.0.0.1:{port}:5432", "-v", mount, *env, IMAGE
    )
    login = {"login_port": port, "login_password": CANARY, "database": "app"}
    try:
        assert started.returncode == 0, started.stderr
        deadline = time.monotonic() + 30
        while _docker("exec", name, "pg_isready", "-q", "-U", "postgres", "-d", "app").returncode != 0:
            assert time.monotonic() < deadline, _docker("logs", name).stderr
        early = wait(login, {"kind": "tcp", "port": port}, timeout=1)
        assert early["unmet"] == ["c1"], "Docker's proxy accepts TCP, and PostgreSQL does not answer there"
        assert early["checks"]["c1"]["last_error"]
        (tmp_path / "go").touch()
        result = wait({**login, "extension": "vector"}, timeout=60)
        assert not result.get("failed"), result["msg"]
        assert CANARY not in early["_printed"] + result["_printed"]
    finally:
        _docker("rm", "--force", "--volumes", name)
