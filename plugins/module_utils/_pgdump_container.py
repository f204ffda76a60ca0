# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a dump leaves inside a container when its module dies, and how the next one knows that it may remove it.

The death of ``docker exec`` ends nothing inside of the container, and that of pg_dump not its workers. Connections and
folders there carry the name of the run, which says of which process it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, run
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Tools

_PREFIX = "groundwork pg_backup "
_FOLDER = "groundwork-pg_backup."
_RUN = re.compile(r"([0-9a-f]{8})\.(\d+)\.(\d+)\.(\d+)\Z")
_SECONDS = 60.0
_STOP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = '{application_name}' AND pid <> pg_backend_pid()
"""
# pg_dump may still write for a moment after its connection was ended.
_REMOVE = 'for i in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && exit 0; sleep 0.3; done; rm -rf "$1"'
_PROC = Path("/proc")


def run_name() -> str:
    """The name of this process, which no other one has had on this host."""
    return f"{_boot()}.{_namespace()}.{os.getpid()}.{_start(os.getpid())}"


def application_name(run_id: str) -> str:
    """What the connections of a run are called in pg_stat_activity."""
    return f"{_PREFIX}{run_id}"


def is_over(run_id: str) -> bool:
    """Whether the process of that name has provably ended: False, too, for one in another container of this host."""
    found = _RUN.match(run_id)
    if not found:
        return False
    boot, namespace, pid, start = found.groups()
    return boot != _boot() or (namespace == _namespace() and _start(int(pid)) != start)


def stop_connections(tools: Tools, run_id: str) -> None:
    """End the connections of a run, so that its programs stop where no signal of ours reaches them. Raises nothing."""
    statement = _STOP.format(application_name=application_name(run_id))
    with suppress(GroundworkError):
        run(tools.argv("psql", "--no-psqlrc", "--no-password", f"--command={statement}"), env=tools.env, timeout=20)


@contextmanager
def remote_folder(tools: Tools, parent: str, run_id: str) -> Iterator[str]:
    """A new folder of mode 0700 inside of the container for the length of the block; its path.

    Those of runs that are over are removed first. Raises CommandError.
    """
    container = tools.container or ""
    path = f"{parent}/{_FOLDER}{run_id}"
    for old in _folders(container, parent):
        left = old.rpartition(f"/{_FOLDER}")[2]
        if is_over(left):
            stop_connections(tools, left)
            _remove(container, old)
    asked = f"create the folder {path} in container {container!r}"
    run(in_container(container, ["mkdir", "-m", "700", "--", path]), timeout=_SECONDS, asked=asked)
    try:
        yield path
    finally:
        with suppress(GroundworkError):  # a container that is gone or stopped; the next run tries again
            _remove(container, path)


def _folders(container: str, parent: str) -> list[str]:
    script = 'for each in "$1"/"$2"*; do if [ -d "$each" ]; then echo "$each"; fi; done'
    asked = f"look into {parent} in container {container!r}"
    done = run(in_container(container, ["sh", "-c", script, "sh", parent, _FOLDER]), timeout=_SECONDS, asked=asked)
    return done.stdout.splitlines()


def _remove(container: str, path: str) -> None:
    asked = f"remove the folder {path} in container {container!r}"
    run(in_container(container, ["sh", "-c", _REMOVE, "sh", path]), timeout=_SECONDS, asked=asked)


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text()[:8]


def _namespace() -> str:
    return str((_PROC / "self/ns/pid").stat().st_ino)


def _start(pid: int) -> str:
    """When a process began, in ticks since the boot (proc_pid_stat(5)); empty when there is none."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
