# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""alembic_migrate with a venv: what goes wrong, what is said, and what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.alembic_project import Project, names
from support.processes import command_lines

CANARY = "c4n4ry/e98:00@998"
QUOTED = "c4n4ry%2Fe98%3A00%40998"
SLEEP = "op.execute('SELECT pg_sleep(600)')"
_BACKENDS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' "
    "AND pid <> pg_backend_pid()"
)
SLEEPING = f"SELECT count(*) {_BACKENDS}"
LOCKED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM "
LOCKED += "pg_database WHERE datname = current_database())"


def started(project: Project, **more: Any) -> subprocess.Popen[str]:
    return project.module.start("alembic_migrate", project.options(**more))


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    result: dict[str, Any] = json.loads(out)
    return result


def test_a_failing_revision_is_taken_back_with_those_of_its_transaction(project: Project) -> None:
    project.tables("one", "two")
    project.revision("rbad", "rtwo", "print('about to fail'); op.execute('SELECT * FROM nowhere')")
    result = project.run()
    assert result["failed"]
    assert result["changed"] is False
    assert "Revision rbad (change rbad) failed: " in result["msg"]
    assert 'relation "nowhere" does not exist' in result["msg"]
    assert "(SQLSTATE 42P01)" in result["msg"]
    assert "The database is at no revision now." in result["msg"]
    assert "about to fail" in result["msg"]
    assert result["failed_revision"] == {"revision": "rbad", "message": "change rbad"}
    assert (result["applied"], names(result["pending"]), result["revisions"]) == ([], ["rone", "rtwo", "rbad"], [])
    assert not project.exists("one")


def test_what_was_committed_before_the_failing_revision_is_told(project: Project) -> None:
    project.env(options="{'transaction_per_migration': True}")
    project.tables("one")
    project.revision("rbad", "rone", "raise ValueError('no luck')")
    result = project.run()
    assert result["failed"]
    assert result["changed"] is True
    assert "failed: ValueError: no luck. The database is at rone now." in result["msg"]
    assert (names(result["applied"]), names(result["pending"]), result["revisions"]) == (["rone"], ["rbad"], ["rone"])
    assert project.exists("one")


def without(path: str) -> Any:
    def change(project: Project) -> dict[str, Any]:
        (project.folder / path).rename(project.folder / "moved")
        return {}

    return change


def options(**more: Any) -> Any:
    return lambda _project: more


def env_py(text: str) -> Any:
    def change(project: Project) -> dict[str, Any]:
        project.env(text)
        return {}

    return change


def address(old: str, new: str) -> Any:
    return lambda project: {"env": {"DATABASE_URL": project.url().replace(old, new)}}


TWO = """
import os
from alembic import context
from sqlalchemy import create_engine
for number in (1, 2):
    with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("alembic.ini"), "alembic.ini in the venv"),
        (without("migrations"), "Correct script_location"),
        (without("migrations/env.py"), "env.py"),
        (options(section="nowhere"), "Alembic cannot use alembic.ini"),
        (options(target="nowhere"), "Alembic cannot upgrade to nowhere: "),
        (options(action="downgrade", target="rone"), "Alembic cannot downgrade to rone: "),
        (options(venv="/nowhere"), "The venv /nowhere has no bin/python."),
        (options(directory="/nowhere"), "The directory /nowhere does not exist."),
        (options(login_password="wrong"), "the server rejected the password of user 'postgres'"),
        (options(database="nowhere"), "the server has no such database"),
        (options(database="postgres"), "The login options name the database 'postgres', and env.py connects to"),
        (options(env={"DATABASE_URL": "sqlite://"}), "env.py connects to a database of the kind sqlite."),
        (options(env={"DATABASE_URL": None}), "env has 'DATABASE_URL', which is no name with a text or number."),
        (address("postgres:", "postgres:wrong"), "Check the password that env.py uses"),
        (address("/alembic", "/nowhere"), "Create the database first, or correct the address that env.py uses."),
        (address("@127.0.0.1", "@nowhere.invalid"), "Check the address that env.py uses"),
        (env_py("import nowhere"), "ModuleNotFoundError: No module named 'nowhere'"),
        (env_py("pass"), "it never calls context.run_migrations()"),
        (env_py("import sys; sys.exit(4)"), "SystemExit: 4"),
        (env_py("import os; os._exit(5)"), "ended with 5"),
        (env_py(TWO), "env.py migrates more than one database in a run"),
    ],
)
def test_bad_input_is_a_sentence_and_applies_nothing(project: Project, change: Any, sentence: str) -> None:
    project.tables("one")
    result = project.run(**change(project))
    assert result.get("failed"), result
    assert sentence in result["msg"], result["msg"]
    assert "This is a bug" not in result["msg"]
    assert result["changed"] is False
    assert not project.exists("one")


def test_a_venv_without_alembic_is_named(project: Project, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    result = project.run(venv=str(tmp_path / "bare"))
    assert f"Alembic is needed in the venv {tmp_path / 'bare'} and could not be imported" in result["msg"]


def test_the_address_is_in_no_process_list_and_no_output(project: Project) -> None:
    """env.py prints it, a revision fails with it, and SQLAlchemy's and libpq's own messages are there, too."""
    project.execute(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{CANARY}'")
    try:
        project.env(before="print(URL, str(engine.url), engine.url.password)")
        project.revision("rone", None, "op.execute('SELECT pg_advisory_lock(7)')")
        bad = "import os; print(repr(dict(os.environ))); raise ValueError(os.environ['DATABASE_URL'])"
        project.revision("rtwo", "rone", bad)
        url = project.server.dsn(project.database, user="canary", password=QUOTED).replace("sql:", "sql+psycopg:")
        login = {"login_user": "canary", "login_password": CANARY, "x_arguments": {"dsn": url}, "url": url}
        with project.connect() as blocker:
            blocker.execute("SELECT pg_advisory_lock(7)")
            process = started(project, env={"DATABASE_URL": url}, **login)
            project.wait(lambda: project.query("SELECT 1 FROM pg_locks WHERE objid = 7 AND NOT granted") == [(1,)])
            seen = command_lines().values()
        out, err = process.communicate(timeout=120)
        assert "Revision rtwo" in out, out
        assert "********" in out
        assert any("alembic_migrate" in line for line in seen)
        printed = out + err + "".join(seen)
        for form in (CANARY, QUOTED, "c4n4ry"):
            assert form not in printed
    finally:
        project.execute("REASSIGN OWNED BY canary TO postgres; DROP ROLE canary")


def test_two_at_once_apply_each_revision_once(project: Project) -> None:
    project.tables(*(f"t{number}" for number in range(5)))
    results = [result_of(process) for process in [started(project) for _ in range(3)]]
    assert [result.get("failed", False) for result in results] == [False] * 3, results
    applied = [names(result["applied"]) for result in results]
    assert sorted(map(len, applied)) == [0, 0, 5]
    assert [result["changed"] for result in results] == [bool(entry) for entry in applied]


def test_the_lock_is_that_of_pgvector_migrate(project: Project, tmp_path: Path) -> None:
    project.tables("one")
    directory = tmp_path / "sql"
    directory.mkdir()
    (directory / "0001_wait.sql").write_text("SELECT pg_sleep(600);")
    login = project.server.login(project.database)
    other = project.module.start("pgvector_migrate", {**login, "directory": str(directory)})
    project.wait(lambda: project.query(SLEEPING) == [(1,)])
    result = project.run(lock_wait=0.5)
    assert "Another run of migrations holds the lock of this database" in result["msg"]
    assert "groundwork.backend pgvector_migrate on" in result["msg"]
    assert not project.exists("one")
    assert "Another run of migrations is at work" in str(project.run(check=True)["warnings"])
    project.query(f"SELECT pg_cancel_backend(pid) {_BACKENDS}")
    other.communicate(timeout=60)
    assert project.run()["changed"] is True


def test_pgvector_migrate_waits_for_alembic(project: Project, tmp_path: Path) -> None:
    project.revision("rone", None, SLEEP)
    process = started(project)
    project.wait(lambda: project.query(SLEEPING) == [(1,)])
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int);")
    options = {**project.server.login(project.database), "directory": str(tmp_path), "lock_wait": 0.5}
    result = project.module("pgvector_migrate", options)
    assert "groundwork.backend alembic_migrate on" in result["msg"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_module_leaves_nothing_running_and_nothing_applied(project: Project, number: int) -> None:
    project.tables("one")
    project.revision("rslow", "rone", SLEEP)
    process = started(project)
    project.wait(lambda: project.query(SLEEPING) == [(1,)])
    process.send_signal(number)
    process.communicate(timeout=60)
    project.wait(lambda: project.query(SLEEPING) == [(0,)])
    project.wait(lambda: project.query(LOCKED) == [(0,)])
    assert not project.exists("one")
    project.revision("rslow", "rone", "pass")
    assert names(project.run()["applied"]) == ["rone", "rslow"]


def test_the_timeout_stops_it_and_tells_the_state(project: Project) -> None:
    project.env(options="{'transaction_per_migration': True}")
    project.tables("one")
    project.revision("rslow", "rone", f"print('now it hangs'); {SLEEP}")
    result = project.run(timeout=15)
    assert "Alembic did not end within 15 seconds and was stopped" in result["msg"]
    assert "now it hangs" in result["msg"]
    assert (result["changed"], names(result["applied"]), names(result["pending"])) == (True, ["rone"], ["rslow"])
    project.wait(lambda: project.query(SLEEPING) == [(0,)])


def test_the_connection_of_the_lock_is_lost(project: Project) -> None:
    project.tables("one")
    project.revision("rslow", "rone", SLEEP)
    process = started(project)
    project.wait(lambda: project.query(SLEEPING) == [(1,)])
    project.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'groundwork.backend alembic_migrate%'"
    )
    result = result_of(process)
    assert "Could not keep the lock of migrations" in result["msg"]
    assert (result["changed"], result["applied"]) == (False, [])
    project.wait(lambda: project.query(SLEEPING) == [(0,)])
    assert not project.exists("one")


def test_the_program_dies_in_the_middle(project: Project) -> None:
    project.env(options="{'transaction_per_migration': True}")
    project.tables("one")
    project.revision("rdies", "rone", "import os; os._exit(9)")
    result = project.run()
    assert "ended with 9" in result["msg"]
    assert (result["changed"], names(result["applied"]), names(result["pending"])) == (True, ["rone"], ["rdies"])
