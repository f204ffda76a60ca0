# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Dumps of real databases for the tests of pg_backup: what is in a restored one, and processes caught in the act."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from support.postgres import PostgresServer
from support.processes import programs, wait_for

# Bytes that gzip hardly shrinks and works on for a while, so that a test can step in.
BULK = """
CREATE TABLE bulk AS SELECT i, string_agg(md5(i::text || j::text), '') AS body
FROM generate_series(1, 6000) AS i, generate_series(1, 150) AS j GROUP BY i
"""


def backup_options(server: PostgresServer, database: str, dest: Path, **more: Any) -> dict[str, Any]:
    """The options of pg_backup for a server of this machine, with its own client programs."""
    return {**server.local(database), "dest": str(dest), **more}


def counts(connection: Connection) -> dict[str, int]:
    """Rows by "schema.table" of every table that holds rows itself; partitions by_mood_… count as by_mood."""
    tables = connection.execute(
        "SELECT nspname, relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace "
        "WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema)'"
    ).fetchall()
    found: dict[str, int] = {}
    for schema, table in tables:
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))
        (rows,) = connection.execute(query).fetchone() or (0,)
        name = f"{schema}.{'by_mood' if table.startswith('by_mood_') else table}"
        found[name] = found.get(name, 0) + rows
    return found


def freeze_directory_dump(module: subprocess.Popen[str], dest: Path) -> list[int]:
    """Wait until data of a dump in format directory is written into *dest*; pids of its stopped (SIGSTOP) processes."""

    def written() -> bool:
        return any(path.stat().st_size > 1 << 18 for path in dest.glob(".database.dir.*.partial/*.dat*"))

    wait_for(lambda: written() or module.poll() is not None, "no data", every=0.005)
    pids = programs("pg_dump", str(dest))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert len(pids) > 1, f"the dump was over: {module.communicate()}"
    return pids
