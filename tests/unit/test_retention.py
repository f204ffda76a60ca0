# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Retention: what stays and why, against tables, against a second way to say the rules, and over simulated time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._retention import Keep, SetState, Verdict, plan

FAR = datetime(2200, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SHAPE = "%Y%m%dT%H%M%SZ"


def at(text: str) -> datetime:
    """A moment from "2026-11-21" or "2026-11-21 06:12"."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def state(moment: datetime, damage: str = "") -> SetState:
    return SetState(moment.strftime(SHAPE), moment, damage)


def stays(
    moments: Iterable[datetime], keep: dict[str, Any], now: datetime = FAR, damaged: Sequence[datetime] = ()
) -> set[datetime]:
    """The moments whose sets stay."""
    sets = [state(moment) for moment in moments] + [state(moment, "cut") for moment in damaged]
    moment_of = {one.id: one.moment for one in sets}
    return {moment_of[verdict.id] for verdict in plan(sets, Keep.from_dict(keep), now) if verdict.stays}


def said(moments: Sequence[str], keep: dict[str, Any], now: datetime = FAR) -> dict[str, str]:
    """Reasons by moment, as the tables below have them."""
    text_of = {at(moment).strftime(SHAPE): moment for moment in moments}
    found = plan([state(at(moment)) for moment in moments], Keep.from_dict(keep), now)
    return {text_of[verdict.id]: ", ".join(verdict.reasons) for verdict in found}


PERIODS: dict[str, Callable[[datetime], object]] = {
    "last": lambda moment: moment,
    "daily": lambda moment: moment.strftime("%Y-%m-%d"),
    "weekly": lambda moment: moment.strftime("%G-%V"),
    "monthly": lambda moment: moment.strftime("%Y-%m"),
    "yearly": lambda moment: moment.strftime("%Y"),
}


def expected(moments: Iterable[datetime], keep: dict[str, Any]) -> set[datetime]:
    """The rules said another way: the newest of each period, the newest periods of those, the oldest set when too few.

    within is here a number of days.
    """
    history = sorted(moments)
    found: set[datetime] = set(history[-keep.get("minimum", 1) :])
    for rule, period in PERIODS.items():
        if count := keep.get(rule, 0):
            newest = sorted({period(moment): moment for moment in history}.values(), reverse=True)
            wanted = len(history) + 1 if count == -1 else count
            found |= set(newest[:wanted]) | (set(history[:1]) if len(newest) < wanted else set())
    if "within" in keep and history:
        span = timedelta(days=int(keep["within"].removesuffix("d")))
        found |= {moment for moment in history if moment > history[-1] - span}
    return found


@pytest.mark.parametrize(
    ("keep", "reasons"),
    [
        (
            {"last": 2},
            {"2026-03-03": "last 1", "2026-03-02": "last 2", "2026-03-01": ""},
        ),
        (
            {"daily": 2},
            {
                "2026-03-03 23:59": "daily 1",
                "2026-03-03 00:00": "",
                "2026-03-02 23:59": "daily 2",
                "2026-03-01 12:00": "",
            },
        ),
        (
            {"daily": 2, "yearly": 1},  # days without a set are no periods: a pause eats no backup
            {"2026-03-03": "daily 1, yearly 1", "2025-07-01": "daily 2", "2024-01-01": ""},
        ),
        (
            {"weekly": 3},  # 2020-12-28 to 2021-01-03 is one ISO week, 53 of 2020
            {"2021-01-04": "weekly 1", "2021-01-03": "weekly 2", "2020-12-28": "", "2020-12-27": "weekly 3"},
        ),
        (
            {"monthly": 2, "yearly": 2},
            {
                "2026-01-01": "monthly 1, yearly 1",
                "2025-12-31": "monthly 2, yearly 2",
                "2025-12-01": "",
                "2025-11-30": "",
            },
        ),
        (
            {"daily": 7, "monthly": 2},  # too few days: the rule holds the oldest set as well
            {
                "2026-03-02 09:00": "daily 1, monthly 1",
                "2026-03-02 08:00": "",
                "2026-03-01 09:00": "daily 2",
                "2026-03-01 08:00": "daily 3 (oldest), monthly 2 (oldest)",
            },
        ),
        (
            {"yearly": -1},
            {"2026-03-02": "yearly 1", "2026-03-01": "", "2025-05-05": "yearly 2", "2024-02-29": "yearly 3"},
        ),
        (
            {"within": "1m"},  # a day that February lacks is its last, and the edge itself is outside
            {"2026-03-31": "within 1m", "2026-02-28 00:01": "within 1m", "2026-02-28 00:00": ""},
        ),
        (
            {"within": "1y1w1d1h"},
            {"2026-03-10 10:00": "within 1y1w1d1h", "2025-03-02 09:01": "within 1y1w1d1h", "2025-03-02 09:00": ""},
        ),
        (
            {"within": "1d", "minimum": 3},
            {"2026-03-09": "within 1d", "2026-03-01": "minimum 2", "2026-02-01": "minimum 3", "2026-01-01": ""},
        ),
        ({"within": "999999y"}, {"2026-03-09": "within 999999y", "0001-01-01 00:00:01": "within 999999y"}),
        ({"within": "999999w"}, {"2026-03-09": "within 999999w", "0001-01-01 00:00:01": "within 999999w"}),
    ],
    ids=str,
)
def test_what_stays_and_why(keep: dict[str, Any], reasons: dict[str, str]) -> None:
    assert said(list(reasons), keep) == reasons


RESTIC = json.loads((Path(__file__).parent / "recorded" / "restic_forget.json").read_text())


@pytest.mark.parametrize("case", RESTIC["cases"], ids=lambda case: str(case["keep"]))
def test_restic_keeps_the_same(case: dict[str, Any]) -> None:
    """Recorded from restic 0.18: 70 snapshots with backup --time, and forget --dry-run --json for each policy.

    Its snapshots were made in UTC and forgotten with --group-by "".
    """
    assert RESTIC["version"] == "0.18.0"
    assert stays(map(at, RESTIC["sets"]), case["keep"]) == set(map(at, case["kept"]))


def test_each_set_is_explained() -> None:
    moments = [at("2026-03-03 09:00"), at("2026-03-03 08:00"), at("2026-03-02"), at("2026-02-20")]
    sets = [*map(state, moments), state(at("2026-03-04"), "its manifest is no JSON."), state(at("2031-01-01"))]
    told = plan(sets, Keep.from_dict({"daily": 2, "within": "2h"}), at("2026-03-05 01:02"))
    assert [verdict.explained for verdict in told] == [
        "20310101T000000Z stays and counts for nothing: it is dated after this host's clock, 2026-03-05T01:02:00Z.",
        "20260304T000000Z stays and counts for nothing, it is damaged: its manifest is no JSON.",
        "20260303T090000Z stays: daily 1, within 2h.",
        "20260303T080000Z stays: within 2h.",
        "20260302T000000Z stays: daily 2.",
        "20260220T000000Z goes: daily: 2 newer days kept; within: older than 2h before 20260303T090000Z.",
    ]
    told = plan(map(state, moments), Keep.from_dict({"weekly": 9, "last": 1}), FAR)
    assert told[1].explained == (
        "20260303T080000Z goes: last: 1 newer set kept; weekly: 20260303T090000Z is the newest of its week."
    )
    assert [verdict.stays for verdict in told] == [True, False, False, True]


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ({}, "keep has no rule, so nothing but the newest set would stay"),
        ({"minimum": 5}, "keep has no rule"),
        ({"daily": 0, "within": ""}, "keep has no rule"),
        ({"daily": 7, "minimum": 0}, "keep.minimum is 0: without a floor"),
        ({"daily": 7, "minimum": -1}, "keep.minimum is -1"),
        ({"daily": -2}, "keep.daily is -2"),
        ({"within": "30"}, "keep.within is '30', which is no span of time"),
        ({"within": "30 d"}, "no span of time"),
        ({"within": "-30d"}, "no span of time"),
        ({"within": "1d1d"}, "no span of time"),
        ({"within": "0d"}, "no span of time"),
        ({"within": "30min"}, "no span of time"),
        ({"within": "٣d"}, "no span of time"),
        ({"within": "9" * 5000 + "d"}, "no span of time"),
        ({"within": "30d\n"}, "no span of time"),
    ],
)
def test_settings_that_are_refused(keep: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Keep.from_dict(keep)
    assert sentence in str(caught.value)


def test_options_that_ansible_left_empty_are_no_rules() -> None:
    empty: dict[str, Any] = dict.fromkeys(("last", "weekly", "monthly", "yearly", "within", "minimum"))
    assert Keep.from_dict({**empty, "daily": 7}) == Keep.from_dict({"daily": 7})


# Seconds over four years, close enough together that days, weeks and months are shared.
MOMENTS = st.lists(
    st.integers(min_value=0, max_value=4 * 366 * 24).map(lambda hours: at("2023-12-30") + timedelta(hours=hours)),
    unique=True,
    max_size=60,
)
COUNTS = st.integers(min_value=-1, max_value=15)
KEEPS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(PERIODS, COUNTS),
        "within": st.integers(min_value=1, max_value=900).map(lambda days: f"{days}d"),
        "minimum": st.integers(min_value=1, max_value=6),
    },
).filter(lambda keep: any(keep.get(rule) for rule in (*PERIODS, "within")))


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS)
def test_the_rules_said_another_way_agree(moments: list[datetime], keep: dict[str, Any]) -> None:
    assert stays(moments, keep) == expected(moments, keep)


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS)
def test_to_prune_after_every_set_is_to_prune_once(moments: list[datetime], keep: dict[str, Any]) -> None:
    """What a rule wants in a year must not be removed today."""
    present: set[datetime] = set()
    for moment in sorted(moments):
        present = stays(present | {moment}, keep, now=moment)
    assert present == stays(moments, keep)


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS)
def test_a_second_prune_removes_nothing(moments: list[datetime], keep: dict[str, Any]) -> None:
    once = stays(moments, keep)
    assert stays(once, keep) == once


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS, rule=st.sampled_from([*PERIODS, "minimum"]), more=st.integers(1, 9))
def test_to_keep_more_never_removes_more(moments: list[datetime], keep: dict[str, Any], rule: str, more: int) -> None:
    assume(keep.get(rule) != -1)
    raised = {**keep, rule: keep.get(rule, 1 if rule == "minimum" else 0) + more}
    assert stays(moments, keep) <= stays(moments, raised)
    if rule != "minimum":
        assert stays(moments, raised) <= stays(moments, {**keep, rule: -1})


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS, split=st.integers(0, 60), others=MOMENTS)
def test_damaged_sets_and_sets_from_the_future_change_nothing_and_stay(
    moments: list[datetime], keep: dict[str, Any], split: int, others: list[datetime]
) -> None:
    now = max(moments, default=at("2025-01-01"))
    damaged = [moment for moment in others[:split] if moment not in moments]
    future = [moment for moment in others[split:] if moment not in moments and moment > now]
    assert stays([*moments, *future], keep, now, damaged) == stays(moments, keep, now) | {*damaged, *future}


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS, now=MOMENTS, damaged=st.lists(st.integers(0, 59), max_size=30))
def test_the_floor_holds_whatever_the_rules_and_the_clock(
    moments: list[datetime], keep: dict[str, Any], now: list[datetime], damaged: list[int]
) -> None:
    broken = {moments[index] for index in damaged if index < len(moments)}
    good = set(moments) - broken
    for clock in now:
        left = stays(good, keep, clock, list(broken))
        assert broken <= left
        assert len(left - broken) >= min(keep.get("minimum", 1), len(good))
        past = sorted(moment for moment in good if moment <= clock)
        assert set(past[-keep.get("minimum", 1) :]) <= left


@settings(deadline=None)
@given(moments=MOMENTS, keep=KEEPS)
def test_each_set_has_one_verdict_newest_first(moments: list[datetime], keep: dict[str, Any]) -> None:
    found: list[Verdict] = plan(map(state, moments), Keep.from_dict(keep), FAR)
    assert [verdict.id for verdict in found] == [state(moment).id for moment in sorted(moments, reverse=True)]
    for verdict in found:
        assert verdict.explained.startswith(f"{verdict.id} {'stays' if verdict.stays else 'goes'}")
        assert verdict.explained.endswith(".")


MONTH_OF_DAYS = {"last": 30}
WEEKS_AND_MONTHS = {"daily": 7, "weekly": 4, "monthly": 12}


def simulate(
    times: Iterable[datetime], keep: dict[str, Any], clock: Callable[[datetime], datetime] = lambda moment: moment
) -> Iterable[tuple[datetime, set[datetime]]]:
    """Make a set at each of the true times under the time that the clock shows, and prune; what is left each time."""
    present: set[datetime] = set()
    for true in times:
        shown = clock(true)
        present = stays(present | {shown}, keep, now=shown)
        yield true, present


@pytest.mark.parametrize("every", [DAY, 3 * DAY, DAY / 3], ids=["daily", "every third day", "three a day"])
@pytest.mark.parametrize("keep", [MONTH_OF_DAYS, {"within": "30d"}, WEEKS_AND_MONTHS], ids=str)
def test_400_days(every: timedelta, keep: dict[str, Any]) -> None:
    begin = at("2025-10-19 02:00")
    times = [begin + every * number for number in range(400 * DAY // every)]
    for number, (_true, present) in enumerate(simulate(times, keep), 1):
        if number % 7 == 0:  # the other way to say it looks at the whole history each time
            assert present == expected(times[:number], keep)
    assert present == expected(times, keep)
    assert len(present) >= 10


def test_400_days_in_numbers() -> None:
    """A year of daily sets under the rule of the documents: 7 days, 4 weeks, 12 months."""
    times = [at("2025-10-19 02:00") + DAY * number for number in range(400)]
    *_, (_true, present) = simulate(times, WEEKS_AND_MONTHS)
    assert times[-1] == at("2026-11-22 02:00")
    days = [f"2026-11-{day}" for day in range(16, 23)]
    weeks = ["2026-11-15", "2026-11-08", "2026-11-01"]
    months = ["2026-10-31", "2026-09-30", "2026-08-31", "2026-07-31", "2026-06-30", "2026-05-31"]
    months += ["2026-04-30", "2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31"]
    assert {f"{moment:%Y-%m-%d}" for moment in present} == {*days, *weeks, *months}


def test_a_clock_that_jumps_ahead_costs_a_slot_of_each_rule_and_no_more() -> None:
    times = [at("2025-10-19 02:00") + DAY * number for number in range(400)]
    jump = at("2026-09-10 02:00")

    def clock(true: datetime) -> datetime:
        return true + 1500 * DAY if true == jump else true

    wrong = clock(jump)
    for true, present in simulate(times, WEEKS_AND_MONTHS, clock):
        past = [moment for moment in times if moment <= true and moment != jump]
        if true >= jump:
            assert wrong in present
            # The moment of the jump: each rule has one period fewer for what is real.
            fewer = {rule: count - 1 for rule, count in WEEKS_AND_MONTHS.items()}
            assert expected(past, fewer) <= present
    assert present == expected(past, WEEKS_AND_MONTHS) | {wrong}


def test_a_clock_that_falls_back_removes_nothing_that_was_there() -> None:
    times = [at("2025-10-19 02:00") + DAY * number for number in range(400)]
    fallen, repaired = at("2026-09-10 02:00"), at("2026-10-01 02:00")

    def clock(true: datetime) -> datetime:
        return at("1970-01-01") + (true - fallen) if fallen <= true < repaired else true

    before: set[datetime] = set()
    for true, present in simulate(times, WEEKS_AND_MONTHS, clock):
        if fallen <= true < repaired:
            assert before <= present
            assert clock(true) in present
        else:
            before = present
    assert {moment for moment in present if moment >= repaired} == {
        moment for moment in expected(times, WEEKS_AND_MONTHS) if moment >= repaired
    }
    assert {moment for moment in present if at("2000-01-01") < moment < fallen} >= {
        moment for moment in expected(times, WEEKS_AND_MONTHS) if moment < fallen
    }


def test_the_floor_is_what_remains_when_within_meets_a_clock_that_jumps_ahead() -> None:
    times = [at("2026-01-01") + DAY * number for number in range(60)]

    def clock(true: datetime) -> datetime:
        return true + 4000 * DAY if true == times[-1] else true

    *_, (_true, present) = simulate(times, {"within": "30d", "minimum": 3}, clock)
    assert present == {clock(times[-1]), times[-2], times[-3]}


def test_failed_backups_never_push_the_last_good_one_out() -> None:
    """A disk that breaks every set for half a year: what was good before is there, with its months."""
    good = [at("2026-01-01") + DAY * number for number in range(100)]
    damaged = [good[-1] + DAY * number for number in range(1, 181)]
    present = stays(good, WEEKS_AND_MONTHS, damaged[-1], damaged)
    assert present - set(damaged) == expected(good, WEEKS_AND_MONTHS)
    assert set(damaged) <= present
