# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_restore and everything that goes wrong: the live database is untouched, and the next run goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import backup_sets
from support.backup_sets import Sets
from support.disks import small_disk
from support.modules import ModuleRunner
from support.postgres import UNPRIVILEGED, PostgresServer
from support.processes import require_in_no_command_line, stop_child, wait_for
from support.restores import LIVE_ROW, Bench

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import load
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_check import check
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Server
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Tools, environment

TABLES = """
CREATE TABLE claims (id int PRIMARY KEY, body text);
INSERT INTO claims SELECT i, md5(i::text) FROM generate_series(1, 3000) AS i;
"""


def made(sets: Sets, server: PostgresServer, name: str, script: str, change: Any = None, **more: Any) -> Path:
    return sets.dump(server, server.create_database(name, script), change, **more)


@pytest.fixture(scope="module")
def set18(sets: Sets, postgres18: PostgresServer) -> Path:
    return made(sets, postgres18, "faults_18", TABLES, compression="none")


@pytest.fixture(scope="module")
def plain18(sets: Sets, postgres18: PostgresServer) -> Path:
    return made(sets, postgres18, "faults_plain", TABLES, format="plain")


@pytest.fixture(scope="module")
def directory18(sets: Sets, postgres18: PostgresServer) -> Path:
    return made(sets, postgres18, "faults_directory", TABLES, format="directory")


@pytest.fixture
def live(request: pytest.FixtureRequest) -> str:
    """A name of this test's own."""
    return f"f_{zlib.crc32(request.node.nodeid.encode())}"


@pytest.fixture
def bench(module: ModuleRunner, postgres18: PostgresServer, set18: Path, live: str, tmp_path: Path) -> Bench:
    """On a copy of the set, to damage."""
    return Bench(module, postgres18, backup_sets.copied(set18, tmp_path), live).make_live()


@pytest.fixture
def own(module: ModuleRunner, postgres18: PostgresServer, sets: Sets, live: str) -> Callable[..., Bench]:
    """Makes a bench with a set from SQL."""

    def make(script: str, change: Any = None, **more: Any) -> Bench:
        return Bench(module, postgres18, made(sets, postgres18, f"{live}o", script, change, **more), live).make_live()

    return make


def dump_file(set_path: Path) -> Path:
    return set_path / "components" / backup_sets.NAME / "database.dump"


def truncate(set_path: Path) -> None:
    os.truncate(dump_file(set_path), dump_file(set_path).stat().st_size - 100)


def flip_a_bit_in_a_row(set_path: Path) -> None:
    """The dump is not compressed: pg_restore itself would take the row as it is."""
    data = bytearray(dump_file(set_path).read_bytes())
    data[data.index(b"c4ca4238a0b923820dcc509a6f75849b")] ^= 1
    dump_file(set_path).write_bytes(data)


def flip_a_bit_in_the_head(set_path: Path) -> None:
    """pg_restore itself refuses it, too, and cannot say why."""
    data = bytearray(dump_file(set_path).read_bytes())
    data[0] ^= 1
    dump_file(set_path).write_bytes(data)


def edit_the_manifest(set_path: Path) -> None:
    manifest = set_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"public.claims": 3000', '"public.claims": 2999'))


def make_the_format_newer(set_path: Path) -> None:
    manifest = set_path / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "schema_version": told["schema_version"] + 1}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, "is not what the backup wrote"),
        (lambda set_path: dump_file(set_path).unlink(), "No such file or directory"),
        (flip_a_bit_in_a_row, "is not what the backup wrote"),
        (flip_a_bit_in_the_head, "is not what the backup wrote"),
        (edit_the_manifest, "The manifest is not as it was written: its checksum does not match."),
        (make_the_format_newer, "Use the version of the collection that wrote it"),
        (lambda set_path: (set_path / "manifest.json").unlink(), "manifest.json: No such file"),
        (shutil.rmtree, "is no folder of a backup set"),
    ],
    ids=[
        "truncated",
        "deleted",
        "flipped-bit",
        "flipped-head",
        "edited-manifest",
        "newer-format",
        "no-manifest",
        "no-set",
    ],
)
def test_a_damaged_set_is_refused(bench: Bench, damage: Callable[[Path], None], sentence: str) -> None:
    damage(bench.set_path)
    bench.refused("restore", sentence, force=True, check=True)
    bench.refused("restore", sentence, force=True)


def test_a_data_file_of_the_directory_format_is_missing(
    module: ModuleRunner, postgres18: PostgresServer, directory18: Path, live: str, tmp_path: Path
) -> None:
    bench = Bench(module, postgres18, backup_sets.copied(directory18, tmp_path), live).make_live()
    largest = max(bench.set_path.glob("components/*/database.dir/*.dat*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    bench.refused("stage", "No such file or directory")


def test_a_plain_script_that_is_cut_is_refused_though_psql_takes_it(
    module: ModuleRunner, postgres18: PostgresServer, plain18: Path, live: str, tmp_path: Path
) -> None:
    """With a manifest that fits: only the missing end tells."""
    bench = Bench(module, postgres18, backup_sets.copied(plain18, tmp_path), live).make_live()
    script = bench.set_path / "components" / backup_sets.NAME / "database.sql"
    lines = script.read_bytes().splitlines(keepends=True)
    inside = next(number for number, line in enumerate(lines) if line.startswith(b"1500\t"))
    script.write_bytes(b"".join(lines[:inside]))
    backup_sets.measured(bench.set_path)
    bench.refused("stage", "the script does not end as pg_dump ends one, so a part of it is missing")


def test_a_truncated_dump_with_a_manifest_that_fits_is_refused(bench: Bench) -> None:
    truncate(bench.set_path)
    backup_sets.measured(bench.set_path)
    bench.refused("stage", "pg_restore ended with 1", jobs=2)


def test_a_component_that_is_not_there(bench: Bench) -> None:
    bench.refused("stage", "has no component 'other'; it has shop. Correct component.", component="other")


def test_rows_that_are_not_those_of_the_backup_are_refused(own: Callable[..., Bench]) -> None:
    def untrue(component: dict[str, Any], _dest: Path) -> None:
        component["counts"] = {**component["counts"], "public.claims": 2999, "public.gone": 3}

    bench = own(TABLES, untrue)
    result = bench.refused("restore", "does not hold the rows of set", force=True)
    assert result["differences"] == [
        "public.claims has 3000 rows instead of 2999",
        "public.gone is missing (3 rows)",
    ]


def test_an_extension_that_is_missing_is_refused(own: Callable[..., Bench]) -> None:
    bench = own(TABLES, lambda component, _dest: component["extensions"].update({"postgis": "3.5"}))
    bench.refused("stage", "lacks the extensions postgis")


def test_another_version_of_an_extension_is_a_warning(own: Callable[..., Bench]) -> None:
    bench = own(TABLES, lambda component, _dest: component["extensions"].update({"plpgsql": "0.9"}))
    result = bench.run("stage")
    assert result["changed"] is True, result
    assert "Extension plpgsql is 1.0 here and was 0.9 in the dump." in json.dumps(result["warnings"])


def test_an_invalid_index_is_refused(bench: Bench) -> None:
    assert bench.run("stage")["changed"] is True
    bench.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'claims_pkey'::regclass", bench.staged)
    params = {**bench.options("stage"), "database": "postgres", "ssl_mode": "prefer", "ca_cert": None}
    server = Server(Tools(environment(params, "test"), folder=bench.server.bindir), params, "postgres")
    dump = load(bench.set_path, backup_sets.NAME)
    with pytest.raises(StateError, match=r"has invalid indexes: public\.claims_pkey"):
        check(dump, server, bench.staged, jobs=1, analyze=False)


def test_a_constraint_that_fails_in_the_restore(own: Callable[..., Bench]) -> None:
    """The function of the check finds its table by the search path, which a restore empties."""
    bench = own(
        "CREATE TABLE limits (most int); INSERT INTO limits VALUES (10);"
        "CREATE FUNCTION fits(int) RETURNS bool LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN $1 <= (SELECT max(most) FROM limits); END $$;"
        "CREATE TABLE parts (id int CHECK (fits(id))); INSERT INTO parts VALUES (1)"
    )
    result = bench.refused("restore", 'relation "limits" does not exist', force=True)
    assert result["rc"] == 1
    kept = bench.run("stage", keep_failed=True)
    assert kept["failed"]
    assert bench.databases() == {bench.live, bench.staged}
    assert bench.state(bench.staged) == "failed"
    assert "is not complete (its state is failed)" in bench.run("swap")["msg"]
    bench.refused("stage", 'relation "limits" does not exist')


def test_a_missing_role(own: Callable[..., Bench], live: str) -> None:
    bench = own(f"CREATE ROLE {live}r; {TABLES} ALTER TABLE claims OWNER TO {live}r", globals=False)
    bench.execute(f"DROP DATABASE {live}o", "postgres")
    bench.execute(f"DROP ROLE {live}r", "postgres")
    bench.refused("stage", f'role "{live}r" does not exist')
    bench.refused("stage", "Create the role, or set roles: true with a set that holds globals.sql.")


def test_a_client_that_is_too_old_for_the_dump(
    module: ModuleRunner, postgres16: PostgresServer, postgres18: PostgresServer, set18: Path, live: str
) -> None:
    bench = Bench(module, postgres18, set18, live).make_live()
    sentence = "pg_restore 18 or newer is needed for a dump of pg_dump 18"
    bench.refused("stage", sentence, check=True, bin_dir=str(postgres16.bindir))
    bench.refused("stage", sentence, bin_dir=str(postgres16.bindir))


def test_a_server_that_is_older_than_the_dump(
    module: ModuleRunner, postgres16: PostgresServer, postgres18: PostgresServer, set18: Path, live: str
) -> None:
    bench = Bench(module, postgres16, set18, live).make_live()
    bench.refused("stage", "and this server is older (16", bin_dir=str(postgres18.bindir))


def test_a_dump_of_an_older_server_goes_to_a_newer_one(
    module: ModuleRunner, sets: Sets, postgres16: PostgresServer, postgres18: PostgresServer, live: str
) -> None:
    bench = Bench(module, postgres18, made(sets, postgres16, f"{live}o", TABLES), live).make_live()
    assert bench.run("restore", force=True)["changed"] is True
    assert bench.execute("SELECT count(*) FROM claims") == [(3000,)]


def test_a_wrong_password(bench: Bench) -> None:
    canary = "canary-b026324c"
    result = bench.refused("stage", "rejected the password of user 'postgres'", login_password=canary)
    assert canary not in result["_printed"]


def test_a_role_that_may_create_no_database(bench: Bench, live: str) -> None:
    bench.execute(f"CREATE ROLE {live}p LOGIN PASSWORD 'plain'")
    bench.refused("stage", "permission denied to create database", login_user=f"{live}p", login_password="plain")


def child(module: subprocess.Popen[str]) -> int:
    """The pg_restore of this module run, stopped."""
    return stop_child(module, "pg_restore", "--exit-on-error")


def test_the_password_is_in_no_process_list(bench: Bench, live: str) -> None:
    canary = "canary-26ab0db9"
    bench.execute(f"CREATE ROLE {live}s SUPERUSER LOGIN PASSWORD '{canary}'")
    process = bench.start("stage", login_user=f"{live}s", login_password=canary)
    pid = child(process)
    require_in_no_command_line(canary, process)
    os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["changed"] is True
    assert canary not in out + err


def test_the_module_is_killed_while_it_restores_and_the_next_run_goes_on(bench: Bench) -> None:
    process = bench.start("stage")
    pid = child(process)
    busy = bench.run("stage")
    assert f"Another pg_restore is at work on database '{bench.live}'." in busy["msg"]
    process.kill()
    process.communicate(timeout=60)
    assert bench.execute("SELECT note FROM present") == LIVE_ROW
    assert bench.state(bench.staged) == "staging"
    os.kill(pid, signal.SIGCONT)  # it outlives the module, and writes into the database that the next run drops
    result = bench.run("restore", force=True)
    assert result["changed"] is True, result
    assert f"drop database {bench.staged}" in result["actions"]
    assert bench.execute("SELECT count(*) FROM claims") == [(3000,)]
    assert bench.execute("SELECT note FROM present", bench.before) == LIVE_ROW


def test_the_module_is_terminated_while_it_restores(bench: Bench) -> None:
    process = bench.start("stage")
    pid = child(process)
    process.send_signal(signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 143
    bench.require_untouched()


def test_pg_restore_is_killed(bench: Bench) -> None:
    process = bench.start("stage")
    os.kill(child(process), signal.SIGKILL)
    result = json.loads(process.communicate(timeout=60)[0])
    assert result["rc"] == -signal.SIGKILL
    bench.require_untouched()


def renaming(bench: Bench) -> bool:
    """Whether a swap waits for the sessions of the live database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'ALTER DATABASE%RENAME%'"
    return bench.execute(query, "postgres") != [(0,)]


def is_closed(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_a_transaction_may_end_and_idle_sessions_are_closed_before_the_swap(bench: Bench) -> None:
    assert bench.run("stage")["changed"] is True
    with bench.server.connect(bench.live) as idle, bench.server.connect(bench.live) as busy:
        busy.execute("BEGIN; INSERT INTO present VALUES ('in time')")
        process = bench.start("swap", drain_seconds=60)
        wait_for(lambda: renaming(bench), "no rename")
        wait_for(lambda: is_closed(idle), "the idle session goes on")
        busy.execute("COMMIT")
        result = json.loads(process.communicate(timeout=60)[0])
    assert result["changed"] is True, result
    assert result["ended_sessions"] >= 1
    assert bench.execute("SELECT count(*) FROM claims") == [(3000,)]
    assert bench.execute("SELECT note FROM present ORDER BY note", bench.before) == [("in time",), *LIVE_ROW]


def test_a_transaction_that_does_not_end_is_ended(bench: Bench) -> None:
    assert bench.run("stage")["changed"] is True
    with bench.server.connect(bench.live) as busy:
        busy.execute("BEGIN; INSERT INTO present VALUES ('too late')")
        result = bench.run("swap", drain_seconds=0)
        assert result["changed"] is True, result
        assert result["ended_sessions"] == 1
        with pytest.raises(psycopg.OperationalError):
            busy.execute("COMMIT")
    assert bench.execute("SELECT note FROM present", bench.before) == LIVE_ROW


def test_a_prepared_transaction_stops_the_swap(module: ModuleRunner, set18: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="gw-prepared-", dir="/tmp"))
    server = PostgresServer.start(18, folder, max_prepared_transactions="2")
    try:
        bench = Bench(module, server, set18, "prepared").make_live()
        assert bench.run("stage")["changed"] is True
        bench.execute("BEGIN; INSERT INTO present VALUES ('prepared'); PREPARE TRANSACTION 'p'")
        refused = bench.run("swap", drain_seconds=0)
        assert refused["failed"]
        assert "being accessed by other users" in refused["msg"]
        assert bench.execute("SELECT note FROM present") == LIVE_ROW
        bench.execute("ROLLBACK PREPARED 'p'")
        assert bench.run("swap")["changed"] is True
    finally:
        server.down("immediate")
        shutil.rmtree(folder)


# A connection that waited out the rename, and one that the swap ended, which it does not always hear. A server that has
# crashed would tell the next ones that it is in recovery.
ENDED_BY_THE_SWAP = (
    "just been dropped or renamed",
    "administrator command",
    "server closed the connection unexpectedly",
)


class Watcher:
    """Connects to the live database over and over; notes every answer that is neither of the two databases."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.answers: set[str] = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        query = "SELECT concat((to_regclass('present') IS NOT NULL)::int, (to_regclass('claims') IS NOT NULL)::int)"
        # Over TCP, a client that writes to a session that has just been ended can lose what the server said last.
        host = str(self.bench.server.socket_dir)
        while not self.ended.is_set():
            try:
                with self.bench.server.connect(self.bench.live, host=host) as connection:
                    self.answers.update(connection.execute(query).fetchone() or ())
            except psycopg.OperationalError as error:
                if not any(reason in str(error) for reason in ENDED_BY_THE_SWAP):
                    self.answers.add(str(error))

    def __enter__(self) -> Watcher:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def test_the_module_is_killed_in_the_swap_and_the_live_database_always_answers(bench: Bench) -> None:
    assert bench.run("stage")["changed"] is True
    with bench.server.connect(bench.live) as busy, Watcher(bench) as watcher:
        busy.execute("BEGIN; INSERT INTO present VALUES ('open')")
        process = bench.start("swap", drain_seconds=600)
        wait_for(lambda: renaming(bench), "no rename")
        process.kill()
        process.communicate(timeout=60)
        wait_for(lambda: not renaming(bench), "the rename does not end")
        assert bench.databases() == {bench.live, bench.staged}
        result = bench.run("swap", drain_seconds=0)
        assert result["changed"] is True, result
        wait_for(lambda: "01" in watcher.answers, "the new database does not answer")
        with pytest.raises(psycopg.OperationalError):
            busy.execute("COMMIT")
    assert watcher.answers == {"10", "01"}
    assert bench.databases() == {bench.live, bench.before}


def test_a_swap_under_connections_that_keep_coming(bench: Bench) -> None:
    assert bench.run("stage")["changed"] is True
    with Watcher(bench) as watcher:
        wait_for(lambda: watcher.answers, "no answer")
        assert bench.run("swap", drain_seconds=2)["changed"] is True
        wait_for(lambda: "01" in watcher.answers, "the new database does not answer")
        assert bench.run("revert", drain_seconds=2)["changed"] is True
    assert watcher.answers == {"10", "01"}


@pytest.fixture
def cramped(module: ModuleRunner) -> Iterator[PostgresServer]:
    """A server whose databases are on a file system of 64 MiB, and its log of changes is not."""
    folder = Path(tempfile.mkdtemp(prefix="gw-cramped-", dir="/tmp"))
    server = PostgresServer.start(18, folder)
    server.down()
    with small_disk(folder / "disk", "64m") as disk:
        shutil.copytree(server.data / "base", disk / "base")
        shutil.rmtree(server.data / "base")
        (server.data / "base").symlink_to(disk / "base")
        subprocess.run(["chown", "-R", f"{UNPRIVILEGED}:{UNPRIVILEGED}", disk], check=True)
        (disk / "base").chmod(0o700)
        server.up()
        yield server
        server.down("immediate")
    shutil.rmtree(folder)


def test_the_disk_of_the_server_is_full(
    module: ModuleRunner, sets: Sets, postgres18: PostgresServer, cramped: PostgresServer, live: str
) -> None:
    rows = "CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS body FROM generate_series(1, 60000) AS i"
    bench = Bench(module, cramped, made(sets, postgres18, f"{live}o", rows, globals=False), live).make_live()
    bench.refused("restore", "No space left on device", force=True, check_space=False)
    bench.refused("restore", "Free space on the server's disk, then run again.", force=True, check_space=False)
    bench.execute("INSERT INTO present SELECT 'still writes' FROM generate_series(1, 1000)")


def test_what_does_not_fit_is_not_begun(
    module: ModuleRunner, sets: Sets, postgres18: PostgresServer, cramped: PostgresServer, live: str
) -> None:
    rows = "CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS body FROM generate_series(1, 60000) AS i"
    bench = Bench(module, cramped, made(sets, postgres18, f"{live}o", rows), live).make_live()
    roles = bench.execute("SELECT oid FROM pg_roles")
    for action, looks in itertools.product(("measure", "stage", "restore"), (True, False)):
        result = bench.run(action, check=looks, force=True)
        assert result.get("failed"), (action, looks, result)
        assert f"{cramped.data}/base of the server " in result["msg"], result["msg"]
        assert result["space"]["free"] < result["space"]["needed"], result["space"]
    assert bench.execute("SELECT oid FROM pg_roles") == roles
    bench.require_untouched()


def test_the_set_tells_how_much_a_restore_takes(bench: Bench) -> None:
    measured = bench.run("measure")
    assert measured["changed"] is False, measured
    rows = "SELECT pg_relation_size('claims') + pg_relation_size('claims_pkey')"  # vacuum adds its maps to them
    ((taken,),) = bench.execute(rows, "faults_18")
    assert taken <= measured["space"]["needed"] < 2 * taken
    assert measured["space"]["free"] > taken
    backup_sets.retold(bench.set_path, lambda component: component.pop("database_bytes"))
    assert bench.run("measure")["space"] == {"needed": None, "free": None, "path": None}
    assert bench.run("stage")["changed"] is True


def test_tables_of_other_tablespaces_take_no_room_here(own: Callable[..., Bench], postgres18: PostgresServer) -> None:
    elsewhere = Path(tempfile.mkdtemp(prefix="gw-elsewhere-", dir="/tmp"))
    try:
        shutil.chown(elsewhere, UNPRIVILEGED, UNPRIVILEGED)
        with postgres18.connect("postgres") as connection:
            connection.execute(f"CREATE TABLESPACE gw_elsewhere LOCATION '{elsewhere}'".encode())
        bench = own(TABLES.replace("(id int PRIMARY KEY, body text)", "(id int, body text) TABLESPACE gw_elsewhere"))
        assert bench.run("measure")["space"]["needed"] == 0
        with postgres18.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {bench.live}o WITH (FORCE)".encode())
            connection.execute(b"DROP TABLESPACE gw_elsewhere")
    finally:
        shutil.rmtree(elsewhere)


def test_nobody_is_refused_for_a_disk_that_cannot_be_seen(bench: Bench) -> None:
    backup_sets.retold(bench.set_path, lambda component: component.update(database_bytes=1 << 60))
    bench.execute(f"CREATE ROLE {bench.live} LOGIN CREATEDB PASSWORD '{bench.live}'")
    role = {"login_user": bench.live, "login_password": bench.live}
    assert bench.run("measure", **role)["space"] == {"needed": 1 << 60, "free": None, "path": None}
    bench.refused("stage", "takes about 1048576.0 TiB (its size when it was dumped)")


def test_the_server_stops_in_the_middle(module: ModuleRunner, set18: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="gw-stop-", dir="/tmp"))
    server = PostgresServer.start(18, folder)
    try:
        bench = Bench(module, server, set18, "stopped").make_live()
        process = bench.start("stage")
        pid = child(process)
        server.down("immediate")
        os.kill(pid, signal.SIGCONT)
        result = json.loads(process.communicate(timeout=60)[0])
        assert result["failed"]
        assert "Could not restore" in result["msg"]
        server.up()
        assert bench.execute("SELECT note FROM present") == LIVE_ROW
        assert bench.run("stage")["changed"] is True
    finally:
        with contextlib.suppress(AssertionError):
            server.down("immediate")
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"jobs": 0}, "jobs is 0. Set it to 1 or more."),
        ({"bin_dir": "/nonexistent"}, "are not in /nonexistent. Correct bin_dir."),
    ],
)
def test_unusable_options(bench: Bench, wrong: dict[str, Any], sentence: str) -> None:
    bench.refused("stage", sentence, **wrong)


def test_a_target_is_for_stage_only(bench: Bench) -> None:
    bench.refused("restore", "target is for action: stage.", target="other", force=True)
