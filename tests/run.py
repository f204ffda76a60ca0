# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run the parts of the test suite, one after the other, and print one line of counts at the end.

usage: run.py PART [PART ...]     parts: lint, unit, integration, molecule

A lint tool and a step of a Molecule scenario count as one test each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PLUGINS = "ansible_collections.groundwork.backend.plugins"
TYPED_PACKAGES = ("module_utils", "action", "plugin_utils", "filter")
# A file's tests share servers and hosts, so it stays with one worker; each worker has its own of them.
# A worker that dies ends the run: another would begin with the same test, and die, too.
DISTRIBUTION = ("--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart=0")
WORKERS_AT_MOST = 3
SCENARIOS_AT_ONCE = 2
LONGEST_SCENARIOS = ("deploy",)  # they begin first
PRINTING = Lock()
PYTHON_FOLDERS = ["plugins", "tests", "molecule", "examples", "docs"]


@dataclass
class Counts:
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __iadd__(self, other: Counts) -> Counts:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def step(name: str, *argv: str) -> bool:
    """Run one command, say what it is and how long it took."""
    print(f"\n=== {name}: {' '.join(argv)}", flush=True)
    begun = time.monotonic()
    passed = subprocess.run(argv, cwd=ROOT, check=False).returncode == 0
    print(f"=== {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - begun:.1f} s", flush=True)
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
    ended = f"=== {name}: {'passed' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - begun:.1f} s"
    with PRINTING:
        print(f"\n=== {name}:\n{log.read_text(errors='replace')}\n{ended}", flush=True)
    return done.returncode == 0


def count(results: Iterator[bool]) -> Counts:
    """Counts of steps."""
    counts = Counts()
    for passed in results:
        counts += Counts(int(passed), int(not passed))
    return counts


def lint() -> Counts:
    """Formatting, lint, types, YAML, Ansible, changelog fragments."""
    commands = [
        ("ruff format", "ruff", "format", "--check", *PYTHON_FOLDERS),
        ("ruff", "ruff", "check", *PYTHON_FOLDERS),
        ("mypy", "mypy", *(word for name in TYPED_PACKAGES for word in ("-p", f"{PLUGINS}.{name}"))),
        ("yamllint", "yamllint", "--strict", "."),
        ("ansible-lint", "ansible-lint", "--strict"),
        ("changelog", "antsibull-changelog", "lint"),
    ]
    return count(step(*command) for command in commands)


def pytest(part: str, *options: str) -> Counts:
    """One folder of pytest tests. A skipped test fails the run in CI (tests/conftest.py)."""
    report = BUILD / f"{part}.xml"
    report.unlink(missing_ok=True)
    passed = step(part, sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *options, f"tests/{part}")
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


def testbed() -> bool:
    """Bring the test bed up."""
    return step("test bed", sys.executable, "tests/testbed", "up")


def integration() -> Counts:
    """Modules against real servers; needs the engine of the test bed."""
    workers = min(WORKERS_AT_MOST, len(os.sched_getaffinity(0)))
    if not testbed():
        return Counts(failed=1)
    return pytest("integration", "-n", str(workers), *DISTRIBUTION, "--durations=10")


def molecule() -> Counts:
    """Every Molecule scenario, two side by side: each has hosts of its own, and waits for them half of its time."""
    if not testbed():
        return Counts(failed=1)
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    ordered = sorted(scenarios, key=lambda name: (name not in LONGEST_SCENARIOS, name))

    def test(name: str) -> bool:
        return step_beside(f"molecule {name}", "molecule", "test", "--scenario-name", name)

    with ThreadPoolExecutor(SCENARIOS_AT_ONCE) as pool:
        return count(pool.map(test, ordered))


PARTS: dict[str, Callable[[], Counts]] = {
    "lint": lint,
    "unit": lambda: pytest("unit"),
    "integration": integration,
    "molecule": molecule,
}


def main() -> int:
    """Run the named parts; 0 when nothing failed and something ran."""
    names = sys.argv[1:]
    if not names or set(names) - set(PARTS):
        print(__doc__)
        return 2
    os.environ["PATH"] = f"{BUILD / 'venv' / 'bin'}:{os.environ['PATH']}"
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(BUILD / "collections")
    counts = Counts()
    begun = time.monotonic()
    for name in names:
        counts += PARTS[name]()
    print(f"\n{' '.join(names)} in {time.monotonic() - begun:.0f} s")
    print(counts, flush=True)
    return 0 if counts.failed == 0 and counts.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
