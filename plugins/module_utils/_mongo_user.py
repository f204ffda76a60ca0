# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Users of a MongoDB server: what is there, what has to be done, and doing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import (
    Server,
    check_database,
    lets_in,
    server_errors,
)

# (database, role)
Role = tuple[str, str]


@dataclass(frozen=True)
class Account:
    """A user as asked for; without a password or roles, those stay as they are."""

    name: str
    database: str
    password: str | None = None
    roles: frozenset[Role] | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.database}"


@dataclass(frozen=True)
class Found:
    """A user as it is. known_password: whether the password asked for lets it in."""

    roles: frozenset[Role]
    known_password: bool = True


def check_account(name: str, database: str, password: str | None, roles: Iterable[Any] | None) -> Account:
    """The user that options ask for. Raises InputError."""
    if not name or "\0" in name:
        raise InputError(f"The name {name!r} is none of a user.", fix="Give one character or more.")
    check_user_database(database)
    if password is not None and not (password and password.isprintable()):
        raise InputError(
            f"The password for {name}@{database} is empty or has characters that cannot be printed.",
            fix="Give another one.",
        )
    return Account(name, database, password, None if roles is None else check_roles(roles, database))


def check_user_database(database: str) -> None:
    """Users can be in the database admin, too. Raises InputError."""
    if database != "admin":
        check_database(database)


def check_roles(roles: Iterable[Any], database: str) -> frozenset[Role]:
    """Roles as MongoDB writes them: a name, which is one of the user's own database, or {role: …, db: …}."""
    found = set()
    for role in roles:
        if isinstance(role, str) and role:
            found.add((database, role))
        elif isinstance(role, Mapping) and role.keys() == {"role", "db"} and all(map(_is_text, role.values())):
            found.add((role["db"], role["role"]))
        else:
            raise InputError(
                f"The role {role!r} is neither a name nor a role with its database.",
                fix="Write readWrite, or {role: readWrite, db: other}.",
            )
    return frozenset(found)


def plan(found: Found | None, wanted: Account) -> list[str]:
    """What has to be done, as short phrases."""
    if found is None:
        return [f"create {wanted}{_with(wanted.roles or frozenset())}"]
    actions = [] if found.known_password else [f"set the password of {wanted}"]
    if wanted.roles is not None:
        actions += [f"grant {text(role)} to {wanted}" for role in sorted(wanted.roles - found.roles)]
        actions += [f"revoke {text(role)} from {wanted}" for role in sorted(found.roles - wanted.roles)]
    return actions


def text(role: Role) -> str:
    """ "readWrite on orders"."""
    return f"{role[1]} on {role[0]}"


def look(server: Server, params: Mapping[str, Any], wanted: Account) -> Found | None:
    """The user as it is; a login tells whether it has the password. Raises StateError and UnreachableError."""
    with server_errors(f"look for the user {wanted}"):
        answer = server.client[wanted.database].command("usersInfo", {"user": wanted.name, "db": wanted.database})
    for user in answer["users"]:
        roles = frozenset((role["db"], role["role"]) for role in user.get("roles", ()))
        return Found(roles, wanted.password is None or has_password(params, wanted))
    return None


def has_password(params: Mapping[str, Any], account: Account) -> bool:
    """Whether the server that *params* reach lets the user in with its password. Raises UnreachableError."""
    login = {"login_user": account.name, "login_password": account.password, "auth_source": account.database}
    return lets_in({**params, **login}, "groundwork mongo_user login")


def apply(server: Server, found: Found | None, wanted: Account) -> None:
    """Create the user, or change what is different. Open connections of it stay. Raises StateError."""
    command = "createUser" if found is None else "updateUser"
    values: dict[str, Any] = {}
    if wanted.password is not None and not (found and found.known_password):
        values["pwd"] = wanted.password
    if found is None or (wanted.roles is not None and wanted.roles != found.roles):
        values["roles"] = [{"role": role, "db": database} for database, role in sorted(wanted.roles or ())]
    with server_errors(f"{'create' if found is None else 'change'} the user {wanted}"):
        server.client[wanted.database].command(command, wanted.name, **values)


def drop(server: Server, account: Account) -> None:
    """Remove the user. Raises StateError."""
    with server_errors(f"remove the user {account}"):
        server.client[account.database].command("dropUser", account.name)


def _with(roles: frozenset[Role]) -> str:
    return f" with {', '.join(map(text, sorted(roles)))}" if roles else " without roles"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
