# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_backup inside the server's container: its own client, its local socket, nothing of the password outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner

IMAGE = "pgvector/pgvector:pg16"
CANARY = "canary-e9800998"


def docker(*arguments: str, check: bool = True, stdin: Path | None = None) -> str:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        done = subprocess.run(["docker", *arguments], stdin=source, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container(root: Path) -> Iterator[str]:
    """A running server with 6000 rows in database app; it has no network."""
    if not shutil.which("docker"):
        pytest.skip("needs docker")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode != 0:
        up = subprocess.run(
            [sys.executable, root / "tests" / "testbed", "up", IMAGE], capture_output=True, text=True, check=False
        )
        if up.returncode != 0:
            pytest.skip(f"needs the test bed with {IMAGE}: {up.stderr[-300:]}")
    name = f"gw-test-pg-backup-{os.getpid()}"
    docker(
        "run", "--detach", "--name", name, "--network", "none", "--env", f"POSTGRES_PASSWORD={CANARY}",
        "--env", "POSTGRES_DB=app", IMAGE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        # The image's own first start answers on the socket, too: process 1 is postgres only after it.
        while "postgres" not in docker("exec", name, "cat", "/proc/1/comm", check=False) or not sql(name, "SELECT 1"):
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(0.2)
        sql(
            name,
            "CREATE EXTENSION vector; CREATE TABLE items AS SELECT i, string_agg(md5(i::text || j::text), '') AS body "
            "FROM generate_series(1, 6000) AS i, generate_series(1, 150) AS j GROUP BY i",
        )
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def sql(container: str, statement: str, database: str = "app") -> str:
    return docker("exec", container, "psql", "-XAtq", "-U", "postgres", "-d", database, "-c", statement, check=False)


def options(container: str, dest: Path, **more: Any) -> dict[str, Any]:
    return {"container": container, "database": "app", "dest": str(dest), "login_password": CANARY, **more}


def running(container: str) -> str:
    return sql(container, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'groundwork pg_backup%'")


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_dump_from_the_container_restores_in_it(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    planned = module("pg_backup", options(container, dest), check=True)
    assert planned["changed"] is True, planned
    assert not dest.exists()
    result = module("pg_backup", options(container, dest, compression="gzip:1"))
    assert result["changed"] is True, result
    component = result["component"]
    assert component["counts"] == {"public.items": 6000}
    assert component["server_version"].split()[0] == component["client_version"].split()[0]
    assert component["extensions"].keys() == {"plpgsql", "vector"}
    assert "CREATE ROLE postgres" in (dest / "globals.sql").read_text()
    assert CANARY not in result["_printed"]
    sql(container, "CREATE DATABASE restored")
    docker(
        "exec", "-i", container, "pg_restore", "-U", "postgres", "-d", "restored", "--exit-on-error",
        stdin=dest / "database.dump",
    )  # fmt: skip
    assert sql(container, "SELECT count(*) FROM items", "restored") == "6000"
    assert running(container) == "0"


def test_sigterm_stops_what_waits_inside_the_container(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    """The death of docker exec does not end a pg_dump that waits for a lock."""
    locker = subprocess.Popen(
        ["docker", "exec", "-i", container, "psql", "-qU", "postgres", "app"], stdin=subprocess.PIPE
    )
    assert locker.stdin is not None
    try:
        locker.stdin.write(b"BEGIN; LOCK TABLE items;\n")
        locker.stdin.flush()
        granted = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        wait_for(lambda: sql(container, granted) == "1", "no lock")
        process = module.start("pg_backup", options(container, tmp_path / "d"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
        wait_for(lambda: sql(container, waiting) == "1", "pg_dump does not wait")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 143
        assert list((tmp_path / "d").iterdir()) == []
        wait_for(lambda: running(container) == "0", "pg_dump still waits in the container")
    finally:
        locker.stdin.close()
        locker.wait(timeout=30)


def test_the_password_is_in_no_process_list_and_sigterm_stops_the_dump(
    module: ModuleRunner, container: str, tmp_path: Path
) -> None:
    dest = tmp_path / "d"
    process = module.start("pg_backup", options(container, dest, compression="gzip:9"))
    wait_for(lambda: any(path.stat().st_size > 1 << 20 for path in dest.glob(".database.dump.*")), "no data came")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert CANARY.encode() not in entry.read_bytes()
    assert running(container) == "2"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert CANARY not in out + err
    assert list(dest.iterdir()) == []
    wait_for(lambda: running(container) == "0", "pg_dump still runs in the container")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"container": "gw-no-such-container"}, "Check that the container runs"),
        ({"database": "nosuchdb"}, "the server has no such database"),
        ({"login_user": "nobody"}, "the server has no user 'nobody'"),
    ],
)
def test_what_cannot_be_reached(
    module: ModuleRunner, container: str, tmp_path: Path, wrong: dict[str, str], sentence: str
) -> None:
    result = module("pg_backup", options(container, tmp_path / "d") | wrong)
    assert result["failed"]
    assert sentence in result["msg"]
    assert not (tmp_path / "d").exists()


def test_the_container_stops_in_the_middle(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    process = module.start("pg_backup", options(container, dest, compression="gzip:9"))
    wait_for(lambda: any(path.stat().st_size > 1 << 20 for path in dest.glob(".database.dump.*")), "no data came")
    docker("kill", container)
    result = json.loads(process.communicate(timeout=60)[0])
    assert result["failed"]
    assert "database 'app'" in result["msg"]
    assert list(dest.iterdir()) == []
    stopped = module("pg_backup", options(container, dest))
    assert "is not running" in stopped["msg"]
