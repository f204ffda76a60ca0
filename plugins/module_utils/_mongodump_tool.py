# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How MongoDB's program mongodump is called, and what its failures mean; pure.

By its documentation (https://www.mongodb.com/docs/database-tools/mongodump/) and its source; the program itself was
never at hand. The password is in the configuration that it reads from its standard input (--config, since 100.3), in no
argument, no variable and no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    GroundworkError,
    InputError,
    StateError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import AUTHENTICATION_FAILED, login_refused
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import BEFORE, RESTORE, REVERTED
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job

PROGRAM = "mongodump"
_OLDEST = (100, 3)
_VERSION = re.compile(r"^mongodump version: r?(\d+)\.(\d+)(\S*)", re.MULTILINE)
# A line of the program that only tells how far it is: [####....]  db.collection  12/34  (35.3%)
_PROGRESS = re.compile(r"\[[#.]+\]")
_SAFE = re.compile(r"""[^ !#-\[\]-~]""")
# What a restore keeps in the database; sets are named by a time, which begins with this digit.
_NOT_DUMPED = tuple(f"groundwork.{kind}.2" for kind in (RESTORE, BEFORE, REVERTED))


def version_of(printed: str) -> str:
    """The version in what --version prints, "unknown" for a build without one. Raises DependencyError: too old."""
    found = _VERSION.search(printed)
    if not found:
        return "unknown"
    version = f"{found[1]}.{found[2]}{found[3]}"
    if (int(found[1]), int(found[2])) < _OLDEST:
        raise DependencyError(
            f"mongodump 100.3 or newer is needed, which takes its password from a file, found {version}.",
            fix="Install newer MongoDB Database Tools, or python3-pymongo for engine: driver.",
        )
    return version


def configuration(params: Mapping[str, Any]) -> str:
    """The secrets as the YAML that --config reads; empty when there are none."""
    lines = [f"{key}: {_quoted(params[name])}\n" for key, name in _SECRETS if params.get(name)]
    return "".join(lines)


_SECRETS = (("password", "login_password"), ("uri", "login_uri"))


def arguments(job: Job, params: Mapping[str, Any], out: str) -> list[str]:
    """The arguments of the program, of which none is a secret."""
    given: dict[str, Any] = {}
    if not params.get("login_uri"):
        given |= {"host": params.get("login_host") or "127.0.0.1", "port": params.get("login_port") or 27017}
        if user := params.get("login_user"):
            given |= {"username": user, "authenticationDatabase": params.get("auth_source") or "admin"}
        given |= {"sslCAFile": params.get("ca_cert"), "sslPEMKeyFile": params.get("client_cert")}
    given |= {"db": job.database, "out": out, "numParallelCollections": job.jobs}
    flags = {"ssl": params.get("tls"), "gzip": job.gzip, "dumpDbUsersAndRoles": job.users}
    return [
        *(["--config=/dev/stdin"] if configuration(params) else []),
        *(f"--{name}={value}" for name, value in given.items() if value is not None),
        *(f"--{name}" for name, value in flags.items() if value),
        *(f"--excludeCollectionsWithPrefix={prefix}" for prefix in _NOT_DUMPED),
    ]


def require_usable(job: Job, params: Mapping[str, Any], container: str | None) -> None:
    """What mongodump cannot do. Raises StateError and InputError."""
    if job.snapshot == "required":
        raise StateError(
            "A snapshot is required, and mongodump cannot show all collections of one database as they were at one "
            "moment.",
            fix="Use engine: driver (it needs python3-pymongo), or set snapshot: auto.",
        )
    if container and (params.get("ca_cert") or params.get("client_cert")):
        raise InputError(
            "ca_cert and client_cert are files of the host, which mongodump in a container does not see.",
            fix="Leave container out and install mongodump on the host, or use engine: driver.",
        )


def failure(job: Job, params: Mapping[str, Any], rc: int, printed: str, place: str) -> GroundworkError:
    """What to say of a program that ended with *rc* (negative: a signal)."""
    told = hidden(params, "\n".join(line for line in printed.splitlines() if not _PROGRESS.search(line)))
    asked = f"Could not dump {job.database!r} with mongodump"
    if "Authentication failed" in told or "auth error" in told:
        return login_refused(params, f"{asked} at {place}", AUTHENTICATION_FAILED)
    fix = ""
    if "(Unauthorized)" in told or "not authorized" in told:
        fix = "Grant the missing right to login_user, or log in as another user."
    ended = f"it was ended by signal {-rc}" if rc < 0 else f"it ended with {rc}"
    lines = last_lines(told, 5) or "it printed nothing"
    return CommandError(f"{asked}: {ended}: {lines}", fix=fix, cmd=[PROGRAM], rc=rc, stderr=last_lines(told, 200))


def hidden(params: Mapping[str, Any], text: str) -> str:
    """A text without the secrets of the login, nor parts of a connection string that the program may quote."""
    uri, password = params.get("login_uri"), params.get("login_password")
    for secret in sorted({one for one in (password, uri, *_of_uri(uri or "")) if one}, key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def _of_uri(uri: str) -> Sequence[str | None]:
    try:
        password = urlsplit(uri).password or ""
    except ValueError:
        return ()
    return password, unquote(password), unquote_plus(password)


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML 1.1, whatever the text is."""
    return '"' + _SAFE.sub(lambda found: f"\\U{ord(found[0]):08x}", text) + '"'
