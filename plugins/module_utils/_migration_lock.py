# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One runner of migrations at a time per database.

The lock is a session-level advisory lock on a connection of its own, in no transaction, and waiting is polling: a
session that waits inside pg_advisory_lock() holds a snapshot, and CREATE INDEX CONCURRENTLY of the owner would
deadlock with it.

A migration outside of transactions takes a second lock, on the connection that runs it. When the first one is lost
while a statement runs, or the runner was killed and the server has not noticed yet, no other run starts beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError

# sha256("groundwork.backend migrations"), two times 4 bytes without the sign; advisory locks are per database already.
LOCK_KEYS = (0x6F7D0A25, 0x3F3F3C81)
WORK_KEYS = (LOCK_KEYS[0], LOCK_KEYS[1] + 1)
_ALL_KEYS = (LOCK_KEYS, WORK_KEYS)
_POLL_SECONDS = 0.2
_CHECK_SECONDS = 1.0


class MigrationLock:
    """The lock, held by *connection* (autocommit, in no transaction while it waits) until it ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._pid = 0
        self._checked = float("-inf")

    def acquire(self, wait: float) -> None:
        """Poll for at most *wait* seconds. Raises StateError that names the holder."""
        deadline = time.monotonic() + wait
        self._connection.execute("SET idle_session_timeout = 0")
        taken = False
        while True:
            if not taken:
                taken, self._pid = self._connection.execute(
                    "SELECT pg_try_advisory_lock(%s, %s), pg_backend_pid()", LOCK_KEYS
                ).fetchone()
            if taken and not _holder(self._connection, [WORK_KEYS]):
                return
            if time.monotonic() >= deadline:
                raise StateError(
                    f"Another run of migrations holds the lock of this database, after {wait:g} seconds of waiting: "
                    f"{_holder(self._connection, [WORK_KEYS] if taken else _ALL_KEYS) or 'it ended just now'}.",
                    fix="Wait for it or raise lock_wait; when it hangs, end it with SELECT pg_terminate_backend(pid).",
                )
            time.sleep(_POLL_SECONDS)

    def require(self, other: Any) -> None:
        """Look, at most once in _CHECK_SECONDS, whether the lock's session is alive and still the same.

        Raises StateError when the lock is lost, and behind a pooler in transaction mode, which is where sessions change
        or where *other*, a second connection, is served by the same one.
        """
        import psycopg  # noqa: PLC0415 - optional on the host

        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        asked = "SELECT pg_backend_pid()"
        pid_of_other = other.execute(asked).fetchone()[0]
        try:
            pid = self._connection.execute(asked).fetchone()[0]
        except psycopg.Error as error:
            raise lost() from error
        self._checked = now
        if pid != self._pid or pid_of_other == pid:
            raise StateError(
                "The server process behind a connection changes between two statements, so a pooler in transaction "
                "mode is in between, and a lock cannot be held.",
                fix="Connect to the server itself, or through a pooler in session mode.",
            )


def lost(stopped: str = "") -> StateError:
    """The error for a lock whose session has ended; *stopped* is a sentence about what was not done."""
    return StateError(
        "The lock of migrations was lost: the server ended the session that held it, or the connection broke, so "
        f"another run may be at work.{f' {stopped}' if stopped else ''}",
        fix="The server's log tells who ended it; then run again.",
    )


def take_work(connection: Any) -> bool:
    """Take the second lock for *connection*, which is about to run statements outside of transactions."""
    (taken,) = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", WORK_KEYS).fetchone()
    return bool(taken)


def holder(connection: Any) -> str:
    """Who holds one of the locks now: pid, address, application and since when; empty when nobody does."""
    return _holder(connection, _ALL_KEYS)


def _holder(connection: Any, keys: Sequence[tuple[int, int]]) -> str:
    row = connection.execute(
        "SELECT activity.pid, activity.client_addr::text, activity.application_name, activity.backend_start::text "
        "FROM pg_locks JOIN pg_stat_activity AS activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND classid::bigint = %s AND objid::bigint = ANY (%s) AND objsubid = 2 ORDER BY objid LIMIT 1",
        [LOCK_KEYS[0], [second for _, second in keys]],
    ).fetchone()
    if row is None:
        return ""
    pid, address, application, since = row
    place = f"from {address}" if address else "through the Unix socket or from an address that this role may not see"
    return f"pid {pid}, {place}, application {application!r}, connected since {since or 'a time it may not see'}"
