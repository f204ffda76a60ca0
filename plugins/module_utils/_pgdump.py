# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What to dump of one PostgreSQL database, and the arguments of pg_dump and pg_dumpall for it."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    InputError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._psql import major

GLOBALS_NAME = "globals.sql"
FORMATS = {"custom": "database.dump", "directory": "database.dir", "plain": "database.sql"}
# Of each method: the highest level, the ending of a plain dump's name, and pg_dump's first version with it.
_METHODS = {"gzip": (9, ".gz", 0), "lz4": (12, ".lz4", 16), "zstd": (22, ".zst", 16)}
_GZIP_LEVEL = 6  # zlib's own default
_FIRST_WITH_EXTENSION = 14


@dataclass(frozen=True)
class Compression:
    """How a dump is compressed; method None is not at all, level None the method's own default."""

    method: str | None = None
    level: int | None = None

    @property
    def suffix(self) -> str:
        """What is added to the name of a plain dump."""
        return _METHODS[self.method][1] if self.method else ""

    def __str__(self) -> str:
        """As the option is written: "none", "gzip", "zstd:3"."""
        return (self.method or "none") + ("" if self.level is None else f":{self.level}")

    def arguments(self, client: str) -> list[str]:
        """pg_dump's argument. Raises DependencyError when that version does not know the method."""
        if self.method is None:
            return ["--compress=0"]
        if self.method == "gzip":
            return [f"--compress={self.level or _GZIP_LEVEL}"]
        if major(client) < (first := _METHODS[self.method][2]):
            raise DependencyError(
                f"Compression with {self.method} needs pg_dump {first} or newer, found {client}.",
                fix="Set compression to gzip.",
            )
        return [f"--compress={self}"]


@dataclass(frozen=True)
class Filter:
    """Patterns as pg_dump takes them (https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-PATTERNS)."""

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def to_dict(self) -> dict[str, list[str]]:
        """A JSON-ready dictionary."""
        return {name: list(patterns) for name, patterns in asdict(self).items()}

    def arguments(self, client: str) -> list[str]:
        """pg_dump's arguments; a pattern to include that matches nothing is an error of pg_dump then."""
        options = {"schema": self.schemas, "table": self.tables}
        found = [f"--{option}={pattern}" for option, patterns in options.items() for pattern in patterns]
        if found:
            found.append("--strict-names")
            if major(client) >= _FIRST_WITH_EXTENSION:
                # Left to itself, pg_dump leaves out the extensions that the columns of those tables need.
                found.append("--extension=*")
        options = {"exclude-schema": self.exclude_schemas, "exclude-table": self.exclude_tables}
        return found + [f"--{option}={pattern}" for option, patterns in options.items() for pattern in patterns]


@dataclass(frozen=True)
class Job:
    """What to dump and how; lock_timeout as PostgreSQL writes times, jobs is for the format directory only."""

    database: str
    name: str
    dest: Path
    format: str = "custom"
    compression: Compression = field(default_factory=Compression)
    lock_timeout: str = "5min"
    with_globals: bool = True
    jobs: int = 1
    filter: Filter = field(default_factory=Filter)
    read_in_full: bool = True

    @property
    def dump_name(self) -> str:
        """Name of the file or folder of the dump."""
        return FORMATS[self.format] + (self.compression.suffix if self.format == "plain" else "")

    @property
    def names(self) -> list[str]:
        """Names of what the job writes into dest."""
        return [self.dump_name, GLOBALS_NAME] if self.with_globals else [self.dump_name]

    def facts(self) -> dict[str, Any]:
        """What a component says of the dump before there is one."""
        return {
            "engine": "postgres",
            "name": self.name,
            "database": self.database,
            "format": self.format,
            "compression": str(self.compression) if self.compression.method else None,
            "filter": self.filter.to_dict() if self.filter else None,
        }


def check_time(text: str) -> str:
    """The time, when PostgreSQL can read it. Raises InputError."""
    if not re.fullmatch(r"\d+(us|ms|s|min|h|d)?", text):
        raise InputError(f"lock_timeout {text!r} is no time.", fix="Write it as PostgreSQL does, such as 30s or 5min.")
    return text


def parse_compression(text: str | None, dump_format: str) -> Compression:
    """The option compression: "none", a gzip level, or "gzip", "lz4", "zstd" with ":level". Raises InputError.

    Without it, a plain dump is not compressed, and the others are with gzip, as pg_dump has it.
    """
    if text is None:
        return Compression() if dump_format == "plain" else Compression("gzip")
    found = re.fullmatch(r"(none)|(?:(gzip|lz4|zstd)(?::(\d{1,2}))?)|(\d)", text)
    if not found:
        raise InputError(
            f"compression {text!r} is not known.", fix="Use none, gzip, lz4 or zstd, with :level if you like."
        )
    none, method, level, bare = found.groups()
    if none or bare == "0":
        return Compression()
    compression = Compression(method or "gzip", int(level or bare) if level or bare else None)
    highest = _METHODS[compression.method or ""][0]
    if compression.level is not None and not 1 <= compression.level <= highest:
        raise InputError(
            f"compression {text!r} has a level that {compression.method} does not have.",
            fix=f"Use a level from 1 to {highest}.",
        )
    return compression


def check_jobs(jobs: int, dump_format: str) -> int:
    """The number of tables to dump at a time. Raises InputError."""
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, and a dump needs at least one.", fix="Use 1 or more.")
    if jobs > 1 and dump_format != "directory":
        raise InputError(
            f"jobs is {jobs}, and a dump in format {dump_format} is one file that one process writes.",
            fix="Set format to directory, or leave jobs out.",
        )
    return jobs


def require_client(client: str, server: str, server_major: int, where: str) -> None:
    """Refuse a pg_dump that is older than the server: it cannot dump it. Raises DependencyError."""
    if major(client) < server_major:
        raise DependencyError(
            f"pg_dump {server_major} or newer is needed for a server of version {server}, found {client} in {where}.",
            fix=f"Install Debian's package postgresql-client-{server_major}, correct bin_dir, or set container.",
        )


def require_reader(job: Job) -> None:
    """Refuse a compressed plain dump that this host has no program to read again. Raises DependencyError."""
    method = job.compression.method
    if job.format == "plain" and job.read_in_full and method and not shutil.which(method):
        raise DependencyError(
            f"To check a plain dump that is compressed with {method}, the program {method} is needed on this host, and "
            "it is not on PATH.",
            fix=f"Install Debian's package {method}, or set format to custom.",
        )


def require_unwritten(job: Job) -> None:
    """Refuse a folder that holds a finished dump already, in whatever format. Raises StateError."""
    if found := sorted(job.dest.glob("database.*")):
        raise StateError(
            f"{found[0]} exists already; a component is written once.",
            fix="Begin a new backup set, or choose another dest.",
        )


def dump_arguments(job: Job, snapshot: str, client: str) -> list[str]:
    """pg_dump's arguments but for the place of the dump; the login and the database are in the environment."""
    return [
        f"--format={job.format}",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={job.lock_timeout}",
        *job.compression.arguments(client),
        *([f"--jobs={job.jobs}"] if job.jobs > 1 else []),
        *job.filter.arguments(client),
    ]


def list_arguments(job: Job, snapshot: str, client: str) -> list[str]:
    """pg_dump's arguments for an archive that lists what *job* dumps, without its rows."""
    return [
        "--format=custom",
        "--schema-only",
        "--no-password",
        f"--snapshot={snapshot}",
        f"--lock-wait-timeout={job.lock_timeout}",
        *job.compression.arguments(client),
        *job.filter.arguments(client),
    ]


def globals_arguments(job: Job) -> list[str]:
    """pg_dumpall's arguments; it must not depend on a database named postgres."""
    quoted = job.database.replace("\\", "\\\\").replace("'", "\\'")
    return ["--globals-only", "--no-password", f"--database=dbname='{quoted}'"]
