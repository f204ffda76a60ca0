# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the state that Docker tells means for a container check."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, UnreachableError
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import docker_error
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container_state import (
    Wanted,
    judge,
    seconds_since,
)


def _inspected(status: str, **changes: Any) -> dict[str, Any]:
    """The part of docker container inspect that matters, as Docker 28 tells it."""
    state = {"Status": status, "ExitCode": 0, "Error": "", "OOMKilled": False, "StartedAt": "2026-01-01T00:00:00Z"}
    state |= {key: value for key, value in changes.items() if key in (*state, "Health")}
    policy = {"Name": changes.get("policy", "no"), "MaximumRetryCount": 0}
    return {
        "Id": "c0ffee",
        "Name": "/web",
        "RestartCount": changes.get("restarts", 0),
        "State": state,
        "HostConfig": {"RestartPolicy": policy},
    }


def _health(status: str, output: str = "") -> dict[str, Any]:
    return {"Status": status, "FailingStreak": 0, "Log": [{"ExitCode": 1, "Output": output}]}


@pytest.mark.parametrize(
    ("found", "wanted", "new_restarts", "ran_for", "state", "terminal", "reason"),
    [
        (_inspected("running"), Wanted(), 0, 3.1, "up", False, ""),
        (_inspected("running"), Wanted(), 0, 0.5, "unknown", False, "runs for less than 3 seconds"),
        (_inspected("running"), Wanted(running_for=0), 0, 0.0, "up", False, ""),
        (_inspected("running", restarts=40), Wanted(), 0, 900, "up", False, ""),
        (_inspected("running", restarts=3), Wanted(), 3, 0.1, "down", True, "restart loop: restarted 3 times"),
        (_inspected("restarting", restarts=12, ExitCode=7), Wanted(), 0, 0.1, "down", True, "exit code 7"),
        (_inspected("restarting", restarts=1), Wanted(), 1, 0.1, "unknown", False, "web is restarting"),
        (_inspected("running", Health=_health("healthy")), Wanted(), 0, 0.0, "up", False, ""),
        (_inspected("running", Health=_health("starting")), Wanted(), 0, 90, "unknown", False, "web is starting"),
        (_inspected("running", Health=_health("unhealthy", "no\nroute\n")), Wanted(), 0, 9, "down", False, "no route"),
        (_inspected("running"), Wanted(one_shot=True), 0, 90, "unknown", False, "still running"),
        (_inspected("exited"), Wanted(one_shot=True), 0, 1, "up", False, ""),
        (_inspected("exited", ExitCode=1), Wanted(one_shot=True), 0, 1, "down", True, "exited with 1"),
        (_inspected("exited"), Wanted(), 0, 1, "down", True, "one_shot is not set"),
        (_inspected("exited", ExitCode=137, OOMKilled=True), Wanted(), 0, 1, "down", True, "137 (out of memory)"),
        (_inspected("exited", policy="unless-stopped"), Wanted(), 0, 1, "down", False, "exited with 0"),
        (_inspected("exited", ExitCode=1, policy="on-failure"), Wanted(), 0, 1, "down", True, "exited with 1"),
        (_inspected("dead", policy="always"), Wanted(), 0, 1, "down", True, "exited"),
        (_inspected("created"), Wanted(), 0, 0, "unknown", False, "web is created"),
        (_inspected("created", ExitCode=127, Error="no such file"), Wanted(), 0, 0, "down", True, "no such file"),
        (_inspected("paused"), Wanted(), 0, 9, "down", False, "web is paused"),
    ],
)  # fmt: skip
def test_judge(
    *, found: dict[str, Any], wanted: Wanted, new_restarts: int, ran_for: float, state: str, terminal: bool, reason: str
) -> None:
    """Each state has its outcome."""
    outcome = judge(found, wanted, new_restarts=new_restarts, ran_for=ran_for)
    assert (outcome.state, outcome.terminal) == (state, terminal), outcome
    assert reason in outcome.reason


def test_docker_errors_are_sentences() -> None:
    """Messages recorded from Docker 28."""
    denied = docker_error(
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
        '"http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": dial unix /var/run/docker.sock: connect: permission denied'
    )
    assert isinstance(denied, StateError)
    assert "group docker" in str(denied)
    down = docker_error(
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    )
    assert isinstance(down, UnreachableError)
    assert "does not answer" in str(down)


def test_docker_time_stamps() -> None:
    """Nanoseconds and the zero time are understood."""
    assert seconds_since("0001-01-01T00:00:00Z") > 1e9
    assert seconds_since("2020-02-02T02:02:02.123456789Z") > 1e8
