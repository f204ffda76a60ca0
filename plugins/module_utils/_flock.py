# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One process at a time in a directory: a lock that the kernel lets go when its holder dies, also by kill -9."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, os_errors

_POLL_SECONDS = 0.05


@contextmanager
def directory_lock(path: Path, busy: Callable[[], GroundworkError], *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold flock(2) on a directory for the length of the block.

    busy makes the error that is raised when another process still holds it after wait_seconds.
    Raises StateError when the directory cannot be opened.
    """
    with os_errors(f"open {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise busy() from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)
