# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the state that Docker tells of a container means for a health check; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import last_lines
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Outcome, ReleaseMatch


@dataclass(frozen=True)
class Wanted:
    """When a container counts as up; the defaults are the documented ones."""

    one_shot: bool = False
    running_for: float = 3.0
    max_restarts: int = 3
    release: ReleaseMatch | None = None


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
