# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: what is true after the server, or the lock, is gone in the middle."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.migrations import Bench
from support.modules import ModuleRunner
from support.postgres import PostgresServer

from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import LOCK_KEYS, WORK_KEYS

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '-- ''0002_b.sql''%' AND state = 'active'"


def test_server_that_is_killed_in_the_middle(module: ModuleRunner, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="gw-crash-", dir="/tmp"))
    server = PostgresServer.start(18, folder)
    try:
        server.create_database("crash")
        bench = Bench(module, server, "crash", tmp_path)
        bench.write(
            {"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE TABLE b (x int); SELECT pg_sleep(30)"}
        )
        process = module.start("pgvector_migrate", bench.options())
        bench.wait(lambda: bench.query(SLEEPING) == [(1,)])
        server.down("immediate")
        failed = json.loads(process.communicate(timeout=30)[0])
        assert "0002_b.sql" in failed["msg"]
        assert [entry["version"] for entry in failed["applied"]] == ["0001"]
        server.up()
        assert bench.ledger() == [("0001", "applied")]
        assert not bench.exists("b")
        bench.write({"0002_b.sql": "CREATE TABLE b (x int)"})
        assert [entry["version"] for entry in bench.run()["applied"]] == ["0002"]
    finally:
        server.down("immediate")
        shutil.rmtree(folder)


def test_a_lost_lock_does_not_apply_a_file_twice(bench18: Bench) -> None:
    bench18.execute("CREATE TABLE runs (x int)")
    bench18.write({"0002_b.sql": "INSERT INTO runs VALUES (1); SELECT pg_sleep(3)", "0003_c.sql": "SELECT 1"})
    first = bench18.module.start("pgvector_migrate", bench18.options())
    bench18.wait(lambda: bench18.query(SLEEPING) == [(1,)])
    bench18.query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    second = bench18.module.start("pgvector_migrate", bench18.options())
    results = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert "The lock of migrations was lost" in results[0]["msg"], results
    assert "duplicate key value" in results[1]["msg"], results
    assert bench18.query("SELECT * FROM runs") == [(1,)]
    assert bench18.ledger() == [("0002", "applied")]
    assert [entry["version"] for entry in bench18.run()["applied"]] == ["0003"]


HOLDERS = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid::bigint = {} "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# A statement that ends when the test lets it, and a second later: a runner looks for its lock once a second.
GATE = "SELECT pg_advisory_xact_lock_shared(7), pg_sleep(1.2)"
RUNNING = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{GATE}%' AND state = 'active'"
LOOKING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT activity.pid, %' AND pid <> pg_backend_pid()"
OUTSIDE = f"CREATE TABLE b (x int);\nVACUUM b;\nSET ROLE pg_monitor;\n{GATE};\nDROP TABLE b;\n"


@contextmanager
def at_work(bench: Bench, text: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose file has come to GATE, where it stays for the length of the block."""
    bench.write({"0002_b.sql": text})
    with bench.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(7)")
        process = bench.module.start("pgvector_migrate", bench.options())
        bench.wait(lambda: bench.query(RUNNING) == [(1,)])
        yield process


def lose_the_lock(bench: Bench) -> None:
    """End the lock's session while a statement outside of transactions runs."""
    assert len(bench.query(HOLDERS.format(WORK_KEYS[1]))) == 1
    assert len(bench.query(f"SELECT pg_terminate_backend(pid) FROM ({HOLDERS.format(LOCK_KEYS[1])})")) == 1


def test_a_lost_lock_stops_a_file_outside_of_transactions(bench: Bench) -> None:
    with at_work(bench, OUTSIDE) as process:
        lose_the_lock(bench)
    failed = json.loads(process.communicate(timeout=60)[0])
    assert "The lock of migrations was lost" in failed["msg"], failed
    assert "0002_b.sql was stopped before the statement in line 5" in failed["msg"]
    assert failed["failed_migration"]["line"] == 5
    assert bench.exists("b")
    assert bench.ledger() == [("0002", "failed")]
    assert [entry["version"] for entry in bench.run(resume=True)["applied"]] == ["0002"]
    assert not bench.exists("b")


def test_no_second_run_starts_beside_one_that_lost_its_lock(bench18: Bench) -> None:
    with at_work(bench18, OUTSIDE) as process:
        lose_the_lock(bench18)
        second = bench18.run(lock_wait=0.3, resume=True)
        assert "Another run of migrations holds the lock" in second["msg"], second
        assert "pid " in second["msg"]
        check = bench18.run(check=True, resume=True)
        assert "Another run of migrations is at work" in str(check.get("warnings")), check
    assert "was lost" in json.loads(process.communicate(timeout=60)[0])["msg"]


def test_the_last_statement_is_recorded_although_the_lock_is_lost(bench18: Bench) -> None:
    with at_work(bench18, f"CREATE TABLE b (x int);\nVACUUM b;\n{GATE};\n") as process:
        lose_the_lock(bench18)
    result = json.loads(process.communicate(timeout=60)[0])
    assert [entry["version"] for entry in result["applied"]] == ["0002"], result
    assert bench18.ledger() == [("0002", "applied")]


def test_a_run_waits_for_what_a_killed_one_left_at_work(bench18: Bench) -> None:
    with at_work(bench18, f"CREATE TABLE b (x int);\nVACUUM b;\n{GATE};\n") as process:
        process.kill()
        process.communicate()
        second = bench18.module.start("pgvector_migrate", bench18.options())
        bench18.wait(lambda: bench18.query(LOOKING) == [(1,)])
        assert bench18.query(RUNNING) == [(1,)]
    result = json.loads(second.communicate(timeout=60)[0])
    assert bench18.query(RUNNING) == [(0,)]
    assert "was interrupted" in result["msg"], result


def test_the_second_lock_survives_what_a_file_discards(bench18: Bench) -> None:
    with at_work(bench18, f"VACUUM;\nDISCARD ALL;\n{GATE};\n") as process:
        assert len(bench18.query(HOLDERS.format(WORK_KEYS[1]))) == 1
    assert json.loads(process.communicate(timeout=60)[0])["schema_version"] == "0002"
