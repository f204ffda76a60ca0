# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""PostgreSQL servers in containers of this machine's own Docker Engine, which publish no port."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from support.certificates import Authority
from support.postgres import PostgresServer
from support.processes import wait_for

CERTIFIED = "certified"  # a role that logs in with its certificate only
SERVER_NAME = "db.example"
_HBA = f"local all all trust\nhostssl all {CERTIFIED} all cert\nhost all all all scram-sha-256\n"
_START = (
    "install -o postgres -m 600 /tls/server.pem /var/lib/postgresql/server.pem && "
    "install -o postgres -m 600 /tls/pg_hba.conf /var/lib/postgresql/pg_hba.conf && "
    "exec docker-entrypoint.sh postgres -c fsync=off -c ssl=on -c ssl_cert_file=/var/lib/postgresql/server.pem "
    "-c ssl_key_file=/var/lib/postgresql/server.pem -c ssl_ca_file=/tls/ca.pem "
    "-c hba_file=/var/lib/postgresql/pg_hba.conf"
)


def docker(*arguments: str, check: bool = True, stdin: bytes = b"") -> str:
    """Run docker; its output."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace").strip()


def need_image(root: Path, image: str) -> None:
    """Have the test bed's stand-in for *image* on this machine; skips the test where there is no Docker."""
    if not shutil.which("docker"):
        pytest.skip("needs docker")
    if docker("image", "inspect", image, check=False) in ("", "[]"):
        up = subprocess.run(
            [sys.executable, root / "tests" / "testbed", "up", image], capture_output=True, text=True, check=False
        )
        if up.returncode != 0:
            pytest.skip(f"needs the test bed with {image}: {up.stderr[-300:]}")


def psql(container: str, statement: str, database: str = "app") -> str:
    """What psql in the container prints; nothing when it fails."""
    return docker("exec", container, "psql", "-XAtq", "-U", "postgres", "-d", database, "-c", statement, check=False)


@contextlib.contextmanager
def isolated_server(root: Path, image: str, name: str, password: str, *options: str) -> Iterator[str]:
    """A server in a container of this name that has no network, with an empty database app.

    options: more options of docker run.
    """
    need_image(root, image)
    try:
        docker(
            "run", "--detach", "--name", name, "--network", "none", "--env", f"POSTGRES_PASSWORD={password}",
            "--env", "POSTGRES_DB=app", *options, image,
        )  # fmt: skip
        # The image's own first start answers on the socket, too: process 1 is postgres only after it.
        wait_for(
            lambda: "postgres" in docker("exec", name, "cat", "/proc/1/comm", check=False) and psql(name, "SELECT 1"),
            lambda: docker("logs", name),
            seconds=90,
            every=0.2,
        )
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


@dataclass
class ContainerServer(PostgresServer):
    """PostgreSQL 17 on Docker's default bridge; it offers TLS as SERVER_NAME, and asks CERTIFIED for a certificate."""

    name: str = ""
    tls: Path = field(default_factory=Path)
    authority: Authority | None = None

    @classmethod
    def run(cls, image: str, folder: Path) -> ContainerServer:
        """Start a container of *image*; *folder* gets its certificates."""
        folder.chmod(0o755)
        server = cls(
            17, folder, folder, 5432, "postgres", secrets.token_hex(8), name=f"gw-test-pg17-{os.getpid()}", tls=folder
        )
        server.authority = Authority.create(folder)
        server.authority.issue(SERVER_NAME).rename(folder / "server.pem")
        (folder / "pg_hba.conf").write_text(_HBA)
        for path in folder.iterdir():
            path.chmod(0o644)
        docker(
            "run", "--detach", "--name", server.name, "--env", f"POSTGRES_PASSWORD={server.superpass}",
            "--volume", f"{folder}:/tls:ro", "--entrypoint", "bash", image, "-c", _START,
        )  # fmt: skip
        try:
            server.wait()
        except BaseException:
            server.remove()
            raise
        return server

    def up(self) -> None:
        """Start the container again."""
        docker("start", self.name)
        self.wait()

    def down(self, mode: str = "fast") -> None:
        """Stop the server as if its machine lost power (immediate), or in order."""
        docker("kill" if mode == "immediate" else "stop", self.name)

    def remove(self) -> None:
        """Remove the container and its data."""
        docker("rm", "--force", "--volumes", self.name)

    def wait(self) -> None:
        """Wait for the server's TCP port, which does not answer while the image initialises."""
        deadline = time.monotonic() + 90
        while True:
            found = json.loads(docker("container", "inspect", self.name))[0]
            assert found["State"]["Running"], docker("logs", self.name)
            self.host = found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            assert time.monotonic() < deadline, docker("logs", self.name)
            time.sleep(0.2)
