# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Find out what undoes applied migrations: the files 0001_name.down.sql, highest version first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._limits import Limits
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import LedgerRow
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration, load
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script, prepare


def undoing(
    migrations: Sequence[Migration],
    rows: Sequence[LedgerRow],
    down_to: str,
    variables: Mapping[str, str],
    limits: Limits,
) -> list[tuple[Migration, Script]]:
    """For each version above *down_to* that is applied, from the highest, its .down.sql, ready to run.

    rows are those of make_plan(), which has found no fault. Raises InputError for a version that no file has, a missing
    .down.sql, and one with a statement that runs outside of transactions; StateError for a baseline.
    """
    numbers = {migration.key[0] for migration in migrations if not migration.repeatable}
    if not re.fullmatch("[0-9]+", down_to) or int(down_to) not in {0, *numbers}:
        raise InputError(
            f"down_to names the version {down_to!r}, which no file has.", fix="Check the directory; 0 undoes all."
        )
    states = {int(row.version): row.state for row in rows if row.version.isdecimal()}
    found = []
    for migration in sorted(migrations, key=lambda migration: migration.key, reverse=True):
        number = migration.key[0]
        if migration.repeatable or number <= int(down_to) or number not in states:
            continue
        if states[number] == "baseline":
            raise StateError(
                f"Version {migration.version} is a baseline, so what it did is not known and cannot be undone.",
                fix="Set down_to to that version or a later one.",
            )
        down = _down(migration)
        script = prepare(down.text, variables, down.file, limits)
        if not script.transactional:
            raise InputError(
                f"{down.file} has a statement that runs outside of transactions, so it could be left half done.",
                fix="Undo it with a new migration.",
            )
        found.append((down, script))
    return found


def _down(migration: Migration) -> Migration:
    path = migration.path.with_name(re.sub(r"(?:\.up)?\.sql$", ".down.sql", migration.file))
    if not path.exists():
        raise InputError(
            f"{migration.file} cannot be undone: there is no {path.name}.", fix="Write it, or a new migration."
        )
    return load(path, migration.version, migration.name)
