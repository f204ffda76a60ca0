# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What pgvector_migrate returns; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import Plan
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import REPEATABLE, key


def of_undo(plan: Plan, ledger: str, undone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result of a run with down_to; undone are the migrations whose rows are gone."""
    gone = {key(entry["version"]) for entry in undone}
    left = [version for version in plan.applied if key(version) not in gone]
    headers = {"before_header": ledger, "after_header": ledger}
    return {
        "changed": bool(undone),
        "undone": list(undone),
        "previous_version": plan.current,
        "schema_version": left[-1] if left else None,
        "ledger": ledger,
        "diff": [{**headers, "before": _lines(plan.applied), "after": _lines(left)}],
    }


def of_run(
    plan: Plan,
    ledger: str,
    applied: Sequence[Mapping[str, Any]] = (),
    rebuilt: Sequence[str] = (),
    lossy: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """The result of a run that has applied a part of the plan, or all; without applied, of one that will.

    lossy is what _lint.losses() says of the pending ones.
    """
    after = [*plan.applied, *(migration.version for migration in plan.pending)]
    done = [*plan.applied, *(entry["version"] for entry in applied if not entry["version"].startswith(REPEATABLE))]
    entries = [
        {**migration.to_dict(), "lossy": list(rules)} for migration, rules in zip(plan.pending, lossy, strict=True)
    ]
    adopted = {migration.version for migration in plan.baselined}
    before = [version for version in plan.applied if version not in adopted]
    return {
        "changed": plan.changes or bool(rebuilt),
        "applied": [{**entry, **done} for entry, done in zip(entries, applied, strict=False)],
        "pending": entries[len(applied) :],
        "baselined": [migration.version for migration in plan.baselined],
        "repaired": [repair.migration.version for repair in plan.repaired],
        "rebuilt_indexes": list(rebuilt),
        "previous_version": before[-1] if before else None,
        "schema_version": max(done, key=key) if done else None,
        "ledger": ledger,
        "diff": [
            {
                "before_header": ledger,
                "after_header": ledger,
                "before": _lines(before),
                "after": _lines(after),
            },
            *(
                {"before_header": migration.file, "after_header": migration.file, "before": "", "after": migration.text}
                for migration in plan.pending
            ),
        ],
    }


def _lines(versions: Sequence[str]) -> str:
    return "".join(f"{version}\n" for version in sorted(versions, key=key))
