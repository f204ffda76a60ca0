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
from support.migrations import Bench
from support.modules import ModuleRunner
from support.postgres import PostgresServer

_names = itertools.count(1)


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
