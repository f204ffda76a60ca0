# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""compose_override on a host with a real engine, through Ansible: the ports of rolled services."""

from __future__ import annotations

import pytest
from support.rolling import IMAGE, SERVICE, Rolling, web


def test_taken_ports_are_skipped(stack: Rolling) -> None:
    """A program listens on one, and a container of another stack that does not even run is configured with others."""
    stack.host.sh(f"docker create --name other -p 127.0.0.1:20002-20003:80 {IMAGE} >/dev/null")
    stack.host.sh("systemd-run --quiet --unit=gw-listen python3 -m http.server --bind 127.0.0.1 20000")
    stack.host.sh("until ss -Htln | grep -q :20000; do sleep 0.1; done")
    result = stack.release("r1", {"web": web(2)})
    stack.host.sh("systemctl stop gw-listen; docker rm other >/dev/null")
    assert result["rolled"] == {"web": {"replicas": 2, "ports": {"8000": [20004, 20005]}}}
    assert stack.override("r1")["rolled"]["web"]["ports"] == {"8000": [20000, 20001]}


def test_two_services_get_ports_of_their_own(stack: Rolling) -> None:
    stack.services = {"api": SERVICE, "web": SERVICE}
    services = {"api": web(container_name="a"), "web": web(2, ports=["8001:8000"])}
    rolled = stack.release("r1", services, port_range="21000-21002")["rolled"]
    assert {name: one["ports"]["8000"] for name, one in rolled.items()} == {"api": [21000], "web": [21001, 21002]}


def test_the_ports_of_this_release_are_kept_while_it_has_containers(stack: Rolling) -> None:
    """Also when these are stopped, and when others have become free meanwhile; another release gets others."""
    stack.release("r1")
    stack.good("started", "r1")
    assert stack.release("r2")["rolled"]["web"]["ports"] == {"8000": [20001]}
    stack.good("started", "r2")
    stack.good("retired", "r2")
    assert not stack.override("r2")["changed"]
    stack.host.sh("docker stop shop-web-2")
    assert not stack.override("r2")["changed"]
    assert stack.release("r3")["rolled"]["web"]["ports"] == {"8000": [20000]}


def test_check_mode_tells_and_writes_nothing(stack: Rolling) -> None:
    stack.write("r1")
    result = stack.override("r1", check=True)
    assert (result["changed"], result["rolled"]["web"]["ports"]) == (True, {"8000": [20000]})
    assert '"published": "20000"' in result["diff"]["after"]
    assert stack.host.sh(f"ls {stack.folder('r1')}").split() == ["compose.yml"]


def test_a_range_that_is_used_up(stack: Rolling) -> None:
    stack.write("r1", {"web": web(3)})
    result = stack.override("r1", port_range="20000-20001")
    assert result["failed"]
    assert "The service 'web' needs 3 free ports in a row for its container port 8000" in result["msg"]
    assert "20000-20001 (port_range)" in result["msg"]


def test_an_address_that_the_host_does_not_have(stack: Rolling) -> None:
    stack.write("r1")
    result = stack.override("r1", bind_address="192.0.2.7")
    assert result["failed"]
    assert result["msg"].startswith("bind_address is 192.0.2.7, which is no address of this host.")


def test_services_that_cannot_be_rolled(stack: Rolling) -> None:
    """All that stands in the way is said at once, before anything is written."""
    for keys, words in (
        ({"network_mode": "host", "ports": []}, "it has network_mode: host"),
        ({"ports": []}, "it publishes no port"),
    ):
        stack.write("r1", {"web": web(**keys)})
        result = stack.override("r1", web_services={})
        assert result["failed"]
        assert f"The service 'web' cannot be rolled: {words}" in result["msg"]
        assert "set app_services.web.rollout to recreate" in result["msg"]
    assert stack.host.sh(f"ls {stack.folder('r1')}").split() == ["compose.yml"]


def test_no_value_of_the_environment_is_shown(stack: Rolling) -> None:
    result = stack.release("r1", {"web": web(environment={"DB_PASSWORD": "canary-override-1"})})
    assert "canary-override-1" not in result["_printed"]
    assert "canary-override-1" not in stack.host.sh(f"cat {stack.folder('r1')}/override.yml")


@pytest.mark.slow
def test_a_service_is_recreated_when_only_a_file_changed_that_it_mounts(stack: Rolling) -> None:
    """And it is left alone when nothing did, and when it wrote into its mounts itself."""
    stack.services = {}
    note = {"image": IMAGE, "volumes": ["./conf:/conf", "./one.txt:/one.txt"], "stop_grace_period": "1s"}
    store = {"image": IMAGE, "volumes": ["./conf:/conf"], "stop_grace_period": "1s"}
    link = f"{stack.folder('project')}"

    def deploy(release: str, text: str) -> list[str]:
        stack.write(release, {"note": note, "store": store})
        stack.host.write(f"{stack.folder(release)}/conf/deep/a.conf", text)
        stack.host.write(f"{stack.folder(release)}/one.txt", "one\n")
        return up(release)

    def up(release: str) -> list[str]:
        result = stack.override(release, required_services={"app_store_services": "store"})
        assert not result.get("failed"), result["msg"]
        folder = stack.folder(release)
        stack.host.sh(
            f"ln -sfn {folder} {link}; docker compose --project-name {stack.project} --project-directory {link} "
            f"--file {folder}/compose.yml --file {folder}/override.yml up --detach --quiet-pull 2>&1"
        )
        return [stack.inspect(f"{stack.project}-{name}-1")["Id"] for name in ("note", "store")]

    first = deploy("r1", "a\n")
    stack.host.sh(f"docker exec {stack.project}-note-1 sh -c 'echo written >/conf/own'")
    assert up("r1") == first
    assert deploy("r2", "a\n") == first
    changed = deploy("r3", "b\n")
    assert changed[0] != first[0]
    assert changed[1] == first[1], "a store is not interrupted for a mounted file"
    assert up("r1")[0] != changed[0]
