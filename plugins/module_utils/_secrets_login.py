# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Open and close the logins of one PostgreSQL role, so that its password can change while programs keep using it.

PostgreSQL keeps one password for a role. So a role that holds rights and owns objects has a second login beside its
own: a member whose sessions act as the role from their first statement on (ALTER ROLE … SET role). What either makes
belongs to the role. The two take turns: the next is opened, programs move to it, and the one before is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._postgres import server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_role import (
    Role,
    matches,
    owned_objects,
    read_role,
    sessions_of,
)

_NAME_BYTES = 63
_LOCK_SECONDS = 30
_POLL_SECONDS = 0.2
# (user, password) -> an open connection; raises GroundworkError
Connect = Callable[[str, str], Any]


@dataclass
class Logins:
    """The logins of *role*, seen through *connection*, which may change roles. connect tries a login."""

    connection: Any
    role: str
    connect: Connect
    read_only: bool = False
    actions: list[str] = field(default_factory=list)

    def look(self, login: str) -> Role | None:
        """The login as it is. Raises StateError when there is no such role to log in for."""
        self._role()
        return read_role(self.connection, login, self.role)

    def open(self, login: str, password: str, *, while_used: bool) -> Role | None:
        """Let *login* in with *password*, with the rights of the role; returns the login as it was.

        Raises InputError, and StateError when the name is taken by another role, or when sessions of the login are
        open that have another password, unless *while_used*.
        """
        _check(login, password)
        with self._transaction():
            role = self._role()
            before = read_role(self.connection, login, self.role)
            if before and before.name != self.role and not before.is_member:
                raise StateError(
                    f"There is a role {login!r} already, and it is not a login of {self.role!r}.",
                    fix=f"Choose another name, or make it one: GRANT {self.role} TO {login}.",
                )
            known = before is not None and self._has_password(before, password)
            if before and before.can_log_in and not known and not while_used:
                self._require_unused(before)
            if login != self.role:
                self._make_member(before, login, role)
            if before is None or not before.can_log_in:
                self._do(f"let {login} log in", "ALTER ROLE {} LOGIN", login)
            if before and before.expired:
                self._do(f"let the password of {login} not expire", "ALTER ROLE {} VALID UNTIL 'infinity'", login)
            if not known:
                self._do(
                    f"set the password of {login}", "ALTER ROLE {} PASSWORD {}", login, self._verifier(login, password)
                )
        if not self.read_only:
            self.try_login(login, password)
        return before

    def try_login(self, login: str, password: str) -> None:
        """Raises GroundworkError when *login* does not get in, or does not act as the role."""
        wanted = self._role().acts_as
        with self.connect(login, password) as connection:
            found = connection.execute("SELECT current_user").fetchone()[0]
        if found != wanted:
            raise StateError(
                f"{login!r} can log in, and acts as {found!r} instead of {wanted!r}.",
                fix=f"Open it again, or: GRANT {self.role} TO {login}; ALTER ROLE {login} SET role = {wanted}.",
            )

    def close(self, login: str, replacement: str, password: str) -> Role | None:
        """Take the password of *login* away, and its right to log in; returns the login as it was.

        A superuser that is the role itself keeps the right without a password: for the server's own socket. Raises
        StateError when *replacement* does not get in with *password*: then nothing was closed.
        """
        if login == replacement:
            raise InputError(f"{login!r} would be closed and replace itself.", fix="Name the other login.")
        try:
            self.try_login(replacement, password)
        except GroundworkError as error:
            raise StateError(
                f"{login!r} was not closed, because {replacement!r} cannot take its place. {error.problem}",
                fix=error.fix,
            ) from error
        with self._transaction():
            self._role()
            before = read_role(self.connection, login, self.role)
            if before is None:
                return None
            if login != self.role and not before.is_member:
                raise StateError(f"{login!r} is not a login of {self.role!r}.", fix="Check the name.")
            if before.can_log_in and not (before.superuser and login == self.role):
                self._do(f"let {login} log in no more", "ALTER ROLE {} NOLOGIN", login)
            if before.verifier is not None or (not before.readable and before.can_log_in):
                self._do(f"remove the password of {login}", "ALTER ROLE {} PASSWORD NULL", login)
        if login != self.role and owned_objects(self.connection, before):
            with self._transaction():
                owner = self._role().acts_as
                self._do(f"give what {login} owns to {owner}", "REASSIGN OWNED BY {} TO {}", login, owner)
        return before

    def drain(self, login: Role, seconds: float, *, terminate: bool) -> tuple[list[dict[str, Any]], int]:
        """Wait until the sessions of *login* are gone, then end the others.

        Returns those that were there when the wait was over, and how many of them were ended.
        """
        deadline = time.monotonic() + seconds
        while (found := sessions_of(self.connection, login)) and not self.read_only and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not found or not terminate:
            return found, 0
        self.actions.append(f"end {len(found)} sessions of {login.name}")
        if not self.read_only:
            with server_errors(f"end the sessions of {login.name!r}, which is closed"):
                for session in found:
                    self.connection.execute("SELECT pg_terminate_backend(%s)", [session["pid"]])
        return found, len(found)

    def _role(self) -> Role:
        found = read_role(self.connection, self.role, self.role)
        if found is None:
            raise StateError(
                f"The server has no role {self.role!r}.",
                fix="Check its name. It is made by your migrations or by the server's image.",
            )
        return found

    def _has_password(self, login: Role, password: str) -> bool:
        if login.readable:
            answer = matches(login.verifier, password) if login.verifier else False
            if answer is not None:
                return answer
        if not login.can_log_in:
            return False
        try:
            self.connect(login.name, password).close()
        except GroundworkError:
            return False
        return True

    def _require_unused(self, login: Role) -> None:
        if found := sessions_of(self.connection, login):
            raise StateError(
                f"{login.name!r} has {len(found)} open sessions and another password, so programs use it.",
                fix="Move them to the other login first and close this one; pg_stat_activity tells who they are.",
                sessions=found,
            )

    def _make_member(self, before: Role | None, login: str, role: Role) -> None:
        if before is None:
            self._do(f"create the login {login}", "CREATE ROLE {} INHERIT NOCREATEDB NOCREATEROLE", login)
            self._do(f"make {login} a member of {self.role}", "GRANT {} TO {}", self.role, login)
        if (before.connection_limit if before else -1) != role.connection_limit:
            limit = f"ALTER ROLE {{}} CONNECTION LIMIT {role.connection_limit:d}"
            self._do(f"give {login} the connection limit of {self.role}", limit, login)
        wanted = {name: dict(values) for name, values in role.settings.items()}
        wanted.setdefault("", {})["role"] = role.acts_as
        found = before.settings if before else {}
        if found != wanted:
            self.actions.append(f"give {login} the settings of {self.role}")
            if not self.read_only:
                self._copy_settings(login, found, wanted)

    def _copy_settings(
        self, login: str, found: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
    ) -> None:
        """set_config reads a value as the catalog has it, which SET does not do for lists such as search_path."""
        for database in found:
            where = (
                ("ALTER ROLE {} IN DATABASE {} RESET ALL", login, database)
                if database
                else ("ALTER ROLE {} RESET ALL", login)
            )
            self._execute(*where)
        for database, values in wanted.items():
            for name, value in values.items():
                if name == "role":
                    continue
                with server_errors(f"copy the setting {name} to {login!r}"):
                    self.connection.execute("SELECT set_config(%s, %s, true)", [name, value])
                names = [login, database, *name.split(".")] if database else [login, *name.split(".")]
                setting = ".".join(["{}"] * len(name.split(".")))
                place = "IN DATABASE {} " if database else ""
                self._execute(f"ALTER ROLE {{}} {place}SET {setting} FROM CURRENT", *names)
            if role := values.get("role"):
                place = "IN DATABASE {} " if database else ""
                self._execute(
                    f"ALTER ROLE {{}} {place}SET role TO {{}}", *([login, database] if database else [login]), role
                )

    def _verifier(self, login: str, password: str) -> Any:
        """What the server stores, computed here, so that the password itself never reaches its log or statistics."""
        from psycopg import sql  # noqa: PLC0415 - optional on the host

        found = self.connection.pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256").decode()
        return sql.Literal(found)

    def _do(self, action: str, statement: str, *parts: Any) -> None:
        self.actions.append(action)
        if not self.read_only:
            self._execute(statement, *parts)

    def _execute(self, statement: str, *parts: Any) -> None:
        """Run a statement; parts are names, or what psycopg composes already."""
        from psycopg import sql  # noqa: PLC0415 - optional on the host

        ready = [sql.Identifier(part) if isinstance(part, str) else part for part in parts]
        composed = sql.SQL(statement).format(*ready)
        with server_errors(f"change the logins of {self.role!r}"):
            self.connection.execute(composed)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and one run at a time for a role and a database."""
        if self.read_only:
            yield
            return
        with self.connection.transaction():
            with server_errors(f"wait for another run that changes the logins of {self.role!r}"):
                self.connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_LOCK_SECONDS}s"])
                self.connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"groundwork pg_login {self.role}"]
                )
            yield


def _check(login: str, password: str) -> None:
    if len(login.encode()) > _NAME_BYTES or not login or "\0" in login:
        raise InputError(
            f"The login {login!r} is no name that PostgreSQL takes.",
            fix=f"Use 1 to {_NAME_BYTES} bytes, without a NUL.",
        )
    if not password or "\0" in password:
        raise InputError(f"The password for {login!r} is empty or has a NUL byte.", fix="Give another one.")
