# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind compose: every service of a project is up, or finished with 0 when it is a one-shot.

What there is to check is read from the labels that Compose puts on containers, so that neither the compose files nor
the compose plugin are needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import (
    ContainerProbe,
    Target,
    wanted,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container_state import worst

OPTIONS: dict[str, dict[str, Any]] = {
    "project": {"type": "str"},
    "services": {"type": "list", "elements": "str"},
    "one_shots": {"type": "list", "elements": "str"},
    "images": {"type": "list", "elements": "str"},
    "running_for": {"type": "float"},
    "max_restarts": {"type": "int"},
    "fail_fast": {"type": "bool"},
}
_LABEL = "com.docker.compose."
_COMPLETED = "service_completed_successfully"


@dataclass
class ComposeProbe(ContainerProbe):
    """Judges all containers of a project, each as a service or as a one-shot."""

    services: Sequence[str] = ()
    one_shots: Sequence[str] = ()
    _unwell: list[str] = field(default_factory=list)

    def nobody(self) -> str:
        """What to say when there is no container."""
        return f"the project {self.target} has no container"

    def judge_all(self, found: Sequence[Mapping[str, Any]]) -> Outcome:
        """Up when every service has a container and each one is up. Others than the services asked for do not count."""
        one_shots = {*self.one_shots, *completed_first(found)}
        if self.services:
            found = [one for one in found if service_of(one) in self.services]
        outcomes = [self._outcome(one, one_shots) for one in found]
        blamed = [one.terminal for one in outcomes]
        if not any(blamed):
            blamed = [one.state != "up" for one in outcomes]
        self._unwell = [str(one["Name"]).lstrip("/") for one, is_blamed in zip(found, blamed, strict=True) if is_blamed]
        absent = sorted({*self.services} - {service_of(one) for one in found})
        if absent:
            told = f"the service {absent[0]} of project {self.target} has no container"
            outcomes.append(Outcome("down", told, terminal=self.fail_fast))
        return worst(outcomes)

    def logs(self, lines: int) -> list[str]:
        """The logs of the containers that are to blame, each line with its container's name."""
        return [f"{name} | {line}" for name in self._unwell for line in Target(name, None, None).logs(lines)]

    def _outcome(self, found: Mapping[str, Any], one_shots: set[str]) -> Outcome:
        outcome = self.judge(found, dataclasses.replace(self.wanted, one_shot=service_of(found) in one_shots))
        reason = outcome.reason.replace("one_shot is not set", "one_shots does not name it")
        return dataclasses.replace(outcome, reason=reason)


def service_of(found: Mapping[str, Any]) -> str:
    """The compose service of a container."""
    return str((found["Config"].get("Labels") or {}).get(f"{_LABEL}service", ""))


def completed_first(containers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Services that others of these containers wait for until they have ended with 0.

    Compose notes that in a label: "migrate:service_completed_successfully:false,db:service_healthy:true".
    """
    found = set()
    for container in containers:
        told = (container["Config"].get("Labels") or {}).get(f"{_LABEL}depends_on", "")
        for entry in filter(None, told.split(",")):
            service, _, rest = entry.partition(":")
            if rest.split(":")[0] == _COMPLETED:
                found.add(service)
    return found


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"compose {given['project']}"


def build(asked: Asked) -> ComposeProbe:
    """The probe for the keys of one check. Raises InputError."""
    services, one_shots = asked.get("services", []), asked.get("one_shots", [])
    for name in one_shots:
        if services and name not in services:
            raise asked.error(f"one_shots names {name!r}, which services does not.")
    return ComposeProbe(
        Target(None, asked.get("project"), None),
        wanted(asked),
        asked.get("fail_fast", False),
        asked.get("images", []),
        services=services,
        one_shots=one_shots,
    )
