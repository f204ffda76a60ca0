# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Where a host answers from outside: endpoints, the sockets of ss, and what of it is allowed. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError

LAST_PORT = (1 << 16) - 1
EVERYWHERE = {"ipv4": "0.0.0.0", "ipv6": "::"}  # noqa: S104 - compared with, never bound to
# How to ask for what parse_sockets() reads. Unlike /proc/net it tells whether a socket of IPv6 takes IPv4, too, to
# which interface it is bound, and in which control group it was made.
SS = ("ss", "-H", "-l", "-n", "-t", "-u", "-e")


@dataclass(frozen=True, order=True)
class Endpoint:
    """A port, or the ports from first to last, on an address (a network for some rules) of the host.

    interface: the one on which alone it answers; empty for every one.
    """

    proto: str
    first: int
    last: int
    family: str
    address: str
    interface: str = ""

    @property
    def outside(self) -> bool:
        """Whether something outside of this host can reach it."""
        return self.interface != "lo" and not ipaddress.ip_network(self.address, strict=False).is_loopback


@dataclass(frozen=True)
class Listener:
    """A socket that listens (TCP) or takes packets from anybody (UDP); endpoints are two when it takes both families.

    cgroup: the control group that it was made in, such as "/system.slice/ssh.service"; empty when that is not known.
    """

    endpoints: tuple[Endpoint, ...]
    inode: str
    cgroup: str = ""


@dataclass
class Exposed:
    """An endpoint and who answers there: the words for people, and the same as data."""

    endpoint: Endpoint
    owner: str
    via: list[str] = field(default_factory=list)
    containers: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    fix: str = ""

    def told(self) -> dict[str, Any]:
        """As a module returns it."""
        return {
            "proto": self.endpoint.proto,
            "family": self.endpoint.family,
            "address": self.endpoint.address,
            "interface": self.endpoint.interface,
            "port": self.endpoint.first,
            "last_port": self.endpoint.last,
            "owner": self.owner,
            "via": self.via,
            "containers": self.containers,
            "processes": self.processes,
        }


def parse_sockets(text: str) -> list[Listener]:
    """The sockets that the command SS tells of."""
    return [_listener(line.split()) for line in text.splitlines() if line.strip()]


def _listener(cells: Sequence[str]) -> Listener:
    proto, local, extras = cells[0], cells[4], cells[6:]
    host, _, port = local.rpartition(":")
    # "0.0.0.0%eth0", and "[fe80::1]%eth0": the interface that it is bound to, or that its address belongs to.
    host, _, interface = host.partition("%")
    told = {name: value for name, _, value in (cell.partition(":") for cell in extras)}
    endpoints = tuple(
        Endpoint(proto, int(port), int(port), family, address, interface)
        for family, address in _addresses(host.strip("[]"))
    )
    return Listener(endpoints, told.get("ino", "0"), told.get("cgroup", ""))


def _addresses(host: str) -> list[tuple[str, str]]:
    if host == "*":  # an IPv6 socket for all addresses that takes IPv4 as well; "::" is one that does not
        return list(EVERYWHERE.items())
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and (mapped := address.ipv4_mapped):
        address = mapped
    return [(f"ipv{address.version}", str(address))]


@dataclass(frozen=True)
class Allowed:
    """One entry of the list of what may answer, as it was written, and what it means."""

    entry: Mapping[str, Any]
    protos: tuple[str, ...]
    first: int
    last: int

    def covers(self, proto: str, port: int) -> bool:
        """Whether it speaks of this port."""
        return proto in self.protos and self.first <= port <= self.last

    def meets(self, endpoint: Endpoint) -> bool:
        """Whether it speaks of any port of the endpoint."""
        return endpoint.proto in self.protos and self.first <= endpoint.last and endpoint.first <= self.last


def read_allowed(entries: Iterable[Mapping[str, Any]]) -> list[Allowed]:
    """The list of what may answer: {"port": "443" or "8000-8010", "proto": "tcp", "udp" or "any", "from": […]}.

    Raises InputError.
    """
    return [_allowed(number, entry) for number, entry in enumerate(entries)]


def _allowed(number: int, entry: Mapping[str, Any]) -> Allowed:
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:[-:]\s*(\d{1,5})\s*)?", str(entry["port"]))
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if not 0 < first <= last <= LAST_PORT:
        raise InputError(
            f"allowed[{number}].port is {entry['port']!r}.",
            fix="Give a port from 1 to 65535, or the first and the last one of a range, such as 8000-8010.",
        )
    for network in entry.get("from") or ():
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise InputError(
                f"allowed[{number}].from has {network!r}.", fix="Give networks such as 192.0.2.0/24 or 2001:db8::/32."
            ) from error
    proto = entry.get("proto") or "tcp"
    return Allowed(entry, ("tcp", "udp") if proto == "any" else (proto,), first, last)


@dataclass(frozen=True)
class Comparison:
    """What answers and is not allowed, and what is allowed and does not answer."""

    unexpected: list[Exposed]
    missing: list[Allowed]


def compare(exposed: Sequence[Exposed], allowed: Sequence[Allowed]) -> Comparison:
    """A range of ports is allowed when each of its ports is."""
    unexpected = [one for one in exposed if not _is_allowed(one.endpoint, allowed)]
    missing = [one for one in allowed if not any(one.meets(other.endpoint) for other in exposed)]
    return Comparison(unexpected, missing)


def _is_allowed(endpoint: Endpoint, allowed: Sequence[Allowed]) -> bool:
    ports = range(endpoint.first, endpoint.last + 1)
    return all(any(one.covers(endpoint.proto, port) for one in allowed) for port in ports)


def difference(found: Sequence[Exposed], **details: Any) -> StateError:
    """The error for what answers and is not allowed: each port, where, who, and what to do."""
    places: dict[tuple[str, int, int, str], list[str]] = {}
    for one in found:
        at = one.endpoint
        place = at.address + (f" ({at.interface})" if at.interface else "")
        places.setdefault((at.proto, at.first, at.last, one.owner), []).append(place)
    lines = [
        f"{proto} {first if first == last else f'{first}-{last}'} on {' and '.join(where)} by {owner}"
        for (proto, first, last, owner), where in places.items()
    ]
    number = "1 port answers" if len(lines) == 1 else f"{len(lines)} ports answer"
    fix = "; ".join([*dict.fromkeys(one.fix for one in found), "or add what is meant to be open to allowed"])
    return StateError(
        f"{number} from outside and {'is' if len(lines) == 1 else 'are'} not in allowed: {'; '.join(lines)}.",
        fix=f"{fix[0].upper()}{fix[1:]}.",
        **details,
    )
