#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a list of rules what UFW lets in, published ports of containers included."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_rules
short_description: Make a list of rules what a host lets in, with UFW
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Denies what comes in and is not in O(rules), for IPv4 and IPv6, and allows what goes out.
  - The ports of SSH are opened first, before anything is closed. These are the one that the connection of the task
    came to, those that sshd is configured for (C(sshd -T)), and O(ssh_ports). They are open for everybody, unless an
    entry of O(rules) names such a port alone, which then says for whom. A list that would not let this connection in
    again is refused, and nothing is changed.
  - Rules that the module has made have a comment that begins with C(groundwork). Those that are no longer listed go.
    Rules of others stay; where one says the opposite of an entry, nothing is changed.
  - Ports that containers publish obey the list, too. It compares the port that the client asked for, and not the one
    inside the container. What is sent from outside to the address of a container itself is dropped, and so is what
    comes for 127.0.0.0/8 on another interface than C(lo). The rules for it are in the chain C(DOCKER-USER) and in the
    table C(mangle), of both families. UFW makes them by C(/etc/ufw/after.init) whenever it starts, so that a restart of
    UFW, of Docker or of the host changes nothing; Docker may come later. Containers reach each other and the outside as
    before.
  - Connections that exist stay.
requirements:
  - C(ufw) on the managed host.
  - Root.
attributes:
  check_mode:
    support: full
    description: Tells what it would do, also where UFW is not installed yet.
  diff_mode:
    support: full
    description: Shows settings and rules of UFW, and the files that change.
  idempotent:
    support: full
    description: Changes nothing when the rules are there and in force.
options:
  enabled:
    description:
      - V(false) takes away what the module has made, and switches UFW off if there was something. Rules of others stay
        in the files of UFW.
    type: bool
    default: true
  rules:
    description: What is let in, in the order in which it is compared. The first that fits decides.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description:
          - A port such as V(443), or the first and the last one of a range, such as V(8000-8010). Without one, the
            entry is for everything that comes from O(rules[].from) or on O(rules[].interface).
        type: str
      proto:
        description: The protocol.
        type: str
        choices: [tcp, udp, any]
        default: tcp
      from:
        description: Addresses and networks from which it may come; all when there are none.
        type: list
        elements: str
        default: []
      interface:
        description: The interface on which it has to come in.
        type: str
      limit:
        description: Refuse who opens six connections within 30 seconds.
        type: bool
        default: false
      deny:
        description: Drop it, before a later entry lets it in.
        type: bool
        default: false
      comment:
        description: What it is for. C(ufw status) shows it.
        type: str
        default: ""
  ssh_ports:
    description: More ports of SSH, such as one that sshd gets later in the same run.
    type: list
    elements: int
    default: []
  docker_trusted:
    description:
      - Networks that may reach every published port, and containers at their own addresses. Private networks are not
        trusted by themselves.
    type: list
    elements: str
    default: []
  docker_interfaces:
    description:
      - The bridges of Docker, with C(+) at the end for all whose names begin so. With V(br-+), a bridge such as
        C(br-lan), whose name is not of the kind that Docker makes up, is outside all the same.
    type: list
    elements: str
    default: [docker0, docker_gwbridge, br-+]
"""

EXAMPLES = r"""
- name: The web for everybody, the database for one network
  groundwork.backend.ufw_rules:
    rules:
      - {port: 80}
      - {port: 443, proto: any, comment: HTTPS and HTTP/3}
      - {port: 5432, from: [10.20.0.0/24], comment: reports}
      - {port: 8000-8010, interface: wg0}

- name: SSH for the office only
  groundwork.backend.ufw_rules:
    rules:
      - {port: 22, from: [192.0.2.0/24, "2001:db8::/48"]}
  register: firewall

- name: Show what was done
  ansible.builtin.debug:
    var: firewall.steps
"""

RETURN = r"""
steps:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample: ["ufw allow in proto tcp from 0.0.0.0/0 to any port 80 comment groundwork"]
rules:
  description: What UFW lets in or drops afterwards, rules of others included.
  returned: success
  type: list
  elements: dict
  contains:
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    action:
      description: V(allow), V(limit), V(deny) or V(reject).
      type: str
    proto:
      description: V(tcp), V(udp) or V(any).
      type: str
    port:
      description: The port, the range with a colon, or V(any).
      type: str
    from:
      description: The address or network.
      type: str
    interface:
      description: The only interface; empty for all.
      type: str
    ours:
      description: Whether this module has made it.
      type: bool
    comment:
      description: The comment.
      type: str
ssh_ports:
  description: The ports that were taken for those of SSH.
  returned: success
  type: list
  elements: int
  sample: [22]
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import (
    ANYWHERE,
    Rule,
    read_entries,
    read_networks,
    with_ssh,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_docker import read_bridges, rules_text
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_host import (
    Firewall,
    diff,
    families,
    look,
    switch_off,
    switch_on,
    wanted_files,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_plan import outcome, plan
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_ssh import (
    find_session,
    known_interfaces,
    require_way_back,
    sshd_ports,
)


def execute(context: Context) -> dict[str, Any]:
    """Read the list, look at the host, and make the one the other."""
    params, found = context.params, look()
    session = find_session()
    ports = {*params["ssh_ports"], *sshd_ports(), *([session.port] if session else [])}
    if not params["enabled"]:
        after = [one for one in found.rules if not one.ours] if found.managed else found.rules
        kept = {"enabled": found.enabled and not found.managed, "rules": after, "files": {}}
        steps = switch_off(found, check=context.check_mode)
        return _result(found, kept, steps, sorted(ports))
    interfaces = known_interfaces()
    rules = read_entries(params["rules"], interfaces)
    if bad := [port for port in ports if not 0 < port < 1 << 16]:
        raise InputError(f"ssh_ports has {bad[0]}.", fix="Give ports from 1 to 65535.")
    there = families()
    ssh, rest = ([one for one in part if one.family in there] for part in with_ssh(rules, ports))
    way = plan(found.rules, ssh, rest)
    after = outcome(found.rules, way)
    require_way_back(session, after)
    other = read_bridges(params["docker_interfaces"], interfaces)
    trusted = read_networks("docker_trusted", params["docker_trusted"])
    texts = {family: rules_text(rules, family, trusted, params["docker_interfaces"], other) for family in ANYWHERE}
    files = wanted_files(found, texts)
    steps = switch_on(found, way, files, check=context.check_mode)
    return _result(found, {"enabled": True, "rules": after, "files": files}, steps, sorted(ports))


def _result(found: Firewall, after: dict[str, Any], steps: list[str], ports: list[int]) -> dict[str, Any]:
    told = [_told(one) for one in after["rules"]]
    return {
        "changed": bool(steps),
        "steps": steps,
        "rules": told,
        "ssh_ports": ports,
        "diff": diff(found, after) if steps else [],
    }


def _told(rule: Rule) -> dict[str, Any]:
    names = {"family": rule.family, "action": rule.action, "proto": rule.proto, "port": rule.ports}
    return {**names, "from": rule.source, "interface": rule.interface, "ours": rule.ours, "comment": rule.comment}


def main() -> None:
    """Entry point."""
    entry = {
        "port": {"type": "str"},
        "proto": {"type": "str", "choices": ["tcp", "udp", "any"], "default": "tcp"},
        "from": {"type": "list", "elements": "str", "default": []},
        "interface": {"type": "str"},
        "limit": {"type": "bool", "default": False},
        "deny": {"type": "bool", "default": False},
        "comment": {"type": "str", "default": ""},
    }
    bridges = ["docker0", "docker_gwbridge", "br-+"]
    run_module(
        execute,
        argument_spec={
            "enabled": {"type": "bool", "default": True},
            "rules": {"type": "list", "elements": "dict", "default": [], "options": entry},
            "ssh_ports": {"type": "list", "elements": "int", "default": []},
            "docker_trusted": {"type": "list", "elements": "str", "default": []},
            "docker_interfaces": {"type": "list", "elements": "str", "default": bridges},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
