# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What answers from outside, read from what ss, iptables, nft, Docker and systemd told on hosts of the test bed.

recorded/exposure: "proxy" with Docker's proxy and "no_proxy" without it, the same containers in both, IPv6 in one of
their networks; "own" has rules by hand. The ports from 9001 on are sockets of a service gw-listen on all addresses,
one, loopback and the like, and of two socket units.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import (
    Endpoint,
    Exposed,
    Listener,
    compare,
    difference,
    parse_sockets,
    read_allowed,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_nft import from_nft
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_owner import (
    Container,
    Known,
    Process,
    assemble,
    read_container,
    read_socket_units,
    unit_of,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_rules import Forward, from_iptables

RECORDED = Path(__file__).parent / "recorded" / "exposure"
FOUR, SIX = "0.0.0.0", "::"  # noqa: S104 - compared with, never bound to


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def listeners(kind: str) -> list[Listener]:
    return parse_sockets(recorded(f"{kind}/ss.txt"))


def forwards(kind: str) -> list[Forward]:
    four, six = recorded(f"{kind}/iptables.txt"), recorded(f"{kind}/ip6tables.txt")
    return from_iptables(four, "ipv4") + from_iptables(six, "ipv6")


def containers(kind: str) -> list[Container]:
    return [read_container(one) for one in json.loads(recorded(f"{kind}/docker.json"))]


def where(exposed: list[Exposed], proto: str, port: int) -> list[str]:
    """The addresses on which a port answers."""
    return [
        one.endpoint.address + (f"%{one.endpoint.interface}" if one.endpoint.interface else "")
        for one in exposed
        if (one.endpoint.proto, one.endpoint.first) == (proto, port)
    ]


def owners(exposed: list[Exposed], port: int) -> set[str]:
    return {one.owner for one in exposed if one.endpoint.first == port}


def answer(port: int = 80, last: int = 0, proto: str = "tcp", owner: str = "x") -> Exposed:
    return Exposed(Endpoint(proto, port, last or port, "ipv4", FOUR), owner, fix="let it be")


@pytest.mark.parametrize(
    ("proto", "port", "addresses"),
    [
        ("tcp", 9001, [FOUR]),
        ("tcp", 9002, [FOUR, SIX]),  # IPv6 that takes IPv4, too
        ("tcp", 22, [FOUR, SIX]),  # a socket for each
        ("tcp", 9003, []),  # 127.0.0.1
        ("tcp", 9004, ["198.18.0.140"]),
        ("tcp", 9006, []),  # all addresses, bound to the interface lo
        ("tcp", 9009, []),  # ::ffff:127.0.0.1
        ("tcp", 9010, ["fe80::42:c6ff:fe12:8c%eth0"]),
        ("tcp", 9011, ["fd00:5::140"]),
        ("tcp", 9014, []),  # ::1
        ("tcp", 9016, ["0.0.0.0%eth0"]),
        ("tcp", 9017, ["198.18.0.140"]),  # ::ffff:198.18.0.140
        ("udp", 9005, [FOUR]),
        ("udp", 9012, [FOUR, SIX]),
        ("udp", 9013, [SIX]),  # IPv6 alone
        ("udp", 9015, ["224.0.0.251"]),
        ("tcp", 9005, []),
        ("udp", 43776, []),  # 127.0.0.11, of the engine below
    ],
)
def test_addresses_of_sockets(proto: str, port: int, addresses: list[str]) -> None:
    assert where(assemble(listeners("proxy"), (), Known()), proto, port) == addresses


@pytest.mark.parametrize("kind", ["proxy", "no_proxy"])
@pytest.mark.parametrize(
    ("proto", "port", "name"),
    [
        ("tcp", 8081, "container shop-web-1 (Compose project shop, service web)"),
        ("udp", 8083, "container shop-dns-1 (Compose project shop, service dns)"),
        ("tcp", 8084, "container shop-host-1 (Compose project shop, service host)"),
        ("tcp", 8085, "container shop-one-1 (Compose project shop, service one)"),
        ("tcp", 8086, "container shop-six-1 (Compose project shop, service six)"),
        ("tcp", 8090, "container plain"),
    ],
)
def test_a_published_port_belongs_to_its_container(kind: str, proto: str, port: int, name: str) -> None:
    found = assemble(listeners(kind), forwards(kind), Known(containers(kind)))
    assert where(found, proto, port)
    assert owners(found, port) == {name}


@pytest.mark.parametrize("kind", ["proxy", "no_proxy"])
def test_without_sockets_the_rules_tell_what_is_published(kind: str) -> None:
    found = assemble((), forwards(kind), Known(containers(kind)))
    told = [(one.endpoint.proto, one.endpoint.address, one.endpoint.first, one.via) for one in found]
    assert told == [
        ("tcp", FOUR, 8081, ["rule"]),
        ("tcp", "198.18.0.140", 8085, ["rule"]),
        ("tcp", FOUR, 8086, ["rule"]),
        ("tcp", SIX, 8086, ["rule"]),
        ("tcp", FOUR, 8090, ["rule"]),
        ("udp", FOUR, 8083, ["rule"]),
    ]


def test_a_port_published_to_loopback_is_not_exposed() -> None:
    """Neither by its socket nor by its rule, which both are there."""
    for kind in ("proxy", "no_proxy"):
        assert {8082} <= {one.endpoints[0].first for one in listeners(kind)} & {
            one.endpoint.first for one in forwards(kind)
        }
        assert where(assemble(listeners(kind), forwards(kind), Known()), "tcp", 8082) == []


def test_only_the_proxy_answers_for_ipv6_where_the_container_has_none() -> None:
    proxy, plain = (assemble(listeners(kind), forwards(kind), Known()) for kind in ("proxy", "no_proxy"))
    assert (where(proxy, "tcp", 8081), where(plain, "tcp", 8081)) == ([FOUR, SIX], [FOUR])


def test_rules_by_hand_of_iptables() -> None:
    every = from_iptables(recorded("own/iptables.txt"), "ipv4")
    found = [one for one in every if one.endpoint.first < 8000]  # the others are Docker's
    told = {
        (one.endpoint.proto, one.endpoint.first, one.endpoint.last, one.endpoint.address, one.endpoint.interface)
        for one in found
    }
    assert told == {
        ("tcp", 7001, 7001, "198.18.0.140", ""),  # the address is in the rule that jumps to the chain
        ("tcp", 7003, 7005, "198.18.0.140", ""),
        ("tcp", 7010, 7012, FOUR, "eth0"),
        ("tcp", 7013, 7013, FOUR, "lo"),
        ("udp", 1, 65535, FOUR, ""),  # all but one port
    }
    assert not [one for one in assemble((), found, Known()) if one.endpoint.interface == "lo"]
    assert {one.target for one in found} == {"172.17.0.2:80", "172.17.0.2", ""}


def test_rules_by_hand_of_nftables() -> None:
    told = [
        (
            one.endpoint.proto,
            one.endpoint.first,
            one.endpoint.last,
            one.endpoint.family,
            one.endpoint.address,
            one.target,
        )
        for one in from_nft(recorded("own/nft.json"))
        if one.endpoint.outside
    ]
    web, every = "172.17.0.2:80", (1, 65535)
    redirected = [
        (proto, 7130, 7130, family, address, "")
        for family, address in (("ipv4", FOUR), ("ipv6", SIX))
        for proto in ("tcp", "udp")
    ]
    assert told == [
        ("tcp", 7120, 7120, "ipv4", FOUR, web),
        ("tcp", 7122, 7124, "ipv4", FOUR, web),
        *redirected,
        ("tcp", *every, "ipv4", FOUR, web),  # the ports are in a set that is not told
        ("tcp", *every, "ipv4", FOUR, ""),  # in a map, likewise
        ("tcp", 7111, 7111, "ipv4", FOUR, ""),
        ("tcp", 7112, 7112, "ipv4", FOUR, ""),
        ("tcp", 7131, 7132, "ipv4", "198.18.0.0/24", "172.17.0.2"),
        ("tcp", 7140, 7140, "ipv4", FOUR, web),
        ("tcp", 7150, 7150, "ipv6", "fd00:5::140", "[fd00:6::2]:80"),
    ]


def test_a_table_in_which_rules_of_both_kinds_are_is_told_by_nft() -> None:
    """iptables-nft-save tells nothing of it, and nft not where a rule of iptables leads to."""
    text = recorded("own/mixed.json")
    older = text.replace('{"xt": {"type": "target", "name": "DNAT"}}', '{"xt": null}')
    assert older != text
    for told in (text, older):
        found = assemble((), from_nft(told, iptables=True), Known(containers("no_proxy")))
        assert [one.endpoint.first for one in found] == [7202, 7203, 7204, 8090]
        assert owners(found, 8090) == {"container plain"}
        assert [one.endpoint.first for one in from_nft(told)] == [7202, 7203, 7204]


def test_a_rule_by_hand_is_named_with_the_container_that_it_leads_to() -> None:
    found = assemble((), from_iptables(recorded("own/iptables.txt"), "ipv4"), Known(containers("no_proxy")))
    assert owners(found, 7001) == {"container plain and a rule of iptables in chain OWN to 172.17.0.2:80"}
    assert owners(found, 7010) == {"a rule of iptables in chain PREROUTING"}


def inode(kind: str, port: int) -> str:
    return next(one.inode for one in listeners(kind) if one.endpoints[0].first == port)


def test_owners_of_sockets() -> None:
    service, workers = "/system.slice/ssh.service", {inode("proxy", 9001): [Process(9, "web", "/a.slice/web.service")]}
    workers[inode("proxy", 9001)].append(Process(8, "web", "/a.slice/web.service"))
    workers[inode("proxy", 9007)] = [Process(1, "systemd", "/init.scope")]
    workers[inode("proxy", 9008)] = [Process(1, "systemd", "/init.scope"), Process(7, "sleep", service)]
    found = assemble(listeners("proxy"), (), Known(holders=workers))
    assert owners(found, 9001) == {"web (process 8, web.service)"}
    assert owners(found, 9007) == {"systemd (process 1, gw-Stream.socket)"}
    assert owners(found, 9008) == {"sleep (process 7, ssh.service)"}
    assert owners(found, 22) == {"ssh.service (held by no process, as the kernel's own are)"}


def test_dockers_proxy_is_no_owner_beside_its_container() -> None:
    holders = {
        one.inode: [Process(5, "docker-proxy", "/system.slice/docker.service")]
        for one in listeners("proxy")
        if "docker.service" in one.cgroup
    }
    found = assemble(listeners("proxy"), forwards("proxy"), Known(containers("proxy"), holders))
    web = [one for one in found if one.endpoint.first == 8081]
    assert {one.owner for one in web} == {"container shop-web-1 (Compose project shop, service web)"}
    assert [one.processes for one in web] == [[], []]
    assert all(one.fix.startswith("publish a container's port on 127.0.0.1 only") for one in web)
    assert [one.containers[0]["service"] for one in web] == ["web", "web"]
    orphan = owners(assemble(listeners("proxy"), (), Known(holders=holders)), 8081)
    assert orphan == {"docker-proxy (process 5, docker.service)"}


def test_an_owner_that_may_not_be_seen() -> None:
    found = assemble(listeners("proxy"), (), Known(all_seen=False))
    assert owners(found, 22) == {"ssh.service (its process is another user's)"}
    host = owners(found, 8084).pop()
    assert host == "container 466d58233242", "its control group tells the container even so"


def test_socket_units_are_found_by_their_address_where_the_control_group_does_not_tell() -> None:
    units = read_socket_units(recorded("socket_units.txt"))
    assert units == {("tcp", SIX, 9007): "gw-Stream.socket", ("udp", FOUR, 9008): "gw-Datagram.socket"}
    sockets = [Listener(one.endpoints, one.inode, "/init.scope") for one in listeners("proxy")]
    holders = {one.inode: [Process(1, "systemd", "/init.scope")] for one in sockets}
    found = assemble(sockets, (), Known(holders=holders, socket_units=units))
    assert owners(found, 9007) == {"systemd (process 1, gw-Stream.socket)"}
    assert owners(found, 9008) == {"systemd (process 1, gw-Datagram.socket)"}
    assert owners(found, 9001) == {"systemd (process 1)"}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/ssh.service", "ssh.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/sub", "web.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/init.scope", ""),
        (f"/system.slice/docker-{'0f' * 32}.scope", ""),
        ("unreachable:42", ""),
        ("", ""),
    ],
)
def test_unit_of_a_control_group(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


def test_what_is_allowed_and_what_is_missing() -> None:
    allowed = read_allowed(
        [
            {"port": "80"},
            {"port": "8000-8002"},
            {"port": "8003:8005", "proto": "any"},
            {"port": "53", "proto": "udp"},
            {"port": "9000"},
        ]
    )
    fine = [answer(80), answer(8000, 8005), answer(8004, proto="udp")]
    wrong = [answer(81), answer(80, proto="udp"), answer(8005, 8006), answer(53)]
    compared = compare([*fine, *wrong], allowed)
    assert compared.unexpected == wrong
    assert [one.entry["port"] for one in compared.missing] == ["53", "9000"]


@pytest.mark.parametrize("port", ["0", "65536", "80-70", "", "http", "-1", "80-", "1-2-3"])
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(InputError, match=r"^allowed\[1\]\.port is .* Give a port from 1 to 65535"):
        read_allowed([{"port": "80"}, {"port": port}])


def test_a_network_that_is_none() -> None:
    with pytest.raises(InputError, match=r"^allowed\[0\]\.from has '10\.0\.0\.1/8'"):
        read_allowed([{"port": "80", "from": ["10.0.0.0/8", "10.0.0.1/8"]}])


def test_the_failure_names_each_port_once_with_its_owner_and_what_to_do() -> None:
    four, six = (Endpoint("tcp", 5432, 5432, family, address) for family, address in (("ipv4", FOUR), ("ipv6", SIX)))
    found: list[Any] = [Exposed(one, "postgres (process 7)", fix="stop it") for one in (four, six)]
    told = "1 port answers from outside and is not in allowed: tcp 5432 on 0.0.0.0 and :: by postgres (process 7)."
    assert str(difference(found)) == f"{told} Stop it; or add what is meant to be open to allowed."
    both = str(difference([*found, answer(7000, 7001)]))
    assert both.startswith("2 ports answer from outside and are not in allowed: ")
    assert "; tcp 7000-7001 on 0.0.0.0 by x. Stop it; let it be; or add" in both
