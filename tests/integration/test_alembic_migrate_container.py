# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""alembic_migrate in a one-shot container of the release's image."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.alembic_image import BASE, project_image
from support.alembic_project import Project, names
from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.postgres_container import docker, need_image
from support.processes import command_lines, environments

CANARY = "canary-51b7e0d2"
SERVER_IMAGE = "pgvector/pgvector:pg16"
LABEL = "label=org.groundwork.alembic"


@pytest.fixture
def images(root: Path) -> Iterator[list[str]]:
    """Names of images to remove at the end."""
    need_image(root, BASE)
    made: list[str] = []
    yield made
    for name in made:
        docker("image", "rm", "--force", name, check=False)


@pytest.fixture
def built(project: Project, images: list[str]) -> Project:
    """A project whose image is built by build(), and which reaches the server through the host's network."""
    project.place = {"image": f"groundwork-test/{project.database}:{os.getpid()}", "network": "host"}
    images.append(project.place["image"])
    project.tables("one", "two")
    return project


def build(project: Project) -> None:
    project_image(project.folder, project.place["image"])


def containers() -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", LABEL).split()


def test_check_do_check_again_do_again(built: Project) -> None:
    build(built)
    planned = built.run(check=True)
    assert names(planned.get("pending", [])) == ["rone", "rtwo"], planned
    assert "CREATE TABLE two (id int)" in planned["diff"][1]["after"]
    assert not built.exists("alembic_version")
    done = built.run()
    assert (done["changed"], names(done["applied"]), done["revisions"]) == (True, ["rone", "rtwo"], ["rtwo"])
    assert built.exists("two")
    for check in (True, False):
        assert built.run(check=check)["changed"] is False
    back = built.run(action="downgrade", target="base")
    assert (names(back["undone"]), back["revisions"]) == (["rtwo", "rone"], [])


def test_a_failing_revision(built: Project) -> None:
    built.revision("rbad", "rtwo", "print('about to fail'); op.execute('SELECT * FROM nowhere')")
    build(built)
    result = built.run()
    assert "Revision rbad (change rbad) failed: " in result["msg"]
    assert "about to fail" in result["msg"]
    assert (result["changed"], result["revisions"], built.exists("one")) == (False, [], False)


def test_the_container_dies_in_the_middle(built: Project) -> None:
    built.env(options="{'transaction_per_migration': True}")
    built.revision("rdies", "rtwo", "import os; os.kill(os.getpid(), 11); os._exit(9)")
    build(built)
    result = built.run()
    assert " ended with " in result["msg"]
    assert (result["changed"], result["revisions"], names(result["pending"])) == (True, ["rtwo"], ["rdies"])


def without_configuration(project: Project) -> dict[str, Any]:
    (project.folder / "alembic.ini").unlink()
    return {}


def without_scripts(project: Project) -> dict[str, Any]:
    shutil.rmtree(project.folder / "migrations")
    return {}


def options(**more: Any) -> Any:
    return lambda _project: more


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (options(image="groundwork-test/nowhere:1"), "There is no image groundwork-test/nowhere:1 on this host."),
        (options(network="gw-nowhere"), "There is no network gw-nowhere on this host."),
        (options(python="python9"), "There is no such Python in the image"),
        (options(image=BASE), f"Alembic is needed in the image {BASE} and could not be imported"),
        (options(directory="/srv"), "There is no file /srv/alembic.ini in the image"),
        (options(volumes=["no:such:volume:at:all"]), "no:such:volume:at:all"),
        (options(network="none"), "Check the address that env.py uses"),
        (options(env={}), "Check the address that env.py uses"),
        (without_configuration, "There is no file /app/alembic.ini in the image"),
        (without_scripts, "Correct script_location and the scripts in it."),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(built: Project, change: Any, sentence: str) -> None:
    more = change(built)
    build(built)
    before = containers()
    result = built.run(**more)
    assert result.get("failed"), result
    assert sentence in result["msg"], result["msg"]
    assert result["changed"] is False
    assert not built.exists("one")
    assert set(containers()) <= set(before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_module_leaves_no_container_and_no_secret_was_seen(built: Project, number: int) -> None:
    built.revision("rslow", "rtwo", "op.execute('SELECT pg_sleep(600)')")
    build(built)
    built.execute(f"CREATE ROLE {built.database} LOGIN SUPERUSER PASSWORD '{CANARY}'")
    try:
        url = built.server.dsn(built.database, user=built.database, password=CANARY).replace("sql:", "sql+psycopg:")
        process = built.module.start("alembic_migrate", built.options(env={"DATABASE_URL": url}))
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%(600)%'"
        sleeping += " AND pid <> pg_backend_pid()"
        built.wait(lambda: built.query(sleeping) == [(1,)])
        seen = [docker("inspect", *containers()), *command_lines().values(), *environments().values()]
        assert "org.groundwork.alembic" in seen[0]
        assert CANARY not in "".join(seen)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert CANARY not in out + err
        built.wait(lambda: built.query(sleeping) == [(0,)])
        name = f"name=groundwork-alembic-{process.pid}-"
        built.wait(lambda: docker("ps", "--all", "--quiet", "--filter", name) == "")
        assert not built.exists("one")
    finally:
        built.execute(f"REASSIGN OWNED BY {built.database} TO postgres; DROP ROLE {built.database}")


def test_a_server_that_only_the_network_reaches_by_name(
    root: Path, module: ModuleRunner, postgres18: PostgresServer, images: list[str], tmp_path: Path
) -> None:
    """The name of the server is known in the network only, and the lock is taken through its address."""
    need_image(root, SERVER_IMAGE)
    name = f"gw-test-alembic-{os.getpid()}"
    network = "groundwork-testbed"
    docker("run", "--detach", "--name", name, "--network", network, "--network-alias", "gw-alembic-db",
           "--env", f"POSTGRES_PASSWORD={CANARY}", "--env", "POSTGRES_DB=app", SERVER_IMAGE)  # fmt: skip
    try:
        project = Project(module, postgres18, "app", tmp_path / "project")
        project.place = {"image": f"groundwork-test/network:{os.getpid()}", "network": network}
        images.append(project.place["image"])
        project.tables("one")
        build(project)
        address = docker(
            "inspect", "--format", '{{(index .NetworkSettings.Networks "' + network + '").IPAddress}}', name
        )
        env = {"DATABASE_URL": f"postgresql+psycopg://postgres:{CANARY}@gw-alembic-db/app"}
        login = {"login_host": address, "login_port": 5432, "login_password": CANARY, "env": env}
        asked = ("psql", "-XAtq", "-c", "SELECT 'ready'", f"postgresql://postgres:{CANARY}@{address}/app")
        project.wait(lambda: docker("exec", name, *asked, check=False) == "ready")
        result = project.run(**login)
        assert result["changed"] is True, result
        assert result["revisions"] == ["rone"]
        assert CANARY not in result["_printed"]
        assert project.run(**login)["changed"] is False
    finally:
        docker("rm", "--force", "--volumes", name)
