# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The file that tells how far a long task is, and the lines that people read."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _progress
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress, Reading, parse
from ansible_collections.groundwork.backend.plugins.module_utils._progress_told import Teller, duration, pause, size

GIB = 1 << 30


class Clock:
    """A clock that stands still until a test moves it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def read(path: Path) -> Reading | None:
    return parse(path.read_text())


def test_a_reading_comes_back_as_it_was_written(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "folder" / "progress.json"
    progress = Progress(path)
    clock.now += 2.5
    progress.update(10, 200, step="restore", item='Odd schema.it\'s a "table"')
    assert read(path) == Reading("restore", 'Odd schema.it\'s a "table"', 10, 200, 2.5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_step_is_written_at_most_twice_a_second(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "progress.json"
    progress = Progress(path)
    written = []
    for number in range(40):
        progress.update(number)
        clock.now += 0.125
        written.append(read(path))
    assert [reading.bytes_done for reading in dict.fromkeys(written) if reading] == list(range(0, 40, 4))


def test_a_new_step_is_written_at_once(tmp_path: Path, clock: Clock) -> None:
    progress = Progress(tmp_path / "progress.json")
    progress.update(5, step="dump")
    progress.update(0, step="verify")
    found = read(tmp_path / "progress.json")
    assert found
    assert (found.step, found.bytes_done) == ("verify", 0)


def test_nothing_is_left_when_the_task_has_ended(tmp_path: Path) -> None:
    with Progress(tmp_path / "progress.json") as progress:
        progress.update(1)
        assert (tmp_path / "progress.json").exists()
    progress.update(2, step="late")
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Progress(None) as progress:
        progress.update(1)
    with Progress("") as progress:
        progress.update(1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with Progress(tmp_path / "file" / "progress.json") as progress:
        progress.update(1)
        progress.update(2, step="another")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "text",
    ["", "cat: no such file", "null", "[]", "{}", '{"step": "dump"}', "12",
     json.dumps({"step": "a", "item": "", "bytes_done": "much", "bytes_total": None, "seconds": 1})],
)  # fmt: skip
def test_what_is_no_reading_is_none(text: str) -> None:
    assert parse(text) is None


def lines(*readings: Reading) -> list[str | None]:
    teller = Teller()
    return [teller.line(reading) for reading in readings]


def test_lines_with_a_known_total() -> None:
    assert lines(
        Reading("dump", "public.items", 0, 4 * GIB, 0.5),
        Reading("dump", "public.items", GIB, 4 * GIB, 10.5),
        Reading("dump", "public.more", 4 * GIB, 4 * GIB, 30.5),
    ) == [
        "dump public.items, 0 B of 4.0 GiB (0 %)",
        "dump public.items, 1.0 GiB of 4.0 GiB (25 %), 102.4 MiB/s, about 30 s left",
        "dump public.more, 4.0 GiB of 4.0 GiB (100 %), 153.6 MiB/s",
    ]


def test_an_estimated_total_that_is_passed_is_never_more_than_all() -> None:
    assert lines(Reading("dump", "", GIB, GIB // 2, 1.0)) == ["dump, 1.0 GiB of 512.0 MiB (99 %)"]


def test_without_a_total_no_end_is_guessed() -> None:
    told = lines(Reading("dump", "", 100, None, 1.0), Reading("dump", "", 2148, None, 2.0))
    assert told == ["dump, 100 B", "dump, 2.1 KiB, 2.0 KiB/s"]


def test_a_new_step_begins_anew() -> None:
    told = lines(
        Reading("dump", "", 9 * GIB, None, 5.0),
        Reading("verify", "", 1024, 2048, 6.0),
        Reading("verify", "", 1536, 2048, 7.0),
    )
    assert told[1:] == [
        "verify, 1.0 KiB of 2.0 KiB (50 %)",
        "verify, 1.5 KiB of 2.0 KiB (75 %), 512 B/s, about 1 s left",
    ]


def test_the_same_reading_again_is_no_news() -> None:
    assert lines(Reading("dump", "", 1, None, 1.0), Reading("dump", "", 1, None, 1.0)) == ["dump, 1 B", None]


def test_a_name_cannot_command_the_terminal() -> None:
    told = lines(Reading("dump", "public.\x1b]0;owned\x07\r\nok: [host]", 1, None, 1.0))
    assert told == ["dump public.?]0;owned???ok: [host], 1 B"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (3540, "59 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * GIB, "3.0 GiB"), (1 << 55, "32768.0 TiB")],
)
def test_sizes(amount: int, text: str) -> None:
    assert size(amount) == text


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 3), (30, 3), (100, 10), (299, 29.9), (7200, 30)])
def test_looks_become_rarer(elapsed: float, seconds: float) -> None:
    assert pause(elapsed) == pytest.approx(seconds)
