# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Reads what this host answers on from outside. Changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    GroundworkError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import SS, Exposed, parse_sockets
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_nft import from_nft
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_owner import (
    Container,
    Known,
    Process,
    assemble,
    read_container,
    read_socket_units,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import Forward, from_iptables
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_engine import inspect_all

_PROC = Path("/proc")
_SECONDS = 60.0
# Who is not root often has no sbin on PATH: a program that is there must not pass for one that is not.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}
# Somebody put rules of nftables between those of iptables, which then tells nothing of the table.
_MIXED = re.compile(r"Table `nat' is incompatible")
_NFT = ("nft", "--json", "--terse", "list", "ruleset")


@dataclass(frozen=True)
class Survey:
    """What answers from outside, and sentences about what could not be seen.

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
    forwards, unread = _forwards()
    inodes = {one.inode for one in listeners if any(endpoint.outside for endpoint in one.endpoints)}
    holders, all_seen = _holders(inodes)
    units = _socket_units() if any(process.pid == 1 for found in holders.values() for process in found) else {}
    containers, silent = _containers()
    exposed = assemble(listeners, forwards, Known(containers, holders, units, all_seen))
    unseen = list(silent)
    if unread:
        told = unread[0] if len(unread) == 1 else f"{unread[0]} (and {len(unread) - 1} more programs)"
        unseen.insert(0, f"Rules that forward ports, as Docker's do, are not told by {told}. Run with become.")
    hidden = [one for one in exposed if "socket" in one.via and not (one.processes or one.containers)]
    if hidden and not all_seen:
        ports = sorted({f"{one.endpoint.proto} {one.endpoint.first}" for one in hidden})
        unseen.append(f"The processes behind {', '.join(ports)} are not this user's: run with become to see them.")
    return Survey(exposed, unseen, blind=bool(unread))


def _forwards() -> tuple[list[Forward], list[str]]:
    found: list[Forward] = []
    unread: list[str] = []
    mixed = False
    for family, program in _PROGRAMS.items():
        # Rules of both kinds can be in force at once, whichever of them the plain name stands for. No table is named:
        # the old kind would make it.
        told = [_rules((f"{program}-{kind}-save",), unread) for kind in ("nft", "legacy")]
        if told == [None, None]:
            told = [_rules((f"{program}-save",), unread)]
        found += [forward for one in told if one for forward in from_iptables(one.stdout, family)]
        mixed = mixed or any(one is not None and bool(_MIXED.search(one.stdout + one.stderr)) for one in told)
    by_nft = _rules(_NFT, unread)
    if by_nft:
        found += from_nft(by_nft.stdout, iptables=mixed)
    elif mixed:
        unread.append("iptables-nft-save: rules of nftables are in its table nat, and there is no nft to tell them")
    return found, unread


def _rules(argv: tuple[str, ...], unread: list[str]) -> Completed | None:
    """What a program prints of the rules; None when it is not installed: then nobody made rules with it."""
    try:
        done = run(argv, env={"PATH": _PATH}, timeout=_SECONDS, check=False)
    except DependencyError:
        return None
    if done.rc != 0:
        unread.append(f"{argv[0]}: {last_lines(done.stderr, 1) or f'it ended with {done.rc}'}")
    return done


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
