# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read a plain dump as it is written: is it complete, and how many rows does it hold of each table?

psql restores a plain dump that was cut off without an error, so three things are asked of it: each block of rows has
its end, each table has as many rows as were counted, and pg_dump's last line is the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError

_LAST_LINE = b"\n-- PostgreSQL database dump complete\n"
# What may follow it: comments, empty lines, and \unrestrict of the versions that have it.
_AFTER = re.compile(rb"(?:(?:--|\\unrestrict )[^\n]*\n|\n)*\Z")
_HEAD = b"\n-- Data for Name: "
_COPY = re.compile(
    rb"\n-- Data for Name: ([^\n]*); Type: TABLE DATA; Schema: ([^\n]*); Owner: [^\n]*\n--\n\n"
    rb"(?:-- load via partition root ([^\n]*)\n+)?"
    rb'COPY (?:[^"]|"[^"]*")*? FROM stdin;\n'
)
_END = b"\n\\.\n"
_TAIL_BYTES = 4096
_LONGEST_HEAD = 1 << 20  # a comment and a COPY with all of its columns; tables have at most 1600


class PlainReader:
    """Takes the text of a plain dump in chunks of any size; keeps no more of it than the begin of one COPY.

    rows holds the rows read by "schema.table", with spaces in the place of line ends in names, as pg_dump writes them;
    those that are loaded through the root of their partitions count as the root's.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._kept = b"\n"
        self._table: str | None = None
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Take the next chunk."""
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        text, place = self._kept + data, 0
        while place >= 0:
            place = self._read_text(text, place) if self._table is None else self._read_rows(text, place)

    def _read_text(self, text: bytes, place: int) -> int:
        """Go on from *place* to the line end before the first row of a table; -1: the text has no further one."""
        head = text.find(_HEAD, place)
        if head >= 0 and (found := _COPY.search(text, head)):
            name, schema, root = (group.decode(errors="replace") if group else "" for group in found.groups())
            self._table = _unquoted(root) if root else f"{schema}.{name}"
            self.rows.setdefault(self._table, 0)
            return found.end() - 1
        last = text.rfind(_HEAD, place)
        kept = last if last >= 0 and len(text) - last <= _LONGEST_HEAD else len(text) - len(_HEAD) + 1
        self._kept = text[max(kept, place) :]
        return -1

    def _read_rows(self, text: bytes, place: int) -> int:
        """Count the rows from *place* and go on behind their end; -1: it has not come yet.

        As many line ends are before the end of the rows as there are rows: that of COPY takes the place of the last.
        """
        end = text.find(_END, place)
        stop = end if end >= 0 else max(len(text) - len(_END) + 1, place)
        self.rows[self._table or ""] += text.count(b"\n", place, stop)
        if end < 0:
            self._kept = text[stop:]
            return -1
        self._table = None
        return end + len(_END) - 1

    def problem(self) -> str | None:
        """What is missing at the end of the text, as the end of a sentence."""
        if self._table is not None:
            return f"it ends in the middle of the rows of {self._table}"
        _before, last, after = self._tail.rpartition(_LAST_LINE)
        if not last or not _AFTER.match(after):
            return "it has not pg_dump's last line at its end"
        return None


def _unquoted(name: str) -> str:
    """schema.table without the quotes that either may have in SQL."""
    parts = re.findall(r'"((?:[^"]|"")*)"|([^".]+)', name)
    return ".".join(quoted.replace('""', '"') or bare for quoted, bare in parts)


def require_complete(reader: PlainReader, counts: Mapping[str, int], database: str) -> None:
    """Compare what was read with the rows in the snapshot. Raises StateError."""
    fix = "Run the backup again; look for messages of the kernel about the disk when it happens again."
    if problem := reader.problem():
        raise StateError(f"The new dump of database {database!r} is not complete: {problem}.", fix=fix)
    for table, expected in counts.items():
        # pg_dump writes line ends in names as spaces
        found = reader.rows.get(re.sub(r"[\n\r]", " ", table))
        if found != expected:
            raise StateError(
                f"The new dump of database {database!r} has {found or 0} rows of {table}, and its snapshot {expected}.",
                fix=fix,
            )
