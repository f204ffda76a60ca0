# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""PostgreSQL's client programs, on the host or inside the server's container, and a psql session that stays open.

The login options travel in libpq's environment variables (https://www.postgresql.org/docs/current/libpq-envars.html),
into a container by name only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    StateError,
    UnreachableError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, piped, run, start
from ansible_collections.groundwork.backend.plugins.module_utils._postgres import (
    CONNECT_TIMEOUT_SECONDS,
    unreachable,
)

DEBIAN_FOLDER = Path("/usr/lib/postgresql")
_SETTLE_SECONDS = 0.5  # psql ends a moment after its connection
_FIXES = {
    "permission denied": "Log in as a role that may read all of it (a superuser for the roles), or set globals: false.",
    "row-level security": "Log in as a role that may read every row of every table.",
    "lock timeout": "Another session holds a lock on a table: end it, or raise lock_timeout.",
    "statement timeout": "Another session holds a lock on a table: end it, or raise lock_timeout.",
    "could not obtain lock on": "Another session waits to change a table: run at a quieter time, or with jobs: 1.",
    "does not support compression": "Set compression to gzip, or use a pg_dump that was built with that method.",
    "No space left on device": "Free space on that file system, then run again.",
    "no matching": "Correct the patterns of schemas and tables: names are in lower case unless they are quoted.",
}


def client_options() -> dict[str, Any]:
    """The options that choose the client programs, as arguments of AnsibleModule.

    They are documented in the fragment groundwork.backend._postgres_client.
    """
    return {
        "argument_spec": {"container": {"type": "str"}, "bin_dir": {"type": "path"}},
        "mutually_exclusive": [["container", "bin_dir"]],
    }


def environment(params: Mapping[str, Any], application_name: str) -> dict[str, str]:
    """The options of login_options() as libpq's environment variables."""
    values = {
        "PGHOST": params["login_host"],
        "PGPORT": params["login_port"],
        "PGUSER": params["login_user"],
        "PGPASSWORD": params["login_password"],
        "PGDATABASE": params["database"],
        "PGSSLMODE": params["ssl_mode"],
        "PGSSLROOTCERT": params["ca_cert"],
        "PGSSLCERT": params.get("ssl_cert"),
        "PGSSLKEY": params.get("ssl_key"),
        "PGAPPNAME": application_name,
        "PGCONNECT_TIMEOUT": CONNECT_TIMEOUT_SECONDS,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Tools:
    """Where the client programs are: in a container (on its PATH), or in a folder of this host."""

    env: Mapping[str, str]
    container: str | None = None
    folder: Path | None = None

    def argv(self, program: str, *arguments: str, stdin: bool = False) -> list[str]:
        """The argv of a client program; stdin tells whether it reads its standard input."""
        if self.container is not None:
            return in_container(self.container, [program, *arguments], env_names=sorted(self.env), stdin=stdin)
        return [str(self.folder / program) if self.folder else program, *arguments]

    def version(self) -> str:
        """The version of pg_dump there, such as "16.9". Raises StateError and DependencyError."""
        done = run(self.argv("pg_dump", "--version"), env=self.env, check=False)
        if done.rc != 0:
            place = f"container {self.container!r}" if self.container else str(self.folder)
            raise StateError(
                f"Could not run pg_dump in {place}: {last_lines(done.stderr or done.stdout, 3)}",
                fix="Check that the container runs and carries PostgreSQL's client programs."
                if self.container
                else "Check bin_dir.",
                cmd=list(done.argv),
                rc=done.rc,
                stderr=done.stderr,
            )
        return parse_version(done.stdout)


def parse_version(text: str) -> str:
    """The version in what a client program answers to --version. Raises DependencyError."""
    found = re.search(r"\(PostgreSQL\) (\d+\S*)", text)
    if not found:
        raise DependencyError(f"pg_dump answers --version with {text.strip()!r}, which tells no version.")
    return found[1]


def fix_for(told: str) -> str:
    """What to do about what a client program printed to its standard error; empty when it is not known."""
    return next((fix for words, fix in _FIXES.items() if words in told), "")


def major(version: str) -> int:
    """The major version of "16.9", "18beta1" and the like."""
    return int(re.split(r"\D", version, maxsplit=1)[0])


def host_folder(bin_dir: str | None, server_major: int | None) -> Path:
    """The folder of this host's client programs: bin_dir, Debian's for that server, else what is on PATH.

    Without a server_major, any will do: they can all connect. Raises DependencyError.
    """
    places = [Path(bin_dir)] if bin_dir else []
    if not bin_dir:
        if server_major is not None:
            places.append(DEBIAN_FOLDER / str(server_major) / "bin")
        if on_path := shutil.which("pg_dump"):
            places.append(Path(on_path).parent)
        places += sorted(DEBIAN_FOLDER.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
    for place in places:
        if (place / "pg_dump").exists() and (place / "psql").exists():
            return place
    raise DependencyError(
        f"PostgreSQL's client programs (pg_dump, psql) are needed and are not in {bin_dir or 'any known folder'}.",
        fix="Correct bin_dir." if bin_dir else "Install Debian's package postgresql-client, or set container.",
    )


class Session:
    """One psql that stays connected, so that its transaction and snapshot stay open.

    Use as a context manager. Raises UnreachableError (no connection, or lost), CommandError (a statement failed).
    """

    def __init__(self, tools: Tools, params: Mapping[str, Any]) -> None:
        self._params = params
        self._argv = tools.argv(
            "psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1",
            stdin=True,
        )  # fmt: skip
        self._env = tools.env
        self._marker = f"end {uuid.uuid4().hex}"
        self._connected = False

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = start(
                self._argv, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
            )
        except DependencyError:
            self._stderr.close()
            raise
        try:
            self.query("SET client_encoding = 'UTF8';")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._connected = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (piped(self._process.stdin), piped(self._process.stdout), self._stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    def query(self, script: str) -> list[str]:
        """Run statements and return the lines that they print."""
        self.send(script)
        return self.receive()

    def send(self, script: str) -> None:
        """Start statements; they run while the caller does something else, until receive()."""
        pipe = piped(self._process.stdin)
        try:
            pipe.write(f"{script}\n\\echo {self._marker}\n".encode())
            pipe.flush()
        except BrokenPipeError:
            self._fail()

    def receive(self) -> list[str]:
        """The lines that the statements of the last send() printed, when they have ended."""
        lines: list[str] = []
        for raw in piped(self._process.stdout):
            line = raw.decode(errors="replace").rstrip("\n")
            if line == self._marker:
                return lines
            lines.append(line)
        return self._fail()

    def require_alive(self) -> None:
        """Raise why psql has ended, when it has: its snapshot ended with it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SETTLE_SECONDS)
            self._fail()

    def _fail(self) -> list[str]:
        rc = self._process.wait()
        self._stderr.seek(0)
        told = self._stderr.read().decode(errors="replace").strip()
        if not self._connected:
            raise unreachable(self._params, told)
        if rc == 3:  # psql: a statement failed; 2 is a lost connection
            raise CommandError(
                f"A query in database {self._params['database']!r} failed: {last_lines(told, 3)}",
                fix=fix_for(told),
                cmd=list(self._argv), rc=rc, stderr=told,
            )  # fmt: skip
        raise UnreachableError(
            f"The connection to database {self._params['database']!r} was lost: {last_lines(told, 3)}",
            fix="Look into the server's log, then run again.",
            rc=rc,
            stderr=told,
        )
