# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The releases of a stack on a host: what was deployed when, which one to go back to, what is lost on the way.

``releases/<id>`` is the source of a release, ``shared/<id>`` its settings, and ``shared/<id>/release.json`` the history
of its deploys. Deploys are numbered through all releases, so that a clock that was set back changes no order. What
removes releases is in _releases_prune.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    GroundworkError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._release import ID_LENGTH
from ansible_collections.groundwork.backend.plugins.module_utils._sets import folder_names

RECORD = "release.json"
COMPOSE, SYSTEMD = "compose", "systemd"
SETTINGS = {COMPOSE: (".env", "override.yml", "settings.json"), SYSTEMD: (".env", "settings.json")}
GOING_BACK = "going_back"  # a file beside the settings of a release: a rollback made it current, and is not done yet
OK, FAILED, ROLLED_BACK = "ok", "failed", "rolled_back"
PREVIOUS = "previous"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DERIVED_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")
_BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Deploy:
    """One deploy of a release.

    migrations: what ran, each {"database", "version", "name", "lossy": [rules]}; images: names with their tag.
    """

    number: int
    deploy: str
    deployed_at: str
    by: str
    controller: str
    result: str
    schema_versions: Mapping[str, Any] = field(default_factory=dict)
    migrations: Sequence[Mapping[str, Any]] = ()
    checkpoint: str = ""
    images: Sequence[str] = ()


@dataclass(frozen=True)
class Release:
    """A release with its deploys, oldest first.

    damaged: why the record cannot be read; absent: what is not there of the files of its settings; runtime: what it
    runs as, which says which files these are.
    """

    id: str
    deploys: tuple[Deploy, ...] = ()
    has_folder: bool = False
    absent: tuple[str, ...] = ()
    damaged: str = ""
    runtime: str = COMPOSE

    @property
    def ok(self) -> bool:
        """Whether it served, and nobody went back from it since."""
        decided = [one.result for one in self.deploys if one.result in (OK, ROLLED_BACK)]
        return decided[-1:] == [OK]

    @property
    def last(self) -> Deploy | None:
        """The deploy that counts: the newest good one; the newest when none was good."""
        good = [one for one in self.deploys if one.result == OK]
        return next(reversed(good or self.deploys), None)

    @property
    def number(self) -> int:
        """Its place in the order of deploys; 0 when no deploy of it was recorded."""
        return self.last.number if self.last else 0

    @property
    def pruned(self) -> bool:
        """Whether only its record is left, because of the migrations in it."""
        return not self.has_folder and set(self.absent) >= set(SETTINGS[self.runtime])

    def summary(self) -> dict[str, Any]:
        """What release.json says first, for people and for playbooks."""
        last = self.last
        result = None if last is None else ROLLED_BACK if last.result == OK and not self.ok else last.result
        return {
            "id": self.id,
            "number": self.number,
            "deployed_at": last.deployed_at if last else None,
            "by": last.by if last else None,
            "controller": last.controller if last else None,
            "result": result,
            "schema_versions": dict(last.schema_versions) if last else {},
            "migrations": [dict(migration) for one in self.deploys for migration in one.migrations],
            "checkpoint": last.checkpoint if last else "",
            "images": list(last.images) if last else [],
        }


def check_id(text: str) -> str:
    """A release id, which is a folder's name and an image's tag. Raises InputError."""
    if not _NAME.fullmatch(text):
        raise InputError(f"{text!r} is no id of a release.", fix="Use lower-case letters, digits, '.', '_' and '-'.")
    return text


def linked(path: Path, name: str) -> str:
    """The release that the link *name* (current, project) points to; empty when there is no such link."""
    link = path / name
    with os_errors(f"read {link}"):
        return link.readlink().name if link.is_symlink() else ""


def read_releases(path: Path, runtime: str = COMPOSE) -> list[Release]:
    """The releases of a stack, newest deploy first, also those of which only the record is left.

    A folder is a release's when it has a record, or a name that was derived from a source. Raises StateError.
    """
    sources, settings = set(folder_names(path / "releases")), set(folder_names(path / "shared"))
    found = []
    for name in sources | settings:
        recorded = name in settings and (path / "shared" / name / RECORD).is_file()
        if _NAME.fullmatch(name) and (recorded or _DERIVED_ID.fullmatch(name)):
            found.append(_read(path, name, recorded, runtime))
    return sorted(found, key=lambda one: (one.number, one.id), reverse=True)


def record(path: Path, release_id: str, entry: Deploy, runtime: str = COMPOSE) -> tuple[Release, bool]:
    """Add a deploy to a release's history: the release, and whether anything changed. The number is given here.

    A second entry of the same deploy replaces the first, and keeps its number, time and migrations. Raises StateError.
    """
    folder = path / "shared" / release_id
    if not (path / "shared").is_dir():
        raise StateError(
            f"There is no folder {path / 'shared'} for releases.", fix="Check path; the role app makes it."
        )

    def busy() -> GroundworkError:
        return StateError(f"Another process writes records in {path / 'shared'}.", fix="Run again.")

    with directory_lock(path / "shared", busy, wait_seconds=_BUSY_SECONDS):
        known = read_releases(path, runtime)
        before = next((one for one in known if one.id == release_id), Release(release_id))
        highest = max((deploy.number for one in known for deploy in one.deploys), default=0)
        release = with_entry(before, entry, highest + 1)
        if release == before:
            return before, False
        with os_errors(f"create {folder}"):
            folder.mkdir(mode=0o700, exist_ok=True)
        data = {**release.summary(), "deploys": [asdict(one) for one in release.deploys]}
        write_file(folder / RECORD, json.dumps(data, indent=1).encode() + b"\n")
    return release, True


def with_entry(release: Release, entry: Deploy, number: int) -> Release:
    """The release with one more deploy, or with the entry of that deploy replaced; pure."""
    same = next((one for one in release.deploys if entry.deploy and one.deploy == entry.deploy), None)
    if same is None:
        return replace(release, deploys=(*release.deploys, replace(entry, number=number)), damaged="")
    merged = [*same.migrations, *(one for one in entry.migrations if one not in same.migrations)]
    new = replace(
        entry,
        number=same.number,
        deployed_at=same.deployed_at,
        migrations=merged,
        checkpoint=entry.checkpoint or same.checkpoint,
    )
    deploys = tuple(new if one is same else one for one in release.deploys)
    return replace(release, deploys=deploys)


def _read(path: Path, name: str, recorded: bool, runtime: str) -> Release:
    settings = path / "shared" / name
    with os_errors(f"read {settings}"):
        absent = tuple(file for file in SETTINGS[runtime] if not (settings / file).is_file())
        release = Release(name, (), name in folder_names(path / "releases"), absent, runtime=runtime)
        data = (settings / RECORD).read_bytes() if recorded else b""
    if not recorded:
        return release
    try:
        found = json.loads(data)
        if found["id"] != name:
            raise ValueError(f"it is the record of {found['id']}")
        return replace(release, deploys=tuple(Deploy(**one) for one in found["deploys"]))
    except (ValueError, TypeError, KeyError) as error:
        return replace(release, damaged=f"{settings / RECORD} cannot be read: {error}")
