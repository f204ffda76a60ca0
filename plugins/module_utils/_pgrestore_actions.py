# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The actions of pg_restore: each looks what there is, says what it does, and does it unless it is check mode."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _pgrestore_stage, _pgrestore_swap
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import (
    BEFORE,
    LIVE,
    REVERTED,
    STAGED,
    Dump,
    Names,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_load import container_folder, remove_copy
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Database, Server
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_space import require_room, room
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress

_MOST_JOBS = 4


@dataclass
class Run:
    """One call of the module: what it restores, where, and what it has done so far.

    found: what is restored; None when the set is gone or damaged, for an action of BY_NAME.
    """

    context: Context
    names: Names
    found: Dump | None
    server: Server
    major: int
    progress: Progress
    actions: list[str] = field(default_factory=list)
    ended_sessions: int = 0

    @property
    def dump(self) -> Dump:
        """What is restored."""
        if self.found is None:
            raise StateError(f"Set {self.names.set_id} cannot be read.", fix="Use another set.")
        return self.found

    def result(self, before: Mapping[str, Database], after: Mapping[str, Database], **more: Any) -> dict[str, Any]:
        """The result, from what there was and what there is, or in check mode would be."""
        names = self.names
        live = after.get(names.database)
        from_set = _is_live(names, live)
        staged = self.context.params["target"] or names.staged
        return {
            "changed": bool(self.actions),
            "database": names.database,
            "staged": staged if staged in after else None,
            "before": live.mark.before if live and live.mark and from_set else None,
            "live_from_set": from_set,
            "actions": self.actions,
            "diff": {"before": self._told(before), "after": self._told(after)},
            **more,
        }

    def _told(self, databases: Mapping[str, Database]) -> dict[str, dict[str, str]]:
        names = self.names
        own = {names.database, names.staged, self.context.params["target"]}
        told = {}
        for name, database in databases.items():
            mark = database.mark
            if name in own or (mark is not None and mark.set_id == names.set_id and mark.database == names.database):
                told[name] = mark.state if mark is not None else "live" if name == names.database else "there"
        return {"databases": told}


def stage(run: Run) -> dict[str, Any]:
    """Restore into a new database and check it."""
    databases = run.server.databases()
    after, extensions = _stage(run, databases)
    return run.result(databases, after, counts=dict(run.dump.counts), extensions=extensions)


def measure(run: Run) -> dict[str, Any]:
    """Tell whether there is room, and change nothing."""
    databases = run.server.databases()
    return run.result(databases, databases, space=_room(run, _job(run), databases))


def restore(run: Run) -> dict[str, Any]:
    """Stage, then swap."""
    names = run.names
    databases = run.server.databases()
    live = databases.get(names.database)
    done = _is_live(names, live) and names.staged not in databases and not run.context.params["again"]
    if live is not None and not done and not run.context.params["force"]:
        raise StateError(
            f"Database {names.database!r} exists, and the restored one would take its place.",
            fix=f"Set force: true; the present one is kept as {_free(names.before, databases)}.",
        )
    after, extensions = _stage(run, databases)
    if not done:
        after = _swap(run, after)
    counts = dict(run.dump.counts)
    return run.result(databases, after, counts=counts, extensions=extensions, ended_sessions=run.ended_sessions)


def swap(run: Run) -> dict[str, Any]:
    """Make the staged database the live one."""
    databases = run.server.databases()
    return run.result(databases, _swap(run, databases), ended_sessions=run.ended_sessions)


def revert(run: Run) -> dict[str, Any]:
    """Make the database live again that was before the swap."""
    names, params = run.names, run.context.params
    databases = run.server.databases()
    live = databases.get(names.database)
    if live is None or not _is_live(names, live):
        return run.result(databases, databases, ended_sessions=0)
    if names.staged in databases:
        raise StateError(
            f"Database {names.staged!r} exists, whose name the live database would get.",
            fix="Run action: discard first, which drops it.",
        )
    kept = live.mark.before if live.mark else None
    before = databases.get(kept) if kept else None
    if kept and before is None:
        raise StateError(f"Database {kept!r}, which was live before, is gone, so the swap cannot be taken back.")
    run.actions.append(f"rename database {names.database} to {names.staged}")
    if before is not None:
        run.actions.append(f"rename database {before.name} to {names.database}")
    if run.context.check_mode:
        after = dict(databases)
        after[names.staged] = Database(names.staged, live.comment, names.mark(REVERTED))
        del after[names.database]
        if before is not None:
            del after[before.name]
            after[names.database] = Database(names.database, before.comment, None)
        return run.result(databases, after, ended_sessions=0)
    run.ended_sessions = _pgrestore_swap.revert(run.server, names, live, before, drain=params["drain_seconds"])
    return run.result(databases, run.server.databases(), ended_sessions=run.ended_sessions)


def discard(run: Run) -> dict[str, Any]:
    """Drop the staged database, and the kept ones when asked to."""
    names, params = run.names, run.context.params
    databases = run.server.databases()
    after = dict(databases)
    staged = databases.get(names.staged)
    if staged is not None and staged.mark is None and not run.server.is_empty(names.staged):
        raise StateError(
            f"Database {names.staged!r} was not made by pg_restore.", fix="Look what it is, and drop it yourself."
        )
    if params["keep_reverted"] and staged is not None and staged.mark == names.mark(REVERTED):
        after = _keep_reverted(run, staged, databases)
        staged = None
    doomed = [staged.name] if staged is not None else []
    if params["before"]:
        doomed += [name for name, database in databases.items() if database.mark and _is_before(names, database)]
    for name in doomed:
        run.actions.append(f"drop database {name}")
        del after[name]
        if not run.context.check_mode:
            run.server.drop(name)
    if params["before"]:
        after = _finish(run, databases, after)
    container = params["container"]
    if container and not run.context.check_mode:
        remove_copy(container, container_folder(params["container_tmp"], names.staged))
    return run.result(databases, after)


def finish(run: Run) -> dict[str, Any]:
    """Let the live database be no longer one whose swap can be taken back."""
    databases = run.server.databases()
    return run.result(databases, _finish(run, databases, databases))


ACTIONS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "restore": restore,
    "measure": measure,
    "stage": stage,
    "swap": swap,
    "revert": revert,
    "discard": discard,
    "finish": finish,
}
BY_NAME = ("revert", "discard", "finish")  # they need names, and nothing of the set


def _stage(run: Run, databases: dict[str, Database]) -> tuple[dict[str, Database], dict[str, str]]:
    names, params = run.names, run.context.params
    job = _job(run)
    if _pgrestore_stage.is_staged(job, databases):
        return databases, {}
    fresh = job.target is None and job.name not in databases and not params["again"]
    if fresh and _is_live(names, databases.get(names.database)):
        run.context.warn(
            f"Database {names.database!r} came from set {names.set_id} already and is not restored again. What was "
            "written into it since then is kept; to restore the set once more, set again: true."
        )
        return databases, {}
    steps = _pgrestore_stage.plan(job, run.server, databases)
    _room(run, job, databases)
    run.actions += steps.actions
    if run.context.check_mode:
        _pgrestore_stage.verify(job)
        return {**databases, job.name: Database(job.name, None, job.mark(STAGED))}, {}
    extensions = _pgrestore_stage.stage(job, run.server, run.major, steps)
    return run.server.databases(), extensions


def _room(run: Run, job: _pgrestore_stage.Job, databases: Mapping[str, Database]) -> dict[str, Any] | None:
    """What there is and what is needed; None when nobody wants to know. Raises StateError."""
    if not run.context.params["check_space"]:
        return None
    found = room(job.dump, run.server, run.context.params, job.name if job.name in databases else None)
    require_room(job.name, found)
    return found


def _swap(run: Run, databases: dict[str, Database]) -> dict[str, Database]:
    names, params = run.names, run.context.params
    live, staged = databases.get(names.database), databases.get(names.staged)
    if staged is None:
        if _is_live(names, live):
            return databases
        raise StateError(
            f"There is no database {names.staged!r} to make the live one.", fix="Run action: stage first, or restore."
        )
    if staged.mark != names.mark(STAGED):
        raise StateError(
            f"Database {names.staged!r} is not complete"
            f"{f' (its state is {staged.mark.state})' if staged.mark else ', or was not made by pg_restore'}.",
            fix="Run action: stage again, which makes it anew.",
        )
    before = _free(names.before, databases)
    if live is not None:
        run.actions.append(f"rename database {live.name} to {before}")
    run.actions.append(f"rename database {staged.name} to {names.database}")
    if run.context.check_mode:
        after = {name: database for name, database in databases.items() if name != staged.name}
        if live is not None:
            after[before] = Database(before, live.comment, names.mark(BEFORE))
        mark = names.mark(LIVE, before if live else None)
        after[names.database] = Database(names.database, staged.comment, mark)
        return after
    run.ended_sessions = _pgrestore_swap.swap(
        run.server, names, live, staged, before=before, drain=params["drain_seconds"]
    )
    return run.server.databases()


def _finish(run: Run, databases: Mapping[str, Database], after: Mapping[str, Database]) -> dict[str, Database]:
    names = run.names
    live = databases.get(names.database)
    if live is None or not _is_live(names, live):
        return dict(after)
    run.actions.append(f"make the restore of database {names.database} final")
    if not run.context.check_mode:
        run.server.say(live, None)
    return {**after, names.database: Database(live.name, live.comment, None)}


def _keep_reverted(run: Run, reverted: Database, databases: Mapping[str, Database]) -> dict[str, Database]:
    name = _free(run.names.reverted, databases)
    run.actions.append(f"rename database {reverted.name} to {name}")
    run.context.warn(
        f"Database {name!r} is what was live of {run.names.database!r} until a restore was taken back. It is kept: "
        "look whether something was written into it that you need, and drop it."
    )
    if not run.context.check_mode:
        _pgrestore_swap.keep(run.server, reverted, name)
    after = {other: database for other, database in databases.items() if other != reverted.name}
    return {**after, name: Database(name, reverted.comment, reverted.mark)}


def _job(run: Run) -> _pgrestore_stage.Job:
    params = run.context.params
    jobs = params["jobs"]
    if jobs is None:
        streamed = params["container"] is not None and run.dump.format == "custom"
        jobs = 1 if streamed else min(_MOST_JOBS, os.cpu_count() or 1)
    if jobs < 1:
        raise InputError(f"jobs is {jobs}.", fix="Set it to 1 or more.")
    return _pgrestore_stage.Job(
        dump=run.dump,
        names=run.names,
        target=params["target"],
        jobs=jobs,
        roles=params["roles"],
        analyze=params["target"] is None if params["analyze"] is None else params["analyze"],
        keep_failed=params["keep_failed"],
        force=params["force"],
        temporary=params["container_tmp"],
        progress=run.progress,
        warn=run.context.warn,
    )


def _is_live(names: Names, live: Database | None) -> bool:
    """Whether the live database came from this set, and the restore is not final."""
    return live is not None and live.mark is not None and live.mark == names.mark(LIVE, live.mark.before)


def _is_before(names: Names, database: Database) -> bool:
    return database.mark == names.mark(BEFORE)


def _free(name: Callable[[int], str], databases: Mapping[str, Database]) -> str:
    return next(free for free in map(name, itertools.count(1)) if free not in databases)
