# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What each action of mongo_restore does; the state of a restore is in the database itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import VIEW
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import BEFORE, RESTORE, REVERTED, Family
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import drop, kinds
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_checks import (
    age_warning,
    not_made_here,
    require_movable,
    require_others_whole,
    require_ours,
    require_restorable,
    require_whole,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import (
    CUT_OFF,
    LIVE,
    PLACING,
    STAGED,
    SWAPPING,
    TAKEN_BACK,
    Place,
    Record,
    is_target,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_roles import create, missing
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_space import require_room, room
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import Stage, drop_staged
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_swap import Swap, live_names


@dataclass
class Run:
    """One run: where it works, what it restores (None when the set is gone, for an action of BY_NAME), what it did."""

    place: Place
    found: Stage | None
    params: Mapping[str, Any]
    check_mode: bool
    work: Work
    warn: Callable[[str], None]
    actions: list[str] = field(default_factory=list)
    counts: dict[str, int] | None = None

    @property
    def stage(self) -> Stage:
        """What is restored."""
        if self.found is None:
            raise StateError(f"Set {self.place.set_id} cannot be read.", fix="Use another set.")
        return self.found

    @property
    def record(self) -> Record | None:
        """What this restore has left in the database."""
        return self.place.record()

    def result(self, *, staged: bool, live: Record | None = None, **more: Any) -> dict[str, Any]:
        """What every action returns. staged: whether what was restored waits afterwards; live: the record when it does
        not wait any more, and can be taken back."""
        place = self.place
        waits = _told(place.family(RESTORE)) if place.beside else place.database
        return {
            "changed": bool(self.actions),
            "database": place.database,
            "staged": waits if staged else None,
            "before": _told(place.family(BEFORE, live.before)) if live and live.aside else None,
            "live_from_set": live is not None,
            "counts": self.counts,
            "actions": self.actions,
            **more,
        }


def restore(run: Run) -> dict[str, Any]:
    """Stage, then swap; goes on with a swap that was cut off."""
    place = run.place
    if not run.params["force"] and live_names(kinds(place.server, place.database)):
        raise StateError(
            f"Database {place.database!r} is there, and a restore takes the place of what it holds.",
            fix="Set force: true to replace it, or use action stage, which leaves it alone.",
        )
    if _state(run) not in (SWAPPING, PLACING):
        _stage(run)
    return _swap(run)


def measure(run: Run) -> dict[str, Any]:
    """Tell whether there is room, and change nothing."""
    return run.result(staged=_state(run) == STAGED, live=_live(run), space=_room(run))


def stage(run: Run) -> dict[str, Any]:
    """Restore beside the live collections, or into the target."""
    _stage(run)
    return run.result(staged=True)


def swap(run: Run) -> dict[str, Any]:
    """Make what is staged live, or go on with that."""
    state = _state(run)
    if state == LIVE:
        return run.result(staged=False, live=_live(run))
    if state not in (STAGED, SWAPPING, PLACING):
        raise StateError(
            f"Nothing of set {run.place.set_id} is complete beside {run.place.database!r}, to be swapped with it.",
            fix="Run action stage first.",
        )
    return _swap(run)


def revert(run: Run) -> dict[str, Any]:
    """Make live what was live before the swap."""
    record = run.record
    if record is None or record.state not in (*CUT_OFF, LIVE):
        return run.result(staged=record is not None and record.state == STAGED)
    Swap(run.place, Work(run.work.progress, "revert"), run.actions, run.check_mode).backwards(record)
    return run.result(staged=False)


def discard(run: Run) -> dict[str, Any]:
    """Drop what was staged or is live no more, and what was live before when asked to."""
    place = run.place
    require_whole(place)
    if not place.beside:
        return _discard_target(run)
    found, record = kinds(place.server, place.database), run.record
    if record is None:
        require_ours(place, force=run.params["force"])
    _drop(run, place.family(RESTORE).members(found), place.family(RESTORE))
    if record is not None and record.state == TAKEN_BACK:
        away = place.family(REVERTED, record.reverted)
        if not run.params["keep_reverted"]:
            _drop(run, away.members(found), away)
        elif away.members(found):
            run.warn(
                f"{_told(away)} is what was live until a restore was taken back. It is kept: look whether something "
                "was written into it that you need, and drop it."
            )
    if run.params["before"]:
        _drop(run, place.family(BEFORE).all_numbers(found), place.family(BEFORE))
    if record is not None and (record.state != LIVE or run.params["before"]):
        _forget(run, "forget the restore of" if record.state != LIVE else "make final the restore of")
    return run.result(staged=False, live=None if run.params["before"] else _live(run))


def finish(run: Run) -> dict[str, Any]:
    """Let the swap be one that cannot be taken back."""
    if _state(run) == LIVE:
        _forget(run, "make final the restore of")
    return run.result(staged=False)


ACTIONS: Mapping[str, Callable[[Run], dict[str, Any]]] = {
    "restore": restore,
    "measure": measure,
    "stage": stage,
    "swap": swap,
    "revert": revert,
    "discard": discard,
    "finish": finish,
}
BY_NAME = ("revert", "discard", "finish")  # they need names, and nothing of the set


def _stage(run: Run) -> None:
    job, place = run.stage, run.place
    require_whole(place)
    record = run.record
    again = run.params["force"] and not place.beside
    if record is not None and record.state == STAGED and record.target != place.beside and not again:
        run.counts = dict(record.counts)
        return
    if record is None or not place.beside:
        require_ours(place, force=run.params["force"])
    require_restorable(place, job.parts)
    if old := age_warning(place, job.dump):
        run.warn(old)
    _room(run)
    _roles(run)
    left = _leftovers(run, record)
    if left:
        run.actions.append(left)
    if record is not None and record.state == LIVE:  # an earlier restore of the same set; its record goes with the rest
        run.actions.append(f"make final the restore of set {place.set_id} in {place.database}")
    views = sum(part.definition.kind == VIEW for part in job.parts)
    where = _told(place.family(RESTORE)) if place.beside else place.database
    run.actions.append(f"restore {len(job.parts) - views} collections and {views} views into {where}")
    if run.check_mode:
        job.dump.verify()
        run.counts = dict(job.dump.counts)
    else:
        if record is not None and record.state == TAKEN_BACK:
            _drop(run, _members(run, REVERTED, record.reverted), None)
        run.counts = job.run()


def _swap(run: Run) -> dict[str, Any]:
    job, place = run.stage, run.place
    require_movable(place)
    if final := require_others_whole(place):
        run.actions.append(f"make final the restore of {', '.join(final)}")
        if not run.check_mode:
            place.forget(*final)
    record = run.record
    if run.counts is None and record is not None:
        run.counts = dict(record.counts)
    if not run.check_mode and record is not None and record.state == STAGED:
        job.require_equal(live=False)  # somebody may have dropped a part of it since
    staged = {part.definition.name: part.definition.kind for part in job.parts}
    work = Work(run.work.progress, "swap")
    swap = Swap(place, work, run.actions, run.check_mode)
    swap.forwards(staged, run.counts or {}, check=lambda: job.require_equal(live=True))
    return run.result(staged=False, live=_live(run))


def _discard_target(run: Run) -> dict[str, Any]:
    place = run.place
    if kinds(place.server, place.database):
        if not is_target(place.server, place.database):
            raise not_made_here(place.database)
        run.actions.append(f"drop database {place.database}")
        if not run.check_mode:
            drop_staged(place)
    return run.result(staged=False)


def _drop(run: Run, names: list[str], family: Family | None) -> None:
    if names and family is not None:
        run.actions.append(f"drop {len(names)} collections of {_told(family)}")
    for name in names:
        if not run.check_mode:
            drop(run.place.server, run.place.database, name)


def _forget(run: Run, words: str) -> None:
    run.actions.append(f"{words} set {run.place.set_id} in {run.place.database}")
    if not run.check_mode:
        run.place.forget()


def _members(run: Run, kind: str, number: int = 1) -> list[str]:
    return run.place.family(kind, number).members(kinds(run.place.server, run.place.database))


def _leftovers(run: Run, record: Record | None) -> str:
    """What goes before a restore begins, in words."""
    place = run.place
    if not place.beside:
        return f"drop database {place.database}" if kinds(place.server, place.database) else ""
    names = _members(run, RESTORE)
    if record is not None and record.state == TAKEN_BACK:
        names += _members(run, REVERTED, record.reverted)
    return f"drop {len(names)} collections that an earlier restore has left in {place.database}" if names else ""


def _roles(run: Run) -> None:
    """Make the roles that the server does not have, and tell which users it does not have."""
    place, dump = run.place, run.stage.dump
    if not run.params["roles"] or not place.beside or place.database != dump.database:
        return
    lost = missing(dump, place.server)
    run.actions += [f"create role {role['role']} of {place.database}" for role in lost.roles]
    if not run.check_mode:
        create(place.server, place.database, lost.roles)
    if lost.users:
        run.warn(
            f"The backup has users of {place.database!r} that the server has not, and that cannot be made from it: "
            f"{', '.join(lost.users)}. Make them anew, or run mongorestore with --restoreDbUsersAndRoles."
        )


def _state(run: Run) -> str | None:
    found = run.record
    return None if found is None else found.state


def _live(run: Run) -> Record | None:
    found = run.record
    return found if found is not None and found.state == LIVE else None


def _room(run: Run) -> dict[str, Any] | None:
    """What there is and what is needed; None when nobody wants to know. Raises StateError."""
    if not run.params["check_space"]:
        return None
    found = room(run.stage.dump.component.facts.get("database_bytes"), run.place.server, run.place.database)
    require_room(run.place.database, found)
    return found


def _told(family: Family) -> str:
    return f"{family.database}.{family.prefix}*"
