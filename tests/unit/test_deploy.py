# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a deploy derives from the settings of a stack."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._deploy import (
    batches,
    env_changes,
    hooks,
    other_checks,
    proxy_checks,
    proxy_sites,
    recorded_migrations,
    release_servers,
    rolled_services,
    upstream_servers,
)
from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import render
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

WEB: dict[str, Any] = {"port": 8000, "health": {"path": "/ready", "expect": "ok", "release": "release"}}

NAMED = WEB | {"server_names": ["a.example.org"]}


def test_without_a_proxy_nothing_is_rolled() -> None:
    assert rolled_services({"web": WEB}, {}, []) == {}


def test_a_service_that_cannot_run_twice_is_not_rolled() -> None:
    assert rolled_services({"web": WEB, "solo": WEB}, {"solo": {"rollout": "recreate"}}, ["edge"]) == {"web": WEB}


def test_units_are_behind_the_proxy_even_when_they_cannot_run_twice() -> None:
    services = {"solo": {"rollout": "recreate"}}
    assert rolled_services({"solo": WEB}, services, ["edge"], "systemd") == {"solo": WEB}
    assert rolled_services({"solo": WEB}, services, [], "systemd") == {}


@pytest.mark.parametrize(
    ("services", "words"),
    [({"web": {"rolout": "recreate"}}, "rolout"), ({"web": {"rollout": "never"}}, "'never'")],
)
def test_a_mistake_in_app_services_is_named(services: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rolled_services({"web": WEB}, services, [])


def test_services_that_are_not_rolled_are_checked_as_one_project() -> None:
    [check] = other_checks(["db", "seed"], {"seed": {"one_shot": True}}, "stack")
    assert (check["services"], check["one_shots"]) == (["db", "seed"], ["seed"])
    assert other_checks([], {}, "stack") == []


def test_services_of_one_name_share_a_site_by_path() -> None:
    services = {
        "web": WEB | {"server_names": ["a.example.org"]},
        "api": WEB | {"server_names": ["a.example.org"], "path": "/api/", "read_timeout": 120},
        "other": WEB,
    }
    named, default = proxy_sites(services, "stack", ["web", "api", "other"], maintenance="keep")
    assert [location["path"] for location in named["locations"]] == ["/", "/api/"]
    assert named["locations"][1]["read_timeout"] == 120
    assert (named["default"], default["default"]) == (False, True)
    assert named["health_paths"] == ["/ready"]


@pytest.mark.parametrize(("asked", "expected"), [(True, True), ("off", False), ("on", True), ("keep", None)])
def test_maintenance_is_switched_or_left_as_it_is(asked: Any, expected: bool | None) -> None:
    [site] = proxy_sites({"web": WEB}, "stack", ["web"], asked)
    assert site.get("maintenance") is expected


def test_a_maintenance_that_is_neither_on_nor_off_is_named() -> None:
    with pytest.raises(InputError, match="app_maintenance is 'maybe'"):
        proxy_sites({"web": WEB}, "stack", ["web"], "maybe")


def test_two_services_on_one_path_of_one_site_are_refused() -> None:
    with pytest.raises(InputError, match="wants the path /"):
        proxy_sites({"a": WEB, "b": WEB}, "stack", ["a", "b"], maintenance="keep")


def test_the_gate_asks_the_proxy_by_the_public_name_for_the_new_release() -> None:
    [check] = proxy_checks({"web": WEB | {"server_names": ["a.example.org"]}}, "abc")
    assert (check["url"], check["address"]) == ("http://a.example.org/ready", "127.0.0.1")
    assert check["release"] == {"field": "release", "equals": "abc"}


def test_a_site_and_its_locations_take_what_a_service_says_of_them() -> None:
    tls = {"certificate": "a.example.org"}
    more = [
        {"path": "/live/", "upstream": {"service": "api"}},
        {"path": "/docs/", "static": {"directory": "/srv/docs"}},
    ]
    services = {
        "web": NAMED | {"site": {"tls": tls, "locations": more}, "location": {"body_size": "1g"}},
        "api": NAMED | {"path": "/api/", "site": {"tls": tls, "gzip": True}, "location": {"rate_limits": ["api"]}},
    }
    [site] = proxy_sites(services, "stack", ["web", "api"], maintenance="keep")
    assert (site["tls"], site["gzip"], site["server_names"]) == (tls, True, ["a.example.org"])
    assert [one["path"] for one in site["locations"]] == ["/", "/live/", "/docs/", "/api/"]
    assert [one.get("upstream") for one in site["locations"]] == [
        {"app": "stack", "service": "web"}, {"app": "stack", "service": "api"}, None, {"app": "stack", "service": "api"}
    ]  # fmt: skip
    assert (site["locations"][0]["body_size"], site["locations"][3]["rate_limits"]) == ("1g", ["api"])


@pytest.mark.parametrize(
    ("web", "api", "name"),
    [({}, {}, "stack-web"), ({"name": "stack-public"}, {}, "stack-public"), ({}, {"name": "own"}, "own")],
)
def test_a_site_has_the_name_that_one_of_its_services_gives_it(web: Any, api: Any, name: str) -> None:
    services = {"web": NAMED | {"site": web}, "api": NAMED | {"path": "/api/", "site": api}}
    [site] = proxy_sites(services, "stack", ["web", "api"], "keep")
    assert site["name"] == name


@pytest.mark.parametrize(
    ("web", "api", "words"),
    [
        ({"name": "one"}, {"name": "two"}, "api.site.name is not what another service says"),
        ({"tls": {"certificate": "a"}}, {"tls": {"certificate": "b"}}, "api.site.tls is not what another service says"),
        ({"server_names": ["b"]}, {}, "app_web_services.web.site has server_names"),
        ({"maintenance": True}, {}, "app_maintenance switches"),
        (
            {"locations": [{"upstream": {"service": "gone"}}]},
            {},
            "with the upstream gone, which is none of the services",
        ),
        ({"locations": [{"path": "/api/", "upstream": {"name": "x"}}]}, {}, "wants the path /api/"),
    ],
)
def test_a_mistake_in_what_services_say_of_a_site_is_named(web: Any, api: Any, words: str) -> None:
    services = {"web": NAMED | {"site": web}, "api": NAMED | {"path": "/api/", "site": api}}
    with pytest.raises(InputError, match=words):
        proxy_sites(services, "stack", ["web", "api"], "keep")


def test_what_follows_from_a_service_cannot_be_said_of_its_location() -> None:
    with pytest.raises(InputError, match=r"app_web_services\.web\.location has path"):
        proxy_sites({"web": WEB | {"location": {"path": "/x"}}}, "stack", ["web"], "keep")


def test_the_gate_asks_every_service_of_a_site_with_tls_over_tls() -> None:
    services = {"web": NAMED | {"site": {"tls": {"certificate": "a"}}}, "api": NAMED | {"path": "/api/"}, "other": WEB}
    web, api, other = proxy_checks(services, "abc")
    assert {web["url"], api["url"]} == {"https://a.example.org/ready"}
    assert (web["validate_certs"], api["validate_certs"]) == (False, False)
    assert other["url"] == "http://127.0.0.1/ready"


def test_the_gate_asks_at_the_ports_of_the_proxy() -> None:
    services = {"web": NAMED | {"site": {"tls": {"certificate": "a"}}}, "other": WEB}
    urls = [check["url"] for check in proxy_checks(services, "abc", "8080", 8443)]
    assert urls == ["https://a.example.org:8443/ready", "http://127.0.0.1:8080/ready"]


def test_upstreams_are_addresses_with_ports() -> None:
    endpoints = {"web": {"new": [{"host": "::1", "port": 20000}, {"host": "10.0.0.1", "port": 20001}], "old": []}}
    assert upstream_servers(["web"], endpoints, "new") == [
        {"service": "web", "servers": ["[::1]:20000", "10.0.0.1:20001"]}
    ]
    assert upstream_servers(["web"], endpoints, "old") == [{"service": "web", "servers": []}]


def container(service: str, release: str, *ports: dict[str, Any]) -> dict[str, Any]:
    """As in Docker's GET /containers/json."""
    labels = {"com.docker.compose.service": service, "org.groundwork.release": release}
    return {"Labels": labels, "Ports": list(ports)}


def test_servers_of_a_release_are_its_replicas_that_run_at_the_port_that_it_has() -> None:
    both = [{"IP": ip, "PrivatePort": 8000, "PublicPort": 20002} for ip in ("0.0.0.0", "::")]  # noqa: S104 - not bound
    containers = [
        container("web", "r1", {"IP": "10.0.0.1", "PrivatePort": 8000, "PublicPort": 20001}, {"PrivatePort": 9000}),
        container("web", "r1", *both),
        container("web", "r1"),
        container("web", "r2", {"IP": "10.0.0.1", "PrivatePort": 8000, "PublicPort": 20003}),
        container("db", "r1", {"IP": "10.0.0.1", "PrivatePort": 8000, "PublicPort": 20004}),
    ]
    assert release_servers(containers, {"web": WEB, "gone": WEB}, "r1") == [
        {"service": "web", "servers": ["10.0.0.1:20001", "127.0.0.1:20002"]},
        {"service": "gone", "servers": []},
    ]


def test_hooks_of_every_kind() -> None:
    found = hooks(
        ["touch 'a b'", {"service": "web", "command": ["python", "-m", "seed"]}, {"tasks": "hooks/x.yml"}],
        "after_switch",
    )
    assert [hook["kind"] for hook in found] == ["command", "service", "tasks"]
    assert found[0]["command"] == ["touch", "a b"]
    assert found[2]["label"] == "hooks/x.yml"


@pytest.mark.parametrize(
    ("entry", "when"), [({"cmd": "x"}, "before_migrate"), ("x", "before_all"), (5, "after_switch")]
)
def test_a_hook_that_is_none_is_named(entry: Any, when: str) -> None:
    with pytest.raises(InputError, match=f"app_hooks.{when}"):
        hooks([entry], when)


def test_migrations_are_recorded_with_what_they_lost() -> None:
    applied = [{"version": "3", "name": "drop", "lossy": ["drop-table"]}, {"revision": "ab", "message": "add"}]
    assert recorded_migrations([{"database": "d", "applied": applied}]) == [
        {"database": "d", "version": "3", "name": "drop", "lossy": ["drop-table"]},
        {"database": "d", "version": "ab", "name": "add", "lossy": []},
    ]


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        (1, [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ("2", [["a", "b"], ["c", "d"], ["e"]]),
        ("100%", [["a", "b", "c", "d", "e"]]),
        ("10%", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ([1, "40%"], [["a"], ["b", "c"], ["d", "e"]]),
    ],
)
def test_hosts_are_deployed_in_batches(serial: Any, expected: list[list[str]]) -> None:
    assert batches(list("abcde"), serial) == expected


@pytest.mark.parametrize("serial", ["many", 0, "-5%", [1, "x"]])
def test_a_serial_that_is_no_number_is_named(serial: Any) -> None:
    with pytest.raises(InputError, match="app_serial"):
        batches(list("abc"), serial)


def test_env_changes_name_variables_and_show_no_value() -> None:
    before = render({"SAME": "a=b\nX=1", "OLD": "1", "CHANGED": "se'cret\n$1"})
    after = render({"SAME": "a=b\nX=1", "CHANGED": "se'cret\n$2", "NEW": "2"})
    assert env_changes(before, after) == ["+ NEW", "- OLD", "~ CHANGED"]
