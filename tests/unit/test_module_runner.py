# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""tests/support/modules.py: a run that is a fork is what a process of its own would be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner

ROOT = Path(__file__).resolve().parents[2]
# Of the process of the module, which is the parent of the shell: what it was given, and what it left to its children.
LOOK = """
pwd; env | sort; grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Threads):' /proc/$PPID/status
cut --delimiter ' ' --fields 5-7 /proc/$PPID/stat; ls /proc/$PPID/fd; readlink /proc/$PPID/exe
"""


def look(module: ModuleRunner, told: Path, **more: Any) -> str:
    """What a module's process is like."""
    check = {"name": "look", "kind": "command", "argv": ["sh", "-c", f"({LOOK}) >{told}"]}
    result = module("health_wait", {"timeout": 30, "checks": [check]}, **more)
    assert not result.get("failed"), result
    return told.read_text()


def test_a_fork_has_what_a_process_of_its_own_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, forked = ModuleRunner(ROOT, forked=False), ModuleRunner(ROOT)
    look(forked, tmp_path / "told")  # so that the process that forks began in another folder, with other settings
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GW_ONE", "é")
    monkeypatch.delenv("HOME", raising=False)
    before = os.umask(0o157)
    try:
        expected, seen = (look(runner, tmp_path / "told", env={"GW_TWO": "2"}) for runner in (own, forked))
    finally:
        os.umask(before)
    for word in (f"{tmp_path}\n", "GW_TWO=2\n", "Umask:\t0157\n"):
        assert word in expected
    assert seen == expected


def test_runs_have_nothing_of_each_other(module: ModuleRunner, tmp_path: Path) -> None:
    look(module, tmp_path / "first", env={"GW_ONE": "1"})
    assert "GW_ONE" not in look(module, tmp_path / "second")


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LC_ALL", "TMPDIR"])
def test_what_is_read_when_python_starts_begins_a_process_of_its_own(
    module: ModuleRunner, tmp_path: Path, name: str
) -> None:
    """It is seen by the command line, in which only such a process has the name of the module."""
    script = f"tr '\\0' '\\n' </proc/$PPID/cmdline >{tmp_path}/told"
    check = {"name": "look", "kind": "command", "argv": ["sh", "-c", script]}
    values = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TMPDIR": str(tmp_path)}
    for env in ({}, {name: values[name]}):
        assert not module("health_wait", {"timeout": 30, "checks": [check]}, env=env).get("failed")
        assert ("plugins.modules.health_wait" in (tmp_path / "told").read_text()) == bool(env)


def test_a_module_that_is_not_there_is_told(module: ModuleRunner) -> None:
    with pytest.raises(AssertionError, match=r"No module named .*nosuchmodule"):
        module("nosuchmodule", {})
