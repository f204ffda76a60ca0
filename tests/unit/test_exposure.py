# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What answers from outside, read from what ss, iptables, nft, Docker and systemd told on hosts of the test bed.

recorded/exposure: "proxy" with Docker's proxy and "no_proxy" without it, the same containers in both, IPv6 in one of
their networks; "own" has rules by hand. The ports from 9001 on are sockets of a service gw-listen on all addresses,
one, loopback and the like, and of two socket units. sshd-vsock.socket, which systemd makes by itself in a virtual
machine, was put into socket_units.txt by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed
from ansible_collections.groundwork.backend.plugins.module_utils._exposure import (
    Endpoint,
    Exposed,
    Listener,
    compare,
    difference,
    parse_sockets,
    read_allowed,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_host import localnet, may_forward
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_loopback import (
    drops_of_iptables,
    drops_of_nft,
    near,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_nft import from_nft, read_nft
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_owner import (
    Container,
    Known,
    Process,
    assemble,
    read_container,
    read_socket_units,
    unit_of,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exposure_read import Kernel, Rules, read_rules
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
        for one in from_nft(read_nft(recorded("own/nft.json")))
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
        found = assemble((), from_nft(read_nft(told), [("ip", "nat")]), Known(containers("no_proxy")))
        assert [one.endpoint.first for one in found] == [7202, 7203, 7204, 8090]
        assert owners(found, 8090) == {"container plain"}
        assert [one.endpoint.first for one in from_nft(read_nft(told))] == [7202, 7203, 7204]


Json = dict[str, Any]
TO_WEB: Json = {"dnat": {"family": "ip", "addr": "172.17.0.2", "port": 80}}
TH_DPORT: Json = {"payload": {"protocol": "th", "field": "dport"}}
TCP_DPORT: Json = {"payload": {"protocol": "tcp", "field": "dport"}}
INNER_DPORT: Json = {"payload": {"tunnel": "vxlan", "protocol": "tcp", "field": "dport"}}
L4PROTO: Json = {"meta": {"key": "l4proto"}}
BOTH = {"tcp", "udp"}


def match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def ruleset(*expressions: Json, family: str = "inet", kind: str = "nat", prio: int = -100) -> list[Json]:
    """A rule in a base chain of prerouting, as nft prints it (tests/py of its sources have each of these forms)."""
    of = {"family": family, "table": "t"}
    chain = {**of, "name": "pre", "type": kind, "hook": "prerouting", "prio": prio, "policy": "accept"}
    return [{"chain": chain}, {"rule": {**of, "chain": "pre", "handle": 2, "expr": list(expressions)}}]


def places(found: list[Forward]) -> set[tuple[str, str, int]]:
    return {(one.endpoint.family, one.endpoint.proto, one.endpoint.first) for one in found}


@pytest.mark.parametrize(
    ("key", "right", "families"),
    [
        ("protocol", "ip", {"ipv4"}),
        ("protocol", 0x86DD, {"ipv6"}),
        ("protocol", {"set": ["ip", "ip6"]}, {"ipv4", "ipv6"}),
        ("protocol", "arp", set()),
        ("nfproto", "ipv6", {"ipv6"}),
        ("nfproto", 2, {"ipv4"}),
        ("nfproto", {"set": ["ipv4", "ipv6"]}, {"ipv4", "ipv6"}),
        ("nfproto", "@families", {"ipv4", "ipv6"}),
    ],
)
def test_a_rule_of_nftables_for_a_family(key: str, right: Any, families: set[str]) -> None:
    found = from_nft(ruleset(match({"meta": {"key": key}}, right), match(TCP_DPORT, 8080), {"redirect": {"port": 80}}))
    assert places(found) == {(family, "tcp", 8080) for family in families}


@pytest.mark.parametrize(
    ("right", "protos"),
    [
        ("tcp", {"tcp"}),
        (6, {"tcp"}),
        (17, {"udp"}),
        ({"set": [6, "udp"]}, BOTH),
        ("sctp", set()),
        ({"set": ["udp", 132]}, {"udp"}),
        ("@protos", BOTH),
        ({"range": ["tcp", "udp"]}, BOTH),
        ({"set": [{"range": ["tcp", "udp"]}]}, BOTH),
        ({"elem": {"val": "tcp", "comment": "web"}}, BOTH),
        ({"set": [{"elem": {"val": "tcp", "comment": "web"}}, "udp"]}, BOTH),
    ],
)
@pytest.mark.parametrize("left", [L4PROTO, {"payload": {"protocol": "ip", "field": "protocol"}}])
def test_a_rule_of_nftables_for_protocols(left: Json, right: Any, protos: set[str]) -> None:
    """What is not told in full counts for every protocol."""
    found = from_nft(ruleset(match(left, right), match(TH_DPORT, 8080), {"redirect": {"port": 80}}, family="ip"))
    assert places(found) == {("ipv4", proto, 8080) for proto in protos}


def test_a_map_of_nftables_that_is_not_told_counts_for_every_protocol() -> None:
    way = {"dnat": {"family": "ip", "addr": {"map": {"key": L4PROTO, "data": "@way"}}}}
    assert places(from_nft(ruleset(match(TH_DPORT, 8080), way))) == {("ipv4", proto, 8080) for proto in BOTH}


def test_a_port_inside_of_a_tunnel_and_a_set_of_interfaces_narrow_nothing() -> None:
    for matched in (match(INNER_DPORT, 8080), match({"meta": {"key": "iifname"}}, "@inside")):
        found = from_nft(ruleset(match(L4PROTO, "udp"), matched, TO_WEB))
        assert places(found) == {("ipv4", "udp", 1)}
        assert {one.endpoint.interface for one in found} == {""}


def test_many_chains_with_named_maps_are_each_followed_once() -> None:
    """Each may lead to each: by way of every path there would be 14! of them."""
    key = {"meta": {"key": "iifname"}}
    items = ruleset({"vmap": {"key": key, "data": "@zones"}})
    for number in range(14):
        rule = items[1]["rule"]
        items.append({"rule": {**rule, "chain": f"zone{number}"}})
        port = match(TCP_DPORT, 9000 + number)
        items.append({"rule": {**rule, "chain": f"zone{number}", "expr": [port, {"redirect": None}]}})
    ports = {port for _, _, port in places(from_nft(items))}
    assert ports == set(range(9000, 9014))


def test_transparent_proxies_of_nftables() -> None:
    proxy = {"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 12345}}
    found = from_nft(ruleset(match(TCP_DPORT, 443), proxy, kind="filter", prio=-150))
    assert places(found) == {("ipv4", "tcp", 443)}
    assert {one.target for one in found} == {"127.0.0.1:12345"}
    assert from_nft(ruleset(match(TCP_DPORT, 443), {"accept": None}, kind="filter", prio=-150)) == []


def test_whole_networks_and_transparent_proxies_of_iptables() -> None:
    found = from_iptables(
        "*mangle\n-A PREROUTING -p tcp -m tcp --dport 443 -j DIVERT\n"
        "-A DIVERT -j TPROXY --on-port 12345 --on-ip 127.0.0.1 --tproxy-mark 0x1/0x1\n"
        "-A DIVERT -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n"
        "*nat\n-A PREROUTING -d 198.18.1.0/24 -j NETMAP --to 172.17.1.0/24\n"
        '-A PREROUTING -p udp -m udp --dport 53 -m string --string "x" --algo bm --to 100 -j REDIRECT --to-ports 54\n'
        "-A DIVERT -j REDIRECT\nCOMMIT\n",
        "ipv4",
    )
    told = [(one.endpoint.proto, one.endpoint.first, one.endpoint.address, one.target) for one in found]
    assert told == [
        ("tcp", 1, "198.18.1.0/24", "172.17.1.0/24"),
        ("udp", 1, "198.18.1.0/24", "172.17.1.0/24"),
        ("udp", 53, FOUR, ""),
        ("tcp", 443, FOUR, ""),
    ]


def said(**printed: str) -> dict[str, Completed]:
    """What programs printed: those of iptables by "nft", "legacy" and "plain", for IPv4, and nft by "nftables"."""
    names = {"nft": "iptables-nft-save", "legacy": "iptables-legacy-save", "plain": "iptables-save", "nftables": "nft"}
    return {names[kind]: Completed((names[kind],), 0, text, "") for kind, text in printed.items()}


def ports_of(rules: Rules) -> set[int]:
    return {one.endpoint.first for one in rules.forwards if one.endpoint.outside}


OF_NFT = "# Generated by iptables-save v1.8.9 (nf_tables) on Sat\n*nat\n:PREROUTING ACCEPT\nCOMMIT\n"
OF_OLD = "# Generated by iptables-save v1.8.9 on Sat\n*nat\n-A PREROUTING -p tcp --dport 81 -j REDIRECT\nCOMMIT\n"
MIXED = "# Table `nat' is incompatible, use 'nft' tool.\n"
NATIVE = {7202, 7203, 7204}


@pytest.mark.parametrize(
    ("printed", "ports"),
    [
        ({}, NATIVE | {8090}),  # as k3s has its own, and Docker's snap
        ({"legacy": OF_OLD}, NATIVE | {8090, 81}),
        ({"plain": OF_OLD}, NATIVE | {8090, 81}),
        ({"nft": MIXED}, NATIVE | {8090}),
        ({"nft": OF_NFT}, NATIVE),
        ({"plain": OF_NFT}, NATIVE),
    ],
)
def test_rules_of_an_iptables_that_is_not_installed_are_told_by_nft(printed: dict[str, str], ports: set[int]) -> None:
    rules = read_rules(said(nftables=recorded("own/mixed.json"), **printed), Kernel(nft=True))
    assert ports_of(rules) == ports
    assert rules.sentence == ""


def test_rules_of_nftables_without_nft_are_missed() -> None:
    sentence = (
        "Rules that forward ports, as Docker's do, are not told by nft: it is not installed, and the kernel may have "
        "rules that only it tells. Install nftables."
    )
    assert read_rules(said(nft=OF_NFT), Kernel(nft=True)).sentence == sentence
    assert read_rules(said(nft=MIXED), Kernel()).sentence == sentence
    assert read_rules(said(nft=OF_NFT), Kernel()).sentence == ""


@pytest.mark.parametrize("printed", [{}, {"nft": OF_NFT}, {"plain": OF_NFT}, {"plain": ""}])
def test_rules_of_the_old_iptables_without_its_program_are_missed(printed: dict[str, str]) -> None:
    told = said(nftables='{"nftables": []}', **printed)
    sentence = read_rules(told, Kernel(legacy=["ip"])).sentence
    assert "not told by iptables-legacy-save: it is not installed" in sentence
    assert sentence.endswith("Install iptables with its legacy programs.")
    assert read_rules(told, Kernel()).sentence == ""


@pytest.mark.parametrize("kind", ["legacy", "plain"])
def test_rules_of_the_old_iptables_are_told_by_its_program(kind: str) -> None:
    rules = read_rules(said(**{kind: OF_OLD}), Kernel(legacy=["ip"]))
    assert (ports_of(rules), rules.sentence) == ({81}, "")


def test_each_remedy_is_told_once() -> None:
    told = said(nft="", legacy="")
    told = {name: Completed(one.argv, 4, "", "you must be root\n") for name, one in told.items()}
    assert read_rules(told, Kernel(nft=True)).sentence == (
        "Rules that forward ports, as Docker's do, are not told by iptables-nft-save: you must be root (and 2 more "
        "programs). Run with become. Install nftables."
    )


LOOP = "-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8082 -j DROP"
FROM_OUTSIDE = match({"meta": {"key": "iifname"}}, "lo", "!=")
TO_LOOPBACK = match({"payload": {"protocol": "ip", "field": "daddr"}}, "127.0.0.1")
TO_NETWORK = match(TO_LOOPBACK["match"]["left"], {"prefix": {"addr": "127.0.0.0", "len": 8}})
COUNTED: Json = {"counter": {"packets": 0, "bytes": 0}}
DROP: Json = {"drop": None}


def test_a_port_that_docker_publishes_on_loopback_is_told_to_be_open_to_neighbours() -> None:
    for kind in ("proxy", "no_proxy"):
        assert near(listeners(kind), forwards(kind), [], []) == [
            "Neighbours in the same network may reach tcp 8082 on loopback, which rules send on. Drop what comes from "
            "outside for it: iptables -t raw -I PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP."
        ]


@pytest.mark.parametrize(
    ("table", "line", "closed"),
    [
        ("raw", LOOP, True),
        ("raw", "-A PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP", True),
        ("mangle", "-A PREROUTING -d 127.0.0.0/8 ! -i lo -p tcp -j DROP", True),
        ("raw", LOOP.replace("8082", "8000:8082"), True),
        ("raw", LOOP.replace("8082", "8083"), False),
        ("raw", LOOP.replace("tcp", "udp"), False),
        ("raw", LOOP.replace("127.0.0.1", "127.0.0.2"), False),
        ("raw", LOOP.replace("! -i lo", "-i eth0"), False),
        ("raw", LOOP.replace(" -d", " -s 198.18.0.9/32 -d"), False),
        ("raw", LOOP.replace("DROP", "ACCEPT"), False),
        ("filter", LOOP, False),  # too late
    ],
)
def test_what_iptables_drops_before_is_not_open_to_neighbours(table: str, line: str, closed: bool) -> None:
    rules = read_rules(said(nft=f"*{table}\n{line}\nCOMMIT\n"), Kernel())
    assert rules.drops == drops_of_iptables(f"*{table}\n{line}\n")
    assert (near((), forwards("no_proxy"), rules.drops, []) == []) is closed


@pytest.mark.parametrize(
    ("expressions", "prio", "closed"),
    [
        ([TO_LOOPBACK, FROM_OUTSIDE, match(TCP_DPORT, 8082), COUNTED, DROP], -300, True),
        ([TO_NETWORK, FROM_OUTSIDE, DROP], -300, True),
        ([TO_NETWORK, FROM_OUTSIDE, DROP], 0, False),
        ([TO_LOOPBACK, match(TCP_DPORT, 8082), FROM_OUTSIDE, {"accept": None}], -300, False),
        ([TO_LOOPBACK, match(TCP_DPORT, 8083), FROM_OUTSIDE, DROP], -300, False),
        ([TO_LOOPBACK, match(TCP_DPORT, "@ports"), FROM_OUTSIDE, DROP], -300, False),
        ([TO_LOOPBACK, match(INNER_DPORT, 8082), FROM_OUTSIDE, DROP], -300, False),
        ([TO_LOOPBACK, match(TCP_DPORT, 8082), DROP, COUNTED], -300, False),
        ([TO_NETWORK, FROM_OUTSIDE, {"limit": {"rate": 4}}, DROP], -300, False),
        ([match(TO_LOOPBACK["match"]["left"], "@own"), FROM_OUTSIDE, DROP], -300, False),
        ([], -300, False),
    ],
)
def test_what_nftables_drops_before_is_not_open_to_neighbours(expressions: list[Json], prio: int, closed: bool) -> None:
    text = json.dumps({"nftables": ruleset(*expressions, kind="filter", prio=prio)})
    rules = read_rules(said(nftables=text), Kernel())
    assert rules.drops == drops_of_nft(read_nft(text))
    assert (near((), forwards("no_proxy"), rules.drops, []) == []) is closed


def test_sockets_on_loopback_are_open_to_neighbours_where_the_kernel_lets_them_in() -> None:
    told = near(listeners("proxy"), (), [], ["docker0", "eth1"])
    assert len(told) == 1
    start, _, rest = told[0].partition(" may reach ")
    assert start == "As route_localnet is 1, neighbours on docker0 and eth1"
    ports = rest.partition(" on loopback. ")[0].split(", ")
    assert {"tcp 8082", "tcp 9003", "tcp 9009"} <= set(ports)
    # All addresses, which is told anyway; the interface lo; ::1.
    assert not {"tcp 9001", "tcp 9006", "tcp 9014"} & set(ports)
    assert " neighbours on every interface may reach " in near(listeners("proxy"), (), [], ["all", "eth1"])[0]
    assert near(listeners("proxy"), (), [], []) == []
    whole = drops_of_iptables("*raw\n-A PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP\n")
    assert near(listeners("proxy"), (), whole, ["all"]) == []


def test_where_the_kernel_lets_packets_for_loopback_in(tmp_path: Path) -> None:
    for name, value in (("all", 0), ("default", 1), ("lo", 1), ("docker0", 1), ("eth0", 0)):
        folder = tmp_path / "sys/net/ipv4/conf" / name
        folder.mkdir(parents=True)
        (folder / "route_localnet").write_text(f"{value}\n")
    assert localnet(tmp_path) == ["docker0"]


@pytest.mark.parametrize(("names", "may"), [("", False), ("filter\nraw\n", False), ("filter\nnat\n", True)])
def test_tables_of_the_old_iptables_in_the_kernel(tmp_path: Path, names: str, may: bool) -> None:
    file = tmp_path / "ip_tables_names"
    assert may_forward(file) is False, "the kernel has not loaded it"
    file.write_text(names)
    assert may_forward(file) is may
    assert may_forward(tmp_path) is True, "what cannot be read may be anything"


def test_a_rule_for_the_interface_lo_is_open_to_nobody_else() -> None:
    rule = "*nat\n-A PREROUTING -d 127.0.0.1/32 {} -p tcp -m tcp --dport 70 -j REDIRECT\n"
    within, everywhere = (from_iptables(rule.format(option), "ipv4") for option in ("-i lo", "! -i docker0"))
    assert near((), within, [], []) == []
    assert "tcp 70 on loopback" in near((), everywhere, [], [])[0]


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


@pytest.mark.parametrize("place", ["vsock::22", "vsock:2:22", "/run/odd:80", "@odd:80", "/run/[::1]:80"])
def test_a_socket_unit_whose_place_is_no_address_is_passed_over(place: str) -> None:
    text = f"Listen={place} (Stream)\nListen=[fe80::1%eth0]:81 (Datagram)\nId=odd.socket\n"
    assert read_socket_units(text) == {("udp", "fe80::1", 81): "odd.socket"}


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
