# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which release a rollback goes to, and whether it may; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._releases import PREVIOUS, Release


def previous(releases: Iterable[Release], current: str) -> Release | None:
    """The newest good release that was deployed before the current one; pure.

    A current release that somebody went back from is one where a rollback was killed: the one it went to is newer.
    """
    known = list(releases)
    limit = next((one.number for one in known if one.id == current and one.number and one.ok), None)
    good = [one for one in known if one.ok and one.id != current and (limit is None or one.number < limit)]
    return max(good, key=lambda one: one.number, default=None)


def choose(releases: Sequence[Release], current: str, to: str, begun: str = "") -> Release:
    """The release that *to* means: "previous", an id, or the beginning of one. Raises InputError and StateError.

    One that is named may be the current one: of several hosts, some may have gone back already. A rollback to the
    current one that was cut off (*begun*) is what "previous" still means, so that it is ended and not gone past.
    """
    known = [one for one in releases if not one.pruned]
    listed = ", ".join(one.id for one in known) or "none"
    if to == PREVIOUS and begun:
        to = begun
    if to == PREVIOUS:
        if found := previous(known, current):
            return found
        raise StateError(
            f"There is no release to go back to: none was deployed before {current or 'now'} and is still here.",
            fix=f"Known are: {listed}.",
        )
    matching = [one for one in known if one.id == to] or [one for one in known if to and one.id.startswith(to)]
    if len(matching) != 1:
        what = "is the beginning of several releases: " + ", ".join(one.id for one in matching) + "."
        raise InputError(
            f"{to!r} {what if matching else 'is no release on this host.'}",
            fix="Give more of its id." if matching else f"Known are: {listed}.",
        )
    return matching[0]


def lost_since(releases: Iterable[Release], target: Release) -> list[dict[str, Any]]:
    """The migrations that lost something after the last good deploy of *target*, oldest first; pure.

    Each is {"release", "database", "version", "name", "rules"}. Those of failed deploys count: their migrations ran.
    """
    later = [
        (deploy.number, one.id, migration)
        for one in releases
        if one.id != target.id
        for deploy in one.deploys
        if deploy.number > target.number
        for migration in deploy.migrations
        if migration.get("lossy")
    ]
    return [
        {
            "release": release_id,
            "database": migration.get("database"),
            "version": migration.get("version"),
            "name": migration.get("name"),
            "rules": list(migration["lossy"]),
        }
        for _number, release_id, migration in sorted(later, key=lambda one: one[0])
    ]


def missing(release: Release, images: Iterable[str]) -> list[str]:
    """What of a release is not there, of its files and (given those that the engine has) of its images; pure."""
    absent = [] if release.has_folder else [f"the folder releases/{release.id}"]
    absent += [f"the file shared/{release.id}/{name}" for name in release.absent]
    there = set(images)
    needed = release.last.images if release.last else ()
    return absent + [f"the image {name}" for name in needed if name not in there]


def require_safe(target: Release, found: Sequence[Release], lost: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a release that the data of now may not suit; *lost* is of lost_since(). Raises StateError."""
    if not target.last or target.last.result != "ok":
        raise StateError(
            f"Release {target.id} never served on this host.", fix="Name another release, or set force: true."
        )
    if damaged := [one.damaged for one in found if one.damaged]:
        raise StateError(
            f"What was migrated after release {target.id} is not known: {'; '.join(damaged)}.",
            fix="When nothing was lost since, set force: true.",
        )
    if lost:
        told = "; ".join(
            f"{one['version']} {one['name']} of database {one['database']} in release {one['release']} "
            f"({', '.join(one['rules'])})"
            for one in lost
        )
        raise StateError(
            f"Release {target.id} was deployed before migrations that lost something it may need: {told}.",
            fix="Restore a backup set from before them, or set force: true when that release can work without it.",
            lost=lost,
        )
