# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Test the complete configuration of nginx with a generation that is not live yet.

nginx resolves relative includes against the folder of its main file. A test therefore runs in a mirror: a temporary
folder with links to everything in the real one, except that ``<managed folder>/live`` is the new generation. The
user's own files take part as they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    InputError,
    StateError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._nginx import (
    compiled,
    directive,
    files_read,
    place,
    told,
)
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_generation import write_tree

_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_TEST_SECONDS = 60.0


@dataclass(frozen=True)
class Nginx:
    """An nginx on this host: its program, its main configuration file, and the folder of the managed files."""

    binary: str
    config: Path
    directory: Path

    def __post_init__(self) -> None:
        """Raises InputError when the folder is not beside the main file."""
        if self.directory.parent != self.config.parent:
            raise InputError(
                f"directory is {self.directory}, and the main configuration file is {self.config}.",
                fix="The folder has to be beside the file: relative includes start there.",
            )

    def missing(self) -> str:
        """What keeps nginx from being tested, as the start of a sentence; empty when nothing does."""
        if self.program() is None:
            return f"There is no program {self.binary}"
        return "" if self.config.is_file() else f"There is no file {self.config}"

    def program(self) -> str | None:
        """The path of the program; Debian has it in a folder that not every user's PATH holds."""
        return shutil.which(self.binary) or shutil.which(self.binary, path=_FOLDERS)


@dataclass(frozen=True)
class Tested:
    """A configuration that nginx accepts: whether it reads a managed file, its pid file, error logs and warnings."""

    reads_managed: bool
    pid_file: Path
    error_logs: list[Path]
    warnings: list[str]


def require(nginx: Nginx) -> str:
    """The path of the program. Raises DependencyError or StateError when nginx is not installed."""
    if program := nginx.program():
        if nginx.config.is_file():
            return program
        raise StateError(f"There is no file {nginx.config}.", fix="Install nginx (role nginx), or set config.")
    raise DependencyError(
        f"nginx is needed, and there is no program {nginx.binary}.", fix="Run the role nginx, or set binary."
    )


@contextmanager
def _mirror(nginx: Nginx, generation: Path | None) -> Iterator[Path]:
    """A folder that looks like the one of the main file, with *generation* in place of the live one."""
    with os_errors("make a folder to test the configuration in"):
        top = Path(tempfile.mkdtemp(prefix="groundwork-nginx-"))
    try:
        with os_errors(f"prepare the test in {top}"):
            for entry in nginx.config.parent.iterdir():
                if entry != nginx.directory:
                    (top / entry.name).symlink_to(entry)
            (top / nginx.directory.name).mkdir()
            if generation:
                (top / nginx.directory.name / "live").symlink_to(generation)
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def require_reads_managed(nginx: Nginx, tested: Tested) -> None:
    """Raises InputError when nginx accepts everything because it reads none of the managed files."""
    if not tested.reads_managed:
        raise InputError(
            f"{nginx.config} reads none of the managed files.",
            fix=f"Add `include {nginx.directory.name}/live/http/*.conf;` inside of http {{}}. The path has to be "
            "relative, because a test takes a new generation instead of the live one.",
        )


def check_tree(nginx: Nginx, tree: Mapping[str, str]) -> Tested:
    """Test a configuration that is written to a temporary folder only, for check mode."""
    with tempfile.TemporaryDirectory(prefix="groundwork-nginx-") as folder:
        staging = Path(folder) / "generation"
        with os_errors(f"write {staging}"):
            write_tree(staging, tree, staging)
        return check(nginx, staging)


def check(nginx: Nginx, generation: Path) -> Tested:
    """Run ``nginx -T`` on the whole configuration with this generation.

    Raises CommandError with nginx's words, the file and the line.
    """
    program = require(nginx)
    with _mirror(nginx, generation) as top:
        managed = top / nginx.directory.name / "live"
        argv = [program, "-T", "-c", str(top / nginx.config.name)]
        done = run(argv, check=False, timeout=_TEST_SECONDS, asked="test the configuration of nginx")
        if done.rc != 0:
            raise _refused(nginx, done, top)
        warnings = [
            text.replace(f"{managed}/", "").replace(str(top), str(nginx.config.parent))
            for text in told(done.stderr, "warn")
        ]
        version = run([program, "-V"], check=False).stderr
        pids = directive(done.stdout, "pid") or [compiled(version, "pid-path") or "/run/nginx.pid"]
        logs = [text.split()[0].strip("\"'") for text in directive(done.stdout, "error_log")]
        logs.append(compiled(version, "error-log-path"))
        return Tested(
            any(path.is_relative_to(managed) for path in files_read(done.stdout)),
            _absolute(pids[0].strip("\"'"), version),
            sorted({Path(log) for log in logs if log.startswith("/") and Path(log).is_file()}),
            warnings,
        )


def _absolute(path: str, version: str) -> Path:
    return Path(compiled(version, "prefix") or "/", path)


def _refused(nginx: Nginx, done: Completed, top: Path) -> CommandError:
    managed, stderr = top / nginx.directory.name / "live", done.stderr
    texts = told(stderr, "emerg", "alert", "crit") or [last_lines(stderr, 3) or f"nginx ended with {done.rc}"]
    words = texts[0].replace(f"{managed}/", "").replace(str(top), str(nginx.config.parent))
    found = place(texts[0], top, nginx.config.parent, managed)
    if found:
        words = words.rpartition(" in ")[0]
    where = {"file": found.file, "line": found.line, "managed": found.managed} if found else {}
    details = {
        "cmd": list(done.argv),
        "rc": done.rc,
        "stderr": stderr.replace(str(top), str(nginx.config.parent)),
        **where,
    }
    if found and found.managed:
        problem = f"nginx refuses the new configuration, line {found.line} of the managed file {found.file}: {words}."
        return CommandError(problem, fix="Nothing was changed. Correct what this file is made from.", **details)
    with _mirror(nginx, nginx.directory / "live" if (nginx.directory / "live").exists() else None) as before:
        works = run([done.argv[0], "-t", "-q", "-c", str(before / nginx.config.name)], check=False).rc == 0
    whose = f"{found.file}, line {found.line}, which is none of the managed files" if found else "no file in particular"
    if works:
        problem = f"nginx refuses the new configuration and names {whose}: {words}."
        fix = "Nothing was changed. Without this change it is accepted, so the two do not fit together: change one."
    else:
        problem = f"nginx refuses its configuration, and did so before this change, because of {whose}: {words}."
        fix = "Nothing was changed. Correct that first; `nginx -t` shows it."
    return CommandError(problem, fix=fix, **details)
