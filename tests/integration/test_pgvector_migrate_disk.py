# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate when the server's disk is full: a sentence, nothing recorded, and the next run goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import small_disk
from support.migrations import Bench
from support.modules import ModuleRunner
from support.postgres import UNPRIVILEGED, PostgresServer

ROWS = "SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can reach."""
    path = Path(tempfile.mkdtemp(prefix="gw-full-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def small_tablespace(bench: Bench, folder: Path) -> Iterator[str]:
    """A tablespace on a disk of 8 MiB; at the end it has to be empty."""
    name = f"small_{bench.database}"
    with small_disk(folder / "disk", "8m") as disk:
        place = disk / "space"
        place.mkdir()
        os.chown(place, UNPRIVILEGED, UNPRIVILEGED)
        bench.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        yield name
        bench.execute(f"DROP TABLESPACE {name}")


def test_full_tablespace(bench: Bench, folder: Path) -> None:
    with small_tablespace(bench, folder) as space:
        bench.write(
            {
                "0001_a.sql": "CREATE TABLE a (x int)",
                "0002_big.sql": f"CREATE TABLE b (x int);\nCREATE TABLE big TABLESPACE {space} AS {ROWS};\n",
            }
        )
        result = bench.run()
        assert "0002_big.sql, line 2: could not extend file" in result["msg"], result
        assert "(SQLSTATE 53100)" in result["msg"]
        assert "Nothing of this file was kept. The server's disk is full: free space on it" in result["msg"]
        assert bench.ledger() == [("0001", "applied")]
        assert not bench.exists("b")
        bench.write({"0002_big.sql": f"CREATE TABLE big TABLESPACE {space} AS {ROWS} LIMIT 10;\n"})
        assert [entry["version"] for entry in bench.run()["applied"]] == ["0002"]
        bench.execute("DROP TABLE big")


def test_full_tablespace_outside_of_transactions(bench18: Bench, folder: Path) -> None:
    with small_tablespace(bench18, folder) as space:
        index = f"CREATE INDEX CONCURRENTLY i ON big (y) TABLESPACE {space}"
        bench18.write(
            {
                "0001_a.sql": "CREATE TABLE big AS SELECT g AS x, md5(g::text) || md5((-g)::text) AS y "
                "FROM generate_series(1, 200000) g",
                "0002_i.sql": index,
            }
        )
        result = bench18.run()
        assert "0002_i.sql, line 1: could not " in result["msg"], result
        assert "(SQLSTATE 53100)" in result["msg"]
        assert "left the invalid index i" in result["msg"]
        assert bench18.ledger() == [("0001", "applied"), ("0002", "failed")]
        bench18.execute("DELETE FROM big WHERE x > 100")
        assert [entry["version"] for entry in bench18.run(resume=True)["applied"]] == ["0002"]
        bench18.execute("DROP TABLE big")


def test_full_disk_of_the_whole_server(module: ModuleRunner, folder: Path, tmp_path: Path) -> None:
    with small_disk(folder / "disk", "100m") as disk:
        server = PostgresServer.start(18, disk / "server", wal_level="minimal", max_wal_senders="0")
        try:
            server.create_database("full")
            bench = Bench(module, server, "full", tmp_path)
            bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
            bench.run()
            bench.write({"0002_b.sql": f"CREATE TABLE b AS {ROWS.replace('20000', '200000')}"})
            result = bench.run()
            # depending on what is full first, the table or the WAL, the statement fails or the server restarts
            assert "0002_b.sql" in result["msg"], result
            assert "disk is full" in result["msg"] or "connection to the server was lost" in result["msg"], result
            assert result["applied"] == []
            with contextlib.suppress(AssertionError):  # it may have stopped by itself
                server.down("immediate")
            server.up()
            assert bench.ledger() == [("0001", "applied")]
            assert not bench.exists("b")
            bench.write({"0002_b.sql": "CREATE TABLE b (x int)"})
            assert [entry["version"] for entry in bench.run()["applied"]] == ["0002"]
        finally:
            server.down("immediate")
