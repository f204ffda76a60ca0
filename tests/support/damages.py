# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What can happen to a dump after it was written: each damage as a change of its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096


@dataclass(frozen=True)
class Damage:
    """do(dump, earlier dump) damages a dump of that kind: compressed, uncompressed or directory."""

    name: str
    kind: str
    do: Callable[[Path, Path], None]


def cut(dump: Path, _earlier: Path) -> None:
    """The second half is missing."""
    with dump.open("r+b") as file:
        file.truncate(dump.stat().st_size // 2)


def cut_end(dump: Path, _earlier: Path) -> None:
    """The last 100 bytes are missing."""
    with dump.open("r+b") as file:
        file.truncate(dump.stat().st_size - 100)


def empty(dump: Path, _earlier: Path) -> None:
    """The name is there, and nothing in it."""
    dump.write_bytes(b"")


def flip(dump: Path, _earlier: Path) -> None:
    """One bit in the middle is another."""
    _change(dump, 1, lambda data: bytes([data[0] ^ 1]))


def zeros(dump: Path, _earlier: Path) -> None:
    """A page in the middle never reached the disk."""
    _change(dump, PAGE, lambda data: bytes(len(data)))


def replace(dump: Path, earlier: Path) -> None:
    """Another day's dump has its name: whole, and not what was backed up."""
    shutil.copyfile(earlier, dump)


def remove_data(dump: Path, _earlier: Path) -> None:
    """The largest data file of a dump in directory format is missing."""
    max((path for path in dump.iterdir() if path.name != "toc.dat"), key=lambda path: path.stat().st_size).unlink()


def _change(dump: Path, length: int, change: Callable[[bytes], bytes]) -> None:
    with dump.open("r+b") as file:
        at = dump.stat().st_size // 2
        file.seek(at)
        data = file.read(length)
        file.seek(at)
        file.write(change(data))


DAMAGES = (
    Damage("second half missing", "compressed", cut),
    Damage("last 100 bytes missing", "compressed", cut_end),
    Damage("file empty", "compressed", empty),
    Damage("one bit flipped", "compressed", flip),
    Damage("one bit flipped, uncompressed dump", "uncompressed", flip),
    Damage("one page of zeros", "compressed", zeros),
    Damage("one data file missing, directory format", "directory", remove_data),
    Damage("another day's dump under its name", "compressed", replace),
)
