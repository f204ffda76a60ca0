# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The processes of this machine: what all can read of them, and those that are caught in the act."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T], what: str | Callable[[], str], *, seconds: float = 60, every: float = 0.02
) -> T:
    """Wait until *condition* holds, asking *every* so many seconds; its value. what: what to say when it does not."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(every)
    return found


def command_lines() -> dict[int, str]:
    """The command line of each process by its pid, with NUL between its words."""
    return _read("cmdline")


def environments() -> dict[int, str]:
    """The environment of each process by its pid, of those that this user may read, with NUL between its variables."""
    return _read("environ")


def _read(name: str) -> dict[int, str]:
    found = {}
    for path in Path("/proc").glob(f"[0-9]*/{name}"):
        with contextlib.suppress(OSError):  # processes end meanwhile
            found[int(path.parent.name)] = path.read_bytes().decode(errors="replace")
    return found


def require_in_no_command_line(secret: str, running: subprocess.Popen[str]) -> None:
    """Require that no process of this machine shows *secret* in its arguments while *running* is one of them."""
    seen = command_lines()
    assert seen.get(running.pid), "the process is over"
    assert not [line.split("\0")[0] for line in seen.values() if secret in line]


def programs(name: str, marker: str) -> list[int]:
    """Pids of the processes of that program with *marker* in one of their arguments."""
    found = []
    for pid, line in command_lines().items():
        first, *words = line.split("\0")
        if Path(first).name == name and any(marker in word for word in words):
            found.append(pid)
    return found


def stop_child(module: subprocess.Popen[str], program: str, marker: str, *, written: int = 0) -> int:
    """Wait until this module run has a child of that program, stop the child (SIGSTOP) and return its pid.

    marker: a part of one of its arguments. written: so many bytes it has to have written before.
    """

    def found() -> int | None:
        assert module.poll() is None, f"{program} was not seen: {module.communicate()}"
        # Not a look at every process of the machine, which lasts as long as some children live.
        for path in Path(f"/proc/{module.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # they end meanwhile
                for pid in map(int, path.read_text().split()):
                    first, *words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
                    right = Path(first).name == program and any(marker in word for word in words)
                    if right and (not written or _written(pid) > written):
                        os.kill(pid, signal.SIGSTOP)
                        return pid
        return None

    pid = wait_for(found, f"{program} was not seen", every=0.002)
    assert pid is not None
    return pid


def _written(pid: int) -> int:
    """How many bytes a process has written so far."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])


def resume(pids: list[int]) -> None:
    """Let stopped processes go on, those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
