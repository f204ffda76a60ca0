# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The actions of backup_set on committed sets: list, verify, prune, prove. Each returns the module's result."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Manifest, write_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context
from ansible_collections.groundwork.backend.plugins.module_utils._partials import locked
from ansible_collections.groundwork.backend.plugins.module_utils._retention import Keep
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import verify_set
from ansible_collections.groundwork.backend.plugins.module_utils._set_write import layout
from ansible_collections.groundwork.backend.plugins.module_utils._sets import (
    newest_of,
    read_set,
    read_sets,
    set_ids,
    summary,
    utc_text,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets_prune import (
    discard,
    leftovers,
    plan_pruning,
    tidy,
)


def list_sets(context: Context, path: Path) -> dict[str, Any]:
    """Tell which sets exist."""
    now = datetime.now(UTC)
    good, damaged = read_sets(path, context.params["stack"])
    newest = newest_of(good, now)
    told = [summary(path, manifest, now) for manifest in good]
    return {
        "changed": False,
        "sets": told,
        "newest": {**summary(path, newest, now), **newest.to_dict()} if newest else None,
        "latest": newest.id if newest else None,
        "count": len(good),
        "bytes": sum(manifest.total_bytes for manifest in good),
        "damaged": damaged,
    }


def verify(context: Context, path: Path) -> dict[str, Any]:
    """Read sets again and compare; fails when one of them is damaged."""
    stack = context.params["stack"]
    asked = _asked(context, path)
    reasons = {set_id: verify_set(path / set_id, stack) for set_id in asked}
    damaged = [
        {"id": set_id, "path": str(path / set_id), "reason": " ".join(found), "reasons": found}
        for set_id, found in reasons.items()
        if found
    ]
    verified = [set_id for set_id, found in reasons.items() if not found]
    if damaged:
        raise StateError(
            f"{len(damaged)} of {len(asked)} backup sets in {path} cannot be trusted: "
            + " ".join(f"{one['id']}: {one['reason']}" for one in damaged),
            fix="Use another set, and look for the cause: a disk that fails, or somebody who changed files there.",
            verified=verified,
            damaged=damaged,
        )
    return {"changed": False, "verified": verified, "damaged": []}


def _asked(context: Context, path: Path) -> list[str]:
    """The ids that verify is asked for. Raises StateError when there is none: to verify nothing proves nothing."""
    wanted = context.params["id"]
    present = set_ids(path)
    if wanted == "all" and present:
        return present
    if wanted == "latest":
        good, damaged = read_sets(path, context.params["stack"])
        if newest := newest_of(good, datetime.now(UTC)):
            for one in damaged:
                if one["id"] > newest.id:
                    context.warn(f"Backup set {one['id']} is newer and cannot be used: {one['reason']}")
            return [newest.id]
        if damaged:
            return [damaged[0]["id"]]
    if wanted in present:
        return [wanted]
    told = "There is no backup set" if wanted in ("all", "latest") else f"There is no backup set {wanted}"
    raise StateError(f"{told} in {path}.", fix="Make one with backup.yml, or correct path and id.")


def prune(context: Context, path: Path) -> dict[str, Any]:
    """Remove the sets that no rule holds."""
    params = context.params
    keep = Keep.from_dict(params["keep"])
    unreadable: dict[str, str] = {}
    if params["full"]:  # before the lock, which a backup may wait for
        found = {set_id: verify_set(path / set_id, params["stack"]) for set_id in set_ids(path)}
        unreadable = {set_id: " ".join(reasons) for set_id, reasons in found.items() if reasons}
    if context.check_mode or not path.is_dir():
        return _prune(context, path, keep, unreadable)
    with locked(path):
        return _prune(context, path, keep, unreadable)


def _prune(context: Context, path: Path, keep: Keep, unreadable: dict[str, str]) -> dict[str, Any]:
    before = layout(path)
    good, damaged = read_sets(path, context.params["stack"])
    broken = {one["id"]: one["reason"] for one in damaged}
    broken |= {manifest.id: unreadable[manifest.id] for manifest in good if manifest.id in unreadable}
    pruning = plan_pruning(good, broken, keep, datetime.now(UTC))
    left = leftovers(path)
    busy: set[str] = set()
    if path.is_dir() and not context.check_mode:
        busy = {folder.name for folder in discard(path, [path / manifest.id for manifest in pruning.going])}
        tidy(path)
    gone = {manifest.id: manifest.total_bytes for manifest in pruning.going if manifest.id not in busy}
    return {
        "changed": bool(gone or left),
        "kept": [
            {"id": verdict.id, "reasons": list(verdict.reasons) or ["in use"]}
            for verdict in pruning.verdicts
            if verdict.id not in gone
        ],
        "removed": list(gone),
        "removed_bytes": sum(gone.values()),
        "explained": [
            f"{verdict.id} stays for now: somebody reads it." if verdict.id in busy else verdict.explained
            for verdict in pruning.verdicts
        ],
        "damaged": [{"id": one, "path": str(path / one), "reason": reason} for one, reason in broken.items()],
        "diff": {
            "before": {**before, "removing": [folder.name for folder in left]},
            "after": {**before, "sets": [one for one in before["sets"] if one not in gone], "removing": []},
        },
    }


def prove(context: Context, path: Path) -> dict[str, Any]:
    """Write into a set's manifest that it was restored, when and with what result."""
    params = context.params
    folder = path / params["id"]
    if folder.name not in set_ids(path):
        raise StateError(f"There is no backup set {folder.name} in {path}.", fix="Prove a set that was committed.")
    if not 0 <= params["seconds"] < math.inf:
        raise InputError(f"seconds is {params['seconds']}.", fix="Give how long the restore took.")
    with locked(path):
        manifest = read_set(folder, params["stack"])
        proven = {
            "at": utc_text(datetime.now(UTC)),
            "seconds": params["seconds"],
            "host": platform.node(),
            "components": _results(params["components"], manifest),
        }
        after = replace(manifest, proven=proven)
        if not context.check_mode:
            tidy(path)
            write_manifest(folder, after)
    return {
        "changed": True,
        "id": manifest.id,
        "path": str(folder),
        "manifest": after.to_dict(),
        "diff": {"before": {"proven": manifest.proven}, "after": {"proven": proven}},
    }


def _results(given: list[dict[str, Any]], manifest: Manifest) -> dict[str, Any]:
    """What the drill found, by component. Raises InputError when a component of the set is not among them."""
    results = {str(one.get("name")): {key: one[key] for key in one if key != "name"} for one in given}
    names = {component.name for component in manifest.components}
    if set(results) != names or len(results) != len(given):
        told = ", ".join(str(one.get("name")) for one in given) or "nothing"
        raise InputError(
            f"components speaks of {told}, and set {manifest.id} holds {', '.join(sorted(names))}.",
            fix="A set is proven when each of its components was restored: give one result for each, with its name.",
        )
    return results
