# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A file of BSON documents, read one document after the other and never decoded (https://bsonspec.org/spec.html)."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter, FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors

_CHUNK_BYTES = 1 << 20
_SMALLEST = 5  # the length itself and the closing zero
_LARGEST = (16 << 20) + (16 << 10)  # a server's limit for what it keeps itself; 16 MiB for what clients send
_GZIP_WINDOW = 31  # zlib's way to say: gzip, with the largest window


def documents(read: Callable[[int], bytes], where: str) -> Iterator[bytes]:
    """Each document of a stream. Raises StateError when the stream ends inside of one, or holds something else."""
    buffer, at, offset = b"", 0, 0

    def fill(needed: int) -> bool:
        nonlocal buffer, at
        while len(buffer) - at < needed:
            more = read(max(_CHUNK_BYTES, needed - (len(buffer) - at)))
            if not more:
                return False
            buffer, at = buffer[at:] + more, 0
        return True

    while fill(4):
        (length,) = struct.unpack_from("<i", buffer, at)
        if not _SMALLEST <= length <= _LARGEST:
            raise _broken(where, f"at byte {offset}, a document of {length} bytes is announced")
        if not fill(length):
            raise _broken(where, f"it ends inside of the document that begins at byte {offset}")
        if buffer[at + length - 1] != 0:
            raise _broken(where, f"the document that begins at byte {offset} has no end")
        yield buffer[at : at + length]
        at += length
        offset += length
    if len(buffer) > at:
        raise _broken(where, f"it ends inside of the document that begins at byte {offset}")


class DocumentWriter:
    """Writes documents, compressed or not, into an ArtifactWriter; finish() belongs inside of its block."""

    def __init__(self, writer: ArtifactWriter, *, compressed: bool) -> None:
        self._writer = writer
        self._packer = zlib.compressobj(wbits=_GZIP_WINDOW) if compressed else None

    def write(self, data: bytes) -> None:
        """Append whole documents, or any other bytes."""
        if packed := self._packer.compress(data) if self._packer else data:
            self._writer.write(packed)

    def finish(self) -> None:
        """Write what the compression still holds."""
        if self._packer:
            self._writer.write(self._packer.flush())


class CheckedFile:
    """Reads a file of a component, decompressed where its name says so, and compares it with the manifest meanwhile.

    Raises StateError: from open when it is not there in its size, from require_whole() when it is not what the backup
    wrote, and from read() when it cannot be decompressed. entry: what the manifest says; None when there is none yet.
    """

    def __init__(self, path: Path, entry: FileEntry | None) -> None:
        self.path = path
        self._entry = entry
        with os_errors(f"read {path}"):
            size = path.lstat().st_size
            if path.is_symlink() or not path.is_file() or (entry is not None and size != entry.bytes):
                raise self._damaged(f"found {size} bytes")
            self._raw = _Hashed(path.open("rb"))
        packed = path.suffix == ".gz"
        self._stream: _Hashed | gzip.GzipFile = gzip.GzipFile(fileobj=self._raw) if packed else self._raw

    def __enter__(self) -> CheckedFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self._raw.close()

    def read(self, size: int = -1) -> bytes:
        """Bytes of the content."""
        try:
            with os_errors(f"read {self.path}"):
                return self._stream.read(size)
        except (EOFError, zlib.error) as error:
            raise self._damaged(f"it cannot be decompressed ({error})") from None

    def rest(self) -> FileEntry:
        """Read what is left; the whole file as it is on the disk."""
        with os_errors(f"read {self.path}"):
            while self._raw.read(_CHUNK_BYTES):
                pass
        return FileEntry(self.path.name, self._raw.size, self._raw.digest.hexdigest())

    def require_whole(self) -> None:
        """Read what is left and compare."""
        found, entry = self.rest(), self._entry
        if entry is not None and (found.bytes, found.sha256) != (entry.bytes, entry.sha256):
            raise self._damaged(f"found {found.bytes} bytes with {found.sha256}")

    def _damaged(self, found: str) -> StateError:
        if self._entry is None:
            return StateError(f"{self.path} is damaged: {found}.", fix="Look at the disk and the kernel's log.")
        return StateError(
            f"{self.path} is not what the backup wrote: the manifest says {self._entry.bytes} bytes with sha256 "
            f"{self._entry.sha256}, {found}.",
            fix="Use another set, or another copy of this one.",
        )


class _Hashed:
    """A file and the sha256 of what was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Bytes as they are on the disk."""
        data = self._stream.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data

    def seek(self, _offset: int) -> int:
        """Nobody goes back: the checksum is of the bytes in their order."""
        raise io.UnsupportedOperation("seek")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _broken(where: str, found: str) -> StateError:
    return StateError(f"{where} is no file of BSON documents: {found}.", fix="Use another set, or another copy.")
