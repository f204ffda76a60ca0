# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Send several statements in one message of the simple query protocol, and know which of them failed.

A migration costs one round trip that way. The server answers each statement of a message on its own, so the number of
answers before the error tells the statement; a cursor of psycopg keeps only the error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement


class BatchError(Exception):
    """cause is psycopg's error; statement, and the character in it, where it happened (None: not in the file's)."""

    def __init__(self, cause: Any, statement: Statement | None, position: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.statement = statement
        self.position = position


@dataclass
class Batch:
    """Statements in the order in which they are sent; those that are not of the file are plain text."""

    _parts: list[tuple[str, Statement | None]] = field(default_factory=list)

    def add(self, *own: str) -> None:
        """Add statements of the runner itself."""
        self._parts += [(text, None) for text in own]

    def add_statement(self, statement: Statement) -> None:
        """Add a statement of the file."""
        self._parts.append((statement.text, statement))

    def send(self, connection: Any) -> list[Any]:
        """Run all; the server's answer (PGresult) to each statement. Raises BatchError."""
        if not self._parts:
            return []
        import psycopg  # noqa: PLC0415 - optional on the host
        from psycopg import errors, generators, pq  # noqa: PLC0415

        # a statement may end in a comment of one line
        text = "\n;".join(part for part, _ in self._parts)
        try:
            connection.pgconn.send_query(text.encode())
            results = connection.wait(generators.execute(connection.pgconn))
        except psycopg.Error as error:
            raise BatchError(error, None, 0) from None  # its text may quote the SQL that was sent
        last = results[-1]
        if last.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY):
            return list(results)
        failure = errors.error_from_result(last, connection.info.encoding)
        position = failure.diag.statement_position
        if position is None:
            done = min(len(results) - 1, len(self._parts) - 1)
            raise BatchError(failure, self._parts[done][1], 0)
        raise BatchError(failure, *self._at(int(position) - 1))

    def _at(self, offset: int) -> tuple[Statement | None, int]:
        for text, statement in self._parts:
            if offset <= len(text):
                return statement, offset
            offset -= len(text) + len("\n;")
        return None, 0
