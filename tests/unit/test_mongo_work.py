# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Reading ahead: the next batch is fetched while the one before is written, and nothing is lost or left open."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import read_ahead


class Source:
    """Numbers, with a note of each that was asked for; it fails after the last when told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.asked = [threading.Event() for _ in range(4)]
        self.closed = False

    def numbers(self) -> Generator[int, None, None]:
        try:
            for number, asked in enumerate(self.asked):
                asked.set()
                yield number
            if self.fails:
                raise OSError("the server is gone")
        finally:
            self.closed = True


def test_everything_comes_in_its_order() -> None:
    source = Source()
    assert list(read_ahead(source.numbers())) == [0, 1, 2, 3]
    assert source.closed


def test_the_next_one_is_fetched_while_one_is_used_and_no_more() -> None:
    source = Source()
    reading = read_ahead(source.numbers())
    assert next(reading) == 0
    assert source.asked[1].wait(10)
    assert not source.asked[2].wait(0.1)


def test_an_error_comes_after_all_that_was_before_it() -> None:
    source, read = Source(fails=True), list[int]()
    with pytest.raises(OSError, match="the server is gone"):
        read.extend(read_ahead(source.numbers()))
    assert read == [0, 1, 2, 3]
    assert source.closed


def test_a_writer_that_fails_closes_the_source() -> None:
    source = Source()

    def write(number: int) -> None:
        raise ValueError(f"no room for {number}")

    with pytest.raises(ValueError, match="no room for 0"):
        list(map(write, read_ahead(source.numbers())))
    assert source.closed
    assert not source.asked[3].is_set()
