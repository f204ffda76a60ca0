# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""wait_for(): health checks as a user writes them, waited for; also for modules that only need to wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker
from ansible_collections.groundwork.backend.plugins.module_utils._probe_kinds import plan
from ansible_collections.groundwork.backend.plugins.module_utils._probe_progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._probe_waiter import Waiter


def wait_for(checks: Sequence[Mapping[str, Any]], timeout: float = 60.0, *, log_lines: int = 200) -> dict[str, Any]:
    """Wait until all *checks* hold.

    checks:    dictionaries with the keys of the module's option, with their types; what is left out or None has its
               default, so that {"kind": "container", "container": "web-2", "timeout": 30.0} is a whole check.
    timeout:   seconds.
    log_lines: how many lines of the logs behind each failed check are returned.

    Returns {"checks": {name: {...}}, "elapsed": seconds, "unmet": [names of optional checks]}, as the module does;
    "changed" is the caller's to say. Secrets of the checks are masked in it.
    Raises InputError, DependencyError, UnreachableError and StateError before any waiting when the checks cannot be
    tried. Raises StateError after a wait that failed: one line that says which checks failed and why; its details are
    the same dictionary with "logs" {name: [lines]} beside.
    """
    if not 0 < timeout < float("inf"):
        raise InputError(f"timeout is {timeout:g}.", fix="Give a number of seconds above 0.")
    if log_lines < 0:
        raise InputError(f"log_lines is {log_lines}.", fix="Give 0 or more.")
    planned = plan(checks)
    masker = Masker([secret for check in planned for secret in check.probe.secrets])
    waiter = Waiter(planned, timeout, masker)
    failed = waiter.run()
    result: dict[str, Any] = {
        "checks": {one.check.name: report(one) for one in waiter.progress},
        "elapsed": round(waiter.elapsed, 3),
        "unmet": [one.check.name for one in waiter.progress if one.state != "ok"],
    }
    if failed:
        logs = read_logs(failed, log_lines, masker)
        raise StateError(failure_line(failed, len(planned), waiter.elapsed), **result, logs=logs)
    return result


def read_logs(failed: Sequence[Progress], lines: int, masker: Masker) -> dict[str, list[str]]:
    """The last *lines* of the logs behind the failed checks, by their names; those that have none are left out."""
    with ThreadPoolExecutor(8) as pool:  # at once, so that an engine that hangs costs its patience only once
        found = zip(failed, pool.map(lambda one: one.check.logs(lines), failed), strict=True)
        return {one.check.name: [masker(line) for line in log] for one, log in found if log}


def report(progress: Progress) -> dict[str, Any]:
    """What the module returns about one check."""
    return {
        "kind": progress.check.kind,
        "state": progress.state,
        "optional": progress.check.optional,
        "attempts": progress.attempts,
        "seconds": None if progress.seconds is None else round(progress.seconds, 3),
        "last_error": progress.last_error,
        "status": progress.outcome.status,
        "body": progress.outcome.body,
    }


def failure_line(unmet: Sequence[Progress], total: int, elapsed: float) -> str:
    """One line that says which checks failed and why; those that ended the wait come first."""
    order = {"failed": 0, "timeout": 1, "waiting": 2}
    told = []
    for one in sorted(unmet, key=lambda one: order.get(one.state, 3)):
        verb = " (still waiting)" if one.state == "waiting" and any(other.decided for other in unmet) else ""
        goal = "" if one.check.expect == "up" else "expected to be down: "
        told.append(f"{one.check.name}{verb}: {goal}{one.last_error or 'no attempt came to an end'}")
    noun = "check" if total == 1 else "checks"
    return f"{len(unmet)} of {total} {noun} failed after {elapsed:.1f} seconds: {'; '.join(told)}."
