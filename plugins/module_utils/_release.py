# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The source of a release: which files belong to it, and the id that is derived from them."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors

ID_LENGTH = 12
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_POINTER_BYTES = 1024
_CACHED = 5
_GOING = ".going-"
_IN_USE_SECONDS = 6 * 3600.0


def list_files(root: Path, exclude: Sequence[str]) -> list[str]:
    """The files and symbolic links below *root*, sorted, as paths below it.

    A pattern of *exclude* without a slash matches a name at any depth, one with a slash the path below the root.
    Empty folders do not count. Raises InputError when there is no such folder or nothing is left.
    """
    if not root.is_dir():
        raise InputError(
            f"app_source.path is {root}, and there is no such folder on the controller.",
            fix="Give the top folder of the application's source.",
        )
    with os_errors(f"read the source {root}"):
        files = sorted(_walk(root, "", exclude))
    if not files:
        raise InputError(f"The source {root} has no files.", fix="Check app_source and app_source_exclude.")
    return files


def _walk(root: Path, below: str, exclude: Sequence[str]) -> Iterator[str]:
    with os.scandir(root / below) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if any(fnmatch.fnmatchcase(path if "/" in pattern else entry.name, pattern) for pattern in exclude):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path, exclude)
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                yield path


def release_id(root: Path, files: Sequence[str], settings_digest: str) -> str:
    """Twelve hex digits from the names, contents, executable bits and link targets of the files, and the settings."""
    digest = hashlib.sha256(settings_digest.encode())
    for name in files:
        path = root / name
        with os_errors(f"read the source file {path}"):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                kind, content = "link", hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
            else:
                kind = "exec" if status.st_mode & stat.S_IXUSR else "file"
                with path.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{kind} {content} {name}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:ID_LENGTH]


def write_file_list(cache: Path, release: str, files: Sequence[str]) -> Path:
    """A list for ``rsync --from0 --files-from``, in the cache folder."""
    path = cache / "lists" / release
    with os_errors(f"write {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, b"".join(os.fsencode(name) + b"\0" for name in files))
    keep_newest(path.parent)
    return path


def keep_newest(folder: Path, count: int = _CACHED, age: float = _IN_USE_SECONDS) -> None:
    """Remove what is in a folder of the cache, but for the *count* entries that were used last.

    What was used in the last *age* seconds stays too: another run may be copying it to its hosts. An entry that another
    run removes at the same moment, or that cannot be removed, is passed over: the cache is no reason to fail a deploy.
    """
    found = []
    for path in folder.iterdir():
        if path.name.startswith(_GOING):
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(OSError):
            found.append((path.lstat().st_mtime, path))
    for used, path in sorted(found, reverse=True)[count:]:
        if used < time.time() - age:
            with suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    # Under another name first: a tree that was removed by half would be taken for a whole one.
                    going = path.rename(folder / f"{_GOING}{os.getpid()}-{path.name}")
                    shutil.rmtree(going, ignore_errors=True)
                else:
                    path.unlink()


def refuse_lfs_pointers(root: Path, files: Sequence[str]) -> None:
    """Raise InputError when files are pointers of Git LFS, which stand where the real content was not fetched.

    The form of a pointer is that of https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
    """
    found = []
    for name in files:
        path = root / name
        with os_errors(f"read the source file {path}"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and len(_LFS_POINTER) < status.st_size <= _LFS_POINTER_BYTES:
                with path.open("rb") as stream:
                    if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                        found.append(name)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"The source {root} has pointers of Git LFS instead of the files themselves: {', '.join(found[:3])}{more}.",
            fix="Give app_source.path with a checkout in which git lfs pull ran, or add them to app_source_exclude.",
        )
