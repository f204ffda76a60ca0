# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The settings of a new inventory, from what was found in a source; pure. _init_render.py writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import interpolate, uses
from ansible_collections.groundwork.backend.plugins.module_utils._init_guess import (
    is_foreign,
    is_placeholder,
    is_secret,
    login_in,
)
from ansible_collections.groundwork.backend.plugins.module_utils._init_logins import Logins
from ansible_collections.groundwork.backend.plugins.module_utils._init_model import Database, Found, Line, Plan


def make_plan(found: Found, make_secret: Callable[[], str]) -> Plan:
    """The settings that fit *found*; make_secret gives a new secret each time."""
    return _Planner(found, make_secret).plan()


class _Planner:
    def __init__(self, found: Found, make_secret: Callable[[], str]) -> None:
        self.found = found
        self.make_secret = make_secret
        self.result = Plan()
        self.values = {**{use.name: use.default for use in found.variables if use.default}, **found.example}
        self.logins = Logins(found, self.values, self.result, make_secret)
        # what a store takes at its start is agreed between the stack's own services, so that it can be made up
        self.own = {
            use.name
            for service in found.services.values()
            if service.store
            for text in [*service.environment.values(), service.command]
            for use in uses(text)
        } | {name for service in found.services.values() if service.store for name in service.pass_through}

    def plan(self) -> Plan:
        self.users = self.logins.composed()
        self._env()
        services = self.found.services.values()
        databases = [self.logins.database(service) for service in services if service.store == "postgres"]
        self._web()
        self._migrations(databases)
        for database in databases:
            self.result.backups.append(
                {"engine": "postgres", "name": database.name, "service": database.service.name,
                 "database": database.name, "user": database.user}
            )  # fmt: skip
        self._stores()
        return self.result

    def _env(self) -> None:
        names = dict.fromkeys(use.name for use in self.found.variables)
        if any(service.whole_env for service in self.found.services.values()):
            names = dict.fromkeys([*self.found.example, *names])
        order = {name: number for number, name in enumerate(self.found.example)}
        for name in sorted(names, key=lambda name: order.get(name, len(order))):
            self.result.env.append(self._line(name))

    def _line(self, name: str) -> Line:
        if name in self.users:
            return Line(name, f"{{{{ {self.users[name]} }}}}")
        value = interpolate(self.values.get(name, ""), self.values)
        if login := login_in(value):
            return self.logins.url(name, login)
        return Line(name, self._secret(name)) if is_secret(name) else self._open_line(name, value)

    def _open_line(self, name: str, value: str) -> Line:
        """A variable that holds no secret."""
        of_name = [use for use in self.found.variables if use.name == name]
        if name not in self.found.example and all(use.default is not None for use in of_name):
            return Line(name, value, "the compose files' default", active=False)
        if not value:
            self.logins.check(f"app_env.{name} has no value yet.")
            return Line(name, "", "CHECK: nothing says what it should be")
        if is_placeholder(value):
            self.logins.check(f"app_env.{name} is {value!r}, which looks like a placeholder.")
            return Line(name, value, "CHECK: this looks like a placeholder")
        return Line(name, value)

    def _secret(self, name: str) -> str:
        variable = f"vault_{name.lower()}"
        if name in self.own or not is_foreign(name):
            self.logins.add(variable, self.make_secret())
        else:
            self.logins.add(variable, "", "comes from somebody else: fill it in")
        return f"{{{{ {variable} }}}}"

    def _web(self) -> None:
        for service in self.found.services.values():
            ports = [port.target for port in service.ports if port.protocol == "tcp" and port.target]
            if service.store or service.proxy or service.in_profile or not ports:
                continue
            path, seen = self.found.health.get(service.name, ("/health", ""))
            self.result.web[service.name] = {"port": ports[0], "path": path, "seen": seen}
            if not seen:
                self.logins.check(f"app_web_services.{service.name}.health.path is a guess.")
            if len(ports) > 1:
                self.logins.check(
                    f"{service.name} publishes {', '.join(map(str, ports))}; {ports[0]} is taken for the web port."
                )

    def _migrations(self, databases: Sequence[Database]) -> None:
        for folder, names in self.found.migrations.items():
            if not databases:
                self.logins.check(f"{folder} holds numbered SQL files, and the compose files have no PostgreSQL.")
                continue
            database = databases[0]
            entry: dict[str, Any] = {
                "engine": "sql", "service": database.service.name, "database": database.name, "path": folder,
                "user": database.user, "password": f"{{{{ {database.password} }}}}",
            }  # fmt: skip
            if names:
                entry["variables"] = {name: self._sql_variable(name, database) for name in sorted(names)}
            if len(databases) > 1 or len(self.found.migrations) > 1:
                self.logins.check(f"{folder} may belong to another database than {database.name}, or be no migrations.")
            if database.published:
                self.result.migrations.append(entry)
            else:
                self.result.unreachable.append(entry)
                self.logins.check(
                    f"{database.service.name} publishes no port 5432, through which migrations run: add it "
                    "under ports: (it will answer on 127.0.0.1 only), and take app_migrations in."
                )
        for folder in self.found.alembic:
            self.result.hints.append(
                f"{folder}/alembic.ini: Alembic runs in a container of the new release, as a hook:\n"
                "app_hooks: {after_migrate: [{service: SERVICE, command: [alembic, upgrade, head]}]}"
            )
            self.logins.check(f"{folder}/alembic.ini is there: see the hint on app_hooks in main.yml.")

    def _sql_variable(self, name: str, database: Database) -> str:
        lower = name.lower()
        logins = list(self.result.logins.values())
        if re.search(r"pass|secret|pwd", lower):
            if len(logins) == 1:
                return f"{{{{ {logins[0]['password_variable']} }}}}"
            if f"vault_{lower}" in self.result.vault:
                return f"{{{{ vault_{lower} }}}}"
        elif lower in ("database", "db", "dbname", "db_name", "database_name"):
            return database.name
        elif re.search(r"user|role|owner", lower) and len(logins) == 1:
            return str(logins[0]["role"])
        self.logins.check(f"The variable {name} of the migrations has no value yet.")
        return ""

    def _stores(self) -> None:
        for service in self.found.services.values():
            if service.store and service.store != "postgres":
                what = f"{service.name} ({service.image})"
                self.logins.check(f"{what} is a store that backup_components does not cover yet.")
                self.result.hints.append(f"{what} is a store, and not in backup_components yet.")
            if service.proxy:
                self.logins.check(
                    f"{service.name} looks like a reverse proxy: its ports answer on 127.0.0.1 only, unless "
                    "app_public_ports names them. The inventory group proxy brings an nginx that deploys without a gap."
                )
            for name, text in service.environment.items():
                if is_secret(name) and text and "$" not in text and name != "POSTGRES_PASSWORD":
                    self.logins.check(f"{service.name} has {name} in the compose file, where everybody reads it.")
