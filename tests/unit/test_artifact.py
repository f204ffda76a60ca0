# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A file is complete or absent."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import (
    ArtifactWriter,
    FileEntry,
    read_entry,
    write_file,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError


def test_the_name_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with ArtifactWriter(path) as writer:
        writer.write(b"ab")
        writer.write(b"")
        writer.write(b"c")
        assert not path.exists()
        assert writer.temporary.read_bytes() == b"abc"
    assert writer.entry == FileEntry("dump", 3, hashlib.sha256(b"abc").hexdigest()) == read_entry(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dump"]


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "dump", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "dump").stat().st_mode) == 0o600


def interrupted_write(path: Path, error: type[BaseException]) -> None:
    with ArtifactWriter(path) as writer:
        writer.write(b"new")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    write_file(tmp_path / "dump", b"old")
    with pytest.raises(error):
        interrupted_write(tmp_path / "dump", error)
    assert (tmp_path / "dump").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_kill_leaves_the_old_file(tmp_path: Path, root: Path) -> None:
    write_file(tmp_path / "dump", b"old")
    script = f"""
import os, sys
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[{str(root / "build" / "collections")!r}])._install()
from pathlib import Path
from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter
with ArtifactWriter(Path({str(tmp_path / "dump")!r})) as writer:
    writer.write(b"new")
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "dump").read_bytes() == b"old"


def write_to_full_disk(path: Path) -> None:
    with ArtifactWriter(path) as writer, Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), writer._fd)
        writer.write(b"x")


def test_a_full_disk_and_a_missing_folder_have_sentences(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"No such file or directory\. Check the path"):
        write_file(tmp_path / "missing" / "dump", b"x")
    with pytest.raises(StateError, match=r"No space left on device\. Free space"):
        write_to_full_disk(tmp_path / "dump")
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_file_has_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        read_entry(tmp_path / "dump")


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    names = ["a" * 254 + ending for ending in "xy"]
    with ArtifactWriter(tmp_path / names[0]) as one, ArtifactWriter(tmp_path / names[1]) as other:
        one.write(b"x")
        other.write(b"y")
    assert [(tmp_path / name).read_bytes() for name in names] == [b"x", b"y"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
