# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The firewall on a real host, seen from a neighbour of it: before and after all that takes rules away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.collection import ROOT
from support.docker_host import DockerHost, fresh_host
from support.firewall import OPEN, OUTSIDE, RULES, prepare, reached, require_firewall, wait
from support.rolling import prepare as prepare_image

HOSTS = {"firewall": "198.18.0.150"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """A host with containers and a neighbour, and UFW as Debian delivers it."""
    folder: Path = tmp_path_factory.mktemp("ufw")
    with fresh_host(ROOT, HOSTS, folder) as started:
        prepare_image(started)
        prepare(started)
        yield started


def firewall(host: DockerHost, rules: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    check = options.pop("check", False)
    return host.module("ufw_rules", {"rules": RULES if rules is None else rules, **options}, check=check)


def state(host: DockerHost) -> str:
    """All that the module could change."""
    return host.sh("cd /etc/ufw; find . -type f | sort | xargs sha256sum; cat /etc/default/ufw; ufw status")


def test_everything_is_open_before(host: DockerHost) -> None:
    host.sh("command -v ufw >/dev/null || apt-get install --yes ufw >/dev/null 2>&1")
    assert reached(host) == set(OUTSIDE)


def test_check_tells_what_the_run_does_and_a_second_run_does_nothing(host: DockerHost) -> None:
    before = state(host)
    told = firewall(host, check=True)
    assert state(host) == before
    done, again = firewall(host), firewall(host)
    assert (told["changed"], done["changed"], again["changed"]) == (True, True, False)
    assert told["steps"] == done["steps"]
    assert done["steps"][0].startswith("ufw prepend allow in proto tcp from ")
    assert done["steps"][0].endswith("to any port 22 comment groundwork: SSH")
    assert done["steps"][-1] == "ufw enable"
    assert [one["rules"] for one in (told, again)] == [done["rules"], done["rules"]]
    require_firewall(host)


@pytest.mark.parametrize(
    "event",
    [
        "ufw reload",
        "ufw disable; systemctl restart docker.service; ufw --force enable",
        "systemctl stop docker.socket docker.service; ufw reload; systemctl start docker.service",
    ],
)
def test_it_holds_after(host: DockerHost, event: str) -> None:
    host.sh(f"systemctl reset-failed docker.service\n{event}")
    wait(host)
    require_firewall(host)
    assert firewall(host, check=True)["steps"] == []


def test_what_is_no_longer_listed_goes_and_what_others_made_stays(host: DockerHost) -> None:
    host.sh("ufw allow 9002/tcp comment 'by hand'")
    fewer = [{**one, "comment": "new"} for one in RULES if one["port"] == "9001"]
    fewer += [one for one in RULES if one["port"] not in ("9001", "9101")]
    steps = firewall(host, fewer)["steps"]
    assert [one.split(" to ")[0] for one in steps if one.startswith("ufw")] == [
        "ufw allow in proto tcp from 0.0.0.0/0",
        "ufw allow in proto tcp from ::/0",
        "ufw delete allow in proto tcp from 0.0.0.0/0",
        "ufw delete allow in proto tcp from ::/0",
    ]
    assert host.sh("ufw status").count("# groundwork: new") == 2
    assert firewall(host, fewer, check=True)["steps"] == []
    assert reached(host) == (OPEN | {"9002 four", "9002 six"}) - {"9101 four", "9101 six"}
    host.sh("ufw delete allow 9002/tcp")
    firewall(host)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"port": "22", "from": ["192.0.2.0/24"]}, "would close SSH for this connection from 198.18.0.1 to port 22"),
        ({"port": "80", "interface": "wg7"}, "rules[0].interface is 'wg7', and this host has"),
    ],
)
def test_a_list_that_cannot_be_used_changes_nothing(host: DockerHost, entry: dict[str, Any], sentence: str) -> None:
    before = state(host)
    failed = firewall(host, [entry])
    assert sentence in failed["msg"]
    assert state(host) == before


@pytest.mark.parametrize(
    "event",
    [
        "iptables -D DOCKER-USER -j groundwork-docker; iptables -t mangle -F FORWARD",
        "for table in filter mangle; do iptables -t $table -F groundwork-docker-asked; done",
    ],
)
def test_rules_that_are_gone_from_the_kernel_come_back(host: DockerHost, event: str) -> None:
    host.sh(event)
    assert "9102 four" in reached(host)
    assert firewall(host)["steps"] == ["ufw reload"]
    require_firewall(host)


def test_a_run_that_ended_in_the_middle_is_finished_by_the_next_one(host: DockerHost) -> None:
    host.sh("touch /run/groundwork-ufw-pending")
    assert firewall(host)["steps"] == ["ufw reload"]
    host.sh("test ! -e /run/groundwork-ufw-pending")


def test_a_changed_list_is_brought_where_the_kernel_lacks_chains(host: DockerHost) -> None:
    more = [*RULES, {"port": "9002"}]
    host.sh("sed -i s/^IPV6=.*/IPV6=no/ /etc/default/ufw; nft flush ruleset")
    host.sh("systemctl reset-failed docker.service; systemctl restart docker.service")
    wait(host)
    steps = firewall(host, more)["steps"]
    assert (steps[0], steps[-1]) == ("ufw disable", "ufw enable")
    assert firewall(host, more, check=True)["steps"] == []
    assert reached(host) == OPEN | {"9002 four", "9002 six"}
    firewall(host)
    require_firewall(host)


def test_another_action_for_ssh_takes_the_place_of_the_one_before(host: DockerHost) -> None:
    near = {"port": "22", "from": ["198.18.99.0/24", "fd00:99::/64"]}
    for entry, action in ((near, "allow"), ({**near, "limit": True}, "limit"), (near, "allow")):
        rules = [entry, {"port": "22"}, *RULES]
        firewall(host, rules)
        told = host.sh("grep -h -e '^### tuple .* 22 ' /etc/ufw/user.rules /etc/ufw/user6.rules")
        assert [line.split()[3] for line in told.splitlines()] == [action, "allow"] * 2
        assert firewall(host, rules, check=True)["steps"] == []
    firewall(host)
    require_firewall(host)


def test_a_rule_for_ssh_that_ufw_does_not_take_leaves_the_one_before(host: DockerHost) -> None:
    library = host.sh("ls /usr/lib/*/xtables/libxt_recent.so").strip()
    host.sh(f"mv {library} {library}.away")
    failed = firewall(host, [{"port": "22", "limit": True}, *RULES])
    host.sh(f"mv {library}.away {library}")
    assert "it said: Skipping unsupported IPv4 'limit' rule" in failed["msg"]
    require_firewall(host)
    assert firewall(host)["steps"] == ["ufw reload"]


def test_a_port_that_becomes_one_of_ssh_comes_first(host: DockerHost) -> None:
    rules = [*RULES, {"from": ["203.0.113.0/24"], "deny": True}, {"port": "2222"}]
    firewall(host, rules)
    firewall(host, rules, ssh_ports=[2222])
    told = host.sh("grep -e '^### tuple ' /etc/ufw/user.rules").splitlines()
    assert {line.split()[5] for line in told[:2]} == {"22", "2222"}
    assert firewall(host, rules, ssh_ports=[2222], check=True)["steps"] == []
    firewall(host)


def test_a_port_that_sshd_gets_is_opened_before_it_listens(host: DockerHost) -> None:
    host.write("/etc/ssh/sshd_config.d/port.conf", "Port 22\nPort 2222\n")
    assert firewall(host)["ssh_ports"] == [22, 2222]
    assert "2222/tcp" in host.sh("ufw status")
    host.sh("rm /etc/ssh/sshd_config.d/port.conf")
    assert len(firewall(host)["steps"]) == 2


def test_switched_off_it_leaves_what_was_there_before(host: DockerHost) -> None:
    told, done, again = (firewall(host, enabled=False, check=check) for check in (True, False, True))
    assert told["steps"] == done["steps"]
    assert again["changed"] is False
    assert reached(host) == set(OUTSIDE)
    assert host.sh("ls /etc/ufw | grep groundwork || true; iptables-save | grep -i groundwork || true") == ""
    assert host.sh("ufw show added").endswith("(None)\n")
    assert host.sh("cmp /etc/ufw/after.init /usr/share/ufw/after.init; stat -c %a /etc/ufw/after.init") == "640\n"
