# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Processes of Python that begin as forks of one that has imported what they need."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

# Waits for requests; a child leaves the loop, becomes what was asked for, and goes on with the text that follows.
_SERVE = """
import os, socket
asked = socket.socket(fileno=int(sys.argv[2]))
while True:
    told, fds, _flags, _address = socket.recv_fds(asked, 1 << 20, 3)
    if not told:
        sys.exit()
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass
    pid = os.fork()
    if pid == 0:
        break
    for fd in fds:
        os.close(fd)
    asked.send(str(pid).encode())
asked.close()
for number, fd in enumerate(fds):
    os.dup2(fd, number)
    os.close(fd)
told = json.loads(told)
sys.argv[2] = told["argument"]
os.chdir(told["folder"])
os.umask(told["umask"])
os.environ.clear()
os.environ.update(told["env"])
del asked, told, fds, number, fd, pid, _flags, _address
"""
# Python and the C library read these when they start, or when they are used for the first time.
_AT_START = re.compile(r"PYTHON|LD_|LC_|LANG|TZ$|OPENSSL_|SSL_|TMPDIR$")


class Parent:
    """A process that has run *prepare* and forks; each fork runs *then*, with its argument as sys.argv[2].

    env is what *prepare* runs with; None: the environment of this process.
    """

    def __init__(self, prepare: str, first: str, then: str, env: Mapping[str, str] | None = None) -> None:
        self._lock = threading.Lock()
        self._asks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", prepare + _SERVE + then, first, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=env,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._asks.close()
        self._process.wait()

    def run(
        self, argument: str, *, env: Mapping[str, str], stdin: str, seconds: float, folder: Path | None = None
    ) -> tuple[str, str]:
        """Fork one in a folder (or the current one), wait until it has ended, and return its stdout and stderr."""
        (reads, write), *outputs = pipes = [os.pipe() for _ in range(3)]
        theirs = [reads, *(end for _, end in outputs)]
        umask = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert umask, pipes
        told = {"argument": argument, "folder": str(folder or Path.cwd()), "umask": int(umask[1], 8), "env": dict(env)}
        with self._lock:
            try:
                socket.send_fds(self._asks, [json.dumps(told).encode()], theirs)
            finally:
                for fd in theirs:
                    os.close(fd)
            # Its parent has not waited for it before the next request, so that the number is still its own.
            ended = os.pidfd_open(int(self._asks.recv(20)))
        with os.fdopen(write, "wb") as into:
            into.write(stdin.encode())
        try:
            printed = _read([fd for fd, _ in outputs], time.monotonic() + seconds)
            assert select.select([ended], [], [], seconds)[0], f"{argument} closed its output and goes on"
        finally:
            os.close(ended)
        return printed[0], printed[1]


def begins_alike(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment begins as one with the environment that this process began with."""
    return _at_start(env) == _BEGAN_WITH


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if _AT_START.match(name)}


_BEGAN_WITH = _at_start(os.environ)


def _read(fds: list[int], deadline: float) -> list[str]:
    """All that comes from these pipes; they are closed afterwards."""
    got = {fd: bytearray() for fd in fds}
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(bytes(got[fds[0]]), bytes(got[fds[1]]))
            for key, _events in ready:
                got[key.fd] += (some := os.read(key.fd, 1 << 16))
                if not some:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [bytes(got[fd]).decode() for fd in fds]


@functools.cache
def parent(prepare: str, first: str, *, then: str, env: tuple[tuple[str, str], ...] | None = None) -> Parent:
    """The one of this process for these texts and, as pairs, this environment."""
    return Parent(prepare, first, then, None if env is None else dict(env))
