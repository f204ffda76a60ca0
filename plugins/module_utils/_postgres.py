# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Connect to one PostgreSQL database; every reason why that fails has its own sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    InputError,
    StateError,
    UnreachableError,
    os_errors,
)

if TYPE_CHECKING:
    import psycopg

CONNECT_TIMEOUT_SECONDS = 10

# The server translates its messages, and psycopg fills in no SQLSTATE while connecting, so libpq's and the
# server's English texts decide; an unknown text still ends in the general sentence with the server's own words.
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        r"password authentication failed|no password supplied",
        "the server rejected the password of user {user!r}",
        "Check login_user and login_password.",
    ),
    (
        r"valid client certificate|certificate authentication failed|alert certificate required",
        "the server wants a client certificate that it takes for user {user!r}",
        "Check ssl_cert, ssl_key and login_user.",
    ),
    (
        r"certificate file|private key file",
        "a file of the TLS options cannot be used ({told})",
        "Check ca_cert, ssl_cert and ssl_key; the key must belong to this user, with mode 0600.",
    ),
    (
        r"Peer authentication failed|Ident authentication failed",
        "the server lets only the operating system user of the same name log in as {user!r} here",
        "Run with become_user, or set login_host and login_password.",
    ),
    (
        r'role ".*" does not exist|role ".*" is not permitted to log in',
        "the server has no user {user!r} that may log in",
        "Check login_user, or create the role.",
    ),
    (
        r"no pg_hba\.conf entry",
        "pg_hba.conf of the server has no entry for user {user!r} from this host",
        "Add an entry to pg_hba.conf, or connect in another way (login_host, ssl_mode).",
    ),
    (
        r'database ".*" does not exist',
        "the server has no such database",
        "Create the database first, or check its name.",
    ),
    (
        r"permission denied for database",
        "user {user!r} may not connect to it",
        "GRANT CONNECT on the database to that user, or use another login_user.",
    ),
    (
        r"could not translate host name|[Nn]ame or service not known|failed to resolve host",
        "the host name is unknown",
        "Check login_host and the name resolution of this host.",
    ),
    (
        r"Connection refused|No such file or directory",
        "nothing listens there (connection refused)",
        "Start the server, or check login_host and login_port.",
    ),
    (
        r"timeout expired|timed out",
        "no answer within {seconds:g} seconds",
        "Check login_host, login_port and the firewall between the two hosts.",
    ),
    (
        r"starting up|shutting down|in recovery mode",
        "the server is starting up or shutting down",
        "Wait until it is ready (health_wait), then run again.",
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "the server has no free connection",
        "Raise max_connections, or close idle connections.",
    ),
    (
        r"certificate|does not support SSL|SSL error",
        "the TLS connection failed",
        "Check ssl_mode and ca_cert, and the certificate of the server.",
    ),
)

# What to do about an error of the server, by SQLSTATE or its class.
_FIXES = {
    "42501": "Grant the missing right to login_user, or log in as another role.",
    "53100": "The server's disk is full: free space on it, then run again.",
    "55P03": "Something holds the lock for long: look into pg_stat_activity, or run at a quieter time.",
    "57014": "It ran into a timeout of the server or was cancelled.",
    "08": "Look into the server's log, then run again.",
    "57": "Look into the server's log, then run again.",
}


def login_options() -> dict[str, Any]:
    """The options that choose a server and a database, as arguments of AnsibleModule ("argument_spec").

    They are documented in the fragment groundwork.backend._postgres.
    """
    return {
        "argument_spec": {
            "login_host": {"type": "str"},
            "login_port": {"type": "int", "default": 5432},
            "login_user": {"type": "str", "default": "postgres"},
            "login_password": {"type": "str", "no_log": True},
            "database": {"type": "str", "required": True},
            "ssl_mode": {
                "type": "str",
                "default": "prefer",
                "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
            },
            "ca_cert": {"type": "path"},
            "ssl_cert": {"type": "path"},
            "ssl_key": {"type": "path"},
        }
    }


def login_or_dsn_options() -> dict[str, Any]:
    """The options of login_options() or login_dsn in their place, as arguments of AnsibleModule.

    They are documented in the fragment groundwork.backend._postgres_dsn.
    """
    login = login_options()["argument_spec"]
    return {
        "argument_spec": {
            **login,
            "database": {"type": "str"},
            "login_dsn": {"type": "str", "no_log": True},
        },
        "required_one_of": [["database", "login_dsn"]],
        "mutually_exclusive": [["login_dsn", name] for name in login],
    }


def dsn_parameters(dsn: str) -> dict[str, Any]:
    """The parameters in a connection string of libpq ("postgresql://…" or "host=… dbname=…"), by libpq's names.

    Raises DependencyError and InputError, which tells nothing of the string: it holds a password.
    """
    require_psycopg()
    import psycopg  # noqa: PLC0415 - optional on the host
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    if driver := re.match(r"(postgres(?:ql)?)\+\w+://", dsn):
        raise InputError(
            f"login_dsn begins with {driver[0]}, as SQLAlchemy has it, which is no connection string of libpq.",
            fix=f"Write {driver[1]}:// instead.",
        )
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.Error:
        raise InputError(
            "login_dsn is no connection string of libpq.",
            fix="Write it like postgresql://user:password@host:5432/database, with special characters of the user and "
            "the password percent-encoded, or like host=… user=… dbname=….",
        ) from None  # the cause quotes parts of it


def require_psycopg() -> None:
    """Raises DependencyError when psycopg 3 is not there."""
    try:
        import psycopg  # noqa: F401, PLC0415 - optional on the host: its absence is a sentence, not a traceback
    except ImportError as error:
        raise DependencyError(
            "The Python library psycopg 3 is needed and could not be imported.",
            fix="Install Debian's package python3-psycopg on the managed host.",
        ) from error


def connect(
    params: Mapping[str, Any],
    *,
    application_name: str,
    timeout: int = CONNECT_TIMEOUT_SECONDS,
    address: str | None = None,
) -> psycopg.Connection[Any]:
    """An autocommit connection to the database that the options of login_options() name, or login_dsn alone.

    address is where the server is reached whatever its name is; certificates are checked against the name.

    Gives up after *timeout* seconds (libpq's least is 2). Raises DependencyError (no psycopg), InputError (login_dsn),
    StateError (a file of the TLS options) and UnreachableError, whose sentence tells a wrong password, a refused
    connection, an unknown host, a missing database and a timeout apart.
    """
    require_psycopg()
    import psycopg  # noqa: PLC0415 - optional on the host

    _require_files(params)
    own = {"client_encoding": "UTF8", "connect_timeout": timeout, "application_name": application_name}
    keywords = {**_keywords(params), **({"hostaddr": address} if address else {}), **own}
    try:
        return psycopg.connect(**keywords, autocommit=True)
    except psycopg.Error as error:
        raise unreachable(_named(keywords), str(error), timeout) from None  # the cause may quote connection parameters


@contextmanager
def server_errors(asked: str) -> Iterator[None]:
    """Turn an error of the server inside the block into a sentence; *asked* continues "Could not …".

    For statements that hold no secret: the server may quote them. Raises StateError with the detail sqlstate, and
    UnreachableError when the connection was lost.
    """
    import psycopg  # noqa: PLC0415 - optional on the host

    try:
        yield
    except psycopg.Error as error:
        told = error.diag.message_primary
        if told is None:
            raise UnreachableError(f"Could not {asked}: the connection was lost.", fix=fix_for("08")) from error
        raise StateError(
            f"Could not {asked}: {told} (SQLSTATE {error.sqlstate}).",
            fix=fix_for(error.sqlstate),
            sqlstate=error.sqlstate,
        ) from error


def fix_for(sqlstate: str | None) -> str:
    """What to do about an error of the server; empty when the message itself says it."""
    return _FIXES.get(sqlstate or "08") or _FIXES.get((sqlstate or "08")[:2], "")


def server_version(connection: psycopg.Connection[Any]) -> str:
    """The version of the server as it states it, such as "16.9" or "18.0 (Debian 18.0-1)"."""
    return connection.info.parameter_status("server_version") or str(connection.info.server_version)


def _keywords(params: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("login_dsn"):
        return dsn_parameters(params["login_dsn"])
    keywords = {
        "host": params.get("login_host"),
        "port": params.get("login_port"),
        "user": params.get("login_user"),
        "password": params.get("login_password"),
        "dbname": params["database"],
        "sslmode": params.get("ssl_mode"),
        "sslrootcert": params.get("ca_cert"),
        "sslcert": params.get("ssl_cert"),
        "sslkey": params.get("ssl_key"),
    }
    return {name: value for name, value in keywords.items() if value is not None}


def _require_files(params: Mapping[str, Any]) -> None:
    """libpq passes over a certificate that is not there, and what the server answers then misleads."""
    for option in ("ca_cert", "ssl_cert", "ssl_key"):
        if path := params.get(option):
            with os_errors(f"read the file {path} of {option}"), Path(path).open("rb"):
                pass


def _named(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """libpq's parameters under the names of the options, for unreachable()."""
    return {
        "login_host": keywords.get("host") or keywords.get("hostaddr"),
        "login_port": keywords.get("port", 5432),
        "login_user": keywords.get("user"),
        "login_password": keywords.get("password"),
        "database": keywords.get("dbname", keywords.get("user")),
    }


def unreachable(params: Mapping[str, Any], told: str, timeout: float = CONNECT_TIMEOUT_SECONDS) -> UnreachableError:
    """The sentence for a failed connection; *told* is what libpq said, which never holds the password."""
    if password := params.get("login_password"):
        told = told.replace(password, "********")
    told = " ".join(told.split())
    host = params.get("login_host")
    place = f"{host}:{params.get('login_port')}" if host else f"the local Unix socket (port {params.get('login_port')})"
    asked = f"Could not connect to database {params['database']!r} at {place}"
    for pattern, found, fix in _REASONS:
        if re.search(pattern, told):
            reason = found.format(user=params.get("login_user"), seconds=timeout, told=told)
            return UnreachableError(f"{asked}: {reason}.", fix=fix)
    return UnreachableError(f"{asked}: {told}.", fix="Check the login options and the server's log.")
