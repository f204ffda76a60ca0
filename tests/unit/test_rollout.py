# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Plans of a rollout, and what is read from Docker and Compose for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._compose import from_config
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import (
    Replica,
    endpoints,
    picture,
    read_replica,
)
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_health import checks_of, secrets_of
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_plan import (
    Wanted,
    plan_remove,
    plan_retire,
    plan_start,
    read_options,
    read_wanted,
    require_successors,
)

# Recorded from docker container inspect (26.1.5), shortened.
CONTAINER: dict[str, Any] = {
    "Id": "5b1e",
    "Name": "/shop-web-3",
    "Config": {
        "Env": ["APP_RELEASE=r2"],
        "Labels": {
            "com.docker.compose.container-number": "3",
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "web",
            "org.groundwork.release": "r2",
        },
    },
    "State": {"Status": "running", "Health": {"Status": "healthy"}},
    "HostConfig": {
        "PortBindings": {
            "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20002-20003"}],
            "53/udp": [{"HostIp": "", "HostPort": ""}],
        }
    },
    "NetworkSettings": {
        "Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20003"}], "9000/tcp": None, "53/udp": None}
    },
}
# Recorded from docker compose config --format json (2.26.1), shortened.
CONFIG: dict[str, Any] = {
    "services": {
        "web": {
            "image": "shop/web:r2",
            "labels": {"org.groundwork.release": "r2"},
            "deploy": {"replicas": 2},
            "ports": [{"mode": "ingress", "target": 8000, "published": "20002-20003", "protocol": "tcp"}],
        }
    }
}
HEALTH = {"path": "/health", "expect": "ok", "release": "release"}
SERVICES = {"web": {"port": "8000", "health": HEALTH, "server_names": ["shop.example"]}}
WEB = Wanted("web", 8000, HEALTH, 2, "shop/web:r2")


def replica(number: int, release: str, status: str = "running", service: str = "web", health: str = "") -> Replica:
    published = {"8000": ("127.0.0.1", 20000 + number)} if status == "running" else {}
    name = f"shop-{service}-{number}"
    return Replica(name, name, "shop", service, release, number, status, health, published, {})


def test_a_replica_is_read_from_docker() -> None:
    one = read_replica(CONTAINER)
    assert (one.name, one.project, one.service, one.release, one.number) == ("shop-web-3", "shop", "web", "r2", 3)
    assert one.published == {"8000": ("127.0.0.1", 20003)}
    assert one.bindings == {"8000": [20002, 20003]}
    assert one.alive
    assert one.serves


def test_a_container_of_plain_compose_has_no_release() -> None:
    labels = {"com.docker.compose.service": "web"}
    one = read_replica({**CONTAINER, "Config": {"Labels": labels}, "State": {"Status": "exited"}})
    assert (one.release, one.health, one.alive, one.stopped) == ("", "", False, True)


@pytest.mark.parametrize(
    ("host_ip", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")],  # noqa: S104 - compared
)
def test_how_the_host_reaches_a_port(host_ip: str, expected: str) -> None:
    ports = {"8000/tcp": [{"HostIp": host_ip, "HostPort": "1"}]}
    one = read_replica({**CONTAINER, "NetworkSettings": {"Ports": ports}})
    assert one.published == {"8000": (expected, 1)}


def test_what_is_wanted_comes_from_the_files_and_the_option() -> None:
    assert read_wanted(CONFIG, SERVICES, "r2") == [WEB]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"container_name": "web"}, "fixed container_name web"),
        ({"labels": {}}, "no release (label org.groundwork.release), and r2 was asked for"),
        ({"labels": {"org.groundwork.release": "r1"}}, "release r1 (label"),
        ({"ports": []}, "publishes no port"),
        ({"network_mode": "service:vpn"}, "network_mode: service:vpn"),
        ({"networks": {"default": {"ipv4_address": "10.9.0.2"}}}, "an address of its own"),
        ({"deploy": {"replicas": 0}}, "its number of replicas is 0"),
        ({"scale": 3}, "has 3 replicas and publishes 8000 on 20002-20003"),
        ({"ports": [{"target": 8000, "protocol": "tcp"}]}, "a port that the engine chooses"),
        ({"ports": [{"target": 8000, "published": "1-2", "protocol": "udp"}]}, "services.web.port is 8000"),
    ],
)
def test_files_that_do_not_let_a_service_roll(keys: dict[str, Any], words: str) -> None:
    service = {**CONFIG["services"]["web"], **keys}
    with pytest.raises(InputError) as caught:
        read_wanted({"services": {"web": service}}, SERVICES, "r2")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "deploy", "expected"), [(None, None, 1), (2, None, 2), (None, {"replicas": 3}, 3), (None, {}, 1)]
)
def test_the_number_of_replicas(scale: int | None, deploy: dict[str, int] | None, expected: int) -> None:
    assert from_config({"services": {"a": {"scale": scale, "deploy": deploy}}}).services["a"].replicas == expected


@pytest.mark.parametrize("options", [None, {}, {"port": 1}, {"port": "x", "health": HEALTH}, {"port": 1, "health": {}}])
def test_options_of_a_service_that_are_not_enough(options: Any) -> None:
    with pytest.raises(InputError, match=r"services\.web"):
        read_options("web", options)


@pytest.mark.parametrize(
    ("found", "missing", "scale", "leftovers"),
    [
        ([], 2, 2, []),
        ([replica(1, "r1"), replica(2, "r1")], 2, 4, []),
        ([replica(1, "r1"), replica(2, "r2")], 1, 3, []),
        ([replica(1, "r2"), replica(2, "r2", "restarting")], 0, 0, []),
        ([replica(1, "r1", "exited"), replica(2, "r2", "created")], 2, 2, [1, 2]),
        ([replica(1, "r1", "paused"), replica(2, "", "running"), replica(3, "r2", "dead")], 2, 4, [3]),
        ([replica(1, "r2"), replica(2, "r2"), replica(3, "r1", "exited")], 0, 0, []),
        ([replica(1, "r2", service="api"), replica(2, "r2", service="api")], 2, 2, []),
        ([replica(1, "r1", "removing")], 2, 3, []),
    ],
)
def test_plan_of_started(found: list[Replica], missing: int, scale: int, leftovers: list[int]) -> None:
    plan = plan_start([WEB], found, "r2")
    assert plan.missing == ({"web": missing} if missing else {})
    assert plan.scale == ({"web": scale} if scale else {})
    assert [one.number for one in plan.leftovers] == leftovers


def test_plans_of_retired_and_removed() -> None:
    found = [
        replica(1, "r1"),
        replica(2, ""),
        replica(3, "r2"),
        replica(4, "r2", "created"),
        replica(5, "r0", "exited"),
    ]
    assert [one.number for one in plan_retire(found, "r2")] == [1, 2, 4, 5]
    assert [one.number for one in plan_remove(found, "r2")] == [3, 4]


@pytest.mark.parametrize(
    "new",
    [[], [replica(2, "r2", "restarting")], [replica(2, "r2", health="starting")], [replica(2, "r2", service="api")]],
)
def test_a_service_is_not_left_without_a_healthy_replica(new: list[Replica]) -> None:
    old = replica(1, "r1")
    with pytest.raises(StateError, match="replicas of web were not retired: no healthy one of release r2"):
        require_successors([old], [old, *new], "r2")


def test_one_healthy_successor_is_enough_and_none_is_needed_for_nothing() -> None:
    found = [replica(1, "r1"), replica(2, "r2", health="healthy"), replica(3, "r2", health="unhealthy")]
    require_successors(found[:1], found, "r2")
    require_successors([], [], "r2")


def test_endpoints_are_of_what_runs() -> None:
    found = [replica(1, "r1"), replica(2, "r2"), replica(3, "r2", "created")]
    assert endpoints(SERVICES, found, "r2") == {
        "web": {
            "new": [{"host": "127.0.0.1", "port": 20002, "container": "shop-web-2"}],
            "old": [{"host": "127.0.0.1", "port": 20001, "container": "shop-web-1"}],
        }
    }


def test_the_picture_of_a_diff() -> None:
    found = [replica(2, ""), replica(1, "r1", health="healthy")]
    assert picture(found, {"web": ["(new)"], "api": ["(new)"]}) == {
        "api": ["(new)"],
        "web": ["(new)", "shop-web-1: release r1, healthy", "shop-web-2: release unknown, running"],
    }


def test_checks_of_a_replica() -> None:
    """Its container and its own port, at an address that may be IPv6; without a port, the container only."""
    one = replace(replica(1, "r2"), published={"8000": ("::1", 20001)})
    container, http = checks_of(WEB, [one, replica(2, "r2", service="api")], "r2")
    assert container["container"] == "shop-web-1"
    assert http["url"] == "http://[::1]:20001/health"
    assert http["jmespath"] == "ok"
    assert http["release"] == {"field": "release", "equals": "r2"}
    assert [check["kind"] for check in checks_of(WEB, [replica(1, "r2", "restarting")], "r2")] == ["container"]


def test_secrets_in_the_environment_of_containers() -> None:
    env = ["DB_PASSWORD=hunter22", "DSN=short", "URL=postgres://app:s3cret-9@db/x", "LEVEL=information", "EMPTY", "A=["]
    assert secrets_of([{"Config": {"Env": env}}, {"Config": {"Env": None}}]) == {"hunter22", "s3cret-9"}
