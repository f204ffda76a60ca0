# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: what the user may allow, rehearsals, and what is left when something else is at work."""

from __future__ import annotations

import psycopg
import pytest
from support.migrations import Bench
from support.transaction_pooler import TransactionPooler

TWO = {"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE TABLE b (x int)"}


def test_target_stops_there(bench18: Bench) -> None:
    bench18.write({**TWO, "R__v.sql": "CREATE OR REPLACE VIEW v AS SELECT 1 AS x"})
    assert "target names the version '7'" in bench18.run(target="7")["msg"]
    result = bench18.run(target="1")
    assert (result["schema_version"], result["pending"]) == ("0001", [])
    assert not bench18.exists("b")
    assert bench18.run()["schema_version"] == "0002"


@pytest.mark.parametrize(("policy", "warned"), [("warn", True), ("apply", False)])
def test_out_of_order_when_allowed(bench18: Bench, policy: str, warned: bool) -> None:
    bench18.write({"0002_b.sql": "CREATE TABLE b (x int)"})
    bench18.run()
    bench18.write(TWO)
    for check in (True, False):
        result = bench18.run(check=check, out_of_order=policy)
        assert ("0001_a.sql: applied out of order" in str(result.get("warnings"))) is warned, result
    assert (result["schema_version"], result["diff"][0]["after"]) == ("0002", "0001\n0002\n")
    assert bench18.run()["changed"] is False


def test_verify_only_changes_nothing_and_fails_as_a_run_would(bench18: Bench) -> None:
    bench18.write(TWO)
    bench18.run(target="1")
    result = bench18.run(verify_only=True)
    assert (result["changed"], [entry["version"] for entry in result["pending"]]) == (False, ["0002"])
    assert bench18.ledger() == [("0001", "applied")]
    bench18.write({"0001_a.sql": "SELECT 2"})
    assert "were edited: 0001_a.sql" in bench18.run(verify_only=True)["msg"]


def test_repeatable_runs_again_when_it_changes(bench18: Bench) -> None:
    bench18.write(
        {**TWO, "R__b.sql": "CREATE OR REPLACE VIEW v AS SELECT 1 AS x", "R__a.sql": "SELECT count(*) FROM b"}
    )
    first = bench18.run()
    assert [entry["version"] for entry in first["applied"]] == ["0001", "0002", "R__a", "R__b"], first
    assert first["schema_version"] == "0002"
    assert bench18.run()["changed"] is False
    bench18.write({"R__b.sql": "CREATE OR REPLACE VIEW v AS SELECT 2 AS x"})
    assert [entry["version"] for entry in bench18.run(check=True)["pending"]] == ["R__b"]
    again = bench18.run()
    assert [entry["version"] for entry in again["applied"]] == ["R__b"], again
    assert bench18.query("SELECT x FROM v") == [(2,)]
    assert (again["previous_version"], again["schema_version"]) == ("0002", "0002")
    assert bench18.run()["changed"] is False
    bench18.write({"0003_c.sql": "SELECT 1"})
    assert bench18.run()["schema_version"] == "0003"


def test_repair_accepts_an_edit_with_its_reason(bench18: Bench) -> None:
    bench18.write(TWO)
    bench18.run()
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int) -- comment"})
    assert "no reason" in bench18.run(repair={"0001": " "})["msg"]
    assert "repair names the version '8'" in bench18.run(repair={"8": "x"})["msg"]
    assert "were edited" in bench18.run(repair={"0002": "x"})["msg"]
    for check in (True, False):
        result = bench18.run(check=check, repair={"1": "only a comment"})
        assert (result["changed"], result["repaired"], result["applied"]) == (True, ["0001"], []), result
    assert bench18.query("SELECT version, reason, repaired_by FROM schema_migrations_repairs") == [
        ("0001", "only a comment", "postgres")
    ]
    for repair in ({}, {"0001": "only a comment"}):
        assert bench18.run(repair=repair)["changed"] is False


def test_resume_goes_on_with_the_reached_statement(bench: Bench) -> None:
    text = "CREATE TABLE once (x int);\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON a (x);\nANALYZE a;\n"
    bench.write({"0001_a.sql": "CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1)", "0002_i.sql": text})
    assert "could not create unique index" in bench.run()["msg"]
    assert "set resume" in bench.run()["msg"]
    bench.execute("DELETE FROM a")
    bench.write({"0002_i.sql": text + "SELECT 1;"})
    assert "0002_i.sql was edited since it was interrupted" in bench.run(resume=True)["msg"]
    bench.write({"0002_i.sql": text})
    assert [entry["version"] for entry in bench.run(check=True, resume=True)["pending"]] == ["0002"]
    result = bench.run(resume=True)
    assert [entry["version"] for entry in result["applied"]] == ["0002"], result
    assert bench.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]
    assert bench.ledger() == [("0001", "applied"), ("0002", "applied")]
    assert bench.run(resume=True)["changed"] is False


def test_rehearsal_finds_the_error_and_leaves_nothing(bench18: Bench) -> None:
    bench18.write({**TWO, "0003_c.sql": "BEGIN; INSERT INTO b VALUES (1); COMMIT", "0004_v.sql": "VACUUM a"})
    result = bench18.run(rehearse=True)
    assert result["changed"] is False, result
    assert [entry["version"] for entry in result["rehearsed"]] == ["0001", "0002", "0003"]
    assert len(result["pending"]) == 4
    assert "Not rehearsed, because they run outside of a transaction: 0004_v.sql" in str(result["warnings"])
    bench18.write({"0005_bad.sql": "SELECT 1;\nSELECT * FROM nowhere"})
    result = bench18.run(rehearse=True)
    assert '0005_bad.sql, line 2: relation "nowhere" does not exist' in result["msg"]
    assert (result["changed"], result["failed_migration"]["version"]) == (False, "0005")
    assert not bench18.exists("schema_migrations")
    assert not bench18.exists("a")


@pytest.mark.parametrize("mode", ["ISOLATION LEVEL SERIALIZABLE", "ISOLATION LEVEL REPEATABLE READ, READ WRITE"])
def test_rehearsal_leaves_modes_of_transactions_out(bench: Bench, mode: str) -> None:
    bench.write({**TWO, "0003_c.sql": f"BEGIN {mode}; INSERT INTO b VALUES (1); COMMIT", "0004_d.sql": "SELECT 1"})
    bench.write({"0005_e.sql": f"SET TRANSACTION {mode}; CREATE TABLE seen AS SELECT 1 AS x"})
    result = bench.run(rehearse=True)
    assert [entry["version"] for entry in result["rehearsed"]] == ["0001", "0002", "0003", "0004", "0005"], result
    assert "share one there: 0003_c.sql, 0005_e.sql" in str(result["warnings"])
    assert bench.run()["schema_version"] == "0005"


def test_rehearsal_finds_what_a_commit_would_refuse(bench18: Bench) -> None:
    bench18.write(
        {
            "0001_a.sql": "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int, "
            "CONSTRAINT fk FOREIGN KEY (x) REFERENCES a DEFERRABLE INITIALLY DEFERRED)",
            "0002_b.sql": "INSERT INTO b VALUES (1); INSERT INTO a VALUES (1)",
            "0003_c.sql": "INSERT INTO b VALUES (2); INSERT INTO a VALUES (2); ALTER TABLE b ADD COLUMN y int",
        }
    )
    # the last file alters a table whose check is still to come, in the same transaction
    assert "0003_c.sql" in bench18.run(rehearse=True)["msg"]
    bench18.write({"0003_c.sql": "INSERT INTO b VALUES (2); INSERT INTO a VALUES (2)"})
    assert len(bench18.run(rehearse=True)["rehearsed"]) == 3
    bench18.write({"0004_d.sql": "ALTER TABLE b ADD COLUMN y int", "0005_e.sql": "INSERT INTO b VALUES (9)"})
    refused = bench18.run(rehearse=True)
    assert "0005_e.sql" in refused["msg"], refused
    assert "violates foreign key constraint" in refused["msg"]
    assert not bench18.exists("a")


def test_settings_do_not_leak_inside_of_a_rehearsal(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "SET search_path TO nowhere; SET ROLE pg_monitor", "0002_b.sql": "CREATE TABLE b ()"})
    assert len(bench18.run(rehearse=True)["rehearsed"]) == 2
    assert bench18.run()["schema_version"] == "0002"


def test_invalid_indexes_are_rebuilt_when_told_to(bench: Bench) -> None:
    with bench.connect() as connection:
        connection.execute("CREATE TABLE t (x int); INSERT INTO t VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute('CREATE UNIQUE INDEX CONCURRENTLY "I x" ON t (x)')
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute('REINDEX INDEX CONCURRENTLY "I x"')
        connection.execute("DELETE FROM t")
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
    found = ['"I x"', '"I x_ccnew"']
    assert sorted(name for (name,) in bench.query(invalid)) == found
    for check in (True, False):
        result = bench.run(check=check, rebuild_invalid_indexes=True)
        assert (result["changed"], sorted(result["rebuilt_indexes"])) == (True, found), result
    assert bench.query(invalid) == []
    assert bench.query("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass") == [(1,)]
    assert bench.run(rebuild_invalid_indexes=True)["changed"] is False


def test_failed_reindex_names_what_it_left(bench18: Bench) -> None:
    bench18.write(
        {
            "0001_a.sql": "CREATE TABLE a (x int); CREATE INDEX i ON a ((1 / x))",
            "0002_i.sql": "REINDEX INDEX CONCURRENTLY i",
        }
    )
    bench18.run(target="1")
    with bench18.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = 'i'::regclass")
        connection.execute("INSERT INTO a VALUES (0)")
    result = bench18.run()
    assert "division by zero" in result["msg"], result
    assert "left the invalid index i_ccnew" in result["msg"]


def test_check_mode_beside_a_run_at_work(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int);\nVACUUM a;\nSELECT pg_sleep(33);\n"})
    process = bench18.module.start("pgvector_migrate", bench18.options())
    bench18.wait(lambda: bench18.exists("a") and bench18.ledger() == [("0001", "running")])
    result = bench18.run(check=True)
    process.kill()
    process.communicate()
    assert [entry["version"] for entry in result["pending"]] == ["0001"], result
    assert "Another run of migrations is at work (pid " in str(result["warnings"])
    bench18.wait(lambda: "was interrupted" in bench18.run(check=True).get("msg", ""))


def test_pooler_in_transaction_mode_is_refused(bench18: Bench) -> None:
    bench18.write(TWO)
    pooler = TransactionPooler(bench18.server.dsn(bench18.database))
    try:
        result = bench18.run(login_port=pooler.port, ssl_mode="disable")
    finally:
        pooler.close()
    assert "a pooler in transaction mode is in between" in result.get("msg", ""), result
    assert not bench18.exists("a")
    assert not bench18.exists("schema_migrations")


def test_file_sets_its_own_limits(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "-- why\n-- groundwork: statement_timeout=100ms\n\nSELECT pg_sleep(30)"})
    assert "statement timeout (SQLSTATE 57014)" in bench18.run()["msg"]
    seen = "CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS l, current_setting('statement_timeout') AS s"
    bench18.write({"0001_a.sql": f"-- groundwork: statement_timeout=1h lock_timeout=7s\n{seen}"})
    assert bench18.run()["changed"] is True
    assert bench18.query("SELECT * FROM seen") == [("7s", "1h")]
    bench18.write({"0002_a.sql": "-- x\n-- groundwork: lock=1\nSELECT 1"})
    assert "0002_a.sql, line 2: 'lock=1' is no setting" in bench18.run(check=True)["msg"]


def test_what_loses_data_is_told_before_and_after(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int, y int)"})
    bench18.run()
    bench18.write(
        {
            "0002_b.sql": "-- squawk-ignore ban-drop-column\nALTER TABLE a DROP COLUMN y",
            "0003_c.sql": "INSERT INTO a VALUES (1)",
            "0004_d.sql": "TRUNCATE a;\nSELECT 1/0",
        }
    )
    expected = [["ban-drop-column"], [], ["truncate"]]
    for options in ({"check": True}, {"verify_only": True}):
        assert [entry["lossy"] for entry in bench18.run(lint="ignore", **options)["pending"]] == expected
    failed = bench18.run()
    assert [entry["lossy"] for entry in failed["applied"]] == expected[:2], failed
    assert [entry["lossy"] for entry in failed["pending"]] == expected[2:]


def test_dangerous_statements_warn_or_fail(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int, y int); DROP TABLE a; CREATE TABLE a (x int, y int)"})
    assert "warnings" not in bench18.run(lint="fail")
    bench18.write({"0002_b.sql": "SELECT 1;\nALTER TABLE a DROP COLUMN y"})
    for check in (True, False):
        assert "0002_b.sql, line 2: ban-drop-column" in bench18.run(check=check, lint="fail")["msg"]
    assert "warnings" not in bench18.run(check=True, lint="ignore")
    result = bench18.run()
    assert "0002_b.sql, line 2: ban-drop-column" in str(result["warnings"])
    assert result["schema_version"] == "0002"
    assert "warnings" not in bench18.run()
