# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The committed backup sets of a stack: their ids, the list of them, and how a set becomes one.

``<path>/<id>`` is a committed set; an id is the UTC time of its begin, such as 20261121T061200Z. What is being written
is in _partials.py. A set is complete or absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import read_entry, sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import (
    MANIFEST_NAME,
    Component,
    Manifest,
    read_manifest,
    write_manifest,
)

OWNER_NAME = ".owner.json"
_ID_FORMAT = "%Y%m%dT%H%M%SZ"


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
    return sorted((name for name in folder_names(path) if _is_id(name)), reverse=True)


def read_sets(path: Path, stack: str) -> tuple[list[Manifest], list[dict[str, str]]]:
    """Manifests of the usable sets, newest first, and the damaged ones as {"id", "path", "reason"}.

    A set is usable here when its manifest holds and every file has its size; checksums are not read.
    """
    good: list[Manifest] = []
    damaged: list[dict[str, str]] = []
    for set_id in set_ids(path):
        try:
            good.append(_read_set(path / set_id, set_id, stack))
        except GroundworkError as error:
            damaged.append({"id": set_id, "path": str(path / set_id), "reason": str(error)})
    return good, damaged


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


def check_files(folder: Path, components: Sequence[Component]) -> None:
    """Read every listed file again and compare; nothing else may be there. Raises StateError and InputError."""
    if not components:
        raise InputError("A backup set without components is no backup.", fix="List what was backed up in components.")
    if len({component.name for component in components}) != len(components):
        raise InputError("Two components have the same name.", fix="Give each its own name and folder.")
    listed = {name: entry for component in components for name, entry in component.paths()}
    with os_errors(f"read {folder}"):
        for found in sorted(folder.rglob("*")):
            name = str(found.relative_to(folder))
            is_folder = found.is_dir() and not found.is_symlink()
            if not is_folder and name not in listed and name not in (OWNER_NAME, MANIFEST_NAME):
                raise StateError(
                    f"{found} belongs to no component of the set.",
                    fix="Commit every component that was written, or abort this set and begin a new one.",
                )
    for name, entry in listed.items():
        _check_file(folder / name, entry.bytes, entry.sha256)


def secure_files(folder: Path) -> None:
    """Take files and folders away from other users, and write everything through to the disk. Raises StateError."""
    with os_errors(f"sync {folder}"):
        for found in (*folder.rglob("*"), folder):
            found.chmod(0o700 if found.is_dir() else 0o600)
            fd = os.open(found, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def publish(path: Path, folder: Path, manifest: Manifest) -> Path:
    """Write the manifest and give the set its final name. The caller has checked the files and holds the lock.

    Raises StateError; the set is uncommitted then.
    """
    final = path / manifest.id
    if final.exists():
        raise StateError(f"{final} exists already.", fix="Abort this set and begin a new one.")
    secure_files(folder)
    write_manifest(folder, manifest)
    with os_errors(f"rename {folder} to {final}"):
        (folder / OWNER_NAME).unlink(missing_ok=True)
        sync_directory(folder)
        folder.rename(final)
        sync_directory(path)
    return final


def _check_file(path: Path, size: int, sha256: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise StateError(f"{path} is missing or is no ordinary file.", fix="Run the component's backup again.")
    found = read_entry(path)
    if (found.bytes, found.sha256) != (size, sha256):
        raise StateError(
            f"{path} is not what its backup wrote: {size} bytes with sha256 {sha256} were reported, found "
            f"{found.bytes} with {found.sha256}.",
            fix="Abort this set and back up again.",
        )


def _read_set(folder: Path, set_id: str, stack: str) -> Manifest:
    manifest = read_manifest(folder)
    if (manifest.id, manifest.stack) != (set_id, stack):
        raise StateError(f"The manifest belongs to set {manifest.id} of stack {manifest.stack!r}.")
    for component in manifest.components:
        for name, entry in component.paths():
            with os_errors(f"find {folder / name}"):
                size = (folder / name).lstat().st_size
            if size != entry.bytes:
                raise StateError(f"{name} has {size} bytes, not {entry.bytes}.")
    return manifest


def _is_id(name: str) -> bool:
    try:
        parse_id(name)
    except InputError:
        return False
    return True
