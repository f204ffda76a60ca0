# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Rules of UFW: those of a list, and those in UFW's files. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

# Begins the comment of each rule that is ours; "ufw status" shows it.
MARK = "groundwork"
ANYWHERE = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LAST_PORT = (1 << 16) - 1
_INTERFACE = re.compile(r"[a-zA-Z0-9_.,=%@-]{1,15}")


@dataclass(frozen=True)
class Rule:
    """One rule for one family.

    ports: "443", "8000:8010", "80,443" (of others), or "any". other: what a rule has that ours have not, such as an
    address of this host; empty for ours. logged: "log" or "log-all", which ours have not either.
    """

    family: str
    action: str
    proto: str = "any"
    ports: str = "any"
    source: str = ""
    interface: str = ""
    other: str = ""
    logged: str = ""
    ours: bool = field(default=True, compare=False)
    comment: str = field(default="", compare=False)

    @property
    def target(self) -> tuple[str, ...]:
        """What UFW takes for the same rule, whatever it does and whether it logs: there is one for each."""
        return (self.family, self.proto, self.ports, self.source, self.interface, self.other)

    def covers(self, port: int) -> bool:
        """Whether one of its ports is this one."""
        if self.ports == "any":
            return True
        ranges = [one.partition(":") for one in self.ports.split(",")]
        return any(int(first) <= port <= int(last or first) for first, _, last in ranges)

    def command(self, *before: str) -> list[str]:
        """The argv that makes it; before is "prepend", or "delete"."""
        place = ["in", "on", self.interface] if self.interface else ["in"]
        proto = [] if self.proto == "any" else ["proto", self.proto]
        port = [] if self.ports == "any" else ["port", self.ports]
        told = [] if "delete" in before else ["comment", self.comment]
        place += self.logged.split()
        return ["ufw", *before, self.action, *place, *proto, "from", self.source, "to", "any", *port, *told]

    def __str__(self) -> str:
        words = [self.action, *self.logged.split(), *(["on", self.interface] if self.interface else [])]
        words += [self.ports if self.proto == "any" else f"{self.ports}/{self.proto}", "from", self.source]
        return " ".join([*words, *([f"({self.other})"] if self.other else [])])


def read_entries(entries: Sequence[Mapping[str, Any]], interfaces: Iterable[str]) -> list[Rule]:
    """The rules of a list, in its order; of two for the same the first one. Raises InputError."""
    known = set(interfaces)
    rules: dict[tuple[str, ...], Rule] = {}
    for rule in (rule for number, entry in enumerate(entries) for rule in _entry(number, entry, known)):
        rules.setdefault(rule.target, rule)
    return list(rules.values())


def _entry(number: int, entry: Mapping[str, Any], known: set[str]) -> list[Rule]:
    name = f"rules[{number}]"
    ports = _ports(name, entry.get("port"))
    interface = entry.get("interface") or ""
    sources = read_networks(f"{name}.from", entry.get("from") or ())
    if interface and (interface not in known or not _INTERFACE.fullmatch(interface)):
        there = ", ".join(sorted(known))
        raise InputError(f"{name}.interface is {interface!r}, and this host has {there}.", fix="Name one of these.")
    if ports == "any" and not sources and not interface:
        raise InputError(
            f"{name} has no port, no from and no interface, so that it would be about everything.",
            fix="Give at least one of them.",
        )
    if entry.get("limit") and entry.get("deny"):
        raise InputError(f"{name} has limit and deny.", fix="Give one of them.")
    text = str(entry.get("comment") or "")
    if not re.fullmatch(r"[^'\x00-\x1f\x7f]*", text):
        raise InputError(f"{name}.comment is {text!r}.", fix="UFW takes comments of one line without single quotes.")
    action = "limit" if entry.get("limit") else "deny" if entry.get("deny") else "allow"
    proto = entry.get("proto") or "tcp"
    protos = ["any"] if ports == "any" else ["tcp", "udp"] if proto == "any" else [proto]
    return [
        Rule(f"ipv{source.version}", action, one, ports, _text(source), interface, comment=marked(text))
        for one in protos
        for source in sources or map(ipaddress.ip_network, ANYWHERE.values())
    ]


def marked(text: str) -> str:
    """The comment of a rule of ours."""
    return f"{MARK}: {text}" if text else MARK


def _ports(name: str, told: Any) -> str:
    if told is None or not str(told).strip():
        return "any"
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:[-:]\s*(\d{1,5})\s*)?", str(told))
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if not 0 < first <= last <= _LAST_PORT:
        raise InputError(
            f"{name}.port is {told!r}.",
            fix="Give a port from 1 to 65535, or the first and the last one of a range, such as 8000-8010.",
        )
    return str(first) if first == last else f"{first}:{last}"


def read_networks(name: str, told: Iterable[str]) -> list[Network]:
    """Addresses and networks of an option of this name. Raises InputError."""
    found = []
    for one in told:
        try:
            found.append(ipaddress.ip_network(one))
        except ValueError as error:
            raise InputError(
                f"{name} has {one!r}: {error}.", fix="Give addresses and networks, such as 192.0.2.7 or 2001:db8::/32."
            ) from error
    return found


def _text(network: Network) -> str:
    """As UFW writes it: a single address without its length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def with_ssh(rules: Sequence[Rule], ports: Iterable[int]) -> tuple[list[Rule], list[Rule]]:
    """The rules for SSH, which come first, and all others.

    The list decides about a port of SSH that it names alone in an entry; else it is open for everybody. Raises
    InputError for an entry that denies one.
    """
    wanted = sorted(set(ports))
    for rule in rules:
        closed = [port for port in wanted if rule.ports != "any" and rule.proto != "udp" and rule.covers(port)]
        if rule.action == "deny" and closed:
            raise InputError(
                f"The list of rules has {str(rule)!r}, which is about SSH: sshd of this host answers on {closed[0]}.",
                fix="To open SSH for some networks only, list its port with these in from, without deny.",
            )
    named = {str(port): [one for one in rules if (one.proto, one.ports) == ("tcp", str(port))] for port in wanted}
    ssh = [
        rule
        for port, told in named.items()
        for rule in told
        or [Rule(family, "allow", "tcp", port, network, comment=marked("SSH")) for family, network in ANYWHERE.items()]
    ]
    return ssh, [one for one in rules if one not in ssh]


def parse_rules(text: str, family: str) -> list[Rule]:
    """The rules for what comes in, of the file user.rules or user6.rules, in order."""
    lines = [line.removeprefix("### tuple ###") for line in text.splitlines() if line.startswith("### tuple ###")]
    found = [_tuple(line, family) for line in lines]
    return [one for one in found if one]


def _tuple(line: str, family: str) -> Rule | None:
    told, _, comment = line.partition(" comment=")
    cells = told.split()
    if len(cells) < 6 or cells[0].startswith("route:"):
        return None
    action, proto, ports, to, source_port, source = cells[:6]
    direction, _, interface = (cells[-1] if len(cells) in (7, 9) else "in").partition("_")
    if direction != "in":
        return None
    words = bytes.fromhex(comment.strip()).decode(errors="replace")
    action, _, logged = action.partition("_")
    other = [f"to {to}"] if to != ANYWHERE[family] else []
    other += [f"source port {source_port}"] if source_port != "any" else []
    other += [cells[6].replace("%20", " ")] if len(cells) >= 8 else []
    return Rule(
        family, action, proto, ports, _text(ipaddress.ip_network(source, strict=False)), interface, ", ".join(other),
        logged, ours=words == MARK or words.startswith(f"{MARK}: "), comment=words,
    )  # fmt: skip
