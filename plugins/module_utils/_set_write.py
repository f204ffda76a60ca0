# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The actions of backup_set that write a set: begin, commit, abort. Each returns the module's result."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Component, Manifest, read_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context
from ansible_collections.groundwork.backend.plugins.module_utils._partials import (
    Partial,
    create_partial,
    find_partial,
    locked,
    partial_path,
    partials,
    remove_partial,
    require_nobody_writes,
    seconds_since_begin,
)
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import check_files, publish
from ansible_collections.groundwork.backend.plugins.module_utils._sets import (
    new_id,
    parse_id,
    read_sets,
    require_space,
    set_ids,
    utc_text,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets_prune import leftovers, tidy


def begin(context: Context, path: Path) -> dict[str, Any]:
    """Make the folder of a new set."""
    if not context.check_mode:
        _create(path)
        with locked(path):
            return _begin(context, path)
    return _begin(context, path)


def _create(path: Path) -> None:
    """Make the folder of the sets, so that it and the folders above it survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with os_errors(f"create {path}"):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        for folder in missing:
            sync_directory(folder.parent)


def _begin(context: Context, path: Path) -> dict[str, Any]:
    params = context.params
    interrupted = require_nobody_writes(path, params["stale_after"])
    now = datetime.now(UTC)
    taken = set_ids(path)
    set_id = params["id"] or new_id(taken, now)
    if set_id in taken:
        raise StateError(f"Backup set {set_id} exists already in {path}.", fix="Leave out id, or use another.")
    if taken and not params["id"] and taken[0] > set_id:
        context.warn(f"The newest backup set {taken[0]} is dated after this host's clock ({set_id}): check the clock.")
    before = layout(path)
    removed = leftovers(path)
    if not context.check_mode:
        try:
            tidy(path)
        except GroundworkError as error:  # a backup is worth more than what is left of an old one
            context.warn(f"What an interrupted removal left stays: {error}")
            removed = [folder for folder in removed if not folder.exists()]
        for partial in interrupted:
            remove_partial(partial)
    good, _damaged = read_sets(path, params["stack"])
    free = require_space(path, good[0].total_bytes if good else 0, params["min_free_bytes"])
    folder = partial_path(path, set_id)
    if not context.check_mode:
        create_partial(path, set_id)
    return {
        "changed": True,
        "id": set_id,
        "path": str(folder),
        "removed": [str(folder) for folder in (*removed, *(partial.path for partial in interrupted))],
        "free_bytes": free,
        "diff": {"before": before, "after": {"sets": before["sets"], "partial": [folder.name]}},
    }


def commit(context: Context, path: Path) -> dict[str, Any]:
    """Check what was written, write the manifest, give the set its name."""
    params = context.params
    set_id = params["id"]
    final, folder = path / set_id, partial_path(path, set_id)
    if context.check_mode and not folder.is_dir() and not final.is_dir():
        return {"changed": True, "id": set_id, "path": str(final), "bytes": 0, "manifest": None}
    components = tuple(Component.from_dict(component) for component in params["components"])
    with locked(path):
        if final.is_dir() and not folder.is_dir():
            return _already(path / set_id, params["stack"], components)
        before = layout(path)
        partial = find_partial(path, set_id)
        check_files(folder, components)
        manifest = _manifest(context, partial, components)
        if not context.check_mode:
            publish(path, folder, manifest)
        after = {
            "sets": sorted({*before["sets"], set_id}, reverse=True),
            "partial": [name for name in before["partial"] if name != folder.name],
        }
    return {
        "changed": True,
        "id": set_id,
        "path": str(final),
        "bytes": manifest.total_bytes,
        "manifest": manifest.to_dict(),
        "diff": {"before": before, "after": after},
    }


def _manifest(context: Context, partial: Partial, components: tuple[Component, ...]) -> Manifest:
    params = context.params
    reported = {component.name: component.facts.get("schema_version") for component in components}
    return Manifest(
        id=params["id"],
        stack=params["stack"],
        created_at=partial.owner.begun_at if partial.owner else utc_text(parse_id(params["id"])),
        seconds=seconds_since_begin(partial),
        release=params["release"],
        hosts=tuple(params["hosts"] or [platform.node()]),
        schema_versions={
            **{name: version for name, version in reported.items() if version is not None},
            **params["schema_versions"],
        },
        components=components,
    )


def _already(folder: Path, stack: str, components: tuple[Component, ...]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest.components != components or manifest.stack != stack:
        raise StateError(
            f"Backup set {folder.name} is committed already, with other components.", fix="Begin a new set."
        )
    return {
        "changed": False,
        "id": manifest.id,
        "path": str(folder),
        "bytes": manifest.total_bytes,
        "manifest": manifest.to_dict(),
    }


def abort(context: Context, path: Path) -> dict[str, Any]:
    """Remove an uncommitted set."""
    set_id = context.params["id"]
    folder = partial_path(path, set_id)
    result = {"changed": False, "id": set_id, "path": str(folder), "removed": []}
    if not folder.is_dir():
        return result
    with locked(path):
        before = layout(path)
        if not context.check_mode:
            remove_partial(find_partial(path, set_id))
    after = {"sets": before["sets"], "partial": [name for name in before["partial"] if name != folder.name]}
    return {**result, "changed": True, "removed": [str(folder)], "diff": {"before": before, "after": after}}


def layout(path: Path) -> dict[str, list[str]]:
    """The names of the sets in *path*, for diff."""
    return {"sets": set_ids(path), "partial": [partial.path.name for partial in partials(path)]}
