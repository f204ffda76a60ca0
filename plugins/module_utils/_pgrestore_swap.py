# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Give databases other names while applications are connected.

Both renames are one transaction, so a crash leaves the names as they were or as they will be. The first rename locks
the database against new connections, which wait, and then itself waits up to five seconds until the last of the old
ones has gone. Nothing else is changed before it, so that a run that dies in between leaves nothing to undo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import BEFORE, LIVE, REVERTED, Names
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import (
    Database,
    Server,
    in_use,
    name_of,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import literal

_RENAME_SECONDS = 5.5
_POLL_SECONDS = 0.05
_FORCED_ATTEMPTS = 3
_END_SESSIONS = """
SELECT jsonb_build_array(count(*), coalesce(jsonb_agg(pid) FILTER (
         WHERE CASE WHEN {forced} OR (xact_start IS NULL AND backend_type = 'client backend')
                    THEN pg_terminate_backend(pid) END), '[]'))
FROM pg_catalog.pg_stat_activity
WHERE datname IN ({names}) AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker';
"""


def swap(server: Server, names: Names, live: Database | None, staged: Database, *, before: str, drain: float) -> int:
    """Make the staged database the live one; the live one, when there is one, becomes *before*.

    drain: seconds in which transactions may end by themselves. Returns how many sessions were ended.
    Raises CommandError.
    """
    script = []
    if live is not None:
        script = [
            _renamed(live.name, before),
            _commented(before, names.mark(BEFORE).comment(live.comment)),
        ]
    mark = names.mark(LIVE, before if live else None)
    script += [_renamed(staged.name, names.database), _commented(names.database, mark.comment(staged.comment))]
    return _rename(server, script, [names.database, staged.name], drain)


def revert(server: Server, names: Names, live: Database, before: Database | None, *, drain: float) -> int:
    """The reverse of swap(): what is live becomes the staged database again, and *before* the live one."""
    script = [
        _renamed(live.name, names.staged),
        _commented(names.staged, names.mark(REVERTED).comment(live.comment)),
    ]
    if before is not None:
        script += [_renamed(before.name, names.database), _commented(names.database, before.comment)]
    return _rename(server, script, [live.name, *([before.name] if before else [])], drain)


def keep(server: Server, reverted: Database, name: str) -> None:
    """Give a database that was live another name; its mark stays."""
    _rename(server, [_renamed(reverted.name, name)], [reverted.name], 0)


def _rename(server: Server, script: Sequence[str], names: Sequence[str], drain: float) -> int:
    ended: set[int] = set()
    deadline = time.monotonic() + drain
    forced_attempts = 0
    while True:
        forced = time.monotonic() >= deadline
        forced_attempts += forced
        with server.session() as renaming, server.session() as ending:
            renaming.send("\n".join(["BEGIN;", *script, "COMMIT;"]))
            attempt_ends = time.monotonic() + _RENAME_SECONDS
            query = _END_SESSIONS.format(names=", ".join(map(literal, names)), forced=forced)
            while time.monotonic() < attempt_ends:
                left, pids = json.loads(ending.query(query)[0])
                ended.update(pids)
                if not left:
                    break
                time.sleep(_POLL_SECONDS)
            try:
                renaming.receive()
            except CommandError as error:
                if not in_use(error) or forced_attempts >= _FORCED_ATTEMPTS:
                    raise
            else:
                return len(ended)


def _renamed(old: str, new: str) -> str:
    return f"ALTER DATABASE {name_of(old)} RENAME TO {name_of(new)};"


def _commented(name: str, comment: str | None) -> str:
    return f"COMMENT ON DATABASE {name_of(name)} IS {literal(comment) if comment else 'NULL'};"
