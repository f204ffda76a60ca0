# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Who answers on an endpoint: processes, systemd units and containers, put together and in words. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._exposure import (
    EVERYWHERE,
    Endpoint,
    Exposed,
    Listener,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import Forward

_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LISTEN = re.compile(r"Listen=(\S+):(\d+) \((Stream|Datagram)\)")
_ENGINE = ("docker-proxy", "dockerd")
_LABELS = "com.docker.compose."
_PUBLISHED = "publish a container's port on 127.0.0.1 only, or not at all"
_FORWARDED = "delete a rule that nobody needs"
_LISTENS = "let a program listen on 127.0.0.1 only, or stop it"


@dataclass(frozen=True)
class Process:
    """A process that holds a socket; cgroup is its control group."""

    pid: int
    name: str
    cgroup: str


@dataclass(frozen=True)
class Container:
    """A running container: what people call it, its addresses, and its ports of the host as (proto, address, port)."""

    id: str
    name: str
    project: str
    service: str
    addresses: frozenset[str]
    published: frozenset[tuple[str, str, int]]

    def told(self) -> dict[str, Any]:
        """As a module returns it."""
        return {"id": self.id, "name": self.name, "project": self.project, "service": self.service}

    def __str__(self) -> str:
        service = f"service {self.service}" if self.service else ""
        project = f"Compose project {self.project}" if self.project else ""
        told = ", ".join(filter(None, (project, service)))
        return f"container {self.name or self.id[:12]}" + (f" ({told})" if told else "")


@dataclass(frozen=True)
class Known:
    """What the host knows of its sockets' owners.

    holders: the inode of a socket -> the processes that hold it. socket_units: (proto, address, port) -> the unit
    for which systemd listens there. all_seen: whether the processes of every user were looked at.
    """

    containers: Sequence[Container] = ()
    holders: Mapping[str, Sequence[Process]] = field(default_factory=dict)
    socket_units: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    all_seen: bool = True


def read_container(found: Mapping[str, Any]) -> Container:
    """A container from `docker container inspect`."""
    settings, labels = found["NetworkSettings"], found["Config"].get("Labels") or {}
    networks = (settings.get("Networks") or {}).values()
    addresses = {net.get(key) for net in networks for key in ("IPAddress", "GlobalIPv6Address")}
    published = {
        (key.rpartition("/")[2], address, int(binding["HostPort"]))
        for key, bindings in (settings.get("Ports") or {}).items()
        for binding in bindings or ()
        if binding["HostPort"]
        for address in ([binding["HostIp"]] if binding["HostIp"] else EVERYWHERE.values())
    }
    return Container(
        found["Id"],
        found["Name"].lstrip("/"),
        labels.get(f"{_LABELS}project", ""),
        labels.get(f"{_LABELS}service", ""),
        frozenset(address for address in addresses if address),
        frozenset(published),
    )


def read_socket_units(text: str) -> dict[tuple[str, str, int], str]:
    """(proto, address, port) -> unit, from `systemctl show --property=Id,Listen` of socket units.

    The port of a virtual socket, and a path with a colon, look like a port on an address: "vsock::22".
    """
    found = {}
    for block in text.split("\n\n"):
        unit = re.search(r"^Id=(.+)$", block, re.MULTILINE)
        for host, port, kind in _LISTEN.findall(block):
            with suppress(ValueError):
                address = str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
                if unit:
                    found["tcp" if kind == "Stream" else "udp", address, int(port)] = unit[1]
    return found


def unit_of(cgroup: str) -> str:
    """The systemd unit of a control group; empty for a container's, the kernel's and systemd's own."""
    if _CONTAINER.search(cgroup):
        return ""
    parts = [part for part in cgroup.split("/") if part.endswith((".service", ".socket", ".scope"))]
    return "" if not parts or parts[-1] == "init.scope" else parts[-1]


def assemble(listeners: Iterable[Listener], forwards: Iterable[Forward], known: Known) -> list[Exposed]:
    """Each endpoint that can be reached from outside, once, with everything that answers there."""
    sockets: dict[Endpoint, list[Listener]] = {}
    rules: dict[Endpoint, list[Forward]] = {}
    for listener in listeners:
        for endpoint in listener.endpoints:
            sockets.setdefault(endpoint, []).append(listener)
    for forward in forwards:
        rules.setdefault(forward.endpoint, []).append(forward)
    outside = sorted(one for one in sockets.keys() | rules.keys() if one.outside)
    return [_exposed(one, sockets.get(one, ()), rules.get(one, ()), known) for one in outside]


def _exposed(endpoint: Endpoint, listeners: Sequence[Listener], forwards: Sequence[Forward], known: Known) -> Exposed:
    processes = {one.pid: (one, unit) for listener in listeners for one, unit in _processes(listener, known)}
    units = {unit_of(one.cgroup) for one in listeners} | {unit for _, unit in processes.values()}
    engine = bool({one.name for one, _ in processes.values()} & set(_ENGINE)) or "docker.service" in units
    containers = {one.id: one for one in _containers(endpoint, listeners, forwards, known, engine)}
    published = any(_place(endpoint) in one.published for one in containers.values())
    words = [str(one) for one in containers.values()]
    shown = [] if containers and engine else _distinct(processes.values())
    words += [f"{one.name} (process {one.pid}{f', {unit}' if unit else ''})" for one, unit in shown]
    if listeners and not processes and not words:
        seen = "held by no process, as the kernel's own are" if known.all_seen else "its process is another user's"
        words.append(f"{unit} ({seen})" if (unit := next(filter(None, units), "")) else f"a socket ({seen})")
    if not published:
        words += dict.fromkeys(one.rule + (f" to {one.target}" if one.target else "") for one in forwards)
    return Exposed(
        endpoint,
        " and ".join(words),
        [name for name, there in (("socket", listeners), ("rule", forwards)) if there],
        [one.told() for one in containers.values()],
        [{"pid": one.pid, "name": one.name, "unit": unit} for one, unit in shown],
        _PUBLISHED if published else _FORWARDED if forwards else _LISTENS,
    )


def _place(endpoint: Endpoint) -> tuple[str, str, int]:
    return endpoint.proto, endpoint.address, endpoint.first


def _processes(listener: Listener, known: Known) -> Iterator[tuple[Process, str]]:
    """The processes of a socket and the unit of each; systemd's own only where it listens for a service."""
    found = known.holders.get(listener.inode, ())
    made_in = unit_of(listener.cgroup)
    for process in found:
        unit = unit_of(process.cgroup) or made_in
        if process.pid == 1:
            places = map(_place, reversed(listener.endpoints))
            unit = made_in or next((known.socket_units[one] for one in places if one in known.socket_units), "")
        if process.pid != 1 or len(found) == 1:
            yield process, unit


def _containers(
    endpoint: Endpoint, listeners: Sequence[Listener], forwards: Sequence[Forward], known: Known, engine: bool
) -> Iterator[Container]:
    targets = {one.to_address for one in forwards}
    place = _place(endpoint)
    for container in known.containers:
        if targets & container.addresses or ((engine or "" in targets) and place in container.published):
            yield container
    groups = [one.cgroup for one in listeners]
    groups += [process.cgroup for one in listeners for process in known.holders.get(one.inode, ())]
    for group in groups:
        if match := _CONTAINER.search(group):
            nobody = Container(match[0], "", "", "", frozenset(), frozenset())
            yield next((one for one in known.containers if one.id == match[0]), nobody)


def _distinct(processes: Iterable[tuple[Process, str]]) -> list[tuple[Process, str]]:
    """One process, the oldest by number, of each program and unit: a server's workers hold the same socket."""
    first: dict[tuple[str, str], tuple[Process, str]] = {}
    for process, unit in sorted(processes, key=lambda one: one[0].pid):
        first.setdefault((process.name, unit), (process, unit))
    return list(first.values())
