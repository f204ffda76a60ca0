# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind command: a program's exit code and output. The program should only read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import last_lines
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe

OPTIONS: dict[str, dict[str, Any]] = {
    "argv": {"type": "list", "elements": "str"},
    "chdir": {"type": "path"},
    "secret_env": {"type": "dict", "no_log": True},
    "exit_codes": {"type": "list", "elements": "int"},
    "regex": {"type": "str"},
}
_READ_LIMIT = 1 << 16


@dataclass
class CommandProbe(Probe):
    """Runs the program without a shell, in a process group of its own, which ends with the attempt."""

    argv: Sequence[str]
    chdir: str | None
    env: Mapping[str, str]
    exit_codes: Sequence[int]
    pattern: re.Pattern[str] | None
    secrets: tuple[str, ...]
    pause: float = 0.2

    def attempt(self, seconds: float) -> Outcome:
        """Up when it ends with a wanted code and its output matches."""
        program = self.argv[0]
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.chdir,
                    env={**os.environ, **self.env},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                told = f"{error.filename or program}: {error.strerror}"
                return Outcome("down", f"the command cannot be run: {told}", terminal=True)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return Outcome("unknown", f"{program} did not end within {seconds:.3g} seconds")
            finally:
                with suppress(ProcessLookupError):  # also what it left behind in the background
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            text = output.read(_READ_LIMIT).decode(errors="replace")
        return self._judge(program, code, text)

    def _judge(self, program: str, code: int, text: str) -> Outcome:
        reason = ""
        if code not in self.exit_codes:
            told = last_lines(text, 1)
            reason = f"{program} ended with {code}, expected {' or '.join(map(str, self.exit_codes))}"
            reason += f": {told}" if told else ""
        elif self.pattern and not self.pattern.search(text):
            reason = f"the output of {program} does not match {self.pattern.pattern!r}"
        return Outcome("down" if reason else "up", reason, status=code, body=text)


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return " ".join(given["argv"])[:60]


def build(asked: Asked) -> CommandProbe:
    """The probe for the keys of one check. Raises InputError."""
    if not asked.get("argv"):
        raise asked.error("argv is empty.", "Name a program and its arguments.")
    env = {name: str(value) for name, value in asked.get("secret_env", {}).items()}
    regex = asked.get("regex")
    return CommandProbe(
        asked.get("argv"),
        asked.get("chdir"),
        env,
        asked.get("exit_codes") or [0],
        asked.pattern("regex", regex) if regex else None,
        tuple(env.values()),
    )
