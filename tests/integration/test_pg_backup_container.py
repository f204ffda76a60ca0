# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_backup inside the server's container: its own client, its local socket, nothing of the password outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.postgres_container import docker, isolated_server
from support.postgres_container import psql as sql
from support.processes import require_in_no_command_line, wait_for

IMAGE = "pgvector/pgvector:pg16"
CANARY = "canary-e9800998"


@pytest.fixture(scope="module")
def container(root: Path) -> Iterator[str]:
    """A running server with 6000 rows in database app; it has no network."""
    name = f"gw-test-pg-backup-{os.getpid()}"
    small = ("--tmpfs", "/small:size=4m,mode=1777")
    with isolated_server(root, IMAGE, name, CANARY, *small):
        sql(
            name,
            "CREATE EXTENSION vector; CREATE TABLE items AS SELECT i, string_agg(md5(i::text || j::text), '') AS body "
            "FROM generate_series(1, 6000) AS i, generate_series(1, 150) AS j GROUP BY i",
        )
        yield name


def options(container: str, dest: Path, **more: Any) -> dict[str, Any]:
    return {"container": container, "database": "app", "dest": str(dest), "login_password": CANARY, **more}


def running(container: str) -> str:
    return sql(container, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'groundwork pg_backup%'")


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
        stdin=(dest / "database.dump").read_bytes(),
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
    require_in_no_command_line(CANARY, process)
    assert running(container) == "2"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert CANARY not in out + err
    assert list(dest.iterdir()) == []
    wait_for(lambda: running(container) == "0", "pg_dump still runs in the container")


DIRECTORY = {"format": "directory", "jobs": 2}


def scratch(container: str) -> list[str]:
    return docker("exec", container, "sh", "-c", "ls /tmp").split()


def dumping(container: str) -> str:
    """The folder inside of the container that a dump is writing rows into."""
    told = docker("exec", container, "sh", "-c", "find /tmp -name '*.dat*' -size +512k", check=False)
    return told.rpartition("/")[0]


def test_a_directory_from_the_container_restores_in_it(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    sql(container, "CREATE TABLE few AS SELECT 1 AS id")
    result = module("pg_backup", options(container, dest, **DIRECTORY))
    sql(container, "DROP TABLE few")
    assert result["changed"] is True, result
    component = result["component"]
    assert component["counts"] == {"public.few": 1, "public.items": 6000}
    for file in component["files"]:
        path = dest / file["name"]
        data = path.read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert scratch(container) == [], "the folder inside of the container is left"
    tar = subprocess.run(["tar", "-C", dest, "-cf", "-", "database.dir"], check=True, capture_output=True).stdout
    subprocess.run(["docker", "exec", "-i", container, "tar", "-C", "/tmp", "-xf", "-"], input=tar, check=True)
    sql(container, "CREATE DATABASE restored_directory")
    docker(
        "exec", container, "pg_restore", "-U", "postgres", "-d", "restored_directory", "--exit-on-error", "-j2",
        "/tmp/database.dir",
    )  # fmt: skip
    docker("exec", container, "rm", "-r", "/tmp/database.dir")
    assert sql(container, "SELECT count(*) FROM items", "restored_directory") == "6000"


def test_a_plain_dump_from_the_container_restores_in_it(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    result = module("pg_backup", options(container, tmp_path / "d", format="plain", schemas=["public"]))
    assert result["changed"] is True, result
    assert result["component"]["counts"] == {"public.items": 6000}
    sql(container, "CREATE DATABASE restored_plain")
    docker(
        "exec", "-i", container, "psql", "-Xq", "-U", "postgres", "-d", "restored_plain", "-v", "ON_ERROR_STOP=1",
        "-c", "DROP SCHEMA public", "-f", "-",
        stdin=(tmp_path / "d" / "database.sql").read_bytes(),
    )  # fmt: skip
    assert sql(container, "SELECT count(*) FROM items", "restored_plain") == "6000"


def test_sigterm_removes_what_a_directory_left_in_the_container(
    module: ModuleRunner, container: str, tmp_path: Path
) -> None:
    process = module.start("pg_backup", options(container, tmp_path / "d", **DIRECTORY, compression="gzip:9"))
    wait_for(lambda: dumping(container), "no data came")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list((tmp_path / "d").iterdir()) == []
    assert scratch(container) == []
    wait_for(lambda: running(container) == "0", "pg_dump still runs in the container")


def test_the_next_run_removes_what_a_killed_one_left_in_the_container(
    module: ModuleRunner, container: str, tmp_path: Path
) -> None:
    """A pg_dump inside of the container goes on without its module."""
    process = module.start("pg_backup", options(container, tmp_path / "a", **DIRECTORY, compression="gzip:9"))
    wait_for(lambda: dumping(container), "no data came")
    left = scratch(container)
    process.kill()
    process.communicate(timeout=60)
    assert len(left) == 1
    held = "groundwork-pg_backup.00000001.1.1.x"
    docker("exec", container, "mkdir", f"/tmp/{held}")  # not the name of a run: somebody else's
    result = module("pg_backup", options(container, tmp_path / "b", **DIRECTORY))
    assert result["changed"] is True, result
    assert scratch(container) == [held]
    docker("exec", container, "rmdir", f"/tmp/{held}")
    wait_for(lambda: running(container) == "0", "the pg_dump of the killed run still runs")


def test_a_folder_of_a_running_dump_is_left_alone(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    first = module.start("pg_backup", options(container, tmp_path / "a", **DIRECTORY, compression="gzip:9"))
    wait_for(lambda: dumping(container), "no data came")
    os.kill(first.pid, signal.SIGSTOP)  # it lives, and can remove nothing meanwhile
    theirs = scratch(container)
    second = module("pg_backup", options(container, tmp_path / "b", **DIRECTORY))
    assert second["changed"] is True, second
    assert scratch(container) == theirs
    os.kill(first.pid, signal.SIGCONT)
    result = json.loads(first.communicate(timeout=60)[0])
    assert result["changed"] is True, result
    assert scratch(container) == []


def test_no_room_inside_the_container(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    arguments = options(container, tmp_path / "d", **DIRECTORY, compression="none", container_dir="/small")
    result = module("pg_backup", arguments)
    assert result["failed"]
    assert "No space left on device" in result["msg"]
    assert "Free space on that file system, then run again." in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []
    assert docker("exec", container, "ls", "/small") == ""


def test_a_folder_that_is_not_in_the_container(module: ModuleRunner, container: str, tmp_path: Path) -> None:
    result = module("pg_backup", options(container, tmp_path / "d", **DIRECTORY, container_dir="/nonexistent"))
    assert result["failed"]
    assert "Could not create the folder /nonexistent/groundwork-pg_backup." in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []


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
    folder = module.start("pg_backup", options(container, tmp_path / "e", **DIRECTORY, compression="gzip:9"))
    wait_for(lambda: dumping(container), "no data came")
    docker("kill", container)
    for run, place in ((process, dest), (folder, tmp_path / "e")):
        result = json.loads(run.communicate(timeout=60)[0])
        assert result["failed"]
        assert "database 'app'" in result["msg"]
        assert list(place.iterdir()) == []
    stopped = module("pg_backup", options(container, dest))
    assert "is not running" in stopped["msg"]
