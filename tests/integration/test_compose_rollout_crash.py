# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""compose_rollout on a host with a real engine, through Ansible: killed in the middle, and how containers are ended."""

from __future__ import annotations

import pytest
from support.rolling import Rolling, web

# On this host only Ansible's processes have these names; what runs in containers is called python.
KILL = "for p in $(pgrep -x python3; pgrep -x docker; pgrep -x docker-compose); do kill -9 $p 2>/dev/null || true; done"
NEW_SET = {"shop-web-3": "r2 running", "shop-web-4": "r2 running"}


def until(condition: str) -> str:
    return f"until {condition}; do sleep 0.02; done; "


def roll(stack: Rolling) -> set[str]:
    """Start and retire r2; the releases of the replicas that remain."""
    stack.good("started", "r2")
    stack.good("retired", "r2")
    assert not stack.good("started", "r2")["changed"]
    volumes = stack.host.sh("docker volume ls -q --filter dangling=true").split()
    assert volumes == []
    return set(stack.running().values())


@pytest.mark.parametrize("state", ["created", "running"])
def test_killed_while_new_replicas_start(stack: Rolling, state: str) -> None:
    """As soon as the first of them is there, or runs. Meanwhile the old ones serve."""
    stack.release("r1", {"web": web(2)})
    stack.good("started", "r1")
    stack.release("r2", {"web": web(2, environment={"WAIT_FOR": "go"})})
    process = stack.host.start_module("compose_rollout", stack.arguments("r2"))
    only = "" if state == "created" else "--filter status=running"
    stack.host.sh(until(f"docker ps -aq --filter label=org.groundwork.release=r2 {only} | grep -q .") + KILL)
    process.communicate(timeout=120)
    assert list(stack.running().values()).count("r1 running") == 2
    stack.host.sh("touch /srv/files/go")
    assert roll(stack) == {"r2 running"}
    assert len(stack.running()) == 2


@pytest.mark.slow
def test_leftovers_that_never_started_are_replaced(stack: Rolling) -> None:
    """As a kill between the creation and the start of containers leaves them, with a stopped one of the old release."""
    stack.release("r1", {"web": web(2)})
    stack.good("started", "r1")
    stack.release("r2", {"web": web(2)})
    folder = stack.folder("r2")
    stack.host.sh(
        f"docker compose -p shop -f {folder}/compose.yml -f {folder}/override.yml "
        "create --no-recreate --scale web=4 2>/dev/null; docker stop shop-web-1"
    )
    assert list(stack.running().values()) == ["r1 exited", "r1 running", "r2 created", "r2 created"]
    planned = stack.good("started", "r2", check=True)
    assert planned["removed"] == ["shop-web-1", "shop-web-3", "shop-web-4"]
    assert len(stack.running()) == 4
    result = stack.good("started", "r2")
    assert result["removed"] == planned["removed"]
    assert [one["container"] for one in result["endpoints"]["web"]["old"]] == ["shop-web-2"]
    assert roll(stack) == {"r2 running"}


@pytest.mark.slow
def test_one_replica_is_missing(stack: Rolling) -> None:
    """Only that one is started, on the port that is free."""
    stack.release("r2", {"web": web(2)})
    before = stack.good("started", "r2")["endpoints"]["web"]["new"]
    stack.host.sh("docker rm -fv shop-web-1")
    result = stack.good("started", "r2")
    assert result["started"] == ["shop-web-3"]
    assert sorted(at["port"] for at in result["endpoints"]["web"]["new"]) == sorted(at["port"] for at in before)


def test_killed_while_old_replicas_are_retired(stack: Rolling) -> None:
    stack.release("r1", {"web": web(2, environment={"STOP_SECONDS": "2"}, stop_grace_period="60s")})
    stack.good("started", "r1")
    stack.release("r2", {"web": web(2)})
    stack.good("started", "r2")
    process = stack.host.start_module("compose_rollout", stack.arguments("r2", state="retired"))
    stack.host.sh(until("docker logs shop-web-1 2>&1 | grep -q stopping") + KILL)
    process.communicate(timeout=120)
    assert stack.running().items() >= NEW_SET.items()
    assert stack.good("retired", "r2")["changed"]
    assert stack.running() == NEW_SET
    assert roll(stack) == {"r2 running"}


def test_ended_by_a_signal_it_takes_the_new_ones_away(stack: Rolling) -> None:
    stack.release("r1")
    stack.good("started", "r1")
    stack.release("r2", {"web": web(environment={"WAIT_FOR": "never"})})
    process = stack.host.start_module("compose_rollout", stack.arguments("r2"))
    running = "docker ps -q --filter label=org.groundwork.release=r2 | grep -q ."
    stack.host.sh(until(running) + "pkill -TERM -x python3")
    process.communicate(timeout=120)
    assert stack.running() == {"shop-web-1": "r1 running"}


@pytest.mark.slow
def test_a_container_that_needs_time_finishes_its_work(stack: Rolling) -> None:
    """With the signal that it asked for, however long it takes within its grace period."""
    stack.release("r1", {"web": web(environment={"STOP_SECONDS": "3"}, stop_grace_period="60s", stop_signal="SIGUSR1")})
    stack.good("started", "r1")
    stack.release("r2")
    stack.good("started", "r2")
    assert not stack.good("retired", "r2").get("failed")
    assert stack.host.sh("cat /srv/files/finished-r1") == "SIGUSR1"
    assert stack.running() == {"shop-web-2": "r2 running"}


@pytest.mark.slow
def test_a_container_that_ignores_the_signal_is_killed(stack: Rolling) -> None:
    """After the grace period, and those that end by themselves are not waited for one after the other."""
    stack.release("r1", {"web": web(environment={"IGNORE_TERM": "1"}, stop_grace_period="2s")})
    stack.good("started", "r1")
    stack.release("r2")
    stack.good("started", "r2")
    stack.good("retired", "r2")
    assert stack.running() == {"shop-web-2": "r2 running"}
