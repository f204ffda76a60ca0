# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_restore inside the server's container: every format reaches its client, and nothing is left behind there."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import backup_sets
from support.backup_sets import Sets
from support.modules import ModuleRunner
from support.postgres_container import docker, isolated_server
from support.postgres_container import psql as sql
from support.processes import wait_for

IMAGE = "pgvector/pgvector:pg16"
CANARY = "canary-6f922f45"
TABLES = (
    "CREATE EXTENSION vector; CREATE TABLE items (id int PRIMARY KEY, body text, embedding vector(3));"
    "INSERT INTO items SELECT i, md5(i::text), ARRAY[i, 1, 2]::vector(3) FROM generate_series(1, 20000) AS i;"
    "CREATE INDEX nearest ON items USING hnsw (embedding vector_l2_ops); CREATE TABLE other AS SELECT 1 AS id"
)
COUNTS = {"public.items": 20000, "public.other": 1}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def container(root: Path) -> Iterator[str]:
    with isolated_server(root, IMAGE, f"gw-test-pg-restore-{os.getpid()}", CANARY) as name:
        sql(name, TABLES)
        yield name


@pytest.fixture(scope="module")
def custom(sets: Sets, container: str) -> Path:
    return sets.make({"container": container, "database": "app", "login_password": CANARY, "compression": "none"})


@pytest.fixture
def live(container: str) -> Iterator[str]:
    """A name of this test's own, for a database that does not exist yet."""
    name = f"live_{next(_numbers)}"
    yield name
    for found in sql(container, f"SELECT datname FROM pg_database WHERE datname LIKE '{name}%'").split():
        sql(container, f"DROP DATABASE {found} WITH (FORCE)")


def options(container: str, set_path: Path, live: str, action: str, **more: Any) -> dict[str, Any]:
    return {
        "container": container, "database": live, "login_password": CANARY, "action": action,
        "set_path": str(set_path), "component": backup_sets.NAME, **more,
    }  # fmt: skip


def copies(container: str) -> str:
    """What of a dump lies in the container."""
    return docker("exec", container, "sh", "-c", "ls -d /tmp/groundwork-pg_restore-* 2>/dev/null || true")


@pytest.mark.parametrize("jobs", [None, 2], ids=["streamed", "copied"])
def test_a_custom_dump(module: ModuleRunner, container: str, custom: Path, live: str, jobs: int | None) -> None:
    planned = module("pg_restore", options(container, custom, live, "restore", jobs=jobs), check=True)
    assert planned["changed"] is True, planned
    result = module("pg_restore", options(container, custom, live, "restore", jobs=jobs))
    assert result["changed"] is True, result
    assert (result["counts"], result["actions"]) == (COUNTS, planned["actions"])
    assert CANARY not in result["_printed"]
    assert sql(container, "SELECT count(*) FROM items", live) == "20000"
    nearest = "SET enable_seqscan = off; SELECT id FROM items ORDER BY embedding <-> '[42,1,2]' LIMIT 1"
    assert sql(container, nearest, live) == "42"
    assert copies(container) == ""
    assert module("pg_restore", options(container, custom, live, "restore"))["changed"] is False


@pytest.mark.parametrize("format_", ["directory", "plain"])
def test_the_other_formats(module: ModuleRunner, sets: Sets, container: str, live: str, format_: str) -> None:
    set_path = sets.make({"container": container, "database": "app", "login_password": CANARY, "format": format_})
    result = module("pg_restore", options(container, set_path, live, "restore", jobs=2))
    assert result["changed"] is True, result
    assert sql(container, "SELECT count(*) FROM items", live) == "20000"
    assert copies(container) == ""


def test_a_throw_away_container_for_a_drill(module: ModuleRunner, root: Path, container: str, custom: Path) -> None:
    with isolated_server(root, IMAGE, f"gw-test-pg-drill-{os.getpid()}", CANARY) as scratch:
        result = module("pg_restore", options(scratch, custom, "app", "stage", target="app_drill"))
        assert result["changed"] is True, result
        assert result["counts"] == COUNTS
        assert sql(scratch, "SELECT count(*) FROM items", "app_drill") == "20000"
        assert sql(scratch, "SELECT to_regclass('items') IS NULL") == "t"


def copying(module: ModuleRunner, container: str, set_path: Path, live: str) -> subprocess.Popen[str]:
    """A stage that has begun to use files in the container."""
    process = module.start("pg_restore", options(container, set_path, live, "stage", jobs=2))
    wait_for(lambda: copies(container) or process.poll() is not None, "no copy")
    assert process.poll() is None, process.communicate()
    return process


def test_what_a_killed_run_left_in_the_container_is_removed(
    module: ModuleRunner, container: str, custom: Path, live: str
) -> None:
    process = copying(module, container, custom, live)
    process.kill()
    process.communicate(timeout=60)
    assert copies(container) != ""
    result = module("pg_restore", options(container, custom, live, "restore", jobs=2))
    assert result["changed"] is True, result
    assert sql(container, "SELECT count(*) FROM items", live) == "20000"
    assert copies(container) == ""


def test_discard_removes_what_a_killed_run_left(module: ModuleRunner, container: str, custom: Path, live: str) -> None:
    process = copying(module, container, custom, live)
    process.kill()
    process.communicate(timeout=60)
    result = module("pg_restore", options(container, custom, live, "discard"))
    assert result["changed"] is True, result
    assert copies(container) == ""
    assert sql(container, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{live}%'") == "0"


def test_sigterm_leaves_nothing(module: ModuleRunner, container: str, custom: Path, live: str) -> None:
    process = copying(module, container, custom, live)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert copies(container) == ""
    assert sql(container, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{live}%'") == "0"
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'groundwork pg_restore%'"
    wait_for(lambda: sql(container, running) == "0", "pg_restore still runs in the container")


def test_the_room_is_what_the_server_has_in_its_container(
    module: ModuleRunner, container: str, custom: Path, live: str, tmp_path: Path
) -> None:
    found = module("pg_restore", options(container, custom, live, "measure"))["space"]
    free = int(docker("exec", container, "df", "-k", "--output=avail", found["path"]).split()[-1]) * 1024
    assert abs(found["free"] - free) < 1 << 30, "others use the disk, too"
    rows = int(sql(container, "SELECT pg_relation_size('items') + pg_indexes_size('items')"))
    assert rows <= found["needed"] < 2 * rows
    large = backup_sets.copied(custom, tmp_path)
    backup_sets.retold(large, lambda component: component.update(database_bytes=1 << 50))
    result = module("pg_restore", options(container, large, live, "stage"))
    assert result["failed"], result
    assert "takes about 1024.0 TiB" in result["msg"]
    assert sql(container, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{live}%'") == "0"
    assert module("pg_restore", options(container, large, live, "stage", check_space=False))["changed"] is True


def test_the_disk_of_the_container_takes_no_copy(module: ModuleRunner, container: str, custom: Path, live: str) -> None:
    result = module("pg_restore", options(container, custom, live, "stage", jobs=2, container_tmp="/proc"))
    assert result["failed"]
    assert "Could not copy the dump to /proc/groundwork-pg_restore-" in result["msg"]
    assert sql(container, f"SELECT count(*) FROM pg_database WHERE datname LIKE '{live}%'") == "0"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"container": "gw-no-such-container"}, "Check that the container runs"),
        ({"login_user": "nobody"}, "the server has no user 'nobody'"),
        ({"maintenance_database": "nosuchdb"}, "the server has no such database"),
    ],
)
def test_what_cannot_be_reached(
    module: ModuleRunner, container: str, custom: Path, wrong: dict[str, str], sentence: str
) -> None:
    result = module("pg_restore", options(container, custom, "nowhere", "stage") | wrong)
    assert result["failed"]
    assert sentence in result["msg"], json.dumps(result["msg"])
