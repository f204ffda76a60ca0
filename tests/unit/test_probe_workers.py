# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""When the workers of a gunicorn say that it cannot become well. The times are those of a clock of the test."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._probe_workers import Workers


def looked(*looks: tuple[float, str]) -> list[str]:
    """What is said at each look: (seconds, process ids of the workers)."""
    now = 0.0
    workers = Workers(clock=lambda: now)
    told = []
    for now, pids in looks:  # noqa: B007 - the clock reads it
        told.append(workers.look("100", dict.fromkeys(pids.split(), "1")))
    return told


def test_workers_that_were_replaced_three_times_end_again_and_again() -> None:
    *before, last = looked((0, "1 2"), (0.5, "3 4"), (1, "5 6"), (1.5, "7 8"))
    assert before == ["", "", ""]
    assert last.startswith("the workers of its gunicorn end again and again: 6 have")


def test_a_number_that_comes_again_is_another_worker() -> None:
    workers = Workers(clock=lambda: 0.0)
    told = [workers.look("100", {"7": str(begun)}) for begun in range(4)]
    assert (told[2], told[3] != "") == ("", True)


def test_a_gunicorn_without_workers_has_given_up() -> None:
    assert looked((0, "1 2"), (0.5, ""), (1, ""))[-1] == ""
    assert "starts no other" in looked((0, "1 2"), (0.5, ""), (1.6, ""))[-1]


@pytest.mark.parametrize(
    "looks",
    [
        [(0, ""), (5, ""), (9, "")],
        [(0, "1 2"), (1, "1 3"), (2, "1 4"), (3, "1 5")],
        [(0, "1"), (11, "1"), (12, "2"), (13, "3"), (14, "4"), (15, "5")],
        [(0, "1 2"), (1, "1 2 3 4"), (2, "3 4"), (3, "3 4")],
        [(0, "1"), (5, ""), (6, "2")],
    ],
    ids=[
        "it loads the application first",
        "some stay",
        "they end after some time",
        "it was reloaded",
        "one is replaced",
    ],
)
def test_a_gunicorn_that_may_become_well(looks: list[tuple[float, str]]) -> None:
    assert not any(looked(*looks))


def test_another_main_process_begins_anew() -> None:
    workers = Workers(clock=lambda: 0.0)
    for pid in ("1", "2", "3"):
        workers.look("100", {pid: "1"})
    assert workers.look("200", {"4": "1"}) == ""
