# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The folder that a dump is written into: one run at a time, what a killed run left is removed, all files or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import GLOBALS_NAME, Job, require_unwritten


def prepare(job: Job, stack: ExitStack) -> None:
    """The folder, ours alone, without what a killed run left; whatever fails from now on leaves nothing in it.

    The lock is held until *stack* is left. Raises StateError.
    """
    with os_errors(f"create {job.dest}"):
        job.dest.mkdir(exist_ok=True)
        job.dest.chmod(0o700)

    def busy() -> GroundworkError:
        return StateError(f"Another backup is writing into {job.dest}.", fix="Wait until it has ended.")

    stack.enter_context(directory_lock(job.dest, busy))
    require_unwritten(job)
    with os_errors(f"clean {job.dest}"):
        for left in (*job.dest.glob(".database.*.partial"), *job.dest.glob(f".{GLOBALS_NAME}.*.partial")):
            _remove(left)
    stack.enter_context(_all_or_nothing(job))


@contextmanager
def _all_or_nothing(job: Job) -> Iterator[None]:
    """The files get their names one after the other: when one cannot, those before it go."""
    try:
        yield
    except BaseException:
        for name in job.names:
            _remove(job.dest / name)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
