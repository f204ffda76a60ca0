# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Bring one MongoDB server into service: its replica set, the password of who administers it, its data's version."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, lets_in, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_version import series

_POLL_SECONDS = 0.2
_CONFIRMED_SINCE = (7, 0)


def has_password_before(params: Mapping[str, Any], application_name: str) -> bool:
    """Whether login_password is refused, and login_password_before is the one to try. Raises UnreachableError."""
    before = params.get("login_password_before")
    return bool(before) and before != params["login_password"] and not lets_in(params, application_name)


@dataclass
class Setup:
    """What is done with a server, or would be when *read_only*."""

    server: Server
    read_only: bool = False
    actions: list[str] = field(default_factory=list)

    def replica_set(self, name: str, member: str, seconds: float) -> None:
        """Have the server be the only member of a replica set, and its primary.

        Raises StateError when it is in another one, was not started for one, or is not the primary after *seconds*.
        """
        hello = self.server.hello
        if "setName" not in hello and not hello.get("isreplicaset"):
            raise StateError(
                f"The server at {self.server.place} was not started for a replica set.",
                fix=f"Start it with --replSet {name} and --keyFile.",
            )
        if hello.get("setName", name) != name:
            raise StateError(
                f"The server at {self.server.place} is in the replica set {hello['setName']!r}, and not in {name!r}.",
                fix=f"Set replica_set to {hello['setName']}: a replica set cannot be renamed.",
            )
        if "setName" in hello:
            if not self.read_only:
                self._await_primary(name, seconds)
            return
        self.actions.append(f"make the replica set {name} with the member {member}")
        if self.read_only:
            return
        with server_errors(f"make the replica set {name!r}"):
            self.server.client.admin.command("replSetInitiate", {"_id": name, "members": [{"_id": 0, "host": member}]})
        self._await_primary(name, seconds)

    def password(self, user: str, database: str, password: str) -> None:
        """Set the password of the user that is logged in. Raises StateError."""
        self.actions.append(f"set the password of {user}@{database}")
        if not self.read_only:
            with server_errors(f"set the password of {user!r}"):
                self.server.client[database].command("updateUser", user, pwd=password)

    def compatibility(self) -> str:
        """The version of the server's data. Raises StateError."""
        with server_errors("read the feature compatibility version"):
            answer = self.server.client.admin.command("getParameter", 1, featureCompatibilityVersion=1)
        return str(answer["featureCompatibilityVersion"]["version"])

    def set_compatibility(self, wanted: str) -> None:
        """Have the data be of the version *wanted*, from which there is no way back. Raises StateError, InputError."""
        found = self.compatibility()
        if series(wanted, "feature_compatibility_version") == series(found):
            return
        if series(wanted) < series(found):
            raise StateError(
                f"The data of the server at {self.server.place} is of {found}, and {wanted} was asked for.",
                fix=f"There is no way back: set feature_compatibility_version to {found}.",
            )
        if series(wanted) > series(self.server.version):
            raise InputError(
                f"feature_compatibility_version is {wanted}, and the server is MongoDB {self.server.version}.",
                fix="Start the newer server first.",
            )
        self.actions.append(f"set the feature compatibility version to {wanted}, from {found}")
        if self.read_only:
            return
        confirm: dict[str, Any] = {"confirm": True} if series(self.server.version) >= _CONFIRMED_SINCE else {}
        with server_errors(f"set the feature compatibility version to {wanted}"):
            self.server.client.admin.command("setFeatureCompatibilityVersion", wanted, **confirm)

    def _await_primary(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with server_errors(f"look at the replica set {name!r}"):
                hello = self.server.client.admin.command("hello")
            if hello.get("isWritablePrimary"):
                return
            if time.monotonic() >= deadline:
                raise StateError(
                    f"The server at {self.server.place} is not the primary of {name!r} after {seconds:g} seconds.",
                    fix="Look into its log: a member has to reach itself under the address that the set knows.",
                )
            time.sleep(_POLL_SECONDS)
