# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Waits for many health checks at once: one deadline, an early end when it is hopeless.

One thread takes the attempts in turn, and others are added while an attempt has to wait for slow ones: 200 threads that
all want to run hold each other up for longer than 200 quick attempts take. They are daemons on purpose: an attempt that
hangs (a name server, a slow drip of bytes) never holds up the end.
"""

from __future__ import annotations

import copy
import heapq
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker, Outcome
from ansible_collections.groundwork.backend.plugins.module_utils._probe_progress import Check, Progress

BODY_LIMIT = 2048
_ONE_LINE = 400
_STALLED = 0.002  # seconds without a new attempt, although one is due, after which a thread is added
_MOST_IDLE = 4  # threads that stay although no attempt is due


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
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # for the thread that waits for the end
        self._idle_workers = threading.Condition(lock)
        self._due = [(0.0, number) for number in range(len(self.checks))]  # a heap: when, which check
        self._workers = self._idle = 0
        self._moved = 0.0  # when an attempt or a thread began
        self._unsettled = len(self.checks)
        self._news = self._stop = False
        self._crash: Exception | None = None

    def run(self) -> list[Progress]:
        """Wait; the required checks that do not hold are returned (empty: success).

        An exception of a probe is raised here.
        """
        self._began = time.monotonic()
        with self._changed:
            self._hire()
            while not self._over():
                elapsed = self._elapsed()
                ends = [one.check.timeout for one in self.progress if not one.decided and one.check.timeout]
                self._sleep(min([self.timeout, *(end for end in ends if end > elapsed)]))
            self._stop = True
            self._idle_workers.notify_all()
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
        self._unsettled = sum(not one.settled for one in self.progress)
        if self._crash or not self._unsettled:
            return True
        if any(one.decided and not one.check.optional for one in self.progress):
            return True
        if elapsed < self.timeout:
            return False
        for one in self.progress:
            one.state = "timeout" if one.state == "waiting" else one.state
        return True

    def _sleep(self, until: float) -> None:
        """Until there is news, or *until* seconds after the start; adds threads meanwhile."""
        self._news = False
        while not self._news and (left := until - self._elapsed()) > 0:
            if self._idle or not self._due or self._workers == len(self.checks):
                self._changed.wait(left)
            elif (stalled_in := max(self._due[0][0], self._moved) + _STALLED - self._elapsed()) > 0:
                self._changed.wait(min(left, stalled_in))
            else:
                self._hire()

    def _hire(self) -> None:
        self._workers += 1
        self._moved = self._elapsed()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (number := self._next()) is not None:
            wait = self._try(self.progress[number])
            if wait is not None:
                with self._changed:
                    heapq.heappush(self._due, (self._elapsed() + wait, number))

    def _next(self) -> int | None:
        """Waits for a check that is due; None when this thread is not needed any more."""
        was_idle = False
        with self._changed:
            while not self._stop and self._idle < _MOST_IDLE:
                now = self._elapsed()
                due_in = self._due[0][0] - now if self._due else None
                if due_in is not None and due_in <= 0:
                    self._moved = now
                    number = heapq.heappop(self._due)[1]
                    if self._idle:
                        self._idle_workers.notify()  # that one looks when the next is due
                    elif was_idle:
                        self._changed.notify()  # from now on a thread may have to be added
                    return number
                was_idle = True
                self._idle += 1
                self._idle_workers.wait(due_in)
                self._idle -= 1
            self._workers -= 1
            self._idle_workers.notify()  # one of those that stay looks at what this thread put back
            return None

    def _try(self, progress: Progress) -> float | None:
        """One attempt; seconds until the next one, None when there is to be none."""
        check = progress.check
        left = min(self.timeout, check.timeout or self.timeout) - self._elapsed()
        if left <= 0 and progress.state != "ok":
            return None
        try:
            outcome = self._clean(check.probe.attempt(min(check.attempt_timeout, max(left, 0.1))))
        except Exception as error:  # handed to the waiting thread, which raises it
            with self._changed:
                self._crash = error
                self._tell()
            return None
        with self._changed:
            if progress.decided or self._stop:
                return None
            settled = progress.settled
            progress.record(outcome, self._elapsed())
            self._unsettled += settled - progress.settled
            if progress.decided or not self._unsettled:  # one more that holds is no news
                self._tell()
            if progress.decided:
                return None
        return pause(check, self._elapsed(), len(self.checks)) * random.uniform(0.8, 1.2)  # noqa: S311

    def _tell(self) -> None:
        self._news = True
        self._changed.notify()

    def _clean(self, outcome: Outcome) -> Outcome:
        reason = " ".join(self.masker(outcome.reason).split())[:_ONE_LINE]
        body = self.masker(outcome.body)[:BODY_LIMIT]
        return Outcome(outcome.state, reason, outcome.terminal, outcome.status, body)


def pause(check: Check, elapsed: float, checks: int) -> float:
    """Seconds until the next attempt, before jitter, *elapsed* seconds after the start of a wait for so many checks."""
    # 5 % of the time waited so far: quick answers are seen quickly, slow starts are not hammered.
    shortest = check.probe.pause * max(1.0, checks / 50)
    return min(max(shortest, elapsed * 0.05), check.interval)
