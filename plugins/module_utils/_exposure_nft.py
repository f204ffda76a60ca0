# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Ports that rules of nftables send elsewhere, as nft tells of them in JSON (libnftables-json(5)). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._exposure import EVERYWHERE
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import (
    ALL_PORTS,
    PROTOS,
    TARGETS,
    Forward,
    Ranges,
    Scope,
)

FAMILIES = {"ip": "ipv4", "ip6": "ipv6"}
# Numbers stand where nft has no name for them: those of protocols, of meta nfproto and of meta protocol.
_PROTOS = {6: "tcp", 17: "udp"}
_MET = {"ip": "ipv4", "ip6": "ipv6", 2: "ipv4", 10: "ipv6", 0x0800: "ipv4", 0x86DD: "ipv6"}
_PROTOCOL = {("ip", "protocol"), ("ip6", "nexthdr")}
_Chains = Mapping[str, Sequence[Mapping[str, Any]]]


def read_nft(text: str) -> list[dict[str, Any]]:
    """What `nft --json --terse list ruleset` prints, one by one."""
    items: list[dict[str, Any]] = json.loads(text or "{}").get("nftables", [])
    return items


def from_nft(items: Sequence[Mapping[str, Any]], iptables: Collection[tuple[str, str]] = ()) -> list[Forward]:
    """What the rules of nftables send elsewhere on the way in.

    iptables: the tables, such as ("ip", "nat"), in which the rules of iptables count as well, of whose targets nft
    tells nothing but the name. Debian 12's not that: there each target in a table of type nat counts, and TPROXY does
    not. Ports in named sets and maps are not told: such a rule counts for all ports.
    """
    chains: list[dict[str, Any]] = [item["chain"] for item in items if "chain" in item]
    found: list[Forward] = []
    for base in chains:
        if base.get("hook") == "prerouting":
            table = (base["family"], base["table"])
            targets = (*TARGETS["nat"], None) if base["type"] == "nat" else TARGETS["mangle"]
            hooked = {one["name"] for one in chains if (one["family"], one["table"]) == table and "hook" in one}
            rules: dict[str, list[dict[str, Any]]] = {}
            for rule in (item["rule"] for item in items if "rule" in item):
                if (rule["family"], rule["table"]) == table and rule["chain"] not in hooked - {base["name"]}:
                    rules.setdefault(rule["chain"], []).append(rule)
            families = (FAMILIES[base["family"]],) if base["family"] in FAMILIES else tuple(EVERYWHERE)
            counted = targets if table in iptables else ()
            found += _follow(rules, base["name"], Scope(families), counted, set())
    return found


def _follow(
    chains: _Chains, chain: str, outer: Scope, targets: Collection[str | None], seen: set[tuple[str, Scope]]
) -> Iterator[Forward]:
    if (chain, outer) in seen:  # named maps lead from everywhere to everywhere
        return
    seen.add((chain, outer))
    for rule in chains.get(chain, ()):
        scope = outer
        for expression in rule["expr"]:
            kind, value = next(iter(expression.items()))
            if kind == "match" and value["op"] in ("==", "in"):
                scope = _narrow(scope, value["left"], value["right"])
            elif kind in ("dnat", "redirect", "tproxy") or (
                kind == "xt" and expression is rule["expr"][-1] and (value or {}).get("name") in targets
            ):
                told = f"a rule of nftables in chain {chain} of table {rule['table']}"
                yield from _sent(scope, kind, value or {}, told)
            for target in _onward(chains, kind, value):
                yield from _follow(chains, target, scope, targets, seen)


def _onward(chains: _Chains, kind: str, value: Any) -> Iterable[str]:
    """The chains that an expression may go on to; with a named map it may be any."""
    if kind in ("jump", "goto"):
        return [value["target"]]
    if kind == "vmap":
        return _verdicts(value["data"]) if isinstance(value["data"], dict) else list(chains)
    return []


def _verdicts(data: Mapping[str, Any]) -> Iterator[str]:
    for _key, verdict in data.get("set", ()):
        yield from (value["target"] for kind, value in verdict.items() if kind in ("jump", "goto"))


def _narrow(scope: Scope, left: Mapping[str, Any], right: Any) -> Scope:
    payload, key = left.get("payload") or {}, (left.get("meta") or {}).get("key")
    if "tunnel" in payload:  # of the packet in the packet
        payload = {}
    protocol, name = payload.get("protocol"), payload.get("field")
    if name == "dport":
        protos = (protocol,) if protocol in PROTOS else scope.protos
        return Scope(scope.families, protos, _ranges(right) or ALL_PORTS).inside(scope)
    if key == "l4proto" or (protocol, name) in _PROTOCOL:
        return replace(scope, protos=_named(scope.protos, right, _PROTOS))
    if key in ("nfproto", "protocol"):
        return replace(scope, families=_named(scope.families, right, _MET))
    if key in ("iifname", "iif") and isinstance(right, str) and not right.startswith("@"):
        return replace(scope, interface=right)
    if name == "daddr" and protocol in FAMILIES:
        families = tuple(one for one in scope.families if one == FAMILIES[protocol])
        prefix = right.get("prefix") if isinstance(right, dict) else None
        address = f"{prefix['addr']}/{prefix['len']}" if prefix else right if isinstance(right, str) else ""
        return replace(scope, families=families, address="" if address.startswith("@") else address)
    return scope


def _named(among: tuple[str, ...], right: Any, names: Mapping[Any, str]) -> tuple[str, ...]:
    """Those that the right side of a match names; all of them where it does not tell each by name or number."""
    told = right["set"] if isinstance(right, dict) and "set" in right else [right]
    if not told or not all(isinstance(one, int | str) and not str(one).startswith("@") for one in told):
        return among
    named = {names.get(one, one) for one in told}
    return tuple(one for one in among if one in named)


def _ranges(right: Any) -> Ranges:
    """Ports as nft tells them: 80, {"range": [80, 90]}, {"set": […]}; empty when they are not told."""
    if isinstance(right, int):
        return ((right, right),)
    if isinstance(right, dict) and "range" in right:
        return ((right["range"][0], right["range"][1]),)
    parts: Iterable[Any] = right["set"] if isinstance(right, dict) and "set" in right else ()
    found = [_ranges(part) for part in parts]
    return tuple(one for part in found for one in part) if all(found) else ()


def _sent(scope: Scope, kind: str, value: Mapping[str, Any], told: str) -> Iterator[Forward]:
    address, family = value.get("addr") or "", FAMILIES.get(value.get("family", ""))
    if family and kind != "redirect":
        scope = replace(scope, families=tuple(one for one in scope.families if one == family))
    if isinstance(address, dict):  # by a map, whose key tells the protocol, and the port when its elements are there
        route, address = address.get("map") or {}, ""
        keys = [key for key, _ in route["data"]["set"]] if isinstance(route.get("data"), dict) else []
        scope = _narrow(scope, route.get("key") or {}, {"set": keys})
    port = value.get("port", "") if kind != "redirect" else ""
    to_port = str(port) if isinstance(port, int) else ""
    yield from (Forward(endpoint, told, str(address), to_port) for endpoint in scope.endpoints())
