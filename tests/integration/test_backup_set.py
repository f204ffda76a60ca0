# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""backup_set on a real file system: a set is complete or absent, and no good set is ever touched."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.modules import ModuleRunner
from support.stack_sets import STACK, begun, call, committed, component


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "backups" / STACK


def test_begin_write_commit_list(module: ModuleRunner, base: Path) -> None:
    planned = call(module, base, "begin", check=True)
    assert planned["changed"] is True
    assert not base.exists()

    set_id, folder = begun(module, base)
    assert folder == base / f".partial-{set_id}"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (base, folder, folder / "components")} == {0o700}
    assert call(module, base, "list")["count"] == 0

    arguments = {"id": set_id, "components": [component(folder)], "release": "r1", "hosts": ["db1", "app1"]}
    assert call(module, base, "commit", check=True, **arguments)["changed"] is True
    assert folder.is_dir()
    result = call(module, base, "commit", **arguments)
    assert result["changed"] is True, result
    assert result["diff"]["after"] == {"sets": [set_id], "partial": []}
    final = Path(result["path"])
    assert final == base / set_id
    assert sorted(path.name for path in base.iterdir()) == [set_id]
    assert sorted(path.name for path in final.iterdir()) == ["components", "manifest.json"]
    for path in final.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)

    manifest = json.loads((final / "manifest.json").read_text())
    assert manifest == result["manifest"]
    assert (manifest["id"], manifest["stack"], manifest["release"]) == (set_id, STACK, "r1")
    assert manifest["hosts"] == ["db1", "app1"]
    assert manifest["schema_versions"] == {"db": 7}
    assert manifest["total_bytes"] == result["bytes"] == 4
    assert call(module, base, "commit", **arguments)["changed"] is False

    listed = call(module, base, "list")
    assert (listed["changed"], listed["latest"], listed["count"], listed["bytes"]) == (False, set_id, 1, 4)
    age = listed["sets"][0]["age_seconds"]
    assert 0 <= age < 3600
    told = {"path": str(final), "bytes": 4, "age_seconds": age, "proven": None}
    assert listed["newest"] == {**manifest, **told}
    assert listed["sets"][0]["components"] == ["db"]


def test_two_at_once(module: ModuleRunner, base: Path) -> None:
    arguments = {"action": "begin", "path": str(base), "stack": STACK}
    processes = [module.start("backup_set", arguments) for _ in range(3)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    winners = [result for result in results if not result.get("failed")]
    assert len(winners) == 1
    owner = json.loads((Path(winners[0]["path"]) / ".owner.json").read_text())
    for result in results:
        if result.get("failed"):
            assert f"begun at {owner['begun_at']} by process {owner['pid']}" in result["msg"]
            assert winners[0]["id"] in result["msg"]
    assert len(list(base.iterdir())) == 1


def age(folder: Path, seconds: float, **owner: Any) -> None:
    """Make an uncommitted set look as if its last change were that long ago."""
    file = folder / ".owner.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "begun_clock": told["begun_clock"] - seconds, **owner}))
    for path in (*folder.rglob("*"), folder):
        past = path.stat().st_mtime - seconds
        os.utime(path, (past, past))


def test_interrupted_sets_are_removed_and_others_are_not(module: ModuleRunner, base: Path) -> None:
    final = committed(module, base, id="20260101T000000Z")
    _, old = begun(module, base, id="20260102T000000Z")
    (base / "notes").mkdir()
    age(old, 3600)
    assert call(module, base, "begin")["failed"]
    age(old, 6 * 3600)
    (old / "components" / "still").write_bytes(b"a long dump that is being written")
    assert call(module, base, "begin")["failed"]
    (old / "components" / "still").unlink()
    age(old, 6 * 3600)
    planned = call(module, base, "begin", check=True)
    assert planned["removed"] == [str(old)]
    assert old.is_dir()
    assert call(module, base, "begin")["removed"] == [str(old)]
    assert not old.exists()
    assert (final / "manifest.json").exists()
    assert (base / "notes").is_dir()


def test_a_set_from_before_the_boot_is_interrupted_but_another_hosts_is_not(module: ModuleRunner, base: Path) -> None:
    _, old = begun(module, base, id="20260102T000000Z")
    age(old, 0, boot_id="another", host="another")
    assert call(module, base, "begin")["failed"]
    age(old, 0, host=os.uname().nodename)
    assert call(module, base, "begin")["removed"] == [str(old)]


def test_stale_after_zero_and_abort(module: ModuleRunner, base: Path) -> None:
    _, first = begun(module, base, id="20260102T000000Z")
    set_id, second = begun(module, base, stale_after=0)
    assert not first.exists()
    assert call(module, base, "abort", id=set_id, check=True)["changed"] is True
    assert second.exists()
    assert call(module, base, "abort", id=set_id)["removed"] == [str(second)]
    assert list(base.iterdir()) == []
    assert call(module, base, "abort", id=set_id)["changed"] is False


def test_abort_never_touches_a_committed_set(module: ModuleRunner, base: Path) -> None:
    final = committed(module, base)
    assert call(module, base, "abort", id=final.name)["changed"] is False
    assert call(module, base, "list")["latest"] == final.name


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", "is missing or is no ordinary file"),
        ("changed", "is not what its backup wrote"),
        ("link", "is missing or is no ordinary file"),
        ("extra", "belongs to no component of the set"),
        ("hidden", "belongs to no component of the set"),
        ("forgotten", "belongs to no component of the set"),
        ("nothing", "A backup set without components is no backup"),
        ("twice", "Two components have the same name"),
        ("upwards", "no path inside its folder"),
    ],
)
def test_what_does_not_agree_is_not_committed(module: ModuleRunner, base: Path, damage: str, sentence: str) -> None:
    set_id, folder = begun(module, base)
    components = [component(folder)]
    dump = folder / "components" / "db" / "dump"
    if damage in ("missing", "link"):
        dump.rename(folder.parent.parent / "elsewhere")
    if damage == "link":
        dump.symlink_to(folder.parent.parent / "elsewhere")
    elif damage == "changed":
        dump.write_bytes(b"ruws")
    elif damage == "extra":
        (folder / "components" / "db" / "extra").write_bytes(b"")
    elif damage == "hidden":
        (folder / "components" / "db" / ".dump.1.partial").write_bytes(b"")
    elif damage == "forgotten":
        component(folder, "redis")
    elif damage == "nothing":
        components = []
        dump.unlink()
    elif damage == "twice":
        components *= 2
    elif damage == "upwards":
        components[0]["files"][0]["name"] = "../db/dump"
    result = call(module, base, "commit", id=set_id, components=components)
    assert result["failed"]
    assert sentence in result["msg"]
    assert folder.is_dir()
    assert call(module, base, "list")["count"] == 0


def test_a_failed_commit_can_be_repeated(module: ModuleRunner, base: Path) -> None:
    set_id, folder = begun(module, base)
    components = [component(folder)]
    extra = folder / "extra"
    extra.write_bytes(b"")
    assert call(module, base, "commit", id=set_id, components=components)["failed"]
    extra.unlink()
    assert call(module, base, "commit", id=set_id, components=components)["changed"] is True
    other = [{**components[0], "seconds": 1.5}]
    assert (
        "committed already, with other components" in call(module, base, "commit", id=set_id, components=other)["msg"]
    )


def test_commit_without_begin(module: ModuleRunner, base: Path) -> None:
    committed(module, base, id="20260101T000000Z")
    result = call(module, base, "commit", id="20260102T000000Z", components=[{"engine": "x"}])
    assert result["failed"]
    assert "has no field 'name'" in result["msg"]
    (base / "x").mkdir()
    good = json.loads((base / "20260101T000000Z" / "manifest.json").read_text())["components"]
    result = call(module, base, "commit", id="20260102T000000Z", components=good)
    assert "is not being written" in result["msg"]


def test_damaged_sets_are_listed_with_their_reason(module: ModuleRunner, base: Path) -> None:
    days = iter(f"202601{day:02}T000000Z" for day in range(1, 20))
    good = committed(module, base, id=next(days))
    made = {name: committed(module, base, id=next(days)) for name in ("edit", "newer", "gone", "cut", "nojson", "none")}
    manifest = made["edit"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"public.claims": 3', '"public.claims": 4'))
    manifest = made["newer"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
    (made["gone"] / "components" / "db" / "dump").unlink()
    (made["cut"] / "components" / "db" / "dump").write_bytes(b"row")
    (made["nojson"] / "manifest.json").write_text("{")
    (made["none"] / "manifest.json").unlink()
    copied = base / next(days)
    subprocess.run(["cp", "-a", good, copied], check=True)

    result = call(module, base, "list")
    assert [entry["id"] for entry in result["sets"]] == [good.name]
    assert result["latest"] == good.name
    reasons = {entry["id"]: entry["reason"] for entry in result["damaged"]}
    assert "its checksum does not match" in reasons[made["edit"].name]
    assert "has format 2" in reasons[made["newer"].name]
    assert "No such file" in reasons[made["gone"].name]
    assert "has 3 bytes, not 4" in reasons[made["cut"].name]
    assert "is no JSON" in reasons[made["nojson"].name]
    assert "No such file" in reasons[made["none"].name]
    assert f"belongs to set {good.name}" in reasons[copied.name]

    other = module("backup_set", {"action": "list", "path": str(base), "stack": "verisphere-test"})
    assert other["count"] == 0


def test_the_newest_comes_first_and_a_clock_that_went_back_is_told(module: ModuleRunner, base: Path) -> None:
    for set_id in ("20260301T000000Z", "20260101T000000Z", "29990101T000000Z"):
        committed(module, base, id=set_id)
    result = call(module, base, "list")
    assert [entry["id"] for entry in result["sets"]] == ["29990101T000000Z", "20260301T000000Z", "20260101T000000Z"]
    assert result["sets"][0]["age_seconds"] < 0
    assert result["latest"] == result["newest"]["id"] == "20260301T000000Z"
    assert "check the clock" in json.dumps(call(module, base, "begin")["warnings"])
    taken = call(module, base, "begin", id="20260101T000000Z", stale_after=0)
    assert "exists already" in taken["msg"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with disks.small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def test_free_space_is_checked_against_the_last_set(module: ModuleRunner, small_disk: Path) -> None:
    refused = call(module, small_disk / "s", "begin", min_free_bytes=1 << 30)
    assert refused["failed"]
    assert f"{1 << 30} that must stay free" in refused["msg"]
    committed(module, small_disk / "s", data=bytes(500_000))
    for check in (True, False):
        result = call(module, small_disk / "s", "begin", check=check)
        assert result["failed"]
        assert "needs 550000 bytes" in result["msg"]
    assert len(list((small_disk / "s").iterdir())) == 1


def test_a_full_disk_at_commit_leaves_the_set_uncommitted(module: ModuleRunner, small_disk: Path) -> None:
    set_id, folder = begun(module, small_disk / "s")
    components = [component(folder)]
    filler = small_disk / "filler"
    with filler.open("wb") as stream, pytest.raises(OSError, match="No space"):
        os.write(stream.fileno(), bytes(1 << 21)) and os.write(stream.fileno(), b"x")
    result = call(module, small_disk / "s", "commit", id=set_id, components=components)
    assert result["failed"]
    assert "No space left on device. Free space" in result["msg"]
    assert call(module, small_disk / "s", "list")["count"] == 0
    filler.unlink()
    assert call(module, small_disk / "s", "commit", id=set_id, components=components)["changed"] is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"action": "abort", "id": "yesterday"}, "is no id of a backup set"),
        ({"action": "abort", "id": "2026011T000000Z"}, "is no id of a backup set"),
        ({"action": "commit"}, "missing"),
        ({"action": "list", "stack": "../etc"}, "cannot name a folder"),
        ({"action": "verify"}, "missing"),
        ({"action": "verify", "id": "newest"}, "is no id of a backup set"),
        ({"action": "commit", "id": "latest", "components": []}, "is no id of a backup set"),
        ({"action": "prune"}, "missing"),
        ({"action": "prune", "keep": {"daily": "often"}}, "'daily'"),
        ({"action": "prune", "keep": {"hourly": 3}}, "hourly"),
        ({"action": "prove", "id": "20260101T000000Z"}, "missing"),
    ],
)
def test_unusable_options(module: ModuleRunner, base: Path, arguments: dict[str, str], sentence: str) -> None:
    result = module("backup_set", {"path": str(base), "stack": STACK, **arguments})
    assert result["failed"]
    assert sentence in result["msg"]
