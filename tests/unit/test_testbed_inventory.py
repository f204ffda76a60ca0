# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The test bed: the inventory that it prints, addresses and names of hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from groundwork_testbed.errors import TestbedError
from groundwork_testbed.hosts import CAPABILITIES, check_name
from groundwork_testbed.inventory import render_inventory
from groundwork_testbed.state import State, pick_address

FIRST, SECOND, LAST = "198.18.0.10", "198.18.0.11", "198.18.0.250"
EVERY = [f"198.18.0.{number}" for number in range(10, 251)]


def test_inventory_is_yaml_that_ansible_reads() -> None:
    text = render_inventory({"web": SECOND, "app": FIRST}, Path("/a b/id"), Path("/a b/known_hosts"))
    hosts = yaml.safe_load(text)["all"]["hosts"]
    assert list(hosts) == ["app", "web"]
    assert hosts["app"] == {
        "ansible_host": FIRST,
        "ansible_user": "debian",
        "ansible_ssh_private_key_file": "/a b/id",
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=/a b/known_hosts'",
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def test_inventory_without_hosts_is_valid() -> None:
    assert yaml.safe_load(render_inventory({}, Path("k"), Path("h"))) == {"all": {"hosts": {}}}


@pytest.mark.parametrize(
    ("asked", "remembered", "in_use", "expected"),
    [
        (None, {}, {}, FIRST),
        (None, {"other": FIRST}, {}, SECOND),
        (None, {}, {"other": FIRST}, SECOND),
        (None, {"app": LAST}, {}, LAST),
        (None, {"app": FIRST}, {"other": FIRST}, SECOND),
        (None, {"app": FIRST}, {"app": FIRST}, FIRST),
        (LAST, {"app": FIRST}, {}, LAST),
        (FIRST, {"other": FIRST}, {}, FIRST),
        (None, {"app": "10.0.0.1"}, {}, FIRST),
        (None, {f"host{i}": address for i, address in enumerate(EVERY)}, {"host0": FIRST}, SECOND),
    ],
)
def test_addresses(asked: str | None, remembered: dict[str, str], in_use: dict[str, str], expected: str) -> None:
    assert pick_address("app", asked, remembered, in_use) == expected


@pytest.mark.parametrize("asked", ["198.18.0.1", "198.18.0.9", "198.18.0.251", "10.0.0.1", "nonsense"])
def test_an_address_outside_the_range_is_refused(asked: str) -> None:
    with pytest.raises(TestbedError, match=r"198\.18\.0\.10 to 198\.18\.0\.250"):
        pick_address("app", asked, {}, {})


def test_a_taken_address_is_refused_with_its_owner() -> None:
    with pytest.raises(TestbedError, match="web has it"):
        pick_address("app", FIRST, {}, {"web": FIRST})


def test_a_full_network_is_refused() -> None:
    with pytest.raises(TestbedError, match="in use"):
        pick_address("app", None, {}, {f"host{i}": address for i, address in enumerate(EVERY)})


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ü", "x" * 43])
def test_names_that_no_host_can_have(name: str) -> None:
    with pytest.raises(TestbedError, match="host's name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "app-1", "x" * 42])
def test_names_of_hosts(name: str) -> None:
    check_name(name)


def test_addresses_are_remembered_and_a_broken_file_is_forgotten(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.read_addresses() == {}
    state.write_addresses({"app": FIRST})
    assert State(tmp_path).read_addresses() == {"app": FIRST}
    state.addresses.write_text("{", encoding="utf-8")
    assert state.read_addresses() == {}


def test_hosts_cannot_change_the_machine_below() -> None:
    assert not {"SYS_TIME", "SYS_MODULE", "SYS_RESOURCE"} & set(CAPABILITIES)
