# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A git server that answers over SSH only: OpenSSH in a container of this machine's own Docker Engine."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support.git_repository import git
from support.postgres_container import docker

BASE = "python:3.11-slim"
_DOCKERFILE = f"""
FROM {BASE}
RUN apt-get update -qq && \\
    apt-get install -qq -y --no-install-recommends openssh-server git && \\
    mkdir -p /run/sshd && \\
    useradd --create-home --password '*' git
"""
_IMAGE = "groundwork-test/git-server"
_START = (
    "install -D -o git -g git -m 600 /given/authorized_keys /home/git/.ssh/authorized_keys && "
    "cp -r /given/repositories/. /home/git && chown -R git: /home/git && "
    "exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no"
)


@dataclass(frozen=True)
class GitServer:
    """A running server; its repositories are below the home of the user git."""

    name: str
    address: str

    @classmethod
    def start(cls, folder: Path, public_key: str, *repositories: Path) -> GitServer:
        """Serve copies of *repositories* (as NAME.git) to the owner of a key; *folder* is for what is handed over."""
        docker("build", "--network", "host", "--tag", _IMAGE, "-", stdin=_DOCKERFILE.encode())
        (folder / "repositories").mkdir(parents=True)
        for path in repositories:
            git(
                folder, "clone", "--quiet", "--bare", "--", str(path), str(folder / "repositories" / f"{path.name}.git")
            )
        (folder / "authorized_keys").write_text(public_key)
        name = f"gw-test-git-{os.getpid()}"
        docker("run", "--detach", "--name", name, "--volume", f"{folder}:/given:ro", _IMAGE, "sh", "-c", _START)
        try:
            address = docker("inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name)
            server = cls(name, address)
            server.wait()
        except BaseException:
            docker("rm", "--force", name)
            raise
        return server

    def wait(self) -> None:
        """Wait until the server says that it is one."""
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError), socket.create_connection((self.address, 22), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            assert time.monotonic() < deadline, docker("logs", self.name)
            time.sleep(0.2)

    def remove(self) -> None:
        """Remove the server and its repositories."""
        docker("rm", "--force", self.name)
