# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""compose_rollout on a host with a real engine, through Ansible: the three states when all goes well."""

from __future__ import annotations

from typing import Any

import pytest
from support.rolling import PORT, SERVICE, Rolling, web

# Prints how many requests wrk made, and how many of them failed.
LOAD = """
done = function(summary)
  local e = summary.errors
  print(summary.requests, e.connect + e.read + e.write + e.status + e.timeout)
end
"""


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [one["container"] for one in entries]


def test_two_replicas_are_replaced_by_two(stack: Rolling) -> None:
    """Each step in check mode, for real, and again."""
    stack.release("r1", {"web": web(2)})
    planned = stack.good("started", "r1", check=True)
    assert (planned["changed"], planned["services"], stack.running()) == (True, ["web"], {})
    first = stack.good("started", "r1")
    assert first["changed"]
    assert first["started"] == ["shop-web-1", "shop-web-2"]
    assert [one["port"] for one in first["endpoints"]["web"]["new"]] in ([20000, 20001], [20001, 20000])

    assert stack.release("r2", {"web": web(2)})["rolled"]["web"]["ports"] == {"8000": [20002, 20003]}
    both = stack.good("started", "r2")
    assert names(both["endpoints"]["web"]["old"]) == ["shop-web-1", "shop-web-2"]
    assert names(both["endpoints"]["web"]["new"]) == ["shop-web-3", "shop-web-4"]
    for which, release in (("old", "r1"), ("new", "r2")):
        assert {stack.answer(at)["release"] for at in both["endpoints"]["web"][which]} == {release}
    assert set(stack.running().values()) == {"r1 running", "r2 running"}
    assert not stack.good("started", "r2")["changed"]
    assert not stack.good("started", "r2", check=True)["changed"]
    assert not stack.override("r2")["changed"]

    before = stack.running()
    assert stack.good("retired", "r2", check=True)["removed"] == ["shop-web-1", "shop-web-2"]
    assert stack.running() == before
    last = stack.good("retired", "r2")
    assert (last["changed"], last["removed"]) == (True, ["shop-web-1", "shop-web-2"])
    assert stack.running() == {"shop-web-3": "r2 running", "shop-web-4": "r2 running"}
    assert not stack.good("retired", "r2")["changed"]
    assert not stack.good("retired", "r2", check=True)["changed"]


def test_what_is_new_is_taken_away(stack: Rolling) -> None:
    for release in ("r1", "r2"):
        stack.release(release)
        stack.good("started", release)
    assert stack.good("removed", "r2", check=True)["removed"] == ["shop-web-2"]
    assert len(stack.running()) == 2
    gone = stack.good("removed", "r2")
    assert (gone["changed"], gone["removed"]) == (True, ["shop-web-2"])
    assert names(gone["endpoints"]["web"]["old"]) == ["shop-web-1"]
    assert stack.running() == {"shop-web-1": "r1 running"}
    assert not stack.good("removed", "r2")["changed"]


def test_the_diff_shows_the_replicas(stack: Rolling) -> None:
    stack.release("r1")
    planned = stack.good("started", "r1", check=True)
    assert planned["diff"] == {"before": {}, "after": {"web": ["(a new replica)"]}}
    real = stack.good("started", "r1")
    assert real["diff"] == {"before": {}, "after": {"web": ["shop-web-1: release r1, running"]}}


def test_a_plain_compose_container_is_an_old_replica(stack: Rolling) -> None:
    """A stack that was started by hand, with its fixed name and port, goes on serving beside the first release."""
    stack.release("r1")
    stack.host.sh(f"docker compose -p shop -f {stack.folder('r1')}/compose.yml up -d", check=False)
    assert list(stack.running()) == ["fixed_name"]
    both = stack.good("started", "r1")
    assert both["endpoints"]["web"]["old"] == [{"host": "127.0.0.1", "port": PORT, "container": "fixed_name"}]
    assert stack.answer(both["endpoints"]["web"]["old"][0])["release"] == "none"
    assert names(both["endpoints"]["web"]["new"]) == ["shop-web-2"]
    stack.good("retired", "r1")
    assert list(stack.running()) == ["shop-web-2"]


@pytest.mark.slow
def test_new_replicas_have_anonymous_volumes_of_their_own(stack: Rolling) -> None:
    """And those of the old ones go with them, so that deploys do not fill the disk."""
    volumes = []
    for release in ("r1", "r2"):
        stack.release(release)
        name = stack.good("started", release)["started"][0]
        volumes += [one["Name"] for one in stack.inspect(name)["Mounts"] if one["Destination"] == "/data"]
    assert len(set(volumes)) == 2
    stack.good("retired", "r2")
    left = stack.host.sh("docker volume ls -q").split()
    assert (volumes[0] in left, volumes[1] in left) == (False, True)


def test_several_ports_and_addresses(stack: Rolling) -> None:
    """IPv4 and IPv6 addresses of the user's file give one port each for the proxy."""
    ports = [f"127.0.0.1:8000:{PORT}", f"[::1]:8000:{PORT}", "9000:9000", "9000:9000/udp"]
    result = stack.release("r1", {"web": web(2, ports=ports)})
    assert result["rolled"]["web"]["ports"] == {
        "8000": [20000, 20001],
        "9000": [20002, 20003],
        "9000/udp": [20004, 20005],
    }
    assert result["endpoints"]["web"] == {
        "8000": {"host": "127.0.0.1", "port": 20000},
        "9000": {"host": "127.0.0.1", "port": 20002},
    }
    started = stack.good("started", "r1")
    assert {at["port"] for at in started["endpoints"]["web"]["new"]} == {20000, 20001}


def test_an_ipv6_address_for_the_proxy(stack: Rolling) -> None:
    stack.host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0")
    stack.release("r1", bind_address="::1")
    started = stack.good("started", "r1")
    [at] = started["endpoints"]["web"]["new"]
    assert (at["host"], at["port"]) == ("::1", 20000)
    assert stack.answer(at)["release"] == "r1"


def test_services_start_side_by_side(stack: Rolling) -> None:
    """Each becomes ready only when the other one runs, although one names the other as a dependency."""
    stack.services = {"api": SERVICE, "front": SERVICE}
    check = {"test": ["CMD", "ls", "/files/front"], "interval": "200ms"}
    services = {
        "api": web(environment={"STARTED": "api", "WAIT_FOR": "front"}, container_name="a", healthcheck=check),
        "front": web(
            environment={"STARTED": "front", "WAIT_FOR": "api"},
            container_name="b",
            ports=[f"8001:{PORT}"],
            depends_on={"api": {"condition": "service_healthy"}},
        ),
    }
    stack.release("r1", services)
    result = stack.good("started", "r1")
    assert result["services"] == ["api", "front"]
    assert stack.running() == {"shop-api-1": "r1 running", "shop-front-1": "r1 running"}


def test_a_dependency_is_neither_started_nor_touched(stack: Rolling) -> None:
    stack.release("r1", {"web": web(depends_on=["db"]), "db": web(container_name="db", ports=[])})
    stack.good("started", "r1")
    assert list(stack.running()) == ["shop-web-1"]


def test_a_service_of_a_profile(stack: Rolling) -> None:
    env_file = f"{stack.folder('r1')}/.env"
    stack.host.write(env_file, "COMPOSE_PROFILES=web\n")
    stack.release("r1", {"web": web(profiles=["web"])}, env_files=[env_file])
    assert stack.good("started", "r1", env_files=[env_file])["started"] == ["shop-web-1"]


def test_configs_and_secrets_of_the_release(stack: Rolling) -> None:
    services = {"web": web(configs=["motd"], secrets=["token"])}
    stack.write("r1", services, configs={"motd": {"content": "hello"}}, secrets={"token": {"file": "./token"}})
    stack.host.write(f"{stack.folder('r1')}/token", "canary-secret-9")
    assert not stack.override("r1").get("failed")
    result = stack.good("started", "r1")
    assert stack.host.sh("docker exec shop-web-1 cat /motd /run/secrets/token") == "hellocanary-secret-9"
    assert "canary-secret-9" not in result["_printed"]


@pytest.mark.slow
def test_a_reboot_keeps_the_ports(stack: Rolling) -> None:
    """Of two sets of replicas, so that what the proxy knows is still right."""
    for release in ("r1", "r2"):
        stack.release(release, {"web": web(2)})
        before = stack.good("started", release)["endpoints"]["web"]
    stack.host.reboot()
    result = stack.good("started", "r2")
    assert not result["changed"]
    after = result["endpoints"]["web"]
    for which in ("new", "old"):
        assert sorted(at["port"] for at in after[which]) == sorted(at["port"] for at in before[which])
    assert not stack.override("r2")["changed"]


def test_old_replicas_answer_all_the_time(stack: Rolling) -> None:
    """Requests go on while the new ones start, and nothing is stopped before it is retired."""
    stack.release("r1", {"web": web(2)})
    stack.good("started", "r1")
    begun = {name: stack.inspect(name)["State"]["StartedAt"] for name in stack.running()}
    stack.host.write("/srv/load.lua", LOAD)
    wrk = "wrk -t1 -c4 -d1s -s /srv/load.lua http://127.0.0.1:$port/ | tail -n 1"
    again = f"while [ ! -e /srv/enough ]; do {wrk}; done; echo end"
    stack.host.sh(f"rm -f /srv/enough; for port in 20000 20001; do ({again}) >/srv/load.$port 2>&1 & done")
    stack.release("r2", {"web": web(2)})
    stack.good("started", "r2")
    stack.host.sh("touch /srv/enough; for f in /srv/load.*; do until grep -q end $f; do sleep 0.1; done; done")
    for port in (20000, 20001):
        told = [line.split() for line in stack.host.sh(f"grep -v end /srv/load.{port}").splitlines()]
        assert sum(int(requests) for requests, _ in told) > 100
        assert sum(int(errors) for _, errors in told) == 0
    assert {name: stack.inspect(name)["State"]["StartedAt"] for name in begun} == begun
