# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run the parts of the test suite, and print one line of counts at the end.

usage: run.py PART [PART ...]     parts: lint, unit, integration, molecule

A lint tool and a Molecule scenario count as one test each. Several parts run two jobs at once: integration tests and
Molecule scenarios have hosts of their own, and wait for them. What needs none runs while the test bed is made.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PLUGINS = "ansible_collections.groundwork.backend.plugins"
TYPED_PACKAGES = ("module_utils", "modules", "action", "plugin_utils", "filter")
# A file's tests share servers and hosts, so it stays with one worker; each worker has its own of them.
# A worker that dies ends the run: another would begin with the same test, and die, too.
DISTRIBUTION = ("--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart=0")
WORKERS_AT_MOST = 3
JOBS_AT_ONCE = 2
# The longest begin first, so that none is left over alone at the end: the first one even before the integration tests.
LONGEST_SCENARIOS = ("deploy", "backup", "verisphere", "innovaplus")
# Molecule prints through a frame of this width and wraps what is longer, also pytest's lines that name a test.
WIDTH = "250"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_REASON = 400
PRINTING = Lock()
FAILURES: list[str] = []
PYTHON_FOLDERS = ["plugins", "tests", "molecule", "examples", "docs"]


@dataclass
class Counts:
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def step(name: str, *argv: str) -> bool:
    """Run one command, say what it is and how long it took."""
    print(f"\n=== {name}: {' '.join(argv)}", flush=True)
    begun = time.monotonic()
    passed = subprocess.run(argv, cwd=ROOT, check=False).returncode == 0
    print(f"=== {_ended(name, passed, begun)}", flush=True)
    return passed


def step_beside(name: str, *argv: str) -> bool:
    """A step that runs beside others: what it prints is kept in a file and comes in one piece at its end."""
    print(f"\n=== {name} begins: {' '.join(argv)}", flush=True)
    begun = time.monotonic()
    log = BUILD / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    told = log.read_text(errors="replace")
    with PRINTING:
        print(f"\n=== {name}:\n{told}\n=== {_ended(name, done.returncode == 0, begun, told)}", flush=True)
    return done.returncode == 0


def _ended(name: str, passed: bool, begun: float, told: str = "") -> str:
    ended = f"{name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - begun:.1f} s"
    if not passed:
        FAILURES.append("\n".join([ended, *reasons(told)]))
    return ended


def reasons(log: str) -> list[str]:
    """The lines of a log that name what failed, tests or else Ansible's tasks, without Molecule's frame and colours."""
    lines = [COLOUR.sub("", line).lstrip(" │").rstrip() for line in log.splitlines()]
    tests = [line for line in lines if re.match(r"(?:FAILED|ERROR) \S+::", line)]
    return [line[:LONGEST_REASON] for line in tests or [line for line in lines if line.startswith("fatal: [")]]


def count(passed: bool) -> Counts:
    """One step."""
    return Counts(int(passed), int(not passed))


def lint(run: Callable[..., bool] = step) -> Counts:
    """Formatting, lint, types, YAML, Ansible, changelog fragments."""
    commands = [
        ("ruff format", "ruff", "format", "--check", *PYTHON_FOLDERS),
        ("ruff", "ruff", "check", *PYTHON_FOLDERS),
        ("mypy", "mypy", *(word for name in TYPED_PACKAGES for word in ("-p", f"{PLUGINS}.{name}"))),
        ("yamllint", "yamllint", "--strict", "."),
        ("ansible-lint", "ansible-lint", "--strict"),
        ("changelog", "antsibull-changelog", "lint"),
    ]
    return sum((count(run(*command)) for command in commands), Counts())


def pytest(part: str, *options: str, run: Callable[..., bool] = step) -> Counts:
    """One folder of pytest tests. A skipped test fails the run in CI (tests/conftest.py)."""
    report = BUILD / f"{part}.xml"
    report.unlink(missing_ok=True)
    passed = run(part, sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options, f"tests/{part}")
    if not report.exists():
        return Counts(failed=1)
    counts = Counts()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 - written by pytest just now
        broken = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts += Counts(int(suite.get("tests", 0)) - broken - skipped, broken, skipped)
    if not passed and counts.failed == 0:
        counts.failed = 1
    return counts


def integration() -> Counts:
    """Modules against real servers; needs the engine of the test bed."""
    workers = min(WORKERS_AT_MOST, len(os.sched_getaffinity(0)))
    return pytest("integration", "-n", str(workers), *DISTRIBUTION, "--durations=10", run=step_beside)


def scenario(name: str) -> Counts:
    """One Molecule scenario."""
    return count(
        step_beside(f"molecule {name}", "env", f"COLUMNS={WIDTH}", "molecule", "test", "--scenario-name", name)
    )


def test_bed(run: Callable[..., bool]) -> Counts:
    """What hosts need; it counts when it fails."""
    return Counts(failed=int(not run("test bed", sys.executable, "tests/testbed", "up")))


def on_hosts(parts: set[str]) -> list[Callable[[], Counts]]:
    """What needs the test bed, of integration and molecule, in the order in which it begins."""
    scenarios = (ROOT / "molecule").glob("*/molecule.yml") if "molecule" in parts else ()
    known = {path.parent.name for path in scenarios}
    names = [name for name in LONGEST_SCENARIOS if name in known]
    jobs: list[Callable[[], Counts]] = [partial(scenario, name) for name in [*names, *sorted(known.difference(names))]]
    if "integration" in parts:
        jobs.insert(1, integration)
    return jobs


def together(parts: set[str]) -> Counts:
    """These parts, so many jobs at once."""
    run = step_beside if len(parts) > 1 else step
    with ThreadPoolExecutor(JOBS_AT_ONCE) as pool:
        running = [pool.submit(test_bed, run)] if ON_HOSTS & parts else []
        for part, job in (("lint", partial(lint, run)), ("unit", partial(pytest, "unit", run=run))):
            running += [pool.submit(job)] if part in parts else []
        bed = running[0]
        running += [pool.submit(_when_there, bed, job) for job in on_hosts(parts)]
        return sum((job.result() for job in running), Counts())


def _when_there(bed: Future[Counts], job: Callable[[], Counts]) -> Counts:
    return Counts() if bed.result().failed else job()


ON_HOSTS = {"integration", "molecule"}
PARTS = ("lint", "unit", *sorted(ON_HOSTS))


def main() -> int:
    """Run the named parts; 0 when nothing failed and something ran."""
    names = sys.argv[1:]
    if not names or set(names) - set(PARTS):
        print(__doc__)
        return 2
    os.environ["PATH"] = f"{BUILD / 'venv' / 'bin'}:{os.environ['PATH']}"
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(BUILD / "collections")
    begun = time.monotonic()
    counts = together(set(names))
    print(f"\n{' '.join(names)} in {time.monotonic() - begun:.0f} s", *FAILURES, sep="\n")
    print(counts, flush=True)
    return 0 if counts.failed == 0 and counts.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
