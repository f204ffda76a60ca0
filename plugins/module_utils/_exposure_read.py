# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The rules of a host from what the programs print that know them, and which rules none of them told. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.groundwork.backend.plugins.module_utils._errors import last_lines
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import Endpoint
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_loopback import (
    drops_of_iptables,
    drops_of_nft,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_nft import FAMILIES, from_nft, read_nft
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import (
    TARGETS,
    Forward,
    from_iptables,
)

PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
NFT = "nft"
# Somebody put rules of nftables between those of iptables, which then tells nothing of the table.
_MIXED = re.compile(r"Table `(\w+)' is incompatible")
_OF_NFT = "(nf_tables)"  # in the first line that iptables-save prints where it is of this kind


@dataclass(frozen=True)
class Kernel:
    """What the kernel has, whoever put it there: programs in containers, and libraries, make rules, too.

    nft: it may have rules of nftables. legacy: the families, "ip" and "ip6", for which it has, or may have, tables of
    the old iptables that send ports elsewhere.
    """

    nft: bool = False
    legacy: Collection[str] = ()


@dataclass
class Rules:
    """What sends ports elsewhere, what keeps packets for 127.0.0.1 out, and who did not tell, each with the remedy."""

    forwards: list[Forward] = field(default_factory=list)
    drops: list[Endpoint] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What is missing and what to do; empty when nothing is."""
        if not self.unread:
            return ""
        told = self.unread[0][0] + (f" (and {len(self.unread) - 1} more programs)" if self.unread[1:] else "")
        remedies = " ".join(dict.fromkeys(remedy for _, remedy in self.unread))
        return f"Rules that forward ports, as Docker's do, are not told by {told}. {remedies}"


def kinds_of(program: str) -> tuple[str, str, str]:
    """The programs for the rules of iptables-nft, of the old iptables, and the one that is either.

    Rules of both kinds can be in force at once, whichever of them the plain name stands for.
    """
    return f"{program}-nft-save", f"{program}-legacy-save", f"{program}-save"


def read_rules(told: Mapping[str, Completed], kernel: Kernel) -> Rules:
    """From what each program printed that is installed.

    The rules of iptables-nft are told by nft as well, with less, which does where the program for them is missing.
    """
    rules = Rules()
    for name, done in told.items():
        if done.rc != 0:
            why = last_lines(done.stderr, 1) or f"it ended with {done.rc}"
            rules.unread.append((f"{name}: {why}", "Run with become."))
    by_nft: list[tuple[str, str]] = []
    for family, program in PROGRAMS.items():
        printed = [told[name] for name in kinds_of(program) if name in told]
        for one in printed:
            rules.forwards += from_iptables(one.stdout, FAMILIES[family])
            rules.drops += drops_of_iptables(one.stdout) if family == "ip" else []
        by_nft += [(family, table) for table in _untold(program, told, printed)]
        if family in kernel.legacy and not _has_legacy(program, told):
            missing = f"{kinds_of(program)[1]}: it is not installed, and the kernel may have rules that only it tells"
            rules.unread.append((missing, "Install iptables with its legacy programs."))
    if NFT in told:
        items = read_nft(told[NFT].stdout)
        rules.forwards += from_nft(items, by_nft)
        rules.drops += drops_of_nft(items)
    elif kernel.nft or any(_MIXED.search(one.stdout + one.stderr) for one in told.values()):
        missing = f"{NFT}: it is not installed, and the kernel may have rules that only it tells"
        rules.unread.append((missing, "Install nftables."))
    return rules


def _untold(program: str, told: Mapping[str, Completed], printed: Sequence[Completed]) -> set[str]:
    """The tables of iptables-nft that none of these programs told of."""
    of_nft, _, plain = kinds_of(program)
    if of_nft not in told and not (plain in told and _OF_NFT in told[plain].stdout):
        return set(TARGETS)
    return {table for one in printed for table in _MIXED.findall(one.stdout + one.stderr)}


def _has_legacy(program: str, told: Mapping[str, Completed]) -> bool:
    """Whether somebody told of the old tables; the plain program prints each of them, if it is of their kind."""
    _, legacy, plain = kinds_of(program)
    return legacy in told or (plain in told and bool(told[plain].stdout) and _OF_NFT not in told[plain].stdout)
