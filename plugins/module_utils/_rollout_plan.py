# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What is wanted of rolled services, and the plans that lead there from what runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    RELEASE_LABEL,
    Service,
    from_config,
    rolling_problems,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica, port_numbers


@dataclass(frozen=True)
class Wanted:
    """What a rolled service shall have: *replicas* containers of *image* whose *port* answers as *health* says."""

    service: str
    port: int
    health: Mapping[str, Any]
    replicas: int
    image: str


@dataclass(frozen=True)
class Start:
    """The plan of state started. scale counts what is there and what is missing, as Compose does."""

    leftovers: Sequence[Replica]
    missing: Mapping[str, int]
    scale: Mapping[str, int]

    @property
    def planned(self) -> Mapping[str, Sequence[str]]:
        """What will be new, for the diff."""
        return {name: ["(a new replica)"] * count for name, count in self.missing.items()}


def read_wanted(config: Mapping[str, Any], services: Mapping[str, Any], release: str) -> list[Wanted]:
    """What is wanted, from compose's configuration and the option *services*.

    Raises InputError with a sentence for each service that cannot be rolled.
    """
    model = from_config(config)
    wanted, problems = [], []
    for name, options in services.items():
        service = model.services.get(name)
        if service is None:
            known = ", ".join(sorted(model.services)) or "none"
            problems.append(f"There is no service {name!r} in the compose files, which have: {known}.")
            continue
        port, health = read_options(name, options)
        problems += rolling_problems(service) or _misfits(service, port)
        found = config["services"][name]
        if (label := (found.get("labels") or {}).get(RELEASE_LABEL)) != release:
            told = f"release {label}" if label else "no release"
            problems.append(
                f"The compose files give the service {name!r} {told} (label {RELEASE_LABEL}), and {release} was asked "
                "for. Let compose_override write the override of this release, and add it to files."
            )
        wanted.append(Wanted(name, port, health, service.replicas, found.get("image") or ""))
    if problems:
        raise InputError(" ".join(problems))
    return wanted


def read_options(name: str, options: Any) -> tuple[int, Mapping[str, Any]]:
    """port and health of one entry of the option *services*. Raises InputError."""
    port = options.get("port") if isinstance(options, Mapping) else None
    health = options.get("health") if isinstance(options, Mapping) else None
    if not str(port).isdigit() or not isinstance(health, Mapping) or not str(health.get("path", "")).startswith("/"):
        raise InputError(
            f"services.{name} needs port, a container port, and health.path, which begins with a slash.",
            fix="Give them, such as {port: 8081, health: {path: /health}}.",
        )
    return int(str(port)), health


def _misfits(service: Service, port: int) -> Iterator[str]:
    """Why the files, with their override, do not let this service roll."""
    if service.container_name:
        yield (
            f"The service {service.name!r} has the fixed container_name {service.container_name}, which only one "
            "container can have. Add the override that compose_override wrote to files."
        )
    at = [one for one in service.ports if one.target == port and one.protocol == "tcp"]
    if not at:
        targets = ", ".join(str(one.target) for one in service.ports)
        yield (
            f"services.{service.name}.port is {port}, and the service publishes these container ports: {targets}. "
            f"Use one of them, or publish {port} under ports: in the compose file."
        )
    elif len(port_numbers(at[0].published)) < service.replicas:
        yield (
            f"The service {service.name!r} has {service.replicas} replicas and publishes {port} on "
            f"{at[0].published or 'a port that the engine chooses'}, where not all of them fit. Name it in "
            "rolled_services of compose_override, and add the override to files."
        )


def plan_start(wanted: Iterable[Wanted], replicas: Sequence[Replica], release: str) -> Start:
    """How to have *wanted* replicas of *release* beside whatever runs.

    Stopped containers of a service that gets new ones go first: Compose counts them, and would start them.
    """
    missing, scale, leftovers = {}, {}, []
    for one in wanted:
        mine = [replica for replica in replicas if replica.service == one.service]
        alive = [replica for replica in mine if not replica.stopped]
        count = one.replicas - sum(replica.alive and replica.release == release for replica in alive)
        if count > 0:
            missing[one.service] = count
            scale[one.service] = len(alive) + count
            leftovers += [replica for replica in mine if replica.stopped]
    return Start(leftovers, missing, scale)


def plan_retire(replicas: Iterable[Replica], release: str) -> list[Replica]:
    """What goes when *release* serves: all others, and what was made for it and never started."""
    return [one for one in replicas if one.release != release or one.status == "created"]


def plan_remove(replicas: Iterable[Replica], release: str) -> list[Replica]:
    """What goes when *release* shall not be."""
    return [one for one in replicas if one.release == release]


def require_successors(going: Iterable[Replica], replicas: Iterable[Replica], release: str) -> None:
    """Raise StateError when a service would be left without a healthy replica of *release*."""
    served = {one.service for one in replicas if one.release == release and one.serves}
    lacking = sorted({one.service for one in going} - served)
    if lacking:
        told = [str(one) for one in replicas if one.service in lacking and one.release == release]
        raise StateError(
            f"The replicas of {', '.join(lacking)} were not retired: no healthy one of release {release} runs "
            f"({'; '.join(told) or 'there is none'}).",
            fix="Start the release first (state started); what ran before still runs.",
        )
