# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Dump one PostgreSQL database with everything that a restore can be checked against, from one snapshot."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    GroundworkError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run, stream
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session, Tools, fix_for, major
from ansible_collections.groundwork.backend.plugins.module_utils._sets import utc_text

DUMP_NAME = "database.dump"
GLOBALS_NAME = "globals.sql"

# A role's own settings must not cut a long count off, hide rows from it, or lead it to other tables.
_SETTINGS = """
SELECT set_config(name, CASE name WHEN 'search_path' THEN 'pg_catalog' WHEN 'row_security' THEN 'off'
                                  WHEN 'lock_timeout' THEN '{lock_timeout}' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('search_path', 'row_security', 'lock_timeout', 'statement_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout');
"""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_catalog.pg_export_snapshot();"
_SERVER = "SELECT jsonb_build_array(current_setting('server_version'), current_setting('server_version_num')::int);"
_EXTENSIONS = "SELECT coalesce(jsonb_object_agg(extname, extversion), '{}') FROM pg_catalog.pg_extension;"
_HAS_LEDGER = """
SELECT count(*) FROM pg_catalog.pg_attribute
WHERE attrelid = to_regclass('public.schema_migrations') AND attname IN ('version', 'state') AND NOT attisdropped;
"""
_SCHEMA_VERSION = r"""
SELECT max(version::text COLLATE "C") FROM public.schema_migrations
WHERE version::text ~ '^[0-9]+$' AND state::text IN ('applied', 'baseline') AND version::text::numeric = (
  SELECT max(version::text::numeric) FROM public.schema_migrations
  WHERE version::text ~ '^[0-9]+$' AND state::text IN ('applied', 'baseline'));
"""
# Partitioned tables and views hold no rows themselves; an extension's own tables come back with the extension.
_COUNTS = r"""
SELECT format('SELECT jsonb_build_array(%L, count(*)) FROM ONLY %I.%I', nspname || '.' || relname, nspname, relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE relkind = 'r' AND nspname <> 'information_schema' AND nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY nspname, relname \gexec
"""
# Connections of this run all have the same application_name, which no other run has.
_STOP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Job:
    """What to dump and how; lock_timeout as PostgreSQL writes times."""

    database: str
    name: str
    dest: Path
    compression: str | None
    lock_timeout: str
    with_globals: bool

    @property
    def file_names(self) -> list[str]:
        """Names of the files that the job writes."""
        return [DUMP_NAME, GLOBALS_NAME] if self.with_globals else [DUMP_NAME]


def check_time(text: str) -> str:
    """The time, when PostgreSQL can read it. Raises InputError."""
    if not re.fullmatch(r"\d+(us|ms|s|min|h|d)?", text):
        raise InputError(f"lock_timeout {text!r} is no time.", fix="Write it as PostgreSQL does, such as 30s or 5min.")
    return text


def compression_arguments(compression: str | None, client: str) -> list[str]:
    """pg_dump's argument for "none", a gzip level, or "gzip", "lz4", "zstd" with ":level"; older clients know gzip.

    Raises InputError and DependencyError.
    """
    if compression is None:
        return []
    found = re.fullmatch(r"(none)|(?:(gzip|lz4|zstd)(?::(\d{1,2}))?)|(\d)", compression)
    if not found:
        raise InputError(
            f"compression {compression!r} is not known.", fix="Use none, gzip, lz4 or zstd, with :level if you like."
        )
    none, method, level, bare = found.groups()
    if none or bare:
        return [f"--compress={bare or 0}"]
    if method == "gzip":
        return [f"--compress={level}"] if level else []
    if major(client) < 16:
        raise DependencyError(
            f"Compression with {method} needs pg_dump 16 or newer, found {client}.", fix="Set compression to gzip."
        )
    return [f"--compress={compression}"]


def require_client(client: str, server: str, server_major: int, where: str) -> None:
    """Refuse a pg_dump that is older than the server: it cannot dump it. Raises DependencyError."""
    if major(client) < server_major:
        raise DependencyError(
            f"pg_dump {server_major} or newer is needed for a server of version {server}, found {client} in {where}.",
            fix=f"Install Debian's package postgresql-client-{server_major}, correct bin_dir, or set container.",
        )


def server_versions(session: Session) -> tuple[str, int]:
    """The server's version as it states it, and its major number."""
    version, number = json.loads(session.query(_SERVER)[0])
    return version, number // 10000


def require_unwritten(job: Job) -> None:
    """Refuse a folder that holds a finished dump already. Raises StateError."""
    if (job.dest / DUMP_NAME).exists():
        raise StateError(
            f"{job.dest / DUMP_NAME} exists already; a component is written once.", fix="Begin a new backup set."
        )


def dump(job: Job, tools: Tools, session: Session, *, server: str, client: str) -> dict[str, Any]:
    """Write the files of *job* and return its component. Nothing gets its final name unless all of it succeeded.

    Raises StateError (disk, folder), CommandError (pg_dump, pg_dumpall, pg_restore), UnreachableError (server lost).
    """
    started_at, clock = utc_text(datetime.now(UTC)), time.monotonic()
    with ExitStack() as stack:
        _prepare(job, stack)
        try:
            session.query(_SETTINGS.format(lock_timeout=job.lock_timeout))
            (snapshot,) = session.query(_SNAPSHOT)
            extensions = json.loads(session.query(_EXTENSIONS)[0])
            schema_version = _schema_version(session)
            session.send(_COUNTS)  # psql counts while pg_dump dumps
            writers = [stack.enter_context(ArtifactWriter(job.dest / name)) for name in job.file_names]
            try:
                _stream(tools.argv("pg_dump", *dump_arguments(job, snapshot, client)), writers[0], tools, job, "dump")
            except CommandError:
                session.require_alive()  # a failed count ends the snapshot: then that is the reason
                raise
            counts = dict(json.loads(line) for line in session.receive())
            if job.with_globals:
                _stream(tools.argv("pg_dumpall", *globals_arguments(job)), writers[1], tools, job, "dump the roles of")
            _read_in_full(writers[0].temporary, tools, job)
        except BaseException:
            _stop_leftovers(tools)
            raise
    return {
        "engine": "postgres",
        "name": job.name,
        "database": job.database,
        "format": "custom",
        "files": [writer.entry.to_dict() for writer in writers],
        "server_version": server,
        "client_version": client,
        "extensions": extensions,
        "schema_version": schema_version,
        "counts": counts,
        "started_at": started_at,
        "seconds": round(time.monotonic() - clock, 3),
    }


def dump_arguments(job: Job, snapshot: str, client: str) -> list[str]:
    """pg_dump's arguments; the login and the database are in the environment."""
    return [
        "--format=custom",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={job.lock_timeout}",
        *compression_arguments(job.compression, client),
    ]


def globals_arguments(job: Job) -> list[str]:
    """pg_dumpall's arguments; it must not depend on a database named postgres."""
    quoted = job.database.replace("\\", "\\\\").replace("'", "\\'")
    return ["--globals-only", "--no-password", f"--database=dbname='{quoted}'"]


def _prepare(job: Job, stack: ExitStack) -> None:
    with os_errors(f"create {job.dest}"):
        job.dest.mkdir(exist_ok=True)
        job.dest.chmod(0o700)
    busy = StateError(f"Another backup is writing into {job.dest}.", fix="Wait until it has ended.")
    stack.enter_context(directory_lock(job.dest, lambda: busy))
    require_unwritten(job)
    with os_errors(f"clean {job.dest}"):
        for name in job.file_names:
            for left in job.dest.glob(f".{name}.*.partial"):  # of a run that was killed
                left.unlink()


def _schema_version(session: Session) -> str | None:
    if session.query(_HAS_LEDGER) != ["2"]:
        return None
    (line,) = session.query(_SCHEMA_VERSION)
    return line or None


def _stream(argv: Sequence[str], writer: ArtifactWriter, tools: Tools, job: Job, verb: str) -> None:
    try:
        stream(argv, writer, env=tools.env, asked=f"{verb} database {job.database!r}")
    except CommandError as error:
        raise CommandError(error.problem, fix=fix_for(error.details["stderr"]), **error.details) from None


def _read_in_full(path: Path, tools: Tools, job: Job) -> None:
    """pg_restore --list passes on a truncated dump; writing all of it to nowhere does not."""
    with os_errors(f"read {path}"), path.open("rb") as file:
        run(
            tools.argv("pg_restore", "--file=/dev/null", stdin=True),
            env=tools.env,
            stdin=file,
            asked=f"read the new dump of database {job.database!r} in full",
        )


def _stop_leftovers(tools: Tools) -> None:
    """What runs inside a container outlives docker exec: end this run's connections, so that it stops."""
    if tools.container is None:
        return
    with suppress(GroundworkError):
        run(tools.argv("psql", "--no-psqlrc", "--no-password", f"--command={_STOP}"), env=tools.env, timeout=20)
