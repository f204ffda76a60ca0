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


class MigrationLock:
    """The lock, held by *connection* (autocommit, in no transaction while it waits) until it ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._pid = 0

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
                    f"{self._holder()}.",
                    fix="Wait for it or raise lock_wait; when it hangs, end it with SELECT pg_terminate_backend(pid).",
                )
            time.sleep(_POLL_SECONDS)

    def require(self) -> None:
        """Raise StateError when the lock's session is another one now, as behind a pooler in transaction mode."""
        (pid,) = self._connection.execute("SELECT pg_backend_pid()").fetchone()
        if pid != self._pid:
            raise StateError(
                "The server process behind the connection changed between two statements, so a pooler in transaction "
                "mode is in between and a lock cannot be held.",
                fix="Connect to the server itself, or through a pooler in session mode.",
            )

    def _holder(self) -> str:
        row = self._connection.execute(
            "SELECT activity.pid, activity.client_addr::text, activity.application_name, activity.backend_start::text "
            "FROM pg_locks JOIN pg_stat_activity AS activity USING (pid) WHERE locktype = 'advisory' AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 2",
            LOCK_KEYS,
        ).fetchone()
        if row is None:
            return "it ended just now"
        pid, address, application, since = row
        place = (
            f"from {address}" if address else "through the Unix socket or from an address that this role may not see"
        )
        return f"pid {pid}, {place}, application {application!r}, connected since {since or 'a time it may not see'}"
