# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which ports of the host the replicas of rolled services get: those that they have, else free ones of a range."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import Model, Port, Service
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica, configured_ports

_LISTEN = "0A"  # a state of TCP in /proc/net/tcp; UDP has none, whoever has a port receives on it


def parse_range(text: str) -> range:
    """The ports of "20000-20999". Raises InputError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < first <= last < 1 << 16:
        raise InputError(f"port_range is {text!r}.", fix="Give the first and the last port, such as 20000-20999.")
    return range(first, last + 1)


def check_address(text: str) -> str:
    """An address that ports are bound to. Raises InputError when it is none, or none of this host."""
    fix = "Give an IPv4 or IPv6 address of the host."
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"bind_address is {text!r}.", fix=fix) from error
    try:
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        raise InputError(f"bind_address is {address}, which is no address of this host.", fix=fix) from error
    return str(address)


def port_key(port: Port) -> str:
    """A container port as text: "8081", "53/udp"."""
    return str(port.target) if port.protocol == "tcp" else f"{port.target}/{port.protocol}"


def assign_ports(
    model: Model, rolled: Sequence[str], held: Mapping[tuple[str, str], Sequence[int]], taken: set[int], ports: range
) -> dict[str, dict[str, list[int]]]:
    """service -> container port -> one port of the host for each replica, consecutive.

    held:  what containers of this release have, from held_ports(); kept when the number fits.
    taken: ports that cannot be had, from taken_ports().
    Raises StateError when the range is used up.
    """
    blocks: dict[str, dict[str, list[int]]] = {}
    wanted = [
        (model.services[name], key)
        for name in sorted(rolled)
        for key in sorted(set(map(port_key, model.services[name].ports)))
    ]
    for service, key in wanted:
        have = held.get((service.name, key), ())
        if len(have) == service.replicas:
            blocks.setdefault(service.name, {})[key] = list(have)
    used = taken.union(*(have for keys in blocks.values() for have in keys.values()))
    for service, key in wanted:
        if key not in blocks.setdefault(service.name, {}):
            blocks[service.name][key] = _free_block(service, key, used, ports)
            used |= set(blocks[service.name][key])
    return blocks


def _free_block(service: Service, key: str, used: set[int], ports: range) -> list[int]:
    for first in ports[: max(0, len(ports) - service.replicas + 1)]:
        block = range(first, first + service.replicas)
        if used.isdisjoint(block):
            return list(block)
    number = sum(port in used for port in ports)
    noun = "a free port" if service.replicas == 1 else f"{service.replicas} free ports in a row"
    raise StateError(
        f"The service {service.name!r} needs {noun} for its container port {key}, and of the {len(ports)} ports "
        f"{ports[0]}-{ports[-1]} (port_range) {number} are taken.",
        fix="Give a wider range, or remove containers that nobody needs any more.",
    )


def held_ports(
    replicas: Iterable[Replica], release: str, listening: Collection[int]
) -> dict[tuple[str, str], list[int]]:
    """(service, container port) -> the ports of the host that this release's containers are configured with.

    A stopped container does not hold a port that somebody else listens on meanwhile.
    """
    held: dict[tuple[str, str], list[int]] = {}
    for one in sorted(replicas, key=lambda one: not one.alive):
        if one.release != release:
            continue
        for key, ports in one.bindings.items():
            free = not any(port in listening for port in ports)
            if ports and (one.alive or free):
                held.setdefault((one.service, key), list(ports))
    return held


def taken_ports(containers: Iterable[Mapping[str, Any]], listening: Collection[int]) -> set[int]:
    """Ports of the host that are listened on, or that any container, running or not, is configured to publish."""
    published = {port for container in containers for _, ports in configured_ports(container) for port in ports}
    return published | set(listening)


def listening_ports(folder: Path = Path("/proc/net")) -> set[int]:
    """The ports that something on this host listens on, TCP and UDP, at any address (proc(5))."""
    found: set[int] = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        try:
            lines = (folder / name).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTEN or name.startswith("udp"):
                found.add(int(local.rpartition(":")[2], 16))
    return found
