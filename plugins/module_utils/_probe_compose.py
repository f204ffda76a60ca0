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

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, UnreachableError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import (
    ContainerProbe,
    Target,
    docker_error,
    wanted,
    worst,
)

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
    images: Sequence[str] = ()
    _unwell: list[str] = field(default_factory=list)

    def attempt(self, seconds: float) -> Outcome:
        """Up when every service has a container and each one is up."""
        try:
            if missing := self._missing_image(seconds):
                return Outcome("down", f"the image {missing} is not on this host", terminal=True)
            found = self.target.inspect(seconds)
        except (UnreachableError, CommandError) as error:
            return Outcome("unknown", error.problem)
        if not found:
            return Outcome("down", f"the project {self.target} has no container", terminal=self.fail_fast)
        one_shots = {*self.one_shots, *completed_first(found)}
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
        services=services,
        one_shots=one_shots,
        images=asked.get("images", []),
    )
