# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What mongo_restore requires of a database before it changes anything there; each raises StateError."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import find_unmovable
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import RESTORE
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import definitions, kinds
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_version import series
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore import Dump, Part
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import (
    CUT_OFF,
    LIVE,
    Place,
    Record,
    is_target,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_swap import live_names


def require_whole(place: Place) -> None:
    """That no collections of this restore are half swapped."""
    record = place.record()
    if record is not None and record.state in CUT_OFF:
        raise _cut_off(place, place.set_id, record)


def require_others_whole(place: Place) -> list[str]:
    """That those of no other restore are; the ones of which the swap can still be taken back."""
    others = place.others()
    for key, other in others.items():
        if other.state in CUT_OFF:
            raise _cut_off(place, key, other)
    return [key for key, other in others.items() if other.state == LIVE]


def require_ours(place: Place, *, force: bool) -> None:
    """Where there is no record, that nothing has a name of this restore, or the target may be overwritten."""
    found = kinds(place.server, place.database)
    if not place.beside:
        if found and not force and not is_target(place.server, place.database):
            raise StateError(f"The target {place.database!r} exists already.", fix="Use another name, or force: true.")
    elif names := place.family(RESTORE).members(found):
        raise not_made_here(f"{place.database}.{names[0]}")


def require_restorable(place: Place, parts: Sequence[Part]) -> None:
    """That the server takes what is restored, and that it can be made live later."""
    server = place.server
    if not server.hello.get("isWritablePrimary", True):
        raise StateError(
            f"MongoDB at {server.place} is not the primary of its replica set, and only that takes what is restored.",
            fix="Log in to the primary.",
        )
    if not place.beside:
        return
    if server.hello.get("msg") == "isdbgrid":
        raise StateError(
            f"MongoDB at {server.place} is the router of a sharded cluster, and what takes the place of a sharded "
            "collection would be sharded no more.",
            fix="Restore this set with mongorestore.",
        )
    if held := find_unmovable(part.definition for part in parts):
        raise StateError(
            f"MongoDB cannot rename {', '.join(held)} (a time series, encrypted, or the server's own), so it cannot be "
            "restored beside what is live.",
            fix="Restore this set with mongorestore.",
        )
    require_movable(place)


def require_movable(place: Place) -> None:
    """That what is live can be set aside."""
    live = live_names(kinds(place.server, place.database))
    if held := find_unmovable(definitions(place.server, place.database, live.__contains__)):
        raise StateError(
            f"MongoDB cannot rename {', '.join(held)} of {place.database!r} (a time series, or encrypted), so it "
            "cannot be set aside.",
            fix="Save it and drop it, or restore this set with mongorestore.",
        )


def age_warning(place: Place, dump: Dump) -> str:
    """What to say when the server is of an older series than the one that was dumped; empty when it is not."""
    dumped = dump.component.facts.get("server_version")
    with suppress(InputError):  # a version that says nothing
        if isinstance(dumped, str) and series(place.server.version) < series(dumped):
            return (
                f"The backup is of MongoDB {dumped}, and this server is older ({place.server.version}): it may not "
                "know an option or an index of the collections, and MongoDB does not support that way."
            )
    return ""


def not_made_here(name: str) -> StateError:
    """The error for what somebody else has made."""
    return StateError(
        f"{name!r} exists already and was not made by mongo_restore.", fix="Look what it is; drop it, then run again."
    )


def _cut_off(place: Place, what: str, record: Record) -> StateError:
    action = CUT_OFF[record.state]
    goes_on = "action revert, which goes on" if action == "revert" else "action swap, which goes on, or action revert"
    return StateError(
        f"A {action} of set {what} in {place.database!r} was cut off, and is to be finished first.",
        fix=f"Run {goes_on}, with that set.",
    )
