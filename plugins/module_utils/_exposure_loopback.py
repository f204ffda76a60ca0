# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Ports of 127.0.0.1 that neighbours in the same network reach all the same, by frames that they send for it. Pure.

The kernel refuses such a packet where it routes it: after the rules of PREROUTING, which may have sent it elsewhere by
then, and not at all where route_localnet is on. A packet for ::1 it refuses before any rule.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._exposure import LAST_PORT, Endpoint, Listener
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import ALL_PORTS, PROTOS, Forward

# As iptables-save prints what Docker 28 puts there for each port, and what _FIX does for all of them.
_DROP = re.compile(
    r"-A PREROUTING -d (127\.[\d./]+) ! -i lo(?: -p (tcp|udp)(?: -m \2 --dport (\d+)(?::(\d+))?)?)? -j DROP"
)
_EARLY = ("raw", "mangle")  # the tables before nat
_BEFORE_NAT = -100
_FIX = "Drop what comes from outside for it: iptables -t raw -I PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP"


def drops_of_iptables(text: str) -> list[Endpoint]:
    """What iptables-save tells that is dropped before a rule or a socket gets it, if it comes from outside."""
    table, found = "", list[Endpoint]()
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table in _EARLY and (match := _DROP.fullmatch(line)):
            address, proto, first, last = match.groups()
            ports = (int(first), int(last or first)) if first else ALL_PORTS[0]
            found += _dropped(address, proto, ports)
    return found


def drops_of_nft(items: Sequence[Mapping[str, Any]]) -> list[Endpoint]:
    """The same as nft tells it. A rule with anything else in it does not count."""
    chains = [item["chain"] for item in items if "chain" in item]
    early = {
        (one["family"], one["table"], one["name"])
        for one in chains
        if one["family"] in ("ip", "inet") and one.get("hook") == "prerouting" and one["prio"] < _BEFORE_NAT
    }
    rules = [item["rule"] for item in items if "rule" in item]
    expressions = [one["expr"] for one in rules if (one["family"], one["table"], one["chain"]) in early]
    return [endpoint for one in expressions for endpoint in _drops(one)]


def _drops(expressions: Sequence[Mapping[str, Any]]) -> list[Endpoint]:
    outside, address, proto, ports = False, "", "", ALL_PORTS[0]
    *conditions, last = [one for one in expressions if "counter" not in one] or [{}]
    for one in conditions:
        match: Mapping[str, Any] = one.get("match") or {}
        left, right = match.get("left") or {}, match.get("right")
        prefix = right.get("prefix") if isinstance(right, dict) else None
        payload, key = left.get("payload") or {}, (left.get("meta") or {}).get("key")
        told = (match.get("op"), payload.get("protocol"), payload.get("field"))
        if "tunnel" in payload:
            return []
        if match.get("op") == "!=" and key in ("iifname", "iif") and right == "lo":
            outside = True
        elif told == ("==", "ip", "daddr"):
            address = f"{prefix['addr']}/{prefix['len']}" if prefix else str(right)
        elif told[0] == "==" and told[1] in PROTOS and told[2] == "dport" and isinstance(right, int):
            proto, ports = told[1], (right, right)
        else:
            return []
    return _dropped(address, proto, ports) if outside and "drop" in last and address.startswith("127.") else []


def _dropped(address: str, proto: str | None, ports: tuple[int, int]) -> list[Endpoint]:
    return [Endpoint(one, *ports, "ipv4", address) for one in PROTOS if proto in (one, "", None)]


def near(
    listeners: Iterable[Listener], forwards: Iterable[Forward], drops: Sequence[Endpoint], open_to: Sequence[str]
) -> list[str]:
    """A sentence for what rules open to neighbours, and one for the interfaces in *open_to*, with route_localnet."""
    sent = _open((one.endpoint for one in forwards), drops)
    listening = _open((endpoint for one in listeners for endpoint in one.endpoints), drops) if open_to else ""
    found = []
    if sent:
        found.append(f"Neighbours in the same network may reach {sent} on loopback, which rules send on. {_FIX}.")
    if listening:
        where = "every interface" if "all" in open_to else " and ".join(open_to)
        found.append(f"As route_localnet is 1, neighbours on {where} may reach {listening} on loopback. {_FIX}.")
    return found


def _open(endpoints: Iterable[Endpoint], drops: Sequence[Endpoint]) -> str:
    """Those on 127.0.0.1 that nothing drops, in words."""
    return ", ".join(dict.fromkeys(_words(sorted(one for one in endpoints if _is_open(one, drops)))))


def _is_open(endpoint: Endpoint, drops: Sequence[Endpoint]) -> bool:
    if endpoint.outside or endpoint.interface == "lo" or endpoint.family != "ipv4":
        return False
    network = ipaddress.IPv4Network(endpoint.address, strict=False)
    return not any(
        one.proto == endpoint.proto
        and one.first <= endpoint.first <= endpoint.last <= one.last
        and network.subnet_of(ipaddress.IPv4Network(one.address, strict=False))
        for one in drops
    )


def _words(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    for one in endpoints:
        ports = one.first if one.first == one.last else f"{one.first}-{one.last}"
        yield f"{one.proto} {'all ports' if one.last - one.first + 1 == LAST_PORT else ports}"
