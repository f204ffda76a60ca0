# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Roles of a dump that the server does not have, and users that nobody can make from it.

A server takes users with the hashes of their passwords only by an internal command of its own tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import DATA, GZIP, ROLES, USERS
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump


@dataclass(frozen=True)
class Missing:
    """What the dump has and the server has not: documents of roles, names of users."""

    roles: Sequence[Mapping[str, Any]] = ()
    users: Sequence[str] = ()


def missing(dump: Dump, server: Server) -> Missing:
    """Compare the users and roles of the dump with those of its database on the server. Raises StateError."""
    files = {entry.name.rpartition("/")[2].removesuffix(GZIP): entry for entry in dump.component.files}
    roles, users = (_documents(dump, files.get(stem + DATA)) for stem in (ROLES, USERS))
    if not roles and not users:
        return Missing()
    database = server.client[dump.database]
    with server_errors(f"read the users and roles of {dump.database}"):
        has_roles = {one["role"] for one in database.command("rolesInfo")["roles"]}
        has_users = {one["user"] for one in database.command("usersInfo")["users"]}
    return Missing(
        [role for role in roles if role["role"] not in has_roles],
        sorted(user["user"] for user in users if user["user"] not in has_users),
    )


def create(server: Server, database: str, roles: Sequence[Mapping[str, Any]]) -> None:
    """Make roles that are not there; one may inherit from another one. Raises StateError."""
    for role in roles:
        more = {key: role[key] for key in ("authenticationRestrictions",) if role.get(key)}
        command = {"createRole": role["role"], "privileges": role.get("privileges", []), "roles": [], **more}
        with server_errors(f"create the role {role['role']!r} of {database}"):
            server.client[database].command(command)
    for role in filter(lambda role: role.get("roles"), roles):
        with server_errors(f"grant the role {role['role']!r} of {database} what it inherits"):
            server.client[database].command({"grantRolesToRole": role["role"], "roles": role["roles"]})


def _documents(dump: Dump, entry: FileEntry | None) -> list[Mapping[str, Any]]:
    import bson  # noqa: PLC0415 - optional on the host

    return [] if entry is None else [bson.decode(one) for one in dump.documents(entry)]
