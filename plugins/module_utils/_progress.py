# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How far a long task is, in a small file beside it that the controller reads while the module runs.

Progress is told, never relied on: a file that cannot be written is given up without a word, and the work goes on.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SECONDS_BETWEEN_WRITES = 0.5


@dataclass(frozen=True)
class Reading:
    """One moment of a long task.

    step: what is done, such as "dump". item: what it is done to (a table or a file), or empty.
    bytes_done: bytes of this step so far. bytes_total: bytes of the whole step, or None when nobody can know.
    seconds: since the task began.
    """

    step: str
    item: str
    bytes_done: int
    bytes_total: int | None
    seconds: float


class Progress:
    """Writes readings to *path*, at most two a second; without a path it does nothing.

    The file is complete at every moment (temporary name, rename), has mode 0600, and is gone after close().
    Use it as a context manager, or hand it to an ExitStack.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = Path(path) if path else None
        self._begun = time.monotonic()
        self._written = 0.0
        self._step: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, bytes_done: int, bytes_total: int | None = None, step: str = "dump", item: str = "") -> None:
        """Say how far *step* is. Cheap enough for every chunk of a stream. A new step is always written."""
        if self._path is None:
            return
        now = time.monotonic()
        if step == self._step and now - self._written < _SECONDS_BETWEEN_WRITES:
            return
        self._step, self._written = step, now
        reading = Reading(step, item, bytes_done, bytes_total, round(now - self._begun, 3))
        try:
            _replace(self._path, json.dumps(asdict(reading)).encode())
        except OSError:
            self.close()

    def close(self) -> None:
        """Remove the file; later updates do nothing."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None


def parse(text: str) -> Reading | None:
    """The reading in a progress file, or None when it holds none."""
    try:
        found: dict[str, Any] = json.loads(text)
        total = found["bytes_total"]
        return Reading(
            step=str(found["step"]),
            item=str(found["item"]),
            bytes_done=int(found["bytes_done"]),
            bytes_total=None if total is None else int(total),
            seconds=float(found["seconds"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    temporary.replace(path)
