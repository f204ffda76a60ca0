# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Ports that rules of nftables send elsewhere, as nft tells of them in JSON (libnftables-json(5)). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._exposure import EVERYWHERE
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import (
    ALL_PORTS,
    PROTOS,
    Forward,
    Ranges,
    Scope,
)

_FAMILIES = {"ip": "ipv4", "ip6": "ipv6"}
_Chains = Mapping[str, Sequence[Mapping[str, Any]]]


def from_nft(text: str, *, iptables: bool = False) -> list[Forward]:
    """What `nft --json --terse list ruleset` sends elsewhere on the way in.

    iptables: with the rules of iptables, of whose targets nft tells nothing but the name, and Debian 12's not that.
    Ports in named sets and maps are not told there: such a rule counts for all ports.
    """
    items: list[dict[str, Any]] = json.loads(text or "{}").get("nftables", [])
    chains: list[dict[str, Any]] = [item["chain"] for item in items if "chain" in item]
    found: list[Forward] = []
    for base in chains:
        if base.get("type") == "nat" and base.get("hook") == "prerouting":
            table = (base["family"], base["table"])
            hooked = {one["name"] for one in chains if (one["family"], one["table"]) == table and "hook" in one}
            rules: dict[str, list[dict[str, Any]]] = {}
            for rule in (item["rule"] for item in items if "rule" in item):
                if (rule["family"], rule["table"]) == table and rule["chain"] not in hooked - {base["name"]}:
                    rules.setdefault(rule["chain"], []).append(rule)
            families = (_FAMILIES[base["family"]],) if base["family"] in _FAMILIES else tuple(EVERYWHERE)
            found += _follow(rules, (base["name"],), Scope(families), iptables)
    return found


def _follow(chains: _Chains, path: tuple[str, ...], outer: Scope, iptables: bool) -> Iterator[Forward]:
    for rule in chains.get(path[-1], ()):
        scope = outer
        for expression in rule["expr"]:
            kind, value = next(iter(expression.items()))
            if kind == "match" and value["op"] in ("==", "in"):
                scope = _narrow(scope, value["left"], value["right"])
            elif kind in ("dnat", "redirect") or (
                iptables and expression is rule["expr"][-1] and _is_target(kind, value)
            ):
                told = f"a rule of nftables in chain {path[-1]} of table {rule['table']}"
                yield from _sent(scope, kind, value or {}, told)
            for target in _targets(chains, kind, value):
                if target not in path:
                    yield from _follow(chains, (*path, target), scope, iptables)


def _is_target(kind: str, value: Any) -> bool:
    return kind == "xt" and (value is None or value.get("name") in ("DNAT", "REDIRECT"))


def _targets(chains: _Chains, kind: str, value: Any) -> Iterable[str]:
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
    payload, meta = left.get("payload") or {}, left.get("meta") or {}
    protocol, name = payload.get("protocol"), payload.get("field") or meta.get("key")
    if name == "dport":
        protos = (protocol,) if protocol in PROTOS else scope.protos
        return Scope(scope.families, protos, _ranges(right) or ALL_PORTS).inside(scope)
    if name in ("l4proto", "protocol", "nexthdr"):
        told = right["set"] if isinstance(right, dict) and "set" in right else [right]
        return replace(scope, protos=tuple(one for one in scope.protos if one in told))
    if name == "nfproto":
        return replace(scope, families=tuple(one for one in scope.families if one == right))
    if name in ("iifname", "iif") and isinstance(right, str):
        return replace(scope, interface=right)
    if name == "daddr" and protocol in _FAMILIES:
        families = tuple(one for one in scope.families if one == _FAMILIES[protocol])
        prefix = right.get("prefix") if isinstance(right, dict) else None
        address = f"{prefix['addr']}/{prefix['len']}" if prefix else right if isinstance(right, str) else ""
        return replace(scope, families=families, address="" if address.startswith("@") else address)
    return scope


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
    address, family = value.get("addr") or "", _FAMILIES.get(value.get("family", ""))
    if kind == "dnat" and family:
        scope = replace(scope, families=tuple(one for one in scope.families if one == family))
    if isinstance(address, dict):  # by a map, whose key tells the protocol, and the port when its elements are there
        route, address = address.get("map") or {}, ""
        keys = [key for key, _ in route["data"]["set"]] if isinstance(route.get("data"), dict) else []
        scope = _narrow(scope, route.get("key") or {}, {"set": keys})
    port = value.get("port", "") if kind == "dnat" else ""
    to_port = str(port) if isinstance(port, int) else ""
    yield from (Forward(endpoint, told, str(address), to_port) for endpoint in scope.endpoints())
