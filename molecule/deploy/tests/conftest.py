# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: two app hosts and a proxy, and what clients and containers say."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection, scenario
from support.scenario import Playbook, connect, copy_source

collection.install()

SCENARIO = ROOT / "molecule" / "deploy"
# A release that is refused gets to no other host, so that one is enough to see it.
ONE = ("--limit", "deploy-one,deploy-proxy")
ADDRESSES = {"deploy-one": "198.18.0.103", "deploy-two": "198.18.0.104", "deploy-proxy": "198.18.0.105"}


@dataclass(frozen=True)
class Fleet:
    """The hosts of the scenario."""

    one: Host
    two: Host
    proxy: Host

    def releases(self) -> list[str]:
        """What the link "current" says on both app hosts."""
        return [scenario.current_release(host, "relay") for host in (self.one, self.two)]

    def served(self, times: int = 12) -> set[str]:
        """The releases that answer through the proxy, which asks the hosts in turn."""
        return {answer["release"] for answer in self.answers("/ready", times)}

    def ask(self, path: str = "/ready") -> Any:
        """The JSON answer of the service through the proxy, from the proxy host's own loopback."""
        [answer] = self.answers(path, 1)
        return answer

    def answers(self, path: str, times: int) -> list[Any]:
        """The answers to so many requests, one after the other, each on a connection of its own."""
        asked = self.proxy.check_output(
            "curl --silent --show-error --fail --fail-early --max-time 10 --header %s --header %s --write-out %s"
            + times * " %s",
            "Host: relay.example.org",
            "Connection: close",
            r"\n",
            *times * [f"http://127.0.0.1{path}"],
        )
        answers = [json.loads(line) for line in asked.splitlines()]
        assert len(answers) == times, asked
        return answers

    def replicas(self) -> list[list[str]]:
        """On both app hosts the releases of the containers of the web service, also of stopped ones."""
        command = (
            "sudo docker ps --all --filter label=com.docker.compose.project=relay "
            "--filter label=com.docker.compose.service=web --format '{{.Label \"org.groundwork.release\"}}'"
        )
        return [sorted(host.check_output(command).split()) for host in (self.one, self.two)]

    def managed(self, *folders: str) -> str:
        """The files in these folders of nginx's managed configuration, with their names."""
        find = f"cd /etc/nginx/groundwork/live/ && find {' '.join(folders)} -type f | sort | xargs tail -vn +1"
        return self.proxy.check_output("sudo sh -c %s", find)

    def wait_until_only_others_serve(self, release: str, times: int = 240) -> None:
        """Wait until the proxy does not ask a replica of *release* any more."""
        for _ in range(times):
            if release not in self.served():
                return
            time.sleep(0.2)
        raise AssertionError(f"{release} is still served")

    def headers(self, path: str, name: str = "relay.example.org") -> str:
        """Status line and headers of an answer of the proxy."""
        return self.proxy.check_output(
            "curl --silent --output /dev/null --dump-header - --header %s %s",
            f"Host: {name}",
            f"http://127.0.0.1{path}",
        )

    def wait_for(self, path: str, seconds: int = 300) -> None:
        """Wait until a file is on the first host."""
        self.one.check_output("sudo timeout %s sh -c %s", str(seconds), f"until test -e {path}; do sleep 0.1; done")

    def stop_at_hook(
        self, playbook: Playbook, hook: str, number: signal.Signals, *arguments: str, **variables: Any
    ) -> None:
        """Start a deploy, and end ansible-playbook with a signal while it is at a hook on the first host."""
        mark = "/run/at-hook"
        deploy = playbook.start("deploy", *arguments, app_hooks={hook: [f"sh -c 'touch {mark}; sleep 5'"]}, **variables)
        try:
            self.wait_for(mark)
        finally:
            os.killpg(deploy.pid, number)
            output, _ = deploy.communicate(timeout=60)
            self.one.check_output("sudo rm -f %s", mark)
        assert deploy.returncode != 0, output

    def clean(self, release: str) -> None:
        """Assert that both hosts have one set of replicas, of *release*, which is served, and that no lock is left."""
        assert self.releases() == [release, release]
        assert self.replicas() == [[release], [release]]
        assert self.served() == {release}
        for host in (self.one, self.two):
            assert host.run("sudo test -e /srv/relay/deploy.lock").rc != 0, "a lock was left"


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The hosts over SSH."""
    return Fleet(*(connect(address) for address in ADDRESSES.values()))


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """Runs playbooks."""
    return Playbook(tmp_path, SCENARIO / "inventory")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the application that a test may change, and that is not one of an earlier release."""
    copy = copy_source(SCENARIO / "app", tmp_path / "source")
    (copy / "NEWS").write_text(f"{uuid.uuid4()}\n")
    return copy


@pytest.fixture
def greeting() -> str:
    """A greeting that no release has had: deploying it makes a new one."""
    return f"good day {uuid.uuid4()}"


@pytest.fixture(scope="session")
def unchanged(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the release of the unchanged application: the only one that there is, or what a deploy of it makes."""
    listed = [host.check_output("sudo ls /srv/relay/releases").split() for host in (fleet.one, fleet.two)]
    if listed[0] == listed[1] and len(listed[0]) == 1:
        return listed[0][0]
    run = Playbook(tmp_path_factory.mktemp("unchanged"), SCENARIO / "inventory")("deploy")
    assert run.rc == 0, run.output
    current, other = fleet.releases()
    assert current == other
    return current


@pytest.fixture
def own(fleet: Fleet, unchanged: str, playbook: Playbook) -> str:
    """The same, and it serves."""
    if fleet.releases() != [unchanged, unchanged] or fleet.replicas() != [[unchanged], [unchanged]]:
        run = playbook("deploy")
        assert run.rc == 0, run.output
    return unchanged


@pytest.fixture
def release(fleet: Fleet, request: pytest.FixtureRequest) -> str:
    """The release that serves, perhaps one that a test before has left; own is that of the application as it is."""
    first, second = fleet.releases()
    if first == second and fleet.replicas() == [[first], [first]] and fleet.served() == {first}:
        return first
    served: str = request.getfixturevalue("own")
    return served


@pytest.fixture
def second_proxy(fleet: Fleet, playbook: Playbook, tmp_path: Path) -> Iterator[str]:
    """An inventory beside the scenario's own, in which the second app host is a proxy too; it is none afterwards."""
    path = tmp_path / "second.yml"
    path.write_text("proxy: {hosts: {deploy-two: {}}}\n")
    prepared = playbook("playbooks/plays/proxy.yml", "-i", str(path))
    assert prepared.rc == 0, prepared.output
    yield str(path)
    remove = (
        "systemctl disable --now nginx; rm -rf /etc/nginx/groundwork /etc/nginx/conf.d/groundwork.conf "
        "/etc/nginx/modules-enabled/90-groundwork.conf /etc/nginx/conf.d/mine.conf /run/before-switch"
    )
    fleet.two.check_output("sudo sh -c %s", remove)
    fleet.one.check_output("sudo sh -c %s", "rm -f /etc/nginx/conf.d/mine.conf /run/before-switch")
