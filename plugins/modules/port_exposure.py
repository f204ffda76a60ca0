#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare what a host answers on from outside with what may answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_exposure
short_description: Compare what a host answers on from outside with what is allowed
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Tells every TCP and UDP port on which the host answers on another address than loopback, IPv4 and IPv6, with the
    process, systemd unit or container behind it, and fails when one is not in O(allowed).
  - Ports are those of sockets, and those that rules of iptables and nftables send elsewhere, as Docker publishes ports.
    So a published port is found with Docker's proxy and without it, and also for containers on the host's network.
  - It tells what would answer B(if no packet filter were in the way), and does not read the rules that drop packets.
    A port that a firewall closes is told, too, because it is open once the firewall is stopped, or passed by, as
    Docker's published ports pass by UFW. Bind what nobody outside needs to 127.0.0.1; the firewall is the second door.
  - A UDP socket counts when it takes packets from anybody, as that of a DHCP client does on port 68 or 546.
  - What one address of the host answers on counts even if it is one of a bridge of Docker, because neighbours in the
    same network can send packets for it here.
  - A port on 127.0.0.1 is not told. Neighbours in the same network reach it all the same, by frames that they send for
    127.0.0.1, where a rule sends it on, as an engine of Docker before 28 makes one, or where the kernel's setting
    C(route_localnet) is 1, unless such packets are dropped before. RV(unseen) names these ports, and the task does not
    fail.
  - Not seen are other protocols than TCP and UDP, sockets in other network namespaces that no rule leads to, IPVS, what
    programs of BPF send elsewhere, and a container's own address, to which a neighbour may send packets by way of this
    host.
requirements:
  - C(ss) of the package iproute2 on the managed host.
  - C(nft) of the package nftables, if the kernel has nftables, as it does with today's iptables; and the programs of
    the old iptables, if the kernel has tables of that kind.
  - Root, to read the rules and to name the processes of every user.
attributes:
  check_mode:
    support: full
    description: Does the same, as nothing is changed at all.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Nothing is changed.
options:
  allowed:
    description: What may answer.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: A port such as V(443), or the first and the last one of a range, such as V(8000-8010).
        type: str
        required: true
      proto:
        description: The protocol.
        type: str
        choices: [tcp, udp, any]
        default: tcp
      from:
        description:
          - The networks that the port is meant for. It is not compared with anything, as a socket answers whoever gets
            through the packet filter; it keeps the list in one form with a firewall's.
        type: list
        elements: str
        default: []
      comment:
        description: What the port is for.
        type: str
        default: ""
  fail:
    description:
      - Whether to fail when something answers that is not in O(allowed), or when not all of the rules can be read, so
        that such a port may have stayed unseen.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Nothing but SSH and the proxy answers from outside
  groundwork.backend.port_exposure:
    allowed:
      - {port: 22, comment: SSH}
      - {port: 80}
      - {port: 443, proto: any, comment: HTTPS and HTTP/3}

- name: See what a host answers on
  groundwork.backend.port_exposure:
    fail: false
  register: ports

- name: Show it
  ansible.builtin.debug:
    msg: "{{ item.proto }} {{ item.address }} {{ item.port }}: {{ item.owner }}"
  loop: "{{ ports.exposed }}"
"""

RETURN = r"""
exposed:
  description: Everything that answers from outside, by protocol and port. Also returned on failure.
  returned: always
  type: list
  elements: dict
  contains:
    proto:
      description: V(tcp) or V(udp).
      type: str
    family:
      description: V(ipv4) or V(ipv6). A socket that takes both is told twice, whichever addresses the host has now.
      type: str
    address:
      description: The address of the host, V(0.0.0.0) or V(::) for all of them; for a rule it may be a network.
      type: str
    interface:
      description: The only interface on which it answers; empty for all.
      type: str
    port:
      description: The port.
      type: int
    last_port:
      description: The last port, for a rule that is for a range; else the same as RV(exposed[].port).
      type: int
    owner:
      description: Who answers, in words.
      type: str
    via:
      description: V(socket), V(rule), or both.
      type: list
      elements: str
    containers:
      description: The containers, each with C(id), C(name), and C(project) and C(service) of Compose.
      type: list
      elements: dict
    processes:
      description: The processes, one of each program and unit, with C(pid), C(name) and C(unit); not Docker's proxy.
      type: list
      elements: dict
  sample:
    - proto: tcp
      family: ipv4
      address: 0.0.0.0
      interface: ""
      port: 5432
      last_port: 5432
      owner: container shop-db-1 (Compose project shop, service db)
      via: [socket, rule]
      containers: [{id: 3f9c0d1e2a4b, name: shop-db-1, project: shop, service: db}]
      processes: []
unexpected:
  description: Those of RV(exposed) that O(allowed) does not have. Also returned on failure.
  returned: always
  type: list
  elements: dict
missing:
  description: Entries of O(allowed) on whose ports nothing answers. It never fails the task.
  returned: always
  type: list
  elements: dict
unseen:
  description:
    - Sentences about what could not be seen, such as the owners of sockets without root, and about ports on 127.0.0.1
      that neighbours may reach.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import compare, difference, read_allowed
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_host import survey
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module


def execute(context: Context) -> dict[str, Any]:
    """Look, compare, and fail when asked to."""
    allowed = read_allowed(context.params["allowed"])
    found = survey()
    compared = compare(found.exposed, allowed)
    result = {
        "changed": False,
        "exposed": [one.told() for one in found.exposed],
        "unexpected": [one.told() for one in compared.unexpected],
        "missing": [dict(one.entry) for one in compared.missing],
        "unseen": found.unseen,
    }
    for sentence in found.unseen:
        context.warn(sentence)
    if context.params["fail"]:
        if compared.unexpected:
            raise difference(compared.unexpected, **result)
        if found.blind:
            raise StateError(
                "Nothing unexpected answers from outside, as far as can be seen, and not all can be.",
                fix=" ".join(found.unseen),
                **result,
            )
    return result


def main() -> None:
    """Entry point."""
    entry = {
        "port": {"type": "str", "required": True},
        "proto": {"type": "str", "choices": ["tcp", "udp", "any"], "default": "tcp"},
        "from": {"type": "list", "elements": "str", "default": []},
        "comment": {"type": "str", "default": ""},
    }
    run_module(
        execute,
        argument_spec={
            "allowed": {"type": "list", "elements": "dict", "default": [], "options": entry},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
