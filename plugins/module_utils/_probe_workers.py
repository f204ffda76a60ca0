# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Workers of gunicorn that end, behind a main process that runs on: to systemd such a unit is well.

gunicorn says that it is ready before a worker has loaded the application. It gives up when one ends with 3 or 4, which
is what an exception at the import leads to, but only after its graceful_timeout. After any other end, such as
sys.exit() in the application, it starts the next one, for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 3  # as many times as there are workers
YOUNG = 10.0  # seconds; a worker that lived longer has loaded its application, and another reason to end
NONE = 1.0  # seconds without a worker, where gunicorn starts the next one at once
PROC = Path("/proc")


@dataclass
class Workers:
    """Watches the workers of one main process."""

    clock: Callable[[], float] = time.monotonic
    _main: str = ""
    _seen: dict[str, float] = field(default_factory=dict)  # worker -> when it was seen first
    _most: int = 0
    _old: bool = False
    _none: float | None = None  # since when there was none

    def look(self, main: str, running: Mapping[str, str]) -> str:
        """Why the unit cannot become well; empty as long as it may.

        main: the process id; running: its workers, each with its start, which a later one of that number has not.
        """
        if main != self._main:
            self._main, self._seen, self._most, self._old, self._none = main, {}, 0, False, None
        now = self.clock()
        alive = {f"{pid} {begun}" for pid, begun in running.items()}
        for one in alive:
            self._old = self._old or now - self._seen.setdefault(one, now) > YOUNG
        self._none = None if alive else now if self._none is None else self._none
        self._most = max(self._most, len(alive))
        ended = len(self._seen) - len(alive)
        if ended and self._none is not None and now - self._none > NONE:
            return "all workers of its gunicorn have ended, and it starts no other"
        if self._old or ended < ROUNDS * max(self._most, 1):
            return ""
        return f"the workers of its gunicorn end again and again: {ended} have, and none ran for {YOUNG:g} seconds"


def running_workers(main: str, proc: Path = PROC) -> dict[str, str]:
    """The workers of a gunicorn with this process id, each with its time of start; none of another program."""
    if not _is_gunicorn(proc / main):
        return {}
    found = {}
    for listed in (proc / main).glob("task/*/children"):
        for pid in _text(listed).split():
            # What the application starts besides is another program.
            if _is_gunicorn(proc / pid) and (stat := _text(proc / pid / "stat")):
                found[pid] = stat.rpartition(")")[2].split()[19]  # starttime, proc_pid_stat(5)
    return found


def _is_gunicorn(process: Path) -> bool:
    """Whether it runs gunicorn; with setproctitle its command line is "gunicorn: worker [app]"."""
    return any(Path(word).name.startswith("gunicorn") for word in _text(process / "cmdline").split("\0") if word)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
