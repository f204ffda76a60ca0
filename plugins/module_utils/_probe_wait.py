# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Waits for many health checks at once: one thread for each, one deadline, an early end when it is hopeless.

The threads are daemons on purpose: an attempt that hangs (a name server, a slow drip of bytes) never holds up the end.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker, Outcome, Probe

BODY_LIMIT = 2048
_ONE_LINE = 400


@dataclass(frozen=True)
class Check:
    """What to wait for. Times are in seconds; a timeout of None is that of the whole wait.

    logs: gives the last lines of the log that tells why the check fails.
    """

    name: str
    kind: str
    probe: Probe
    logs: Callable[[int], list[str]]
    expect: str = "up"
    optional: bool = False
    timeout: float | None = None
    interval: float = 1.0
    attempt_timeout: float = 5.0
    stable_for: float = 0.0
    consecutive: int = 1


@dataclass
class Progress:
    """What is known about one check so far; the only part that changes.

    state: waiting, ok (it holds now), failed (it cannot hold any more), timeout (its time is over).
    seconds: from the start of the wait to the first success, None without one.
    """

    check: Check
    state: Literal["waiting", "ok", "failed", "timeout"] = "waiting"
    attempts: int = 0
    seconds: float | None = None
    last_error: str = ""
    outcome: Outcome = field(default_factory=lambda: Outcome("unknown"))
    _streak: int = 0
    _streak_began: float = 0.0

    def record(self, outcome: Outcome, elapsed: float) -> bool:
        """Take in one outcome, *elapsed* seconds after the start. True when the decision about the wait may change."""
        before = self.state
        self.attempts += 1
        self.outcome = outcome
        if outcome.state == self.check.expect:
            if self._streak == 0:
                self._streak_began = elapsed
            self._streak += 1
            self.seconds = elapsed if self.seconds is None else self.seconds
            stable = elapsed - self._streak_began >= self.check.stable_for
            self.state = "ok" if stable and self._streak >= self.check.consecutive else "waiting"
        else:
            self._streak = 0
            self.last_error = outcome.reason or "it is still up"
            self.state = "failed" if outcome.terminal else "waiting"
        return self.state != before or self.attempts == 1

    def expire(self, elapsed: float) -> None:
        """Note that the check's own time is over, if it is."""
        if self.state == "waiting" and self.check.timeout is not None and elapsed >= self.check.timeout:
            self.state = "timeout"

    @property
    def decided(self) -> bool:
        """No further attempt can change the state."""
        return self.state in ("failed", "timeout")

    @property
    def settled(self) -> bool:
        """The wait need not go on for this check. An optional one without a time of its own gets one attempt."""
        if self.check.optional and self.check.timeout is None:
            return self.attempts > 0
        return self.state == "ok" or (self.check.optional and self.decided)


@dataclass
class Waiter:
    """One wait. Results are read from *progress* after run()."""

    checks: Sequence[Check]
    timeout: float
    masker: Masker
    progress: list[Progress] = field(init=False)
    elapsed: float = 0.0

    def __post_init__(self) -> None:
        self.progress = [Progress(check) for check in self.checks]
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._crash: Exception | None = None

    def run(self) -> list[Progress]:
        """Wait; the required checks that do not hold are returned (empty: success).

        An exception of a probe is raised here.
        """
        self._began = time.monotonic()
        for progress in self.progress:
            threading.Thread(target=self._poll, args=(progress,), daemon=True).start()
        with self._changed:
            while not self._over():
                elapsed = self._elapsed()
                ends = [one.check.timeout for one in self.progress if not one.decided and one.check.timeout]
                self._changed.wait(min([self.timeout, *(end for end in ends if end > elapsed)]) - elapsed)
            self._stop.set()
            self.elapsed = self._elapsed()
            if self._crash:
                raise self._crash
            self.progress = [copy.copy(one) for one in self.progress]  # late answers change nothing
        return [one for one in self.progress if not one.check.optional and one.state != "ok"]

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _over(self) -> bool:
        elapsed = self._elapsed()
        for one in self.progress:
            one.expire(elapsed)
        if self._crash or all(one.settled for one in self.progress):
            return True
        if any(one.decided and not one.check.optional for one in self.progress):
            return True
        if elapsed < self.timeout:
            return False
        for one in self.progress:
            one.state = "timeout" if one.state == "waiting" else one.state
        return True

    def _poll(self, progress: Progress) -> None:
        check = progress.check
        shortest = check.probe.pause * max(1.0, len(self.checks) / 50)
        while not self._stop.is_set():
            left = min(self.timeout, check.timeout or self.timeout) - self._elapsed()
            if left <= 0 and progress.state != "ok":
                return
            try:
                outcome = check.probe.attempt(min(check.attempt_timeout, max(left, 0.1)))
            except Exception as error:  # handed to the waiting thread, which raises it
                with self._changed:
                    self._crash = error
                    self._changed.notify()
                return
            outcome = self._clean(outcome)
            with self._changed:
                if progress.decided or self._stop.is_set():
                    return
                changed = progress.record(outcome, self._elapsed())
                # One more that holds does not wake the waiting thread, which would look at all of them each time.
                broke = progress.decided or (progress.state == "waiting" and progress.attempts > 1)
                if changed and (broke or all(one.settled for one in self.progress)):
                    self._changed.notify()
                if progress.decided:
                    return
            # 5 % of the time waited so far: quick answers are seen quickly, slow starts are not hammered.
            pause = min(max(shortest, self._elapsed() * 0.05), check.interval) * random.uniform(0.8, 1.2)  # noqa: S311
            self._stop.wait(pause)

    def _clean(self, outcome: Outcome) -> Outcome:
        reason = " ".join(self.masker(outcome.reason).split())[:_ONE_LINE]
        body = self.masker(outcome.body)[:BODY_LIMIT]
        return Outcome(outcome.state, reason, outcome.terminal, outcome.status, body)


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
