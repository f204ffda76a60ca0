# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One runner of migrations at a time per database.

The lock is a session-level advisory lock on a connection of its own, in no transaction, and waiting is polling: a
session that waits inside pg_advisory_lock() holds a snapshot, and CREATE INDEX CONCURRENTLY of the owner would
deadlock with it.
"""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError

# sha256("groundwork.backend migrations"), two times 4 bytes without the sign; advisory locks are per database already.
LOCK_KEYS = (0x6F7D0A25, 0x3F3F3C81)
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
        while True:
            taken, self._pid = self._connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s), pg_backend_pid()", LOCK_KEYS
            ).fetchone()
            if taken:
                return
            if time.monotonic() >= deadline:
                raise StateError(
                    f"Another run of migrations holds the lock of this database, after {wait:g} seconds of waiting: "
                    f"{holder(self._connection) or 'it ended just now'}.",
                    fix="Wait for it or raise lock_wait; when it hangs, end it with SELECT pg_terminate_backend(pid).",
                )
            time.sleep(_POLL_SECONDS)

    def require(self, other: Any) -> None:
        """Look, at most once in _CHECK_SECONDS, whether the lock's session is alive and still the same.

        Raises StateError behind a pooler in transaction mode, which is where sessions change or where *other*, a second
        connection, is served by the same one.
        """
        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        asked = "SELECT pg_backend_pid()"
        pid, pid_of_other = (connection.execute(asked).fetchone()[0] for connection in (self._connection, other))
        self._checked = now
        if pid != self._pid or pid_of_other == pid:
            raise StateError(
                "The server process behind a connection changes between two statements, so a pooler in transaction "
                "mode is in between, and a lock cannot be held.",
                fix="Connect to the server itself, or through a pooler in session mode.",
            )


def holder(connection: Any) -> str:
    """Who holds the lock now: pid, address, application and since when; empty when nobody does."""
    row = connection.execute(
        "SELECT activity.pid, activity.client_addr::text, activity.application_name, activity.backend_start::text "
        "FROM pg_locks JOIN pg_stat_activity AS activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 2",
        LOCK_KEYS,
    ).fetchone()
    if row is None:
        return ""
    pid, address, application, since = row
    place = f"from {address}" if address else "through the Unix socket or from an address that this role may not see"
    return f"pid {pid}, {place}, application {application!r}, connected since {since or 'a time it may not see'}"
