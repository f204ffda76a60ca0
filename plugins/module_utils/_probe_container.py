# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind container: Docker's own health, or running for a while; through the docker command line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    ReleaseMatch,
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


@dataclass(frozen=True)
class Wanted:
    """When a container counts as up; the defaults are the documented ones."""

    one_shot: bool = False
    running_for: float = 3.0
    max_restarts: int = 3
    release: ReleaseMatch | None = None


@dataclass
class ContainerProbe(Probe):
    """Judges all containers of the target; remembers restart counts and how long it saw each one run."""

    target: Target
    wanted: Wanted
    fail_fast: bool
    pause: float = 0.2
    _first_restarts: dict[str, int] = field(default_factory=dict)
    _first_seen: dict[tuple[str, str], float] = field(default_factory=dict)

    def attempt(self, seconds: float) -> Outcome:
        """Up when there is a container and each one is up."""
        try:
            found = self.target.inspect(seconds)
        except (UnreachableError, CommandError) as error:
            return Outcome("unknown", error.problem)
        if not found:
            return Outcome("down", f"there is no container {self.target}", terminal=self.fail_fast)
        return worst([self.judge(one, self.wanted) for one in found])

    def logs(self, lines: int) -> list[str]:
        """The containers' log."""
        return self.target.logs(lines)

    def judge(self, found: Mapping[str, Any], wanted: Wanted) -> Outcome:
        """The outcome for one container, with what earlier attempts saw of it."""
        restarts = found["RestartCount"]
        first = min(self._first_restarts.get(found["Id"], restarts), restarts)  # a manual start sets it to 0
        self._first_restarts[found["Id"]] = first
        started = found["State"]["StartedAt"]
        now = time.monotonic()
        seen_for = now - self._first_seen.setdefault((found["Id"], started), now)
        return judge(found, wanted, new_restarts=restarts - first, ran_for=max(seen_for, seconds_since(started)))


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome that counts for all: one that ends the wait, else one that is not up."""
    return next((one for one in outcomes if one.terminal), None) or next(
        (one for one in outcomes if one.state != "up"), outcomes[0]
    )


def judge(found: Mapping[str, Any], wanted: Wanted, *, new_restarts: int, ran_for: float) -> Outcome:
    """The outcome for one container from `docker container inspect`; pure.

    new_restarts: by how much its restart count grew during the wait; ran_for: seconds since it was started.
    """
    state = found["State"]
    status = str(state["Status"])
    name = str(found["Name"]).lstrip("/")
    loop = new_restarts >= wanted.max_restarts or (
        status == "restarting" and found["RestartCount"] >= wanted.max_restarts
    )
    if loop:
        told = f"{name} is in a restart loop: restarted {found['RestartCount']} times, exit code {state['ExitCode']}"
        return Outcome("down", told, terminal=True, status="restarting")
    if status == "running":
        return _judge_running(found, wanted, name, ran_for)
    if status in ("exited", "dead"):
        return _judge_ended(found, wanted, name, status)
    cannot_start = status == "created" and bool(state["Error"])
    told = f"{name} is {status}" + (f": {state['Error']}" if state["Error"] else "")
    starting = status in ("created", "restarting") and not cannot_start
    return Outcome("unknown" if starting else "down", told, terminal=cannot_start, status=status)


def _judge_running(found: Mapping[str, Any], wanted: Wanted, name: str, ran_for: float) -> Outcome:
    health = found["State"].get("Health")
    if wanted.one_shot:
        return Outcome("unknown", f"{name} is still running, and is meant to end", status="running")
    if health and health["Status"] != "healthy":
        log = health.get("Log") or []
        told = " ".join(last_lines(log[-1]["Output"], 3).split())[:300] if log else ""
        reason = f"{name} is {health['Status']}" + (f": {told}" if told else "")
        return Outcome("down" if health["Status"] == "unhealthy" else "unknown", reason, status=str(health["Status"]))
    if not health and ran_for < wanted.running_for:
        reason = f"{name} has no health check and runs for less than {wanted.running_for:g} seconds"
        return Outcome("unknown", reason, status="running")
    mismatch = wanted.release.mismatch(found) if wanted.release else ""
    return Outcome("down" if mismatch else "up", mismatch, status="healthy" if health else "running")


def _judge_ended(found: Mapping[str, Any], wanted: Wanted, name: str, status: str) -> Outcome:
    state = found["State"]
    code = state["ExitCode"]
    if wanted.one_shot and status == "exited" and code == 0:
        return Outcome("up", status=status)
    why = f": {state['Error']}" if state["Error"] else " (out of memory)" if state["OOMKilled"] else ""
    hint = ", and one_shot is not set" if code == 0 and status == "exited" else ""
    policy = found["HostConfig"]["RestartPolicy"]["Name"] or "no"
    # With always and unless-stopped it was stopped by somebody, who may be about to start it again.
    terminal = status == "dead" or policy not in ("always", "unless-stopped")
    return Outcome("down", f"{name} exited with {code}{why}{hint}", terminal=terminal, status=status)


def seconds_since(stamp: str) -> float:
    """Seconds since a time stamp of Docker (RFC 3339 with nanoseconds)."""
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


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
    return ContainerProbe(target(asked, "", asked.given), wanted(asked), asked.get("fail_fast", False))
