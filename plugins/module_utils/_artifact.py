# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Write a file so that it is complete or absent: temporary name, sha256 while streaming, fsync, rename, mode 0600."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils._errors import os_errors

_WRITEBACK_BYTES = 8 << 20
_NAME_BYTES = 255


@dataclass(frozen=True)
class FileEntry:
    """One file of a component: its name inside the component's folder, size in bytes, sha256 as hex."""

    name: str
    bytes: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


class ArtifactWriter:
    """A file being written; it gets its final name only when the with-block ends without an error.

    Mode 0600 whatever the umask. Raises StateError when the disk is full or the folder cannot be written;
    the temporary file is removed then, and an older file of the final name stays as it was. What was written can be
    read under *temporary* before the block ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(_temporary_name(path.name))
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._to_disk = 0

    def __enter__(self) -> Self:
        with os_errors(f"create {self.temporary}"):
            self._fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(self._fd, 0o600)
        return self

    def write(self, data: bytes) -> int:
        """Append bytes."""
        with os_errors(f"write {self.temporary}"):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        self._hash.update(data)
        self._bytes += len(data)
        if self._bytes - self._to_disk >= _WRITEBACK_BYTES:
            self._start_writeback()
        return len(data)

    def _start_writeback(self) -> None:
        """Have the disk write while more comes, so that fsync at the end has little left to wait for."""
        with suppress(OSError):  # this advice makes Linux write what is dirty, and it cannot drop that yet
            os.posix_fadvise(self._fd, self._to_disk, self._bytes - self._to_disk, os.POSIX_FADV_DONTNEED)
        self._to_disk = self._bytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with os_errors(f"finish {self.path}"):
                    os.fsync(self._fd)
                    self.temporary.replace(self.path)
                    sync_directory(self.path.parent)
        finally:
            os.close(self._fd)
            self.temporary.unlink(missing_ok=True)

    def fileno(self) -> int:
        """The descriptor of the file, to read what was written so far."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._bytes

    @property
    def entry(self) -> FileEntry:
        """Name, bytes and sha256 of what was written so far."""
        return FileEntry(self.path.name, self._bytes, self._hash.hexdigest())


def _temporary_name(name: str) -> str:
    """For a file system, a name has 255 bytes at most; where the final one takes them all, a checksum stands for it."""
    ending = f".{os.getpid()}.partial"
    if len(os.fsencode(name)) + len(ending) < _NAME_BYTES:
        return f".{name}{ending}"
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{ending}"


def write_file(path: Path, data: bytes) -> FileEntry:
    """Write a small file through an ArtifactWriter."""
    with ArtifactWriter(path) as writer:
        writer.write(data)
    return writer.entry


def read_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file as it is on disk now. Raises StateError when it cannot be read."""
    with os_errors(f"read {path}"), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(path.name, stream.tell(), digest)


def sync_directory(path: Path) -> None:
    """fsync a directory, so that a rename in it survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
