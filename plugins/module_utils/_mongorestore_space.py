# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Whether the server has room for the restored collections, asked before any of them is made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server
from ansible_collections.groundwork.backend.plugins.module_utils._progress_told import size


def room(needed: int | None, server: Server, database: str) -> dict[str, Any]:
    """What the collections take (needed), what is free for them, and where (path), in bytes; None: nobody knows."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415 - optional on the host

    told: dict[str, Any] = {"needed": needed, "free": None, "path": None}
    if needed is not None:
        with suppress(PyMongoError):  # who may not ask is not refused
            free = free_bytes(server.client[database].command("dbStats"))
            told |= {} if free is None else {"free": free, "path": "the data directory"}
    return told


def free_bytes(statistics: Mapping[str, Any]) -> int | None:
    """What dbStats says is free where the server keeps its data; None when it does not say it, as in a cluster."""
    total, used = statistics.get("fsTotalSize"), statistics.get("fsUsedSize")
    return None if total is None or used is None else max(0, int(total) - int(used))


def require_room(database: str, found: Mapping[str, Any]) -> None:
    """Refuse what plainly does not fit. Raises StateError."""
    needed, free = found["needed"], found["free"]
    if needed is None or free is None or needed <= free:
        return
    raise StateError(
        f"The restored collections of {database!r} take about {size(needed)} (their size when they were dumped), and "
        f"where the server keeps its data {size(free)} are free.",
        fix="Free space there, as by dropping what earlier restores have kept. Where many documents had been deleted "
        "before the dump, they take less: check_space: false restores them without asking.",
        space=dict(found),
    )
