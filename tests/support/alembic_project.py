# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A project that uses Alembic, and a database for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.processes import wait_for

INI = """
[alembic]
script_location = migrations
sqlalchemy.url = {url}

[loggers]
keys = root, alembic

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARNING
handlers = console
qualname =

[logger_alembic]
level = INFO
handlers =
qualname = alembic

[handler_console]
class = StreamHandler
args = (sys.stdout,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
"""

# As alembic init writes it, with the address from the environment as most projects have it, and talkative.
ENV = """
import os
from logging.config import fileConfig
from alembic import context
from sqlalchemy import create_engine, pool, text

config = context.config
fileConfig(config.config_file_name)
URL = os.environ.get("DATABASE_URL") or config.get_main_option("sqlalchemy.url")
print('{"event": "plan", "note": "env.py says hello"}', flush=True)
OPTIONS = @OPTIONS@

def offline():
    context.configure(url=URL, literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()

def online():
    engine = create_engine(URL, poolclass=pool.NullPool)
    with engine.connect() as connection:
        @BEFORE@
        context.configure(connection=connection, **OPTIONS)
        with context.begin_transaction():
            context.run_migrations()

offline() if context.is_offline_mode() else online()
"""

ASYNC_ENV = """
import asyncio, os
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import async_engine_from_config

context.config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"].replace("%", "%%"))

def work(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def online():
    section = context.config.get_section(context.config.config_ini_section, {})
    engine = async_engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(work)
    await engine.dispose()

asyncio.run(online())
"""

REVISION = '''"""{message}"""
from alembic import op
revision = {revision!r}
down_revision = {down!r}
branch_labels = depends_on = None
def upgrade():
    {upgrade}
def downgrade():
    {downgrade}
'''


def write_env(folder: Path, text: str = "", *, options: str = "{}", before: str = "pass") -> None:
    """Write env.py of the project in *folder*."""
    place = folder / "migrations" / "env.py"
    place.write_text(text or ENV.replace("@OPTIONS@", options).replace("@BEFORE@", before))


def write_revision(
    folder: Path, revision: str, down: str | tuple[str, ...] | None, upgrade: str, downgrade: str = "pass"
) -> None:
    """Write one revision of the project in *folder*, with the message "change <its id>"."""
    text = REVISION.format(
        message=f"change {revision}", revision=revision, down=down, upgrade=upgrade, downgrade=downgrade
    )
    (folder / "migrations" / "versions" / f"{revision}_change.py").write_text(text)


def write_project(folder: Path) -> None:
    """Write a project without revisions into *folder*. Its alembic.ini has the address of no server."""
    (folder / "migrations" / "versions").mkdir(parents=True)
    (folder / "alembic.ini").write_text(INI.format(url="postgresql+psycopg://nobody@127.0.0.1:1/none"))
    write_env(folder)


@dataclass
class Project:
    """A project below *folder*, run with the Python of the tests, and its database."""

    module: ModuleRunner
    server: PostgresServer
    database: str
    folder: Path
    place: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_project(self.folder)
        self.place = self.place or {"venv": sys.prefix, "directory": str(self.folder)}

    def env(self, text: str = "", *, options: str = "{}", before: str = "pass") -> None:
        """Write env.py."""
        write_env(self.folder, text, options=options, before=before)

    def revision(
        self, revision: str, down: str | tuple[str, ...] | None, upgrade: str, downgrade: str = "pass"
    ) -> None:
        """Write one revision, with the message "change <its id>"."""
        write_revision(self.folder, revision, down, upgrade, downgrade)

    def tables(self, *names: str, after: str | None = None) -> None:
        """One revision for each table, in a row."""
        for name in names:
            sql = f"op.execute('CREATE TABLE {name} (id int)')"
            self.revision(f"r{name}", after, sql, f"op.execute('DROP TABLE {name}')")
            after = f"r{name}"

    def url(self, driver: str = "psycopg") -> str:
        return self.server.dsn(self.database).replace("postgresql:", f"postgresql+{driver}:")

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            **self.server.login(self.database), **self.place, "env": {"DATABASE_URL": self.url()}, **more,
        }  # fmt: skip

    def run(self, *, check: bool = False, diff: bool = True, **more: Any) -> dict[str, Any]:
        return self.module("alembic_migrate", self.options(**more), check=check, diff=diff)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.database) as connection:
            return connection.execute(text).fetchall()  # type: ignore[arg-type]  # the test's own text

    def execute(self, text: str) -> None:
        with self.server.connect(self.database) as connection:
            connection.execute(text)  # type: ignore[arg-type]  # as above

    def connect(self) -> psycopg.Connection:
        return self.server.connect(self.database)

    def exists(self, relation: str) -> bool:
        return self.query(f"SELECT to_regclass('{relation}') IS NOT NULL") == [(True,)]

    def version(self, table: str = "alembic_version") -> list[str]:
        return sorted(row[0] for row in self.query(f"SELECT version_num FROM {table}"))

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, "the condition never came true", seconds=60, every=0.05)


def names(entries: list[Mapping[str, str]]) -> list[str]:
    """The ids of revisions in a result."""
    return [entry["revision"] for entry in entries]
