# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The commands that lead from the rules that UFW has to those of a list. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import ANYWHERE, Rule


def plan(current: Sequence[Rule], ssh: Sequence[Rule], rest: Sequence[Rule]) -> list[list[str]]:
    """The commands that make our rules the wanted ones. Those of others stay, also where one of ours is the same.

    What opens SSH comes first, before all others, and what is closed comes last. Raises StateError.
    """
    foreign = [one for one in current if not one.ours]
    for wanted in (*ssh, *rest):
        for one in foreign:
            if one.target == wanted.target and one.action != wanted.action:
                raise StateError(
                    f"The list of rules has {str(wanted)!r}, and UFW has {str(one)!r} from somebody else.",
                    fix=f"Take that out, with: {' '.join(one.command('delete'))}",
                )
    ssh, rest = ([one for one in rules if one not in foreign] for rules in (ssh, rest))
    told = {one: one.comment for one in current if one.ours}
    mine = [one for one in told if one not in ssh]
    kept = _kept(mine, rest)
    first = [one.command("prepend") for one in reversed(ssh) if one not in told]
    first += [one.command() for one in ssh if told.get(one, one.comment) != one.comment]
    stale = [one.command("delete") for one in mine if one not in kept]
    added = [one.command() for one in rest if one not in kept or told[one] != one.comment]
    # Where the order counts, a rule that moves has to go before it can come back.
    moved = any(one in rest for one in mine if one not in kept)
    return [*first, *stale, *added] if moved else [*first, *added, *stale]


def outcome(current: Sequence[Rule], ssh: Sequence[Rule], rest: Sequence[Rule]) -> list[Rule]:
    """The rules that are in force after the plan. Their order is right between those of SSH and those of others."""
    stay = [one for one in current if not one.ours or one in ssh or one in rest]
    new = [one for one in rest if one not in current]
    # UFW keeps a file for each family.
    return sorted([one for one in ssh if one not in current] + stay + new, key=lambda one: one.family)


def _kept(mine: Sequence[Rule], wanted: Sequence[Rule]) -> set[Rule]:
    """Those of ours that stay where they are."""
    if all(one.action == "allow" for one in (*mine, *wanted)):
        return set(mine) & set(wanted)
    kept = set()
    for family in ANYWHERE:
        pairs = zip(*([one for one in rules if one.family == family] for rules in (mine, wanted)), strict=False)
        kept |= {one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs)}
    return kept
