# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The committed backup sets of a stack: their ids and the list of them.

``<path>/<id>`` is a committed set; an id is the UTC time of its begin, such as 20261121T061200Z. What is being written
is in _partials.py, how a set becomes one and is compared with its files in _set_files.py, removal in _sets_prune.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Manifest, read_manifest

OWNER_NAME = ".owner.json"
_ID_FORMAT = "%Y%m%dT%H%M%SZ"
# An id is moved on by seconds past one that is taken, and clocks are set by small steps.
_CLOCK_TOLERANCE = timedelta(hours=1)


def utc_text(moment: datetime) -> str:
    """A UTC time as 2026-11-21T06:12:00Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_id(text: str) -> datetime:
    """The time that a set's id stands for. Raises InputError."""
    try:
        moment = datetime.strptime(text, _ID_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        moment = None
    if moment is None or moment.strftime(_ID_FORMAT) != text:
        raise InputError(f"{text!r} is no id of a backup set.", fix="An id is a UTC time such as 20261121T061200Z.")
    return moment


def is_id(name: str) -> bool:
    """Whether a folder of this name is a committed set."""
    try:
        parse_id(name)
    except InputError:
        return False
    return True


def new_id(taken: Iterable[str], now: datetime) -> str:
    """The id for a set that begins now, moved on by seconds past ids that exist."""
    while (text := now.strftime(_ID_FORMAT)) in set(taken):
        now += timedelta(seconds=1)
    return text


def folder_names(path: Path) -> list[str]:
    """Names of the folders in *path*; none when it does not exist."""
    if not path.is_dir():
        return []
    with os_errors(f"read {path}"):
        return [entry.name for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]


def set_ids(path: Path) -> list[str]:
    """Ids of the committed sets in *path*, newest first; folders with other names are not ours."""
    return sorted((name for name in folder_names(path) if is_id(name)), reverse=True)


def read_sets(path: Path, stack: str) -> tuple[list[Manifest], list[dict[str, str]]]:
    """Manifests of the usable sets, newest first, and the damaged ones as {"id", "path", "reason"}.

    A set is usable here when its manifest holds and every file has its size; checksums are not read.
    """
    good: list[Manifest] = []
    damaged: list[dict[str, str]] = []
    for set_id in set_ids(path):
        try:
            good.append(read_set(path / set_id, stack))
        except GroundworkError as error:
            damaged.append({"id": set_id, "path": str(path / set_id), "reason": str(error)})
    return good, damaged


def read_set(folder: Path, stack: str) -> Manifest:
    """The manifest of one committed set, when it holds and every file has its size. Raises StateError."""
    manifest = read_own_manifest(folder, stack)
    for component in manifest.components:
        for name, entry in component.paths():
            with os_errors(f"find {folder / name}"):
                status = (folder / name).lstat()
            if not stat.S_ISREG(status.st_mode):
                raise StateError(f"{name} is no ordinary file.", fix="Use another set.")
            if status.st_size != entry.bytes:
                raise StateError(f"{name} has {status.st_size} bytes, not {entry.bytes}.", fix="Use another set.")
    return manifest


def read_own_manifest(folder: Path, stack: str) -> Manifest:
    """The manifest in *folder*, when it is that of this set and this stack. Raises StateError."""
    manifest = read_manifest(folder)
    if (manifest.id, manifest.stack) != (folder.name, stack):
        raise StateError(
            f"The manifest belongs to set {manifest.id} of stack {manifest.stack!r}.",
            fix="Move that set to where it belongs.",
        )
    return manifest


def newest_of(good: Sequence[Manifest], now: datetime) -> Manifest | None:
    """The newest usable set; one that a wrong clock dated into the future only when there is no other."""
    return next((one for one in good if parse_id(one.id) <= now + _CLOCK_TOLERANCE), good[0] if good else None)


def summary(path: Path, manifest: Manifest, now: datetime) -> dict[str, Any]:
    """What a list tells of a set. age_seconds counts from the begin of the set; negative when it is in the future."""
    return {
        "id": manifest.id,
        "path": str(path / manifest.id),
        "created_at": manifest.created_at,
        "age_seconds": int((now - parse_id(manifest.id)).total_seconds()),
        "seconds": manifest.seconds,
        "bytes": manifest.total_bytes,
        "release": manifest.release,
        "components": [component.name for component in manifest.components],
        "proven": manifest.proven,
    }


def require_space(path: Path, last_bytes: int, min_free_bytes: int) -> int:
    """Free bytes where *path* is or will be. Raises StateError when the next set probably does not fit."""
    place = path
    while not place.exists():
        place = place.parent
    with os_errors(f"ask for the free space of {place}"):
        status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    needed = last_bytes * 11 // 10 + min_free_bytes
    if free < needed:
        raise StateError(
            f"The next backup set needs {needed} bytes in {path} (1.1 times the last set's {last_bytes}, and "
            f"{min_free_bytes} that must stay free), found {free} free.",
            fix="Free space on that file system, or remove old sets.",
            free_bytes=free,
            needed_bytes=needed,
        )
    return free
