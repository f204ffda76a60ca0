# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: taking over a database, and going back."""

from __future__ import annotations

import pytest
from support.migrations import Bench

TWO = {"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE TABLE b (x int)"}
FOREIGN = {
    "dbmate": "CREATE TABLE schema_migrations (version varchar PRIMARY KEY); "
    "INSERT INTO schema_migrations VALUES ('0001'), ('0002')",
    "golang-migrate": "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); "
    "INSERT INTO schema_migrations VALUES (2, false)",
    "flyway": "CREATE TABLE flyway_schema_history (version varchar, type varchar, success boolean); "
    "INSERT INTO flyway_schema_history VALUES ('1', 'SQL', true), ('2', 'SQL', true), (NULL, 'SQL', true)",
}


def test_baseline_adopts_a_database_once(bench18: Bench) -> None:
    bench18.execute("CREATE TABLE a (x int)")
    bench18.write({**TWO, "0003_c.sql": "CREATE TABLE c (x int)"})
    assert "baseline names the version '0009'" in bench18.run(baseline="0009")["msg"]
    planned = bench18.run(check=True, baseline="0001")
    assert not bench18.exists("schema_migrations")
    done = bench18.run(baseline="0001")
    assert done["baselined"] == planned["baselined"] == ["0001"], done
    assert (done["previous_version"], done["schema_version"]) == (None, "0003")
    assert done["diff"] == planned["diff"]
    assert bench18.ledger() == [("0001", "baseline"), ("0002", "applied"), ("0003", "applied")]
    for baseline in ("0001", "0003"):
        again = bench18.run(baseline=baseline)
        assert (again["changed"], again["baselined"]) == (False, [])


def test_baseline_alone_is_a_change(bench18: Bench) -> None:
    bench18.write(TWO)
    result = bench18.run(baseline="0002")
    assert (result["changed"], result["applied"], result["schema_version"]) == (True, [], "0002")
    assert not bench18.exists("a")
    assert bench18.run()["changed"] is False


@pytest.mark.parametrize("tool", FOREIGN)
def test_history_of_another_tool_is_imported_once(bench18: Bench, tool: str) -> None:
    bench18.write({**TWO, "0003_c.sql": "CREATE TABLE c (x int)"})
    options = {"import_from": tool, "ledger_table": "applied"}
    assert f"of {tool} in this database" in bench18.run(**options)["msg"]
    bench18.execute(FOREIGN[tool])
    for check in (True, False):
        result = bench18.run(check=check, **options)
        assert (result["baselined"], result["changed"]) == (["0001", "0002"], True), result
    assert [entry["version"] for entry in result["applied"]] == ["0003"]
    assert not bench18.exists("a")
    assert bench18.run(**options)["changed"] is False


@pytest.mark.parametrize(
    ("tool", "change", "words"),
    [
        ("golang-migrate", "UPDATE schema_migrations SET dirty = true", "has the migration 2 as failed"),
        ("flyway", "UPDATE flyway_schema_history SET success = false", "as failed"),
        ("dbmate", "INSERT INTO schema_migrations VALUES ('0009')", "the migration 0009, which no file has"),
        ("flyway", "UPDATE flyway_schema_history SET version = '1.1'", "'1.1', which is no number"),
    ],
)
def test_history_that_cannot_be_imported(bench18: Bench, tool: str, change: str, words: str) -> None:
    bench18.write(TWO)
    bench18.execute(f"{FOREIGN[tool]}; {change}")
    assert words in bench18.run(import_from=tool, ledger_table="applied")["msg"]
    assert not bench18.exists("applied")


def test_section_that_undoes_is_refused(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "-- migrate:up\nCREATE TABLE a (x int);\n-- migrate:down\nDROP TABLE a;\n"})
    assert "0001_a.sql, line 3: what undoes the migration" in bench18.run()["msg"]
    bench18.write({"0001_a.sql": "-- migrate:up\nCREATE TABLE a (x int);", "0001_a.down.sql": "DROP TABLE a"})
    assert bench18.run()["changed"] is True
    assert bench18.exists("a")


DOWN = {"0001_a.down.sql": "DROP TABLE a", "0002_b.down.sql": "BEGIN;\nDROP TABLE b;\nCOMMIT;"}


def test_down_to_undoes_the_highest_first(bench: Bench) -> None:
    bench.write({**TWO, **DOWN, "V3__c.sql": "CREATE TABLE c (x int, y int REFERENCES b)", "R__v.sql": "SELECT 1"})
    bench.write({"V3__c.sql": "CREATE VIEW c AS SELECT * FROM b"})
    bench.run()
    assert "down_to names the version '9'" in bench.run(down_to="9")["msg"]
    assert "V3__c.sql cannot be undone: there is no V3__c.down.sql" in bench.run(down_to="0001")["msg"]
    bench.write({"V3__c.down.sql": "DROP VIEW c"})
    planned = bench.run(check=True, down_to="0001")
    assert bench.exists("c")
    result = bench.run(down_to="0001")
    assert [entry["version"] for entry in result["undone"]] == ["3", "0002"], result
    assert (result["changed"], result["previous_version"], result["schema_version"]) == (True, "3", "0001")
    assert result["diff"] == planned["diff"]
    assert not bench.exists("b")
    assert bench.exists("a")
    assert bench.run(down_to="0001")["changed"] is False
    assert bench.run()["schema_version"] == "3"
    assert [entry["version"] for entry in bench.run(down_to="0")["undone"]] == ["3", "0002", "0001"]
    assert bench.query("SELECT version FROM schema_migrations") == [("R__v",)]


def test_down_that_fails_or_cannot_be_done(bench18: Bench) -> None:
    bench18.write({**TWO, **DOWN, "0001_a.down.sql": "DROP TABLE a;\nSELECT 1/0;"})
    bench18.run(baseline="0001")
    assert "Version 0001 is a baseline" in bench18.run(down_to="0")["msg"]
    bench18.execute("UPDATE schema_migrations SET state = 'applied'; CREATE TABLE a (x int)")
    result = bench18.run(down_to="0")
    assert "0001_a.down.sql, line 2: division by zero" in result["msg"]
    assert [entry["version"] for entry in result["undone"]] == ["0002"]
    assert (result["changed"], result["schema_version"]) == (True, "0001")
    assert bench18.exists("a")
    assert bench18.ledger() == [("0001", "applied")]
    bench18.write({"0001_a.down.sql": "VACUUM"})
    assert "runs outside of transactions" in bench18.run(down_to="0")["msg"]
