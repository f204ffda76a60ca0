# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The files of a backup set: compared with what was reported of them, secured, published under the set's name.

The order that survives a power cut: every file and folder is on the disk before the manifest, the manifest before the
rename that makes the set one, and that rename before anybody is told.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import (
    FileEntry,
    read_entry,
    sync_directory,
)
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
    write_manifest,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets import OWNER_NAME, read_own_manifest

# What a process that was killed while it wrote the manifest leaves beside it; never a part of the set.
_TORN_MANIFEST = re.compile(rf"\.{re.escape(MANIFEST_NAME)}\.\d+\.partial\Z", re.ASCII)


def check_files(folder: Path, components: Sequence[Component]) -> None:
    """Read every listed file again and compare; nothing else may be there. Raises StateError and InputError."""
    if not components:
        raise InputError("A backup set without components is no backup.", fix="List what was backed up in components.")
    if len({component.name for component in components}) != len(components):
        raise InputError("Two components have the same name.", fix="Give each its own name and folder.")
    for problem in file_problems(folder, components):
        raise problem


def verify_set(folder: Path, stack: str) -> list[str]:
    """Everything that is wrong with a committed set, as sentences: manifest, files, checksums, files beyond those.

    The set is held against removal meanwhile. Nothing is written.
    """
    try:
        with held(folder) as present:
            if not present:
                return ["It is being removed."]
            manifest = read_own_manifest(folder, stack)
            return [problem.problem for problem in file_problems(folder, manifest.components)]
    except GroundworkError as error:
        return [error.problem]


def file_problems(folder: Path, components: Sequence[Component]) -> Iterator[GroundworkError]:
    """Each difference between the files in *folder* and those of the components; every file is read."""
    listed = {name: entry for component in components for name, entry in component.paths()}
    with os_errors(f"read {folder}"):
        present = sorted(folder.rglob("*"))
    for found in present:
        name = str(found.relative_to(folder))
        is_folder = found.is_dir() and not found.is_symlink()
        if not is_folder and name not in {*listed, OWNER_NAME, MANIFEST_NAME} and not _TORN_MANIFEST.match(name):
            yield StateError(
                f"{found} belongs to no component of the set.",
                fix="Commit every component that was written, or abort this set and begin a new one.",
            )
    for name, entry in listed.items():
        if problem := _file_problem(folder / name, entry):
            yield problem


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
    remove_torn_manifests(folder)
    secure_files(folder)
    write_manifest(folder, manifest)
    with os_errors(f"rename {folder} to {final}"):
        (folder / OWNER_NAME).unlink(missing_ok=True)
        sync_directory(folder)
        folder.rename(final)
        sync_directory(path)
    return final


def remove_torn_manifests(folder: Path) -> None:
    """Remove what killed processes left while they wrote the manifest. The caller holds the lock."""
    with os_errors(f"clean {folder}"):
        for found in folder.iterdir():
            if _TORN_MANIFEST.match(found.name):
                found.unlink()


@contextmanager
def held(folder: Path, *, to_remove: bool = False) -> Iterator[bool]:
    """Hold a committed set during the block: readers share it, who removes it has it alone.

    Gives whether it is held; False, at once, when it is in use. Raises StateError when it cannot be opened.
    """
    with os_errors(f"open {folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if to_remove else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)


def _file_problem(path: Path, reported: FileEntry) -> GroundworkError | None:
    if path.is_symlink() or not path.is_file():
        return StateError(f"{path} is missing or is no ordinary file.", fix="Run the component's backup again.")
    try:
        found = read_entry(path)
    except GroundworkError as error:
        return error
    if (found.bytes, found.sha256) == (reported.bytes, reported.sha256):
        return None
    return StateError(
        f"{path} is not what its backup wrote: {reported.bytes} bytes with sha256 {reported.sha256} were reported, "
        f"found {found.bytes} with {found.sha256}.",
        fix="Abort this set and back up again.",
    )
