# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""tests/run.py: what it counts of a parallel run of pytest, and that nothing broken or skipped passes for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import run
from run import Counts

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "test_one.py": "def test_a(): pass\ndef test_b(): pass\ndef test_c(): assert False\n",
    "test_two.py": (
        "import pytest\n@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_d(broken): pass\ndef test_e(): pytest.skip('no server')\ndef test_f(): pass\n"
    ),
    "test_skip.py": "import pytest\ndef test_h(): pytest.skip('no server')\ndef test_i(): pass\n",
    "test_three.py": "import os\ndef test_g(): os._exit(1)\n",
}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose tests are those of a test, with the hooks of tests/conftest.py."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "BUILD", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "tests" / "sample").mkdir(parents=True)
    return tmp_path / "tests" / "sample"


def counted(checkout: Path, *names: str) -> Counts:
    for name in names:
        (checkout / name).write_text(FILES[name])
    return run.pytest("sample", "-n", "2", *run.DISTRIBUTION, "-p", "conftest")


def test_each_test_of_a_parallel_run_is_counted_once(checkout: Path) -> None:
    assert counted(checkout, "test_one.py", "test_two.py") == Counts(passed=3, failed=2, skipped=1)


def test_a_worker_that_dies_is_a_failure(checkout: Path) -> None:
    assert counted(checkout, "test_one.py", "test_three.py").failed > 0


@pytest.mark.parametrize(("ci", "failed"), [("", 0), ("1", 1)])
def test_a_skipped_test_fails_a_parallel_run_in_ci_only(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, ci: str, failed: int
) -> None:
    monkeypatch.setenv("CI", ci)
    assert counted(checkout, "test_skip.py") == Counts(passed=1, failed=failed, skipped=1)


def test_what_failed_is_told_without_the_frame_and_colours_of_molecule() -> None:
    framed = "  \x1b[2m│\x1b[0m "
    log = "\n".join(
        [
            f"{framed}fatal: [web]: FAILED! => a deploy that a test wants to fail",
            f"{framed}FAILED molecule/edge/tests/test_tls.py::test_a - AssertionError: 429",
            f"{framed}ERROR molecule/edge/tests/test_tls.py::test_b - OSError",
        ]
    )
    assert run.reasons(log) == [
        "FAILED molecule/edge/tests/test_tls.py::test_a - AssertionError: 429",
        "ERROR molecule/edge/tests/test_tls.py::test_b - OSError",
    ]
    assert run.reasons(log.splitlines()[0]) == ["fatal: [web]: FAILED! => a deploy that a test wants to fail"]
