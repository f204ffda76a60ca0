# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""backup_set action=prune on a real file system: what no rule holds goes, and nothing else."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.modules import ModuleRunner
from support.stack_sets import STACK, call, copy_as, days_ago, in_process, plant

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._partials import locked
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "backups" / STACK


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_check_do_check_again_do_again(module: ModuleRunner, base: Path) -> None:
    new, middle, old = [plant(base, days_ago(days)).name for days in (1, 2, 3)]
    planned = call(module, base, "prune", keep={"last": 2}, check=True)
    assert planned["changed"] is True
    assert names(base) == [old, middle, new]
    result = call(module, base, "prune", keep={"last": 2})
    for one in (planned, result):
        assert one["removed"] == [old]
        assert one["removed_bytes"] == 4
        assert one["kept"] == [{"id": new, "reasons": ["last 1"]}, {"id": middle, "reasons": ["last 2"]}]
        assert one["explained"] == [
            f"{new} stays: last 1.",
            f"{middle} stays: last 2.",
            f"{old} goes: last: 2 newer sets kept.",
        ]
        assert one["damaged"] == []
        assert one["diff"]["before"]["sets"] == [new, middle, old]
        assert one["diff"]["after"]["sets"] == [new, middle]
    assert names(base) == [middle, new]
    for check in (True, False):
        again = call(module, base, "prune", keep={"last": 2}, check=check)
        assert (again["changed"], again["removed"]) == (False, [])
    assert call(module, base, "verify", id="all")["verified"] == [new, middle]


def test_400_days_of_sets(module: ModuleRunner, base: Path) -> None:
    newest = datetime.now(UTC).replace(hour=0, minute=0, second=0)
    days = [newest - timedelta(days=number) for number in range(400)]
    first = plant(base, f"{days[0]:%Y%m%dT%H%M%SZ}")
    for day in days[1:]:
        copy_as(first, f"{day:%Y%m%dT%H%M%SZ}")
    keep = {"daily": 7, "weekly": 4, "monthly": 12}
    heads = [{f"{day:{period}}": day for day in reversed(days)} for period in ("%Y-%m-%d", "%G-%V", "%Y-%m")]
    wanted = {
        day
        for newest_of, count in zip(heads, keep.values(), strict=True)
        for day in sorted(newest_of.values(), reverse=True)[:count]
    }
    result = call(module, base, "prune", keep=keep)
    assert names(base) == sorted(f"{day:%Y%m%dT%H%M%SZ}" for day in wanted)
    assert len(result["removed"]) == 400 - len(wanted)
    assert call(module, base, "verify", id="all")["verified"] == sorted(names(base), reverse=True)


@pytest.mark.parametrize("kind", ["manifest", "size", "newer", "missing"])
def test_damaged_sets_count_for_nothing_and_are_never_removed(module: ModuleRunner, base: Path, kind: str) -> None:
    """Three broken backups in a row: the last good one is the newest that counts."""
    old, good = plant(base, days_ago(9)).name, plant(base, days_ago(5)).name
    damaged = [plant(base, days_ago(days)) for days in (3, 2, 1)]
    ancient = plant(base, days_ago(90))
    for folder in (*damaged, ancient):
        manifest = folder / "manifest.json"
        if kind == "manifest":
            manifest.write_text(manifest.read_text().replace('"seconds": 0.5', '"seconds": 0.25'))
        elif kind == "newer":
            manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
        elif kind == "size":
            (folder / "components" / "db" / "dump").write_bytes(b"row")
        elif kind == "missing":
            manifest.unlink()
    result = call(module, base, "prune", keep={"last": 1})
    assert result["removed"] == [old]
    assert names(base) == sorted([good, ancient.name, *(folder.name for folder in damaged)])
    assert {one["id"] for one in result["damaged"]} == {ancient.name, *(folder.name for folder in damaged)}
    kept = {one["id"]: one["reasons"] for one in result["kept"]}
    assert kept[good] == ["last 1"]
    assert kept[ancient.name] == ["damaged"]


def test_a_flipped_bit_counts_until_the_files_are_read(module: ModuleRunner, base: Path) -> None:
    good, flipped = plant(base, days_ago(2)), plant(base, days_ago(1))
    (flipped / "components" / "db" / "dump").write_bytes(b"ruws")
    assert call(module, base, "prune", keep={"last": 1}, check=True)["removed"] == [good.name]
    result = call(module, base, "prune", keep={"last": 1}, full=True)
    assert result["removed"] == []
    assert "is not what its backup wrote" in result["damaged"][0]["reason"]
    assert {one["id"]: one["reasons"] for one in result["kept"]} == {
        flipped.name: ["damaged"],
        good.name: ["last 1"],
    }


def test_sets_from_the_future_push_nothing_out_and_stay(module: ModuleRunner, base: Path) -> None:
    good = plant(base, days_ago(1)).name
    future = [plant(base, set_id).name for set_id in ("29990101T000000Z", "29990102T000000Z")]
    old = plant(base, days_ago(2)).name
    result = call(module, base, "prune", keep={"last": 1})
    assert result["removed"] == [old]
    assert names(base) == sorted([good, *future])
    assert "dated after this host's clock" in result["explained"][0]


def test_the_floor_is_above_every_rule(module: ModuleRunner, base: Path) -> None:
    sets = [plant(base, days_ago(days)).name for days in (400, 500, 600, 700)]
    assert call(module, base, "prune", keep={"within": "1h", "minimum": 3})["removed"] == sets[3:]
    for keep in ({"last": 1, "minimum": 0}, {"minimum": 1}, {}, {"within": "soon"}):
        result = call(module, base, "prune", keep=keep)
        assert result["failed"]
        assert "keep" in result["msg"]
    assert names(base) == sorted(sets[:3])


def test_what_is_foreign_is_not_touched(module: ModuleRunner, base: Path) -> None:
    """Another stack beside, another stack's set inside, a set that is being written, names that are nearly ours."""
    new, old = days_ago(1), days_ago(2)
    plant(base, new)
    plant(base, old)
    beside = base.parent / f"{STACK}-test"
    for set_id in (new, old):
        plant(beside, set_id, stack=f"{STACK}-test")
    foreign = plant(base, days_ago(3), stack=f"{STACK}-test").name
    writing = Path(in_process(base, "begin", id="20250101T000000Z")["path"]).name
    almost = [f"{old}-copy", f"{old[:-1]}", ".removing-notes", ".removing-", f".incoming-{old}", "lost+found"]
    for name in almost:
        (base / name).mkdir()
    (base / "20250102T000000Z").write_text("a file with the name of a set")
    outside = base.parent / "outside"
    plant(outside, old)
    (base / "20250103T000000Z").symlink_to(outside / old)
    (base / ".removing-20250103T000000Z").symlink_to(outside / old)

    result = call(module, base, "prune", keep={"last": 1})
    assert result["removed"] == [old]
    links = ["20250103T000000Z", ".removing-20250103T000000Z"]
    assert names(base) == sorted([new, foreign, writing, *almost, *links, "20250102T000000Z"])
    assert names(beside) == sorted([new, old])
    assert names(outside) == [old]
    assert (outside / old / "components" / "db" / "dump").read_bytes() == b"rows"


def test_links_inside_of_a_set_are_removed_and_not_followed(module: ModuleRunner, base: Path, tmp_path: Path) -> None:
    plant(base, days_ago(1))
    old = plant(base, days_ago(2))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("kept")
    (old / "link").symlink_to(precious)
    assert call(module, base, "prune", keep={"last": 1})["removed"] == [old.name]
    assert (precious / "data").read_text() == "kept"
    assert not old.exists()


def opens(pid: int, folder: Path) -> bool:
    """Whether a process has a folder open."""
    with suppress(FileNotFoundError):
        return any(file.readlink() == folder for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_three_prunes_at_once_remove_each_set_once(module: ModuleRunner, base: Path) -> None:
    sets = [plant(base, days_ago(days)).name for days in range(1, 31)]
    arguments = {"action": "prune", "path": str(base), "stack": STACK, "keep": {"last": 5}}
    with locked(base):
        processes = [module.start("backup_set", arguments) for _ in range(3)]
        while not all(process.poll() is not None or opens(process.pid, base) for process in processes):
            time.sleep(0.05)
        assert names(base) == sorted(sets)
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert [result.get("msg") for result in results if result.get("failed")] == []
    assert sorted(one for result in results for one in result["removed"]) == sorted(sets[5:])
    assert names(base) == sorted(sets[:5])


def test_who_waits_for_the_lock_too_long_says_what_is_going_on(base: Path) -> None:
    in_process(base, "begin", id="20260102T000000Z")

    def second() -> None:
        with locked(base, wait_seconds=0):
            raise AssertionError("two hold the lock")

    with locked(base), pytest.raises(StateError, match=r"changing the backup sets.*set 20260102T000000Z, begun at"):
        second()


def test_a_set_that_somebody_reads_stays_for_now(module: ModuleRunner, base: Path) -> None:
    plant(base, days_ago(1))
    old = plant(base, days_ago(2))
    with held(old) as mine, held(old) as others:
        assert mine
        assert others
        result = call(module, base, "prune", keep={"last": 1})
        assert (result["changed"], result["removed"]) == (False, [])
        assert result["kept"][1] == {"id": old.name, "reasons": ["in use"]}
        assert result["explained"][1] == f"{old.name} stays for now: somebody reads it."
    assert call(module, base, "prune", keep={"last": 1})["removed"] == [old.name]


def test_a_folder_that_is_not_there_has_nothing_to_prune(module: ModuleRunner, base: Path) -> None:
    for check in (True, False):
        result = call(module, base, "prune", keep={"last": 1}, check=check)
        assert (result["changed"], result["kept"], result["removed"]) == (False, [], [])
    assert not base.exists()


@pytest.fixture
def undeletable() -> Iterator[list[Path]]:
    """Files that the file system does not let go of, also of root; put paths into the list."""
    paths: list[Path] = []
    yield paths
    for path in paths:
        subprocess.run(["chattr", "-i", path], check=True)


def test_what_cannot_be_removed_fails_the_prune_and_no_backup(
    module: ModuleRunner, base: Path, undeletable: list[Path]
) -> None:
    new, other, old = (plant(base, days_ago(days)) for days in (1, 2, 3))
    dump = old / "components" / "db" / "dump"
    if subprocess.run(["chattr", "+i", dump], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs a file system with immutable files, and the right to make one")
    aside = base / f".removing-{old.name}"
    undeletable.append(aside / "components" / "db" / "dump")
    for _ in range(2):
        result = call(module, base, "prune", keep={"last": 1})
        assert result["failed"]
        assert "Operation not permitted" in result["msg"]
        assert names(base) == [aside.name, new.name]
    assert not other.exists()
    begun = call(module, base, "begin", id="20250101T000000Z")
    assert begun["changed"] is True
    assert begun["removed"] == []
    begun = call(module, base, "begin", stale_after=0)
    assert begun["removed"] == [str(base / ".partial-20250101T000000Z")]
    assert "What an interrupted removal left stays" in json.dumps(begun["warnings"])
    subprocess.run(["chattr", "-i", undeletable.pop()], check=True)
    result = call(module, base, "prune", keep={"last": 1}, check=True)
    assert result["changed"] is True
    assert aside.exists()
    assert call(module, base, "prune", keep={"last": 1})["changed"] is True
    assert not aside.exists()


def test_rights_of_the_folders_stay_narrow(module: ModuleRunner, base: Path) -> None:
    plant(base, days_ago(1))
    plant(base, days_ago(2))
    assert call(module, base, "prune", keep={"last": 1})["changed"] is True
    modes = {path.stat().st_mode & 0o077 for path in (base, *base.rglob("*"))}
    assert modes == {0}
