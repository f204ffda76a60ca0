# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Connect to one MongoDB server; every reason why that fails has its own sentence."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
    UnreachableError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_mongo import require_pymongo

if TYPE_CHECKING:
    from pymongo import MongoClient

CONNECT_TIMEOUT_SECONDS = 10
_SELECTION_SECONDS = 5  # for a server that listens, or that was there a moment ago
_IN_PLACE_OF_URI = ("login_host", "login_port", "login_user", "login_password",
                    "auth_source", "tls", "ca_cert", "client_cert")  # fmt: skip
_SERVERS_OWN = ("admin", "config", "local")
_NAME_BYTES = 63
_NOT_IN_A_NAME = '/\\. "$\0'

# Error codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
AUTHENTICATION_FAILED, UNAUTHORIZED, NAMESPACE_NOT_FOUND = 18, 13, 26
SNAPSHOT_UNAVAILABLE = 246
_FIXES = {
    UNAUTHORIZED: "Grant the missing right to login_user, or log in as another user. What time series keep in "
    "system.buckets is read with the role backup and restored with the role restore, both of admin.",
    10107: "Log in to the primary of the replica set.",
    11000: "The data holds two documents of one key: look how they came to be, or restore another set.",
    11600: "The server is shutting down: start it, then run again.",
    14031: "The server's disk is full: free space on it, then run again.",
    43: "The server closed the cursor: look into its log, then run again.",
    175: "Something dropped or renamed the collection meanwhile: run again.",
    239: "The read took longer than the server keeps a snapshot: raise its parameter "
    "minSnapshotHistoryWindowInSeconds, or set snapshot: never.",
    SNAPSHOT_UNAVAILABLE: "Something changed the collection's definition meanwhile, or it cannot be read in a "
    "snapshot: run again, or set snapshot: never.",
}


def mongo_options(own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A module's own options with those for a login, as arguments of AnsibleModule.

    The login's are documented in the fragment groundwork.backend._mongo.
    """
    return {
        "argument_spec": {
            "login_host": {"type": "str"},
            "login_port": {"type": "int"},
            "login_user": {"type": "str"},
            "login_password": {"type": "str", "no_log": True},
            "auth_source": {"type": "str"},
            "tls": {"type": "bool"},
            "ca_cert": {"type": "path"},
            "client_cert": {"type": "path"},
            "login_uri": {"type": "str", "no_log": True},
            **(own or {}),
        },
        "mutually_exclusive": [["login_uri", option] for option in _IN_PLACE_OF_URI],
        "required_together": [["login_user", "login_password"]],
        "required_by": {"auth_source": "login_user"},
    }


@dataclass(frozen=True)
class Server:
    """A server that answered and let the user in; hello is its description of itself."""

    client: MongoClient[Any]
    place: str
    version: str
    hello: Mapping[str, Any]

    @property
    def has_snapshots(self) -> bool:
        """Whether it can be read at one moment: a member of a replica set, or the router of a sharded cluster."""
        return "setName" in self.hello or self.hello.get("msg") == "isdbgrid"


def check_database(name: str, what: str = "database") -> str:
    """The name, when it can be that of an application's database. Raises InputError."""
    if not name or len(name.encode()) > _NAME_BYTES or any(letter in _NOT_IN_A_NAME for letter in name):
        raise InputError(
            f"The {what} {name!r} is no name of a MongoDB database.",
            fix='It has 1 to 63 bytes, and none of / \\ . " $ or a space.',
        )
    if name in _SERVERS_OWN:
        raise InputError(f"The {what} {name!r} belongs to the server itself.", fix="Name a database of an application.")
    return name


@contextmanager
def connect(params: Mapping[str, Any], application_name: str) -> Iterator[Server]:
    """A server that answers and accepts the login, for the length of the block.

    Raises DependencyError (no pymongo), InputError (login_uri), StateError (a file of the TLS options) and
    UnreachableError, whose sentence tells a refused connection, a wrong login and silence apart.
    """
    require_pymongo()
    from pymongo import MongoClient, errors  # noqa: PLC0415 - optional on the host

    keywords, place = _keywords(params)
    try:
        client: MongoClient[Any] = MongoClient(
            **keywords,
            appname=application_name,
            serverSelectionTimeoutMS=_SELECTION_SECONDS * 1000,
            connectTimeoutMS=CONNECT_TIMEOUT_SECONDS * 1000,
            uuidRepresentation="standard",
        )
    except (errors.PyMongoError, ValueError, TypeError) as error:
        if params.get("login_uri"):  # the cause may quote parts of it
            raise InputError(
                "login_uri is no connection string of MongoDB.",
                fix="Write it like mongodb://user:password@host:27017/?authSource=admin, with special characters of "
                "the user and the password percent-encoded.",
            ) from None
        raise InputError(f"The login options cannot be used: {_hidden(params, str(error))}.") from None
    try:
        yield _server(client, params, place)
    finally:
        client.close()


def lets_in(params: Mapping[str, Any], application_name: str) -> bool:
    """Whether the server accepts the login. Raises as connect() does, but for a login that is refused."""
    try:
        with connect(params, application_name):
            return True
    except UnreachableError as error:
        if code_of(error) == AUTHENTICATION_FAILED:
            return False
        raise


@contextmanager
def server_errors(asked: str) -> Iterator[None]:
    """Turn an error of the server or its library inside the block into a sentence; *asked* continues "Could not …".

    Raises StateError with the detail code, and UnreachableError when the connection was lost.
    """
    from bson.errors import BSONError  # noqa: PLC0415 - optional on the host
    from pymongo import errors  # noqa: PLC0415

    try:
        yield
    except errors.OperationFailure as error:
        code, told = _told(error)
        raise StateError(f"Could not {asked}: {told}.", fix=_FIXES.get(code or 0, ""), code=code) from error
    except errors.ConnectionFailure as error:
        if isinstance(getattr(error, "details", None), Mapping):  # an answer all the same: it is not the primary
            code, told = _told(error)
            raise StateError(f"Could not {asked}: {told}.", fix=_FIXES.get(code or 0, ""), code=code) from error
        raise UnreachableError(
            f"Could not {asked}: the connection was lost.", fix="Look into the server's log, then run again."
        ) from error
    except (errors.PyMongoError, BSONError) as error:
        raise StateError(f"Could not {asked}: {str(error).rstrip('.')}.") from error


def _server(client: MongoClient[Any], params: Mapping[str, Any], place: str) -> Server:
    from pymongo import errors  # noqa: PLC0415 - optional on the host

    asked = f"Could not connect to MongoDB at {place}"
    try:
        hello = client.admin.command("hello")
        version = str(client.admin.command("buildInfo")["version"])
    except errors.OperationFailure as error:
        code, told = _told(error)
        if code != AUTHENTICATION_FAILED:
            raise UnreachableError(f"{asked}: {told}.", fix=_FIXES.get(code or 0, "")) from None
        raise login_refused(params, asked, code) from None
    except errors.PyMongoError as error:
        told = _hidden(params, str(error).split(", Timeout:", maxsplit=1)[0].rstrip("."))
        raise UnreachableError(
            f"{asked}: {told}.", fix="Check the login options, tls among them, and the server's log."
        ) from None
    return Server(client, place, version, hello)


def login_refused(params: Mapping[str, Any], asked: str, code: int | None) -> UnreachableError:
    """The error for a login that the server does not accept."""
    who = f" of user {params['login_user']!r}" if params.get("login_user") else ""
    source = params.get("auth_source") or "admin"
    return UnreachableError(
        f"{asked}: the server refused the login{who}" + (f" with auth_source {source!r}." if who else " of login_uri."),
        fix="Check user and password, and that the user was created in the database of auth_source.",
        code=code,
    )


def _keywords(params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Arguments of MongoClient, and what to call the server. A user beside login_uri replaces the one in it."""
    user = params.get("login_user")
    login = {
        "username": user,
        "password": params.get("login_password"),
        "authSource": (params.get("auth_source") or "admin") if user else None,
    }
    if params.get("login_uri"):
        return {"host": params["login_uri"], **(login if user else {})}, "the server of login_uri"
    for option in ("ca_cert", "client_cert"):
        if path := params.get(option):
            if not params.get("tls"):
                raise InputError(f"{option} needs TLS.", fix="Set tls: true.")
            with os_errors(f"read the file {path} of {option}"), open(path, "rb"):  # noqa: PTH123 - only whether
                pass
    host, port = params.get("login_host") or "127.0.0.1", params.get("login_port") or 27017
    require_listener(host, port)
    keywords = {
        "host": host,
        "port": port,
        "directConnection": True,
        **login,
        "tls": params.get("tls"),
        "tlsCAFile": params.get("ca_cert"),
        "tlsCertificateKeyFile": params.get("client_cert"),
    }
    return {name: value for name, value in keywords.items() if value is not None}, f"{host}:{port}"


def require_listener(host: str, port: int) -> None:
    """That something listens there: pymongo and mongodump try a refused connection again and again until their time is
    over. Raises UnreachableError."""
    asked = f"Could not connect to MongoDB at {host}:{port}"
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except ConnectionRefusedError:
        raise UnreachableError(
            f"{asked}: nothing listens there (connection refused).",
            fix="Start the server, or check login_host and login_port.",
        ) from None
    except socket.gaierror:
        raise UnreachableError(
            f"{asked}: the host name is unknown.", fix="Check login_host and the name resolution of this host."
        ) from None
    except OSError as error:
        told = (
            f"no answer within {CONNECT_TIMEOUT_SECONDS} seconds" if isinstance(error, TimeoutError) else error.strerror
        )
        raise UnreachableError(
            f"{asked}: {told}.", fix="Check login_host, login_port and the firewall between the two hosts."
        ) from None


def _told(error: Any) -> tuple[int | None, str]:
    """Code and words of an OperationFailure; of a failed write, those of its first document."""
    details = error.details or {}
    first = (details.get("writeErrors") or [details.get("writeConcernError") or details])[0]
    code = first.get("code", getattr(error, "code", None))
    words = str(first.get("errmsg") or error).rstrip(".")
    return code, f"{words} (code {code})" if code is not None else words


def _hidden(params: Mapping[str, Any], text: str) -> str:
    for secret in (params.get("login_password"), params.get("login_uri")):
        if secret:
            text = text.replace(secret, "********")
    return " ".join(text.split())


def code_of(error: GroundworkError) -> int | None:
    """The server's code in an error that server_errors() raised."""
    found = error.details.get("code")
    return found if isinstance(found, int) else None
