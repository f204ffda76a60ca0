# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""deploy_lock in real runs of ansible-playbook that are killed, interrupted and compete."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.playbooks import Playbooks, Played
from support.processes import wait_for

MODULE = "groundwork.backend.deploy_lock"
TAKE = {"name": "take", MODULE: {"path": "{{ inventory_hostname }}.lock", "note": "a deploy"}}
AGAIN = {"name": "take again", MODULE: {"path": "{{ inventory_hostname }}.lock"}}
RELEASE = {"name": "release", MODULE: {"path": "{{ inventory_hostname }}.lock", "state": "absent"}}
GATE = {"name": "wait", "ansible.builtin.wait_for": {"path": "{{ playbook_dir }}/go"}}


@pytest.fixture
def play(tmp_path: Path) -> Playbooks:
    """Runs on two hosts, each with its own lock."""
    return Playbooks(tmp_path, ("one", "two"))


def task(given: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """A task with the lock in *folder* and more options."""
    arguments = given[MODULE]
    return {**given, MODULE: {**arguments, "path": f"{folder}/{arguments['path']}", **options}}


def holders(folder: Path) -> dict[str, int]:
    """The process that holds the lock of each host."""
    return {path.stem: json.loads(path.read_text())["pid"] for path in folder.glob("*.lock")}


def workers(pid: int) -> int:
    """How many tasks a run works on just now."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.fixture
def held(play: Playbooks, tmp_path: Path) -> subprocess.Popen[str]:
    """A run that holds the locks of both hosts, and waits."""
    process = play.start([task(TAKE, tmp_path), GATE], "--forks", "5")
    wait_for(lambda: len(holders(tmp_path)) == 2, "not both locks are held", seconds=240)
    return process


def stop(play: Playbooks, process: subprocess.Popen[str]) -> Played:
    (play.folder / "go").touch()
    return play.finish(process)


def test_one_run_is_one_owner_in_all_its_workers(play: Playbooks, tmp_path: Path) -> None:
    process = play.start([task(TAKE, tmp_path), task(AGAIN, tmp_path), task(RELEASE, tmp_path)])
    played = play.finish(process)
    assert played.rc == 0, played.output
    for host in ("one", "two"):
        assert played.result("take", host)["run"]["pid"] == process.pid
        assert played.result("take again", host)["holder"] == played.result("take", host)["holder"]
        assert played.result("release", host)["released"] is True
        assert not any(played.result(name, host)["changed"] for name in ("take", "take again", "release"))
    assert holders(tmp_path) == {}


def test_a_run_that_is_held_up_names_the_holder(play: Playbooks, tmp_path: Path, held: subprocess.Popen[str]) -> None:
    played = play([task(TAKE, tmp_path, wait=1)], "--limit", "one")
    assert played.rc != 0
    result = played.result("take")
    assert f"(process {held.pid}, started " in result["msg"]
    assert "a deploy" in result["msg"]
    assert f"Its process {held.pid} runs on this controller." in result["msg"]
    assert f"ansible one --become --module-name {MODULE}" in result["msg"]
    assert (result["verdict"], result["holder"]["pid"]) == ("alive", held.pid)
    assert stop(play, held).rc == 0


def test_a_check_run_tells_and_neither_takes_nor_waits(
    play: Playbooks, tmp_path: Path, held: subprocess.Popen[str]
) -> None:
    tasks = [task(TAKE, tmp_path, wait=100_000), task(RELEASE, tmp_path)]
    played = play(tasks, "--check")
    assert played.rc == 0, played.output
    assert (played.result("take")["verdict"], played.result("take")["taken"]) == ("alive", False)
    assert played.result("take")["summary"].endswith(f"Its process {held.pid} runs on this controller.")
    assert played.result("release")["released"] is False
    assert holders(tmp_path) == {"one": held.pid, "two": held.pid}
    assert stop(play, held).rc == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_the_lock_of_a_run_that_was_stopped_is_taken_over(
    play: Playbooks, tmp_path: Path, held: subprocess.Popen[str], how: signal.Signals
) -> None:
    held.send_signal(how)
    held.wait(timeout=240)
    assert holders(tmp_path) == {"one": held.pid, "two": held.pid}
    played = play([task(TAKE, tmp_path), task(RELEASE, tmp_path)])
    assert played.rc == 0, played.output
    for host in ("one", "two"):
        before = played.result("take", host)["taken_over_from"]
        assert (before["pid"], before["note"]) == (held.pid, "a deploy")
        assert before["reason"] == f"Its process {held.pid} has ended."
    assert "Took over the lock of " in played.output
    assert holders(tmp_path) == {}
    (tmp_path / "go").touch()  # for what a killed run left


def test_without_takeover_a_dead_holder_is_told(play: Playbooks, tmp_path: Path, held: subprocess.Popen[str]) -> None:
    held.kill()
    held.wait(timeout=240)
    result = play([task(TAKE, tmp_path, takeover=False)]).result("take")
    assert result["verdict"] == "dead"
    assert f"Its process {held.pid} has ended." in result["msg"]
    (tmp_path / "go").touch()


def test_a_holder_that_dies_ends_the_wait(play: Playbooks, tmp_path: Path, held: subprocess.Popen[str]) -> None:
    waiting = play.start([task(TAKE, tmp_path, wait=240)])
    wait_for(lambda: workers(waiting.pid) == 2, "not both hosts wait", seconds=240)
    held.kill()
    held.wait(timeout=240)
    played = play.finish(waiting)
    assert played.rc == 0, played.output
    assert played.result("take")["taken_over_from"]["pid"] == held.pid
    (tmp_path / "go").touch()


def test_of_eight_runs_one_takes_the_lock_and_the_others_name_it(play: Playbooks, tmp_path: Path) -> None:
    runs = [play.start([task(TAKE, tmp_path), GATE], "--limit", "one") for _ in range(8)]
    wait_for(lambda: sum(run.poll() is None for run in runs) == 1, "more than one of the runs goes on", seconds=240)
    (tmp_path / "go").touch()
    ended = {run.pid: play.finish(run) for run in runs}
    winners = [pid for pid, played in ended.items() if played.rc == 0]
    assert winners == [holders(tmp_path)["one"]]
    for pid, played in ended.items():
        if pid != winners[0]:
            assert played.result("take")["holder"]["pid"] == winners[0]


@pytest.mark.slow
def test_eight_runs_that_wait_work_one_after_the_other(play: Playbooks, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    alone = {
        "name": "work",
        "ansible.builtin.command": {"argv": ["sh", "-c", f"mkdir {inside} && sleep 0.3 && rmdir {inside}"]},
    }
    tasks = [task(TAKE, tmp_path, wait=240), alone, task(RELEASE, tmp_path)]
    for played in [play.finish(run) for run in [play.start(tasks, "--limit", "one") for _ in range(8)]]:
        assert played.rc == 0, played.output


def test_delegated_it_locks_there_and_a_loop_takes_several(play: Playbooks, tmp_path: Path) -> None:
    delegated = {**task(TAKE, tmp_path, path=f"{tmp_path}/{{{{ item }}}}.lock"), "loop": ["a", "b"]}
    played = play([{**delegated, "delegate_to": "two", "become": True}], "--limit", "one")
    assert played.rc == 0, played.output
    assert holders(tmp_path).keys() == {"a", "b"}


def test_a_wait_that_is_no_number_is_refused(play: Playbooks, tmp_path: Path) -> None:
    result = play([task(TAKE, tmp_path, wait="soon")], "--limit", "one").result("take")
    assert result["failed"]
    assert "argument 'wait'" in result["msg"]
    assert holders(tmp_path) == {}
