# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What playbooks derive for a firewall: the addresses of hosts, and what may answer beside the list of rules. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Each host has bridges of Docker with the same addresses, which say nothing of where a packet is from.
_INSIDE = re.compile(r"lo|docker.*|veth.*|br-[0-9a-f]{12}")
# What a bare Debian answers on: DHCP, and systemd-resolved's names of the same link.
BASE = (
    {"port": "68", "proto": "udp", "comment": "DHCP client"},
    {"port": "546", "proto": "udp", "comment": "DHCPv6 client"},
    {"port": "5353", "proto": "udp", "comment": "mDNS of systemd-resolved"},
    {"port": "5355", "proto": "any", "comment": "LLMNR of systemd-resolved"},
)


def own_addresses(facts: Mapping[str, Any]) -> list[str]:
    """The addresses of a host by its facts, IPv4 and IPv6, that other hosts see it come from."""
    found = []
    for name in facts.get("interfaces", ()):
        told = facts.get(re.sub(r"[-:]", "_", name), {})
        if _INSIDE.fullmatch(name) or not isinstance(told, Mapping):
            continue
        four = [told["ipv4"], *told.get("ipv4_secondaries", ())] if told.get("ipv4") else []
        found += [one["address"] for one in [*four, *told.get("ipv6", ())]]
    return [one for one in found if not ipaddress.ip_address(one).is_link_local]


def may_answer(rules: Iterable[Mapping[str, Any]], ssh_ports: Sequence[int]) -> list[dict[str, Any]]:
    """The list of port_exposure that goes with a list of rules: what they let in, SSH, and what Debian itself needs."""
    names = ("port", "proto", "from", "comment")
    opened = [
        {name: rule[name] for name in names if name in rule}
        for rule in rules
        if "port" in rule and not rule.get("deny")
    ]
    ssh = [{"port": str(port), "comment": "SSH"} for port in ssh_ports]
    return [*opened, *ssh, *map(dict, BASE)]
