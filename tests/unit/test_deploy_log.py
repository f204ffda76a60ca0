# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The log of deploys: whole lines whatever crashes, fills up or competes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.disks import fill, small_disk
from support.modules import ModuleRunner

from ansible_collections.groundwork.backend.plugins.module_utils._audit import append, read
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

ENTRY = {"deploy": "d1", "step": "migrate", "result": "ok"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a log is written."""
    return tmp_path / "deploy.jsonl"


def test_an_entry_is_appended_and_read(module: ModuleRunner, log: Path) -> None:
    options = {"path": str(log), **ENTRY, "note": "two\nlines", "seconds": 1.5, "host": "app1", "release": "r1"}
    result = module("deploy_log", options, check=True)
    assert (result["changed"], log.exists()) == (True, False)
    entry = module("deploy_log", options)["entry"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(entry.pop("time"))) < timedelta(hours=1)
    assert entry == {
        **ENTRY,
        **{"release": "r1", "host": "app1", "user": None, "controller": None, "note": "two\nlines", "seconds": 1.5},
    }
    assert log.read_bytes().count(b"\n") == 1
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    module("deploy_log", {"path": str(log), **ENTRY, "result": "failed"})
    result = module("deploy_log", {"path": str(log), "action": "read"})
    assert (result["changed"], result["torn"]) == (False, 0)
    assert [one["result"] for one in result["entries"]] == ["ok", "failed"]
    assert result["entries"][0]["host"] == "app1"


def test_only_the_last_entries_are_read_and_those_of_one_deploy(module: ModuleRunner, log: Path) -> None:
    for number in range(50):
        append(log, {"deploy": f"d{number % 2}", "number": number})
    result = module("deploy_log", {"path": str(log), "action": "read", "last": 3})
    assert [one["number"] for one in result["entries"]] == [47, 48, 49]
    result = module("deploy_log", {"path": str(log), "action": "read", "last": 3, "deploy": "d0"})
    assert [one["number"] for one in result["entries"]] == [44, 46, 48]


def test_without_a_log_there_are_no_entries(module: ModuleRunner, log: Path) -> None:
    result = module("deploy_log", {"path": str(log), "action": "read"})
    assert (result["entries"], result["torn"], log.exists()) == ([], 0, False)


@pytest.mark.parametrize(
    ("torn", "count"),
    [(b'{"number": 1, "mess', 1), (b"\0" * 4096, 1), (b"\xff\xfe\n[1]\n7", 3), (b'{"number": 1}', 0), (b"\n\n", 0)],
    ids=["cut off", "zeros", "no objects", "only its end is missing", "empty lines"],
)
def test_what_a_crash_left_harms_no_other_line(log: Path, torn: bytes, count: int) -> None:
    append(log, {"number": 0})
    with log.open("ab") as stream:
        stream.write(torn)
    append(log, {"number": 2})
    append(log, {"number": 3})
    entries, found = read(log, 10)
    assert found == count
    assert [one["number"] for one in entries] == ([0, 2, 3] if count or torn == b"\n\n" else [0, 1, 2, 3])


def test_killed_at_any_moment_every_entry_that_was_written_stays(log: Path) -> None:
    def work(begin: int) -> None:
        for number in range(begin, begin + 1_000_000):
            append(log, {"number": number, "note": "x" * 50_000})

    for turn in range(20):
        process = multiprocessing.get_context("fork").Process(target=work, args=(turn * 1_000_000,))
        process.start()
        time.sleep(0.01)
        process.kill()
        process.join()
    append(log, {"number": -1, "note": ""})
    entries, torn = read(log, 1_000_000)
    numbers = [entry["number"] for entry in entries]
    assert torn + len(numbers) == len([line for line in log.read_bytes().split(b"\n") if line])
    assert numbers[-1] == -1
    assert numbers[:-1] == sorted(set(numbers[:-1]))
    assert len(numbers) > 1
    for one, two in itertools.pairwise(numbers[:-1]):
        assert two == one + 1 or two % 1_000_000 == 0


def test_many_at_once_lose_nothing(log: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(log, {"number": number, "note": "ü" * 20_000}), range(200)))
    entries, torn = read(log, 1000)
    assert torn == 0
    assert sorted(entry["number"] for entry in entries) == list(range(200))


def test_a_full_disk_leaves_no_torn_line(module: ModuleRunner, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder:
        log = folder / "deploy.jsonl"
        append(log, {"number": 0})
        fill(folder)
        before = log.read_bytes()
        result = module("deploy_log", {"path": str(log), **ENTRY, "note": "x" * 10_000})
        assert "Could not append to the log" in result["msg"]
        assert "Free space" in result["msg"]
        assert log.read_bytes() == before
        (folder / "filler").unlink()
        append(log, {"number": 1})
        assert read(log, 10) == ([{"number": 0}, {"number": 1}], 0)


def test_a_log_that_is_rotated_away_is_begun_anew(log: Path) -> None:
    append(log, {"number": 0})
    log.rename(log.with_suffix(".1"))
    append(log, {"number": 1})
    assert read(log, 10) == ([{"number": 1}], 0)


def test_every_text_is_one_line(log: Path) -> None:
    text = 'a\r\nb\u2028c\x00d\ud800e"\\'
    append(log, {"note": text})
    assert log.read_bytes().count(b"\n") == 1
    assert read(log, 1) == ([{"note": text}], 0)
    assert json.loads(log.read_bytes()) == {"note": text}


def test_a_link_is_no_log(log: Path, tmp_path: Path) -> None:
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no ordinary file"):
        append(log, {})


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_a_missing_folder_is_a_sentence(module: ModuleRunner, tmp_path: Path, check: bool) -> None:
    result = module("deploy_log", {"path": str(tmp_path / "nope" / "x.jsonl"), **ENTRY}, check=check)
    assert (
        result["msg"]
        == f"The folder {tmp_path / 'nope'} of the log does not exist. Create it first, or check the path."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deploy": "d1", "step": "x"}, "result"),
        ({"deploy": "d1", "step": "x", "result": "fine"}, "fine"),
        ({"action": "read", "last": 0}, "last is 0"),
    ],
)
def test_mistakes_are_sentences(module: ModuleRunner, log: Path, options: dict[str, Any], words: str) -> None:
    result = module("deploy_log", {"path": str(log), **options})
    assert result["failed"]
    assert words in result["msg"]
