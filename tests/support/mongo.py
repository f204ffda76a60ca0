# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A real server that speaks MongoDB's wire protocol, and a wire to it that can be held or cut."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo

from support.collection import ROOT
from support.postgres import free_port

STANDIN = ROOT / "tests/testbed/groundwork_testbed/standins/files/mongo-mongod.py"
# Each process has its own: tests beside it look for theirs in the arguments and environments of all processes.
PASSWORD = f"canary-mongo-{secrets.token_hex(4)}"
APP = "innova_db"
LOOPBACK = "127.0.0.1"


@contextmanager
def run_server(storage: Path, port: int, *options: str, host: str = LOOPBACK) -> Iterator[None]:
    """The server, which listens on *host*, for the length of the block."""
    argv = [str(Path(sys.executable).with_name("secantusd-py")), "--host", host, "--port", str(port)]
    argv += ["--storage-path", str(storage), "--cache-size", "64M", *options]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=storage) as server:
        try:
            yield
        finally:
            server.terminate()
            server.wait(20)


@contextmanager
def run_mongod(storage: Path, port: int, *options: str, version: str = "") -> Iterator[None]:
    """The test bed's stand-in for mongod, with mongod's options, for the length of the block."""
    argv = [sys.executable, str(STANDIN), "--dbpath", str(storage), "--port", str(port), *options]
    env = {**os.environ, **({"MONGO_VERSION": version} if version else {})}
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as server:
        try:
            yield
        finally:
            server.terminate()
            server.wait(20)


@dataclass(frozen=True)
class MongoServer:
    """A server; its client is the user root where it wants a login, and so are options()."""

    port: int
    client: Any
    login: bool
    host: str = LOOPBACK

    def options(self, **more: Any) -> dict[str, Any]:
        """The login options of a module."""
        login = {"login_user": "root", "login_password": PASSWORD} if self.login else {}
        return {"login_host": self.host, "login_port": self.port, **login, **more}

    def tool_login(self, folder: Path) -> list[str]:
        """The login options of MongoDB's own tools; the password is in a file in *folder*, not among the arguments."""
        login = f"root:{PASSWORD}@" if self.login else ""
        config = folder / "mongo-tools.yml"
        config.touch(0o600)
        config.write_text(f"uri: mongodb://{login}{self.host}:{self.port}/?directConnection=true&authSource=admin\n")
        return [f"--config={config}"]


@contextmanager
def replica_set(storage: Path, *options: str, host: str = LOOPBACK) -> Iterator[MongoServer]:
    """A replica set of one member that wants a login: root knows all, app is the owner of APP and known only there."""
    port = free_port()
    with run_server(storage, port), pymongo.MongoClient(LOOPBACK, port, serverSelectionTimeoutMS=20000) as client:
        client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        client[APP].command("createUser", "app", pwd=PASSWORD, roles=[{"role": "dbOwner", "db": APP}])
    login = {"username": "root", "password": PASSWORD, "serverSelectionTimeoutMS": 20000}
    with (
        run_server(storage, port, "--auth", *options, host=host),
        pymongo.MongoClient(host, port, directConnection=True, **login) as client,
    ):
        client.admin.command("ping")
        yield MongoServer(port, client, login=True, host=host)


@contextmanager
def standalone(storage: Path) -> Iterator[MongoServer]:
    """A standalone server that lets everybody in."""
    port = free_port()
    with (
        run_server(storage, port, "--standalone"),
        pymongo.MongoClient(LOOPBACK, port, serverSelectionTimeoutMS=20000) as client,
    ):
        client.admin.command("ping")
        yield MongoServer(port, client, login=False)


class Wire:
    """A port that hands on to a server until a client has sent *word* for the *nth* time; that message is kept back.

    After that, nothing goes through any more; with cut, every connection is closed. *reached* tells of it.
    spoil: what the server sends is changed, every (this, into that) of the same length.
    """

    def __init__(
        self, port: int, word: bytes, nth: int = 1, *, cut: bool = False, spoil: tuple[bytes, bytes] = (b"", b"")
    ) -> None:
        self.reached = threading.Event()
        self._to, self._word, self._left, self._cut = port, word, nth, cut
        self._spoil = spoil
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = socket.create_connection((LOOPBACK, self._to))
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server, self._word), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, None), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, word: bytes | None) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if word is not None and word in data:
                    self._left -= 1
                    if self._left == 0:
                        self.reached.set()
                        if self._cut:
                            self._listener.close()
                            self._close()
                if self.reached.is_set():
                    return
                if word is None and self._spoil[0]:
                    data = data.replace(*self._spoil)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
                one.close()
