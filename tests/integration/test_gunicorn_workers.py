# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What is seen of the workers of a real gunicorn, from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import wait_for

from ansible_collections.groundwork.backend.plugins.module_utils._probe_workers import Workers, running_workers

# subprocess: what the application starts at its import is no worker.
APP = """
import subprocess, sys
for _ in range(3):
    subprocess.run([sys.executable, "-c", "pass"])
%s
def app(environ, start):
    start("200 OK", [])
    return [b""]
"""


@contextmanager
def gunicorn(folder: Path, at_import: str, *options: str) -> Iterator[str]:
    """The process id of a gunicorn with two workers, for the length of the block."""
    (folder / "shop_app.py").write_text(APP % at_import)
    argv = [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"unix:{folder}/socket",
        "--workers",
        "2",
        *options,
        "shop_app:app",
    ]
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield str(process.pid)
        finally:
            process.kill()


def told(pid: str) -> str:
    """What is said of it in the end."""
    workers = Workers()
    return wait_for(lambda: workers.look(pid, running_workers(pid)), "nothing was said of the workers")


def test_workers_that_end_for_ever_are_noticed(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "sys.exit('no configuration')") as pid:
        assert "end again and again" in told(pid)


def test_a_gunicorn_that_has_lost_its_workers_and_starts_none_is_noticed(tmp_path: Path) -> None:
    """As it is for its graceful_timeout after an exception at the import; here it is stopped."""
    with gunicorn(tmp_path, "") as pid:
        workers = Workers()
        wait_for(lambda: len(running_workers(pid)) == 2, "there are no two workers")
        running = running_workers(pid)
        assert workers.look(pid, running) == ""
        subprocess.run(["kill", "-STOP", pid], check=True)
        subprocess.run(["kill", "-KILL", *running], check=True)
        told = wait_for(lambda: workers.look(pid, running_workers(pid)), "nothing was said of it")
        assert told == "all workers of its gunicorn have ended, and it starts no other"


def test_of_workers_that_run_nothing_is_said(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "") as pid:
        wait_for(lambda: len(running_workers(pid)) == 2, "there are no two workers")
        workers = Workers()
        assert workers.look(pid, running_workers(pid)) == ""


def test_another_program_has_no_workers() -> None:
    with subprocess.Popen([sys.executable, "-c", "import os, time; os.fork(); time.sleep(60)"]) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_for(children.read_text, "it has no child")
            child = children.read_text().strip()
            assert running_workers(str(process.pid)) == {}
        finally:
            subprocess.run(["kill", "-9", child], check=True)
            process.kill()
