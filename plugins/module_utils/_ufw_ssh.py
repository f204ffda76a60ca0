# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The connection that a task came by, and the ports of sshd, so that a firewall never closes them."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run
from ansible_collections.groundwork.backend.plugins.module_utils._ssh_connection import find_ssh_connection
from ansible_collections.groundwork.backend.plugins.module_utils._sshd import parse, ports
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import Rule


@dataclass(frozen=True)
class Session:
    """Who came, to which port, and on which interface of this host (empty when that is not known)."""

    client: str
    port: int
    interface: str


def find_session() -> Session | None:
    """The SSH connection of this process."""
    found = find_ssh_connection()
    return Session(_plain(found.client), found.port, _interface(_plain(found.address))) if found else None


def _plain(address: str) -> str:
    """Without its zone, and as IPv4 when it is one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _interface(address: str) -> str:
    try:
        links = json.loads(run(["ip", "-j", "address"]).stdout)
    except DependencyError:
        return ""
    names = [one["ifname"] for one in links for info in one.get("addr_info", ()) if info.get("local") == address]
    return names[0] if names else ""


def sshd_ports() -> set[int]:
    """The ports that sshd is configured for, also when it has not been restarted since. None without sshd."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not program:
        return set()
    done = run([program, "-T"], check=False)
    return set(ports(parse(done.stdout))) if done.rc == 0 else set()


def require_way_back(session: Session | None, rules: Sequence[Rule]) -> None:
    """Raises InputError when these rules would not let the session's next connection in."""
    if session is None:
        return
    match = next((one for one in rules if _meets(session, one)), None)
    if match is not None and match.action in ("allow", "limit"):
        return
    why = f"the first rule for it is {str(match)!r}" if match else "no rule is for it"
    raise InputError(
        f"The list of rules would close SSH for this connection from {session.client} to port {session.port}: {why}.",
        fix="Add this address, or a network that has it, to from of the rule for that port; nothing was changed.",
    )


def _meets(session: Session, rule: Rule) -> bool:
    client = ipaddress.ip_address(session.client)
    if rule.other and rule.action in ("allow", "limit"):
        return False  # it may be for something else
    return (
        rule.family == f"ipv{client.version}"
        and rule.proto in ("tcp", "any")
        and rule.covers(session.port)
        and client in ipaddress.ip_network(rule.source)
        and rule.interface in ("", session.interface)
    )


def known_interfaces() -> Iterable[str]:
    """The interfaces of this host."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if path.is_dir())
