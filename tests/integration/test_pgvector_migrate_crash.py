# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: what is true after the server, or the lock, is gone in the middle."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from support.migrations import Bench
from support.modules import ModuleRunner
from support.postgres import PostgresServer

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
    assert "Could not keep the lock of migrations" in results[0]["msg"], results
    assert "duplicate key value" in results[1]["msg"], results
    assert bench18.query("SELECT * FROM runs") == [(1,)]
    assert bench18.ledger() == [("0002", "applied")]
    assert [entry["version"] for entry in bench18.run()["applied"]] == ["0003"]
