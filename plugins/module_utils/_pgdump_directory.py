# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A dump in the format directory: a folder that several processes of pg_dump fill, here or inside a container.

pg_dump writes its table of contents last, so that the full read can only follow. It is shared out to as many processes
as dumped, and beside it the files get their checksums, or are fetched out of the container.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import (
    ArtifactWriter,
    FileEntry,
    sync_directory,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    StateError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, piped, run, start

_SIGNAL_SECONDS = 1.0
_CHUNK_BYTES = 1 << 20
_REMOVE_TRIES, _REMOVE_SECONDS = 10, 0.2
_DATA = re.compile(r"(\d+); \d+ \d+ (?:TABLE DATA|BLOBS) ")
# Of a table's file, or of the list of a group of large objects.
_FILE = re.compile(r"(?:blobs_)?(\d+)\.(?:dat|toc)")
_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")


class FolderWriter:
    """A folder that gets its final name only when the with-block ends without an error; mode 0700 whatever the umask.

    Raises StateError; the temporary folder is removed then. entries are the files, with the final name of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self.entries: list[FileEntry] = []

    def __enter__(self) -> Self:
        with os_errors(f"create {self.temporary}"):
            self.temporary.mkdir(mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with os_errors(f"finish {self.path}"):
                    sync_directory(self.temporary)
                    self.temporary.rename(self.path)
                    sync_directory(self.path.parent)
        finally:
            for _try in range(_REMOVE_TRIES):  # workers of pg_dump may still write for a moment
                shutil.rmtree(self.temporary, ignore_errors=True)
                if not self.temporary.exists():
                    break
                time.sleep(_REMOVE_SECONDS)

    def sizes(self) -> dict[str, int]:
        """Bytes by name of the files that are there."""
        with os_errors(f"read {self.temporary}"):
            return {entry.name: entry.stat().st_size for entry in os.scandir(self.temporary)}

    def take_in(self, tick: Callable[[int], None]) -> None:
        """Checksum and fsync what another program wrote into the folder; tick gets the bytes of each chunk."""
        for name in sorted(self.sizes()):
            path = self.temporary / name
            with os_errors(f"read {path}"), path.open("rb") as file:
                os.fchmod(file.fileno(), 0o600)
                digest, size = hashlib.sha256(), 0
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    tick(len(chunk))
                os.fsync(file.fileno())
            self.entries.append(FileEntry(f"{self.path.name}/{name}", size, digest.hexdigest()))

    def fetch(self, container: str, folder: str, sizes: Mapping[str, int], tick: Callable[[int], None]) -> None:
        """Fill the folder with the files of one inside of a container, which has these *sizes*."""
        argv = in_container(container, ["tar", "-C", folder, "-cf", "-", "."])
        with tempfile.TemporaryFile() as errors:
            process = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            try:
                broken = ""
                try:
                    source = io.BufferedReader(_Pipe(piped(process.stdout).fileno()), _CHUNK_BYTES)
                    with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK_BYTES) as archive:
                        for member in archive:
                            if member.isfile():
                                self._fetch_one(archive, member, tick)
                except tarfile.TarError as error:
                    broken = str(error)
                rc = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                piped(process.stdout).close()
            errors.seek(0)
            told = errors.read().decode(errors="replace")
        if rc != 0 or broken or {entry.name.rpartition("/")[2]: entry.bytes for entry in self.entries} != sizes:
            raise CommandError(
                f"Could not fetch the dump from container {container!r}: tar ended with {rc}: "
                f"{last_lines(told, 3) or broken or 'what came is not what is there'}",
                cmd=argv, rc=rc, stderr=last_lines(told, 200),
            )  # fmt: skip
        self.entries.sort(key=lambda entry: entry.name)

    def _fetch_one(self, archive: tarfile.TarFile, member: tarfile.TarInfo, tick: Callable[[int], None]) -> None:
        name = member.name.removeprefix("./")
        source = archive.extractfile(member)
        if not _NAME.match(name) or source is None:
            raise StateError(f"The dump has a file {name!r}, which pg_dump does not write.")
        with ArtifactWriter(self.temporary / name) as writer:
            while chunk := source.read(_CHUNK_BYTES):
                writer.write(chunk)
                tick(len(chunk))
        entry = writer.entry
        self.entries.append(FileEntry(f"{self.path.name}/{name}", entry.bytes, entry.sha256))


def remote_sizes(container: str, folder: str) -> dict[str, int]:
    """Bytes by name of the files of a folder inside of a container. Raises CommandError."""
    argv = in_container(container, ["find", folder, "-type", "f", "-exec", "stat", "-c", "%s %n", "{}", "+"])
    lines = run(argv, asked=f"list the dump in container {container!r}").stdout.splitlines()
    return {line.rpartition("/")[2]: int(line.split(" ", 1)[0]) for line in lines}


def shares(listing: str, sizes: Mapping[str, int], jobs: int) -> list[str]:
    """Split pg_restore's list of a dump into *jobs* lists or less: each entry is in one, large tables are spread.

    listing is what ``pg_restore --list`` prints, sizes are the bytes of the dump's files by name.
    """
    weights: dict[str, int] = {}
    for name, size in sizes.items():
        if found := _FILE.match(name):
            weights[found[1]] = weights.get(found[1], 0) + size
    lines = [line for line in listing.splitlines() if line and not line.startswith(";")]
    data = sorted(filter(_DATA.match, lines), key=lambda line: weights.get(line.partition(";")[0], 0), reverse=True)
    count = max(min(jobs, len(data)), 1)
    loads, parts = [0] * count, [[line for line in lines if not _DATA.match(line)], *([] for _ in range(count - 1))]
    for line in data:
        least = loads.index(min(loads))
        loads[least] += weights.get(line.partition(";")[0], 0) + 1
        parts[least].append(line)
    return ["".join(f"{line}\n" for line in part) for part in parts]


class _Pipe(io.RawIOBase):
    """The read end of a pipe; a wait is cut into pieces, so that no signal is left waiting."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As RawIOBase says: 0 at the end."""
        while not select.select([self._fd], [], [], _SIGNAL_SECONDS)[0]:
            continue
        return os.readv(self._fd, [buffer])
