# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The logins of role app, at a real registry that asks for a password."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.docker_host import DockerHost
from support.postgres import free_port
from support.private_registry import PrivateRegistry, private_registry
from support.processes import command_lines, environments
from support.scenario import Playbook, Run

USER, PASSWORD = "reader", "canary-4d1f$5e%"
HIDDEN = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
IMAGE = "library/redis:7-alpine"


@dataclass(frozen=True)
class Logins:
    """The role's logins, for a host that has none at first."""

    host: DockerHost
    registry: PrivateRegistry
    folder: Path

    def entry(self, password: str = PASSWORD, host: str = "") -> dict[str, str]:
        """An entry of app_registries."""
        return {"host": host or self.registry.address, "username": USER, "password": password}

    def __call__(self, *entries: dict[str, str], check: bool = False) -> Run:
        """Log in."""
        playbook = self.folder / "logins.yml"
        role = {"name": "groundwork.backend.app", "tasks_from": "registries"}
        task = {"name": "Log in", "ansible.builtin.include_role": role}
        play = {"hosts": self.host.name, "become": True, "gather_facts": False, "tasks": [task]}
        playbook.write_text(json.dumps([play]))
        run = Playbook(self.folder, self.host.inventory)
        done = run(str(playbook), "-vvv", *(["--check"] if check else []), app_registries=list(entries))
        for text in HIDDEN:
            assert text not in done.output
        return done

    def good(self, *entries: dict[str, str], check: bool = False) -> int:
        """Log in, which has to succeed; how much was changed."""
        done = self(*entries, check=check)
        assert done.rc == 0, done.output
        return done.changed

    def known(self) -> dict[str, str]:
        """The logins that docker finds on the host: registry -> user:password."""
        text = self.host.sh("cat /root/.docker/config.json 2>/dev/null || echo '{}'")
        found = json.loads(text).get("auths", {})
        return {name: base64.b64decode(one["auth"]).decode() for name, one in found.items()}

    def pulls(self) -> bool:
        """Whether the host gets an image of the registry."""
        image = f"{self.registry.address}/{IMAGE}"
        told = self.host.sh(
            f"docker pull --quiet {image} 2>&1 && docker image rm {image} >/dev/null && echo pulled || true"
        )
        assert "pulled" in told or "no basic auth credentials" in told, told
        return "pulled" in told


@pytest.fixture(scope="module")
def registry(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRegistry]:
    """A registry with one user, which the engine of the host trusts."""
    with private_registry(tmp_path_factory.mktemp("registry"), {USER: PASSWORD}) as registry:
        registry.trusted_by(docker_host)
        yield registry


@pytest.fixture
def logins(docker_host: DockerHost, registry: PrivateRegistry, tmp_path: Path) -> Iterator[Logins]:
    """No login on the host, before and after."""
    yield Logins(docker_host, registry, tmp_path)
    docker_host.sh("rm -rf /root/.docker")


def test_a_login_lets_the_host_pull_and_is_made_once(logins: Logins) -> None:
    assert not logins.pulls()
    assert logins.good(logins.entry(), check=True) > 0
    assert logins.known() == {}
    assert logins.good(logins.entry()) > 0
    assert logins.pulls()
    for check in (True, False):
        assert logins.good(logins.entry(), check=check) == 0


def test_nobody_but_root_can_read_the_login(logins: Logins) -> None:
    logins.good(logins.entry())
    assert logins.host.sh("stat --format %a /root/.docker /root/.docker/config.json").split() == ["700", "600"]


def test_a_wrong_password_is_told_with_registry_and_user(logins: Logins) -> None:
    done = logins(logins.entry("wrong-canary"))
    assert done.rc != 0, done.output
    assert f"The registry {logins.registry.address} did not let the user {USER} in: " in done.words
    assert "401 Unauthorized" in done.words, done.output
    assert "Correct host, username and password in app_registries" in done.words
    assert "wrong-canary" not in done.output
    assert logins.known() == {}


def test_a_wrong_password_leaves_the_login_that_is_there(logins: Logins) -> None:
    logins.good(logins.entry())
    assert logins(logins.entry("wrong-canary")).rc != 0
    assert logins.known() == {logins.registry.address: f"{USER}:{PASSWORD}"}
    assert logins.pulls()


def test_of_several_registries_the_ones_that_refuse_are_named(logins: Logins) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = logins(logins.entry(host=nowhere), logins.entry())
    assert done.rc != 0, done.output
    assert f"The registry {nowhere} did not let the user {USER} in: " in done.words
    assert "connection refused" in done.words
    assert f"The registry {logins.registry.address}" not in done.words
    assert list(logins.known()) == [logins.registry.address]


def test_no_process_and_no_log_shows_the_password(logins: Logins) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.extend([*command_lines().values(), *environments().values()])
        seen.append(
            logins.host.sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || true")
        )

    with logins.registry.watched(look):
        logins.good(logins.entry())
    assert "BECOME-SUCCESS" in seen[-1], "the login was under way"
    seen.append(logins.host.sh("journalctl --boot --no-pager; cat /var/log/*.log 2>/dev/null || true"))
    seen.append(logins.registry.log.read_text())
    for text in HIDDEN:
        assert not [one for one in seen if text in one]


def test_the_hub_is_known_under_the_name_that_docker_looks_for(logins: Logins) -> None:
    """With the login that `docker login` stored, which is not tried again, nothing is left to do."""
    hub = "https://index.docker.io/v1/"
    stored = {"auths": {hub: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
    logins.host.write("/root/.docker/config.json", json.dumps(stored))
    logins.host.sh("chmod 700 /root/.docker")
    assert logins.good(logins.entry(host="docker.io")) == 0
    assert list(logins.known()) == [hub]
