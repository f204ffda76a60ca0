# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind container: Docker's own health, or running for a while; through the docker command line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    GroundworkError,
    StateError,
    UnreachableError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe import (
    RELEASE,
    Asked,
    Outcome,
    Probe,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container_state import (
    Wanted,
    judge,
    seconds_since,
    worst,
)

TARGET: dict[str, dict[str, Any]] = {
    "container": {"type": "str"},
    "project": {"type": "str"},
    "service": {"type": "str"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    **TARGET,
    "one_shot": {"type": "bool"},
    "running_for": {"type": "float"},
    "max_restarts": {"type": "int"},
    "images": {"type": "list", "elements": "str"},
    "release": RELEASE,
    "fail_fast": {"type": "bool"},
}
_LOG_SECONDS = 3.0
_NO_SUCH = "no such container"


@dataclass(frozen=True)
class Target:
    """One container by name or id, or all containers of a compose service; without a service, of the whole project."""

    container: str | None
    project: str | None
    service: str | None

    def __str__(self) -> str:
        return self.container or (f"{self.project}/{self.service}" if self.service else f"{self.project}")

    def inspect(self, seconds: float) -> list[dict[str, Any]]:
        """What Docker knows about the containers; empty when there are none.

        Raises UnreachableError when Docker does not answer, CommandError after *seconds*.
        """
        names = [self.container] if self.container else self._ids(seconds)
        if not names:
            return []
        done = _exec.run(["docker", "container", "inspect", *names], timeout=seconds, check=False)
        if done.rc != 0 and _NO_SUCH not in done.stderr.lower():
            raise docker_error(done.stderr)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found

    def logs(self, lines: int) -> list[str]:
        """The last lines of the containers' logs, stdout and stderr in the order of their time stamps."""
        try:
            names = [self.container] if self.container else self._ids(_LOG_SECONDS)
            told: list[str] = []
            for name in names:
                argv = ["docker", "logs", "--timestamps", "--tail", str(lines), name]
                done = _exec.run(argv, timeout=_LOG_SECONDS, check=False)
                told += [line for text in (done.stdout, done.stderr) for line in text.splitlines()]
        except GroundworkError as error:
            return [f"(the log cannot be read: {error})"]
        return sorted(told, key=lambda line: line.split(" ", 1)[0])[-lines:] if lines else []

    def _ids(self, seconds: float) -> list[str]:
        labels = {"project": self.project, "service": self.service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items() if value]
        done = _exec.run(["docker", "ps", "--all", "--quiet", "--no-trunc", *filters], timeout=seconds, check=False)
        if done.rc != 0:
            raise docker_error(done.stderr)
        return done.stdout.split()


@dataclass
class ContainerProbe(Probe):
    """Judges all containers of the target; remembers restart counts and how long it saw each one run."""

    target: Target
    wanted: Wanted
    fail_fast: bool
    images: Sequence[str] = ()
    pause: float = 0.2
    _first_restarts: dict[str, int] = field(default_factory=dict)
    _first_seen: dict[tuple[str, str], float] = field(default_factory=dict)

    def attempt(self, seconds: float) -> Outcome:
        """Up when there is a container and each one is up."""
        try:
            if missing := self._missing_image(seconds):
                return Outcome("down", f"the image {missing} is not on this host", terminal=True)
            found = self.target.inspect(seconds)
        except (UnreachableError, CommandError) as error:
            return Outcome("unknown", error.problem)
        if not found:
            return Outcome("down", self.nobody(), terminal=self.fail_fast)
        return self.judge_all(found)

    def nobody(self) -> str:
        """What to say when there is no container."""
        return f"there is no container {self.target}"

    def judge_all(self, found: Sequence[Mapping[str, Any]]) -> Outcome:
        """The outcome for what was found, at least one container."""
        return worst([self.judge(one, self.wanted) for one in found])

    def logs(self, lines: int) -> list[str]:
        """The containers' log."""
        return self.target.logs(lines)

    def _missing_image(self, seconds: float) -> str:
        """The first image that Docker does not have; empty when all are there. Raises as Target.inspect() does."""
        for image in self.images:
            argv = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
            done = _exec.run(argv, timeout=seconds, check=False)
            if done.rc != 0:
                if "no such image" in done.stderr.lower():
                    return image
                raise docker_error(done.stderr)
        self.images = ()
        return ""

    def judge(self, found: Mapping[str, Any], wanted: Wanted) -> Outcome:
        """The outcome for one container, with what earlier attempts saw of it."""
        restarts = found["RestartCount"]
        first = min(self._first_restarts.get(found["Id"], restarts), restarts)  # a manual start sets it to 0
        self._first_restarts[found["Id"]] = first
        started = found["State"]["StartedAt"]
        now = time.monotonic()
        seen_for = now - self._first_seen.setdefault((found["Id"], started), now)
        return judge(found, wanted, new_restarts=restarts - first, ran_for=max(seen_for, seconds_since(started)))


def docker_error(stderr: str) -> GroundworkError:
    """What Docker's message means for the user."""
    told = last_lines(stderr, 1) or "docker printed nothing"
    if "permission denied" in stderr.lower():
        return StateError(
            "Docker's socket may not be used by this user.", fix="Run with become, or add the user to the group docker."
        )
    if "cannot connect" in stderr.lower() or "is the docker daemon running" in stderr.lower():
        return UnreachableError(f"The Docker Engine does not answer: {told}", fix="Start it, or set DOCKER_HOST.")
    return UnreachableError(f"Docker refused: {told}")


def require_docker(seconds: float = 10.0) -> None:
    """Raises DependencyError, UnreachableError or StateError when Docker cannot be asked."""
    done = _exec.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=seconds, check=False)
    if done.rc != 0:
        raise docker_error(done.stderr)


def target(asked: Asked, key: str, given: Mapping[str, Any]) -> Target:
    """The target that container, or project with service, name. Raises InputError."""
    one = Target(given.get("container"), given.get("project"), given.get("service"))
    by_service = one.project is not None and one.service is not None
    partly = (one.project is None) != (one.service is None)
    if partly or by_service == (one.container is not None):
        raise asked.error(f"{key}needs either container (a name or an id) or project with service.")
    return one


def wanted(asked: Asked) -> Wanted:
    """What the keys of one check ask of a container. Raises InputError and DependencyError."""
    one = Wanted(
        asked.get("one_shot", False), asked.get("running_for", 3.0), asked.get("max_restarts", 3), asked.release()
    )
    if one.running_for < 0 or one.max_restarts < 1:
        raise asked.error("running_for is at least 0, and max_restarts at least 1.")
    return one


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return str(Target(given.get("container"), given.get("project"), given.get("service")))


def build(asked: Asked) -> ContainerProbe:
    """The probe for the keys of one check. Raises InputError and DependencyError."""
    one = target(asked, "", asked.given)
    return ContainerProbe(one, wanted(asked), asked.get("fail_fast", False), asked.get("images", []))
