# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a restored database must hold before anybody may use it: every row, every extension, no invalid index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

from ansible_collections.groundwork.backend.plugins.module_utils import _pgdump_facts
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import (
    Dump,
    differences,
    extension_differences,
    listed,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Server
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session

_FIX = "The live database was not touched. Look into the server's log, or use another set."
# A partitioned index is invalid as long as a partition has none of its own; that comes with the dump.
_INVALID = """
SELECT to_jsonb(i.indexrelid::regclass::text) FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE c.relkind = 'i' AND NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY 1;
"""


def check(dump: Dump, server: Server, database: str, *, jobs: int, analyze: bool) -> tuple[dict[str, str], list[str]]:
    """Compare a restored database with what the backup counted; the planner's statistics are made meanwhile.

    Returns its extensions with their versions, and what is worth a warning. Raises StateError.
    """
    with ExitStack() as stack:
        session = stack.enter_context(server.session(database))
        if analyze:
            analyzing = stack.enter_context(server.session(database))
            analyzing.send("ANALYZE;")
        counts = count(server, database, session, jobs)
        if analyze:
            analyzing.receive()
        extensions = _pgdump_facts.extensions(session)
        invalid = [json.loads(line) for line in session.query(_INVALID)]
    if wrong := differences(dump.counts, counts):
        raise StateError(
            f"The restored database does not hold the rows of set {dump.set_id}: {listed(wrong)}.",
            fix=_FIX,
            differences=wrong,
        )
    missing, other = extension_differences(dump.extensions, extensions)
    if missing:
        raise StateError(f"The restored database lacks the extensions {listed(missing)}.", fix=_FIX)
    if invalid:
        raise StateError(f"The restored database has invalid indexes: {listed(invalid)}.", fix=_FIX)
    told = [f"{sentence} This module updates no extension (ALTER EXTENSION … UPDATE)." for sentence in other]
    return extensions, told


def count(server: Server, database: str, first: Session, jobs: int) -> Counter[str]:
    """Rows of every table that pg_backup counts; first and more sessions in the database count at once."""
    with ExitStack() as stack:
        sizes = {oid: size for oid, (_name, size) in _pgdump_facts.table_sizes(first, None).items()}
        shares = [share for share in shared(sizes, jobs) if share]
        sessions = [first, *(stack.enter_context(server.session(database)) for _ in shares[1:])]
        pairs = list(zip(sessions, shares, strict=False))
        for session, share in pairs:
            _pgdump_facts.send_counts(session, share)
        counts: Counter[str] = Counter()
        for session, _share in pairs:
            counts.update(_pgdump_facts.receive_counts(session))
        return counts


def shared(sizes: Mapping[str, int], parts: int) -> list[list[int]]:
    """The tables (OIDs) in parts of about the same number of bytes."""
    shares: list[list[int]] = [[] for _ in range(max(1, parts))]
    loads = [0] * len(shares)
    for oid, size in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])):
        least = loads.index(min(loads))
        shares[least].append(int(oid))
        loads[least] += size + 1
    return shares
