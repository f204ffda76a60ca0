# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read every file of a component and compare it with the manifest, also beside something else."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import Dump

_CHUNK_BYTES = 1 << 20
_SAY_EVERY_SECONDS = 0.5
_LOWEST_PRIORITY = 19


@dataclass
class _File:
    """A file that is being read; done bytes of it are in the digest."""

    entry: FileEntry
    digest: Any = field(default_factory=hashlib.sha256)
    done: int = 0


class Verification:
    """Reads the files while the block goes on, with the processor time that nobody else wants; wait() takes its share.

    Use as a context manager; leaving the block ends the reading. Raises StateError: at the begin when a file is not
    there in its size, from check() and wait() when one is not what the backup wrote.
    """

    def __init__(self, dump: Dump, workers: int) -> None:
        self._dump = dump
        self._workers = max(1, workers)
        self._files = [_File(entry) for entry in dump.component.files]
        self._left = deque(self._files)
        self._verified: deque[_File] = deque()
        self._problem: BaseException | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for file in self._files:
            path = self._dump.folder / file.entry.name
            with os_errors(f"read {path}"):
                size = path.lstat().st_size
            if path.is_symlink() or not path.is_file() or size != file.entry.bytes:
                raise _damaged(self._dump, file.entry, f"found {size} bytes")
        self._start(_LOWEST_PRIORITY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def check(self) -> None:
        """Raise what was found so far."""
        if self._problem is not None:
            raise self._problem

    def wait(self, say: Callable[[int, int], None]) -> None:
        """Read what is left, at the priority of this process; say gets bytes done and in all."""
        self._end()  # a thread may lower its own priority, and not raise it again: others go on from where they were
        self._start(0)
        for thread in self._threads:
            while thread.is_alive() and self._problem is None:
                thread.join(_SAY_EVERY_SECONDS)
                say(self._done, self._dump.component.bytes)
        self.check()
        say(self._done, self._dump.component.bytes)

    @property
    def complete(self) -> bool:
        """Whether every file was read and is what the backup wrote."""
        return len(self._verified) == len(self._files)

    @property
    def _done(self) -> int:
        return sum(file.done for file in self._files)

    def _start(self, niceness: int) -> None:
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._work, args=(niceness,), daemon=True)
            for _ in range(min(self._workers, len(self._left)))
        ]
        for thread in self._threads:
            thread.start()

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, niceness: int) -> None:
        if niceness:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        try:
            while not self._stop.is_set() and self._problem is None:
                try:
                    file = self._left.popleft()
                except IndexError:
                    return
                (self._verified if self._read(file) else self._left).append(file)
        except BaseException as error:  # raised again by check() and wait(), in the thread that can act on it
            self._problem = error

    def _read(self, file: _File) -> bool:
        """Go on with a file, until the end or until all is to stop; whether it is read."""
        path = self._dump.folder / file.entry.name
        buffer = bytearray(_CHUNK_BYTES)
        with os_errors(f"read {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                while count := os.preadv(fd, [buffer], file.done):
                    file.digest.update(memoryview(buffer)[:count])
                    file.done += count
                    if self._stop.is_set():
                        return False
            finally:
                os.close(fd)
        if (file.done, file.digest.hexdigest()) != (file.entry.bytes, file.entry.sha256):
            raise _damaged(self._dump, file.entry, f"found {file.done} bytes with {file.digest.hexdigest()}")
        return True


def _damaged(dump: Dump, entry: FileEntry, found: str) -> GroundworkError:
    return StateError(
        f"{dump.folder / entry.name} is not what the backup wrote: the manifest of set {dump.set_id} says "
        f"{entry.bytes} bytes with sha256 {entry.sha256}, {found}.",
        fix="Use another set, or another copy of this one.",
    )
