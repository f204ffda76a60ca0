# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_backup against real servers: dumps restored and counted, and every failure that leaves no file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.dumps import BULK
from support.dumps import backup_options as options
from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.processes import require_in_no_command_line, stop_child

SCHEMA = """
CREATE EXTENSION vector;
CREATE SCHEMA "Odd schema";
CREATE TABLE public.claims (id int PRIMARY KEY, body text, embedding vector(3));
INSERT INTO public.claims SELECT i, 'claim ' || i, '[1,2,3]' FROM generate_series(1, 500) AS i;
CREATE TABLE "Odd schema"."it's a ""table"" x" (id int);
INSERT INTO "Odd schema"."it's a ""table"" x" SELECT generate_series(1, 7);
CREATE TABLE public.empty (id int);
CREATE TABLE public.parted (id int) PARTITION BY RANGE (id);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
INSERT INTO public.parted SELECT generate_series(1, 4);
CREATE TABLE public.schema_migrations (version text PRIMARY KEY, state text);
INSERT INTO public.schema_migrations VALUES ('0002', 'applied'), ('10', 'applied'), ('0011', 'failed'),
  ('9', 'baseline');
"""
COUNTS = {
    "public.claims": 500,
    'Odd schema.it\'s a "table" x': 7,
    "public.empty": 0,
    "public.parted_low": 4,
    "public.schema_migrations": 4,
}


def restore(server: PostgresServer, dump: Path, target: str) -> dict[str, int]:
    """Restore with the real tool into a new database and count what is there."""
    server.create_database(target)
    subprocess.run([server.bindir / "pg_restore", "--exit-on-error", "--dbname", server.dsn(target), dump], check=True)
    with server.connect(target) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        ).fetchall()
        return {
            f"{schema}.{table}": connection.execute(
                'SELECT count(*) FROM "{}"."{}"'.format(schema, table.replace('"', '""')).encode()
            ).fetchone()[0]
            for schema, table in tables
            if table != "parted"
        }


@pytest.fixture
def filled(postgres: PostgresServer, database: str) -> str:
    postgres.execute(SCHEMA, database)
    return database


@pytest.fixture(scope="module")
def bulk(postgres16: PostgresServer) -> str:
    return postgres16.create_database("bulk", BULK)


def dump_process(module: subprocess.Popen[str]) -> int:
    """The pg_dump of this module run that writes data, stopped."""
    return stop_child(module, "pg_dump", "--format=custom", written=1 << 20)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    result: dict[str, Any] = json.loads(out)
    return result


def finals(dest: Path) -> list[str]:
    return sorted(path.name for path in dest.glob("[!.]*")) if dest.exists() else []


def test_a_dump_restores_with_the_counts_of_its_component(
    module: ModuleRunner, postgres: PostgresServer, filled: str, tmp_path: Path
) -> None:
    dest = tmp_path / "components"
    planned = module("pg_backup", options(postgres, filled, dest), check=True)
    assert planned["changed"] is True
    assert [file["name"] for file in planned["component"]["files"]] == ["database.dump", "globals.sql"]
    assert not dest.exists()

    result = module("pg_backup", options(postgres, filled, dest, name="claims"))
    assert result["changed"] is True, result
    component = result["component"]
    assert component["counts"] == COUNTS
    assert restore(postgres, dest / "database.dump", f"restored_{filled}") == COUNTS
    assert (component["engine"], component["name"], component["database"]) == ("postgres", "claims", filled)
    assert component["schema_version"] == "10"
    assert component["server_version"].startswith(str(postgres.major))
    assert component["client_version"].startswith(str(postgres.major))
    assert component["extensions"].keys() == {"plpgsql", "vector"}
    assert component["seconds"] > 0
    for file in component["files"]:
        data = (dest / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert "CREATE ROLE postgres" in (dest / "globals.sql").read_text()
    assert sorted(path.name for path in dest.iterdir()) == ["database.dump", "globals.sql"]

    again = module("pg_backup", options(postgres, filled, dest))
    assert again["failed"]
    assert "exists already; a component is written once" in again["msg"]


def test_the_counts_are_those_of_the_dump_while_rows_arrive(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", compression=1))
    pid = dump_process(process)
    with postgres16.connect(bulk) as connection:
        connection.execute("INSERT INTO bulk VALUES (0, 'late')")
        os.kill(pid, signal.SIGCONT)
        result = result_of(process)
        connection.execute("DELETE FROM bulk WHERE i = 0")
    assert result["component"]["counts"] == {"public.bulk": 6000}
    assert restore(postgres16, tmp_path / "d" / "database.dump", "bulk_restored") == {"public.bulk": 6000}


def test_files_are_private_whatever_the_umask(
    module: ModuleRunner, postgres: PostgresServer, filled: str, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        result = module("pg_backup", options(postgres, filled, tmp_path / "d"))
    finally:
        os.umask(before)
    assert result["changed"] is True, result
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "d").iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("compression", "line"), [("none", "none"), ("gzip:1", "gzip"), (6, "gzip"), ("zstd:3", "zstd")]
)
def test_compression(
    module: ModuleRunner, postgres18: PostgresServer, tmp_path: Path, compression: Any, line: str
) -> None:
    result = module(
        "pg_backup", options(postgres18, "postgres", tmp_path / "d", compression=compression, globals=False)
    )
    built_with = subprocess.run(
        [postgres18.bindir / "pg_config", "--configure"], check=True, capture_output=True, text=True
    ).stdout
    if line == "zstd" and "zstd" not in built_with:
        assert "Set compression to gzip" in result["msg"]
        assert finals(tmp_path / "d") == []
        return
    assert result["changed"] is True, result
    assert [file["name"] for file in result["component"]["files"]] == ["database.dump"]
    told = subprocess.run(
        [postgres18.bindir / "pg_restore", "--list", tmp_path / "d" / "database.dump"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert f"Compression: {line}" in told


def test_a_wrong_password_and_no_canary_anywhere(
    module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path
) -> None:
    canary = "canary-d41d8cd9"
    result = module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d"), "login_password": canary})
    assert result["failed"]
    assert "rejected the password of user 'postgres'" in result["msg"]
    assert canary not in result["_printed"]
    assert not (tmp_path / "d").exists()


def test_the_password_is_in_no_process_list_and_nothing_that_is_printed_or_written(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    canary = "canary-98f00b20"
    postgres16.execute(f"CREATE ROLE spy SUPERUSER LOGIN PASSWORD '{canary}'")
    login = {"login_user": "spy", "login_password": canary}
    process = module.start("pg_backup", {**options(postgres16, bulk, tmp_path / "d", compression=1), **login})
    pid = dump_process(process)
    require_in_no_command_line(canary, process)
    os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["changed"] is True
    assert canary not in out + err
    assert canary.encode() not in (tmp_path / "d" / "globals.sql").read_bytes()


def test_a_missing_database(module: ModuleRunner, postgres: PostgresServer, tmp_path: Path) -> None:
    result = module("pg_backup", options(postgres, "nosuchdb", tmp_path / "d"))
    assert result["failed"]
    assert "the server has no such database" in result["msg"]
    assert not (tmp_path / "d").exists()


def test_a_client_that_is_too_old(
    module: ModuleRunner, postgres16: PostgresServer, postgres18: PostgresServer, tmp_path: Path
) -> None:
    arguments = {**options(postgres18, "postgres", tmp_path / "d"), "bin_dir": str(postgres16.bindir)}
    for check in (True, False):
        result = module("pg_backup", arguments, check=check)
        assert result["failed"]
        assert "pg_dump 18 or newer is needed for a server of version 18" in result["msg"]
    assert not (tmp_path / "d").exists()


def test_a_newer_client_is_used_with_a_warning(
    module: ModuleRunner, postgres16: PostgresServer, postgres18: PostgresServer, tmp_path: Path
) -> None:
    arguments = {**options(postgres16, "postgres", tmp_path / "d"), "bin_dir": str(postgres18.bindir)}
    result = module("pg_backup", arguments)
    assert result["changed"] is True
    assert "is newer than the server" in json.dumps(result["warnings"])


def test_a_missing_parent_folder_is_not_made(module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path) -> None:
    result = module("pg_backup", options(postgres16, "postgres", tmp_path / "aborted set" / "d"))
    assert result["failed"]
    assert "No such file or directory" in result["msg"]
    assert not (tmp_path / "aborted set").exists()


def test_roles_need_a_superuser(module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path) -> None:
    postgres16.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    login = {"login_user": "plain", "login_password": "plain"}
    for check in (True, False):
        result = module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d"), **login}, check=check)
        assert result["failed"]
        assert "or set globals: false" in result["msg"]
        assert finals(tmp_path / "d") == []
    assert module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d", globals=False), **login})["changed"]


def test_hidden_rows_are_an_error(module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path) -> None:
    postgres16.create_database(
        "hidden",
        "CREATE ROLE limited LOGIN PASSWORD 'limited'",
        "CREATE TABLE secret (id int); INSERT INTO secret VALUES (1)",
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secret TO limited",
    )
    login = {"login_user": "limited", "login_password": "limited"}
    result = module("pg_backup", {**options(postgres16, "hidden", tmp_path / "d", globals=False), **login})
    assert result["failed"]
    assert "row-level security" in result["msg"]
    assert finals(tmp_path / "d") == []


def test_a_locked_table_ends_the_wait(
    module: ModuleRunner, postgres: PostgresServer, filled: str, tmp_path: Path
) -> None:
    with postgres.connect(filled) as connection, connection.transaction():
        connection.execute("LOCK TABLE public.claims IN ACCESS EXCLUSIVE MODE")
        result = module("pg_backup", options(postgres, filled, tmp_path / "d", lock_timeout="200ms"))
    assert result["failed"]
    assert "Another session holds a lock on a table" in result["msg"]  # the dump or the count, whoever waited less
    assert finals(tmp_path / "d") == []


def test_pg_dump_is_killed(module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", compression=1))
    os.kill(dump_process(process), signal.SIGKILL)
    result = result_of(process)
    assert result["failed"]
    assert result["rc"] == -signal.SIGKILL
    assert list((tmp_path / "d").iterdir()) == []


def test_the_module_is_terminated(module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", compression=1))
    pid = dump_process(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list((tmp_path / "d").iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()


def test_the_module_is_killed_and_the_next_run_cleans_up(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", compression=1))
    pid = dump_process(process)
    busy = module("pg_backup", options(postgres16, bulk, tmp_path / "d"))
    assert busy["failed"]
    assert "Another backup is writing into" in busy["msg"]
    process.kill()
    process.communicate(timeout=60)
    os.kill(pid, signal.SIGCONT)
    assert finals(tmp_path / "d") == []
    assert len(list((tmp_path / "d").glob(".database.dump.*.partial"))) == 1
    assert module("pg_backup", options(postgres16, bulk, tmp_path / "d", compression=1))["changed"] is True
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["database.dump", "globals.sql"]


def test_the_server_stops_in_the_middle(module: ModuleRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(f"/tmp/gw-stop-{os.getpid()}")
    server = PostgresServer.start(16, folder)
    dest = tmp_path_factory.mktemp("stopped") / "d"
    try:
        server.execute(BULK)
        process = module.start("pg_backup", options(server, "postgres", dest, compression=1))
        pid = dump_process(process)
        server.down("immediate")
        os.kill(pid, signal.SIGCONT)
        result = result_of(process)
        assert result["failed"]
        assert "database 'postgres'" in result["msg"]
        assert list(dest.iterdir()) == []
        refused = module("pg_backup", options(server, "postgres", dest))
        assert "nothing listens there" in refused["msg"]
    finally:
        with contextlib.suppress(AssertionError):
            server.down("immediate")
        shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with disks.small_disk(tmp_path / "small", "4m") as folder:
        yield folder


def test_the_disk_is_full(module: ModuleRunner, postgres16: PostgresServer, bulk: str, small_disk: Path) -> None:
    result = module("pg_backup", options(postgres16, bulk, small_disk / "d"))
    assert result["failed"]
    assert "No space left on device. Free space on that file system" in result["msg"]
    assert list((small_disk / "d").iterdir()) == []


def test_a_dump_that_cannot_be_read_gets_no_name(
    module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path
) -> None:
    """pg_dump that ends with 0 after a part of its output: only the full read can tell."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("psql", "pg_dumpall", "pg_restore"):
        (tools / name).symlink_to(postgres16.bindir / name)
    (tools / "pg_dump").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {postgres16.bindir}/pg_dump --version\n'
        f'{postgres16.bindir}/pg_dump "$@" | head -c 1000\n'
    )
    (tools / "pg_dump").chmod(0o755)
    postgres16.execute("CREATE TABLE IF NOT EXISTS rows AS SELECT generate_series(1, 1000) AS id")
    result = module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d"), "bin_dir": str(tools)})
    assert result["failed"]
    assert "Could not read the new dump of database 'postgres' in full" in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lock_timeout": "5 minutes"}, "is no time. Write it as PostgreSQL does"),
        ({"compression": "bzip2"}, "compression 'bzip2' is not known"),
        ({"name": "../up"}, "cannot name a folder"),
        ({"bin_dir": "/nonexistent"}, "are not in /nonexistent. Correct bin_dir."),
    ],
)
def test_unusable_options(
    module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path, wrong: dict[str, str], sentence: str
) -> None:
    result = module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d"), **wrong})
    assert result["failed"]
    assert sentence in result["msg"]
    assert not (tmp_path / "d").exists()
