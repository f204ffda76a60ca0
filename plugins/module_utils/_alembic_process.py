# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Start the program of _alembic_agent.py in a venv, an image or a compose service, and talk with it.

It gets everything, also secrets, through its standard input: argv is the same for all and holds none. It ends when that
pipe ends, whatever happens to this process.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils import _alembic_agent, _exec
from ansible_collections.groundwork.backend.plugins.module_utils._compose import compose_argv, compose_config
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    GroundworkError,
    InputError,
    StateError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import docker_error

LABEL = "org.groundwork.alembic"
BOOTSTRAP = "import sys; f = sys.stdin.buffer; exec(compile(f.read(int(f.readline())), 'alembic_migrate', 'exec'))"
_TICK_SECONDS = 1.0
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """Where it runs: the argv, for messages what it is, the folder of the host, and the container to remove."""

    argv: tuple[str, ...]
    where: str
    cwd: str | None = None
    container: str | None = None


def in_venv(venv: str, directory: str) -> Place:
    """The Python of a virtual environment on this host. Raises InputError."""
    python = Path(venv) / "bin" / "python"
    if not python.exists():
        raise InputError(f"The venv {venv} has no bin/python.", fix="Correct venv, or create it.")
    if not Path(directory).is_dir():
        raise InputError(f"The directory {directory} does not exist.", fix="Correct directory.")
    return Place((str(python), "-c", BOOTSTRAP), f"the venv {venv}", cwd=directory)


def in_image(
    image: str, *, python: str = "python", directory: str | None = None, network: str | None = None,
    volumes: Sequence[str] = (),
) -> Place:  # fmt: skip
    """A one-shot container of an image that is on this host already; what it prints is in no log of the engine."""
    name = _container_name()
    argv = ["docker", "run", "--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--name", name]
    argv += ["--label", f"{LABEL}={name}"]
    argv += ["--network", network] if network else []
    argv += ["--workdir", directory] if directory else []
    for volume in volumes:
        argv += ["--volume", volume]
    return Place((*argv, "--entrypoint", python, image, "-c", BOOTSTRAP), f"the image {image}", container=name)


def in_service(compose: Mapping[str, Any], *, python: str = "python", directory: str | None = None) -> Place:
    """A one-shot container of a compose service: its image, environment, networks, volumes and secrets."""
    name = _container_name()
    argv = compose_argv(compose["project"], compose["directory"], compose["files"], compose["env_files"])
    argv += ["run", "--rm", "--no-deps", "--no-TTY", "--name", name, "--label", f"{LABEL}={name}"]
    argv += ["--workdir", directory] if directory else []
    argv += ["--entrypoint", python, compose["service"], "-c", BOOTSTRAP]
    return Place(tuple(argv), f"the service {compose['service']}", container=name)


def service_image(config: Mapping[str, Any], project: str, service: str) -> str:
    """The image of a service in what compose makes of its files. Raises InputError."""
    services = config.get("services") or {}
    if service not in services:
        raise InputError(
            f"The compose files have no service {service!r}; they have: {', '.join(sorted(services)) or 'none'}.",
            fix="Correct compose.service.",
        )
    return str(services[service].get("image") or f"{project}-{service}")


def require_service(compose: Mapping[str, Any]) -> None:
    """Raises when the service or its image is not there: compose would build or pull it, also in check mode."""
    config = compose_config(compose["project"], compose["directory"], compose["files"], compose["env_files"])
    require_image(service_image(config, compose["project"], compose["service"]), None)


def require_image(image: str, network: str | None) -> None:
    """Raises StateError when the image or the network is not there, and why docker cannot be asked."""
    for kind, name, fix in (
        ("image", image, "Build or pull it first: a run of migrations pulls nothing."),
        ("network", network, "Start the stack's services first, or correct network."),
    ):
        if name is None or (kind == "network" and name.startswith("container:")):
            continue
        done = _exec.run(["docker", kind, "inspect", "--format", "{{.Id}}", name], check=False)
        if done.rc == 0:
            continue
        if "no such" in done.stderr.lower() or "not found" in done.stderr.lower():
            raise StateError(f"There is no {kind} {name} on this host.", fix=fix)
        raise docker_error(done.stderr)


class Agent:
    """The running program; use as a context manager. tick is called about every second while it is waited for."""

    def __init__(self, place: Place, job: Mapping[str, Any], *, tick: Callable[[], None] = lambda: None) -> None:
        self.place = place
        self.tick = tick
        self._mark = uuid.uuid4().hex
        self._job = json.dumps({**job, "mark": self._mark}).encode()
        self._buffer = b""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self.place.argv, cwd=self.place.cwd, env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise DependencyError(
                f"Could not start {self.place.argv[0]}: {error.strerror}.",
                fix="Correct venv." if self.place.cwd else "Run the docker role.",
            ) from error
        program = (inspect.getsource(_alembic_agent)).encode()  # imported, so that Ansible brings it to the host
        try:
            for part in (program, self._job):
                self._send(b"%d\n%s" % (len(part), part))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        _exec.piped(self._process.stdout).close()  # nobody reads it any more
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.poll() is None:
                self._process.kill()
            if self.place.container and self._process.returncode != 0:
                _exec.run(["docker", "rm", "--force", self.place.container], check=False)
            self._errors.close()

    def allow(self) -> None:
        """Let it change the database."""
        self._send(b"go\n")

    def hang_up(self) -> None:
        """Tell it to end at once; what it did not commit is rolled back by the server."""
        with suppress(OSError):
            _exec.piped(self._process.stdin).close()

    def answer(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next answer; None after *timeout* seconds. Raises why it has ended when it has."""
        deadline = time.monotonic() + timeout if timeout is not None else None
        pipe = _exec.piped(self._process.stdout).fileno()
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                if line.startswith(self._mark.encode()):
                    found: dict[str, Any] = json.loads(line[len(self._mark) :])
                    return found
            left = _TICK_SECONDS if deadline is None else min(_TICK_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return None
            if select.select([pipe], [], [], left)[0]:
                if not (chunk := os.read(pipe, 65536)):
                    raise self._ended()
                self._buffer += chunk
            else:
                self.tick()

    def _ended(self) -> GroundworkError:
        where = self.place.where
        rc = self._process.wait()
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace").strip()
        if rc == 127 or "executable file not found" in told:
            return DependencyError(
                f"There is no such Python in {where} as was asked for.",
                fix="Set python to the name or path of the interpreter that has Alembic.",
            )
        if rc in (137, -9):
            return StateError(f"The Python in {where} was killed.", fix="Look for a lack of memory, then run again.")
        return CommandError(
            f"The Python in {where} ended with {rc}: {last_lines(told, 5) or 'it printed nothing'}",
            cmd=[*self.place.argv[:-1], "…"],
            rc=rc,
            stderr=last_lines(told, 200),
        )

    def _send(self, data: bytes) -> None:
        pipe = _exec.piped(self._process.stdin)
        with suppress(BrokenPipeError):  # answer() tells why
            pipe.write(data)
            pipe.flush()


def _container_name() -> str:
    return f"groundwork-alembic-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def texts(option: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The values as an environment takes them. Raises InputError, which tells no value."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(value, str | int | float) or "\0" in str(value) or not name or "=" in name or "\0" in name:
            raise InputError(f"{option} has {name!r}, which is no name with a text or number.", fix="Correct it.")
        found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
