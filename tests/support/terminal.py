# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Playbooks whose standard output is a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from support.playbooks import Playbooks, Played


class Terminal:
    """A run at a pseudo terminal, which a test can watch while it goes on. Use it as a context manager."""

    def __init__(self, playbooks: Playbooks, tasks: Sequence[Mapping[str, Any]], *arguments: str) -> None:
        self._playbooks = playbooks
        self._screen = b""
        self._terminal, inner = pty.openpty()
        try:
            self.process: subprocess.Popen[str] = playbooks.start(tasks, *arguments, stdout=inner)
        finally:
            os.close(inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # Ansible then ends its workers, which a kill would leave behind
            self.process.communicate(timeout=60)
        os.close(self._terminal)

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self._screen.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        """Wait until a line matches, and return it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.MULTILINE)):
            assert self._read(end - time.monotonic()), f"{pattern} was not printed:\n{self.text}"
        return found[0]

    def finish(self) -> Played:
        """Wait for the end of the run."""
        while self._read(300):
            continue
        _out, err = self.process.communicate(timeout=300)
        return self._playbooks.played(self.process.returncode, self.text, err)

    def _read(self, seconds: float) -> bool:
        """Read once; False when there is nothing more, or nothing came in that time."""
        if not select.select([self._terminal], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # EIO: no process has the terminal open any more
            return False
        self._screen += data
        return bool(data)
