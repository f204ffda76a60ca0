# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Real servers for the integration tests."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.alembic_project import Project
from support.backup_sets import Sets
from support.docker_host import DockerHost, fresh_host
from support.migrations import Bench
from support.modules import ModuleRunner
from support.mongo import MongoServer, replica_set, standalone
from support.mongo_sets import MongoSets
from support.postgres import PostgresServer
from support.postgres_container import ContainerServer, need_image
from support.rolling import Rolling, prepare

PG17_IMAGE = "pgvector/pgvector:pg17"
# One for each worker of a parallel run (tests/run.py), and for who runs tests beside it.
HOSTS = {
    "integration": "198.18.0.106",
    "integration-two": "198.18.0.121",
    "integration-three": "198.18.0.122",
    "integration-four": "198.18.0.142",
}
_names = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need a host come first: they take longest, and a worker that got them last would work on alone."""
    slow = {item.path for item in items if "docker_host" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)


def _serve(major: int) -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix=f"gw-pg{major}-", dir="/tmp"))
    server = PostgresServer.start(major, folder)
    yield server
    server.down("immediate")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PostgresServer]:
    """PostgreSQL 16 with pgvector."""
    yield from _serve(16)


@pytest.fixture(scope="session")
def postgres18() -> Iterator[PostgresServer]:
    """PostgreSQL 18 with pgvector."""
    yield from _serve(18)


@pytest.fixture(scope="session")
def postgres17(root: Path) -> Iterator[ContainerServer]:
    """PostgreSQL 17 with pgvector 0.8.0, in a container that publishes no port."""
    need_image(root, PG17_IMAGE)
    folder = Path(tempfile.mkdtemp(prefix="gw-pg17-", dir="/tmp"))
    server = ContainerServer.run(PG17_IMAGE, folder)
    yield server
    server.remove()
    shutil.rmtree(folder)


@pytest.fixture(params=[16, 18], ids=["pg16", "pg18"])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Each of the supported servers in turn."""
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    return server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """A new empty database on *postgres*; its name."""
    name = f"db_{next(_names)}"
    postgres.create_database(name)
    return name


@pytest.fixture
def bench(module: ModuleRunner, postgres: PostgresServer, database: str, tmp_path: Path) -> Bench:
    """Migrations on each of the supported servers."""
    return Bench(module, postgres, database, tmp_path)


@pytest.fixture
def bench18(module: ModuleRunner, postgres18: PostgresServer, tmp_path: Path) -> Bench:
    """Migrations, for what does not depend on the server's version."""
    name = f"one_{next(_names)}"
    postgres18.create_database(name)
    return Bench(module, postgres18, name, tmp_path)


@pytest.fixture
def bench17(module: ModuleRunner, postgres17: ContainerServer, tmp_path: Path) -> Bench:
    """Migrations on PostgreSQL 17, whose pgvector has known faults."""
    name = f"seventeen_{next(_names)}"
    postgres17.create_database(name)
    return Bench(module, postgres17, name, tmp_path)


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A replica set of one member, with authentication."""
    with replica_set(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A standalone server, which has no snapshots."""
    with standalone(tmp_path_factory.mktemp("mongo-standalone")) as server:
        yield server


@pytest.fixture(scope="session")
def docker_host(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """A Debian host with an engine of its own, on which modules run through Ansible."""
    with fresh_host(root, HOSTS, tmp_path_factory.mktemp("docker-host")) as host:
        yield host


@pytest.fixture(scope="module")
def sets(module: ModuleRunner, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Backup sets in a folder of each test file."""
    return Sets(module, tmp_path_factory.mktemp("sets") / "sets")


@pytest.fixture(scope="module")
def mongo_sets(module: ModuleRunner, tmp_path_factory: pytest.TempPathFactory) -> MongoSets:
    """Backup sets of MongoDB in a folder of each test file."""
    return MongoSets(module, tmp_path_factory.mktemp("mongo-sets") / "sets")


@pytest.fixture
def project(module: ModuleRunner, postgres18: PostgresServer, tmp_path: Path) -> Project:
    """A project that uses Alembic, with a database, for what does not depend on the server's version."""
    name = f"alembic_{next(_names)}"
    postgres18.create_database(name)
    return Project(module, postgres18, name, tmp_path / "project")


@pytest.fixture(scope="session")
def app_host(docker_host: DockerHost) -> DockerHost:
    """The Debian host, with the image of a small web service."""
    prepare(docker_host)
    return docker_host


@pytest.fixture
def stack(app_host: DockerHost) -> Iterator[Rolling]:
    """A stack with one rolled service, of which nothing runs. Volumes that earlier tests left are gone."""
    app_host.sh("docker volume prune --all --force >/dev/null")
    rolling = Rolling(app_host, "shop")
    yield rolling
    rolling.clean()
