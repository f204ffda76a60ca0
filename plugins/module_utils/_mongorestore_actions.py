# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What each action of mongo_restore does; the state of a restore is in the staged database itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import VIEW, Definition
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import definitions
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import (
    STAGED,
    STATE,
    SWAPPING,
    Stage,
    unmovable,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_swap import (
    carry_out,
    extra_names,
    plan,
    staged_definitions,
)


@dataclass
class Run:
    """One run: the stage that it is about, and what it has done. target: it is a scratch database, for itself."""

    stage: Stage
    target: bool
    force: bool
    check_mode: bool
    actions: list[str] = field(default_factory=list)
    counts: dict[str, int] | None = None
    before: dict[str, Any] | None = None

    @property
    def live(self) -> str:
        """Name of the live database."""
        return self.stage.live

    def result(self, *, staged: bool) -> dict[str, Any]:
        """What every action returns; staged: whether the new database is there afterwards."""
        return {
            "changed": bool(self.actions),
            "database": self.live,
            "staged": self.stage.name if staged else None,
            "counts": self.counts,
            "actions": self.actions,
        }


def restore(run: Run) -> dict[str, Any]:
    """Stage, then swap; goes on with a swap that was cut off."""
    _require_force(run)
    if not _is(run, SWAPPING):
        _stage(run)
    return _swap(run)


def stage(run: Run) -> dict[str, Any]:
    """Restore beside the live database, or into the target."""
    if _is(run, SWAPPING):
        raise StateError(
            f"A swap of {run.stage.name} into {run.live} was cut off, and is to be finished first.",
            fix="Run action swap, which goes on.",
        )
    _stage(run)
    return run.result(staged=True)


def swap(run: Run) -> dict[str, Any]:
    """Make the staged database the live one, or go on with that."""
    if not (_is(run, STAGED) or _is(run, SWAPPING)):
        raise StateError(
            f"There is no complete database {run.stage.name!r} to swap with {run.live!r}.",
            fix="Run action stage first.",
        )
    return _swap(run)


def discard(run: Run) -> dict[str, Any]:
    """Drop what was staged."""
    found = definitions(run.stage.server, run.stage.name)
    if not found:
        return run.result(staged=False)
    if _is(run, SWAPPING):
        raise StateError(
            f"A swap of {run.stage.name} into {run.live} was cut off. What it has not moved yet is only there.",
            fix="Run action swap, which goes on.",
        )
    if run.stage.state() is None:
        _require_made_here(run.stage.name, found)
    run.actions.append(f"drop database {run.stage.name}")
    if not run.check_mode:
        run.stage.drop()
    return run.result(staged=False)


ACTIONS: Mapping[str, Callable[[Run], dict[str, Any]]] = {
    "restore": restore, "stage": stage, "swap": swap, "discard": discard,
}  # fmt: skip


def _stage(run: Run) -> None:
    job = run.stage
    state = job.state()
    if state is not None and state["state"] == STAGED and not (run.target and run.force):
        run.counts = dict(state["counts"])
        return
    found = definitions(job.server, job.name)
    if found and state is None:
        _require_ours(run, found)
    _require_restorable(run)
    if found:
        run.actions.append(f"drop database {job.name}")
    views = sum(part.definition.kind == VIEW for part in job.parts)
    run.actions.append(f"restore {len(job.parts) - views} collections and {views} views into {job.name}")
    if run.check_mode:
        job.dump.verify()
        run.counts = dict(job.dump.counts)
    else:
        run.counts = job.run()


def _swap(run: Run) -> dict[str, Any]:
    job, server = run.stage, run.stage.server
    state = job.state()
    live = definitions(server, run.live)
    staged: list[Definition] = staged_definitions(server, job.name)
    if state is None:  # in check mode, nothing was staged
        staged = [part.definition for part in job.parts]
    extra = list(state["extra"]) if state is not None and state["state"] == SWAPPING else extra_names(staged, live)
    steps = plan(staged, live, extra)
    run.actions += [step.words(run.live) for step in steps]
    run.actions.append(f"drop database {job.name}")
    if run.check_mode:
        return run.result(staged=False)
    if run.counts is None and state is not None:
        run.counts = dict(state["counts"])
    job.say(SWAPPING, extra=extra, counts=list((run.counts or {}).items()))
    carry_out(server, job.name, run.live, steps, Work(job.work.progress, "swap"))
    job.drop()
    job.require_equal(run.live)
    return run.result(staged=False)


def _is(run: Run, state: str) -> bool:
    found = run.stage.state()
    return found is not None and found["state"] == state


def _require_force(run: Run) -> None:
    if not run.force and definitions(run.stage.server, run.live):
        raise StateError(
            f"Database {run.live!r} is there, and a restore drops what it holds.",
            fix="Set force: true to replace it, or use action stage, which leaves it alone.",
        )


def _require_ours(run: Run, found: tuple[Definition, ...]) -> None:
    """What is there under the name of the new database, and is not from this restore. Raises StateError."""
    name = run.stage.name
    if not run.target:
        _require_made_here(name, found)
    elif not run.force:
        raise StateError(f"The target {name!r} exists already.", fix="Use another name, or force: true.")


def _require_made_here(name: str, found: tuple[Definition, ...]) -> None:
    if all(one.name != STATE for one in found):
        raise StateError(
            f"Database {name!r} exists already and was not made by mongo_restore.",
            fix="Look what it is; drop it, then run again.",
        )


def _require_restorable(run: Run) -> None:
    names = {part.definition.name for part in run.stage.parts}
    if STATE in names:
        raise StateError(f"A collection of the backup is called {STATE!r}, as the journal of a restore is.")
    if not run.target and (held := unmovable(run.stage.parts)):
        raise StateError(
            f"MongoDB cannot move {', '.join(held)} from one database to another (a time series, or the server's own).",
            fix="Restore this set with mongorestore.",
        )
