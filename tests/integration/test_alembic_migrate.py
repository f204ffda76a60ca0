# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""alembic_migrate with a venv: what it does, what it returns, and what it learns from env.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.alembic_project import ASYNC_ENV, Project, names
from support.modules import ModuleRunner
from support.postgres import PostgresServer


def test_check_do_check_again_do_again(
    module: ModuleRunner, postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    project = Project(module, postgres, database, tmp_path / "project")
    project.tables("one", "two")
    planned = project.run(check=True)
    assert planned["changed"] is True, planned
    assert planned["pending"] == [
        {"revision": "rone", "message": "change rone"},
        {"revision": "rtwo", "message": "change rtwo"},
    ]
    assert planned["applied"] == planned["revisions"] == []
    assert not project.exists("alembic_version")
    done = project.run()
    assert done["changed"] is True, done
    assert done["applied"] == planned["pending"]
    assert (done["pending"], done["revisions"], done["previous_revisions"], done["heads"]) == (
        [],
        ["rtwo"],
        [],
        ["rtwo"],
    )
    assert "Running upgrade rone -> rtwo" in done["output"]
    assert project.exists("two")
    for check in (True, False):
        again = project.run(check=check)
        assert again["changed"] is False, again
        assert again["applied"] == again["pending"] == []
        assert again["revisions"] == ["rtwo"]


def test_the_diff_shows_revisions_and_sql(project: Project) -> None:
    project.tables("one", "two")
    revisions, sql = project.run(check=True)["diff"]
    assert revisions["after"] == "rone change rone\nrtwo change rtwo\n"
    assert "CREATE TABLE two (id int)" in sql["after"]
    assert "diff" not in project.run(check=True, diff=False)
    assert project.run()["diff"] == [revisions]


def test_sql_that_needs_a_connection_is_replaced_by_the_list(project: Project) -> None:
    project.revision("rone", None, "op.get_bind().exec_driver_sql('CREATE TABLE one (id int)').close()")
    planned = project.run(check=True)
    assert len(planned["diff"]) == 1
    assert "The SQL cannot be shown: " in str(planned["warnings"])
    assert project.run()["applied"] == [{"revision": "rone", "message": "change rone"}]


def test_a_revision_with_a_connection_of_its_own_writes_nothing_for_the_diff(project: Project) -> None:
    own = "import os, sqlalchemy as s; c = s.create_engine(os.environ['DATABASE_URL']).connect(); "
    project.revision("rone", None, own + "c.execute(s.text('CREATE TABLE own (id int)')); c.commit()")
    planned = project.run(check=True)
    assert planned["changed"] is True, planned
    assert "read-only transaction" in str(planned["warnings"])
    assert not project.exists("own")
    assert project.run()["changed"] is True
    assert project.exists("own")


def test_target_leaves_the_later_ones(project: Project) -> None:
    project.tables("one", "two", "three")
    done = project.run(target="rtwo")
    assert (names(done["applied"]), done["pending"]) == (["rone", "rtwo"], [])
    planned = project.run(check=True)
    assert names(planned["pending"]) == ["rthree"]
    assert project.run(target="rone")["changed"] is False


def test_downgrade_undoes_and_says_what_is_pending_then(project: Project) -> None:
    project.tables("one", "two")
    project.run()
    planned = project.run(action="downgrade", target="base", check=True)
    assert names(planned["undone"]) == ["rtwo", "rone"]
    assert project.version() == ["rtwo"]
    done = project.run(action="downgrade", target="-1")
    assert done["changed"] is True, done
    assert (names(done["undone"]), names(done["pending"]), done["revisions"]) == (["rtwo"], ["rtwo"], ["rone"])
    assert not project.exists("two")
    assert project.run(action="downgrade", target="base")["revisions"] == []
    assert project.run(action="downgrade", target="base")["changed"] is False


def test_stamp_records_and_runs_nothing(project: Project) -> None:
    project.tables("one", "two")
    options = {"action": "stamp", "target": "rone"}
    planned = project.run(check=True, **options)
    assert (planned["changed"], names(planned["stamped"])) == (True, ["rone"])
    assert not project.exists("alembic_version")
    done = project.run(**options)
    assert (done["changed"], done["revisions"], names(done["pending"])) == (True, ["rone"], ["rtwo"])
    assert not project.exists("one")
    assert project.run(**options)["changed"] is False
    assert project.run(action="stamp", target="base")["revisions"] == []


def test_a_revision_that_the_scripts_do_not_have_is_named_and_purged(project: Project) -> None:
    project.tables("one")
    project.execute("CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('gone')")
    result = project.run()
    assert "The database is at revision gone, which the scripts" in result["msg"]
    assert project.version() == ["gone"]
    assert not project.exists("one")
    options = {"action": "stamp", "target": "head", "purge": True}
    assert project.run(check=True, **options)["changed"] is True
    assert project.version() == ["gone"]
    assert project.run(**options)["revisions"] == ["rone"]
    assert project.run(**options)["changed"] is False


@pytest.mark.parametrize("before", ["pass", "connection.execute(text('CREATE SCHEMA IF NOT EXISTS tools'))"])
def test_the_version_table_of_env_py_counts(project: Project, before: str) -> None:
    project.execute("CREATE SCHEMA other")
    table = "tools.revisions" if before != "pass" else "other.revisions"
    schema = table.partition(".")[0]
    project.env(options=f"{{'version_table': 'revisions', 'version_table_schema': {schema!r}}}", before=before)
    project.tables("one")
    assert project.run(check=True)["version_table"] == table
    assert project.query("SELECT 1 FROM pg_namespace WHERE nspname = 'tools'") == []
    if before != "pass":
        project.env(
            options=f"{{'version_table': 'revisions', 'version_table_schema': {schema!r}}}",
            before=f"{before}; connection.commit()",
        )
    done = project.run()
    assert done["changed"] is True, done
    assert project.version(table) == ["rone"]
    assert not project.exists("public.alembic_version")
    assert project.run()["changed"] is False
    assert project.run(check=True)["revisions"] == ["rone"]


def test_check_mode_refuses_an_env_py_that_writes_by_itself(project: Project) -> None:
    project.env(before="connection.execute(text('CREATE TABLE mine (id int)')); connection.commit()")
    project.tables("one")
    result = project.run(check=True)
    assert "env.py itself changes the database before the migrations, which check mode does not do" in result["msg"]
    assert not project.exists("mine")


def test_an_asynchronous_env_py(project: Project) -> None:
    project.env(ASYNC_ENV)
    project.tables("one")
    options = {"env": {"DATABASE_URL": project.url("asyncpg")}}
    planned = project.run(check=True, diff=False, **options)
    assert names(planned.get("pending", [])) == ["rone"], planned
    assert project.run(diff=False, **options)["revisions"] == ["rone"]
    assert project.run(**options)["changed"] is False
    project.env(ASYNC_ENV)
    assert project.run(env={"DATABASE_URL": project.url()}, action="downgrade", target="base")["revisions"] == []


def test_url_replaces_the_one_of_the_configuration(project: Project) -> None:
    project.tables("one")
    password = "p%40s/ %s:@ä"
    project.execute(f"CREATE ROLE odd LOGIN SUPERUSER PASSWORD '{password}'")
    try:
        quoted = "p%2540s%2F%20%25s%3A%40%C3%A4"
        url = project.server.dsn(project.database, user="odd", password=quoted).replace("sql:", "sql+psycopg:")
        done = project.run(env={}, url=url)
        assert done["revisions"] == ["rone"], done
    finally:
        project.execute("REASSIGN OWNED BY odd TO postgres; DROP ROLE odd")


def test_x_arguments_reach_env_py(project: Project) -> None:
    project.env(before="assert context.get_x_argument(as_dictionary=True) == {'tenant': 'a=b'}")
    project.tables("one")
    assert project.run(x_arguments={"tenant": "a=b"})["revisions"] == ["rone"]


def test_limits_for_locks_and_an_index_that_is_built_concurrently(project: Project) -> None:
    asked = "op.get_bind().exec_driver_sql('show lock_timeout').scalar()"
    project.revision("rone", None, f"assert {asked} == '7s'; op.execute('CREATE TABLE one (id int)')")
    index = "with op.get_context().autocommit_block(): op.execute('CREATE INDEX CONCURRENTLY i ON one (id)')"
    project.revision("rtwo", "rone", index)
    done = project.run(env={"DATABASE_URL": project.url(), "PGOPTIONS": "-c lock_timeout=7s"})
    assert done["revisions"] == ["rtwo"], done
    assert project.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


def test_the_way_that_ansible_brings_it_to_a_host(project: Project) -> None:
    project.tables("one")
    python = f"ansible_python_interpreter={sys.executable}"
    arguments = ["-i", "localhost,", "-c", "local", "-e", python, "-m", "groundwork.backend.alembic_migrate"]
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible"), "localhost", *arguments, "-a", json.dumps(project.options())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "localhost | CHANGED" in done.stdout, done.stdout + done.stderr
    assert project.exists("one")


def test_a_folder_named_alembic_and_a_python_path(project: Project) -> None:
    """A package alembic/ in the project hides the library from a Python that looks into its folder first."""
    (project.folder / "alembic").mkdir()
    (project.folder / "alembic" / "__init__.py").write_text("")
    (project.folder / "src").mkdir()
    (project.folder / "src" / "my_models.py").write_text("")
    project.env(before="import my_models")
    project.tables("one")
    env = {"DATABASE_URL": project.url(), "PYTHONPATH": str(project.folder / "src")}
    assert project.run(env=env)["revisions"] == ["rone"]


def test_a_project_without_revisions(project: Project) -> None:
    result = project.run()
    assert result["changed"] is False, result
    assert "The project has no revision." in str(result["warnings"])


def test_several_heads_are_named_and_each_can_be_chosen(project: Project) -> None:
    project.tables("one")
    project.tables("two", after="rone")
    project.tables("three", after="rone")
    result = project.run()
    assert "The project has several heads: rthree, rtwo. Merge them (alembic merge heads)" in result["msg"]
    assert not project.exists("one")
    assert project.run(target="rtwo")["revisions"] == ["rtwo"]
    done = project.run(target="heads")
    assert (names(done["applied"]), done["revisions"]) == (["rthree"], ["rthree", "rtwo"])
    project.revision("rmerge", ("rtwo", "rthree"), "pass")
    assert project.run()["revisions"] == ["rmerge"]
