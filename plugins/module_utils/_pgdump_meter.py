# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How far a dump is: the server says which tables are being copied, and how large each is was asked before.

bytes_done and the total count bytes of tables on disk, so the total is an estimate that does not move; a compressed
dump is smaller. Nothing here can fail a dump.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Self

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session

FIRST_WITH_VIEW = 14
_SECONDS_BETWEEN_QUESTIONS = 1.0
_COPIES = """
SELECT coalesce(jsonb_object_agg(relid::text, bytes_processed), '{}')
FROM pg_catalog.pg_stat_progress_copy AS p JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE a.application_name = current_setting('application_name') AND p.command = 'COPY TO';
"""


class Meter:
    """Tells *progress*; asks *session*, a connection of its own, when the server can answer.

    tables: name and bytes by OID, as table_sizes() returns them.
    """

    def __init__(
        self,
        progress: Progress,
        session: Session | None = None,
        tables: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self._progress = progress
        self._session = session
        self._tables = tables or {}
        self._seen: dict[str, int] = {}
        self._written = 0
        self._asked = 0.0
        self._item = ""
        self._step = "dump"
        self._bytes: int | None = None

    @classmethod
    def silent(cls) -> Self:
        """One that tells nobody."""
        return cls(Progress(None))

    def begin(self, step: str, total: int) -> None:
        """The next step, whose bytes are known."""
        self._step, self._bytes, self._written, self._session, self._item = step, total, 0, None, ""

    def add(self, count: int) -> None:
        """So many bytes of this step more."""
        self._written += count
        if self._step != "dump":
            self._progress.update(self._written, self._bytes, self._step)

    def tick(self) -> None:
        """Tell, when it is time to. Raises nothing."""
        now = time.monotonic()
        if now - self._asked < _SECONDS_BETWEEN_QUESTIONS:
            return
        self._asked = now
        if self._session is None:
            self._progress.update(self._written, self._bytes, self._step)
            return
        try:
            copies: dict[str, int] = json.loads(self._session.query(_COPIES)[0])
        except (GroundworkError, IndexError, ValueError):
            self._session = None
            return
        self._progress.update(self.done(copies), self.total, self._step, self._item)

    @property
    def total(self) -> int | None:
        """Bytes of all tables, or None when none is known."""
        return sum(size for _name, size in self._tables.values()) or None

    def done(self, copies: Mapping[str, int]) -> int:
        """Bytes of the tables that were seen so far; *copies* are the bytes of those that are being copied, by OID.

        Text can be longer than the table is on disk, and a table that is not being copied any more is done.
        """
        for oid in self._seen:
            self._seen[oid] = self._tables[oid][1]
        for oid, count in copies.items():
            if oid in self._tables:
                name, size = self._tables[oid]
                self._seen[oid] = min(count, size)
                self._item = name
        return sum(self._seen.values())
