# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health checks: comparing, masking, waiting with probes that are told what to answer, and bad input."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Masker, Outcome, Probe, same
from ansible_collections.groundwork.backend.plugins.module_utils._probe_kinds import (
    COMMON,
    KINDS,
    check_options,
    plan,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_progress import Check, Progress
from ansible_collections.groundwork.backend.plugins.module_utils._probe_wait import failure_line, wait_for
from ansible_collections.groundwork.backend.plugins.module_utils._probe_waiter import Waiter, pause

UP, DOWN, UNKNOWN = Outcome("up"), Outcome("down", "not yet"), Outcome("unknown", "nobody tells")
DEAD = Outcome("down", "dead", terminal=True)


class Scripted(Probe):
    """Answers with each outcome in turn, then with the last one for ever."""

    pause = 0.005

    def __init__(self, *outcomes: Outcome, took: float = 0.0) -> None:
        self._outcomes: Iterator[Outcome] = iter(outcomes)
        self._last = outcomes[-1]
        self._took = took

    def attempt(self, seconds: float) -> Outcome:
        time.sleep(self._took)
        return next(self._outcomes, self._last)


def _check(name: str, *outcomes: Outcome, took: float = 0.0, **options: Any) -> Check:
    return Check(name, "scripted", Scripted(*outcomes, took=took), lambda lines: [], interval=0.01, **options)


def _wait(*checks: Check, timeout: float = 5.0) -> tuple[Waiter, dict[str, Progress]]:
    waiter = Waiter(checks, timeout, Masker([]))
    waiter.run()
    return waiter, {one.check.name: one for one in waiter.progress}


def test_returns_as_soon_as_all_hold() -> None:
    """Late successes count, and the last error stays readable."""
    waiter, found = _wait(_check("a", DOWN, DOWN, UP), _check("b", UP))
    assert [one.state for one in found.values()] == ["ok", "ok"]
    assert found["a"].attempts >= 3
    assert found["a"].last_error == "not yet"
    assert waiter.elapsed < 4


def test_terminal_state_ends_the_wait() -> None:
    """The others are reported as they are."""
    waiter, found = _wait(_check("a", DOWN, DEAD), _check("b", DOWN), timeout=30)
    assert (found["a"].state, found["b"].state) == ("failed", "waiting")
    assert waiter.elapsed < 15
    line = failure_line(list(found.values()), 2, waiter.elapsed)
    assert line.startswith("2 of 2 checks failed after ")
    assert line.index("a: dead") < line.index("b (still waiting): not yet")


def test_an_attempt_that_hangs_does_not_hold_up_the_deadline() -> None:
    """Nor is its late answer in the result."""
    waiter, found = _wait(_check("a", UP, took=60), timeout=0.2)
    assert 0.2 <= waiter.elapsed < 15
    assert (found["a"].state, found["a"].attempts) == ("timeout", 0)
    assert "no attempt came to an end" in failure_line([found["a"]], 1, waiter.elapsed)


def test_attempts_that_hang_do_not_hold_up_other_checks() -> None:
    """However many they are, and again and again."""
    hanging = [_check(f"hangs {number}", UP, took=60, optional=True, timeout=1.0) for number in range(40)]
    _, found = _wait(*hanging, _check("a", DOWN, DOWN, UP, consecutive=3), timeout=20)
    assert (found["a"].state, found["hangs 0"].attempts) == ("ok", 0)


@pytest.mark.parametrize(
    ("elapsed", "checks", "expected"),
    [(0.0, 1, 0.005), (0.0, 200, 0.02), (2.0, 1, 0.1), (40.0, 1, 2.0), (400.0, 1, 3.0), (400.0, 200, 3.0)],
)
def test_attempts_are_frequent_first_and_an_interval_apart_later(elapsed: float, checks: int, expected: float) -> None:
    """Many checks make each one a little less frequent."""
    assert pause(dataclasses.replace(_check("a", UP), interval=3.0), elapsed, checks) == pytest.approx(expected)


def test_a_slow_check_is_tried_again_while_the_others_rest() -> None:
    """The threads that have nothing to do for long see what the last one puts back."""
    rare = [_check(f"rare {number}", UP, took=0.2) for number in range(8)]
    for check in rare:
        check.probe.pause = 60.0
    rare = [dataclasses.replace(check, interval=60.0) for check in rare]
    _, found = _wait(*rare, _check("a", UP, took=0.6, consecutive=3), timeout=20)
    assert found["a"].state == "ok"


def test_many_checks_at_once() -> None:
    """Each gets its turn until all hold."""
    _, found = _wait(*[_check(str(number), DOWN, UP, took=0.01) for number in range(200)], timeout=60)
    assert {one.state for one in found.values()} == {"ok"}
    assert all(one.attempts >= 2 for one in found.values())


def test_wait_for_takes_what_a_user_writes(tmp_path: Path) -> None:
    """What is left out has its default; a failure has the module's result as its details."""
    (tmp_path / "there").touch()
    there = {"name": "there", "kind": "file", "path": str(tmp_path / "there"), "max_age": None}
    absent = {"name": "absent", "kind": "file", "path": str(tmp_path / "absent")}
    result = wait_for([there, {**absent, "optional": True}], timeout=10.0)
    assert result["unmet"] == ["absent"]
    assert result["checks"]["there"]["state"] == "ok"
    with pytest.raises(StateError, match=r"^1 of 2 checks failed after \d\.\d seconds: absent: there is no ") as error:
        wait_for([there, absent], timeout=0.2)
    assert set(error.value.details) == {"checks", "elapsed", "unmet", "logs"}
    assert error.value.details["checks"]["absent"]["state"] == "timeout"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"checks": [{"kind": "smtp"}]}, "Check number 1 has the kind 'smtp'"),
        ({"checks": [{"name": "a"}]}, "Check number 1 has the kind None"),
        ({"checks": [{"kind": "tcp", "port": 1}], "timeout": 0.0}, "timeout is 0"),
        ({"checks": [{"kind": "tcp", "port": 1}], "timeout": float("nan")}, "timeout is nan"),
        ({"checks": [{"kind": "tcp", "port": 1}], "log_lines": -1}, "log_lines is -1"),
    ],
)
def test_wait_for_refuses_bad_input(arguments: dict[str, Any], told: str) -> None:
    """Before any waiting."""
    with pytest.raises(InputError) as error:
        wait_for(**arguments)
    assert told in str(error.value)


def test_the_timeout_of_one_check_ends_the_wait() -> None:
    """A check that cannot hold in its own time makes waiting for the others useless."""
    waiter, found = _wait(_check("a", DOWN, timeout=0.1), _check("b", DOWN), timeout=30)
    assert (found["a"].state, found["b"].state) == ("timeout", "waiting")
    assert waiter.elapsed < 15


def test_optional_checks_never_fail_the_wait() -> None:
    """Without a time of their own they get one attempt; with it, that time; a terminal state ends only them."""
    _, found = _wait(_check("a", UP), _check("b", DOWN, optional=True), _check("c", DEAD, optional=True))
    assert [found[name].state for name in "abc"] == ["ok", "waiting", "failed"]
    assert found["b"].attempts >= 1
    _, found = _wait(_check("a", UP), _check("b", DOWN, DOWN, DOWN, UP, optional=True, timeout=4.0))
    assert found["b"].state == "ok"
    waiter, found = _wait(_check("a", UP), _check("b", DOWN, optional=True, timeout=0.1))
    assert found["b"].state == "timeout"
    assert waiter.elapsed < 4


def test_expect_down() -> None:
    """Down holds for what is not there, also for good; unknown is neither up nor down."""
    _, found = _wait(_check("a", UP, UP, DOWN, expect="down"), _check("b", DEAD, expect="down"))
    assert [one.state for one in found.values()] == ["ok", "ok"]
    assert found["a"].last_error == "it is still up"
    _, found = _wait(_check("a", UNKNOWN, expect="down"), _check("b", UNKNOWN), timeout=0.1)
    assert [one.state for one in found.values()] == ["timeout", "timeout"]


def test_consecutive_and_stable_for_start_again_after_a_break() -> None:
    """Only what passes without a break counts."""
    progress = Progress(_check("a", UP, consecutive=3))
    states = []
    for second, outcome in enumerate([UP, UP, DOWN, UP, UP, UP]):
        progress.record(outcome, float(second))
        states.append(progress.state)
    assert states == ["waiting"] * 5 + ["ok"]
    assert progress.seconds == 0.0

    progress = Progress(_check("a", UP, stable_for=2.0))
    states = []
    for second, outcome in enumerate([UP, UP, DOWN, UP, UP, UP]):
        progress.record(outcome, float(second))
        states.append(progress.state)
    assert states == ["waiting"] * 5 + ["ok"]


def test_a_check_that_held_and_broke_is_waited_for_again() -> None:
    """All hold at the same time in the end."""
    _, found = _wait(_check("a", UP, DOWN, UP), _check("b", *[DOWN] * 20, UP))
    assert found["a"].attempts >= 3
    assert found["a"].state == "ok"


def test_an_exception_of_a_probe_is_raised() -> None:
    """A bug is not mistaken for "not reachable"."""

    class Broken(Probe):
        def attempt(self, seconds: float) -> Outcome:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Waiter([Check("a", "broken", Broken(), lambda lines: [])], 5.0, Masker([])).run()


@pytest.mark.parametrize(
    ("found", "wanted", "equal"),
    [
        ("a", "a", True), ("a", "b", False), (True, True, True), (True, "True", True), (False, "false", True),
        (3, "3", True), (3, 3, True), (None, "null", False), ([1], [1], True), ({"a": 1}, {"a": 2}, False),
        (1.5, "1.5", True),
    ],
)  # fmt: skip
def test_same(found: Any, wanted: Any, equal: bool) -> None:
    """Templates make texts of numbers and booleans."""
    assert same(found, wanted) is equal


def test_masker_knows_how_secrets_are_spelled() -> None:
    """Plain, in JSON, in a URL; the longest first; an empty secret masks nothing."""
    masker = Masker(['p"ss/ü', 'p"ss/ü-longer', ""])
    for text in ('p"ss/ü', r"p\"ss/\u00fc", r"p\"ss/ü", "p%22ss%2F%C3%BC", 'p"ss/ü-longer'):
        assert masker(f"<{text}>") == "<********>"
    assert Masker([""])("text") == "text"


_HTTP = {"kind": "http", "url": "http://127.0.0.1/"}


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"name": "w", "kind": "http"}, "Check 'w': the kind http needs the key 'url'"),
        ({"kind": "tcp", "host": "x"}, "Check 'number 1': the kind tcp needs the key 'port'"),
        ({"kind": "tcp", "port": 1, "url": "x"}, "Check 'tcp 127.0.0.1:1': the kind tcp has no key 'url'"),
        ({"kind": "tcp", "port": 70000}, "port is 70000"),
        ({"kind": "tcp", "port": 1, "regex": "("}, "regex is not a regular expression"),
        ({"kind": "http", "url": "ftp://x/"}, "url is not a URL"),
        ({"kind": "http", "url": "http://x:99999/"}, "url is not a URL"),
        ({"kind": "http", "url": "http://x/ y"}, "url is not a URL"),
        ({**_HTTP, "url": "http://u:canary@x/", "name": "w"}, "url holds a user name or a password"),
        ({**_HTTP, "jmespath": "a ["}, "jmespath is not a JMESPath expression"),
        ({**_HTTP, "jmespath": "nosuch(@)"}, "jmespath is not a JMESPath expression: Unknown function"),
        ({**_HTTP, "release": {"field": "a.", "equals": "x"}}, "release.field is not a JMESPath expression"),
        ({**_HTTP, "expect_value": 1}, "expect_value needs jmespath"),
        ({**_HTTP, "header_regex": {"X-A": "*"}}, "header_regex.X-A is not a regular expression"),
        ({**_HTTP, "method": "GET /"}, "no HTTP method"),
        ({**_HTTP, "username": "u"}, "username and password belong together"),
        ({**_HTTP, "username": "u", "password": "canary", "bearer": "canary"}, "exclude each other"),
        ({**_HTTP, "bearer": "canary\n"}, "'Authorization' cannot be sent"),
        ({**_HTTP, "address": "x", "unix_socket": "/x"}, "exclude each other"),
        ({"kind": "http", "url": "https://x/", "ca_cert": "/nonexistent"}, "ca_cert /nonexistent holds no usable"),
        ({**_HTTP, "log_container": {"project": "x"}}, "log_container needs either container"),
        ({"name": "c", "kind": "container"}, "Check 'c': needs either container"),
        ({"kind": "container", "container": "a", "project": "b", "service": "c"}, "needs either container"),
        ({"kind": "container", "container": "a", "max_restarts": 0}, "max_restarts at least 1"),
        ({"kind": "container", "container": "a", "log_container": {"container": "b"}}, "shows its own log"),
        ({"kind": "compose", "project": "a", "log_container": {"container": "b"}}, "compose shows its own log"),
        ({"kind": "compose", "project": "a", "running_for": -1.0}, "running_for is at least 0"),
        ({"kind": "compose", "project": "a", "services": ["b"], "one_shots": ["c"]}, "one_shots names 'c'"),
        ({"kind": "systemd", "unit": "a b"}, "unit 'a b' is not the name of a unit"),
        ({"kind": "systemd", "unit": "a", "max_restarts": 0}, "max_restarts at least 1"),
        ({"kind": "systemd", "unit": "a", "log_unit": "b"}, "systemd shows its own log, and has no key 'log_unit'"),
        ({**_HTTP, "log_unit": "a", "log_container": {"container": "b"}}, "exclude each other"),
        ({"kind": "redis", "username": "u"}, "username needs password"),
        ({"kind": "redis", "port": 70000}, "port is 70000"),
        ({"kind": "mongo", "login_user": "u"}, "login_user and login_password belong together"),
        ({"kind": "mongo", "ca_cert": "/ca.pem"}, "ca_cert needs tls"),
        ({"name": "x", "kind": "command", "argv": []}, "argv is empty"),
        ({"kind": "file", "path": "a/b"}, "path 'a/b' is not absolute"),
        ({"kind": "file", "path": "/a", "max_age": -1.0}, "max_age is -1"),
        ({"kind": "certificate", "host": "x", "issuer": "("}, "issuer is not a regular expression"),
        ({"kind": "certificate", "host": "x", "ca_cert": "/nonexistent"}, "ca_cert /nonexistent holds no usable"),
        ({"name": "db", "kind": "postgres"}, "Check 'db': the kind postgres needs the key 'database'"),
        ({"kind": "postgres", "database": "a", "login_host": "/run"}, "is a Unix socket, where an image"),
        ({"kind": "postgres", "database": "a", "login_port": 0}, "login_port is 0"),
        ({"kind": "postgres", "database": "a", "minimum_schema_version": "v3"}, "minimum_schema_version is 'v3'"),
        ({"kind": "postgres", "database": "a", "ledger_table": 'a"b'}, "cannot be the schema or the table"),
        ({**_HTTP, "timeout": 0.0}, "timeout is 0"),
        ({**_HTTP, "interval": -1.0}, "interval is -1"),
        ({**_HTTP, "attempt_timeout": float("nan")}, "attempt_timeout is nan"),
        ({**_HTTP, "stable_for": -1.0}, "stable_for is -1"),
        ({**_HTTP, "consecutive": 0}, "consecutive is 0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(check: dict[str, Any], told: str) -> None:
    """The check and the key are named, before any waiting; a secret is not repeated."""
    with pytest.raises(InputError) as error:
        plan([_filled(check)])
    assert told in str(error.value)
    assert "canary" not in str(error.value)


def _filled(check: dict[str, Any]) -> dict[str, Any]:
    """As AnsibleModule hands it over: every key there, defaults filled in."""
    return {key: check.get(key, spec.get("default")) for key, spec in check_options().items()}


def test_no_checks_and_names_twice() -> None:
    """Both are refused."""
    with pytest.raises(InputError, match="No checks"):
        plan([])
    with pytest.raises(InputError, match=r"Several checks have the name 'http://127\.0\.0\.1/'"):
        plan([_filled(_HTTP), _filled(_HTTP)])


def test_missing_jmespath_names_the_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Debian host without it."""
    monkeypatch.setitem(__import__("sys").modules, "jmespath", None)
    with pytest.raises(GroundworkError, match="python3-jmespath"):
        Asked("web", {}).expression("jmespath", "a")


def test_kinds_that_share_a_key_agree_on_it() -> None:
    """The flat list has one spec for each key, without a default, and no kind redefines a common key."""
    seen: dict[str, Any] = {}
    for kind in KINDS.values():
        assert not set(kind.options) & set(COMMON)
        for key, spec in kind.options.items():
            assert seen.setdefault(key, spec) == spec
            assert "default" not in spec
            assert "required" not in spec


def test_documentation_agrees_with_the_argument_spec() -> None:
    """Every key is documented with its type, default and choices."""
    module = importlib.import_module("ansible_collections.groundwork.backend.plugins.modules.health_wait")
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]["checks"]["suboptions"]
    _agree(documented, check_options())


def _agree(documented: dict[str, Any], spec: dict[str, Any]) -> None:
    assert set(documented) == set(spec)
    for key, told in documented.items():
        for fact in ("type", "default", "choices", "elements", "required"):
            assert told.get(fact) == spec[key].get(fact), key
        if "suboptions" in told:
            _agree(told["suboptions"], spec[key]["options"])
