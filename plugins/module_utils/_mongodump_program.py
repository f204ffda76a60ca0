# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Dump one MongoDB database with MongoDB's own program mongodump, of the host or of the server's image.

Nothing gets its final name unless the program succeeded and all that it wrote was read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run, start
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import require_listener
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import PRELUDE, find_unmovable
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job, dump_folder, nothing_there
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_space import no_room
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_tool import (
    PROGRAM,
    arguments,
    configuration,
    failure,
    require_usable,
    version_of,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_verify import Found, verify
from ansible_collections.groundwork.backend.plugins.module_utils._probe_mongo import require_pymongo
from ansible_collections.groundwork.backend.plugins.module_utils._sets import utc_text

_SECONDS, _LOOK_SECONDS = 60.0, 0.5
# The program is to end when the module is killed, and to write what nobody else can read.
_BOUND = ("setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", 'umask 077 && exec "$0" "$@"')
_INSIDE = "/groundwork-dump"


@dataclass(frozen=True)
class Tool:
    """A mongodump that was found. container and image: those of the server, empty for the host's own program."""

    version: str
    container: str = ""
    image: str = ""

    def argv(self, job: Job, params: Mapping[str, Any], folder: Path) -> list[str]:
        """The command that dumps into the folder. In the image it is a container of its own: it sees the network of
        the server's container and this folder, and leaves nothing in the server's container."""
        if not self.container:
            return [*_BOUND, PROGRAM, *arguments(job, params, str(folder))]
        own = [
            "--rm", "--interactive", "--init", "--pull=never", f"--name={self.name(job)}",
            f"--network=container:{self.container}", f"--user={os.geteuid()}:{os.getegid()}", "--cap-drop=ALL",
            "--security-opt=no-new-privileges", "--log-driver=none", f"--entrypoint={PROGRAM}",
            "--mount", f"type=bind,source={folder},target={_INSIDE}",
        ]  # fmt: skip
        return [*_BOUND, "docker", "run", *own, self.image, *arguments(job, params, _INSIDE)]

    def name(self, job: Job) -> str:
        """What the container of a dump is called; the same for every dump into that folder, of which there is one."""
        return f"groundwork-mongo_dump-{hashlib.sha256(os.fsencode(job.dest)).hexdigest()[:16]}"

    def remove(self, job: Job) -> None:
        """End and remove the container of a dump, if there is one. Raises nothing."""
        if self.container:
            with suppress(DependencyError):
                run(["docker", "rm", "--force", "--volumes", self.name(job)], check=False, timeout=_SECONDS)


def choose(engine: str, container: str | None) -> Tool | None:
    """The program for engine auto, driver or mongodump; None for the driver. Raises DependencyError."""
    if engine == "driver":
        return None
    if engine == PROGRAM:
        return find(container)
    try:
        require_pymongo()
    except DependencyError:
        try:
            return find(container)
        except DependencyError as error:
            raise DependencyError(
                "Neither the Python library pymongo nor a usable mongodump was found: " + error.problem,
                fix="Install Debian's package python3-pymongo on the managed host, or MongoDB's Database Tools.",
            ) from error
    return None


def find(container: str | None) -> Tool:
    """mongodump of the image of a container, or of the host. Raises DependencyError, and StateError: no container."""
    image, argv = "", [PROGRAM]
    if container:
        asked = f"look at the container {container!r}"
        image = run(
            ["docker", "inspect", "--format={{.Image}}", container], timeout=_SECONDS, asked=asked
        ).stdout.strip()
        argv = ["docker", "run", "--rm", "--pull=never", "--network=none", f"--entrypoint={PROGRAM}", image]
    elif not shutil.which(PROGRAM):
        raise DependencyError(
            "mongodump was not found on PATH of the managed host.",
            fix="Install MongoDB's Database Tools, name a container whose image has them, or use engine: driver.",
        )
    done = run([*argv, "--version"], check=False, timeout=_SECONDS)
    if done.rc != 0:
        where = f"in the image of the container {container!r}" if container else f"at {shutil.which(PROGRAM)}"
        raise DependencyError(
            f"There is no usable mongodump {where}: {(done.stderr or done.stdout).strip()[-300:] or done.rc}.",
            fix="Install MongoDB's Database Tools, or use engine: driver.",
        )
    return Tool(version_of(done.stdout), container or "", image)


@dataclass
class ProgramDumper:
    """One run: what, with which program and login, and who is told."""

    job: Job
    tool: Tool
    params: Mapping[str, Any]
    work: Work
    unmovable: list[str] = field(default_factory=list, init=False)  # known after dump()

    @property
    def place(self) -> str:
        """What the server is called."""
        if self.params.get("login_uri"):
            return "the server of login_uri"
        where = f"{self.params.get('login_host') or '127.0.0.1'}:{self.params.get('login_port') or 27017}"
        return f"{where} of container {self.tool.container!r}" if self.tool.container else where

    def check(self) -> None:
        """What can be known before there is a dump. Raises StateError, InputError and UnreachableError."""
        require_usable(self.job, self.params, self.tool.container)
        if not self.params.get("login_uri") and not self.tool.container:
            require_listener(self.params.get("login_host") or "127.0.0.1", self.params.get("login_port") or 27017)

    def dump(self) -> dict[str, Any]:
        """Write the files of the job, read them, and return their component. Raises GroundworkError."""
        job = self.job
        self.check()
        started_at, clock = utc_text(datetime.now(UTC)), time.monotonic()
        with dump_folder(job) as folder:
            self._run(folder)
            _move_up(folder / job.database, folder)
            found = verify(folder, job, self.work)
            self._require_something(folder, found)
        self.unmovable = find_unmovable(found.definitions)
        files = [{**entry.to_dict(), "name": f"{job.database}/{entry.name}"} for entry in found.entries]
        return {
            **job.facts(),
            "files": sorted(files, key=lambda entry: str(entry["name"])),
            **found.component(),
            "users": job.users,
            "started_at": started_at,
            "seconds": round(time.monotonic() - clock, 3),
        }

    def _run(self, folder: Path) -> None:
        """Run the program to its end; its configuration is in no file that has a name, and is gone with it."""
        free = shutil.disk_usage(folder).free
        self.tool.remove(self.job)
        with tempfile.TemporaryFile() as printed, open(os.memfd_create(PROGRAM), "w+b") as secrets:  # noqa: PTH123 - no path
            secrets.write(configuration(self.params).encode())
            secrets.seek(0)
            argv = self.tool.argv(self.job, self.params, folder)
            process = start(argv, stdin=secrets, stdout=printed, stderr=printed)
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK_SECONDS)
                    self.work.progress.update(_size(folder), step="dump", item=self.job.database)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                self.tool.remove(self.job)
            printed.seek(0)
            told = printed.read().decode(errors="replace")
        if process.returncode != 0:
            if "no space left on device" in told:
                raise no_room(self.job, free=free, needed=None, done=_size(folder))
            raise failure(self.job, self.params, process.returncode, told, self.place)

    def _require_something(self, folder: Path, found: Found) -> None:
        job = self.job
        if not found.definitions:
            if not job.allow_empty:
                raise nothing_there(job, self.place)
            if not found.entries:  # mongodump writes nothing for a database that is not there
                told = json.dumps({"ServerVersion": "unknown", "ToolVersion": self.tool.version}).encode()
                data = gzip.compress(told) if job.gzip else told
                found.entries.append(write_file(folder / (PRELUDE + job.suffix), data))


def _move_up(inner: Path, folder: Path) -> None:
    """mongodump writes into a folder of the database's name inside of the one that it is given."""
    with os_errors(f"read {folder}"):
        others = [path.name for path in folder.iterdir() if path != inner]
    if others:
        raise StateError(
            f"mongodump wrote {others[0]!r}, which this version of the collection does not know.",
            fix="Use engine: driver.",
        )
    if inner.is_dir():
        aside = folder / ".inner"
        with os_errors(f"rename {inner}"):
            inner.rename(aside)
            for path in aside.iterdir():
                path.rename(folder / path.name)
            aside.rmdir()


def _size(folder: Path) -> int:
    """Bytes that are in the folder now."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
