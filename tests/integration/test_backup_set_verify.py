# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""backup_set action=verify and action=prove: every damage is found, nothing is written by looking."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.stack_sets import STACK, call, component, in_process, plant

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import _checksum
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held

OLD, NEW = "20260101T000000Z", "20260102T000000Z"
DUMP = Path("components", "db", "dump")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "backups" / STACK


def content(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder, with inode, time and bytes."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def rewrite(folder: Path, **fields: Any) -> None:
    """Change fields of a manifest the way somebody does who knows its checksum."""
    value = json.loads((folder / "manifest.json").read_text())
    del value["checksum"]
    value.update(fields)
    (folder / "manifest.json").write_text(json.dumps({**value, "checksum": _checksum(value)}))


def test_a_set_as_it_was_written_is_verified_and_not_touched(module: ModuleRunner, base: Path) -> None:
    plant(base, OLD)
    plant(base, NEW)
    before = content(base)
    for wanted, verified in ((OLD, [OLD]), ("latest", [NEW]), ("all", [NEW, OLD])):
        for check in (True, False):
            result = call(module, base, "verify", id=wanted, check=check)
            assert (result["changed"], result["verified"], result["damaged"]) == (False, verified, []), result
    assert content(base) == before


def damage(folder: Path, kind: str) -> None:
    """Do to a committed set what disks and people do."""
    dump, manifest = folder / DUMP, folder / "manifest.json"
    if kind == "flipped bit":
        data = bytearray(dump.read_bytes())
        data[len(data) // 2] ^= 1
        dump.write_bytes(data)
    elif kind == "cut":
        os.truncate(dump, 100)
    elif kind == "longer":
        dump.write_bytes(dump.read_bytes() + b"\0")
    elif kind == "deleted":
        dump.unlink()
    elif kind == "component deleted":
        dump.unlink()
        dump.parent.rmdir()
    elif kind == "link":
        dump.rename(folder.parent.parent / "elsewhere")
        dump.symlink_to(folder.parent.parent / "elsewhere")
    elif kind == "linked folder":
        dump.parent.rename(folder.parent.parent / "elsewhere")
        dump.parent.symlink_to(folder.parent.parent / "elsewhere")
    elif kind == "extra":
        (dump.parent / "dump.old").write_bytes(b"")
    elif kind == "pipe":
        dump.unlink()
        os.mkfifo(dump)
    elif kind == "edited":
        manifest.write_text(manifest.read_text().replace('"public.claims": 3', '"public.claims": 4'))
    elif kind == "edited with its checksum":
        rewrite(folder, components=[])
    elif kind == "newer":
        rewrite(folder, schema_version=2)
    elif kind == "other stack":
        rewrite(folder, stack="verisphere-test")
    elif kind == "other id":
        rewrite(folder, id=OLD)
    elif kind == "proof of something else":
        rewrite(folder, proven={"at": "x", "seconds": 1, "host": "h", "components": {"redis": {}}})
    elif kind == "no manifest":
        manifest.unlink()
    elif kind == "no json":
        manifest.write_text("{")


@pytest.mark.parametrize(
    ("kind", "sentence", "listed"),
    [
        ("flipped bit", "is not what its backup wrote: 5000 bytes with sha256", True),
        ("cut", "is not what its backup wrote: 5000 bytes", False),
        ("longer", "is not what its backup wrote: 5000 bytes", False),
        ("deleted", "is missing or is no ordinary file", False),
        ("component deleted", "is missing or is no ordinary file", False),
        ("link", "is missing or is no ordinary file", False),
        ("linked folder", "components/db belongs to no component of the set", True),
        ("extra", "dump.old belongs to no component of the set", True),
        ("pipe", "is missing or is no ordinary file", False),
        ("edited", "its checksum does not match", False),
        ("edited with its checksum", "do not belong to format 1", False),
        ("newer", "The manifest has format 2", False),
        ("other stack", "belongs to set 20260102T000000Z of stack 'verisphere-test'", False),
        ("other id", "belongs to set 20260101T000000Z of stack 'verisphere'", False),
        ("proof of something else", "proof does not belong to its components", False),
        ("no manifest", "No such file", False),
        ("no json", "is no JSON", False),
    ],
)
def test_every_damage_is_found(module: ModuleRunner, base: Path, kind: str, sentence: str, listed: bool) -> None:
    """listed: a list, which reads no file, still takes the set for usable; a verify never does."""
    plant(base, OLD)
    folder = plant(base, NEW, data=os.urandom(5000))
    damage(folder, kind)
    result = call(module, base, "verify", id=NEW)
    assert result["failed"]
    assert result["verified"] == []
    [told] = result["damaged"]
    assert (told["id"], told["path"]) == (NEW, str(folder))
    assert sentence in told["reason"]
    assert sentence in result["msg"]
    assert call(module, base, "list")["latest"] == (NEW if listed else OLD)


def test_all_that_is_wrong_is_told_and_the_others_are_verified(module: ModuleRunner, base: Path) -> None:
    plant(base, OLD)
    folder = plant(base, NEW, data=os.urandom(5000))
    damage(folder, "flipped bit")
    damage(folder, "extra")
    result = call(module, base, "verify", id="all")
    assert result["msg"].startswith(f"1 of 2 backup sets in {base} cannot be trusted: {NEW}: ")
    assert result["verified"] == [OLD]
    assert len(result["damaged"][0]["reasons"]) == 2


def test_latest_is_the_newest_usable_set_and_says_which_newer_one_is_not(module: ModuleRunner, base: Path) -> None:
    plant(base, OLD)
    damage(plant(base, NEW), "deleted")
    result = call(module, base, "verify", id="latest")
    assert result["verified"] == [OLD]
    assert f"Backup set {NEW} is newer and cannot be used" in json.dumps(result["warnings"])
    damage(base / OLD, "deleted")
    assert call(module, base, "verify", id="latest")["damaged"][0]["id"] == NEW


@pytest.mark.parametrize("wanted", ["latest", "all", OLD])
def test_nothing_to_verify_is_no_success(module: ModuleRunner, base: Path, wanted: str) -> None:
    in_process(base, "begin", id=NEW)
    result = call(module, base, "verify", id=wanted)
    assert result["failed"]
    assert "There is no backup set" in result["msg"]


def test_a_link_to_a_set_is_no_set(module: ModuleRunner, base: Path) -> None:
    plant(base, OLD)
    (base / NEW).symlink_to(OLD)
    assert call(module, base, "list")["latest"] == OLD
    assert call(module, base, "verify", id="all")["verified"] == [OLD]
    assert "There is no backup set" in call(module, base, "verify", id=NEW)["msg"]


def test_a_set_that_is_being_removed_is_not_verified(module: ModuleRunner, base: Path) -> None:
    folder = plant(base, OLD)
    with held(folder, to_remove=True) as mine:
        assert mine
        assert "It is being removed" in call(module, base, "verify", id=OLD)["msg"]
    assert call(module, base, "verify", id=OLD)["verified"] == [OLD]


RESULT = {"name": "db", "seconds": 1.5, "counts": {"public.claims": 3}}


def test_a_proof_is_kept_in_the_manifest_and_the_next_takes_its_place(module: ModuleRunner, base: Path) -> None:
    folder = plant(base, OLD)
    original = json.loads((folder / "manifest.json").read_text())
    assert call(module, base, "list")["newest"]["proven"] is None

    planned = call(module, base, "prove", id=OLD, seconds=2.5, components=[RESULT], check=True)
    assert planned["changed"] is True
    assert json.loads((folder / "manifest.json").read_text()) == original

    result = call(module, base, "prove", id=OLD, seconds=2.5, components=[RESULT])
    assert result["changed"] is True
    assert result["diff"]["before"] == {"proven": None}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == result["manifest"]
    proven = manifest.pop("proven")
    assert proven.keys() == {"at", "seconds", "host", "components"}
    assert (proven["seconds"], proven["host"]) == (2.5, os.uname().nodename)
    assert proven["components"] == {"db": {"seconds": 1.5, "counts": {"public.claims": 3}}}
    assert manifest.pop("checksum") != original.pop("checksum")
    assert manifest == original
    assert stat.S_IMODE((folder / "manifest.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["components", "manifest.json"]
    assert call(module, base, "verify", id=OLD)["verified"] == [OLD]
    listed = call(module, base, "list")
    assert listed["newest"]["proven"] == listed["sets"][0]["proven"] == proven

    again = call(module, base, "prove", id=OLD, seconds=9, components=[RESULT])
    assert again["diff"]["before"] == {"proven": proven}
    assert call(module, base, "list")["newest"]["proven"]["seconds"] == 9


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"components": []}, "components speaks of nothing, and set 20260101T000000Z holds db"),
        ({"components": [RESULT, {"name": "redis"}]}, "components speaks of db, redis, and set"),
        ({"components": [RESULT, RESULT]}, "components speaks of db, db, and set"),
        ({"components": [{"seconds": 1}]}, "components speaks of None, and set"),
        ({"id": NEW}, f"There is no backup set {NEW}"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": "nan"}, "seconds is nan"),
        ({"stack": "verisphere-test"}, "belongs to set 20260101T000000Z of stack 'verisphere'"),
    ],
)
def test_proofs_that_are_refused(module: ModuleRunner, base: Path, change: dict[str, Any], sentence: str) -> None:
    folder = plant(base, OLD)
    before = content(folder)
    arguments = {"path": str(base), "stack": STACK, "id": OLD, "seconds": 1, "components": [RESULT], **change}
    result = module("backup_set", {"action": "prove", **arguments})
    assert result["failed"]
    assert sentence in result["msg"]
    assert content(folder) == before


def test_a_damaged_set_cannot_be_proven(module: ModuleRunner, base: Path) -> None:
    folder = plant(base, OLD)
    damage(folder, "edited")
    result = call(module, base, "prove", id=OLD, seconds=1, components=[RESULT])
    assert "its checksum does not match" in result["msg"]
    folder = plant(base, NEW)
    damage(folder, "deleted")
    assert call(module, base, "prove", id=NEW, seconds=1, components=[RESULT])["failed"]


def test_a_commit_that_is_repeated_after_a_proof_changes_nothing(module: ModuleRunner, base: Path) -> None:
    folder = Path(in_process(base, "begin", id=OLD)["path"])
    components = [component(folder)]
    in_process(base, "commit", id=OLD, components=components)
    in_process(base, "prove", id=OLD, seconds=1.0, components=[RESULT])
    result = call(module, base, "commit", id=OLD, components=components)
    assert result["changed"] is False
    assert result["manifest"]["proven"]["seconds"] == 1
