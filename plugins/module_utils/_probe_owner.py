# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which processes of this host listen on a port, as /proc tells (proc(5)): the old release may still own it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


def owners(address: str, port: int) -> list[dict[str, str]]:
    """The processes that a connection to *address* reaches: {"pid": …, "cwd": …, "exe": …}.

    Empty when there is none, or when it belongs to another user and this one is not root.
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(_tables(), address, port)}
    found = []
    for folder in _PROC.glob("[0-9]*") if wanted else ():
        try:
            if any(str(one.readlink()) in wanted for one in (folder / "fd").iterdir()):
                links = {name: str((folder / name).readlink()) for name in ("cwd", "exe")}
                found.append({"pid": folder.name, **links})
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


def _tables() -> dict[int, str]:
    """The tables of TCP sockets by IP version."""
    paths = {4: _PROC / "net" / "tcp", 6: _PROC / "net" / "tcp6"}
    return {version: path.read_text() for version, path in paths.items() if path.exists()}


def _inodes(tables: Mapping[int, str], address: str, port: int) -> set[str]:
    """The sockets that listen for *address*, else those that listen for all addresses."""
    goal = _plain(ipaddress.ip_address(address.partition("%")[0]))
    exact: set[str] = set()
    every: set[str] = set()
    for table in tables.values():
        for row in table.splitlines()[1:]:
            cells = row.split()
            host, _, number = cells[1].partition(":")
            if cells[3] != _LISTEN or int(number, 16) != port:
                continue
            bound = _address(host)
            if bound.is_unspecified:
                every.add(cells[9])
            elif _plain(bound) == goal:
                exact.add(cells[9])
    return exact or every


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Groups of 4 bytes, each in the order of the machine's bytes."""
    data = b"".join(int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    return ipaddress.ip_address(data)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
