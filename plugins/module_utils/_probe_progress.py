# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What to wait for, and how far it is: when a check counts as up; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Outcome, Probe


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

    def record(self, outcome: Outcome, elapsed: float) -> None:
        """Take in one outcome, *elapsed* seconds after the start."""
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
