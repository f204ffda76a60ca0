# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Wait until new replicas are healthy: each container, and its own port as the proxy will ask it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker
from ansible_collections.groundwork.backend.plugins.module_utils._probe_kinds import plan
from ansible_collections.groundwork.backend.plugins.module_utils._probe_wait import wait_for
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_engine import (
    inspect_services,
    list_replicas,
)
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_plan import Wanted

LOG_LINES = 200
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|DSN|AUTH", re.IGNORECASE)
_SHORTEST_SECRET = 6  # masking what is shorter would only make the log unreadable
_INTERVAL = 0.5


def wait_healthy(project: str, wanted: Sequence[Wanted], release: str, end: float) -> list[Replica]:
    """Wait until every replica of *release* is healthy, and return all replicas of the services.

    end is the deadline on the monotonic clock.

    Raises StateError with details checks, service, and logs (container -> lines).
    """
    services = [one.service for one in wanted]
    checked: Mapping[str, object] = {}
    while True:
        replicas = list_replicas(project, services)
        judged = [one for needed in wanted for one in _judged(needed, replicas, release)]
        ports = {one.id: one.published for one in judged}
        if checked == ports and all(ports.values()):
            return replicas
        left = end - time.monotonic()
        if checked and left <= 0:
            told = "; ".join(map(str, judged))
            raise StateError(f"The replicas did not stay up for long enough to be asked ({told}).")
        # A container that restarts has no port for a moment, and may have another one of its range afterwards.
        checks = [check for one in wanted for check in checks_of(one, judged, release)]
        _wait(project, checks, max(0.1, left), replicas)
        checked = ports


def _judged(wanted: Wanted, replicas: Iterable[Replica], release: str) -> list[Replica]:
    """The replicas that have to be healthy; one that has stopped is among them only when it is missed."""
    mine = [one for one in replicas if one.service == wanted.service and one.release == release]
    alive = [one for one in mine if one.alive]
    return alive if len(alive) >= wanted.replicas else mine


def require_checkable(wanted: Iterable[Wanted], release: str) -> None:
    """Raise InputError or DependencyError when the health checks cannot be tried, before anything is started."""
    if checks := [_http(one, ("127.0.0.1", one.port), release) for one in wanted]:
        plan(checks)


def checks_of(wanted: Wanted, replicas: Iterable[Replica], release: str) -> list[dict[str, Any]]:
    """The health checks of a service's replicas, in the words of health_wait."""
    checks: list[dict[str, Any]] = []
    for one in replicas:
        if one.service != wanted.service:
            continue
        checks.append(
            {
                "name": f"{wanted.service}: container {one.name}",
                "kind": "container",
                "container": one.name,
                "running_for": 1.0,
                "interval": _INTERVAL,
            }
        )
        if at := one.published.get(str(wanted.port)):
            checks.append({**_http(wanted, at, release), "log_container": {"container": one.name}})
    return checks


def _http(wanted: Wanted, at: tuple[str, int], release: str) -> dict[str, Any]:
    host = f"[{at[0]}]" if ":" in at[0] else at[0]
    url = f"http://{host}:{at[1]}{wanted.health['path']}"
    check = {"name": f"{wanted.service}: {url}", "kind": "http", "url": url, "interval": _INTERVAL}
    if "expect" in wanted.health:
        check["jmespath"] = wanted.health["expect"]
    if "release" in wanted.health:
        check["release"] = {"field": wanted.health["release"], "equals": release}
    return check


def _wait(project: str, checks: Sequence[Mapping[str, Any]], timeout: float, replicas: Sequence[Replica]) -> None:
    try:
        wait_for(checks, timeout, log_lines=LOG_LINES)
    except StateError as error:
        if "checks" not in error.details:
            raise
        services = {one.service for one in replicas}
        masker = Masker(secrets_of(inspect_services(project, services)))
        shown = {name: {**one, "body": masker(one["body"])} for name, one in error.details["checks"].items()}
        for one in shown.values():
            one["last_error"] = masker(one["last_error"])
        named = {check["name"]: check for check in checks}
        logs: dict[str, list[str]] = {}
        for name, lines in error.details["logs"].items():
            check = named[name]
            container = check.get("container") or check["log_container"]["container"]
            logs[container] = [masker(line) for line in lines]
        failed = [name for name in error.details["unmet"] if shown[name]["state"] != "waiting"]
        service = (failed or error.details["unmet"])[0].partition(":")[0]
        raise StateError(masker(error.problem), service=service, checks=shown, logs=logs) from error


def secrets_of(containers: Iterable[Mapping[str, Any]]) -> set[str]:
    """What looks like a secret in the environment of containers."""
    return secret_values(entry for container in containers for entry in container["Config"].get("Env") or ())


def secret_values(environment: Iterable[str]) -> set[str]:
    """What looks like a secret in NAME=value entries: by the variable's name, or a password in a URL."""
    found: set[str] = set()
    for entry in environment:
        name, _, value = entry.partition("=")
        if _SECRET_NAME.search(name):
            found.update((value, *value.splitlines()))  # a journal has them line by line
        found.add(_password(value))
    return {one for one in found if len(one) >= _SHORTEST_SECRET}


def _password(value: str) -> str:
    try:
        return urlsplit(value).password or ""
    except ValueError:
        return ""
