# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate against real servers."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from support.migrations import Bench

FIRST = {
    "0001_create_items.sql": "CREATE EXTENSION vector;\nCREATE TABLE items (id bigint PRIMARY KEY, e vector(3));\n",
    "0002_fill.sql": "BEGIN;\nINSERT INTO items VALUES (1, '[1,2,3]'), (2, '[3,2,1]');\nCOMMIT;\n",
    "V3__index.sql": "CREATE INDEX items_e ON items USING hnsw (e vector_l2_ops);\n",
}


def test_check_do_check_again_do_again(bench: Bench) -> None:
    bench.write(FIRST)
    planned = bench.run(check=True)
    assert planned["changed"] is True, planned
    assert [entry["version"] for entry in planned["pending"]] == ["0001", "0002", "3"]
    assert (planned["applied"], planned["schema_version"]) == ([], None)
    assert planned["diff"][0]["after"] == "0001\n0002\n3\n"
    assert planned["diff"][2]["after"] == FIRST["0002_fill.sql"]
    assert not bench.exists("public.schema_migrations")
    assert not bench.exists("items")

    done = bench.run()
    assert done["changed"] is True, done
    assert [(entry["version"], entry["name"]) for entry in done["applied"]] == [
        ("0001", "create_items"),
        ("0002", "fill"),
        ("3", "index"),
    ]
    assert all(entry["execution_ms"] >= 0 for entry in done["applied"])
    assert (done["previous_version"], done["schema_version"], done["pending"]) == (None, "3", [])
    assert done["ledger"] == "public.schema_migrations"
    assert done["diff"] == planned["diff"]
    assert bench.query("SELECT id FROM items ORDER BY e <-> '[1,2,3]' LIMIT 1") == [(1,)]
    assert bench.query("SELECT version, name, length(checksum), applied_by, state FROM schema_migrations LIMIT 1") == [
        ("0001", "create_items", 64, "postgres", "applied")
    ]
    stamps = bench.query("SELECT applied_at FROM schema_migrations ORDER BY 1")

    for check in (True, False):
        again = bench.run(check=check)
        assert (again["changed"], again["applied"], again["pending"]) == (False, [], []), again
        assert (again["previous_version"], again["schema_version"]) == ("3", "3")
    assert bench.query("SELECT applied_at FROM schema_migrations ORDER BY 1") == stamps


def test_ledger_table_is_exactly_as_documented(bench: Bench) -> None:
    bench.write({"0001_a.sql": "SELECT 1"})
    assert bench.run(ledger_schema="ops", ledger_table="done")["ledger"] == "ops.done"
    assert bench.query(
        "SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_name = 'done' "
        "ORDER BY ordinal_position"
    ) == [
        ("version", "text"),
        ("name", "text"),
        ("checksum", "text"),
        ("applied_at", "timestamp with time zone"),
        ("execution_ms", "bigint"),
        ("applied_by", "text"),
        ("state", "text"),
    ]
    with bench.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("UPDATE ops.done SET state = 'other'")


def test_foreign_ledger_table_is_refused(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    bench18.server.connect(bench18.database).execute(
        "CREATE TABLE schema_migrations (version varchar(255))"
    ).connection.close()
    for check in (True, False):
        result = bench18.run(check=check)
        assert result["failed"]
        assert "public.schema_migrations exists and is not a ledger" in result["msg"]
    assert not bench18.exists("a")


def test_ledger_of_a_newer_version_is_refused_whatever_its_columns_are(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    bench.run()
    bench.write({"0002_b.sql": "CREATE TABLE b (x int)"})
    newer = "ALTER TABLE schema_migrations RENAME CONSTRAINT groundwork_ledger_format_1 TO groundwork_ledger_format_12"
    for change in (newer, "ALTER TABLE schema_migrations ADD COLUMN other text"):
        bench.execute(change)
        for check in (True, False):
            result = bench.run(check=check)
            assert "public.schema_migrations was written by a newer version of this collection" in result["msg"]
            assert "it has the format 12, and this version knows 1" in result["msg"]
    assert not bench.exists("b")


def test_ledger_without_a_format_gets_one_in_silence(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    bench.run()
    bench.execute("ALTER TABLE schema_migrations DROP CONSTRAINT groundwork_ledger_format_1")
    assert bench.run()["changed"] is False
    bench.write({"0002_b.sql": "CREATE TABLE b (x int)"})
    marks = "SELECT count(*) FROM pg_constraint WHERE conname = 'groundwork_ledger_format_1'"
    with bench.connect() as reader, reader.transaction():
        reader.execute("SELECT * FROM schema_migrations")
        result = bench.run()  # what cannot be marked now is marked later
    assert ("warnings" in result, result["schema_version"]) == (False, "0002"), result
    assert bench.query(marks) == [(0,)]
    bench.write({"0003_c.sql": "CREATE TABLE c (x int)"})
    assert bench.run()["schema_version"] == "0003"
    assert bench.query(marks) == [(1,)]


def test_a_role_without_the_right_to_make_tables_writes_an_existing_ledger(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE SCHEMA own"})
    bench.run()
    role = f"writer_{bench.database}"
    bench.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT ALL ON SCHEMA own TO {role}")
    bench.execute(f"GRANT SELECT, INSERT ON schema_migrations TO {role}; REVOKE CREATE ON SCHEMA public FROM public")
    bench.write({"0002_b.sql": "CREATE TABLE own.b (x int)"})
    result = bench.run(login_user=role, login_password="plain")
    assert result["schema_version"] == "0002", result
    assert bench.query("SELECT applied_by FROM schema_migrations WHERE version = '0002'") == [(role,)]


def test_own_transaction_does_not_split_the_ledger_row_from_the_change(bench: Bench) -> None:
    bench.write({"0001_own.sql": "BEGIN;\nCREATE TABLE a (x int);\nSELECT 1/0;\nCOMMIT;\n"})
    result = bench.run()
    assert result["failed"]
    assert "0001_own.sql, line 3: division by zero (SQLSTATE 22012)" in result["msg"]
    assert not bench.exists("a")
    assert bench.ledger() == []
    guard = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no row'; END $$;\n"
        "CREATE TRIGGER refuse BEFORE INSERT ON schema_migrations FOR EACH ROW WHEN (NEW.version = '0002') "
        "EXECUTE FUNCTION refuse()"
    )
    bench.write({"0001_own.sql": guard, "0002_own.sql": "BEGIN;\nCREATE TABLE b (x int);\nCOMMIT;\n"})
    result = bench.run()
    assert "0002_own.sql, before or after its statements: no row (SQLSTATE P0001)" in result["msg"]
    assert not bench.exists("b")


def test_broken_migration_leaves_the_database_as_it_was_and_earlier_files_stay(bench: Bench) -> None:
    bench.write(
        {
            "0001_good.sql": "CREATE TABLE good (x int)",
            "0002_bad.sql": "CREATE TABLE bad ();\nINSERT INTO good VALUES (1);\n\nINSERT INTO\n  nowhere VALUES (1);",
            "0003_later.sql": "CREATE TABLE later (x int)",
        }
    )
    result = bench.run()
    assert result["failed"]
    assert '0002_bad.sql, line 5: relation "nowhere" does not exist (SQLSTATE 42P01)' in result["msg"]
    assert result["failed_migration"] == {"version": "0002", "name": "bad", "file": "0002_bad.sql", "line": 5}
    assert result["sqlstate"] == "42P01"
    assert [entry["version"] for entry in result["applied"]] == ["0001"]
    assert (result["changed"], result["schema_version"]) == (True, "0001")
    assert bench.ledger() == [("0001", "applied")]
    assert not bench.exists("bad")
    assert bench.query("SELECT * FROM good") == []
    bench.write({"0002_bad.sql": "CREATE TABLE bad (x int)"})
    assert [entry["version"] for entry in bench.run()["applied"]] == ["0002", "0003"]


def test_a_refused_file_stops_the_run_before_anything_is_applied(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "SELECT 1;\n\\i other.sql\n"})
    for check in (True, False):
        result = bench18.run(check=check)
        assert "0002_b.sql, line 2: \\i is a command of psql" in result["msg"]
        assert result["changed"] is False
    assert not bench18.exists("a")


def test_settings_and_roles_do_not_leak(bench: Bench) -> None:
    bench.write(
        {
            "0001_a.sql": "CREATE ROLE leaker_" + bench.database + ";\nSET search_path TO nowhere;\n"
            "SET statement_timeout = '1h';\nSET ROLE leaker_" + bench.database + ";\nCREATE TEMP TABLE scratch (x int)",
            "0002_b.sql": "CREATE TABLE seen AS SELECT current_setting('search_path') AS path, "
            "current_setting('statement_timeout') AS timeout, current_setting('lock_timeout') AS lock, "
            "current_user::text AS role, to_regclass('scratch') IS NULL AS clean",
        }
    )
    result = bench.run(lock_timeout="4s")
    assert result["changed"] is True, result
    assert bench.query("SELECT * FROM seen") == [('"$user", public', "0", "4s", "postgres", True)]


@pytest.mark.parametrize("runners", [2, 8])
def test_runners_at_once_apply_each_file_once(bench: Bench, runners: int) -> None:
    bench.write(
        {
            f"{number:04}_f.sql": f"CREATE TABLE t{number} AS SELECT 1 AS x FROM pg_sleep(0.02)"
            for number in range(1, 13)
        }
    )
    bench.write({"0013_index.sql": "CREATE INDEX CONCURRENTLY i ON t1 (x)"})
    processes = [bench.module.start("pgvector_migrate", bench.options()) for _ in range(runners)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert not [result for result in results if result.get("failed")], results
    applied = [entry["version"] for result in results for entry in result["applied"]]
    assert sorted(applied) == [f"{number:04}" for number in range(1, 14)]
    assert {result["schema_version"] for result in results} == {"0013"}


def test_kill_in_the_middle_of_a_file_leaves_nothing_of_it(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)", "0002_b.sql": "CREATE TABLE b (x int); SELECT pg_sleep(30);"})
    process = bench.module.start("pgvector_migrate", bench.options())
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '-- ''0002_b.sql''%(30)%' AND state = 'active'"
    bench.wait(lambda: bench.query(sleeping) == [(1,)])
    process.kill()
    process.communicate()
    bench.write({"0002_b.sql": "CREATE TABLE b (x int)"})
    result = bench.run()
    assert [entry["version"] for entry in result["applied"]] == ["0002"], result
    assert bench.ledger() == [("0001", "applied"), ("0002", "applied")]
    assert bench.exists("b")


def test_server_that_dies_in_the_middle_is_a_sentence(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "CREATE TABLE a (x int);\nSELECT pg_terminate_backend(pg_backend_pid());"})
    result = bench18.run()
    assert result["failed"]
    assert "0001_a.sql, line 2: " in result["msg"]
    assert "Traceback" not in result["_printed"]
    assert not bench18.exists("a")


def test_edited_deleted_duplicate_and_out_of_order(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "SELECT 1;\n", "0003_c.sql": "SELECT 3;\n"})
    assert bench18.run()["schema_version"] == "0003"
    (bench18.directory / "0001_a.sql").write_bytes(b"\xef\xbb\xbfSELECT 1;\r\n")
    assert bench18.run()["changed"] is False
    cases = [
        ({"0001_a.sql": "SELECT 11;\n"}, "Applied migrations were edited: 0001_a.sql"),
        ({"0002_b.sql": "SELECT 2;\n"}, "0002_b.sql would run out of order: version 0003 is applied"),
        ({"V3__other.sql": "SELECT 2;\n"}, "0003_c.sql and V3__other.sql have the same version 3"),
    ]
    for files, words in cases:
        kept = (bench18.directory / "0001_a.sql").read_bytes()
        bench18.write(files)
        for check in (True, False):
            assert words in bench18.run(check=check)["msg"]
        (bench18.directory / next(iter(files))).unlink()
        (bench18.directory / "0001_a.sql").write_bytes(kept)
    (bench18.directory / "0001_a.sql").unlink()
    assert "have no file any more: 0001 (a)" in bench18.run()["msg"]
    assert bench18.ledger() == [("0001", "applied"), ("0003", "applied")]


def test_login_failures_have_their_sentences(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    wrong = bench.run(login_password="wrong-canary-77")
    assert "rejected the password of user 'postgres'" in wrong["msg"]
    assert "wrong-canary-77" not in wrong["_printed"]
    for check in (True, False):
        assert "no such database" in bench.run(check=check, database="absent")["msg"]
    assert "connection refused" in bench.run(login_port=1)["msg"]
    assert "Could not read the directory" in bench.run(directory="/nonexistent")["msg"]


def test_unix_socket(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    assert bench.run(login_host=str(bench.server.socket_dir))["changed"] is True


def test_no_privilege(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    with bench.connect() as connection:
        connection.execute(f"CREATE ROLE weak_{bench.database} LOGIN PASSWORD 'weak-pass'")
    result = bench.run(login_user=f"weak_{bench.database}", login_password="weak-pass")
    assert "Could not create the ledger public.schema_migrations: permission denied for schema public" in result["msg"]
    assert "Grant the missing right" in result["msg"]


def test_lock_holder_is_named_when_the_wait_ends(bench: Bench) -> None:
    bench.write({"0001_a.sql": "SELECT pg_sleep(60)"})
    holder = bench.module.start("pgvector_migrate", bench.options())
    locks = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    bench.wait(lambda: len(bench.query(locks)) == 1)
    result = bench.run(lock_wait=0.3)
    pid = bench.query(locks)[0][0]
    holder.kill()
    holder.communicate()
    assert result["failed"]
    for words in (f"pid {pid}, from 127.0.0.1", "groundwork.backend pgvector_migrate on ", "connected since 20"):
        assert words in result["msg"]


def test_blocked_alter_gives_up_and_lets_readers_through(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    bench.run()
    bench.write({"0002_b.sql": "CREATE TABLE b (x int);\nALTER TABLE a ADD COLUMN y int;"})
    with bench.connect() as dump, dump.transaction():
        dump.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        result = bench.run(lock_timeout="200ms", lock_retries=2)
    assert result["failed"]
    assert "0002_b.sql, line 2: canceling statement due to lock timeout (SQLSTATE 55P03)" in result["msg"]
    assert not bench.exists("b")


def test_blocked_alter_is_tried_again(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int)"})
    bench.run()
    bench.write({"0002_b.sql": "CREATE TABLE b (x int);\nALTER TABLE a ADD COLUMN y int;"})
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ALTER TABLE a%'"
    with bench.connect() as dump, dump.transaction():
        dump.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        process = bench.module.start("pgvector_migrate", bench.options(lock_timeout="100ms", lock_retries=50))
        bench.wait(lambda: bench.query(waiting) == [(1,)])
        bench.wait(lambda: bench.query(waiting) == [(0,)])  # the first attempt was given up
    result = json.loads(process.communicate(timeout=60)[0])
    assert [entry["version"] for entry in result["applied"]] == ["0002"], result


def test_deadlock_is_tried_again(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int); CREATE TABLE b (x int)"})
    bench.run()
    # who starts to wait last finds the deadlock and is ended: the file waits until the other one does
    others = "EXISTS (SELECT FROM a) OR EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass)"
    pause = f"DO $$ BEGIN WHILE NOT ({others}) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$"
    bench.write({"0002_b.sql": f"LOCK TABLE a;\n{pause};\nLOCK TABLE b;\nCREATE TABLE c (x int);"})
    held = "SELECT count(*) FROM pg_locks WHERE granted AND relation = 'a'::regclass AND mode LIKE 'AccessExcl%'"
    with bench.connect() as other, other.transaction():
        other.execute("SET LOCAL deadlock_timeout = '1h'")
        other.execute("LOCK TABLE b")
        process = bench.module.start("pgvector_migrate", bench.options(lock_timeout="0"))
        bench.wait(lambda: bench.query(held) == [(1,)])
        other.execute("LOCK TABLE a")
        other.execute("INSERT INTO a VALUES (1)")
    result = json.loads(process.communicate(timeout=60)[0])
    assert [entry["version"] for entry in result.get("applied", [])] == ["0002"], result
    assert "deadlock detected" in (bench.server.socket_dir / "log").read_text()


def test_statement_timeout(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "SELECT pg_sleep(30)"})
    assert "statement timeout (SQLSTATE 57014)" in bench18.run(statement_timeout="100ms")["msg"]


def test_concurrent_index_while_another_runner_waits_for_the_lock(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a AS SELECT g AS x FROM generate_series(1, 1000) g"})
    bench.run()
    bench.write({"0002_i.sql": "SET lock_timeout = '1ms';\nCREATE INDEX CONCURRENTLY i ON a (x);\nANALYZE a;\n"})
    building = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND state = 'active'"
    with bench.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM a")  # the build waits for it
        runners = [bench.module.start("pgvector_migrate", bench.options(lock_timeout="50ms"))]
        bench.wait(lambda: bench.query(building) == [(1,)])
        runners.append(bench.module.start("pgvector_migrate", bench.options()))
        polling = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'"
        bench.wait(lambda: bench.query(polling) == [(1,)])
        time.sleep(0.5)
        assert bench.ledger()[-1] == ("0002", "running")
        reader.execute("COMMIT")
    results = [json.loads(process.communicate(timeout=60)[0]) for process in runners]
    assert [entry["version"] for result in results for entry in result.get("applied", [])] == ["0002"], results
    assert not [result for result in results if result.get("failed")], results
    assert bench.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]
    assert bench.ledger() == [("0001", "applied"), ("0002", "applied")]


def test_failed_concurrent_build_is_recorded_and_explained(bench: Bench) -> None:
    bench.write(
        {
            "0001_a.sql": "CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1)",
            "0002_i.sql": "ANALYZE a;\n\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON a (x);\n",
        }
    )
    result = bench.run()
    assert "0002_i.sql, line 3: could not create unique index" in result["msg"]
    assert "left the invalid index i" in result["msg"]
    assert bench.ledger() == [("0001", "applied"), ("0002", "failed")]
    for check in (True, False):
        again = bench.run(check=check)
        assert "Migration 0002 (i) failed outside of a transaction" in again["msg"]
        assert "Statement 2 (line 3) was the last one started" in again["msg"]
    # The row is gone, the invalid index is not: IF NOT EXISTS would now succeed (trap 2).
    bench.query("DELETE FROM schema_migrations WHERE version = '0002' RETURNING 1")
    retried = bench.run()
    assert 'The index i on "a" exists and is invalid' in retried["msg"]
    assert bench.ledger()[-1] == ("0002", "failed")
    bench.query("DELETE FROM schema_migrations WHERE version = '0002' RETURNING 1")
    with bench.connect() as connection:
        connection.execute("DROP INDEX CONCURRENTLY i")
        connection.execute("DELETE FROM a")
    assert [entry["version"] for entry in bench.run()["applied"]] == ["0002"]


def test_invalid_index_is_noticed_in_a_transactional_file_too(bench18: Bench) -> None:
    with bench18.connect() as connection:
        connection.execute("CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON a (x)")
    bench18.write({"0001_i.sql": "CREATE TABLE b (x int); CREATE UNIQUE INDEX IF NOT EXISTS i ON public.a (x)"})
    result = bench18.run()
    assert "exists and is invalid" in result["msg"]
    assert result["failed_migration"]["version"] == "0001"
    assert not bench18.exists("b")
    assert bench18.ledger() == []


def test_kill_in_the_middle_of_a_file_without_transaction(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE a (x int);\nVACUUM a;\nSELECT pg_sleep(31);\n"})
    process = bench.module.start("pgvector_migrate", bench.options())
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(31)%' AND state = 'active'"
    bench.wait(lambda: bench.query(sleeping) == [(1,)])
    process.kill()
    process.communicate()
    assert bench.ledger() == [("0001", "running")]
    result = bench.run()
    assert "Migration 0001 (a) was interrupted" in result["msg"]
    assert "Statement 3 (line 3)" in result["msg"]


def test_statements_outside_of_transactions(bench: Bench) -> None:
    other = f"made_by_{bench.database}"
    bench.write(
        {
            "0001_a.sql": f"CREATE DATABASE {other};",
            "0002_b.sql": "CREATE TABLE t (x int); VACUUM (ANALYZE) t; ALTER SYSTEM RESET work_mem;",
            "0003_c.sql": f"DROP DATABASE {other}",
        }
    )
    result = bench.run()
    assert result["schema_version"] == "0003", result
    assert bench.query("SELECT count(*) FROM public.schema_migrations_progress") == [(0,)]


def test_password_variable_works_and_is_nowhere(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    canary = "cänary'5f\\e1 b\"x"
    role = f"app_{bench.database}"
    bench.write(
        {
            "0001_role.sql": "CREATE ROLE :\"role\" LOGIN PASSWORD :'app_password';\nCREATE TABLE :table (a int[]);\n"
            "INSERT INTO :table VALUES ('{1,2,3}');\nSELECT a[1:2] FROM :table; -- :'nothing'\n"
        }
    )
    variables = {"role": role, "app_password": canary, "table": "things"}
    printed = [bench.run(check=check, variables=variables) for check in (True, False, False)]
    assert printed[1]["changed"] is True, printed[1]
    with psycopg.connect(
        host=bench.server.host, port=bench.server.port, user=role, password=canary, dbname=bench.database
    ) as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == (role,)
    bench.write({"0002_bad.sql": "SELECT :'app_password'::int;", "0003_x.sql": "SELECT 1"})
    failed = bench.run(variables=variables)
    assert failed["failed"]
    assert "0002_bad.sql, line 1: invalid input syntax for type integer" in failed["msg"]
    bench.write({"0002_bad.sql": 'SELECT 1 FROM :"app_password";'})
    printed += [failed, bench.run(variables=variables)]
    bench.write({"0002_bad.sql": "SELECT 1 :app_password;"})
    printed.append(bench.run(variables=variables))
    ledger = json.dumps(bench.query("SELECT schema_migrations::text FROM schema_migrations"))
    names = json.dumps(bench.query("SELECT DISTINCT application_name FROM pg_stat_activity"))
    for part in (canary, "5f\\e1", "nary'5f", "5f\\\\e1"):
        for text in (*(result["_printed"] for result in printed), ledger, names):
            assert part not in text
            assert json.dumps(part)[1:-1] not in text
    assert printed[0]["invocation"]["module_args"]["variables"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


def test_error_in_another_statement_does_not_log_the_password(bench: Bench) -> None:
    role = f"logged_{bench.database}"
    text = f"SELECT 1;\nCREATE ROLE {role} PASSWORD :'secret';\nALTER ROLE {role} PASSWORD :'secret';\nSELECT 1/0;"
    bench.write({"0001_a.sql": text})
    result = bench.run(variables={"secret": "canary-of-the-log"})
    assert "0001_a.sql, line 4: division by zero" in result["msg"]
    log = (bench.server.socket_dir / "log").read_text()
    assert "SELECT 1/0" in log
    assert "canary-of-the-log" not in log
    assert bench.query(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'") == [(0,)]


def test_unknown_variable_is_named(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": "SELECT 1;\nSELECT :'nope';"})
    assert "0001_a.sql, line 2: the variable 'nope' is not known" in bench18.run(check=True)["msg"]


def test_result_survives_variables_with_ordinary_values(bench18: Bench) -> None:
    bench18.write({"0001_verisphere.sql": "CREATE TABLE :db (x int)", "0002_public.sql": "SELECT 1 / 0"})
    variables = {"db": "verisphere", "a": "1", "b": "public", "c": "0001", "d": "postgres", "e": True, "f": 2}
    planned = bench18.run(check=True, variables=variables)
    assert planned["pending"][0] == {"version": "0001", "name": "verisphere", "lossy": []}
    result = bench18.run(variables=variables)
    assert result["applied"][0]["name"] == "verisphere"
    assert (result["schema_version"], result["ledger"]) == ("0001", "public.schema_migrations")
    assert "0002_public.sql, line 1: division by zero" in result["msg"]
    same = bench18.run(variables={"db": bench18.server.superpass})
    assert bench18.server.superpass not in same["_printed"]


def test_empty_directory_is_a_warning(bench18: Bench) -> None:
    result = bench18.run()
    assert result["changed"] is False
    assert "holds no migration" in str(result["warnings"])
