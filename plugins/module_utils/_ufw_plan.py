# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The steps that lead from the rules that UFW has to those of a list. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import ANYWHERE, Rule


@dataclass(frozen=True)
class Step:
    """One call of UFW. before is "prepend", "delete", or empty: then one with the same target is replaced in place."""

    before: str
    rule: Rule

    @property
    def command(self) -> list[str]:
        """The argv."""
        return self.rule.command(*([self.before] if self.before else []))


def plan(current: Sequence[Rule], ssh: Sequence[Rule], rest: Sequence[Rule]) -> list[Step]:
    """The steps that make our rules the wanted ones. Those of others stay, also where one of ours is the same.

    What opens SSH comes first, before all others, and what is closed comes last. Raises StateError.
    """
    foreign = {one.target: one for one in current if not one.ours}
    for wanted in (*ssh, *rest):
        other = foreign.get(wanted.target, wanted)
        if other.action != wanted.action:
            raise StateError(
                f"The list of rules has {str(wanted)!r}, and UFW has {str(other)!r} from somebody else.",
                fix=f"Take that out, with: {' '.join(other.command('delete'))}",
            )
    ssh, rest = ([one for one in rules if one.target not in foreign] for rules in (ssh, rest))
    first = [step for family in ANYWHERE for step in _first(current, ssh, rest, family)]
    told = {one.target: one for one in current if one.ours}
    opening = {one.target for one in ssh}
    mine = [one for target, one in told.items() if target not in opening]
    kept = _kept(mine, rest)
    stale = [Step("delete", one) for one in mine if one.target not in kept]
    added = [Step("", one) for one in rest if one.target not in kept or _differs(told[one.target], one)]
    # Where the order counts, a rule that moves has to go before it can come back.
    again = {one.target for one in rest} - kept
    moved = any(one.target in again for one in mine)
    return [*first, *stale, *added] if moved else [*first, *added, *stale]


def outcome(current: Sequence[Rule], steps: Sequence[Step]) -> list[Rule]:
    """The rules that are in force after these steps, as UFW does them."""
    rules = list(current)
    for step in steps:
        place = next((number for number, one in enumerate(rules) if one.target == step.rule.target), None)
        if step.before == "delete":
            rules = [one for one in rules if one.target != step.rule.target]
        elif place is not None:
            rules[place] = step.rule
        else:
            rules.insert(0 if step.before == "prepend" else len(rules), step.rule)
    # UFW keeps a file for each family.
    return sorted(rules, key=lambda one: one.family)


def _differs(one: Rule, other: Rule) -> bool:
    return one != other or one.comment != other.comment


def _first(current: Sequence[Rule], ssh: Sequence[Rule], rest: Sequence[Rule], family: str) -> Iterator[Step]:
    """What makes the rules of SSH the first ones of ours, in their order where it counts."""
    wanted = [one for one in ssh if one.family == family]
    listed = {one.target for one in (*wanted, *rest)}
    told = {one.target: one for one in current if one.ours}
    there = [one.target for one in current if one.ours and one.family == family and one.target in listed]
    if len({one.action for one in wanted}) == 1:  # those that are the first already can stay
        head = list(takewhile({one.target for one in wanted}.__contains__, there))
        wanted.sort(key=lambda one: head.index(one.target) if one.target in head else -1)
    targets = [one.target for one in wanted]
    new = next(count for count in range(len(wanted) + 1) if there[: len(wanted) - count] == targets[count:])
    for one in reversed(wanted[:new]):
        if one.target not in told:
            yield Step("prepend", one)
            continue
        # UFW does not move a rule, and takes "prepend" of one with the same target for done. Another one keeps the port
        # open in between, unless there is one of the kind already.
        stand_in = replace(one, proto="any")
        free = all(other.target != stand_in.target for other in current)
        yield from [Step("prepend", stand_in)] if free else []
        yield from (Step("delete", told[one.target]), Step("prepend", one))
        yield from [Step("delete", stand_in)] if free else []
    yield from (Step("", one) for one in wanted[new:] if _differs(told[one.target], one))


def _kept(mine: Sequence[Rule], wanted: Sequence[Rule]) -> set[tuple[str, ...]]:
    """The targets of ours that stay where they are."""
    if all(one.action == "allow" for one in (*mine, *wanted)):
        return {one.target for one in mine} & {one.target for one in wanted}
    kept = set()
    for family in ANYWHERE:
        pairs = zip(*([one.target for one in rules if one.family == family] for rules in (mine, wanted)), strict=False)
        kept |= {one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs)}
    return kept
