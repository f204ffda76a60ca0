# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""backup_set that is killed, or loses power, before each of its system calls that change a name or wait for the disk.

Each point is reached with a real process, killed by SIGKILL, on a real ext4 file system. The killed state is looked at
as it is; then the power is cut, and what the disk has kept is looked at too. ext4 keeps more than it promises, so the
order of the calls is compared with what POSIX asks for as well.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.power import Call, PowerDisk, calls, killed_at, points, power_disk, traced
from support.stack_sets import STACK, call, component, in_process, plant

from ansible_collections.groundwork.backend.plugins.module_utils._set_files import verify_set
from ansible_collections.groundwork.backend.plugins.module_utils._sets import read_sets

OLDEST, OLD, NEW = "20260101T000000Z", "20260102T000000Z", "20260103T000000Z"
DATA = os.urandom(20_000)


@dataclass(frozen=True)
class Action:
    """prepare: makes the state before, and gives the options of the run. stay: sets that may never be missing.

    after: the names that there are when the action, or its repetition, has ended well.
    """

    prepare: Callable[[PowerDisk, Path], dict[str, Any]]
    stay: set[str]
    after: set[str]


def before_begin(disk: PowerDisk, base: Path) -> dict[str, Any]:
    plant(base, OLD, data=DATA)
    in_process(base, "begin", id=OLDEST)
    disk.sync()
    return {"action": "begin", "id": NEW, "stale_after": 0}


def before_commit(disk: PowerDisk, base: Path) -> dict[str, Any]:
    plant(base, OLD, data=DATA)
    disk.sync()
    folder = Path(in_process(base, "begin", id=NEW)["path"])
    return {"action": "commit", "id": NEW, "components": [component(folder, data=DATA)]}


def before_prune(disk: PowerDisk, base: Path) -> dict[str, Any]:
    for set_id in (OLDEST, OLD, NEW):
        plant(base, set_id, data=DATA)
    disk.sync()
    return {"action": "prune", "keep": {"last": 1}}


def before_prove(disk: PowerDisk, base: Path) -> dict[str, Any]:
    plant(base, NEW, data=DATA)
    disk.sync()
    return {"action": "prove", "id": NEW, "seconds": 1, "components": [{"name": "db"}]}


ACTIONS = {
    "begin": Action(before_begin, {OLD}, {OLD, f".partial-{NEW}"}),
    "commit": Action(before_commit, {OLD}, {OLD, NEW}),
    "prune": Action(before_prune, {NEW}, {NEW}),
    "prove": Action(before_prove, {NEW}, {NEW}),
}


@pytest.fixture(scope="module", params=ACTIONS)
def name(request: pytest.FixtureRequest) -> str:
    """The action."""
    found: str = request.param
    return found


@dataclass(frozen=True)
class Run:
    """What an undisturbed run of an action did. where: the folder of the sets; points: calls to be killed at."""

    where: Path
    calls: list[Call]
    points: list[tuple[str, int]]


def start(module: ModuleRunner, base: Path, options: dict[str, Any], under: list[str]) -> tuple[int, str]:
    """Run the module under strace; its return code and output."""
    arguments = {"path": str(base), "stack": STACK, **options}
    # Python writes what it has compiled by a rename too.
    process = module.start("backup_set", arguments, under=under, env={"PYTHONDONTWRITEBYTECODE": "1"})
    out, _err = process.communicate(timeout=120)
    return process.returncode, out


@pytest.fixture(scope="module")
def undisturbed(module: ModuleRunner, name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The action as it is when nothing happens to it."""
    place = tmp_path_factory.mktemp(name)
    with power_disk(place / "disk") as disk:
        base = disk.folder / "stack"
        options = ACTIONS[name].prepare(disk, base)
        trace = place / "trace"
        code, out = start(module, base, options, traced(trace))
        assert code == 0, out
        assert json.loads(out)["changed"] is True
        assert {path.name for path in base.iterdir()} == ACTIONS[name].after
        yield Run(base, calls(trace, base), points(trace))


def require_whole(base: Path, action: Action) -> None:
    """No set is lost that must stay, and none looks complete that is not."""
    good, damaged = read_sets(base, STACK)
    assert damaged == []
    assert {manifest.id for manifest in good} >= action.stay
    for manifest in good:
        assert verify_set(base / manifest.id, STACK) == []


def require_clean_next_run(base: Path, action: Action, options: dict[str, Any]) -> None:
    """The same action, run again, ends as if nothing had happened."""
    if options["action"] == "commit" and not (base / NEW).is_dir() and not whole(base):
        # A commit cannot be repeated with files that the power cut took: the backup is begun anew.
        in_process(base, "begin", id=OLDEST, stale_after=0)
        in_process(base, "abort", id=OLDEST)
        assert {path.name for path in base.iterdir()} == {OLD}
        return
    if options["action"] == "begin" and (base / f".partial-{NEW}").is_dir():
        options = {**options, "id": None}
    in_process(base, **options)
    left = {path.name for path in base.iterdir()}
    if options.get("id"):
        assert left == action.after
    else:
        assert len(left) == len(action.after)
    require_whole(base, action)
    for folder in (base / set_id for set_id in left if set_id[0] != "."):
        assert {path.name for path in folder.iterdir()} == {"manifest.json", "components"}


def whole(base: Path) -> bool:
    """Whether the files that the commit is told of have survived."""
    dump = base / f".partial-{NEW}" / "components" / "db" / "dump"
    return dump.is_file() and dump.read_bytes() == DATA


def test_whatever_call_it_dies_at(
    module: ModuleRunner, name: str, undisturbed: Run, tmp_path: Path, subtests: Any
) -> None:
    """Killed before the call; then the power is cut as well."""
    action = ACTIONS[name]
    assert len(undisturbed.points) >= 3
    for call_name, nth in undisturbed.points:
        with subtests.test(f"{call_name} {nth}"), power_disk(tmp_path / "disk") as disk:
            base = disk.folder / "stack"
            options = action.prepare(disk, base)
            code, out = start(module, base, options, killed_at(tmp_path / "trace", call_name, nth))
            assert (code, out) == (-9, "")
            killed = tmp_path / f"{call_name}-{nth}"
            shutil.copytree(base, killed, symlinks=True)
            require_whole(killed, action)
            require_clean_next_run(killed, action, options)

            disk.cut()
            require_whole(base, action)
            require_clean_next_run(base, action, options)


def test_what_was_told_to_be_done_survives_a_power_cut(module: ModuleRunner, name: str, tmp_path: Path) -> None:
    action = ACTIONS[name]
    with power_disk(tmp_path / "disk") as disk:
        base = disk.folder / "stack"
        options = action.prepare(disk, base)
        result = module("backup_set", {"path": str(base), "stack": STACK, **options})
        assert result["changed"] is True
        disk.cut()
        require_whole(base, action)
        sets = {set_id for set_id in action.after if set_id[0] != "."}
        assert {manifest.id for manifest in read_sets(base, STACK)[0]} == sets
        listed = call(module, base, "list")
        if name == "prove":
            assert listed["newest"]["proven"]["seconds"] == 1


def test_the_disk_does_lose_what_was_not_written_through(tmp_path: Path) -> None:
    """Without this, the tests above would say nothing."""
    with power_disk(tmp_path / "disk") as disk:
        (disk.folder / "synced").write_bytes(DATA)
        disk.sync()
        (disk.folder / "written").write_bytes(DATA)
        (disk.folder / "temporary").write_bytes(DATA[::-1])
        (disk.folder / "temporary").rename(disk.folder / "synced")
        disk.cut()
        assert not (disk.folder / "written").exists()
        assert (disk.folder / "synced").read_bytes() == DATA


def last(found: list[Call], name: str, path: Path) -> int:
    """Place of the last such call whose first path is this."""
    return max(index for index, one in enumerate(found) if one.name == name and one.paths[0] == str(path))


@pytest.mark.parametrize("name", ["commit"], indirect=True)
def test_every_file_and_folder_is_on_the_disk_before_the_set_has_its_name(undisturbed: Run) -> None:
    found, final = undisturbed.calls, undisturbed.where / NEW
    partial = undisturbed.where / f".partial-{NEW}"
    named = last(found, "rename", partial)
    assert found[named].paths == (str(partial), str(final))
    for path in (partial, *(partial / one.relative_to(final) for one in final.rglob("*"))):
        if path.name != "manifest.json":  # it is synced under its temporary name
            assert last(found, "fsync", path) < named
    manifest = next(one for one in found if one.name == "rename" and one.paths[1] == str(partial / "manifest.json"))
    written = found.index(manifest)
    assert last(found, "fsync", Path(manifest.paths[0])) < written
    assert last(found, "fsync", partial / "components" / "db" / "dump") < written
    assert written < last(found, "unlink", partial / ".owner.json") < last(found, "fsync", partial) < named
    assert named < last(found, "fsync", undisturbed.where)


@pytest.mark.parametrize("name", ["prune"], indirect=True)
def test_sets_lose_their_names_on_the_disk_before_they_lose_a_file(undisturbed: Run) -> None:
    found = undisturbed.calls
    renames = [index for index, one in enumerate(found) if one.name == "rename"]
    removals = [index for index, one in enumerate(found) if one.name in ("unlink", "unlinkat", "rmdir")]
    assert [found[index].paths for index in renames] == [
        (str(undisturbed.where / set_id), str(undisturbed.where / f".removing-{set_id}")) for set_id in (OLDEST, OLD)
    ]
    assert len(removals) == 10
    assert max(renames) < last(found, "fsync", undisturbed.where) < min(removals)


@pytest.mark.parametrize("name", ["prove"], indirect=True)
def test_a_proof_is_on_the_disk_before_it_takes_the_place_of_the_manifest(undisturbed: Run) -> None:
    synced, renamed, folder = undisturbed.calls
    assert [one.name for one in (synced, renamed, folder)] == ["fsync", "rename", "fsync"]
    assert renamed.paths == (synced.paths[0], str(undisturbed.where / NEW / "manifest.json"))
    assert folder.paths == (str(undisturbed.where / NEW),)


def test_the_folders_above_the_first_set_are_on_the_disk(module: ModuleRunner, tmp_path: Path) -> None:
    base = tmp_path / "one" / "two"
    arguments = {"action": "begin", "path": str(base), "stack": STACK}
    trace = tmp_path / "trace"
    process = module.start("backup_set", arguments, under=traced(trace), env={"PYTHONDONTWRITEBYTECODE": "1"})
    out, _err = process.communicate(timeout=120)
    assert json.loads(out)["changed"] is True
    found = calls(trace, tmp_path)
    for folder in (base, base.parent):
        assert last(found, "mkdir", folder) < last(found, "fsync", folder.parent)
