# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The running nginx: its master, its workers, a reload that is proven, and old workers that come to an end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors

_POLL_SECONDS = 0.05
_MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_LEAVING = "nginx: worker process is shutting down"
_EMERGENCY = re.compile(r" \[emerg\] (?P<pid>\d+)#\d+: (?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Reload:
    """Whether nginx took the new configuration; else its own words, and whether it is certain that it did not."""

    taken: bool
    words: str = ""
    certain: bool = False


def title(pid: int) -> str:
    """What a process calls itself; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def master_pid(pid_file: Path) -> int | None:
    """The process in the pid file when it is the master of an nginx."""
    with os_errors(f"read {pid_file}"):
        text = pid_file.read_text().strip() if pid_file.exists() else ""
    # `nginx -t` makes an empty pid file, and after a crash the number may be somebody else's.
    return int(text) if text.isdigit() and title(int(text)).startswith(_MASTER) else None


def started(pid: int) -> float:
    """When a process started, in seconds since the epoch."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def workers(master: int) -> tuple[set[int], set[int]]:
    """The pids of a master's workers: those that take connections, and those that only finish theirs."""
    serving: set[int] = set()
    leaving: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == master and (name := title(int(folder.name))).startswith(_WORKER):
            (leaving if name.startswith(_LEAVING) else serving).add(int(folder.name))
    return serving, leaving


def reload(master: int, error_logs: Sequence[Path], timeout: float) -> Reload:
    """Send HUP to the master, and wait until new workers serve and all earlier ones are leaving or gone.

    The master keeps its old workers when it cannot use the configuration, such as when a port is taken; nothing but
    its error log tells. Raises StateError when the master ends or may not be signalled.
    """
    before, _ = workers(master)
    ends = {log: log.stat().st_size for log in error_logs if log.exists()}
    with os_errors(f"signal nginx (process {master})"):
        os.kill(master, signal.SIGHUP)
    deadline = time.monotonic() + timeout
    while True:
        serving, _ = workers(master)
        if serving and not serving & before:
            return Reload(taken=True)
        if not title(master).startswith(_MASTER):
            raise StateError(f"nginx (process {master}) ended while it was reloaded.", fix="Look at its error log.")
        told = _complaints(master, ends)
        # A port is tried five times, half a second apart: only "still could not bind" is nginx's last word on it.
        final = [text for text in told if not text.startswith("bind() to ")]
        if final or time.monotonic() >= deadline:
            return Reload(taken=False, words="; ".join(dict.fromkeys(told)), certain=bool(final))
        time.sleep(_POLL_SECONDS)


def _complaints(master: int, ends: dict[Path, int]) -> list[str]:
    found = []
    for log, end in ends.items():
        with os_errors(f"read {log}"), log.open(errors="replace") as stream:
            stream.seek(end if log.stat().st_size >= end else 0)
            found += [match["text"] for match in _EMERGENCY.finditer(stream.read()) if int(match["pid"]) == master]
    return found


def wait_drained(pids: Sequence[int], timeout: float) -> list[int]:
    """Wait until none of these workers finishes connections any more; those that still do at the end."""
    deadline = time.monotonic() + timeout
    while True:
        left = [pid for pid in pids if title(pid).startswith(_LEAVING)]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(_POLL_SECONDS)
