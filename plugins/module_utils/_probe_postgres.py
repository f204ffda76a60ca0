# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind postgres: a real query over TCP, the schema version of the ledger, an extension.

Never over the socket: while an image initialises, its temporary server answers there, and only there.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, UnreachableError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe, network_outcome

if TYPE_CHECKING:
    from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger

require_psycopg = _postgres.require_psycopg

OPTIONS: dict[str, dict[str, Any]] = {
    "login_host": {"type": "str"},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "database": {"type": "str"},
    "ssl_mode": {"type": "str", "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]},
    "ca_cert": {"type": "path"},
    "minimum_schema_version": {"type": "str"},
    "ledger_schema": {"type": "str"},
    "ledger_table": {"type": "str"},
    "extension": {"type": "str"},
    "fail_fast": {"type": "bool"},
}
# What only an administrator changes, as _postgres tells it. An image that initialises says the same for a moment.
_REFUSED = re.compile("rejected the password|has no user|no such database|has no entry for user|may not connect")
_LEAST_TIMEOUT = 2  # libpq takes 1 as 2


@dataclass
class PostgresProbe(Probe):
    """Logs in and asks; a new connection for each attempt."""

    login: Mapping[str, Any]
    ledger: Ledger
    minimum: str | None
    extension: str | None
    fail_fast: bool
    secrets: tuple[str, ...]
    pause: float = 0.1

    def attempt(self, seconds: float) -> Outcome:
        """Up when the server answers a query, and holds what is asked for."""
        import psycopg  # noqa: PLC0415 - optional on the host; require_psycopg() has looked for it

        host, port = self.login["login_host"], self.login["login_port"]
        try:
            socket.getaddrinfo(host, port)
            timeout = max(_LEAST_TIMEOUT, ceil(seconds))
            with closing(_postgres.connect(self.login, application_name="health_wait", timeout=timeout)) as connection:
                connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(ceil(seconds * 1000))])
                unmet = self._unmet(connection)
                return Outcome("down" if unmet else "up", unmet, status=_postgres.server_version(connection))
        except OSError as error:
            return network_outcome(error, f"{host}:{port}", seconds, fail_fast=self.fail_fast)
        except UnreachableError as error:
            refused = self.fail_fast and bool(_REFUSED.search(error.problem))
            return Outcome("down", error.problem.rstrip("."), terminal=refused)
        except GroundworkError as error:
            return Outcome("down", error.problem.rstrip("."))
        except psycopg.Error as error:
            told = error.diag.message_primary or "the connection was lost"
            return Outcome("down", f"database {self.login['database']!r} at {host}:{port}: {told}")

    def _unmet(self, connection: Any) -> str:
        """The first thing that is asked for and not there; empty when there is none."""
        if self.extension is not None:
            query = "SELECT extversion FROM pg_extension WHERE extname = %s"
            if connection.execute(query, [self.extension]).fetchone() is None:
                return f"the extension {self.extension} is not in database {self.login['database']!r}"
        if self.minimum is None:
            return ""
        rows = self.ledger.rows(connection)
        done = [row.version for row in rows if row.state in ("applied", "baseline") and row.version.isdecimal()]
        found = max(done, key=int, default=None)
        if found is not None and int(found) >= int(self.minimum):
            return ""
        told = f"is {found}" if found else "is not recorded"
        return f"the schema version in {self.ledger.name} {told}, expected at least {self.minimum}"


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"postgres {given['database']}"


def build(asked: Asked) -> PostgresProbe:
    """The probe for the keys of one check. Raises InputError."""
    # Loading it takes longer than most checks, and those of other kinds do without.
    from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger  # noqa: PLC0415

    login: dict[str, Any] = {"login_host": "127.0.0.1", "login_user": "postgres", "ssl_mode": "prefer"}
    login |= {key: value for key, value in asked.given.items() if key in _postgres.login_options()["argument_spec"]}
    host = str(login["login_host"])
    if host.startswith(("/", "@")):
        raise asked.error(
            f"login_host {host!r} is a Unix socket, where an image that is still initialising answers, too.",
            "Name a host or an address.",
        )
    login["login_port"] = asked.port("login_port", 5432)
    minimum = asked.get("minimum_schema_version")
    if minimum is not None and not re.fullmatch("[0-9]+", minimum):
        raise asked.error(f"minimum_schema_version is {minimum!r}; versions are numbers such as '0003'.")
    ledger = Ledger(asked.get("ledger_schema", "public"), asked.get("ledger_table", "schema_migrations"))
    password = asked.get("login_password")
    secrets = (password,) if password else ()
    return PostgresProbe(login, ledger, minimum, asked.get("extension"), asked.get("fail_fast", False), secrets)
