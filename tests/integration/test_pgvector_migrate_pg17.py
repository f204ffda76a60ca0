# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate on PostgreSQL 17, as Debian 13 ships it: with pgvector 0.8.0, which is refused unless allowed."""

from __future__ import annotations

import json

import pytest
from support.migrations import Bench

PLAIN = {
    "0001_create_items.sql": "BEGIN;\nCREATE TABLE items (id bigint PRIMARY KEY, name text);\nCOMMIT;\n",
    "0002_index.sql": "CREATE INDEX CONCURRENTLY items_name ON items (name);\nVACUUM items;\n",
    "R__names.sql": "CREATE OR REPLACE VIEW names AS SELECT name FROM items;\n",
}
ALLOWED = {"allowed_vector_versions": ["0.8.0"]}


def test_the_server_is_what_the_tests_are_about(bench17: Bench) -> None:
    (version,) = bench17.query("SHOW server_version_num")[0]
    assert version.startswith("17")
    assert bench17.query("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'") == [("0.8.0",)]


def test_check_do_check_again_do_again(bench17: Bench) -> None:
    bench17.write(PLAIN)
    planned = bench17.run(check=True)
    assert [entry["version"] for entry in planned["pending"]] == ["0001", "0002", "R__names"], planned
    assert not bench17.exists("schema_migrations")
    done = bench17.run()
    assert [entry["version"] for entry in done["applied"]] == ["0001", "0002", "R__names"], done
    assert bench17.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'items_name'::regclass") == [(True,)]
    for check in (True, False):
        again = bench17.run(check=check)
        assert (again["changed"], again["applied"], again["pending"]) == (False, [], []), again


def test_changed_repeatable_runs_again_and_down_undoes(bench17: Bench) -> None:
    bench17.write({**PLAIN, "0001_create_items.down.sql": "DROP TABLE items CASCADE", "0002_index.sql": "SELECT 1"})
    bench17.run()
    bench17.write({"R__names.sql": "CREATE OR REPLACE VIEW names AS SELECT upper(name) AS name FROM items;\n"})
    assert [entry["version"] for entry in bench17.run()["applied"]] == ["R__names"]
    bench17.write({"0002_index.down.sql": "SELECT 2"})
    assert [entry["version"] for entry in bench17.run(down_to="0")["undone"]] == ["0002", "0001"]
    assert not bench17.exists("items")


def test_a_version_with_known_faults_is_refused_before_anything_runs(bench17: Bench) -> None:
    bench17.write({"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE EXTENSION vector"})
    for check in (True, False):
        result = bench17.run(check=check)
        assert "pgvector 0.8.0 is in this database, where HNSW indexes can become corrupt and CVE-2026" in result["msg"]
    assert not bench17.exists("a")
    assert bench17.run(**ALLOWED)["vector_version"] == "0.8.0"


@pytest.mark.parametrize("option", ["present", "latest"])
def test_an_extension_with_known_faults_is_not_made(bench17: Bench, option: str) -> None:
    for files in ({}, {"0001_a.sql": "CREATE TABLE a (x int)"}):
        bench17.write(files)
        for check in (True, False):
            refused = bench17.run(check=check, vector_extension=option)
            assert "pgvector 0.8.0" in refused.get("msg", ""), refused
    assert bench17.query("SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == [(0,)]
    assert bench17.run(vector_extension=option, **ALLOWED)["extension_changes"] == ["CREATE EXTENSION vector"]


def test_vector_columns_and_limits(bench17: Bench) -> None:
    bench17.write({"0001_a.sql": "CREATE EXTENSION vector; CREATE TABLE items (e vector(3072))"})
    bench17.run(**ALLOWED)
    bench17.write({"0002_b.sql": "CREATE INDEX i ON items USING hnsw (e vector_l2_ops)"})
    assert "the limit of pgvector, which is 2000 dimensions" in bench17.run(**ALLOWED)["msg"]
    bench17.write({"0002_b.sql": "CREATE INDEX i ON items USING hnsw ((CAST(e AS halfvec(3072))) halfvec_l2_ops)"})
    result = bench17.run(**ALLOWED)
    assert result["vector_columns"][0]["indexes"] == [{"name": "i", "method": "hnsw", "valid": True}], result


def test_kill_of_the_module_and_of_the_server_in_the_middle(bench17: Bench) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '-- ''0002_b.sql''%' AND state = 'active'"
    bench17.write({"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE TABLE b (x int); SELECT pg_sleep(60)"})
    process = bench17.module.start("pgvector_migrate", bench17.options())
    bench17.wait(lambda: bench17.query(sleeping) == [(1,)])
    process.kill()
    process.communicate()
    bench17.wait(lambda: bench17.query(sleeping) == [(0,)])
    process = bench17.module.start("pgvector_migrate", bench17.options())
    bench17.wait(lambda: bench17.query(sleeping) == [(1,)])
    bench17.server.down("immediate")
    failed = json.loads(process.communicate(timeout=60)[0])
    assert "0002_b.sql" in failed["msg"]
    bench17.server.up()
    assert bench17.ledger() == [("0001", "applied")]
    assert not bench17.exists("b")
    bench17.write({"0002_b.sql": "CREATE TABLE b (x int)"})
    assert [entry["version"] for entry in bench17.run()["applied"]] == ["0002"]
