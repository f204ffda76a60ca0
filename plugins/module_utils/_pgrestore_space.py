# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Whether the server's data directory can hold the restored database, asked before anything of it is written."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, run
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import Dump
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Server
from ansible_collections.groundwork.backend.plugins.module_utils._progress_told import size
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import literal

# The view shows data_directory to those who may see it, and to others no row.
_DIRECTORY = "SELECT to_jsonb(setting) FROM pg_catalog.pg_settings WHERE name = 'data_directory';"
_IDENTIFIER = "SELECT system_identifier FROM pg_catalog.pg_control_system();"
_SIZE = "SELECT pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = {name};"
_HERE = {None, "", "localhost", "127.0.0.1", "::1"}
_DF = re.compile(r"\s\d+\s+-?\d+\s+(-?\d+)\s+\S+%?\s+/[^\n]*\Z")  # POSIX: the last line, blocks of 1024 bytes


def room(dump: Dump, server: Server, params: Mapping[str, Any], replaced: str | None) -> dict[str, Any]:
    """What the database takes (needed), what is free for it, and where (path), in bytes.

    replaced: a database that goes before; its room counts as free. needed is None when the set does not tell it (the
    size of a dump says little), and then nothing else is asked. free and path are None when nobody can tell: the server
    is on another machine, or does not let this role see its data directory.
    """
    told: dict[str, Any] = {"needed": dump.database_bytes, "free": None, "path": None}
    if dump.database_bytes is None:
        return told
    with suppress(CommandError), server.session() as session:
        for line in session.query(_DIRECTORY):
            base = f"{json.loads(line)}/base"  # where the databases are; it may be a link to another file system
            free = _free(base, params, lambda: session.query(_IDENTIFIER)[0])
            if free is not None:
                left = session.query(_SIZE.format(name=literal(replaced))) if replaced else []
                told |= {"path": base, "free": free + sum(map(int, left))}
    return told


def require_room(database: str, found: Mapping[str, Any]) -> None:
    """Refuse what plainly does not fit. Raises StateError."""
    needed, free = found["needed"], found["free"]
    if needed is None or free is None or needed <= free:
        return
    raise StateError(
        f"The restored database {database!r} takes about {size(needed)} (its size when it was dumped), and in "
        f"{found['path']} of the server {size(free)} are free.",
        fix="Free space on that file system, as by dropping what earlier restores have kept. Where the database was "
        "bloated when it was dumped, or the file system compresses, it takes less: check_space: false restores it "
        "without asking.",
        space=dict(found),
    )


def df_available(told: str) -> int | None:
    """The free bytes in what "df -P -k" printed of one file system; None when it told none."""
    found = _DF.search(told.rstrip())
    return int(found[1]) * 1024 if found else None


def _free(base: str, params: Mapping[str, Any], identifier: Callable[[], str]) -> int | None:
    host = params["login_host"]
    if host not in _HERE and not str(host).startswith("/"):
        return None
    if params["container"] is not None:
        done = run(in_container(params["container"], ["df", "-P", "-k", base]), check=False)
        return df_available(done.stdout) if done.rc == 0 else None
    # A port of this machine may lead elsewhere, into a container or through a tunnel: to another data directory.
    with suppress(OSError):
        control = (Path(base).parent / "global" / "pg_control").read_bytes()
        if int.from_bytes(control[:8], sys.byteorder) == int(identifier()):
            status = os.statvfs(base)
            return status.f_bavail * status.f_frsize
    return None
