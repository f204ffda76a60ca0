# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Replicas of rolled services, as Docker tells of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import RELEASE_LABEL

_COMPOSE = "com.docker.compose."
_ALIVE = ("running", "restarting", "paused")
_STOPPED = ("created", "exited", "dead")
# How the host itself reaches a port that is bound to every address.
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


@dataclass(frozen=True)
class Replica:
    """One container of a rolled service.

    published: container port ("8081", "53/udp") -> (host, port) that it has at this moment; empty when it is stopped.
    bindings:  container port -> the ports of the host that it may get, as it was configured.
    """

    id: str
    name: str
    project: str
    service: str
    release: str
    number: int
    status: str
    health: str
    published: Mapping[str, tuple[str, int]]
    bindings: Mapping[str, Sequence[int]]

    @property
    def alive(self) -> bool:
        """Whether it runs or will run by itself."""
        return self.status in _ALIVE

    @property
    def stopped(self) -> bool:
        """Whether only somebody else can start it."""
        return self.status in _STOPPED

    @property
    def serves(self) -> bool:
        """Whether it runs, and is healthy as far as Docker knows."""
        return self.status == "running" and self.health in ("", "healthy")

    def __str__(self) -> str:
        return f"{self.name}: release {self.release or 'unknown'}, {self.health or self.status}"


def read_replica(container: Mapping[str, Any]) -> Replica:
    """A replica from `docker container inspect`."""
    labels = container["Config"].get("Labels") or {}
    ports = container["NetworkSettings"].get("Ports") or {}
    bindings: dict[str, list[int]] = {}
    for key, numbers in configured_ports(container):
        bindings.setdefault(key, numbers)
    return Replica(
        id=container["Id"],
        name=container["Name"].lstrip("/"),
        project=labels.get(f"{_COMPOSE}project", ""),
        service=labels.get(f"{_COMPOSE}service", ""),
        release=labels.get(RELEASE_LABEL, ""),
        number=int(labels.get(f"{_COMPOSE}container-number") or 0),
        status=container["State"]["Status"],
        health=(container["State"].get("Health") or {}).get("Status", ""),
        published={
            key.removesuffix("/tcp"): (reachable(given[0]["HostIp"]), int(given[0]["HostPort"]))
            for key, given in ports.items()
            if given
        },
        bindings=bindings,
    )


def reachable(host_ip: str) -> str:
    """Where the host itself reaches a port of a rolled service that is bound to *host_ip*."""
    return _WILDCARDS.get(host_ip, host_ip)


def configured_ports(container: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Each published container port ("8081", "53/udp") of `docker container inspect`, with the host's ports for it."""
    for key, bindings in (container["HostConfig"].get("PortBindings") or {}).items():
        for binding in bindings or ():
            if numbers := port_numbers(binding.get("HostPort") or ""):
                yield key.removesuffix("/tcp"), numbers


def port_numbers(text: str) -> list[int]:
    """The ports of "8081" or "8081-8083"; empty when the engine chooses."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1)) if first.isdigit() else []


def endpoints(services: Mapping[str, Any], replicas: Iterable[Replica], release: str) -> dict[str, dict[str, Any]]:
    """service -> "new" and "old" -> the replicas that have a port, as {"host", "port", "container"}."""
    found: dict[str, dict[str, Any]] = {name: {"new": [], "old": []} for name in services}
    for one in replicas:
        at = one.published.get(str(services[one.service]["port"]))
        if at and one.alive:
            entry = {"host": at[0], "port": at[1], "container": one.name}
            found[one.service]["new" if one.release == release else "old"].append(entry)
    return found


def picture(replicas: Iterable[Replica], planned: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[str]]:
    """One side of a diff: service -> its replicas; planned ones stand for those that do not exist yet."""
    shown: dict[str, list[str]] = {}
    for one in replicas:
        shown.setdefault(one.service, []).append(str(one))
    for name, lines in (planned or {}).items():
        shown.setdefault(name, []).extend(lines)
    return {name: sorted(lines) for name, lines in sorted(shown.items())}
