# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What to dump of one MongoDB database, and the folder that it is written into: complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    AUTH_VERSION,
    DATA,
    GZIP,
    METADATA,
    PRELUDE,
    ROLES,
    USERS,
    Definition,
    file_stem,
)


@dataclass(frozen=True)
class Job:
    """What to dump and how; snapshot: auto, required or never."""

    database: str
    name: str
    dest: Path
    gzip: bool = True
    jobs: int = 4
    snapshot: str = "auto"
    users: bool = False
    allow_empty: bool = False

    @property
    def suffix(self) -> str:
        """What is added to every file name."""
        return GZIP if self.gzip else ""

    def data_name(self, definition: Definition) -> str | None:
        """The file with the documents; None for a view."""
        return None if definition.source is None else file_stem(definition.source) + DATA + self.suffix

    def metadata_name(self, definition: Definition) -> str:
        """The file with the definition."""
        return file_stem(definition.name) + METADATA + self.suffix

    def names(self, definitions: tuple[Definition, ...]) -> list[str]:
        """Every file of the dump, relative to dest. Raises StateError when two collections share one."""
        found = [PRELUDE + self.suffix]
        for definition in definitions:
            found += filter(None, (self.data_name(definition), self.metadata_name(definition)))
        if self.users:
            found += [stem + DATA + self.suffix for stem in (USERS, ROLES, AUTH_VERSION)]
        if len(set(found)) != len(found):
            twice = sorted({name for name in found if found.count(name) > 1})
            raise StateError(f"Two collections would share the file {twice[0]!r}.", fix="Rename one of them.")
        return sorted(f"{self.database}/{name}" for name in found)

    def facts(self) -> dict[str, Any]:
        """What a component says of the dump before there is one."""
        return {
            "engine": "mongo",
            "name": self.name,
            "database": self.database,
            "format": "mongodump",
            "compression": "gzip" if self.gzip else None,
        }


def nothing_there(job: Job, place: str) -> StateError:
    """The error for a database without collections."""
    return StateError(
        f"There is no database {job.database!r} at {place}, or nothing in it.",
        fix="Correct database, or set allow_empty: true.",
    )


def cut_off(job: Job, restore: str) -> StateError:
    """The error for a database in which a restore is half swapped; restore: set and component."""
    return StateError(
        f"A restore of set {restore} into {job.database!r} was cut off between what was live and what was restored.",
        fix="Finish it or take it back, with action swap or revert of mongo_restore and that set.",
    )


def require_unwritten(dest: Path) -> None:
    """Refuse a folder that holds something already. Raises StateError."""
    if not dest.is_dir():
        return
    with os_errors(f"read {dest}"):
        found = sorted(path for path in dest.iterdir() if not _is_partial(path))
    if found:
        raise StateError(
            f"{found[0]} exists already; a component is written once.",
            fix="Begin a new backup set, or choose another dest.",
        )


@contextmanager
def dump_folder(job: Job) -> Iterator[Path]:
    """A folder for the files, ours alone; it gets its final name, that of the database, when the block succeeds.

    What a killed run left is removed. Raises StateError.
    """
    dest = job.dest
    with os_errors(f"create {dest}"):
        dest.mkdir(exist_ok=True)
        dest.chmod(0o700)

    def busy() -> GroundworkError:
        return StateError(f"Another backup is writing into {dest}.", fix="Wait until it has ended.")

    with directory_lock(dest, busy):
        require_unwritten(dest)
        with os_errors(f"clean {dest}"):
            for left in filter(_is_partial, dest.iterdir()):
                shutil.rmtree(left)
        folder = dest / f".dump.{os.getpid()}.partial"
        try:
            with os_errors(f"create {folder}"):
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
            yield folder
            with os_errors(f"finish {dest / job.database}"):
                sync_directory(folder)
                folder.rename(dest / job.database)
                sync_directory(dest)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".dump.") and path.name.endswith(".partial")
