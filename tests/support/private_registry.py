# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A registry that asks for a password: Debian's docker-registry with TLS and htpasswd, over the test bed's images.

It listens on the loopback interface. Hosts reach it through a gate on the bridge's gateway, which a test can let look
around before it passes a connection on.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from groundwork_testbed.constants import GATEWAY
from groundwork_testbed.registry import program
from groundwork_testbed.state import State, default_root

from support.certificates import Authority
from support.docker_host import DockerHost
from support.postgres import free_port

_HASH = "chomp(my $given = <STDIN>); print crypt($given, q($2b$05$abcdefghijklmnopqrstuu))"  # the registry takes bcrypt


def _nothing() -> None:
    """What the gate does before it passes a connection on, unless a test says otherwise."""


@dataclass
class PrivateRegistry:
    """A running registry. address is what users write; before is called for each connection, before it is passed on."""

    address: str
    authority: Authority
    log: Path
    before: Callable[[], object] = field(default=_nothing)

    def trusted_by(self, host: DockerHost) -> None:
        """Let the engine of a host trust its certificate."""
        host.write(f"/etc/docker/certs.d/{self.address}/ca.crt", self.authority.path.read_text())

    @contextmanager
    def watched(self, look: Callable[[], object]) -> Iterator[None]:
        """Call *look* for each connection of the block, while its client waits."""
        self.before = look
        try:
            yield
        finally:
            self.before = _nothing


@contextmanager
def private_registry(folder: Path, users: Mapping[str, str]) -> Iterator[PrivateRegistry]:
    """A registry for *users* (name -> password), with its files in *folder*."""
    state, inner = State(default_root()), free_port()
    authority = Authority.create(folder)
    certificate = authority.issue(GATEWAY)
    entries = []
    for user, password in users.items():
        done = subprocess.run(["perl", "-e", _HASH], input=password, capture_output=True, text=True, check=True)
        entries.append(f"{user}:{done.stdout}\n")
    (folder / "htpasswd").write_text("".join(entries))
    config, log = folder / "private-registry.json", folder / "registry.log"
    storage = {
        "filesystem": {"rootdirectory": str(state.registry / "data")},
        "maintenance": {"readonly": {"enabled": True}},  # the files are the test bed's
    }
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "storage": storage,
                "auth": {"htpasswd": {"realm": "private", "path": str(folder / "htpasswd")}},
                "http": {
                    "addr": f"127.0.0.1:{inner}",
                    "tls": {"certificate": str(certificate), "key": str(certificate)},
                },
            }
        )
    )
    with (
        log.open("wb") as out,
        subprocess.Popen([program(state), "serve", str(config)], stdout=out, stderr=out) as process,
        socket.create_server((GATEWAY, 0)) as gate,
    ):
        registry = PrivateRegistry(f"{GATEWAY}:{gate.getsockname()[1]}", authority, log)
        try:
            _wait(inner, process, log)
            threading.Thread(target=_pass_on, args=(registry, gate, inner), daemon=True).start()
            yield registry
        finally:
            gate.shutdown(socket.SHUT_RDWR)
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _pass_on(registry: PrivateRegistry, gate: socket.socket, port: int) -> None:
    """Accept connections until the gate is closed."""
    with suppress(OSError):
        while True:
            client = gate.accept()[0]
            threading.Thread(target=_connect, args=(registry, client, port), daemon=True).start()


def _connect(registry: PrivateRegistry, client: socket.socket, port: int) -> None:
    with client, suppress(OSError):
        registry.before()
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
