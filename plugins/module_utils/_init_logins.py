# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The logins and passwords of a new inventory, put together from where else they stand in the settings; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import ServiceFile, interpolate
from ansible_collections.groundwork.backend.plugins.module_utils._init_guess import (
    Login,
    is_secret,
    login_in,
    same_owner,
)
from ansible_collections.groundwork.backend.plugins.module_utils._init_model import Database, Found, Line, Plan, Secret

_WHOLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)[^}]*\}|([A-Za-z_]\w*))\Z")
# a URL that the compose files put together
_COMPOSED = re.compile(r"://([^:@\s]*|\$\{[^}]*\}):(\$\{[^}]*\}|\$\w+)@([A-Za-z0-9._-]+)(?::[^/]*)?(?:/([^?\s]*))?")
_POSTGRES_PORT = 5432
_LOGIN_IN_USE = "the login that is in use; rotate_secret.yml changes it"
# behind these a password stands in a URL: all that is not allowed there is encoded
_IN_URL = " | urlencode | replace('/', '%2F')"


def variable_in(text: str) -> str:
    """The name in a text that is one variable and nothing else; "" for any other text."""
    match = _WHOLE.match(text)
    return (match[1] or match[2]) if match else ""


class Logins:
    """Fills the vault and the logins of *plan*. values are what variables have in the example, or by default."""

    def __init__(self, found: Found, values: Mapping[str, str], plan: Plan, make_secret: Callable[[], str]) -> None:
        self.found = found
        self.values = values
        self.plan = plan
        self.make_secret = make_secret

    def add(self, variable: str, value: str, comment: str = "") -> None:
        """Put a variable into the vault file, unless it is there."""
        self.plan.vault.setdefault(variable, Secret(value, comment))

    def check(self, sentence: str) -> None:
        """Tell the user, once."""
        if sentence not in self.plan.checks:
            self.plan.checks.append(sentence)

    def composed(self) -> dict[str, str]:
        """Variables of app_env that hold the user of a URL in the compose files -> the vault's variable for them."""
        users: dict[str, str] = {}
        for service in self.found.services.values():
            for match in (_COMPOSED.search(text) for text in service.environment.values()):
                store = self.found.services.get(match[3]) if match else None
                if match is None or store is None or store.store != "postgres":
                    continue
                database, user, password = (
                    self.database(store),
                    interpolate(match[1], self.values),
                    variable_in(match[2]),
                )
                if not user or user == database.user:
                    continue
                variable = f"vault_{password.lower()}"
                self.add(variable, self.make_secret())
                name = interpolate(match[4] or "", self.values) or database.name
                in_user = variable_in(match[1])
                if in_user:
                    users[in_user] = f"vault_{in_user.lower()}"
                    self.add(users[in_user], user, _LOGIN_IN_USE)
                self._app_login(database, name, user, users.get(in_user, ""), variable)
        return users

    def url(self, name: str, login: Login) -> Line:
        """A URL with its password taken from where else it stands in the settings."""
        user, password, comment = self._login(name, login)
        return Line(
            name, f"{login.before.removesuffix('://')}://{user}:{{{{ {password}{_IN_URL} }}}}{login.after}", comment
        )

    def _login(self, name: str, login: Login) -> tuple[str, str, str]:
        """The user as it stands in the URL, the vault's variable with its password, and a comment."""
        store = self.found.services.get(login.host)
        if store is not None and store.store == "postgres":
            database = self.database(store)
            if login.user == database.user:
                return login.user, database.password, ""
        source = self._same_password(name, login)
        variable = f"vault_{source.lower()}" if source else f"vault_{name.lower()}_password"
        if store is None or not store.store:
            # a server of somebody else: its password is known there
            self.add(variable, "", f"the password of {login.user} at {login.host}: fill it in")
            self.check(f"app_env.{name} names {login.host}, which is no store of the compose files.")
            return login.user, variable, "CHECK: a server outside of the stack"
        if store.store != "postgres":
            self.add(
                variable, self.make_secret() if source else login.password, "" if source else "CHECK: as in the URL"
            )
            if not source:
                self.check(f"The password in app_env.{name} stands nowhere else, so it was kept: see {variable}.")
            return login.user, variable, ""
        self.add(variable, self.make_secret())
        if not source:
            self.check(
                f"app_env.{name} logs in as {login.user!r}; something must make this user with {variable}, "
                "such as a migration with variables."
            )
        user = f"{variable.removesuffix('_password').removesuffix('_pass').removesuffix('_pwd')}_user"
        self.add(user, login.user, _LOGIN_IN_USE)
        database = self.database(store)
        name = re.split(r"[/?]", login.after.partition("/")[2])[0] or database.name
        self._app_login(database, name, login.user, user, variable)
        return f"{{{{ {user} | urlencode }}}}", variable, ""

    def _same_password(self, name: str, login: Login) -> str:
        """The variable of the example that holds the password of this URL; "" when none does, or several could."""
        if composed := re.search(r":(\$\{[^}]*\}|\$\w+)@", self.values.get(name, "")):
            return variable_in(composed[1])
        others = {
            other: value
            for other, value in self.found.example.items()
            if other != name and is_secret(other) and value == login.password and not login_in(value)
        }
        owners = [other for other in others if same_owner(other, self.found.example, login.user)]
        candidates = owners or list(others)
        return candidates[0] if len(candidates) == 1 else ""

    def _app_login(self, database: Database, name: str, role: str, user: str, password: str) -> None:
        """What rotate_secret.yml needs; without a variable for the user, there cannot be two logins."""
        entry = {
            "service": database.service.name, "database": name, "role": role, "user_variable": user,
            "password_variable": password, "admin_user": database.user,
            "admin_password": f"{{{{ {database.password} }}}}",
        }  # fmt: skip
        self.plan.logins.setdefault(role, {key: value for key, value in entry.items() if value})

    def database(self, service: ServiceFile) -> Database:
        """The database that the image of a Postgres service makes, and the superuser that it makes it with."""
        environment = {name: service.environment.get(name, "") for name in ("POSTGRES_USER", "POSTGRES_DB")}
        for name in service.pass_through:
            environment[name] = f"${{{name}}}"
        user = interpolate(environment["POSTGRES_USER"], self.values) or "postgres"
        name = interpolate(environment["POSTGRES_DB"], self.values) or user
        text = service.environment.get("POSTGRES_PASSWORD", "")
        if "POSTGRES_PASSWORD" in service.pass_through:
            text = "${POSTGRES_PASSWORD}"
        if taken := variable_in(text):
            variable = f"vault_{taken.lower()}"
            self.add(variable, self.make_secret())
        else:
            variable = f"vault_{re.sub(r'[^a-z0-9_]', '_', service.name.lower())}_password"
            known = "" if "$" in text else text
            self.add(
                variable, known, "the compose file has it" if known else "the password of the superuser: fill it in"
            )
            if known:
                self.check(
                    f"The service {service.name} has its password in the compose file, where everybody reads it: write "
                    "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD} there and start over."
                )
        published = any(port.target == _POSTGRES_PORT for port in service.ports)
        return Database(service, name, user, variable, published)
