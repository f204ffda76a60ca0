# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A log of JSON lines that several processes append to, and that a crash in the middle of a line does not harm."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors

_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.05


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Write one line through to the disk, or nothing: what a full disk cut off is taken back.

    A torn line of an earlier crash is ended first. The file is made with mode 0600. Raises StateError.
    """
    # A lone surrogate (a file name that is no UTF-8, say) becomes \\udcXX, which is JSON again.
    line = json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    require_loggable(path)
    with os_errors(f"append to the log {path}"), _locked(path) as fd:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, size)
            raise
        if not size:
            sync_directory(path.parent)


def read(path: Path, last: int, deploy: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """The last entries (of one deploy), oldest first, and how many lines of the whole log are torn.

    No entries when there is no file. Raises StateError.
    """
    entries: deque[dict[str, Any]] = deque(maxlen=last)
    torn = 0
    with os_errors(f"read the log {path}"):
        if not path.exists():
            return [], 0
        with path.open("rb") as stream:
            for line in stream:
                entry = _parse(line)
                if entry is None:
                    torn += bool(line.strip())
                elif deploy is None or entry.get("deploy") == deploy:
                    entries.append(entry)
    return list(entries), torn


def require_loggable(path: Path) -> None:
    """Refuse what cannot be a log. Raises StateError and InputError."""
    if not path.parent.is_dir():
        raise StateError(
            f"The folder {path.parent} of the log does not exist.", fix="Create it first, or check the path."
        )
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"The log {path} is no ordinary file.", fix="Check the path.")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The log, open and under flock(2); opened again when it was renamed (logrotate) before the lock was ours."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            if _try_lock(fd) and _is(fd, path):
                yield fd
                return
        finally:
            os.close(fd)
        if time.monotonic() >= deadline:
            raise StateError(f"Another process holds the log {path} for {_LOCK_SECONDS:.0f} seconds.", fix="Run again.")
        time.sleep(_POLL_SECONDS)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
