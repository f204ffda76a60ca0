# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A command reads a file while it is written."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_feed import Feed


def test_a_command_that_falls_behind_gets_the_whole_file(tmp_path: Path) -> None:
    data, read = os.urandom(3 << 20) + b"x", io.BytesIO()
    argv = ["sh", "-c", "sleep 0.2; exec cat"]
    with (
        (tmp_path / "file").open("w+b", buffering=0) as file,
        Feed(argv, env={}, asked="read it", sink=read) as feed,
    ):
        for end in (2 << 20, len(data)):
            file.write(data[file.tell() : end])
            feed.follow(file.fileno(), end)
        feed.follow(file.fileno(), len(data), wait=lambda: None)
        feed.finish()
    assert read.getvalue() == data


def test_a_file_whose_pages_cannot_go_into_a_pipe_is_copied() -> None:
    path, read = Path("/proc/self/auxv"), io.BytesIO()
    data = path.read_bytes()
    with path.open("rb") as file, Feed(["cat"], env={}, asked="read it", sink=read) as feed:
        with pytest.raises(OSError, match="Invalid argument"):
            os.splice(file.fileno(), feed._input, 1, offset_src=0)
        feed.follow(file.fileno(), len(data), wait=lambda: None)
        feed.finish()
    assert read.getvalue() == data


def test_a_file_that_got_shorter_does_not_wait_for_ever(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    read = io.BytesIO()
    with (tmp_path / "file").open("rb") as file, Feed(["cat"], env={}, asked="read it", sink=read) as feed:
        feed.follow(file.fileno(), 10, wait=lambda: None)
        feed.finish()
    assert read.getvalue() == b"abc"


def test_a_command_that_ends_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    with (
        (tmp_path / "file").open("rb") as file,
        Feed(["sh", "-c", "exit 3"], env={}, asked="read it") as feed,
        pytest.raises(CommandError, match="Could not read it: sh ended with 3 before the end"),
    ):
        feed.follow(file.fileno(), 3 << 20, wait=lambda: None)
