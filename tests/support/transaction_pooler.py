# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A pooler in transaction mode, as small as it can be: a server's session is lent until it is in no transaction."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import psycopg


class TransactionPooler:
    """Listens on 127.0.0.1:port; any password is good. Sessions of *dsn* are shared, the last one used first."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: list[tuple[psycopg.Connection, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and end the server's sessions."""
        self._listener.close()
        for connection, raw in self._idle:
            raw.close()
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            while True:
                body = _exactly(client, struct.unpack("!i", _exactly(client, 4))[0] - 4)
                if struct.unpack("!i", body[:4])[0] == 196608:
                    break
                client.sendall(b"N")  # no TLS
            client.sendall(_message(b"R", struct.pack("!i", 0)))
            for setting in (
                b"client_encoding\0UTF8\0",
                b"standard_conforming_strings\0on\0",
                b"server_version\x0016.0\0",
            ):
                client.sendall(_message(b"S", setting))
            client.sendall(_message(b"K", struct.pack("!ii", 1, 1)) + _message(b"Z", b"I"))
            while True:
                kind, body = _read(client)
                if kind == b"X":
                    return
                with self._lock:
                    session = self._idle.pop() if self._idle else self._open()
                status = b"T"
                while status != b"I":
                    session[1].sendall(_message(kind, body))
                    if kind in b"QS":
                        while True:
                            answer, content = _read(session[1])
                            client.sendall(_message(answer, content))
                            if answer == b"Z":
                                status = content
                                break
                    if status != b"I":
                        kind, body = _read(client)
                with self._lock:
                    self._idle.append(session)

    def _open(self) -> tuple[psycopg.Connection, socket.socket]:
        connection = psycopg.connect(self._dsn, autocommit=True, sslmode="disable")
        raw = socket.socket(fileno=socket.dup(connection.fileno()))
        raw.setblocking(True)
        return connection, raw


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _read(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], _exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
