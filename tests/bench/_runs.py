# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Programs and modules that are watched while they run, and take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.modules import ModuleRunner

ROUNDS = 3


@dataclass(frozen=True)
class Ended:
    """How long a process took, and the largest resident set of it alone."""

    seconds: float
    peak_mib: float


def program(argv: Sequence[str], env: Mapping[str, str] | None = None, told: str = "") -> Ended:
    """Run a program that has to succeed; it is *told* something on its standard input."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(told.encode())
        given.seek(0)
        wanted = {**os.environ, **(env or {})}
        process = subprocess.Popen(argv, env=wanted, stdin=given, stdout=printed, stderr=printed)
        peak = _watch(process)
        if process.returncode != 0:
            printed.seek(0)
            raise SystemExit(f"{argv[0]} ended with {process.returncode}: {printed.read()[-3000:].decode()}")
    return Ended(time.monotonic() - begun, peak)


def module(
    root: Path, name: str, options: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> tuple[Ended, dict[str, Any]]:
    """Run a module to its end, whatever that is."""
    begun = time.monotonic()
    process = ModuleRunner(root).start(name, options, diff=False, env=env)
    peak = _watch(process)
    out, err = process.communicate()
    seconds = time.monotonic() - begun
    try:
        result: dict[str, Any] = json.loads(out)
    except json.JSONDecodeError:
        raise SystemExit(f"{name} printed no JSON: {out[-2000:]}{err[-2000:]}") from None
    return Ended(seconds, peak), result


def require(name: str, result: Mapping[str, Any]) -> None:
    """That a module has succeeded."""
    if result.get("failed"):
        raise SystemExit(f"{name} failed: {result['msg']}")


def turns(runs: Mapping[str, Callable[[], float]], what: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each; in each round another one begins."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            os.sync()
            taken[name].append(runs[name]())
        print(f"{what}: " + ", ".join(f"{name} {seconds[-1]:.1f} s" for name, seconds in taken.items()), flush=True)
    return {name: round(statistics.median(seconds), 2) for name, seconds in taken.items()}


def _watch(process: subprocess.Popen[Any]) -> float:
    """Wait for the end of a process that prints little; the largest resident set in MiB."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        if "VmHWM:" in status:  # a process that has just ended has no memory
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
        time.sleep(0.02)
    process.wait()
    return peak / 1024
