# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Users and roles of one database, in the files that mongodump --dumpDbUsersAndRoles writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import AUTH_VERSION, DATA, ROLES, USERS

# What the server adds to its own documents when it answers: mechanisms is drawn from the credentials.
_USER_KEYS = ("_id", "userId", "user", "db", "credentials", "customData", "roles", "authenticationRestrictions")
_ROLE_KEYS = ("_id", "role", "db", "privileges", "roles", "authenticationRestrictions")
_AUTH_SCHEMA = 5  # of every server since MongoDB 3.0


def user_files(server: Server, database: str) -> Iterator[tuple[str, bytes]]:
    """(name of a file without the ending of compression, its content): users with their credentials, roles, version.

    Raises StateError: the user who logs in may not see them.
    """
    import bson  # noqa: PLC0415 - optional on the host

    found = server.client[database]
    with server_errors(f"read the users and roles of {database}"):
        users = [_user(found, user) for user in found.command("usersInfo")["users"]]
        listed = found.command("rolesInfo", showPrivileges=True, showAuthenticationRestrictions=True)["roles"]
        roles = [role_of(role, database) for role in listed]
    if any("credentials" not in user for user in users):
        raise StateError(
            f"The server did not show the credentials of all users of {database}.",
            fix="Log in as a user with the role userAdmin on that database.",
        )
    yield USERS + DATA, b"".join(map(bson.encode, users))
    yield ROLES + DATA, b"".join(map(bson.encode, roles))
    yield AUTH_VERSION + DATA, bson.encode({"_id": "authSchema", "currentVersion": _AUTH_SCHEMA})


def _user(database: Any, listed: Mapping[str, Any]) -> dict[str, Any]:
    named = {"user": listed["user"], "db": listed["db"]}
    # The server shows restrictions only when it is asked for one user.
    answer = database.command("usersInfo", named, showCredentials=True, showAuthenticationRestrictions=True)
    (user,) = answer["users"]
    return {key: user[key] for key in _USER_KEYS if user.get(key) not in (None, []) or key == "roles"}


def role_of(listed: Mapping[str, Any], database: str) -> dict[str, Any]:
    """A role as the server stores it, of what rolesInfo lists: there, the restrictions are a list in a list."""
    told = {"_id": f"{database}.{listed['role']}", **listed}
    restrictions: list[Any] = []
    for one in told.pop("authenticationRestrictions", ()):
        restrictions += one if isinstance(one, list) else [one]
    if restrictions:
        told["authenticationRestrictions"] = restrictions
    return {key: told[key] for key in _ROLE_KEYS if key in told}
