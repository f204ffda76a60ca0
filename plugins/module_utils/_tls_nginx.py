# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The nginx that serves the certificates: which of them it names, whether it takes them, and its reload."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, last_lines
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run
from ansible_collections.groundwork.backend.plugins.module_utils._nginx import compiled, directive, told
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_process import master_pid, reload

_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_TEST_SECONDS, _RELOAD_SECONDS = 60.0, 30.0


@dataclass(frozen=True)
class Verdict:
    """What ``nginx -T`` said: why it refuses the configuration (empty when it does not), and the configuration."""

    refusal: str
    dump: str

    def named(self, folder: Path) -> set[str]:
        """The certificates below *folder* that the configuration names."""
        return set(re.findall(rf"{re.escape(str(folder))}/([^/\s;\"']+)/", self.dump))

    def required(self) -> Verdict:
        """Itself. Raises StateError when nginx refuses the configuration."""
        if not self.refusal:
            return self
        raise StateError(
            f"nginx refuses its configuration: {self.refusal}.",
            fix="It serves as before. Correct the configuration (`nginx -t` shows the place), then run again.",
        )


def program() -> str | None:
    """nginx; None where it is not installed. Debian has it in a folder that not every user's PATH holds."""
    return shutil.which("nginx") or shutil.which("nginx", path=_FOLDERS)


def test() -> Verdict:
    """Test the configuration as it is on disk. Without nginx there is nothing to refuse."""
    if not (nginx := program()):
        return Verdict("", "")
    done = run([nginx, "-T"], check=False, timeout=_TEST_SECONDS, asked="test the configuration of nginx")
    if done.rc == 0:
        return Verdict("", done.stdout)
    return Verdict("; ".join(told(done.stderr, "emerg")) or last_lines(done.stderr, 3) or "it printed nothing", "")


def load(tested: Verdict) -> bool:
    """Have a running nginx load what is on disk; whether there was one. Raises StateError when it does not."""
    if not (nginx := program()):
        return False
    version = run([nginx, "-V"], check=False).stderr
    pids = directive(tested.dump, "pid") or [compiled(version, "pid-path") or "/run/nginx.pid"]
    master = master_pid(Path(compiled(version, "prefix") or "/", pids[0].strip("\"'")))
    if master is None:
        return False
    logs = [text.split()[0].strip("\"'") for text in directive(tested.dump, "error_log")]
    logs.append(compiled(version, "error-log-path"))
    outcome = reload(master, sorted({Path(log) for log in logs if log and Path(log).is_file()}), _RELOAD_SECONDS)
    if not outcome.taken:
        raise StateError(
            f"nginx did not take the new certificates over when it was reloaded: "
            f"{outcome.words or 'its error log does not say why'}.",
            fix="It serves as before. Remove the cause, then run again.",
        )
    return True
