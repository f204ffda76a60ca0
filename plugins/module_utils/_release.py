# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The source of a release: which files belong to it, and the id that is derived from them."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run

ID_LENGTH = 12


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
    return path


def fetch_git(cache: Path, url: str, version: str) -> tuple[Path, str]:
    """The tree of *version* (branch, tag or commit) of a git repository, in the cache folder, and its commit.

    Raises CommandError with git's words, InputError when the version is unknown or the address holds a password.
    Submodules are not fetched; what git archive leaves out (export-ignore) is left out.
    """
    if urlsplit(url).scheme in ("http", "https") and urlsplit(url).password:
        raise InputError(
            "app_source.git holds a password.", fix="Use an SSH address, or git's credential helper on the controller."
        )
    mirror = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with os_errors(f"create {mirror}"):
        mirror.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    quiet = {"GIT_TERMINAL_PROMPT": "0"}
    if not mirror.exists():
        staging = Path(tempfile.mkdtemp(dir=mirror.parent))
        try:
            run(["git", "clone", "--mirror", "--quiet", "--", url, str(staging)], env=quiet, asked=f"clone {url}")
            staging.rename(mirror)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    else:
        run(["git", "-C", str(mirror), "fetch", "--prune", "--quiet"], env=quiet, asked=f"fetch {url}")
    parsed = run(["git", "-C", str(mirror), "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}"], check=False)
    if parsed.rc != 0:
        raise InputError(
            f"app_source.version is {version!r}, and {url} has no such branch, tag or commit.",
            fix="Correct it, or push it.",
        )
    commit = parsed.stdout.strip()
    tree = cache / "trees" / commit
    if not tree.exists():
        _extract(mirror, commit, tree)
    return tree, commit


def _extract(mirror: Path, commit: str, tree: Path) -> None:
    with os_errors(f"create {tree}"):
        tree.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=tree.parent))
    try:
        archive = staging / "tree.tar"
        run(["git", "-C", str(mirror), "archive", "--output", str(archive), commit], asked=f"read the commit {commit}")
        (staging / "tree").mkdir()
        run(["tar", "-xf", str(archive), "-C", str(staging / "tree")], asked=f"unpack the commit {commit}")
        (staging / "tree").rename(tree)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
