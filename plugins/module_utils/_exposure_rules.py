# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Ports that rules send elsewhere, as Docker publishes them: the model, and iptables' rules. Pure.

What a rule asks for beyond protocol, port, destination and interface (a source, a rate) is left out of account, as is
the order of rules: more may be told than answers, never less.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ansible_collections.groundwork.backend.plugins.module_utils._exposure import EVERYWHERE, LAST_PORT, Endpoint

Ranges = tuple[tuple[int, int], ...]
PROTOS = ("tcp", "udp")
ALL_PORTS: Ranges = ((1, LAST_PORT),)
# Where rules of iptables send ports elsewhere on the way in, and the targets that do.
TARGETS = {"nat": ("DNAT", "REDIRECT", "NETMAP"), "mangle": ("TPROXY",)}
_Rules = dict[str, list[tuple["Scope", dict[str, str]]]]


@dataclass(frozen=True)
class Forward:
    """A port that a rule sends to another address. to_address is empty when it stays on the host, or is not told."""

    endpoint: Endpoint
    rule: str
    to_address: str = ""
    to_port: str = ""

    @property
    def target(self) -> str:
        """Where it goes, in words; empty when it stays on the host, or is not told."""
        address = f"[{self.to_address}]" if ":" in self.to_address and self.to_port else self.to_address
        return f"{address}:{self.to_port}" if self.to_port and address else address


@dataclass(frozen=True)
class Scope:
    """The packets that a rule is for; narrowed from rule to rule on the way through the chains."""

    families: tuple[str, ...]
    protos: tuple[str, ...] = PROTOS
    ports: Ranges = ALL_PORTS
    address: str = ""
    interface: str = ""

    def inside(self, outer: Scope) -> Scope:
        """This rule's packets among those that *outer* lets come here."""
        return Scope(
            tuple(one for one in self.families if one in outer.families),
            tuple(one for one in self.protos if one in outer.protos),
            self.ports if self.ports != ALL_PORTS else outer.ports,
            self.address or outer.address,
            self.interface or outer.interface,
        )

    def endpoints(self) -> Iterator[Endpoint]:
        for family in self.families:
            for proto in self.protos:
                for first, last in self.ports:
                    yield Endpoint(proto, first, last, family, self.address or EVERYWHERE[family], self.interface)


def from_iptables(text: str, family: str) -> list[Forward]:
    """What `iptables-save` (family ipv4) or `ip6tables-save` (ipv6) sends elsewhere on the way in."""
    table, tables = "", {name: _Rules() for name in TARGETS}
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A ") and table in tables:
            words = shlex.split(line)
            tables[table].setdefault(words[1], []).append(_iptables_rule(words[2:], family))
    found = (_follow_iptables(rules, name, "PREROUTING", Scope((family,))) for name, rules in tables.items())
    return [forward for one in found for forward in one]


def _iptables_rule(words: Sequence[str], family: str) -> tuple[Scope, dict[str, str]]:
    scope, action = Scope((family,)), {}
    rest, negated = iter(words), False
    for word in rest:
        if word in ("-d", "-i", "-p", "--dport", "--dports", "--comment", "-j", "-g", "--to-destination", "--to"):
            value = next(rest, "")
            if word in ("-j", "-g", "--to-destination", "--to"):
                action[word] = value
            elif not negated:
                scope = _narrow_iptables(scope, word, value)
        negated = word == "!"
    return scope, action


def _narrow_iptables(scope: Scope, option: str, value: str) -> Scope:
    if option == "-d":
        return replace(scope, address=value.removesuffix("/32").removesuffix("/128"))
    if option == "-i":
        return replace(scope, interface=value)
    if option == "-p":
        return replace(scope, protos=tuple(one for one in PROTOS if one == value))
    if option in ("--dport", "--dports"):
        bounds = [one.partition(":") for one in value.split(",")]
        return replace(scope, ports=tuple((int(first), int(last or first)) for first, _, last in bounds))
    return scope


def _follow_iptables(rules: _Rules, table: str, chain: str, outer: Scope) -> Iterator[Forward]:
    for own, action in rules.get(chain, ()):
        scope = own.inside(outer)
        target = action.get("-j") or action.get("-g") or ""
        if target in TARGETS[table]:
            # A match of strings has an option --to, too.
            address, port = _split(action.get("--to" if target == "NETMAP" else "--to-destination", ""))
            told = f"a rule of {'iptables' if 'ipv4' in scope.families else 'ip6tables'} in chain {chain}"
            yield from (Forward(endpoint, told, address, port) for endpoint in scope.endpoints())
        elif target in rules:
            yield from _follow_iptables(rules, table, target, scope)


def _split(destination: str) -> tuple[str, str]:
    """Address and port of "172.17.0.2:80", "[fd00::2]:80", "172.17.0.2" and "fd00::2"."""
    if destination.startswith("["):
        address, _, port = destination[1:].partition("]")
        return address, port.removeprefix(":")
    if destination.count(":") == 1:
        address, _, port = destination.partition(":")
        return address, port
    return destination, ""
