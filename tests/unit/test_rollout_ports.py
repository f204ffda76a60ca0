# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The ports that replicas of rolled services get."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._compose import Model, Port, Service
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ports import (
    assign_ports,
    check_address,
    held_ports,
    listening_ports,
    parse_range,
    taken_ports,
)
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica

RANGE = range(20000, 20010)
WEB = Service("web", (Port(8081, "8081"),), replicas=2)
API = Service("api", (Port(80, "80"), Port(80, "80", "::1"), Port(53, "53", protocol="udp")))
MODEL = Model({"web": WEB, "api": API})


def test_a_range() -> None:
    assert parse_range(" 20000 - 20999 ") == range(20000, 21000)


@pytest.mark.parametrize("text", ["", "20000", "5-4", "0-5", "1-65536", "a-b", "1-2-3"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InputError, match="20000-20999"):
        parse_range(text)


def test_the_lowest_free_ports_in_a_row() -> None:
    assert assign_ports(MODEL, ["web"], {}, set(), RANGE) == {"web": {"8081": [20000, 20001]}}
    assert assign_ports(MODEL, ["web"], {}, {20000, 20002, 20003}, RANGE) == {"web": {"8081": [20004, 20005]}}


def test_services_and_protocols_do_not_share_ports() -> None:
    """One address more in the compose file needs no port more."""
    assert assign_ports(MODEL, ["web", "api"], {}, set(), RANGE) == {
        "api": {"53/udp": [20000], "80": [20001]},
        "web": {"8081": [20002, 20003]},
    }


def test_ports_that_the_release_holds_are_kept_and_given_to_nobody_else() -> None:
    held = {("web", "8081"): [20000, 20001], ("api", "80"): [20005, 20006]}
    assert assign_ports(MODEL, ["api", "web"], held, {20000, 20001, 20005, 20006}, RANGE) == {
        "api": {"53/udp": [20002], "80": [20003]},
        "web": {"8081": [20000, 20001]},
    }


@pytest.mark.parametrize("taken", [set(RANGE), {20001, 20003, 20005, 20007, 20009}])
def test_a_range_without_room(taken: set[int]) -> None:
    with pytest.raises(
        StateError, match=r"'web' needs 2 free ports in a row for its container port 8081, and of the 10"
    ):
        assign_ports(MODEL, ["web"], {}, taken, RANGE)


def test_a_range_that_is_smaller_than_the_service() -> None:
    with pytest.raises(StateError, match="20000-20000"):
        assign_ports(MODEL, ["web"], {}, set(), range(20000, 20001))


def replica(release: str, status: str, ports: list[int]) -> Replica:
    return Replica("i", "n", "shop", "web", release, 1, status, "", {}, {"8081": ports})


@pytest.mark.parametrize(
    ("found", "listening", "expected"),
    [
        ([replica("r1", "running", [20000])], {20000}, {("web", "8081"): [20000]}),
        ([replica("r1", "exited", [20000])], set(), {("web", "8081"): [20000]}),
        ([replica("r1", "exited", [20000])], {20000}, {}),
        ([replica("r2", "running", [20000])], set(), {}),
        ([replica("r1", "exited", [1]), replica("r1", "running", [2])], set(), {("web", "8081"): [2]}),
        ([replica("r1", "running", [])], set(), {}),
    ],
)
def test_ports_that_containers_of_the_release_hold(
    found: list[Replica], listening: set[int], expected: dict[tuple[str, str], list[int]]
) -> None:
    assert held_ports(found, "r1", listening) == expected


def test_taken_are_listeners_and_every_container() -> None:
    bindings: dict[str, Any] = {
        "80/tcp": [{"HostPort": "20000-20001"}, {"HostPort": "20005"}],
        "81/tcp": [{"HostPort": ""}],
        "82/tcp": None,
    }
    containers = [{"HostConfig": {"PortBindings": bindings}}, {"HostConfig": {"PortBindings": None}}]
    assert taken_ports(containers, {20009}) == {20000, 20001, 20005, 20009}


def test_listeners_are_read_from_proc(tmp_path: Path) -> None:
    """In state LISTEN for TCP; a kernel without IPv6 has no such files."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    lines = "   0: 0100007F:4E20 00000000:0000 0A 0:0\n   1: 0100007F:4E21 0100007F:9999 01 0:0\n"
    (tmp_path / "tcp").write_text(head + lines)
    (tmp_path / "udp").write_text(head + "   0: 00000000:0035 00000000:0000 07 0:0\n")
    assert listening_ports(tmp_path) == {20000, 53}


def test_a_listener_of_this_machine_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in listening_ports()


@pytest.mark.parametrize(("text", "words"), [("localhost", "'localhost'"), ("192.0.2.1", "no address of this host")])
def test_addresses_that_nothing_can_be_bound_to(text: str, words: str) -> None:
    assert check_address("127.0.0.1") == "127.0.0.1"
    with pytest.raises(InputError, match=words):
        check_address(text)
