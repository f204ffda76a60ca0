# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Crashes: a process that is killed at one system call, and a disk that loses what was not written through.

The disk is a real ext4 file system in a file. cut() is the kernel's own way to try out a power cut (the ioctl
FS_IOC_SHUTDOWN without flushing the log, what the kernel's file system tests use): from then on nothing reaches the
disk, neither data nor journal, and the next mount recovers what is there. Its journal is written every ten minutes
only, and a rename over an older file flushes nothing by itself.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING_THE_LOG = 2
_TRACED = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat"
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += 0$")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"|\d+<([^>]*)>')


@dataclass
class PowerDisk:
    """A file system whose power can be cut. folder: where it is mounted."""

    image: Path
    folder: Path

    def mount(self) -> None:
        """Mount it, recovering what a cut has left."""
        options = "loop,noauto_da_alloc,commit=600"
        subprocess.run(["mount", "-o", options, self.image, self.folder], check=True, capture_output=True)

    def unmount(self) -> None:
        """Take it away; what is not written through goes to the disk unless the power was cut."""
        subprocess.run(["umount", self.folder], check=True)

    def sync(self) -> None:
        """Write everything through, so that only what follows is in danger."""
        subprocess.run(["sync", "--file-system", self.folder], check=True)

    def cut(self) -> None:
        """Cut the power, and start again."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(fd)
        self.unmount()
        self.mount()


@contextmanager
def power_disk(folder: Path) -> Iterator[PowerDisk]:
    """A new file system of 16 MiB at a new *folder*; skips the test where none can be mounted."""
    folder.mkdir()
    disk = PowerDisk(folder.with_suffix(".img"), folder)
    with disk.image.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", disk.image],
        check=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs the right to mount a file: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        disk.unmount()
        disk.image.unlink()
        folder.rmdir()


@dataclass(frozen=True)
class Call:
    """A system call that changes names or waits for the disk. paths: of what it names, in order."""

    name: str
    paths: tuple[str, ...]


def traced(trace: Path) -> list[str]:
    """The command that runs another one and writes its calls to *trace*."""
    return ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", str(trace), "-e", f"trace={_TRACED}", "-e", "signal=none"]


def killed_at(trace: Path, name: str, nth: int) -> list[str]:
    """The command that runs another one and kills it (SIGKILL) before its nth call of that name takes place."""
    return [*traced(trace), "-e", f"inject={name}:signal=KILL:when={nth}"]


def calls(trace: Path, below: Path) -> list[Call]:
    """The calls in a trace that succeeded and have to do with a folder."""
    found = []
    for line in trace.read_text().splitlines():
        if match := _CALL.match(line):
            paths = tuple(quoted or of_fd for quoted, of_fd in _PATH.findall(match[2]))
            if any(path == str(below) or path.startswith(f"{below}/") for path in paths):
                found.append(Call(match[1], paths))
    return found


def points(trace: Path) -> list[tuple[str, int]]:
    """Each call in a trace as (name, number among the calls of that name, from 1), to be killed at."""
    seen: dict[str, int] = {}
    found = []
    for line in trace.read_text().splitlines():
        if match := re.match(r"^(?:\d+ +)?(\w+)\(", line):
            seen[match[1]] = seen.get(match[1], 0) + 1
            found.append((match[1], seen[match[1]]))
    return found
