# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind tcp: a port accepts connections, and answers what it should."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._probe import (
    RELEASE,
    Asked,
    Outcome,
    Probe,
    ReleaseMatch,
    network_outcome,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_owner import owners

OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "send": {"type": "str"},
    "regex": {"type": "str"},
    "release": RELEASE,
    "fail_fast": {"type": "bool"},
}
_READ_LIMIT = 1 << 16


@dataclass
class TcpProbe(Probe):
    """Connects, sends *send* if there is any, and reads until *pattern* matches if there is one."""

    host: str
    port: int
    send: bytes
    pattern: re.Pattern[str] | None
    release: ReleaseMatch | None
    fail_fast: bool

    def attempt(self, seconds: float) -> Outcome:
        """Up when the port accepts and, with a pattern, its answer matches."""
        where = f"{self.host}:{self.port}"
        end = time.monotonic() + seconds
        try:
            with socket.create_connection((self.host, self.port), timeout=seconds) as connection:
                connection.sendall(self.send)
                outcome = self._read(connection, end) if self.pattern else Outcome("up")
                mismatch = self._mismatch(connection.getpeername()[0]) if outcome.state == "up" else ""
                return Outcome("down", mismatch) if mismatch else outcome
        except OSError as error:
            return network_outcome(error, where, seconds, fail_fast=self.fail_fast)

    def _mismatch(self, address: str) -> str:
        """Why a process that listens is not of the wanted release; empty when all are."""
        if not self.release:
            return ""
        found = owners(address, self.port)
        if not found:
            return f"which process of this host listens on {address}:{self.port} cannot be told"
        return next(filter(None, map(self.release.mismatch, found)), "")

    def _read(self, connection: socket.socket, end: float) -> Outcome:
        assert self.pattern is not None  # noqa: S101 - for the type checker: attempt() asks
        data, ended = b"", "did not come in time"
        while len(data) < _READ_LIMIT and (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                chunk = connection.recv(4096)
            except TimeoutError:
                break
            data += chunk
            text = data.decode(errors="replace")
            if self.pattern.search(text):
                return Outcome("up", body=text)
            if not chunk:
                ended = "did not come before the connection was closed"
                break
        reason = f"{self.host}:{self.port} accepts connections, but an answer that matches {self.pattern.pattern!r}"
        return Outcome("down", f"{reason} {ended}", body=data.decode(errors="replace"))


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"tcp {given.get('host', '127.0.0.1')}:{given['port']}"


def build(asked: Asked) -> TcpProbe:
    """The probe for the keys of one check. Raises InputError."""
    return TcpProbe(
        asked.get("host", "127.0.0.1"),
        asked.port("port", 0),
        asked.get("send", "").encode(),
        asked.pattern("regex", asked.get("regex")) if asked.get("regex") else None,
        asked.release(),
        asked.get("fail_fast", False),
    )
