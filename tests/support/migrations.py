# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A database and a directory of migrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.processes import wait_for


@dataclass
class Bench:
    """One database and one directory of migrations."""

    module: ModuleRunner
    server: PostgresServer
    database: str
    directory: Path

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.directory / name).write_text(text)

    def options(self, **more: Any) -> dict[str, Any]:
        return {**self.server.login(self.database), "directory": str(self.directory), **more}

    def run(self, *, check: bool = False, **more: Any) -> dict[str, Any]:
        return self.module("pgvector_migrate", self.options(**more), check=check)

    def connect(self) -> psycopg.Connection:
        return self.server.connect(self.database)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(text).fetchall()

    def execute(self, text: str) -> None:
        with self.connect() as connection:
            connection.execute(text)

    def ledger(self) -> list[tuple[Any, ...]]:
        return self.query("SELECT version, state FROM public.schema_migrations ORDER BY version::bigint")

    def exists(self, relation: str) -> bool:
        return self.query(f"SELECT to_regclass('{relation}') IS NOT NULL") == [(True,)]

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, "the condition never came true", seconds=20, every=0.05)
