# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run pg_restore or psql with a dump, on the host or in the server's container, and tell how far it is.

Into a container a custom dump goes through standard input. More than one job, and the format directory, need files that
can be read in any order: they are copied into a folder of the container, which has the same name in every run for the
same database, so that the next run removes what a killed one left.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    GroundworkError,
    StateError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, piped, run, start
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import Dump
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Tools

Say = Callable[[int, str], None]

TRAILER = b"-- PostgreSQL database dump complete"
_TRAILER_WITHIN_BYTES = 1024
_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0
_ITEM = re.compile(
    rb'(?:processing data for table|launching item \d+ TABLE DATA|creating \w+(?: \w+)*?) "?([^"\n]+)"?\n'
)
# Not "Command was: ": the statement may hold a password (CREATE USER MAPPING, CREATE SUBSCRIPTION).
_KEPT = re.compile(r"^(?:pg_restore: |psql:.*?: )?(?:error: |ERROR: |FATAL: |DETAIL: |HINT: )|error:|ERROR:")
_HIDDEN = re.compile(r"^(?:CONTEXT: |DETAIL: +Failing row contains)")
# Before pg_restore reads anything, nothing of what it does needs to be on the disk at once: the mark that makes the
# database count is written later and with everything before it.
_OPTIONS = "-c synchronous_commit=off"
_FIXES = (
    (r"could not resize shared memory segment", "Give the server's container a larger shm_size, or use jobs: 1."),
    (r"No space left on device|could not extend file", "Free space on the server's disk, then run again."),
    (r'role ".*" does not exist', "Create the role, or set roles: true with a set that holds globals.sql."),
    (r'extension ".*" is not available|extension control file', "Install the extension's package on the server."),
    (r"permission denied|must be owner|must be superuser", "Log in as a superuser."),
    (r"unsupported version", "Use client programs at least as new as those that wrote the dump."),
    (r"server closed the connection|terminating connection|connection to server", "Look into the server's log."),
)


def load(dump: Dump, tools: Tools, database: str, *, jobs: int, temporary: str, say: Say) -> None:
    """Load the dump into an empty database. say gets bytes so far and what is being done.

    Raises CommandError (the first errors of the program), StateError (an incomplete plain dump), DependencyError.
    """
    tools = Tools({**tools.env, "PGOPTIONS": _OPTIONS}, tools.container, tools.folder)
    asked = f"restore {dump.main_file.name} into database {database!r}"
    if dump.format == "plain":
        _load_plain(dump, tools, database, asked, say)
        return
    arguments = ["--exit-on-error", "--no-password", "--verbose", f"--jobs={jobs}", target_argument(database)]
    if tools.container is None:
        argv = [*tools.argv("pg_restore", *arguments), str(dump.main_file)]
        _watch(argv, tools, asked, say, None)
    elif dump.format == "custom" and jobs == 1:
        with os_errors(f"read {dump.main_file}"), dump.main_file.open("rb") as file:
            _watch(tools.argv("pg_restore", *arguments, stdin=True), tools, asked, say, file)
    else:
        with copied(dump, tools.container, container_folder(temporary, database), say) as path:
            _watch(tools.argv("pg_restore", *arguments, path), tools, asked, say, None)


def target_argument(database: str) -> str:
    """The argument that names the database, whatever is in its name; the login is in the environment."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"--dbname=dbname='{quoted}'"


def container_folder(temporary: str, database: str) -> str:
    """Where the dump for a database is copied to in a container."""
    return f"{temporary.rstrip('/')}/groundwork-pg_restore-{hashlib.sha256(database.encode()).hexdigest()[:16]}"


def remove_copy(container: str, folder: str) -> None:
    """Remove what a run has copied into a container, when there is anything."""
    run(in_container(container, ["rm", "-rf", folder]), asked=f"remove {folder} in container {container!r}")


@contextmanager
def copied(dump: Dump, container: str, folder: str, say: Say) -> Iterator[str]:
    """The dump copied into a container; its path there. It is removed afterwards."""
    remove_copy(container, folder)
    try:
        asked = f"copy the dump to {folder} in container {container!r}"
        run(in_container(container, ["mkdir", "-m", "700", folder]), asked=asked)
        argv = in_container(container, ["tar", "-x", "-f", "-", "-C", folder], stdin=True)
        with _started(argv, stdin=subprocess.PIPE) as (process, errors):
            with contextlib.suppress(BrokenPipeError), piped(process.stdin) as sink:
                _write_tar(dump, sink, say)
            _end(process, errors, argv, asked)
        yield f"{folder}/{dump.main_file.name}"
    finally:
        with suppress(GroundworkError):  # the error of the block counts; the next run removes it
            remove_copy(container, folder)


def first_errors(told: str) -> str:
    """The errors in what pg_restore or psql printed, without the rows that they quote."""
    lines = [line for line in told.splitlines() if _KEPT.search(line) and not _HIDDEN.match(line)]
    return "\n".join(lines[:6]) or last_lines(told, 3) or "it printed nothing"


def fix_for(told: str) -> str:
    """What to do about an error; empty when the message itself says it."""
    return next((fix for pattern, fix in _FIXES if re.search(pattern, told)), "")


def _load_plain(dump: Dump, tools: Tools, database: str, asked: str, say: Say) -> None:
    """psql takes a script that was cut in the middle of COPY for a whole one: its last lines must have passed."""
    argv = tools.argv(
        "psql", "--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1",
        "--output=/dev/null", target_argument(database), "--file=-", stdin=True,
    )  # fmt: skip
    with _script(dump) as (source, position), _started(argv, env=tools.env, stdin=subprocess.PIPE) as (process, errors):
        script, end = piped(process.stdin), b""
        with suppress(BrokenPipeError):
            while chunk := source.read(_CHUNK_BYTES):
                script.write(chunk)
                end = (end + chunk)[-_TRAILER_WITHIN_BYTES:]
                say(position(), "")
            script.flush()
        if process.poll() is None and TRAILER not in end:
            process.kill()
            raise StateError(
                f"Could not {asked}: the script does not end as pg_dump ends one, so a part of it is missing.",
                fix="Use another set.",
            )
        with suppress(BrokenPipeError):
            script.close()
        _end(process, errors, argv, asked)


@contextmanager
def _script(dump: Dump) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """The decompressed script, and how far its file was read."""
    with ExitStack() as stack:
        with os_errors(f"read {dump.main_file}"):
            file = stack.enter_context(dump.main_file.open("rb"))

        def position() -> int:
            return os.lseek(file.fileno(), 0, os.SEEK_CUR)

        if dump.compression == "none":
            yield file, position
        elif dump.compression == "gzip":
            unpacked: Any = stack.enter_context(gzip.open(file))  # it reads like a file, which its type does not say
            yield unpacked, position
        else:
            argv = [dump.compression, "-d", "-c"]
            process, errors = stack.enter_context(_started(argv, stdin=file, stdout=subprocess.PIPE))
            yield piped(process.stdout), position
            _end(process, errors, argv, f"decompress {dump.main_file}")


def _watch(argv: Sequence[str], tools: Tools, asked: str, say: Say, stdin: IO[bytes] | None) -> None:
    """Run pg_restore; meanwhile say what it is at, and how many bytes of the dump it has read where that is known."""
    most = 0
    source = subprocess.DEVNULL if stdin is None else stdin
    with _started(argv, env=tools.env, stdin=source) as (process, errors):
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
            if stdin is not None:
                most = os.lseek(stdin.fileno(), 0, os.SEEK_CUR)
            elif tools.container is None:
                most = max(most, _bytes_read(process.pid))
            say(most, _last_item(errors))
        _end(process, errors, argv, asked)


@contextmanager
def _started(argv: Sequence[str], **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A process that does not outlive the block, and the file with its standard error."""
    with tempfile.TemporaryFile() as errors:
        process = start(argv, stderr=errors, **{"stdout": subprocess.DEVNULL, **options})
        try:
            yield process, errors
        finally:
            if process.poll() is None:
                process.terminate()  # pg_restore ends its workers then
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], argv: Sequence[str], asked: str) -> None:
    rc = process.wait()
    if rc == 0:
        return
    errors.seek(0)
    told = first_errors(errors.read().decode(errors="replace"))
    program = next((word for word in argv if word.split("/")[-1] in ("pg_restore", "psql", "tar")), argv[0])
    raise CommandError(
        f"Could not {asked}: {program.split('/')[-1]} ended with {rc}: {told}",
        fix=fix_for(told),
        cmd=list(argv),
        rc=rc,
        stderr=told,
    )


def _write_tar(dump: Dump, sink: IO[bytes], say: Say) -> None:
    written = 0
    with tarfile.open(fileobj=sink, mode="w|", bufsize=_CHUNK_BYTES) as archive:
        if dump.format == "directory":
            folder = tarfile.TarInfo(dump.main_file.name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(folder)
        for entry in dump.component.files:
            if not entry.name.startswith(dump.main_file.name):
                continue
            info = tarfile.TarInfo(entry.name)
            info.size, info.mode = entry.bytes, 0o600
            path: Path = dump.folder / entry.name
            with os_errors(f"read {path}"), path.open("rb") as file:
                archive.addfile(info, file)
            written += entry.bytes
            say(written, entry.name)


def _last_item(errors: IO[bytes]) -> str:
    size = os.fstat(errors.fileno()).st_size
    found = _ITEM.findall(os.pread(errors.fileno(), 4096, max(0, size - 4096)))
    return found[-1].decode(errors="replace") if found else ""


def _bytes_read(pid: int) -> int:
    """What a process and its children have read from files so far."""
    total = 0
    with suppress(OSError, ValueError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (str(pid), *children):
            with suppress(OSError, ValueError):
                total += int(Path(f"/proc/{one}/io").read_text().split()[1])
    return total
