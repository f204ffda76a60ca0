# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Deploys of a stack whose migrations are Alembic's, in a one-shot container of a compose service."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.alembic_image import BASE, INSTALL
from support.alembic_project import write_project, write_revision
from support.collection import ROOT
from support.docker_host import DockerHost, fresh_host
from support.private_registry import private_registry
from support.scenario import Playbook, Run

HOST, ADDRESS = "app-alembic", "198.18.0.114"
PASSWORD, TOKEN = "canary-9b1e57c0", "canary-registry-2f"
DOCKERFILE = f"""
FROM {BASE}
RUN {INSTALL}
WORKDIR /app
COPY . .
CMD ["python", "-u", "app.py"]
"""
APP = """
import http.server, json, os
import psycopg

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")) as connection:
            words = [row[0] for row in connection.execute("SELECT word FROM words ORDER BY word")]
        body = json.dumps({"ok": True, "release": os.environ["APP_RELEASE"], "words": words}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
COMPOSE: dict[str, Any] = {
    "services": {
        "db": {
            "image": "${REGISTRY}/pgvector/pgvector:pg16",
            "environment": {"POSTGRES_USER": "words", "POSTGRES_PASSWORD": "${DB_PASSWORD}", "POSTGRES_DB": "words"},
            "ports": ["5432:5432"],
            "volumes": ["data:/var/lib/postgresql/data"],
            "healthcheck": {
                "test": ["CMD-SHELL", "pg_isready -U words -d words"],
                "interval": "30s",
                "start_interval": "1s",
                "start_period": "60s",
            },
        },
        "web": {
            "build": ".",
            "container_name": "words_web",
            "environment": {"DATABASE_URL": "postgresql+psycopg://words:${DB_PASSWORD}@db:5432/words"},
            "depends_on": {"db": {"condition": "service_healthy"}},
            "ports": ["8000:8000"],
            "stop_grace_period": "1s",
        },
    },
    "volumes": {"data": {}},
}


@dataclass(frozen=True)
class Stack:
    """A stack that was deployed once, with the revision rfirst. source is never changed: tests deploy copies."""

    host: DockerHost
    source: Path
    inventory: Path
    first: Run

    def deploy(self, folder: Path, source: Path, *arguments: str) -> Run:
        """Deploy a source; *folder* is for files of the run."""
        run = Playbook(folder, self.inventory)("deploy", *arguments, app_source={"path": str(source)})
        assert PASSWORD not in run.output
        return run

    def copy(self, folder: Path) -> Path:
        """A copy of the source that a test may change."""
        return Path(shutil.copytree(self.source, folder / "source"))

    def current(self) -> str:
        """The id of the current release."""
        return self.host.sh("basename $(readlink /srv/words/current)").strip()

    def ask(self) -> dict[str, Any]:
        """What the service answers."""
        found: dict[str, Any] = json.loads(self.host.sh("curl --silent --fail --max-time 10 http://127.0.0.1:8000/"))
        return found

    def revision(self) -> str:
        """The revision that the database is at."""
        query = "psql -XAtqU words -c 'SELECT version_num FROM alembic_version' words"
        return self.host.sh(f"docker exec words-db-1 {query}").strip()

    def containers(self) -> str:
        """The containers of the host, with their ids and since when they run."""
        return self.host.sh(
            "docker ps --all --quiet | xargs docker inspect --format '{{.Id}} {{.State.StartedAt}}' | sort"
        )

    def recorded(self, release: str) -> dict[str, Any]:
        """What is recorded of a release."""
        found: dict[str, Any] = json.loads(self.host.sh(f"cat /srv/words/shared/{release}/release.json"))
        return found


def write_inventory(path: Path, host: DockerHost, source: Path, registry: str) -> None:
    """The inventory of the stack, as a user has it."""
    login = {"host": registry, "username": "reader", "password": TOKEN}
    migration = {
        "engine": "alembic", "service": "db", "database": "words", "path": "migrations", "user": "words",
        "password": PASSWORD, "alembic_service": "web",
    }  # fmt: skip
    variables = {
        "ansible_host": host.address,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": host.private_key,
        "ansible_ssh_common_args": f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={host.folder}/known",
        "app_name": "words",
        "app_source": {"path": str(source)},
        "app_compose_files": ["compose.yml"],
        "app_env": {"DB_PASSWORD": PASSWORD, "REGISTRY": registry},
        "app_web_services": {"web": {"port": 8000, "health": {"path": "/", "expect": "ok", "release": "release"}}},
        "app_migrations": [migration],
        "app_registries": [login],
        "app_health_timeout": 60,
    }
    groups = {name: {"hosts": {host.name: {}}} for name in ("app", "database")}
    path.write_text(json.dumps({"all": {"children": groups, "vars": variables}}))


def write_source(folder: Path) -> None:
    """The application, with one revision."""
    write_project(folder)
    for name, text in {"Dockerfile": DOCKERFILE, "app.py": APP, "compose.yml": json.dumps(COMPOSE)}.items():
        (folder / name).write_text(text)
    write_revision(folder, "rfirst", None, "op.execute('CREATE TABLE words (word text)')")


@pytest.fixture(scope="module")
def stack(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack on a host of its own. The image of its database is in a private registry."""
    folder = tmp_path_factory.mktemp("app-alembic")
    source, inventory, site = folder / "source", folder / "inventory.yml", folder / "site.yml"
    write_source(source)
    with (
        fresh_host(root, {HOST: ADDRESS}, folder) as host,
        private_registry(folder, {"reader": TOKEN}) as registry,
    ):
        registry.trusted_by(host)
        write_inventory(inventory, host, source, registry.address)
        # What site.yml does for a host that has everything already.
        prepare = {"hosts": "app", "become": True, "gather_facts": False, "roles": ["groundwork.backend.app"]}
        plays = [ROOT / "playbooks" / name for name in ("preflight.yml", "plays/deploy.yml")]
        before, after = ({"ansible.builtin.import_playbook": str(play)} for play in plays)
        site.write_text(json.dumps([before, prepare, after]))
        first = Playbook(folder, inventory)(str(site))
        assert first.rc == 0, first.output
        assert PASSWORD not in first.output
        assert TOKEN not in first.output
        yield Stack(host, source, inventory, first)


def test_the_first_deploy_migrates_before_it_starts_the_service(stack: Stack) -> None:
    release = stack.current()
    assert stack.ask() == {"ok": True, "release": release, "words": []}
    assert stack.revision() == "rfirst"
    recorded = stack.recorded(release)
    assert recorded["schema_versions"] == {"words": "rfirst"}
    [migration] = recorded["migrations"]
    assert (migration["version"], migration["name"]) == ("rfirst", "change rfirst")


@pytest.mark.slow
def test_a_second_deploy_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    before = stack.containers()
    run = stack.deploy(tmp_path, stack.source)
    assert (run.rc, run.changed) == (0, 0), run.output
    assert stack.containers() == before


def test_a_failing_revision_leaves_the_old_release_serving(stack: Stack, tmp_path: Path) -> None:
    before, containers, revision = stack.current(), stack.containers(), stack.revision()
    source = stack.copy(tmp_path)
    write_revision(source, "rgood", "rfirst", "op.execute('CREATE TABLE good (id int)')")
    write_revision(source, "rbad", "rgood", "op.execute('SELECT * FROM nowhere')")
    run = stack.deploy(tmp_path, source)
    assert run.rc != 0, run.output
    for words in (
        "Revision rbad (change rbad) failed: ",
        '"nowhere" does not exist',
        f"Release {before} keeps serving",
    ):
        assert words in run.words, run.output
    assert stack.ask()["release"] == before == stack.current()
    assert (stack.containers(), stack.revision()) == (containers, revision)
