# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The three states of a rollout. A run that was killed at any point is finished, or undone, by the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _rollout_engine as engine
from ansible_collections.groundwork.backend.plugins.module_utils._compose import compose_argv, compose_config
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica, endpoints, picture
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_health import require_checkable, wait_healthy
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_plan import (
    Start,
    Wanted,
    plan_remove,
    plan_retire,
    plan_start,
    read_wanted,
    require_successors,
)


@dataclass(frozen=True)
class Stack:
    """Which services of which project are rolled, and the files that describe this release of them."""

    project: str
    release: str
    directory: str
    files: Sequence[str]
    env_files: Sequence[str]
    services: Mapping[str, Mapping[str, Any]]

    def replicas(self) -> list[Replica]:
        """What there is of the services, of any release."""
        return engine.list_replicas(self.project, self.services)


def started(stack: Stack, timeout: float, *, check_mode: bool) -> dict[str, Any]:
    """Have healthy replicas of the release beside whatever runs; take the new ones away again when that fails."""
    config = compose_config(stack.project, stack.directory, stack.files, stack.env_files)
    wanted = read_wanted(config, stack.services, stack.release)
    require_checkable(wanted, stack.release)
    before = stack.replicas()
    plan = plan_start(wanted, before, stack.release)
    kept = [one for one in before if one not in plan.leftovers]
    after = kept
    if not check_mode and wanted:
        engine.require_images({one.service: one.image for one in wanted if one.service in plan.missing})
        after = _start(stack, wanted, plan, kept, timeout)
    known = {one.id for one in kept}
    return {
        "changed": bool(plan.missing),
        "services": sorted(plan.missing),
        "started": [one.name for one in after if one.id not in known],
        "removed": [one.name for one in plan.leftovers],
        "endpoints": endpoints(stack.services, after, stack.release),
        "diff": {"before": picture(before), "after": picture(after, plan.planned if check_mode else {})},
    }


def _start(
    stack: Stack, wanted: Sequence[Wanted], plan: Start, kept: Sequence[Replica], timeout: float
) -> list[Replica]:
    end = time.monotonic() + timeout
    engine.remove(plan.leftovers)
    try:
        compose = compose_argv(stack.project, stack.directory, stack.files, stack.env_files)
        engine.start_more(compose, plan.scale, end)
        return wait_healthy(stack.project, wanted, stack.release, end)
    except BaseException as error:  # also SIGTERM
        told = _undo(stack, kept) if plan.missing else ""
        if not isinstance(error, GroundworkError):
            raise
        older = any(one.alive and one.release != stack.release for one in kept)
        fate = f"{told}{' What ran before still runs.' if older else ''}".strip()
        fix = " ".join(filter(None, (error.fix, fate)))
        verb = "started" if plan.missing else "healthy"
        problem = f"Release {stack.release} of {stack.project} is not {verb}: {error.problem}"
        raise StateError(problem, fix=fix, **error.details) from error


def _undo(stack: Stack, kept: Sequence[Replica]) -> str:
    """Remove what this run started, and say so."""
    known = {one.id for one in kept}
    try:
        new = [one for one in stack.replicas() if one.id not in known and one.release == stack.release]
        engine.remove(new)
    except GroundworkError as error:
        return f"The new replicas could not be removed: {error}"
    return "The new replicas were removed." if new else ""


def retired(stack: Stack, warn: Callable[[str], None], *, check_mode: bool) -> dict[str, Any]:
    """Stop and remove the replicas of other releases, once this one serves. In check mode it may not run yet."""
    before = stack.replicas()
    going = plan_retire(before, stack.release)
    try:
        require_successors(going, before, stack.release)
    except StateError as error:
        if not check_mode:
            raise
        warn(f"As it is now, a real run would refuse: {error.problem}")
    return _take_away(stack, before, going, check_mode=check_mode)


def removed(stack: Stack, *, check_mode: bool) -> dict[str, Any]:
    """Stop and remove the replicas of this release."""
    before = stack.replicas()
    return _take_away(stack, before, plan_remove(before, stack.release), check_mode=check_mode)


def _take_away(
    stack: Stack, before: Sequence[Replica], going: Sequence[Replica], *, check_mode: bool
) -> dict[str, Any]:
    after = [one for one in before if one not in going]
    if not check_mode:
        engine.stop(going)
        engine.remove(going)
    return {
        "changed": bool(going),
        "services": sorted({one.service for one in going}),
        "started": [],
        "removed": [one.name for one in going],
        "endpoints": endpoints(stack.services, after, stack.release),
        "diff": {"before": picture(before), "after": picture(after)},
    }
