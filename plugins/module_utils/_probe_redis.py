# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind redis: PING, with authentication, and the data set is loaded. It speaks RESP 2 over a socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe, network_outcome

OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "fail_fast": {"type": "bool"},
}
_LOGIN_ERRORS = ("NOAUTH", "WRONGPASS", "NOPERM")
_LONGEST = 1 << 16


class _NotRedis(Exception):
    """What came is no answer of a Redis server."""


@dataclass
class RedisProbe(Probe):
    """Sends AUTH when there is a password, PING, and INFO for a data set that is still loading."""

    host: str
    port: int
    username: str | None
    password: str | None
    fail_fast: bool
    secrets: tuple[str, ...]

    def attempt(self, seconds: float) -> Outcome:
        """Up when the server answers PONG and is not loading."""
        where, end = f"{self.host}:{self.port}", time.monotonic() + seconds
        try:
            with socket.create_connection((self.host, self.port), timeout=seconds) as connection:
                return self._talk(connection, where, end)
        except _NotRedis as error:
            return Outcome("down", f"what listens at {where} does not speak Redis's protocol: {error}")
        except OSError as error:
            return network_outcome(error, where, seconds, fail_fast=self.fail_fast)

    def _talk(self, connection: socket.socket, where: str, end: float) -> Outcome:
        login = [part for part in (self.username, self.password) if part is not None]
        commands = [["AUTH", *login]] if self.password is not None else []
        with connection.makefile("rb") as stream:
            for command in [*commands, ["PING"], ["INFO", "persistence"]]:
                connection.settimeout(max(0.01, end - time.monotonic()))
                connection.sendall(encode(command))
                answer = read_reply(stream)
                if command[0] == "INFO":  # a user without the right to ask gets an error, and has had its PONG
                    loading = "\nloading:1" in answer or "\nasync_loading:1" in answer
                    told = f"redis at {where} is loading its data set" if loading else ""
                    return Outcome("unknown" if loading else "up", told, status="loading" if loading else "PONG")
                if answer.startswith("-"):
                    return self._refused(where, command[0], answer[1:])
        raise AssertionError("INFO is the last command")

    def _refused(self, where: str, command: str, told: str) -> Outcome:
        word = told.split(" ", 1)[0]
        if word == "LOADING":
            return Outcome("unknown", f"redis at {where} is loading its data set", status="loading")
        login = command == "AUTH" or word in _LOGIN_ERRORS
        reason = f"redis at {where} refused {command}: {told}"
        return Outcome("down", reason, terminal=self.fail_fast and login, status=word)


def encode(words: list[str]) -> bytes:
    """A command as Redis takes it: an array of bulk strings (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts += [f"${len(data)}\r\n".encode(), data, b"\r\n"]
    return b"".join(parts)


def read_reply(stream: BinaryIO) -> str:
    """A simple string, an error (with its "-"), or the text of a bulk string. Raises _NotRedis and OSError."""
    line = stream.readline(_LONGEST)
    if not line:
        raise ConnectionResetError
    text = line.decode(errors="replace").rstrip("\r\n")
    if line[:1] == b"$" and text[1:].isdecimal():
        return "\n" + stream.read(int(text[1:]) + 2).decode(errors="replace").replace("\r\n", "\n")
    if line[:1] in b"+-":
        return text
    raise _NotRedis(repr(text[:40]))


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"redis {given.get('host', '127.0.0.1')}:{given.get('port', 6379)}"


def build(asked: Asked) -> RedisProbe:
    """The probe for the keys of one check. Raises InputError."""
    username, password = asked.get("username"), asked.get("password")
    if username is not None and password is None:
        raise asked.error("username needs password.")
    return RedisProbe(
        asked.get("host", "127.0.0.1"),
        asked.port("port", 6379),
        username,
        password,
        asked.get("fail_fast", False),
        (password,) if password else (),
    )
