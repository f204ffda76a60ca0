# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Reads what this host answers on from outside. Changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    GroundworkError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import SS, Exposed, parse_sockets
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_loopback import near
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_owner import (
    Container,
    Known,
    Process,
    assemble,
    read_container,
    read_socket_units,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_read import (
    NFT,
    PROGRAMS,
    Kernel,
    Rules,
    kinds_of,
    read_rules,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import TARGETS
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_engine import inspect_all

_PROC = Path("/proc")
_SECONDS = 60.0
# Who is not root often has no sbin on PATH: a program that is there must not pass for one that is not.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_NFTABLES = (Path("/sys/module/nf_tables"), Path("/lib/modules", os.uname().release, "modules.builtin"))
_LISTED = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}


@dataclass(frozen=True)
class Survey:
    """What answers from outside, and sentences about what could not be seen or what neighbours alone may reach.

    blind: whether ports themselves may be missing, not only words about who has them.
    """

    exposed: list[Exposed]
    unseen: list[str]
    blind: bool


def survey() -> Survey:
    """Look at sockets, rules, containers and processes of this host.

    Raises DependencyError without ss(8), CommandError when it does not tell.
    """
    listeners = parse_sockets(run(SS, timeout=_SECONDS, asked="list the sockets of this host").stdout)
    rules = _rules()
    inodes = {one.inode for one in listeners if any(endpoint.outside for endpoint in one.endpoints)}
    holders, all_seen = _holders(inodes)
    units = _socket_units() if any(process.pid == 1 for found in holders.values() for process in found) else {}
    containers, silent = _containers()
    exposed = assemble(listeners, rules.forwards, Known(containers, holders, units, all_seen))
    unseen = [sentence for sentence in (rules.sentence, *silent) if sentence]
    hidden = [one for one in exposed if "socket" in one.via and not (one.processes or one.containers)]
    if hidden and not all_seen:
        ports = sorted({f"{one.endpoint.proto} {one.endpoint.first}" for one in hidden})
        unseen.append(f"The processes behind {', '.join(ports)} are not this user's: run with become to see them.")
    unseen += near(listeners, rules.forwards, rules.drops, localnet(_PROC))
    return Survey(exposed, unseen, blind=bool(rules.unread))


def _rules() -> Rules:
    told: dict[str, Completed] = {}
    for program in PROGRAMS.values():
        of_nft, legacy, plain = kinds_of(program)
        # No table is named: the old kind would make it.
        told |= (_ask((of_nft,)) | _ask((legacy,))) or _ask((plain,))
    told |= _ask((NFT, "--json", "--terse", "list", "ruleset"))
    return read_rules(
        told, Kernel(_has_nftables(), [family for family, names in _LISTED.items() if may_forward(names)])
    )


def _ask(argv: tuple[str, ...]) -> dict[str, Completed]:
    """The name of a program and what it prints; nothing when it is not installed."""
    try:
        return {argv[0]: run(argv, env={"PATH": _PATH}, timeout=_SECONDS, check=False)}
    except DependencyError:
        return {}


def _has_nftables() -> bool:
    loaded, built_in = _NFTABLES
    return loaded.exists() or (built_in.exists() and "/nf_tables.ko" in built_in.read_text())


def may_forward(names: Path) -> bool:
    """Whether a file of the kernel has a table of the old iptables that sends ports elsewhere, or cannot be read."""
    try:
        return not TARGETS.keys().isdisjoint(names.read_text().split())
    except FileNotFoundError:
        return False
    except OSError:  # root alone may read it
        return True


def localnet(proc: Path) -> list[str]:
    """The interfaces on which the kernel takes packets for 127.0.0.1 from outside; "all" for every one."""
    found = []
    for switch in proc.glob("sys/net/ipv4/conf/*/route_localnet"):
        with suppress(FileNotFoundError):  # the interface is gone
            if switch.parent.name not in ("lo", "default") and switch.read_text().strip() == "1":
                found.append(switch.parent.name)
    return sorted(found)


def _holders(inodes: Collection[str]) -> tuple[dict[str, list[Process]], bool]:
    """The processes that hold these sockets, and whether every process could be looked at."""
    found: dict[str, list[Process]] = {}
    all_seen = True
    for folder in _PROC.glob("[0-9]*"):
        try:
            mine = set(_sockets(folder)) & set(inodes)
            if mine:
                cgroups = (folder / "cgroup").read_text().splitlines()
                process = Process(int(folder.name), (folder / "comm").read_text().strip(), _own_cgroup(cgroups))
                for inode in mine:
                    found.setdefault(inode, []).append(process)
        except PermissionError:
            all_seen = False
        except OSError:  # it has ended
            continue
    return found, all_seen


def _sockets(folder: Path) -> Iterator[str]:
    for link in (folder / "fd").iterdir():
        try:
            if match := _SOCKET.fullmatch(str(link.readlink())):
                yield match[1]
        except FileNotFoundError:  # closed meanwhile
            continue


def _own_cgroup(lines: list[str]) -> str:
    """The group in systemd's hierarchy, of cgroups(7): the unified one, or where both are mounted name=systemd."""
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    return groups.get("name=systemd") or groups.get("") or ""


def _socket_units() -> dict[tuple[str, str, int], str]:
    argv = ("systemctl", "show", "--type=socket", "--state=active", "--property=Id,Listen", "*")
    try:
        return read_socket_units(run(argv, timeout=_SECONDS).stdout)
    except GroundworkError:  # only a name would come of it
        return {}


def _containers() -> tuple[list[Container], list[str]]:
    """The running containers, and a sentence when Docker is there and does not tell."""
    try:
        return [read_container(one) for one in inspect_all() if one["State"]["Running"]], []
    except DependencyError:
        return [], []
    except GroundworkError as error:
        return [], [f"Containers have no names here: {error}"]
