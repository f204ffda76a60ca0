# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind mongo: ping with authentication, and the member's state in its replica set."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe, network_outcome

OPTIONS: dict[str, dict[str, Any]] = {
    "login_host": {"type": "str"},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "database": {"type": "str"},
    "tls": {"type": "bool"},
    "ca_cert": {"type": "path"},
    "replica_set": {"type": "str"},
    "member_state": {"type": "str", "choices": ["primary", "secondary"]},
    "fail_fast": {"type": "bool"},
}
_AUTHENTICATION_FAILED = 18


@dataclass
class MongoProbe(Probe):
    """Logs in to one member and pings it; a new client for each attempt."""

    host: str
    port: int
    keywords: Mapping[str, Any]
    replica_set: str | None
    member_state: str | None
    fail_fast: bool
    secrets: tuple[str, ...]
    pause: float = 0.2

    def attempt(self, seconds: float) -> Outcome:
        """Up when the member answers the ping, and is what is asked for in its replica set."""
        import pymongo  # noqa: PLC0415 - optional on the host; require_pymongo() has looked for it
        from pymongo import errors  # noqa: PLC0415

        where, end = f"{self.host}:{self.port}", time.monotonic() + seconds
        try:  # the client itself would try again and again until its time is over
            socket.create_connection((self.host, self.port), timeout=seconds).close()
        except OSError as error:
            return network_outcome(error, where, seconds, fail_fast=self.fail_fast)
        left = max(1, int((end - time.monotonic()) * 1000))
        times: dict[str, Any] = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), left)
        common: dict[str, Any] = {"directConnection": True, "appname": "health_wait"}
        client: Any = pymongo.MongoClient(self.host, self.port, **common, **times, **self.keywords)
        try:
            client[self.keywords.get("authSource", "admin")].command("ping")
            return self._judge(where, client.admin.command("hello"))
        except errors.OperationFailure as error:
            login = error.code == _AUTHENTICATION_FAILED
            told = str((error.details or {}).get("errmsg") or error).rstrip(".")
            user = f" of user {self.keywords.get('username')!r}" if login else ""
            what = f"the login{user} (database {self.keywords.get('authSource')!r})" if login else "the ping"
            return Outcome("down", f"mongo at {where} refused {what}: {told}", terminal=login and self.fail_fast)
        except errors.PyMongoError as error:
            told = str(error).split(", Timeout:", maxsplit=1)[0].rstrip(".")
            return Outcome("down", f"no answer from mongo at {where}: {told}")
        finally:
            client.close()

    def _judge(self, where: str, hello: Mapping[str, Any]) -> Outcome:
        primary = hello.get("isWritablePrimary", hello.get("ismaster"))
        state = "primary" if primary else "secondary" if hello.get("secondary") else "other"
        name = hello.get("setName")
        told = ""
        if self.replica_set is not None and name != self.replica_set:
            told = f"mongo at {where} is in the replica set {name!r}, expected {self.replica_set!r}"
        elif self.member_state is not None and (name is None or state != self.member_state):
            found = state if name else "in no replica set"
            told = f"mongo at {where} is {found}, expected {self.member_state}"
        return Outcome("down" if told else "up", told, status=state if name else "standalone")


def require_pymongo() -> None:
    """Raises DependencyError when pymongo is not there."""
    try:
        import pymongo  # noqa: F401, PLC0415 - optional on the host
    except ImportError as error:
        raise DependencyError(
            "The Python library pymongo is needed and could not be imported.",
            fix="Install Debian's package python3-pymongo on the managed host.",
        ) from error


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"mongo {given.get('login_host', '127.0.0.1')}:{given.get('login_port', 27017)}"


def build(asked: Asked) -> MongoProbe:
    """The probe for the keys of one check. Raises InputError."""
    user, password = asked.get("login_user"), asked.get("login_password")
    if (user is None) != (password is None):
        raise asked.error("login_user and login_password belong together, and only one of them is set.")
    keywords: dict[str, Any] = {}
    if user is not None:
        keywords |= {"username": user, "password": password, "authSource": asked.get("database", "admin")}
    if asked.get("tls"):
        keywords |= {"tls": True} | ({"tlsCAFile": asked.get("ca_cert")} if asked.get("ca_cert") else {})
    elif asked.get("ca_cert"):
        raise asked.error("ca_cert needs tls: true.")
    return MongoProbe(
        asked.get("login_host", "127.0.0.1"),
        asked.port("login_port", 27017),
        keywords,
        asked.get("replica_set"),
        asked.get("member_state"),
        asked.get("fail_fast", False),
        (password,) if password else (),
    )
