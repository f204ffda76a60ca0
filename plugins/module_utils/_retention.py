# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which backup sets stay and which go: pure, in UTC, with the reasons.

The rules mean what they mean in restic's forget: every rule looks at all sets that count, newest first, and takes the
newest set of each of the newest N days, ISO weeks, months or years that have one; one set can serve several rules.
As in restic and in borg, a rule that finds fewer periods than it may keep takes the oldest set too, so that a young
history grows from its beginning. ``within`` is measured from the newest set that counts, as in restic.

Only sets that hold count. A set that is damaged, or dated after the clock, is never chosen, pushes no other set out and
always stays; and the newest ``minimum`` sets that count stay whatever the rules say.
"""

from __future__ import annotations

import calendar
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

ALL = -1
_PERIODS: dict[str, tuple[str, Callable[[datetime], object]]] = {
    "last": ("set", lambda moment: moment),
    "daily": ("day", lambda moment: moment.date()),
    "weekly": ("week", lambda moment: moment.isocalendar()[:2]),
    "monthly": ("month", lambda moment: (moment.year, moment.month)),
    "yearly": ("year", lambda moment: moment.year),
}
_WITHIN = re.compile(r"(?:\d{1,6}[ymwdh])+\Z", re.ASCII)
_WITHIN_PART = re.compile(r"(\d+)([ymwdh])", re.ASCII)


def keep_options() -> dict[str, Any]:
    """The option keep; documented in doc_fragments/_backup_keep.py."""
    counts: dict[str, Any] = {rule: {"type": "int", "default": 0} for rule in _PERIODS}
    options = {**counts, "within": {"type": "str"}, "minimum": {"type": "int", "default": 1}}
    return {"argument_spec": {"keep": {"type": "dict", "options": options}}}


@dataclass(frozen=True)
class Keep:
    """How much to keep. counts: rule to number of periods (ALL: each); within: unit (y m w d h) to number."""

    counts: Mapping[str, int]
    within: Mapping[str, int]
    minimum: int = 1

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Keep:
        """Check what the user wrote. Raises InputError."""
        counts = {rule: int(value.get(rule) or 0) for rule in _PERIODS}
        minimum = value.get("minimum")
        keep = cls(counts, _within(str(value.get("within") or "")), 1 if minimum is None else int(minimum))
        for rule, count in counts.items():
            if count < ALL:
                raise InputError(f"keep.{rule} is {count}.", fix="Give a number, 0 for none or -1 for all.")
        if keep.minimum < 1:
            raise InputError(
                f"keep.minimum is {keep.minimum}: without a floor, one wrong clock could remove every backup.",
                fix="Give at least 1.",
            )
        if not any(counts.values()) and not keep.within:
            raise InputError(
                "keep has no rule, so nothing but the newest set would stay.",
                fix="Set one of last, daily, weekly, monthly, yearly or within.",
            )
        return keep

    def start(self, newest: datetime) -> datetime:
        """What is later than this is within the span that ends at newest. A day that a month lacks is its last."""
        months = newest.year * 12 + newest.month - 1 - 12 * self.within.get("y", 0) - self.within.get("m", 0)
        year, month = divmod(months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=UTC)
        day = min(newest.day, calendar.monthrange(year, month + 1)[1])
        try:
            return newest.replace(year=year, month=month + 1, day=day) - timedelta(
                weeks=self.within.get("w", 0), days=self.within.get("d", 0), hours=self.within.get("h", 0)
            )
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class SetState:
    """One set as retention sees it. damage: why it cannot be used; empty when it holds."""

    id: str
    moment: datetime
    damage: str = ""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a set. reasons: such as "daily 3", empty when it goes; explained: one sentence."""

    id: str
    reasons: tuple[str, ...]
    explained: str

    @property
    def stays(self) -> bool:
        """Whether any rule holds it."""
        return bool(self.reasons)


def plan(sets: Iterable[SetState], keep: Keep, now: datetime) -> list[Verdict]:
    """What becomes of each set, newest first."""
    ordered = sorted(sets, key=lambda one: one.moment, reverse=True)
    counted = [one for one in ordered if not one.damage and one.moment <= now]
    holding: dict[str, list[str]] = defaultdict(list)
    against: dict[str, list[str]] = defaultdict(list)
    for rule, count in keep.counts.items():
        for one, number, told in _rule(rule, count, counted):
            (holding if number else against)[one.id].append(told)
    if keep.within and counted:
        text = "".join(f"{number}{unit}" for unit, number in keep.within.items())
        start = keep.start(counted[0].moment)
        for one in counted:
            if one.moment > start:
                holding[one.id].append(f"within {text}")
            else:
                against[one.id].append(f"within: older than {text} before {counted[0].id}")
    for number, one in enumerate(counted[: keep.minimum], 1):
        if not holding[one.id]:
            holding[one.id].append(f"minimum {number}")
    return [_verdict(one, holding[one.id], against[one.id], now) for one in ordered]


def _rule(rule: str, count: int, counted: Sequence[SetState]) -> Iterator[tuple[SetState, int, str]]:
    """What one rule says of each set: its number in the rule and the reason, or 0 and why it does not hold the set."""
    if not count:
        return
    unit, period = _PERIODS[rule]
    taken, head = 0, None
    for one in counted:
        if count != ALL and taken >= count:
            yield one, 0, f"{rule}: {count} newer {unit}{'s' if count > 1 else ''} kept"
        elif head is None or period(one.moment) != period(head.moment):
            taken, head = taken + 1, one
            yield one, taken, f"{rule} {taken}"
        elif one is counted[-1]:
            yield one, taken + 1, f"{rule} {taken + 1} (oldest)"
        else:
            yield one, 0, f"{rule}: {head.id} is the newest of its {unit}"


def _verdict(one: SetState, holding: Sequence[str], against: Sequence[str], now: datetime) -> Verdict:
    if one.damage:
        return Verdict(one.id, ("damaged",), f"{one.id} stays and counts for nothing, it is damaged: {one.damage}")
    if one.moment > now:
        clock = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return Verdict(
            one.id, ("future",), f"{one.id} stays and counts for nothing: it is dated after this host's clock, {clock}."
        )
    if holding:
        return Verdict(one.id, tuple(holding), f"{one.id} stays: {', '.join(holding)}.")
    return Verdict(one.id, (), f"{one.id} goes: {'; '.join(against)}.")


def _within(text: str) -> dict[str, int]:
    """The parts of a span such as 1y6m or 2w12h. Raises InputError."""
    if not text:
        return {}
    found = _WITHIN_PART.findall(text) if _WITHIN.match(text) else []
    parts = {unit: int(number) for number, unit in found}
    if len(parts) != len(found) or not any(parts.values()):
        raise InputError(
            f"keep.within is {text!r}, which is no span of time.",
            fix="Write numbers with y, m (months), w, d or h behind, each once, such as 14d or 1y6m.",
        )
    return parts
