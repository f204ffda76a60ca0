# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The lock file of a stack's deploys: one JSON record that says who holds it; whole or absent, whatever is killed when.

A record outlives the process that wrote it, because a deploy is many processes. Every change holds flock(2) on the
folder, so that of two takers one wins, and a takeover replaces exactly the record that was judged. A record gets its
name by a rename. Who may take over from whom is in _lock_owner.py.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock

_BUSY_SECONDS = 10.0
_POLL_SECONDS = 0.1
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Owner:
    """A run on a controller. id is derived from the rest, so that every task of the run has the same.

    machine: hash of the machine id; boot_id, pid_namespace and start_ticks as the kernel has them; "" and 0 where the
    system does not tell. process_started_at is for people.
    """

    id: str
    controller: str
    user: str
    pid: int
    process_started_at: str
    start_ticks: int
    machine: str
    boot_id: str
    pid_namespace: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """An owner, or a record, of its JSON; keys of later versions are left out. Raises InputError."""
        known = {field.name: {"str": str, "int": int}[str(field.type)] for field in fields(cls)}
        wrong = [name for name, kind in known.items() if type(data.get(name)) is not kind]
        if wrong or not data["id"]:
            raise InputError(f"{', '.join(wrong) or 'id'} is missing or no text or number")
        return cls(**{name: data[name] for name in known})

    def __str__(self) -> str:
        return f"{self.user} on {self.controller} (process {self.pid}, started {self.process_started_at})"


@dataclass(frozen=True)
class Record(Owner):
    """An owner that holds the lock since taken_at (UTC, by the clock of the managed host); note is the user's."""

    taken_at: str
    note: str

    def __str__(self) -> str:
        told = " ".join(self.note.split())
        return f"{super().__str__()} since {self.taken_at}{_age(self.taken_at)}{': ' if told else ''}{told}"


class DamagedError(StateError):
    """The file is there and is no record."""


def read(path: Path) -> Record | None:
    """Who holds the lock; None when nobody does. Raises DamagedError and StateError."""
    try:
        with os_errors(f"read the lock {path}"):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            with os.fdopen(fd, "rb") as stream:
                data = stream.read(_MAX_BYTES)
        return Record.from_dict(_object(data))
    except (ValueError, InputError) as error:
        why = f"{len(data)} bytes, {error}" if data else "the file is empty"
    except StateError as error:
        if not path.is_symlink() and not path.is_dir():
            raise
        why = "it is a symbolic link" if path.is_symlink() else "it is a folder"
        raise DamagedError(f"The lock {path} cannot be used: {why}.", fix="Remove it, and check the path.") from error
    raise DamagedError(
        f"The lock {path} is no record of deploy_lock ({why}): it was damaged, or something else wrote it.",
        fix="When no deploy is running, run once with force: true.",
    )


def take(
    path: Path, owner: Owner, note: str, *, wait: float = 0.0, replaces: str = "", force: bool = False
) -> tuple[Record, Record | None]:
    """Take the lock: our record, and the one that it replaced. What we hold already stays as it is.

    wait: seconds to wait for another holder; replaces: id of a holder that is known to be dead.
    Raises StateError, with the holder in its details.
    """
    deadline = time.monotonic() + wait
    while True:
        with _exclusive(path):
            holder = _read_or_force(path, force)
            if holder and holder.id == owner.id:
                return holder, None
            if holder is None or force or holder.id == replaces:
                return _write(path, owner, note), holder
        if time.monotonic() >= deadline:
            raise held(path, holder, wait)
        _wait_for_change(path, holder, deadline)


def release(path: Path, owner_id: str, *, force: bool = False) -> tuple[Record | None, bool]:
    """Let go of the lock: who held it, and whether it was removed. Another's lock stays unless force is set."""
    if not path.parent.is_dir():
        return None, False
    with _exclusive(path):
        holder = _read_or_force(path, force)
        ours = holder is not None and holder.id == owner_id
        if not (ours or force) or not (path.exists() or path.is_symlink()):
            return holder, False
        with os_errors(f"remove the lock {path}"):
            path.unlink()
            sync_directory(path.parent)
    return holder, True


def held(path: Path, holder: Record, waited: float, verdict: str = "", host: str = "HOST") -> StateError:
    """The error of one who did not get the lock. verdict: what is known of the holder, as a sentence."""
    after = f" after {waited:.0f} s of waiting" if waited else ""
    return StateError(
        f"Another deploy holds the lock {path}{after}: {holder}.{' ' if verdict else ''}{verdict}",
        fix="Wait for it, or raise wait. When that run is certainly over, remove its lock: "
        f"ansible {host} --become --module-name groundwork.backend.deploy_lock "
        f"--args 'path={path} state=absent force=true'",
        holder=asdict(holder),
    )


def _wait_for_change(path: Path, holder: Record, deadline: float) -> None:
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        if read(path) != holder:
            return


def _write(path: Path, owner: Owner, note: str) -> Record:
    record = Record(**asdict(owner), taken_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), note=note)
    write_file(path, json.dumps(asdict(record), indent=1).encode() + b"\n")
    return record


def _read_or_force(path: Path, force: bool) -> Record | None:
    try:
        return read(path)
    except DamagedError:
        if not force or path.is_dir():
            raise
        return None


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    folder = path.parent
    if not folder.is_dir():
        raise StateError(f"The folder {folder} of the lock does not exist.", fix="Create it first, or check the path.")

    def busy() -> GroundworkError:
        return StateError(
            f"Another process works in {folder} for more than {_BUSY_SECONDS:.0f} seconds.", fix="Run again."
        )

    with directory_lock(folder, busy, wait_seconds=_BUSY_SECONDS):
        for left in folder.glob(
            f".{glob.escape(path.name)}.*.partial"
        ):  # of one that was killed: nobody else is in here
            with suppress(OSError):
                left.unlink()
        yield


def _object(data: bytes) -> Mapping[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _age(taken_at: str) -> str:
    """ " (3 minutes)"; nothing when the clock of the host was set back since."""
    with suppress(ValueError):
        seconds = (datetime.now(UTC) - datetime.fromisoformat(taken_at)).total_seconds()
        for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
            if seconds >= 2 * size:
                return f" ({seconds // size:.0f} {unit})"
        return f" ({seconds:.0f} s)" if seconds >= 0 else ""
    return ""
