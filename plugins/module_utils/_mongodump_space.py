# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a dump says when its disk is full: how much there was to write, and how much room it had."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job
from ansible_collections.groundwork.backend.plugins.module_utils._progress_told import size

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disks_told(job: Job, work: Work) -> Iterator[None]:
    """Say of a full disk inside of the block what the dump needs and what it had. Raises StateError, detail space."""
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(job.dest.parent).free
    try:
        yield
    except StateError as error:
        if getattr(error.__cause__, "errno", None) not in _FULL or free is None:
            raise
        raise no_room(job, free=free, needed=work.total, done=work.done) from error


def no_room(job: Job, *, free: int, needed: int | None, done: int) -> StateError:
    """The error for a disk that is full; needed (None: nobody knows) and done are bytes of documents, uncompressed."""
    compressed = " before they are compressed" if job.gzip else ""
    told = (
        f"The documents take {size(needed)}{compressed}, of which {size(done)} had been dumped, and " if needed else ""
    )
    return StateError(
        f"The file system of {job.dest} is full, and the dump of {job.database!r} was removed. "
        f"{told}{size(free)} were free when the dump began.",
        fix="Free space there, as by pruning old sets, then run again.",
        space={"needed": needed, "done": done, "free": free},
    )
