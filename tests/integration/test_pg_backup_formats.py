# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_backup: the formats directory and plain, what is chosen of a database, its properties, memory and progress."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from support import disks
from support.dumps import BULK, counts, freeze_directory_dump
from support.dumps import backup_options as options
from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.postgres_container import ContainerServer
from support.processes import programs, resume, wait_for

SCHEMA = """
CREATE EXTENSION vector;
CREATE SCHEMA "Odd schema";
CREATE SCHEMA audit;
CREATE TABLE public.claims (id int PRIMARY KEY, body text, embedding vector(3));
INSERT INTO public.claims SELECT i, E'claim\\n\\\\.\\t' || i, '[1,2,3]' FROM generate_series(1, 500) AS i;
CREATE TABLE "Odd schema"."it's a ""table"" x" (id int);
INSERT INTO "Odd schema"."it's a ""table"" x" SELECT generate_series(1, 7);
CREATE TABLE "Odd schema"."two
lines" (id int);
INSERT INTO "Odd schema"."two
lines" VALUES (1), (2);
CREATE TABLE public.empty (id int);
CREATE TABLE public.nothing ();
INSERT INTO public.nothing DEFAULT VALUES;
CREATE TYPE public.mood AS ENUM ('glad', 'sad');
CREATE TABLE public.by_mood (feels public.mood) PARTITION BY HASH (feels);
CREATE TABLE public.by_mood_0 PARTITION OF public.by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE public.by_mood_1 PARTITION OF public.by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO public.by_mood VALUES ('glad'), ('glad'), ('sad');
CREATE TABLE public.parted (id int) PARTITION BY RANGE (id);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE public.parted_high PARTITION OF public.parted FOR VALUES FROM (10) TO (20);
INSERT INTO public.parted SELECT generate_series(7, 11);
CREATE TABLE audit.log_2025 (id int);
INSERT INTO audit.log_2025 SELECT generate_series(1, 9);
CREATE TABLE audit.users (id int);
INSERT INTO audit.users SELECT generate_series(1, 3);
SELECT lo_from_bytea(0, 'large object');
"""
DIRECTORY = {"format": "directory", "jobs": 2}
LOSE = '$REAL "$@" && for last; do :; done && rm "${last#--file=}"'  # the last argument is the folder


def restore(server: PostgresServer, dump: Path, target: str, before: str = "") -> dict[str, int]:
    """Restore with the real tool into a new database, in which *before* ran, and count what is there."""
    server.create_database(target, *([before] if before else []))
    if dump.name.startswith("database.sql"):
        text = gzip.decompress(dump.read_bytes()) if dump.suffix == ".gz" else dump.read_bytes()
        argv = [server.bindir / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", server.dsn(target)]
        subprocess.run(argv, input=text, stdout=subprocess.DEVNULL, check=True)
    else:
        argv = [server.bindir / "pg_restore", "--exit-on-error", "--jobs=2", "--dbname", server.dsn(target), dump]
        subprocess.run(argv, check=True)
    with server.connect(target) as connection:
        return counts(connection)


@pytest.fixture
def filled(postgres: PostgresServer, database: str) -> str:
    postgres.execute(SCHEMA, database)
    return database


@pytest.fixture(scope="module")
def filled16(postgres16: PostgresServer) -> str:
    return postgres16.create_database("filled16", SCHEMA)


@pytest.fixture
def dump(module: ModuleRunner, postgres16: PostgresServer, filled16: str, tmp_path: Path) -> Callable[..., Any]:
    """dump(jobs=2, …) dumps into the folder d of tmp_path; check=True is for check mode."""

    def run(check: bool = False, **more: Any) -> dict[str, Any]:
        return module("pg_backup", options(postgres16, filled16, tmp_path / "d") | more, check=check)

    return run


@pytest.fixture(scope="module")
def bulk(postgres16: PostgresServer) -> str:
    """Bytes that gzip works on for a while, in two tables, so that a test can step in."""
    return postgres16.create_database("bulk_formats", BULK, "CREATE TABLE bulk2 AS SELECT * FROM bulk")


@pytest.fixture(scope="module")
def large(postgres16: PostgresServer, bulk: str) -> Iterator[str]:
    """More than 400 MiB of rows."""
    yield postgres16.create_database("large", BULK, "INSERT INTO bulk SELECT i, body FROM bulk, generate_series(1, 15)")
    postgres16.execute("DROP DATABASE large")


def broken_dump(server: PostgresServer, folder: Path, script: str) -> str:
    """A bin_dir whose pg_dump does what the real one does, and then *script*, in which $REAL is the real one."""
    folder.mkdir()
    for name in ("psql", "pg_dumpall", "pg_restore"):
        (folder / name).symlink_to(server.bindir / name)
    (folder / "pg_dump").write_text(
        f'#!/bin/sh\nREAL={server.bindir}/pg_dump\n[ "$1" = --version ] && exec $REAL --version\n{script}\n'
    )
    (folder / "pg_dump").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    "chosen",
    [
        {"format": "directory"},
        {**DIRECTORY, "compression": "none"},
        {**DIRECTORY, "jobs": 4},
        {"format": "plain"},
        {"format": "plain", "compression": "gzip:1"},
        {"compression": "none"},
    ],
    ids=["directory", "directory-2", "directory-4", "plain", "plain-gzip", "custom-none"],
)
def test_each_format_restores_with_the_counts_of_its_component(
    module: ModuleRunner, postgres: PostgresServer, filled: str, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    dest = tmp_path / "d"
    name = {"directory": "database.dir", "plain": "database.sql"}.get(chosen.get("format", ""), "database.dump")
    name += ".gz" if chosen.get("compression") == "gzip:1" else ""
    planned = module("pg_backup", options(postgres, filled, dest, **chosen), check=True)
    assert planned["changed"] is True, planned
    assert [file["name"] for file in planned["component"]["files"]] == [name, "globals.sql"]
    assert not dest.exists()

    result = module("pg_backup", options(postgres, filled, dest, **chosen))
    assert result["changed"] is True, result
    component = result["component"]
    with postgres.connect(filled) as connection:
        assert component["counts"] == counts(connection)
    assert component["counts"]["Odd schema.two\nlines"] == 2
    assert restore(postgres, dest / name, f"restored_{filled}") == component["counts"]
    for file in component["files"]:
        data = (dest / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    listed = {dest / file["name"] for file in component["files"]}
    assert {path for path in dest.rglob("*") if path.is_file()} == listed
    assert sorted(path.name for path in dest.iterdir()) == sorted([name, "globals.sql"])


@pytest.mark.parametrize("chosen", [DIRECTORY, {"format": "plain"}], ids=["directory", "plain"])
def test_files_are_private_whatever_the_umask(
    module: ModuleRunner, postgres16: PostgresServer, filled16: str, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    before = os.umask(0)
    try:
        result = module("pg_backup", options(postgres16, filled16, tmp_path / "d", **chosen))
    finally:
        os.umask(before)
    assert result["changed"] is True, result
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "d").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}


def test_a_directory_being_written_is_private(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", **DIRECTORY, compression=9))
    finally:
        os.umask(before)
    pids = freeze_directory_dump(process, tmp_path / "d")
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "d").rglob("*")}
    resume(pids)
    assert modes == {True: 0o700, False: 0o600}
    assert json.loads(process.communicate(timeout=60)[0])["changed"] is True


@pytest.mark.parametrize(
    "case",
    [
        ({"format": "plain"}, '$REAL "$@" | head -c 3000', "is not complete: it "),
        ({"format": "plain"}, '$REAL "$@" | head -n -9', "it has not pg_dump's last line at its end"),
        ({"format": "plain"}, '$REAL "$@" | sed "/^7$/d"', "has 6 rows of Odd schema.it's"),
        ({"format": "plain", "compression": "gzip"}, '$REAL "$@" | head -c 900', "gzip ended with 1"),
        (DIRECTORY, f"{LOSE}/*.dat.gz", "Could not read the new dump"),
        ({"format": "directory"}, f"{LOSE}/toc.dat", "Could not read the new dump"),
    ],
    ids=["cut in rows", "without its end", "a row less", "cut gzip", "no data", "no table of contents"],
)
def test_a_dump_that_is_not_whole_gets_no_name(
    dump: Callable[..., Any], postgres16: PostgresServer, tmp_path: Path, case: tuple[dict[str, Any], str, str]
) -> None:
    """pg_dump ends with 0 and has lost something: only the full read can tell."""
    chosen, script, sentence = case
    result = dump(**chosen, bin_dir=broken_dump(postgres16, tmp_path / "bin", script))
    assert result["failed"], result
    assert sentence in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []


def test_without_verify_pg_dump_is_believed(
    dump: Callable[..., Any], postgres16: PostgresServer, tmp_path: Path
) -> None:
    result = dump(verify=False, bin_dir=broken_dump(postgres16, tmp_path / "bin", '$REAL "$@" | head -c 1000'))
    assert result["changed"] is True, result
    assert result["component"]["read_in_full"] is False


@pytest.mark.parametrize(
    "case",
    [
        ({"schemas": ["audit"]}, ["audit.log_2025", "audit.users"]),
        ({"schemas": ['"Odd schema"', "aud*"], "exclude_tables": ["audit.log_*", "*.*lines"]},
         ['Odd schema.it\'s a "table" x', "audit.users"]),
        ({"tables": ["public.claims", "AUDIT.users"]}, ["audit.users", "public.claims"]),
        ({"tables": ["parted*"]}, ["public.parted_high", "public.parted_low"]),
        ({"tables": ["by_mood*"]}, ["public.by_mood"]),
        ({"exclude_schemas": ["public", "odd*", '"Odd"*']}, ["audit.log_2025", "audit.users"]),
    ],
    ids=["schema", "schemas and not tables", "tables", "partitions", "partitions by enum", "not schemas"],
)  # fmt: skip
@pytest.mark.parametrize("chosen", [{}, DIRECTORY, {"format": "plain"}], ids=["custom", "directory", "plain"])
def test_what_is_chosen_is_what_is_dumped_and_counted(
    dump: Callable[..., Any],
    postgres16: PostgresServer,
    tmp_path: Path,
    chosen: dict[str, Any],
    case: tuple[dict[str, list[str]], list[str]],
) -> None:
    patterns, kept = case
    result = dump(globals=False, **chosen, **patterns)
    assert result["changed"] is True, result
    component = result["component"]
    assert sorted(component["counts"]) == sorted(kept)
    none: dict[str, list[str]] = {"schemas": [], "tables": [], "exclude_schemas": [], "exclude_tables": []}
    assert component["filter"] == none | patterns
    target = f"chosen_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"
    name = component["files"][0]["name"].partition("/")[0]
    # as pg_dump has it, neither the schema of a table nor the type of a column is chosen with the table
    before = "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE SCHEMA audit" if "tables" in patterns else ""
    assert restore(postgres16, tmp_path / "d" / name, target, before) == component["counts"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("patterns", [{"schemas": ["auditt"]}, {"tables": ["audit.users", "audit.nosuch"]}])
def test_a_pattern_that_matches_nothing(
    dump: Callable[..., Any], tmp_path: Path, patterns: dict[str, list[str]], check: bool
) -> None:
    result = dump(check=check, **patterns)
    assert result["failed"]
    assert "Could not list what to dump of database" in result["msg"]
    assert "Correct the patterns of schemas and tables" in result["msg"]
    assert not (tmp_path / "d").exists() or list((tmp_path / "d").iterdir()) == []


def test_tables_that_are_left_out_need_not_be_readable(
    module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path
) -> None:
    postgres16.create_database(
        "partly",
        "CREATE ROLE reader LOGIN PASSWORD 'reader'; CREATE TABLE closed (id int)",
        "CREATE TABLE open (id int); GRANT SELECT ON open TO reader",
    )
    login = {"login_user": "reader", "login_password": "reader", "globals": False}
    refused = module("pg_backup", {**options(postgres16, "partly", tmp_path / "a"), **login})
    assert refused["failed"]
    assert "permission denied for table closed" in refused["msg"]
    assert "Log in as a role that may read all of it" in refused["msg"]
    assert list((tmp_path / "a").iterdir()) == []
    result = module("pg_backup", {**options(postgres16, "partly", tmp_path / "b", exclude_tables=["closed"]), **login})
    assert result["component"]["counts"] == {"public.open": 0}


PROPERTIES = """
ALTER DATABASE {db} OWNER TO keeper;
ALTER DATABASE {db} CONNECTION LIMIT 17;
COMMENT ON DATABASE {db} IS 'what it''s for';
GRANT CREATE ON DATABASE {db} TO keeper WITH GRANT OPTION;
ALTER DATABASE {db} SET search_path TO "$user", public, 'Odd schema';
ALTER DATABASE {db} SET app.note TO '100% o''clock \\';
ALTER ROLE keeper IN DATABASE {db} SET work_mem TO '64MB';
"""
SETTINGS = """
SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %s) ORDER BY setrole
"""


def test_the_properties_make_the_same_database_again(
    module: ModuleRunner, postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with postgres.connect(database) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE keeper; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        connection.execute(PROPERTIES.format(db=database))
        result = module("pg_backup", options(postgres, database, tmp_path / "d"))
        found = result["component"]["properties"]
        assert (found["owner"], found["encoding"], found["collate"]) == ("keeper", "UTF8", "C.UTF-8")
        assert (found["provider"], found["locale"], found["connection_limit"]) == ("libc", None, 17)
        assert found["comment"] == "what it's for"
        again = f"{database} 100% again"
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(again)))
        for statement in found["settings"]:
            (text,) = connection.execute("SELECT format(%s::text, %s::text)", (statement, again)).fetchone() or ("",)
            connection.execute(text)
        assert connection.execute(SETTINGS, (again,)).fetchall() == connection.execute(SETTINGS, (database,)).fetchall()
        acl = connection.execute("SELECT datacl::text[] FROM pg_database WHERE datname = %s", (database,)).fetchone()
    assert acl == (found["acl"],)
    assert "keeper=CTc/keeper" in found["acl"] or "keeper=C*Tc/keeper" in found["acl"], found["acl"]


def test_roles_come_with_their_grants(
    module: ModuleRunner, postgres16: PostgresServer, filled16: str, tmp_path: Path
) -> None:
    postgres16.execute("CREATE ROLE team; CREATE ROLE member LOGIN PASSWORD 'x'; GRANT team TO member")
    assert module("pg_backup", options(postgres16, filled16, tmp_path / "d"))["changed"] is True
    text = (tmp_path / "d" / "globals.sql").read_text()
    assert "GRANT team TO member" in text
    assert "ALTER ROLE member WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN" in text


def peak_mebibytes(process: subprocess.Popen[str]) -> float:
    """Watch a process to its end; the most memory that it had."""
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return peak / 1024


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param({}, id="custom"),
        pytest.param({**DIRECTORY, "compression": "none"}, id="directory", marks=pytest.mark.slow),
        pytest.param({"format": "plain"}, id="plain", marks=pytest.mark.slow),
        pytest.param({"format": "plain", "compression": "gzip:1"}, id="plain-gzip"),
    ],
)
def test_memory_stays_flat(
    module: ModuleRunner, postgres16: PostgresServer, large: str, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    arguments = options(postgres16, large, tmp_path / "d", **{"compression": "none", **chosen})
    arguments["progress_file"] = str(tmp_path / "progress")
    process = module.start("pg_backup", arguments)
    peak = peak_mebibytes(process)
    result = json.loads(process.communicate()[0])
    assert result["changed"] is True, result
    assert result["component"]["counts"] == {"public.bulk": 16 * 6000}
    written = sum(file["bytes"] for file in result["component"]["files"])
    assert written > (200 << 20)
    shutil.rmtree(tmp_path / "d")
    assert 10 < peak < 80


def test_progress_names_the_table_and_its_share(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    told = tmp_path / "progress.json"
    arguments = options(postgres16, bulk, tmp_path / "d", **DIRECTORY, compression=9, progress_file=str(told))
    process = module.start("pg_backup", arguments)
    pids = freeze_directory_dump(process, tmp_path / "d")

    def reading() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {}
        return found

    wait_for(lambda: reading().get("item"), "no progress with a table")
    found = reading()
    assert found["step"] == "dump"
    assert found["item"] in ("public.bulk", "public.bulk2")
    assert 0 < found["bytes_done"] <= found["bytes_total"]
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    resume(pids)
    assert json.loads(process.communicate(timeout=60)[0])["changed"] is True
    assert not told.exists()


def test_two_backups_of_one_database_at_once(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    first = module.start("pg_backup", options(postgres16, bulk, tmp_path / "a", **DIRECTORY, compression=9))
    pids = freeze_directory_dump(first, tmp_path / "a")
    same = module("pg_backup", options(postgres16, bulk, tmp_path / "a"))
    assert same["failed"]
    assert "Another backup is writing into" in same["msg"]
    other = module("pg_backup", options(postgres16, bulk, tmp_path / "b"))
    assert other["changed"] is True, other
    resume(pids)
    result = json.loads(first.communicate(timeout=60)[0])
    assert result["changed"] is True, result
    assert result["component"]["counts"] == other["component"]["counts"] == {"public.bulk": 6000, "public.bulk2": 6000}


def test_a_worker_meets_a_waiting_lock(
    module: ModuleRunner, postgres16: PostgresServer, filled16: str, tmp_path: Path
) -> None:
    with postgres16.connect(filled16) as connection, connection.transaction():
        connection.execute("LOCK TABLE public.claims IN ACCESS EXCLUSIVE MODE")
        arguments = options(postgres16, filled16, tmp_path / "d", **DIRECTORY, lock_timeout="200ms")
        result = module("pg_backup", arguments)
    assert result["failed"]
    assert "Another session holds a lock on a table" in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize("victim", [0, -1], ids=["leader or worker", "another of them"])
def test_pg_dump_of_a_directory_is_killed(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path, victim: int
) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", **DIRECTORY, compression=9))
    pids = sorted(freeze_directory_dump(process, tmp_path / "d"))
    os.kill(pids[victim], signal.SIGKILL)
    resume(pids)
    result = json.loads(process.communicate(timeout=60)[0])
    assert result["failed"]
    assert f"Could not dump database '{bulk}': pg_dump ended with" in result["msg"]
    assert list((tmp_path / "d").iterdir()) == []
    wait_for(lambda: not programs("pg_dump", str(tmp_path / "d")), "pg_dump still runs")


def test_sigterm_ends_a_directory_with_its_workers(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    process = module.start("pg_backup", options(postgres16, bulk, tmp_path / "d", **DIRECTORY, compression=9))
    resume(freeze_directory_dump(process, tmp_path / "d"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list((tmp_path / "d").iterdir()) == []
    wait_for(lambda: not programs("pg_dump", str(tmp_path / "d")), "pg_dump still runs")


def test_a_killed_module_takes_pg_dump_with_it_and_the_next_run_cleans_up(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path
) -> None:
    arguments = options(postgres16, bulk, tmp_path / "d", **DIRECTORY, compression=9)
    process = module.start("pg_backup", arguments)
    pids = freeze_directory_dump(process, tmp_path / "d")
    process.kill()
    process.communicate(timeout=60)
    resume(pids)
    wait_for(lambda: not programs("pg_dump", str(tmp_path / "d")), "pg_dump outlives its module")
    assert [path.name[:14] for path in (tmp_path / "d").iterdir()] == [".database.dir."]
    result = module("pg_backup", arguments)
    assert result["changed"] is True, result
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["database.dir", "globals.sql"]


def test_a_pg_dump_that_waits_for_a_lock_ends_with_its_module(
    module: ModuleRunner, postgres16: PostgresServer, filled16: str, tmp_path: Path
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'groundwork pg_backup %'"
    with postgres16.connect(filled16) as connection, postgres16.connect() as other:
        with connection.transaction():
            connection.execute("LOCK TABLE public.claims IN ACCESS EXCLUSIVE MODE")
            process = module.start("pg_backup", options(postgres16, filled16, tmp_path / "d"))
            wait_for(lambda: other.execute(waiting).fetchone() == (1,), "pg_dump does not wait")
            process.kill()
            process.communicate(timeout=60)
        wait_for(lambda: other.execute(mine).fetchone() == (0,), "connections are left")


@pytest.mark.parametrize("chosen", [DIRECTORY, {"format": "plain"}], ids=["directory", "plain"])
def test_the_disk_is_full(
    module: ModuleRunner, postgres16: PostgresServer, bulk: str, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    with disks.small_disk(tmp_path / "small", "4m") as folder:
        result = module("pg_backup", options(postgres16, bulk, folder / "d", **chosen))
        assert result["failed"]
        assert "No space left on device" in result["msg"]
        assert "Free space on that file system, then run again." in result["msg"]
        wait_for(lambda: list((folder / "d").iterdir()) == [], "files are left")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"jobs": 2}, "Set format to directory, or leave jobs out."),
        ({"format": "directory", "jobs": 0}, "Use 1 or more."),
        ({"compression": "zstd:30"}, "Use a level from 1 to 22."),
    ],
)
def test_unusable_options(
    module: ModuleRunner, postgres16: PostgresServer, tmp_path: Path, wrong: dict[str, Any], sentence: str
) -> None:
    result = module("pg_backup", {**options(postgres16, "postgres", tmp_path / "d"), **wrong})
    assert result["failed"]
    assert sentence in result["msg"]
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("method", ["lz4", "zstd"])
def test_a_client_that_was_built_without_a_method(
    module: ModuleRunner, postgres18: PostgresServer, tmp_path: Path, method: str, check: bool
) -> None:
    linked = subprocess.run(["ldd", postgres18.bindir / "pg_dump"], check=True, capture_output=True, text=True).stdout
    assert method not in linked, "the client of these tests has it now: find another one for this test"
    result = module("pg_backup", options(postgres18, "postgres", tmp_path / "d", compression=method), check=check)
    assert result["failed"]
    assert "Set compression to gzip, or use a pg_dump that was built with that method." in result["msg"]
    assert not (tmp_path / "d").exists() or list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ({"compression": "lz4"}, "database.dump"),
        ({"compression": "zstd:3"}, "database.dump"),
        ({"format": "plain", "compression": "lz4:1"}, "database.sql.lz4"),
        ({"format": "plain", "compression": "zstd"}, "database.sql.zst"),
        ({**DIRECTORY, "compression": "zstd:1"}, "database.dir"),
        ({**DIRECTORY, "compression": "lz4"}, "database.dir"),
    ],
    ids=["custom-lz4", "custom-zstd", "plain-lz4", "plain-zstd", "directory-zstd", "directory-lz4"],
)
def test_lz4_and_zstd_from_a_container_that_has_them(
    module: ModuleRunner, postgres17: ContainerServer, tmp_path: Path, chosen: dict[str, Any], name: str
) -> None:
    database = f"compressed_{hashlib.sha256(str(chosen).encode()).hexdigest()[:8]}"
    postgres17.create_database(database, SCHEMA)
    with postgres17.connect(database) as connection:
        expected = counts(connection)
    arguments = {"container": postgres17.name, "database": database, "dest": str(tmp_path / "d"), **chosen}
    result = module("pg_backup", arguments)
    assert result["changed"] is True, result
    assert result["component"]["counts"] == expected
    assert result["component"]["compression"] == chosen["compression"]
    assert (tmp_path / "d" / name).exists()
    postgres17.create_database(f"{database}_again")
    inside = ["docker", "exec", "-i", postgres17.name]
    user = ["-U", "postgres", "-d", f"{database}_again"]
    if name == "database.dir":
        tar = subprocess.run(["tar", "-C", tmp_path / "d", "-cf", "-", name], check=True, capture_output=True).stdout
        subprocess.run([*inside, "tar", "-C", "/tmp", "-xf", "-"], input=tar, check=True)
        subprocess.run([*inside, "pg_restore", *user, "--exit-on-error", f"/tmp/{name}"], check=True)
        subprocess.run([*inside, "rm", "-r", f"/tmp/{name}"], check=True)
    elif name == "database.dump":
        data = (tmp_path / "d" / name).read_bytes()
        subprocess.run([*inside, "pg_restore", *user, "--exit-on-error"], input=data, check=True)
    else:
        program = chosen["compression"].partition(":")[0]
        text = subprocess.run([program, "-dc", tmp_path / "d" / name], check=True, capture_output=True).stdout
        subprocess.run([*inside, "psql", "-Xq", "-v", "ON_ERROR_STOP=1", *user], input=text, check=True)
    with postgres17.connect(f"{database}_again") as connection:
        assert counts(connection) == expected
