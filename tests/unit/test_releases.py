# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which release is previous, what is lost on the way back, and what goes and stays; pure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._releases import (
    COMPOSE,
    SETTINGS,
    Deploy,
    Release,
    with_entry,
)
from ansible_collections.groundwork.backend.plugins.module_utils._releases_back import (
    choose,
    lost_since,
    missing,
    previous,
)
from ansible_collections.groundwork.backend.plugins.module_utils._releases_engine import Image, users
from ansible_collections.groundwork.backend.plugins.module_utils._releases_prune import plan

DROP = {"database": "db", "version": "7", "name": "drop_it", "lossy": ["ban-drop-column"]}
ADD = {"database": "db", "version": "8", "name": "add_it", "lossy": []}


def deploy(number: int, result: str = "ok", *migrations: dict[str, Any], run: str = "") -> Deploy:
    return Deploy(number, run, "2026-11-21T06:12:00Z", "alice", "ci-7", result, migrations=migrations)


def release(name: str, *deploys: Deploy, **given: Any) -> Release:
    return Release(name, deploys, has_folder=True, **given)


def test_previous_is_the_newest_good_one_before_the_current() -> None:
    known = [
        release("a", deploy(1)),
        release("b", deploy(2)),
        release("c", deploy(3, "failed")),
        release("d", deploy(4)),
    ]
    assert previous(known, "d").id == "b"
    assert previous(known, "b").id == "a"
    assert previous(known, "a") is None
    assert previous(known, "").id == "d"
    assert previous(known, "not recorded").id == "d"


def test_a_release_that_was_deployed_again_counts_by_its_newest_deploy() -> None:
    known = [release("a", deploy(1), deploy(3)), release("b", deploy(2))]
    assert previous(known, "a").id == "b"
    assert previous(known, "b") is None


def test_a_release_that_was_left_for_an_older_one_is_not_previous_until_it_served_again() -> None:
    known = [release("o", deploy(1)), release("a", deploy(2), deploy(4))]
    assert previous([*known, release("b", deploy(3), deploy(5, "rolled_back"))], "a").id == "o"
    again = release("b", deploy(3), deploy(5, "rolled_back"), deploy(6))
    assert previous([*known, again, release("c", deploy(7))], "c").id == "b"


def test_a_rollback_that_was_killed_before_the_link_turned_goes_to_the_same_release_again() -> None:
    left = release("b", deploy(3), deploy(5, "rolled_back"))
    known = [release("o", deploy(1)), release("a", deploy(2), deploy(4)), left]
    assert previous(known, "b").id == "a"


def test_a_failed_try_does_not_spoil_a_release_that_had_served() -> None:
    known = [release("a", deploy(1), deploy(3, "failed")), release("b", deploy(2))]
    assert previous(known, "b").id == "a"


def test_a_release_is_chosen_by_its_id_or_the_beginning_of_it() -> None:
    known = [release("abc1", deploy(2)), release("abc", deploy(1)), release("xyz", deploy(3))]
    assert choose(known, "xyz", "abc").id == "abc"
    assert choose(known, "xyz", "abc1").id == "abc1"
    assert choose(known, "abc", "x").id == "xyz"
    assert choose(known, "xyz", "previous").id == "abc1"
    for to, words in {
        "ab": "several releases: abc1, abc",
        "q": "is no release on this host",
        "": "is no release",
    }.items():
        with pytest.raises(InputError, match=words):
            choose(known, "xyz", to)
    assert choose(known, "xyz", "xyz").id == "xyz", "another host may not have it yet"
    with pytest.raises(StateError, match="There is no release to go back to"):
        choose(known, "abc", "previous")


def test_a_rollback_that_was_cut_off_is_ended_and_not_gone_past() -> None:
    known = [
        release("b", deploy(1)),
        release("a", deploy(2), deploy(4)),
        release("c", deploy(3), deploy(5, "rolled_back")),
    ]
    assert choose(known, "a", "previous").id == "b"
    assert choose(known, "a", "previous", begun="a").id == "a"
    assert choose(known, "a", "b", begun="a").id == "b", "somebody wants to go on"


def test_what_was_lost_after_a_release_is_told_whoever_lost_it() -> None:
    known = [
        release("a", deploy(1)),
        release("b", deploy(2, "ok", ADD, DROP)),
        release("c", deploy(3, "failed", {**DROP, "version": "9"})),
        Release("d", (deploy(4, "ok", {**DROP, "version": "10"}),), absent=SETTINGS[COMPOSE]),
        release("e", deploy(5)),
    ]
    lost = lost_since(known, known[0])
    assert [(one["release"], one["version"]) for one in lost] == [("b", "7"), ("c", "9"), ("d", "10")]
    assert lost[0] == {
        "release": "b",
        "database": "db",
        "version": "7",
        "name": "drop_it",
        "rules": ["ban-drop-column"],
    }
    assert [one["release"] for one in lost_since(known, known[1])] == ["c", "d"]
    assert lost_since(known, known[4]) == []


def test_what_a_release_lost_itself_is_no_reason_not_to_go_back_to_it() -> None:
    known = [release("a", deploy(1, "ok", DROP), deploy(3, "failed", DROP)), release("b", deploy(2))]
    assert lost_since(known, known[0]) == []


def test_two_entries_of_one_deploy_are_one() -> None:
    before = with_entry(release("a"), deploy(0, "failed", DROP, run="r"), 5)
    after = with_entry(before, deploy(0, "ok", ADD, run="r"), 6)
    assert [one.number for one in after.deploys] == [5]
    assert after.deploys[0].migrations == [DROP, ADD]
    assert after.ok
    assert with_entry(after, deploy(0, "ok", ADD, run="r"), 6) == after
    assert [one.number for one in with_entry(after, deploy(0, run="s"), 6).deploys] == [5, 6]


def test_what_is_missing_is_named() -> None:
    one = Release("a", (Deploy(1, "", "", "", "", "ok", images=["app/web:a", "app/job:a"]),), False, (".env",))
    assert missing(one, ["app/web:a"]) == ["the folder releases/a", "the file shared/a/.env", "the image app/job:a"]


def pruned(known: list[Release], keep: int, used: dict[str, list[str]] | None = None, **links: str) -> dict[str, bool]:
    return dict(plan(known, keep=keep, links=links, used=used or {}, images=[], leftovers=[]).releases)


def test_the_newest_stay_and_so_do_current_previous_and_what_is_used() -> None:
    known = [release(name, deploy(number)) for number, name in enumerate("abcdef", 1)]
    assert pruned(known, 2, current="f") == dict.fromkeys("abcd", False)
    assert pruned(known, 1, current="f") == dict.fromkeys("abcd", False)
    assert pruned(known, 1, current="c") == dict.fromkeys("ade", False)
    assert pruned(known, 1, {"a": ["app-web-1"]}, current="f", project="b") == dict.fromkeys("cd", False)
    assert pruned(known, 10, current="f") == {}


def test_what_failed_goes_and_does_not_push_out_what_served() -> None:
    known = [release("a", deploy(1)), release("b", deploy(2)), release("c", deploy(3, "failed")), release("d")]
    assert pruned(known, 2, current="b") == {"c": False, "d": False}


def test_a_record_that_cannot_be_read_keeps_its_release() -> None:
    known = [release("a", damaged="torn"), release("b", deploy(2)), release("c", deploy(3))]
    assert pruned(known, 1, current="c") == {}


def test_the_record_of_a_loss_stays_while_there_is_a_release_from_before_it() -> None:
    known = [release("a", deploy(1)), release("b", deploy(2, "failed", DROP)), release("c", deploy(3))]
    assert pruned(known, 1, current="c") == {"b": True}
    assert pruned([*known, release("d", deploy(4))], 1, current="d") == {"a": False, "b": False}
    left = Release("b", known[1].deploys, absent=SETTINGS[COMPOSE])
    assert plan([known[0], left], keep=1, links={}, used={}, images=[], leftovers=[]).records == []
    assert plan([left, known[2]], keep=1, links={}, used={}, images=[], leftovers=[]).records == ["b"]


def container(image: str, image_id: str, mounts: tuple[str, ...] = (), **labels: str) -> dict[str, Any]:
    names = {"project": "com.docker.compose.project", "release": "org.groundwork.release"}
    return {
        "Name": "/x",
        "Image": image_id,
        "Config": {"Image": image, "Labels": {names[key]: value for key, value in labels.items()}},
        "Mounts": [{"Source": source} for source in mounts],
        "State": {"Pid": 0},
    }


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (container("redis", "i9", project="app", release="r1"), True),
        (container("redis", "i9", project="app-test", release="r1"), False),
        (container("app/web:r1", "i1"), True),
        (container("app/web:r1", "rebuilt since"), True),
        (container("app/web:r2", "i1"), False),
        (container("i1", "i1"), True),
        (container("redis", "i9", mounts=("/srv/app/releases/r1/conf",)), True),
        (container("redis", "i9", mounts=("/srv/app/shared/r1",)), True),
        (container("redis", "i9", mounts=("/srv/app/releases/r10/conf",)), False),
    ],
)
def test_which_containers_use_a_release(tmp_path: Any, one: dict[str, Any], expected: bool) -> None:
    """r1 and r2 are one image, as it is when nothing changed in it."""
    images = [Image("app/web:r1", "r1", "i1"), Image("app/web:r2", "r2", "i1")]
    path = type(tmp_path)("/srv/app")
    assert bool(users("r1", "app", path, images, [one])) is expected
