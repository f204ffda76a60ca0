# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Who holds a lock, whether that run is over, and the lock file itself; processes and namespaces are real ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support.collection import COLLECTIONS
from support.disks import fill, small_disk
from support.modules import ModuleRunner

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._lock_owner import identify, judge, main_process
from ansible_collections.groundwork.backend.plugins.module_utils._lock_record import Owner, Record, read, release, take

_IDENTIFY = f"""
import dataclasses, json, os, sys, time
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[{str(COLLECTIONS)!r}])._install()
from ansible_collections.groundwork.backend.plugins.module_utils._lock_owner import Owner, identify, judge
print(json.dumps(dataclasses.asdict(identify(os.getpid()))), flush=True)
"""


@pytest.fixture
def me() -> Owner:
    """This process as a run of Ansible."""
    return identify(os.getpid())


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def owner_of(name: str) -> Owner:
    """Somebody on another machine."""
    return Owner(name, f"{name}-host", name, 1, "2026-11-21T06:00:00Z", 1, f"{name}-machine", f"{name}-boot", 1)


def taken(path: Path, owner: Owner, **options: Any) -> Record:
    return take(path, owner, "a deploy", **options)[0]


def test_a_run_has_the_same_id_every_time(me: Owner) -> None:
    assert identify(os.getpid()) == me
    assert main_process() == os.getpid()
    assert me.id != identify(os.getppid()).id


def test_a_process_that_runs_is_alive(me: Owner, other: subprocess.Popen[bytes]) -> None:
    assert judge(me, me).state == "alive"
    assert judge(identify(other.pid), me).state == "alive"


def test_a_process_that_ended_is_dead(me: Owner, other: subprocess.Popen[bytes]) -> None:
    holder = identify(other.pid)
    other.kill()
    other.wait()
    assert judge(holder, me).state == "dead"


def test_a_zombie_is_dead(me: Owner, other: subprocess.Popen[bytes]) -> None:
    holder = identify(other.pid)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert judge(holder, me).state == "dead"


def test_another_process_with_the_same_number_is_not_the_holder(me: Owner) -> None:
    verdict = judge(replace(me, start_ticks=me.start_ticks - 1), me)
    assert verdict.state == "dead"
    assert "another one has that number" in verdict.reason


def test_another_boot_of_this_machine_is_dead(me: Owner) -> None:
    machine = replace(me, pid_namespace=0xEFFFFFFC)
    assert judge(replace(machine, boot_id="before"), machine).state == "dead"


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "elsewhere"},
        {"machine": ""},
        {"boot_id": ""},
        {"start_ticks": 0},
        {"pid_namespace": 1},
        {"boot_id": "before", "pid_namespace": 1},
        {"boot_id": "before", "controller": "clone-2"},
    ],
    ids=str,
)
def test_what_cannot_be_proven_is_unknown(me: Owner, change: dict[str, Any]) -> None:
    """Although there is no process with that number."""
    gone = 1 << 22
    assert judge(replace(me, pid=gone), me).state == "dead"
    assert judge(replace(me, pid=gone, **change), me).state == "unknown"


def test_nothing_is_proven_where_the_controller_does_not_know_itself(me: Owner) -> None:
    assert judge(replace(me, pid=1 << 22), replace(me, machine="")).state == "unknown"


def in_namespace(*prefix: str, then: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", _IDENTIFY + then], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return process


def test_processes_of_another_pid_namespace_are_not_judged(me: Owner) -> None:
    allowed = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True)
    if allowed.returncode != 0:
        pytest.skip(f"needs the right to make a pid namespace: {allowed.stderr.decode()}")
    process = in_namespace("unshare", "--pid", "--fork", "--mount-proc", then="sys.stdin.read()")
    assert process.stdout is not None
    holder = Owner.from_dict(json.loads(process.stdout.readline()))
    assert (holder.machine, holder.boot_id, holder.pid) == (me.machine, me.boot_id, 1)
    assert "in another container" in judge(holder, me).reason
    process.communicate()
    assert judge(holder, me).state == "unknown"


def test_a_process_that_proc_hides_is_not_dead(me: Owner) -> None:
    """Mounted with hidepid, /proc shows other users' processes to nobody but root."""
    script = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    if subprocess.run([*prefix, sys.executable, "-c", ""], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount, and a Python that every user may run")
    then = "holder = Owner.from_dict(json.load(sys.stdin)); print(judge(holder, identify(os.getpid())).state)"
    process = in_namespace(*prefix, then=then)
    out, _err = process.communicate(json.dumps(asdict(me)))
    assert out.splitlines()[-1] == "unknown"


def test_the_record_is_private_and_says_who_and_why(tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    record = taken(path, me)
    assert read(path) == record
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(record).startswith(f"{me.user} on {me.controller} (process {me.pid}, started ")
    assert str(record).endswith(": a deploy")
    assert [entry.name for entry in tmp_path.iterdir()] == ["deploy.lock"]


def test_a_run_takes_its_own_lock_again(tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    first = taken(path, me)
    assert take(path, me, "another note") == (first, None)


def test_a_takeover_replaces_only_the_holder_that_was_judged(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    dead = taken(path, owner_of("dead"))
    assert take(path, owner_of("one"), "", replaces=dead.id)[1] == dead
    with pytest.raises(StateError, match="one on one-host"):
        take(path, owner_of("two"), "", replaces=dead.id)


def test_of_many_that_take_over_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "deploy.lock"
    dead = taken(path, owner_of("dead"))

    def attempt(number: int) -> bool:
        try:
            return take(path, owner_of(f"n{number}"), "", replaces=dead.id)[1] == dead
        except StateError:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(64))) == 1


def test_what_a_killed_taker_left_is_removed_by_the_next(tmp_path: Path, me: Owner) -> None:
    (tmp_path / ".deploy.lock.4711.partial").write_text('{"id"')
    (tmp_path / ".other.lock.4711.partial").write_text("")
    assert read(tmp_path / "deploy.lock") is None
    taken(tmp_path / "deploy.lock", me)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.lock.4711.partial", "deploy.lock"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "x"}', b"\xff\xfe", b"null"], ids=repr)
def test_a_damaged_record_is_told_and_can_be_forced(
    module: ModuleRunner, tmp_path: Path, me: Owner, content: bytes
) -> None:
    path = tmp_path / "deploy.lock"
    path.write_bytes(content)
    options = {"path": str(path), "owner": asdict(me)}
    result = module("deploy_lock", options)
    assert result["failed"]
    assert "is no record of deploy_lock" in result["msg"]
    assert "force: true" in result["msg"]
    assert module("deploy_lock", options, check=True)["verdict"] == "damaged"
    result = module("deploy_lock", {**options, "state": "absent"})
    assert (result["verdict"], result["released"]) == ("damaged", False)
    assert path.read_bytes() == content
    assert module("deploy_lock", {**options, "force": True})["taken"] is True
    path.write_bytes(content)
    result = module("deploy_lock", {**options, "state": "absent", "force": True})
    assert (result["released"], result["changed"]) == (True, True)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_no_ordinary_file_is_refused(tmp_path: Path, me: Owner, kind: str) -> None:
    path = tmp_path / "deploy.lock"
    path.mkdir() if kind == "folder" else path.symlink_to("/etc/passwd")
    with pytest.raises(StateError, match="cannot be used: it is a"):
        taken(path, me)


def test_taking_and_letting_go_is_no_change(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    options = {"path": str(path), "owner": asdict(me), "note": "m"}
    result = module("deploy_lock", options, check=True)
    assert (result["changed"], result["taken"], result["verdict"], path.exists()) == (False, False, "free", False)
    result = module("deploy_lock", options)
    assert (result["changed"], result["taken"], result["verdict"]) == (False, True, "mine")
    gone = {**options, "state": "absent"}
    result = module("deploy_lock", gone, check=True)
    assert (result["changed"], result["released"], path.exists()) == (False, True, True)
    result = module("deploy_lock", gone)
    assert (result["changed"], result["released"], path.exists()) == (False, True, False)
    result = module("deploy_lock", gone)
    assert (result["changed"], result["released"], result["verdict"]) == (False, False, "free")


def test_a_lock_of_somebody_else_stays(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    taken(path, owner_of("alice"))
    options = {"path": str(path), "owner": asdict(me)}
    result = module("deploy_lock", options)
    assert result["failed"]
    assert "alice on alice-host (process 1, started 2026-11-21T06:00:00Z) since 20" in result["msg"]
    assert "state=absent force=true" in result["msg"]
    result = module("deploy_lock", {**options, "state": "absent"})
    assert (result["released"], result["changed"], result["holder"]["user"]) == (False, False, "alice")
    result = module("deploy_lock", options, check=True)
    assert (result["taken"], result["holder"]["user"]) == (False, "alice")
    assert read(path) is not None


def test_force_takes_or_removes_a_lock_of_somebody_else(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    options = {"path": str(path), "owner": asdict(me), "force": True}
    taken(path, owner_of("alice"))
    result = module("deploy_lock", options)
    assert (result["taken"], result["taken_over_from"]["user"]) == (True, "alice")
    taken(path, owner_of("bob"), force=True)
    gone = {**options, "state": "absent"}
    assert module("deploy_lock", gone, check=True)["changed"] is True
    result = module("deploy_lock", gone)
    assert (result["released"], result["changed"], result["holder"]["user"]) == (True, True, "bob")
    assert not path.exists()


def test_a_lock_that_is_let_go_ends_the_wait(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    path = tmp_path / "deploy.lock"
    taken(path, owner_of("alice"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(module, "deploy_lock", {"path": str(path), "owner": asdict(me), "wait": 240})
        result = module("deploy_lock", {"path": str(path), "owner": asdict(owner_of("alice")), "state": "absent"})
        assert result["released"] is True
        assert waiting.result()["taken"] is True


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_missing_folder(module: ModuleRunner, tmp_path: Path, me: Owner, state: str) -> None:
    options = {"path": str(tmp_path / "nope" / "deploy.lock"), "owner": asdict(me), "state": state}
    assert module("deploy_lock", options, check=True)["verdict"] == "free"
    result = module("deploy_lock", options)
    if state == "absent":
        assert result["verdict"] == "free"
    else:
        assert f"The folder {tmp_path / 'nope'} of the lock does not exist." in result["msg"]


def test_a_full_disk_leaves_no_lock_and_no_half_takeover(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder:
        path = folder / "deploy.lock"
        dead = taken(path, owner_of("dead"))
        fill(folder)
        result = module("deploy_lock", {"path": str(path), "owner": asdict(me), "replaces": dead.id})
        assert "No space left on device. Free space" in result["msg"]
        assert read(path) == dead
        gone = {"path": str(path), "owner": asdict(owner_of("dead")), "state": "absent"}
        assert module("deploy_lock", gone)["released"] is True
        assert [entry.name for entry in folder.iterdir()] == ["filler"]


def test_a_folder_of_a_read_only_file_system(module: ModuleRunner, tmp_path: Path, me: Owner) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        result = module("deploy_lock", {"path": str(folder / "deploy.lock"), "owner": asdict(me)})
    assert "Could not create" in result["msg"]
    assert "read-only" in result["msg"]


def test_without_the_action_plugin_it_says_so(module: ModuleRunner, tmp_path: Path) -> None:
    result = module("deploy_lock", {"path": str(tmp_path / "deploy.lock")})
    assert "without its action plugin" in result["msg"]
    result = module("deploy_lock", {"path": str(tmp_path / "deploy.lock"), "owner": {"id": "x"}})
    assert "owner cannot be used: controller, user" in result["msg"]


@pytest.mark.parametrize("wait", [-1, "nan"])
def test_a_wait_that_is_no_time_is_refused(module: ModuleRunner, tmp_path: Path, me: Owner, wait: Any) -> None:
    result = module("deploy_lock", {"path": str(tmp_path / "deploy.lock"), "owner": asdict(me), "wait": wait})
    assert result["msg"].startswith("wait is ")


def test_killed_at_any_moment_there_is_a_whole_record_or_none(tmp_path: Path, me: Owner) -> None:
    """A process that does nothing but take and let go is killed many times."""
    path = tmp_path / "deploy.lock"

    def work() -> None:
        while True:
            take(path, me, "x" * 100_000)
            release(path, me.id)

    seen = set()
    for _ in range(60):
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        time.sleep(random.uniform(0.005, 0.03))
        process.kill()
        process.join()
        record = read(path)  # raises DamagedError for half a record
        seen.add(record)
        assert record is None or (record.id, len(record.note)) == (me.id, 100_000)
    assert len(seen) > 1
    assert take(path, me, "")[0].id == me.id
    assert [entry.name for entry in tmp_path.iterdir()] == ["deploy.lock"]
