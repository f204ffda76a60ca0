# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Bring a plan of nginx's managed files to life: stage, test, turn, reload, prove; or leave everything as it was."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._nginx import Plan
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_check import (
    Nginx,
    Tested,
    check,
    check_tree,
    require_reads_managed,
)
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_generation import Generations
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_process import (
    Reload,
    master_pid,
    reload,
    started,
    workers,
)


@dataclass(frozen=True)
class Outcome:
    """What became of a plan. draining: workers that only finish their connections."""

    generation: str
    reloaded: bool = False
    running: bool = False
    tested: bool = False
    draining: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def foresee(nginx: Nginx, generations: Generations, plan: Plan, live: str) -> Outcome:
    """What apply() would do; writes to a temporary folder only. Raises what the test of the configuration raises.

    Where nginx is not installed, or does not read the managed files yet, nothing can be tested.
    """
    if nginx.missing() or not plan.tree:
        return Outcome(live)
    tested = check_tree(nginx, plan.tree)
    master = master_pid(tested.pid_file)
    if master is None:
        return Outcome(live, tested=tested.reads_managed, warnings=tested.warnings)
    pending = plan.changes or not generations.is_loaded(live, nginx.config, started(master))
    return Outcome(live, pending, True, tested.reads_managed, sorted(workers(master)[1]), tested.warnings)


def apply(
    nginx: Nginx, generations: Generations, plan: Plan, live: str, *, settle: float, reload_timeout: float
) -> Outcome:
    """Make the plan the live generation, and have a running nginx take it over. The caller holds the lock.

    live is the name of the generation that was live before, or nothing. A call that finds nothing to write still
    reloads an nginx that has not loaded what is on disk, as after a kill between the two.
    Raises CommandError (nginx refuses the configuration), StateError (nginx did not take it; the old one is back).
    """
    if not plan.changes:
        if not live:
            return Outcome(live)
        tested = check(nginx, generations.folder / live)
        require_reads_managed(nginx, tested)
        name = live
    else:
        name = generations.next_name()
        tested = _stage(nginx, generations, plan, name)
        generations.turn(name)
    master = master_pid(tested.pid_file)
    reloaded = False
    if master is not None and not generations.is_loaded(name, nginx.config, started(master)):
        if plan.changes:
            # Workers of the generation before notice that it is not live any more, and tell clients to close.
            time.sleep(settle)
        outcome = reload(master, tested.error_logs, reload_timeout)
        if not outcome.taken:
            raise _not_taken(generations, outcome, live, name, master)
        generations.mark_loaded(name, nginx.config)
        reloaded = True
    generations.clean({live, name})
    draining = sorted(workers(master)[1]) if master else []
    return Outcome(name, reloaded, master is not None, True, draining, tested.warnings)


def _stage(nginx: Nginx, generations: Generations, plan: Plan, name: str) -> Tested:
    """Write and test the new generation; it has its name afterwards, and is gone when the test fails."""
    staging = generations.stage(plan.tree, name)
    try:
        tested = check(nginx, staging)
        if plan.tree:
            require_reads_managed(nginx, tested)
        generations.keep(staging, name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return tested


def _not_taken(generations: Generations, outcome: Reload, live: str, name: str, master: int) -> StateError:
    """Turn back, when there is a generation to turn back to, and say why."""
    words = f"nginx says: {outcome.words}." if outcome.words else "Its error log says nothing."
    details = {"nginx": outcome.words, "restored": name != live}
    if name == live:
        return StateError(
            f"nginx still runs without the configuration that is on disk (generation {name}): it did not take it over "
            f"when it was reloaded. {words}",
            fix="Remove the cause, then run again.",
            **details,
        )
    generations.turn(live)
    shutil.rmtree(generations.folder / name, ignore_errors=True)
    if not outcome.certain:
        # It may be about to load the new files: one more signal has it load the old ones after that.
        with suppress(OSError):
            os.kill(master, signal.SIGHUP)
    return StateError(
        f"nginx accepted the new configuration in the test, and did not take it over when it was reloaded. {words}",
        fix="The configuration from before is back, and its workers never stopped serving. Remove the cause, such as "
        "another program on that port, then run again.",
        **details,
    )


def read_live(generations: Generations, directory: Path) -> tuple[str, dict[str, str]]:
    """The name and the files of the live generation; both empty when there is none yet."""
    if not directory.parent.is_dir():
        return "", {}
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is no folder.", fix="Choose another one for directory.")
    live = generations.live()
    return live, generations.read(live) if live else {}
