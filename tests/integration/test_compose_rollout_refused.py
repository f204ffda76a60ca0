# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""compose_rollout on a host with a real engine, through Ansible: releases that do not come up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.docker_host import DockerHost
from support.rolling import SERVICE, Rolling, web

OLD = {"shop-web-1": "r1 running"}


@pytest.fixture(scope="module")
def stack(app_host: DockerHost) -> Iterator[Rolling]:
    """A stack whose release r1 runs, and which no refused release harms."""
    rolling = Rolling(app_host, "shop")
    rolling.release("r1")
    rolling.good("started", "r1")
    yield rolling
    rolling.clean()


@pytest.fixture
def own(app_host: DockerHost) -> Iterator[Rolling]:
    """Another stack, of which nothing runs."""
    rolling = Rolling(app_host, "own")
    yield rolling
    rolling.clean()


def refused(stack: Rolling, release: str = "r2", state: str = "started", **options: Any) -> dict[str, Any]:
    """The failure of a release; what ran before still runs, and nothing else."""
    before = {name: stack.inspect(name)["State"]["StartedAt"] for name in OLD}
    result = stack.run(state, release, **options)
    assert result.get("failed"), "it was meant to fail"
    assert not result["changed"]
    assert stack.running() == OLD
    assert {name: stack.inspect(name)["State"]["StartedAt"] for name in OLD} == before
    return result


def test_a_crash_loop_is_given_up_early_with_its_log(stack: Rolling) -> None:
    """The log is there, without the secrets of the environment."""
    secrets = {"DATABASE_URL": "postgresql://app:canary-7-dbpass@db/app", "API_TOKEN": "canary-7-token"}
    stack.release("r2", {"web": web(environment={"CRASH": "1", **secrets})})
    result = refused(stack, timeout=200)
    assert result["msg"].startswith("Release r2 of shop is not started: ")
    assert "web: container shop-web-2: shop-web-2 is in a restart loop" in result["msg"]
    assert result["msg"].endswith("The new replicas were removed. What ran before still runs.")
    assert result["service"] == "web"
    assert result["checks"]["web: container shop-web-2"]["state"] == "failed"
    lines = result["logs"]["shop-web-2"]
    assert len(lines) == 200
    assert any(line.endswith("cannot connect to postgresql://app:********@db/app with ********") for line in lines)
    assert "canary-7" not in result["_printed"]


def test_a_container_that_ends_and_is_not_restarted(stack: Rolling) -> None:
    stack.release("r2", {"web": web(environment={"CRASH": "1"}, restart="no")})
    result = refused(stack, timeout=200)
    assert "shop-web-2 exited with 3" in result["msg"]
    assert result["checks"]["web: container shop-web-2"]["state"] == "failed"


def test_nothing_listens_on_the_port(stack: Rolling) -> None:
    """Docker's proxy takes the connection all the same."""
    stack.release("r2", {"web": web(environment={"LISTEN": "9000"})})
    result = refused(stack, timeout=6)
    assert "web: http://127.0.0.1:20001/health: " in result["msg"]
    assert result["checks"]["web: http://127.0.0.1:20001/health"]["state"] == "timeout"
    assert any(line.endswith("hello from r2") for line in result["logs"]["shop-web-2"])


def test_another_release_answers(stack: Rolling) -> None:
    stack.release("r2", {"web": web(environment={"TELLS": "r1"})})
    assert 'another release answers: release is "r1", expected "r2"' in refused(stack, timeout=4)["msg"]


def test_a_health_check_that_fails(stack: Rolling) -> None:
    check = {"test": ["CMD-SHELL", "echo no queue; exit 1"], "interval": "200ms", "retries": 1}
    stack.release("r2", {"web": web(healthcheck=check)})
    assert "shop-web-2 is unhealthy: no queue" in refused(stack, timeout=6)["msg"]


def test_the_first_release_of_a_stack_is_refused_too(own: Rolling) -> None:
    own.release("r1", {"web": web(environment={"TELLS": "r0"})})
    result = own.run("started", "r1", timeout=4)
    assert result["msg"].endswith("The new replicas were removed.")
    assert own.running() == {}


def test_one_bad_service_takes_all_new_replicas_away(stack: Rolling) -> None:
    two = replace(stack, services={"web": SERVICE, "api": SERVICE})
    bad = web(environment={"CRASH": "1"}, container_name="a", ports=["8001:8000"])
    two.release("r2", {"web": web(), "api": bad})
    assert refused(two, timeout=200)["service"] == "api"


def test_an_image_that_is_not_there(stack: Rolling) -> None:
    stack.release("r2", {"web": web(image="gw/absent:7")})
    assert refused(stack)["msg"] == (
        "The image gw/absent:7 of the service 'web' is not on this host; nothing was started. Build or pull it first."
    )


def test_a_port_that_was_taken_meanwhile(stack: Rolling) -> None:
    stack.release("r2")
    stack.host.sh("systemd-run --quiet --unit=gw-late python3 -m http.server --bind 127.0.0.1 20001")
    stack.host.sh("until ss -Htln | grep -q :20001; do sleep 0.1; done")
    result = refused(stack)
    stack.host.sh("systemctl stop gw-late")
    assert "Could not start new replicas of web: " in result["msg"]
    assert "address already in use" in result["msg"]
    assert "write the override again" in result["msg"]
    assert "Creating" not in result["msg"]


def test_files_that_do_not_fit(stack: Rolling) -> None:
    """Each is a sentence before anything is started."""
    stack.release("r2")
    alone = [f"{stack.folder('r2')}/compose.yml"]
    told = refused(stack, files=alone)["msg"]
    assert "has the fixed container_name fixed_name" in told
    assert "give the service 'web' no release (label org.groundwork.release), and r2 was asked for" in told
    files = [*alone, f"{stack.folder('r2')}/override.yml"]
    assert "give the service 'web' release r2" in refused(stack, release="r9", files=files)["msg"]
    wrong = {"web": {**SERVICE, "port": 81}}
    assert (
        "services.web.port is 81, and the service publishes these container ports: 8000"
        in refused(stack, services=wrong)["msg"]
    )
    assert (
        "There is no service 'wep' in the compose files, which have: web"
        in refused(stack, services={"wep": SERVICE})["msg"]
    )
    stack.write("r2", {"web": web(network_mode="host", ports=[])})
    assert "The service 'web' cannot be rolled: it has network_mode: host" in refused(stack, files=alone)["msg"]


def test_options_that_do_not_fit(stack: Rolling) -> None:
    stack.release("r2")
    assert (
        "services.web needs port, a container port, and health.path"
        in refused(stack, services={"web": {"port": 8000}})["msg"]
    )
    health = {"path": "/health", "expect": "ok ||"}
    told = refused(stack, services={"web": {"port": 8000, "health": health}})["msg"]
    assert "jmespath is not a JMESPath expression" in told
    assert refused(stack, timeout=0)["msg"].startswith("timeout is 0.")


def test_nothing_is_retired_before_the_new_ones_are_healthy(stack: Rolling) -> None:
    """Check mode tells what would go, and warns."""
    told = refused(stack, state="retired")["msg"]
    assert told == (
        "The replicas of web were not retired: no healthy one of release r2 runs (there is none). "
        "Start the release first (state started); what ran before still runs."
    )
    planned = stack.good("retired", "r2", check=True)
    assert planned["removed"] == ["shop-web-1"]
    assert any("a real run would refuse" in str(one) for one in planned["warnings"])


def test_nothing_is_retired_when_the_new_one_became_unhealthy(own: Rolling) -> None:
    own.release("r1")
    own.good("started", "r1")
    own.host.sh("touch /srv/files/well")
    check = {"test": ["CMD", "ls", "/files/well"], "interval": "200ms", "retries": 1}
    own.release("r2", {"web": web(healthcheck=check)})
    own.good("started", "r2")
    health = "docker inspect -f '{{.State.Health.Status}}' own-web-2"
    own.host.sh(f"rm /srv/files/well; until {health} | grep -q unhealthy; do sleep 0.1; done")
    result = own.run("retired", "r2")
    assert "no healthy one of release r2 runs (own-web-2: release r2, unhealthy)" in result["msg"]
    assert set(own.running()) == {"own-web-1", "own-web-2"}


def test_an_existing_replica_that_is_not_healthy_is_not_removed(own: Rolling) -> None:
    """Only what a run itself started is taken away: this one may be what serves."""
    own.release("r1")
    own.good("started", "r1")
    own.host.sh("docker pause own-web-1")
    result = own.run("started", "r1", timeout=3)
    assert result["msg"].startswith("Release r1 of own is not healthy: ")
    assert own.running() == {"own-web-1": "r1 paused"}
