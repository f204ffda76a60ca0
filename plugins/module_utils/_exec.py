# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run a command on the host or inside a container.

Secrets go through *env* or *stdin*, never argv. In a container a variable is passed on by name only
(``docker exec -e NAME``), so that its value is in no process list.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Protocol

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    last_lines,
)

_SIGNAL_SECONDS = 1.0
# In this time the fastest programs fill about half of a pipe of 1 MiB.
_FILL_BYTES, _FILL_SECONDS = 1 << 20, 0.001


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its arguments, exit status and output (text; empty stdout when it was streamed)."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str


class ByteSink(Protocol):
    """Anything that takes bytes, such as an ArtifactWriter."""

    def write(self, data: bytes, /) -> object:
        """Take one chunk."""


def in_container(
    container: str, argv: Sequence[str], *, user: str | None = None, env_names: Sequence[str] = (), stdin: bool = False
) -> list[str]:
    """The argv that runs *argv* inside a running container; the values of *env_names* come from the caller's env."""
    options = ["--interactive"] if stdin else []
    if user:
        options += ["--user", user]
    for name in env_names:
        options += ["--env", name]
    return ["docker", "exec", *options, container, *argv]


def start(argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command; env is added to the environment, options are those of Popen. Raises DependencyError."""
    try:
        return subprocess.Popen(list(argv), env=_environment(env), **options)
    except FileNotFoundError as error:
        raise _missing(argv[0]) from error


def piped(stream: IO[bytes] | None) -> IO[bytes]:
    """stdin, stdout or stderr of a process that was started with PIPE for it."""
    if stream is None:
        raise ValueError("The process was started without a pipe for this stream.")
    return stream


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | BinaryIO | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    check: bool = True,
    asked: str = "",
) -> Completed:
    """Run a command and collect its output.

    env is added to the environment; stdin is text, bytes or an open file; timeout is in seconds; asked continues
    "Could not …" in the error.
    Raises DependencyError (no such program) and, with check, CommandError.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    source: dict[str, Any] = {"input": data or b""} if data is None or isinstance(data, bytes) else {"stdin": data}
    try:
        done = subprocess.run(
            list(argv),
            env=_environment(env),
            **source,
            capture_output=True,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise _missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{_sentence(asked, argv)}: no end after {timeout:g} seconds.", cmd=list(argv), rc=-1, stderr=""
        ) from error
    completed = Completed(
        tuple(argv), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check:
        _require_success(completed, asked)
    return completed


def stream(
    argv: Sequence[str],
    sink: ByteSink,
    *,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    asked: str = "",
    chunk_bytes: int = 1 << 20,
    tick: Callable[[], None] = lambda: None,
) -> Completed:
    """Run a command and hand its standard output to *sink* in chunks; memory stays flat whatever the size.

    tick is called after each chunk, and once a second while there is none. The child is killed when the sink fails or
    the block is left early. Raises as run() does.
    """
    with tempfile.TemporaryFile() as errors:
        process = start(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        output = piped(process.stdout)
        try:
            pipe = output.fileno()
            with suppress(OSError):  # a pipe as large as a chunk is only faster; users have a quota of pipe memory
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, chunk_bytes)
            large = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) >= _FILL_BYTES
            while True:
                # A signal that arrives just before a blocking read would wait for the next data, which a command that
                # is stuck never sends: the time limit gives Python the moment to run its handler.
                if select.select([pipe], [], [], _SIGNAL_SECONDS)[0]:
                    if not (chunk := os.read(pipe, chunk_bytes)):
                        break
                    sink.write(chunk)
                    if large and len(chunk) < chunk_bytes // 2:
                        # Who always waits for the next few bytes makes the command and itself pay for a wake-up each.
                        time.sleep(_FILL_SECONDS)
                tick()
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()
        errors.seek(0)
        completed = Completed(tuple(argv), process.returncode, "", errors.read().decode(errors="replace"))
    if check:
        _require_success(completed, asked)
    return completed


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def _sentence(asked: str, argv: Sequence[str]) -> str:
    return f"Could not {asked or 'run ' + argv[0]}"


def _missing(program: str) -> DependencyError:
    return DependencyError(
        f"The program {program!r} is needed and was not found on PATH.",
        fix="Install the package that carries it (for docker: run the docker role).",
    )


def _require_success(completed: Completed, asked: str) -> None:
    if completed.rc != 0:
        told = last_lines(completed.stderr or completed.stdout, 5) or "it printed nothing"
        raise CommandError(
            f"{_sentence(asked, completed.argv)}: {completed.argv[0]} ended with {completed.rc}: {told}",
            cmd=list(completed.argv),
            rc=completed.rc,
            stderr=last_lines(completed.stderr, 200),
        )
