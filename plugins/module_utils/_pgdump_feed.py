# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A command that runs while we do something else, such as the full read, which is fed beside the dump."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import ByteSink, piped, start
from ansible_collections.groundwork.backend.plugins.module_utils._psql import fix_for

_CHUNK_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20
# Waits are cut into pieces of this length, so that a signal that comes just before one is not left waiting, too.
_SIGNAL_SECONDS = 1.0
# Of a file system that cannot hand its pages to a pipe, and of a kernel or sandbox without the call.
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Feed:
    """One running command; asked continues "Could not …" in its errors, and what it prints goes to *sink*.

    Use as a context manager; a command that has not ended with the block is killed. Raises DependencyError, and
    CommandError when it ends early or with another status than 0.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], asked: str, sink: ByteSink | None = None
    ) -> None:
        self._argv = list(argv)
        self._env = env
        self._asked = asked
        self._sink = sink
        self._drain: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._followed = 0

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = start(
                self._argv,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._sink else subprocess.DEVNULL,
                stderr=self._stderr,
                bufsize=0,
            )
        except DependencyError:
            self._stderr.close()
            raise
        os.set_blocking(self._input, False)
        with suppress(OSError):  # a larger pipe is only faster; users have a quota of pipe memory
            fcntl.fcntl(self._input, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        if self._sink is not None:
            self._drain = threading.Thread(target=self._pass_on, args=(self._sink,), daemon=True)
            self._drain.start()
        return self

    @property
    def _input(self) -> int:
        return piped(self._process.stdin).fileno()

    def write(self, data: bytes) -> None:
        """Hand it the next chunk, as soon as it takes it."""
        view = memoryview(data)
        while view:
            if not select.select([], [self._input], [], _SIGNAL_SECONDS)[1]:
                continue
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._fail(self._wait(), "before the end")

    def follow(self, fd: int, end: int, *, wait: Callable[[], None] | None = None) -> None:
        """Hand it a file up to *end*, from where the last call stopped: what it takes at once, or with wait all of it.

        So it reads what is in the file, and may fall behind whoever writes it. wait is called at least once a second.
        """
        while self._followed < end:
            try:
                with os_errors("read what was written of the dump"):
                    count = _from_file(fd, self._input, self._followed, end - self._followed)
            except BlockingIOError:
                if wait is None:
                    return
                select.select([], [self._input], [], _SIGNAL_SECONDS)
                wait()
                continue
            except BrokenPipeError:
                self._fail(self._wait(), "before the end")
            if count == 0:  # somebody cut the file: the command says that its input is not complete
                return
            self._followed += count

    def end(self) -> None:
        """Say that there is no more."""
        piped(self._process.stdin).close()

    def finish(self, tick: Callable[[], None] = lambda: None) -> None:
        """Say that there is no more, and wait until the command agrees that all is well.

        tick is called once a second meanwhile.
        """
        self.end()
        if (rc := self._wait(tick)) != 0:
            self._fail(rc)
        if self._drain is not None:
            self._drain.join()
        if self._failure is not None:
            raise self._failure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._drain is not None:
            self._drain.join()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _pass_on(self, sink: ByteSink) -> None:
        try:
            output = piped(self._process.stdout).fileno()
            while data := os.read(output, _CHUNK_BYTES):
                sink.write(data)
        except BaseException as error:  # raised again by finish(), in the thread that can act on it
            self._failure = error
            self._process.kill()

    def _wait(self, tick: Callable[[], None] = lambda: None) -> int:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(_SIGNAL_SECONDS)
            tick()

    def _fail(self, rc: int, when: str = "") -> None:
        if self._failure is not None:
            raise self._failure
        self._stderr.seek(0)
        told = self._stderr.read().decode(errors="replace")
        ended = " ".join(filter(None, (f"{self._argv[0]} ended with {rc}", when)))
        raise CommandError(
            f"Could not {self._asked}: {ended}: {last_lines(told, 5) or 'it printed nothing'}",
            fix=fix_for(told),
            cmd=list(self._argv), rc=rc, stderr=last_lines(told, 200),
        )  # fmt: skip


def _from_file(fd: int, pipe: int, offset: int, count: int) -> int:
    """Move bytes of a file into a pipe, without a copy where the kernel can; how many. 0 at the end of the file."""
    try:
        return os.splice(fd, pipe, count, offset_src=offset, flags=os.SPLICE_F_NONBLOCK)
    except OSError as error:
        if error.errno not in _NO_SPLICE:
            raise
    data = os.pread(fd, min(count, _CHUNK_BYTES), offset)
    return os.write(pipe, data) if data else 0
