# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Make what was restored the live collections, and take that back: renames inside of one database.

The server does one rename at once and as one step, and not several of them. So each half of a swap is written down
before it begins, and within one half every name tells whether it had its turn: a run that was cut off is finished, or
taken back, by a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import (
    NAMESPACE_NOT_FOUND,
    Server,
    code_of,
    server_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import VIEW
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import (
    BEFORE,
    REVERTED,
    Family,
    free_family,
    is_restores,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import definitions, drop, kinds
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import (
    LIVE,
    PLACING,
    RETURNING,
    REVERTING,
    SURE,
    SWAPPING,
    TAKEN_BACK,
    Place,
    Record,
)


@dataclass(frozen=True)
class Move:
    """A collection or view that gets another name in its database."""

    kind: str
    old: str
    new: str

    def words(self, database: str) -> str:
        """For the result."""
        return f"rename {self.kind} {database}.{self.old} to {self.new}"


def live_names(found: Mapping[str, str]) -> list[str]:
    """What is the application's own, of kinds by name."""
    return sorted(name for name in found if not name.startswith("system.") and not is_restores(name))


def moves(found: Mapping[str, str], names: Mapping[str, str]) -> list[Move]:
    """What is left to do of old name -> new name: views come last, as they show collections."""
    left = [Move(found[old], old, new) for old, new in names.items() if old in found]
    return sorted(left, key=lambda move: (move.kind == VIEW, move.old))


@dataclass
class Swap:
    """A swap or what takes it back, from wherever an earlier run was cut off. actions grows; check_mode: only that."""

    place: Place
    work: Work
    actions: list[str]
    check_mode: bool

    def forwards(self, staged: Mapping[str, str], counts: Mapping[str, int], check: Callable[[], None]) -> None:
        """Make what is staged live. staged: kinds by name, of what is or would be staged; check: of what is live then.

        Until *check* holds, the swap is one that was cut off.
        """
        place = self.place
        found = kinds(place.server, place.database)
        record = place.record()
        if record is None or record.state not in (SWAPPING, PLACING):
            number = free_family(place.database, BEFORE, place.set_id, found).number
            record = Record(SWAPPING, counts, tuple(live_names(found)), number)
            self._say(record)
        if record.state == SWAPPING:
            before = place.family(BEFORE, record.before)
            names = {name: before.name(name) for name in record.aside}
            # Somebody has made it since its like was set aside, as a program does that came back meanwhile.
            found = self._clear(found, names)
            self._carry_out(found, names)
            record = replace(record, state=PLACING)
            self._say(record)
        there = {place.staged_name(name): kind for name, kind in staged.items()}
        if not self.check_mode:
            there = {name: kind for name, kind in found.items() if name in there}
            self._clear(kinds(place.server, place.database), {name: place.staged_name(name) for name in staged})
        self._carry_out(there, {place.staged_name(name): name for name in staged})
        if not self.check_mode:
            check()
        self.actions.append(f"finish the swap of set {place.set_id} in {place.database}")
        self._say(replace(record, state=LIVE))

    def backwards(self, record: Record) -> None:
        """Make live what was live before the swap. What is live by now waits as a family of kind REVERTED."""
        place = self.place
        found = kinds(place.server, place.database)
        if record.state in (PLACING, LIVE) and (gone := self._gone(record, found)):
            raise StateError(
                f"{', '.join(gone)} of {place.database!r}, which was live before, is gone, so the swap cannot be taken "
                "back.",
                fix="Restore another set.",
            )
        if record.state in (SWAPPING, PLACING, LIVE):
            number = free_family(place.database, REVERTED, place.set_id, found).number
            record = replace(record, state=RETURNING if record.state == SWAPPING else REVERTING, reverted=number)
            self._say(record)
        before, away = place.family(BEFORE, record.before), place.family(REVERTED, record.reverted)
        if record.state == REVERTING:
            names = live_names(found)
            self._carry_out(found, self._free(found, names, away))
            record = replace(record, state=RETURNING)
            self._say(record)
            if self.check_mode:
                found = {name: kind for name, kind in found.items() if name not in names}
            else:
                found = kinds(place.server, place.database)
        back = {before.name(name): name for name in record.aside if before.name(name) in found}
        # Somebody has made it since its like was set aside.
        self._carry_out(found, self._free(found, [name for name in back.values() if name in found], away))
        self._carry_out(found, back)
        self.actions.append(f"finish taking back set {place.set_id} in {place.database}")
        self._say(replace(record, state=TAKEN_BACK))

    def _clear(self, found: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
        """Set aside what has one of the *names*, beside all that was before, where their other name is taken as well.

        What is left of *found*. A view under both its names is one that was about to be moved.
        """
        away = free_family(self.place.database, BEFORE, self.place.set_id, found)
        new = [name for name, other in names.items() if other in found and found.get(name, VIEW) != VIEW]
        self._carry_out(found, {name: away.name(name) for name in new})
        return {name: kind for name, kind in found.items() if name not in new}

    def _free(self, found: Mapping[str, str], names: Iterable[str], away: Family) -> dict[str, str]:
        """Each name with the one of *away*, or of a new family where that is taken by its like of before."""
        other = free_family(self.place.database, REVERTED, self.place.set_id, found)
        taken = {name for name in names if away.name(name) in found and found[name] != VIEW}
        return {name: (other if name in taken else away).name(name) for name in names}

    def _gone(self, record: Record, found: Mapping[str, str]) -> list[str]:
        """What was set aside, and somebody has dropped since."""
        names = map(self.place.family(BEFORE, record.before).name, record.aside)
        return [name for name in names if name not in found]

    def _say(self, record: Record) -> None:
        if not self.check_mode:
            self.place.say(record)

    def _carry_out(self, found: Mapping[str, str], names: Mapping[str, str]) -> None:
        for move in moves(found, names):
            self.actions.append(move.words(self.place.database))
            if not self.check_mode:
                self.work.tell(move.old, 0)
                with _interrupted(self.place.database):
                    _move(self.place.server, self.place.database, move)


@contextmanager
def _interrupted(database: str) -> Iterator[None]:
    """Add to an error what it leaves."""
    try:
        yield
    except GroundworkError as error:
        raise type(error)(
            error.problem,
            fix=f"{error.fix} Some collections of {database} may be restored ones now: run action swap again, which "
            "goes on, or action revert, which puts back what was live.".strip(),
            **error.details,
        ) from None


def _move(server: Server, database: str, move: Move) -> None:
    if move.kind == VIEW:
        _move_view(server, database, move)
        return
    names = {"renameCollection": f"{database}.{move.old}", "to": f"{database}.{move.new}", "writeConcern": SURE}
    try:
        with server_errors(f"rename {database}.{move.old} to {move.new}"):
            server.client.admin.command(names)
    except StateError as error:
        # The server goes on with a rename whose client was killed: then it has just ended.
        found = kinds(server, database)
        if code_of(error) != NAMESPACE_NOT_FOUND or move.old in found or move.new not in found:
            raise


def _move_view(server: Server, database: str, move: Move) -> None:
    """A view cannot be renamed, and is its definition: it is made under its new name before the old one goes."""
    there = {one.name: one for one in definitions(server, database, {move.old, move.new}.__contains__)}
    view, made = there.get(move.old), there.get(move.new)
    if view is None:
        return
    if made is None or (made.kind, made.options) != (VIEW, view.options):
        with server_errors(f"make view {database}.{move.new}"):
            server.client[database].command({"create": move.new, **view.options})
    drop(server, database, move.old)
