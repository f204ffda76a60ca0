# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read, and only read, which migrations another tool has applied to a database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration

TABLES = {
    "dbmate": "public.schema_migrations",
    "golang-migrate": "public.schema_migrations",
    "flyway": "public.flyway_schema_history",
}
# version as text, whether it is done, and whether the versions below are done as well
_QUERIES = {
    "dbmate": "SELECT version::text, true, false FROM public.schema_migrations",
    "golang-migrate": "SELECT version::text, NOT dirty, true FROM public.schema_migrations",
    "flyway": "SELECT version::text, bool_and(success), bool_or(type = 'BASELINE') FROM public.flyway_schema_history "
    "WHERE version IS NOT NULL AND type IN ('SQL', 'BASELINE') GROUP BY version",
}


def applied_elsewhere(connection: Any, tool: str, migrations: Sequence[Migration]) -> list[Migration]:
    """The migrations of ours that *tool* (a key of TABLES) has applied.

    Raises StateError when its table is absent, one of its migrations failed, or one has no file. Lets psycopg's errors
    through.
    """
    table = TABLES[tool]
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        raise StateError(
            f"There is no table {table} of {tool} in this database.", fix="Check database and import_from."
        )
    files = {migration.key[0]: migration for migration in migrations if not migration.repeatable}
    found: dict[int, Migration] = {}
    for version, done, with_those_below in connection.execute(_QUERIES[tool]):
        if not re.fullmatch("[0-9]+", version):
            raise StateError(
                f"{tool} has the version {version!r}, which is no number.", fix="Use baseline instead of import_from."
            )
        if not done:
            raise StateError(
                f"{tool} has the migration {version} as failed.", fix=f"Repair it with {tool}, then import."
            )
        number = int(version)
        if number not in files and not with_those_below:
            raise StateError(
                f"{tool} has applied the migration {version}, which no file has.",
                fix="Copy its files, or use baseline instead of import_from.",
            )
        found.update(
            {key: file for key, file in files.items() if key == number or (with_those_below and key <= number)}
        )
    return [found[number] for number in sorted(found)]
