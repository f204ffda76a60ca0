# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Remove old releases: images first, the record last, so that the next time does what was cut off."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._releases import OK, RECORD, Release
from ansible_collections.groundwork.backend.plugins.module_utils._releases_back import previous
from ansible_collections.groundwork.backend.plugins.module_utils._releases_engine import Image, remove_image
from ansible_collections.groundwork.backend.plugins.module_utils._sets import folder_names

_PARTIAL, _REMOVED = ".partial-", ".removed-"
_PARTIAL_SECONDS = 3600


@dataclass(frozen=True)
class Plan:
    """releases: to remove, each with whether its record stays; records: old records to remove; kept: id -> why."""

    releases: Mapping[str, bool]
    records: Sequence[str]
    images: Sequence[Image]
    leftovers: Sequence[Path]
    kept: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.releases or self.records or self.leftovers)


def plan(
    releases: Sequence[Release],
    *,
    keep: int,
    links: Mapping[str, str],
    used: Mapping[str, Sequence[str]],
    images: Sequence[Image],
    leftovers: Sequence[Path],
) -> Plan:
    """What goes and what stays; pure. links: name of a link -> release; used: release -> containers."""
    here = [one for one in releases if not one.pruned]
    served = sorted((one for one in here if one.last and one.last.result == OK), key=_number, reverse=True)
    kept = {one.id: "one of the newest" for one in served[:keep]}
    if before := previous(here, links.get("current", "")):
        kept[before.id] = "previous"
    kept |= {one.id: f"used by {', '.join(used[one.id])}" for one in here if used.get(one.id)}
    kept |= {one.id: one.damaged for one in here if one.damaged}
    kept |= {target: name for name, target in reversed(list(links.items())) if target}
    gone = [one for one in here if one.id not in kept]
    oldest = min((one.number for one in here if one.id in kept), default=0)
    # A lossy migration matters as long as there is a release from before it to go back to.
    lossy = {
        one.id: any(
            migration.get("lossy") and deploy.number > oldest
            for deploy in one.deploys
            for migration in deploy.migrations
        )
        for one in releases
    }
    return Plan(
        releases={one.id: lossy[one.id] for one in gone},
        records=[one.id for one in releases if one.pruned and not lossy[one.id] and not one.damaged],
        images=[image for image in images if image.tag in {one.id for one in gone}],
        leftovers=leftovers,
        kept={one.id: kept[one.id] for one in here if one.id in kept},
    )


def leftovers(path: Path) -> list[Path]:
    """What an interrupted copy (for more than an hour) or an interrupted removal left."""
    found = []
    for parent in (path / "releases", path / "shared"):
        for name in sorted(folder_names(parent)):
            stale = name.startswith(_PARTIAL) and _seconds_idle(parent / name) > _PARTIAL_SECONDS
            if stale or name.startswith(_REMOVED):
                found.append(parent / name)
    return found


def carry_out(path: Path, planned: Plan) -> dict[str, str]:
    """Remove what is planned; the releases that stayed because Docker would not let go of an image, with the reason."""
    stayed: dict[str, str] = {}
    for folder in planned.leftovers:
        _remove_tree(folder)
    for release, record_stays in planned.releases.items():
        names = [image.name for image in planned.images if image.tag == release]
        if refused := " ".join(filter(None, map(remove_image, names))):
            stayed[release] = refused
            continue
        _remove(path / "releases" / release)
        if record_stays:
            _empty(path / "shared" / release)
        else:
            _remove(path / "shared" / release)
    for release in planned.records:
        _remove(path / "shared" / release)
    return stayed


def _number(release: Release) -> int:
    return release.number


def _seconds_idle(folder: Path) -> float:
    """Since the last change inside, by ctime: rsync sets the other time stamps to those of the source."""
    newest = 0.0
    with os_errors(f"read {folder}"):
        for parent, folders, files in os.walk(folder):
            for name in ("", *folders, *files):
                try:
                    newest = max(newest, os.lstat(Path(parent, name)).st_ctime)
                except FileNotFoundError:
                    newest = time.time()  # somebody works in there
    return time.time() - newest


def _empty(folder: Path) -> None:
    """Remove everything but the record."""
    with os_errors(f"empty {folder}"):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != RECORD:
                entry.unlink()


def _remove(folder: Path) -> None:
    """By a rename first: half of a folder never has the name of a release."""
    if folder.is_symlink() or not folder.is_dir():
        return
    aside = folder.with_name(f"{_REMOVED}{folder.name}")
    if aside.exists():
        _remove_tree(aside)
    with os_errors(f"remove {folder}"):
        folder.rename(aside)
    _remove_tree(aside)


def _remove_tree(folder: Path) -> None:
    with os_errors(f"remove {folder}"):
        shutil.rmtree(folder)
