# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Units of a systemd stack: what the inventory may say, their texts, and what has to be done to get to them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _unit_env
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import (
    HARDENING,
    Place,
    env_files_of,
    owner_of,
    service,
    socket,
    trial_service,
)
from ansible_collections.groundwork.backend.plugins.module_utils._units import Stack, Unit, read_units
from ansible_collections.groundwork.backend.plugins.module_utils._units_derived import (
    unit_accounts,
    unit_checks,
    unit_command,
    unit_servers,
)
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import (
    Found,
    Release,
    checks,
    endpoints,
    is_paused,
    plan,
    within,
)

STACK = Stack("innovaplus", "innova")
WEB: dict[str, Any] = {"backend": {"port": 8000, "health": {"path": "/health", "expect": "status == 'ok'"}}}
PLACE = Place(
    "innovaplus",
    "abc123",
    "/srv/innovaplus/releases/abc123",
    "/srv/innovaplus/releases/abc123/.venv",
    "/srv/innovaplus/shared/abc123/.env",
)
ROOT_OWNED = {"/etc/innovaplus/backend.env": (0, 5), "/etc/innovaplus/worker.env": (0, 5)}


def unit(key: str = "backend", *, web: bool = True, **given: Any) -> Unit:
    """One unit with these keys."""
    return read_units(STACK, {key: {"exec": "gunicorn app:app", **given}}, WEB if web else {}, {})[0]


def lines(text: str, name: str) -> list[str]:
    """The values of a directive."""
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_a_unit_has_the_names_and_the_env_file_of_its_stack() -> None:
    found = unit()
    assert (found.name, found.socket_name, found.user, found.group) == (
        "innovaplus-backend.service", "innovaplus-backend.socket", "innova", "innova",
    )  # fmt: skip
    file = found.env_file
    assert (file.path, file.owner, file.group, oct(file.mode)) == (
        "/etc/innovaplus/backend.env", "root", "innova", "0o640",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"exec": ""}, "app_units.backend has no exec"),
        ({"exec": "a\nb"}, "app_units.backend.exec has a line break"),
        ({"command": "a"}, "app_units.backend has command, and can have"),
        ({"stop_timeout": "soon"}, "app_units.backend.stop_timeout is 'soon': give a number of seconds"),
        ({"stop_timeout": True}, "app_units.backend.stop_timeout is True: give a number of seconds"),
        ({"stop_timeout": 0}, "app_units.backend.stop_timeout is 0: give a number of seconds from 1 on"),
        ({"name": "backend"}, "app_units.backend.name is 'backend': give the name of a service"),
        ({"directory": "../elsewhere"}, "app_units.backend.directory is '../elsewhere'"),
        ({"user": "Innova Plus"}, "app_units.backend.user is 'Innova Plus'"),
        ({"type": "forking"}, "app_units.backend.type is 'forking', and can be exec, notify"),
        ({"env_file": {"path": "etc/x.env"}}, "app_units.backend.env_file.path is 'etc/x.env'"),
        ({"env_file": {"mode": 640}}, "app_units.backend.env_file.mode is 640: give it as text in quotes"),
        ({"env_file": {"user": "root"}}, "app_units.backend.env_file has user, and can have"),
        ({"writable": ["/var/../etc"]}, "app_units.backend.writable is '/var/../etc'"),
        ({"writable": ["/home/innova"]}, "app_units.backend.writable has /home/innova, which ProtectHome hides"),
        ({"service": {"ExecStart": "sh"}}, "app_units.backend.service has ExecStart, which follows"),
        ({"service": {"Nice": "1\nUser=root"}}, "app_units.backend.service has 'Nice', which is no line of systemd"),
        ({"env": {"A B": "1"}}, "app_units.backend.env has 'A B'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        unit(**given)


def test_a_web_service_without_a_unit_is_told() -> None:
    with pytest.raises(InputError, match="app_web_services has backend, and app_units has worker"):
        read_units(STACK, {"worker": {"exec": "x"}}, WEB, {})


def test_a_unit_that_ends_by_itself_is_told() -> None:
    with pytest.raises(InputError, match="app_services says that seed ends by itself, and a unit runs on"):
        read_units(STACK, {"seed": {"exec": "x"}}, {}, {"seed": {"one_shot": True}})


def test_two_units_with_one_address_are_told() -> None:
    web = {name: {"port": 8000, "health": {"path": "/"}} for name in ("one", "two")}
    with pytest.raises(InputError, match=r"app_units\.two and app_units\.one both have 127\.0\.0\.1:8000"):
        read_units(STACK, {"one": {"exec": "x"}, "two": {"exec": "x"}}, web, {})


def test_units_that_share_a_file_agree_on_its_mode() -> None:
    units = {
        "one": {"exec": "x", "env_file": {"path": "/etc/a.env"}},
        "two": {"exec": "x", "env_file": {"path": "/etc/a.env", "mode": "0600"}},
    }
    with pytest.raises(InputError, match=r"share /etc/a\.env, and do not agree"):
        read_units(STACK, units, {}, {})


def test_a_service_names_the_folder_and_the_programs_of_its_release() -> None:
    text = service(unit(directory="./backend/"), PLACE)
    assert lines(text, "WorkingDirectory") == ["/srv/innovaplus/releases/abc123/backend"]
    assert lines(text, "ExecStart") == ["/srv/innovaplus/releases/abc123/.venv/bin/gunicorn app:app"]
    assert '"APP_RELEASE=abc123"' in lines(text, "Environment")


def test_a_socket_is_the_same_for_every_release() -> None:
    text = socket(unit(), "innovaplus")
    assert lines(text, "ListenStream") == ["127.0.0.1:8000"]
    assert "abc123" not in text


def test_a_unit_is_hardened_and_may_say_otherwise() -> None:
    text = service(unit(service={"ProtectHome": "read-only", "PrivateDevices": None, "MemoryMax": "1G"}), PLACE)
    assert {name for name in HARDENING if not lines(text, name)} == {"PrivateDevices"}
    assert (lines(text, "ProtectHome"), lines(text, "MemoryMax")) == (["read-only"], ["1G"])


def test_more_lines_of_a_list_add_up() -> None:
    text = service(unit(unit={"After": "docker.service"}), PLACE)
    assert lines(text, "After") == ["network.target", "innovaplus-backend.socket", "docker.service"]


def test_words_of_a_list_are_quoted_and_a_percent_sign_is_one() -> None:
    text = service(unit(exec=["/bin/echo", "a b", "$HOME", '"', "50%"]), PLACE)
    assert lines(text, "ExecStart") == ['/bin/echo "a b" $$HOME "\\"" 50%%']


def test_a_trial_is_not_started_again_and_reads_the_variables_of_its_release() -> None:
    text = trial_service(unit(service={"Restart": "on-failure"}), PLACE, 90)
    assert lines(text, "Restart") == ["no"]
    assert lines(text, "RuntimeMaxSec") == ["90s"]
    assert lines(text, "StartLimitBurst") == ["1"]
    assert env_files_of(text) == ["/srv/innovaplus/shared/abc123/.env"]
    assert "[Install]" not in text


@pytest.mark.parametrize(("seconds", "given"), [(300, "2s"), (1, "1s")])
def test_a_trial_that_does_not_end_is_ended_soon(seconds: int, given: str) -> None:
    assert lines(trial_service(unit(stop_timeout=seconds), PLACE, 60), "TimeoutStopSec") == [given]


def test_a_unit_says_whose_it_is() -> None:
    assert owner_of(service(unit(), PLACE)) == "innovaplus"
    assert owner_of("# app innovaplus\n[Service]\n") == ""


@pytest.mark.parametrize(
    ("options", "tried"), [({}, True), ({"backend": {"rollout": "recreate"}}, False)], ids=["rolling", "recreate"]
)
def test_what_cannot_run_twice_is_not_tried(options: dict[str, Any], tried: bool) -> None:
    assert read_units(STACK, {"backend": {"exec": "x"}}, WEB, options)[0].tried is tried


def release(*units: Unit) -> Release:
    return Release(PLACE, units, "A=1\n")


def running(of: Release) -> Found:
    """Everything as it should be."""
    active = {"ActiveState": "active", "UnitFileState": "enabled"}
    env = {path: (of.env, *ROOT_OWNED[path], 0o640) for path in of.env_files}
    folders = {one.name: f"{PLACE.directory}/backend" for one in of.units}
    return Found(of.texts, dict.fromkeys(of.texts, active), folders, env, {})


def test_nothing_is_done_to_what_runs() -> None:
    wanted = release(unit(), unit("worker", web=False))
    assert not plan(wanted, running(wanted), ROOT_OWNED)


def test_a_new_release_restarts_services_and_leaves_sockets() -> None:
    wanted = release(unit())
    before = {name: text.replace("abc123", "old") for name, text in wanted.texts.items()}
    planned = plan(wanted, replace(running(wanted), texts=before), ROOT_OWNED)
    assert ([one.name for one in planned.restart], planned.sockets) == (["innovaplus-backend.service"], [])


def test_a_process_of_another_release_is_restarted() -> None:
    wanted = release(unit())
    found = replace(running(wanted), folders={"innovaplus-backend.service": "/srv/innovaplus/releases/abc1234"})
    assert [one.key for one in plan(wanted, found, ROOT_OWNED).restart] == ["backend"]


def test_what_a_killed_run_did_not_come_to_is_done() -> None:
    wanted = release(unit(), unit("worker", web=False))
    socket = "innovaplus-backend.socket"
    planned = plan(wanted, replace(running(wanted), pending=frozenset({socket})), ROOT_OWNED)
    assert ([one.key for one in planned.restart], planned.sockets) == (["backend"], [socket])
    worker = replace(running(wanted), pending=frozenset({"innovaplus-worker.service", "gone.service"}))
    assert [one.key for one in plan(wanted, worker, ROOT_OWNED).restart] == ["worker"]


def test_variables_of_which_no_unit_is_left_are_removed() -> None:
    wanted = release(unit())
    before = {name: text.replace("backend.env", "old.env") for name, text in wanted.texts.items()}
    worker = release(unit("worker", web=False)).texts
    found = replace(
        running(wanted), texts=before, others=worker, pending=frozenset({"/etc/innovaplus/worker.env", "/a"})
    )
    assert plan(wanted, found, ROOT_OWNED).env_gone == ["/a", "/etc/innovaplus/old.env"]
    assert plan(wanted, running(wanted), ROOT_OWNED).env_gone == []


@pytest.mark.parametrize(
    ("active", "enabled", "paused"),
    [("inactive", "disabled", True), ("failed", "disabled", True), ("active", "disabled", False),
     ("activating", "disabled", False), ("inactive", "enabled", False)],
)  # fmt: skip
def test_a_unit_that_is_enabled_is_not_paused(active: str, enabled: str, paused: bool) -> None:
    assert is_paused({"ActiveState": active, "UnitFileState": enabled}) is paused


def test_changed_variables_restart_and_a_changed_mode_does_not() -> None:
    wanted = release(unit())
    other = {"/etc/innovaplus/backend.env": ("A=2\n", 0, 5, 0o640)}
    open_to_all = {"/etc/innovaplus/backend.env": ("A=1\n", 0, 5, 0o644)}
    assert plan(wanted, replace(running(wanted), env=other), ROOT_OWNED).restart
    planned = plan(wanted, replace(running(wanted), env=open_to_all), ROOT_OWNED)
    assert (len(planned.env), list(planned.restart)) == (1, [])


def test_a_unit_of_somebody_else_is_refused() -> None:
    wanted = release(unit())
    found = replace(running(wanted), texts={"innovaplus-backend.service": "[Service]\nExecStart=true\n"})
    with pytest.raises(StateError, match="which no deploy of innovaplus has written"):
        plan(wanted, found, ROOT_OWNED)


def test_a_renamed_unit_that_binds_its_port_itself_gives_it_back_first() -> None:
    wanted = release(unit(socket_activation=False))
    others = {"old.service": service(unit(name="old.service", socket_activation=False), PLACE)}
    assert plan(wanted, replace(running(wanted), others=others), ROOT_OWNED).gone == ["old.service"]


def test_a_masked_unit_is_refused() -> None:
    wanted = release(unit())
    with pytest.raises(StateError, match="systemctl unmask"):
        plan(wanted, replace(running(wanted), texts={"innovaplus-backend.service": ""}), ROOT_OWNED)


def test_a_unit_of_the_distribution_is_refused() -> None:
    wanted = release(unit(name="cron.service"))
    found = replace(running(wanted), texts={}, foreign={"cron.service": "/usr/lib/systemd/system/cron.service"})
    with pytest.raises(StateError, match=r"from /usr/lib/systemd/system/cron.service, and a unit of innovaplus"):
        plan(wanted, found, ROOT_OWNED)


def test_an_address_of_a_card_is_taken_before_the_network_is_up() -> None:
    assert lines(socket(unit(), "innovaplus"), "FreeBind") == ["yes"]


def test_a_unit_under_another_name_gives_its_address_back_first() -> None:
    wanted = release(unit())
    others = {"old.socket": socket(unit(), "innovaplus"), "old.service": "", "innovaplus-worker.service": ""}
    planned = plan(wanted, replace(running(wanted), others=others), ROOT_OWNED)
    assert planned.gone == ["old.socket", "old.service"]


@pytest.mark.parametrize(
    ("folder", "inside"), [("/r/a", True), ("/r/a/backend", True), ("/r/ab", False), ("", False), ("/r", False)]
)
def test_a_working_directory_is_in_its_release_or_not(folder: str, inside: bool) -> None:
    assert within(folder, "/r/a") is inside


def test_a_socket_in_the_file_system_is_asked_and_given_to_the_proxy() -> None:
    web = {"backend": {"socket": "/run/innova.sock", "health": {"path": "/health", "release": "version"}}}
    found = read_units(STACK, {"backend": {"exec": "x"}}, web, {})
    check = checks(found[0], "abc123")[1]
    assert (check["url"], check["unix_socket"]) == ("http://localhost/health", "/run/innova.sock")
    assert check["release"] == {"field": "version", "equals": "abc123"}
    assert endpoints(found) == {"backend": {"new": [{"socket": "/run/innova.sock"}]}}
    assert unit_servers(web, "127.0.0.1", 2) == [{"service": "backend", "servers": 2 * ["unix:/run/innova.sock"]}]


STACK_SETTINGS: dict[str, Any] = {
    "app": "innovaplus",
    "user": "innova",
    "group": "innova",
    "bind_address": "127.0.0.1",
    "requirements": "requirements.txt",
    "units": {"backend": {"exec": "x"}, "worker": {"exec": "y", "user": "worker"}},
    "web_services": WEB,
    "services": {},
}


def test_accounts_are_those_of_the_stack_and_of_its_units() -> None:
    assert unit_accounts(STACK_SETTINGS) == {
        "groups": ["innova", "worker"],
        "users": [{"name": "innova", "group": "innova"}, {"name": "worker", "group": "worker"}],
    }


def test_a_status_asks_what_answers() -> None:
    assert [check["url"] for check in unit_checks(STACK_SETTINGS)] == ["http://127.0.0.1:8000/health"]


def test_a_hook_runs_as_its_unit_does() -> None:
    argv = unit_command(STACK_SETTINGS, "worker", ["alembic", "upgrade", "head"], "abc123", "/srv/innovaplus")
    assert argv[-3:] == ["/srv/innovaplus/releases/abc123/.venv/bin/alembic", "upgrade", "head"]
    assert {"--property=User=worker", "--property=ProtectSystem=strict"} <= set(argv)
    assert not [word for word in argv if "Restart" in word or "ExecStart" in word]


def test_a_percent_sign_reaches_a_hook_as_it_is() -> None:
    """systemd-run expands no specifiers."""
    units = {"backend": {"exec": "x", "env": {"RATE": "50%"}}}
    assert '--property=Environment="RATE=50%"' in unit_command(
        {**STACK_SETTINGS, "units": units}, "backend", ["x"], "a", "/s"
    )


def test_a_hook_runs_none_of_the_commands_of_its_unit_and_leaves_its_folder_in_run() -> None:
    units = {"backend": {"exec": "x", "service": {"ExecStartPre": "/bin/true", "RuntimeDirectory": "innova"}}}
    argv = unit_command({**STACK_SETTINGS, "units": units}, "backend", ["x"], "a", "/s")
    assert not [word for word in argv if word.startswith("--property=Exec")]
    assert {"--property=RuntimeDirectory=innova", "--property=RuntimeDirectoryPreserve=yes"} <= set(argv)


def test_variables_are_written_as_systemd_reads_them() -> None:
    values = {"PLAIN": "a:b/c=1", "QUOTED": 'a "b" $c `d` \\e', "LINES": "one\ntwo", "NONE": None, "YES": True}
    text = _unit_env.render(values)
    assert text.startswith('PLAIN=a:b/c=1\nQUOTED="a \\"b\\" \\$c \\`d\\` \\\\e"\n')
    assert _unit_env.values(text) == {**values, "NONE": "", "YES": "true"}


@pytest.mark.parametrize("name", ["APP_NAME", "APP_RELEASE"])
def test_what_a_unit_gets_from_its_release_cannot_be_overridden(name: str) -> None:
    with pytest.raises(InputError, match=f"app_env sets {name}, which each unit gets from its release"):
        _unit_env.render({"PORT": "8000", name: "x"})
    units = {"backend": {"exec": "x", "env": {name: "x"}}}
    with pytest.raises(InputError, match=f"app_units.backend.env sets {name}, which each unit gets from its release"):
        unit_command({**STACK_SETTINGS, "units": units}, "backend", ["x"], "a", "/s")


@pytest.mark.parametrize("value", ["a\x00b", "bell\x07", "return\r"])
def test_a_value_that_systemd_would_drop_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(InputError, match="has a control character") as caught:
        _unit_env.render({"SECRET": value})
    assert value not in str(caught.value)
