# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Work on several collections at a time: the first failure ends the others, and is the one that is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress

T = TypeVar("T")

MOST_JOBS = 64


class _StoppedError(Exception):
    """Another collection failed, or the module is to end: this one ends, too."""


def check_jobs(jobs: int) -> int:
    """The number of collections at a time. Raises InputError."""
    if not 1 <= jobs <= MOST_JOBS:
        raise InputError(f"jobs is {jobs}.", fix=f"Set it to a number from 1 to {MOST_JOBS}.")
    return jobs


def read_ahead(source: Generator[T, None, None]) -> Iterator[T]:
    """What *source* yields, fetching the next one while the caller uses this one; it is closed at the end.

    Raises what *source* raises, after all that came before.
    """
    try:
        with ThreadPoolExecutor(1) as pool:
            fetched = pool.submit(list, islice(source, 1))
            while found := fetched.result():
                fetched = pool.submit(list, islice(source, 1))
                yield from found
    finally:
        source.close()


@dataclass
class Work:
    """Tasks beside each other that tell together how far they are; total in bytes, None when nobody knows."""

    progress: Progress
    step: str
    done: int = 0
    total: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, jobs: int, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all tasks. Raises what the first one raised that failed, once the others have ended."""
        pool = ThreadPoolExecutor(jobs)
        try:
            running = [pool.submit(task) for task in tasks]
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            problems = [error for future in done if (error := future.exception()) is not None]
            for error in sorted(problems, key=lambda error: isinstance(error, _StoppedError)):
                raise error
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def tell(self, item: str, size: int) -> None:
        """Add bytes that a task has done; ends the task when another one has failed."""
        if self._stop.is_set():
            raise _StoppedError
        with self.lock:
            self.done += size
            self.progress.update(self.done, self.total, step=self.step, item=item)
