# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Backup sets that are being written: who began one, when it counts as interrupted, begin and removal.

``<path>/.partial-<id>`` becomes ``<path>/<id>`` by the commit and is never read before. Begin and commit are processes
of their own, so an owner file says who began a set; every change holds flock(2) on ``<path>``.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import COMPONENTS
from ansible_collections.groundwork.backend.plugins.module_utils._sets import (
    OWNER_NAME,
    folder_names,
    parse_id,
    utc_text,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets_prune import discard

_PARTIAL = ".partial-"
# A commit reads every file again and a prune removes many, both under the lock.
_LOCK_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Owner:
    """Who began a set. begun_clock is CLOCK_BOOTTIME in seconds: no change of the wall clock moves it."""

    id: str
    pid: int
    host: str
    boot_id: str
    begun_at: str
    begun_clock: float

    @classmethod
    def me(cls, set_id: str) -> Owner:
        """This process, now."""
        return cls(set_id, os.getpid(), platform.node(), _boot_id(), utc_text(datetime.now(UTC)), _clock())

    def began_in_this_boot(self) -> bool:
        """Whether begun_clock can be compared with the clock of this host now."""
        return self.host == platform.node() and self.boot_id == _boot_id()


@dataclass(frozen=True)
class Partial:
    """A set that is being written, or was: owner is None when its begin or its commit was cut off by a crash.

    idle_seconds: since the last change of anything inside.
    """

    path: Path
    owner: Owner | None
    idle_seconds: float

    def interrupted(self, stale_after: float) -> bool:
        """Whether nobody can be writing it any more; stale_after is in seconds."""
        if self.owner is None:
            return True
        if self.owner.host == platform.node() and self.owner.boot_id != _boot_id():
            return True
        age = _clock() - self.owner.begun_clock if self.owner.began_in_this_boot() else stale_after
        return age >= stale_after and self.idle_seconds >= stale_after


def partial_path(path: Path, set_id: str) -> Path:
    """The folder of a set that is being written."""
    return path / f"{_PARTIAL}{set_id}"


def partials(path: Path) -> list[Partial]:
    """The sets in *path* that were begun and not committed."""
    return [_partial(path / name) for name in sorted(folder_names(path)) if name.startswith(_PARTIAL)]


@contextmanager
def locked(path: Path, wait_seconds: float = _LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Nobody else changes the sets in *path* during the block. Raises StateError."""

    def busy() -> GroundworkError:
        found = "; ".join(_told(partial) for partial in partials(path)) or "its process has not said who it is"
        return StateError(
            f"Another process is changing the backup sets in {path}: {found}.",
            fix="Wait until it has ended, then run again.",
        )

    with directory_lock(path, busy, wait_seconds=wait_seconds):
        yield


def require_nobody_writes(path: Path, stale_after: float) -> list[Partial]:
    """The interrupted sets in *path*, free to be removed. Raises StateError when one is being written."""
    found = partials(path)
    for partial in found:
        if not partial.interrupted(stale_after):
            raise StateError(
                f"A backup set is being written in {path}: {_told(partial)}.",
                fix=f"Wait for it. If that run is dead, abort the set ({partial.path.name.removeprefix(_PARTIAL)}), "
                "or run with stale_after: 0.",
            )
    return found


def create_partial(path: Path, set_id: str) -> Path:
    """Make the folder that the store modules write into: mode 0700, with its owner file. The caller holds the lock."""
    folder = partial_path(path, set_id)
    with os_errors(f"create {folder}"):
        for directory in (folder, folder / COMPONENTS):
            directory.mkdir()
            directory.chmod(0o700)
    write_file(folder / OWNER_NAME, json.dumps(asdict(Owner.me(set_id))).encode())
    return folder


def find_partial(path: Path, set_id: str) -> Partial:
    """The set that is being written under this id. Raises StateError."""
    folder = partial_path(path, set_id)
    if not folder.is_dir():
        raise StateError(
            f"Backup set {set_id} is not being written: there is no {folder}.",
            fix="Begin a set first, and pass on the id that begin returned.",
        )
    return _partial(folder)


def remove_partial(partial: Partial) -> None:
    """Remove a set that was not committed. The caller holds the lock."""
    discard(partial.path.parent, [partial.path])


def seconds_since_begin(partial: Partial) -> float:
    """Seconds from the begin of a set until now; by the wall clock of its id when the host booted in between."""
    if partial.owner is not None and partial.owner.began_in_this_boot():
        return round(_clock() - partial.owner.begun_clock, 3)
    begun = parse_id(partial.path.name.removeprefix(_PARTIAL))
    return max(0.0, round((datetime.now(UTC) - begun).total_seconds(), 3))


def _partial(folder: Path) -> Partial:
    newest = 0.0
    with os_errors(f"read {folder}"):
        for entry in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):  # a file under a temporary name may get its final name meanwhile
                newest = max(newest, entry.lstat().st_mtime)
        try:
            owner = Owner(**json.loads((folder / OWNER_NAME).read_bytes()))
        except FileNotFoundError:
            owner = None
        except (ValueError, TypeError) as error:
            raise StateError(
                f"{folder / OWNER_NAME} cannot be understood: {error}.",
                fix=f"When no backup is running, remove {folder}.",
            ) from None
    return Partial(folder, owner, time.time() - newest)


def _told(partial: Partial) -> str:
    set_id = partial.path.name.removeprefix(_PARTIAL)
    if partial.owner is None:
        return f"set {set_id}"
    owner = partial.owner
    return f"set {set_id}, begun at {owner.begun_at} by process {owner.pid} on {owner.host}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
