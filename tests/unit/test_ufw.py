# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Lists of rules, UFW's files, and the way from the one to the other."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import (
    Rule,
    parse_rules,
    read_entries,
    with_ssh,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_docker import (
    read_bridges,
    rules_text,
    with_hook,
    without_hook,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_plan import outcome, plan
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_ssh import (
    Session,
    parse_connection,
    parse_sshd,
    require_way_back,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_stack import may_answer, own_addresses

INTERFACES = ["eth0", "lo"]
# As UFW 0.36.2 writes it, after the commands in the comments.
USER_RULES = """\
*filter
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=67726f756e64776f726b3a20535348
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### limit tcp 8000:8010 0.0.0.0/0 any 192.0.2.0/24 in_eth0 comment=67726f756e64776f726b
-A ufw-user-input -i eth0 -p tcp -m multiport --dports 8000:8010 -s 192.0.2.0/24 -j ufw-user-limit-accept

### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 WWW%20Full - in
-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT -m comment --comment 'dapp_WWW%20Full'

### tuple ### deny any 25 198.51.100.1 any 203.0.113.9 in
-A ufw-user-input -d 198.51.100.1 -s 203.0.113.9 -p tcp --dport 25 -j DROP

### tuple ### route:allow tcp 80 172.17.0.2 any 0.0.0.0/0 in
### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 out
### END RULES ###
"""


def rules(*entries: dict[str, Any]) -> list[Rule]:
    return read_entries(entries, INTERFACES)


def planned(current: list[Rule], *entries: dict[str, Any], ssh: tuple[int, ...] = (22,)) -> list[str]:
    return [" ".join(one) for one in plan(current, *with_ssh(rules(*entries), ssh))]


def test_an_entry_is_a_rule_for_each_family_protocol_and_network() -> None:
    assert list(map(str, rules({"port": "53", "proto": "any"}))) == [
        "allow 53/tcp from 0.0.0.0/0",
        "allow 53/tcp from ::/0",
        "allow 53/udp from 0.0.0.0/0",
        "allow 53/udp from ::/0",
    ]
    told = rules({"port": "8000-8010", "from": ["192.0.2.7", "2001:DB8::/32"], "interface": "eth0", "limit": True})
    assert list(map(str, told)) == [
        "limit on eth0 8000:8010/tcp from 192.0.2.7",
        "limit on eth0 8000:8010/tcp from 2001:db8::/32",
    ]


def test_of_two_entries_for_the_same_the_first_one_counts() -> None:
    told = rules({"port": "80", "limit": True}, {"port": 80, "comment": "proxy"})
    assert [one.action for one in told] == ["limit", "limit"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"port": "0"}, "rules[0].port is '0'."),
        ({"port": "65536"}, "rules[0].port is '65536'."),
        ({"port": "90-80"}, "rules[0].port is '90-80'."),
        ({"port": "http"}, "rules[0].port is 'http'."),
        ({}, "rules[0] has no port, no from and no interface"),
        ({"port": "80", "from": ["192.0.2.1/24"]}, "rules[0].from has '192.0.2.1/24'"),
        ({"port": "80", "interface": "eth7"}, "rules[0].interface is 'eth7', and this host has eth0, lo."),
        ({"port": "80", "limit": True, "deny": True}, "rules[0] has limit and deny."),
        ({"port": "80", "comment": "it's"}, "rules[0].comment is"),
    ],
)
def test_what_no_rule_can_be_made_of_is_refused(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        rules(entry)
    assert sentence in str(error.value)


def test_rules_are_read_as_ufw_writes_them() -> None:
    found = parse_rules(USER_RULES, "ipv4")
    assert [(str(one), one.ours, one.comment) for one in found] == [
        ("allow 22/tcp from 0.0.0.0/0", True, "groundwork: SSH"),
        ("limit on eth0 8000:8010/tcp from 192.0.2.0/24", True, "groundwork"),
        ("allow 80,443/tcp from 0.0.0.0/0 (WWW Full)", False, ""),
        ("deny 25 from 203.0.113.9 (to 198.51.100.1)", False, ""),
    ]


def test_ssh_is_opened_first_and_the_second_run_has_nothing_to_do() -> None:
    ssh, rest = with_ssh(rules({"port": "80"}), [22])
    assert [one[:4] for one in plan([], ssh, rest)] == [
        ["ufw", "prepend", "allow", "in"], ["ufw", "prepend", "allow", "in"],
        ["ufw", "allow", "in", "proto"], ["ufw", "allow", "in", "proto"],
    ]  # fmt: skip
    assert plan(outcome([], ssh, rest), ssh, rest) == []


def test_an_entry_for_ssh_alone_takes_the_place_of_the_rule_for_everybody() -> None:
    assert planned([], {"port": "22", "from": ["192.0.2.0/24"]}) == [
        "ufw prepend allow in proto tcp from 192.0.2.0/24 to any port 22 comment groundwork"
    ]


@pytest.mark.parametrize(
    "entry", [{"port": "22", "deny": True}, {"port": "1-1024", "from": ["192.0.2.1"], "deny": True}]
)
def test_an_entry_that_denies_ssh_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="which is about SSH: sshd of this host answers on 22"):
        planned([], entry)


def test_what_is_not_listed_goes_last_and_what_others_made_stays() -> None:
    ours, foreign = (
        Rule("ipv4", "allow", "tcp", "25", "0.0.0.0/0"),
        Rule("ipv4", "deny", source="203.0.113.9", ours=False),
    )
    assert planned([foreign, ours], {"port": "80", "from": ["192.0.2.1"]}, ssh=()) == [
        "ufw allow in proto tcp from 192.0.2.1 to any port 80 comment groundwork",
        "ufw delete allow in proto tcp from 0.0.0.0/0 to any port 25",
    ]


def test_the_rule_of_somebody_else_that_says_the_same_is_left_to_him() -> None:
    foreign = [Rule("ipv4", "allow", "tcp", "80", "192.0.2.1", ours=False)]
    assert planned(foreign, {"port": "80", "from": ["192.0.2.1"]}, ssh=()) == []


def test_the_rule_of_somebody_else_that_says_the_opposite_is_named() -> None:
    foreign = [Rule("ipv4", "deny", "tcp", "80", "192.0.2.1", ours=False)]
    with pytest.raises(StateError, match=r"ufw delete deny in proto tcp from 192\.0\.2\.1 to any port 80"):
        planned(foreign, {"port": "80", "from": ["192.0.2.1"]}, ssh=())


def test_where_the_order_counts_rules_move() -> None:
    one, two = ({"port": "80", "from": ["192.0.2.0/24"], "deny": True}, {"port": "80", "from": ["192.0.2.1"]})
    before = outcome([], [], rules(two, one))
    assert [step.split(" in ")[0] for step in planned(before, one, two, ssh=())] == [
        "ufw delete allow", "ufw delete deny", "ufw deny", "ufw allow",
    ]  # fmt: skip


def test_a_comment_changes_in_place() -> None:
    before = outcome([], [], rules({"port": "80", "from": ["192.0.2.1"]}))
    assert planned(before, {"port": "80", "from": ["192.0.2.1"], "comment": "web"}, ssh=()) == [
        "ufw allow in proto tcp from 192.0.2.1 to any port 80 comment groundwork: web"
    ]


@pytest.mark.parametrize(
    ("entries", "foreign", "refused"),
    [
        ([], [], ""),
        ([{"port": "22", "from": ["198.51.100.0/24"]}], [], ""),
        ([{"port": "22", "from": ["192.0.2.0/24"]}], [], "no rule is for it"),
        ([{"port": "22", "interface": "lo"}], [], "no rule is for it"),
        ([{"port": "22", "from": ["198.51.100.0/24"]}], ["198.51.100.7"], ""),
        ([{"port": "22", "from": ["198.51.100.0/24"]}], ["again"], "the first rule for it is"),
    ],
)
def test_the_connection_of_the_task_has_a_way_back(
    entries: list[dict[str, Any]], foreign: list[str], refused: str
) -> None:
    ssh, rest = with_ssh(rules(*entries), [22])
    # A ban stands before the rule for SSH when that was there before; our own is put before a ban.
    banned = [Rule("ipv4", "deny", "tcp", "22", "198.51.100.7", ours=False) for _ in foreign]
    current = [*banned, *(ssh if foreign == ["again"] else [])]
    session = Session("198.51.100.7", 22, "eth0")
    if refused:
        with pytest.raises(InputError, match=refused):
            require_way_back(session, outcome(current, ssh, rest))
    else:
        require_way_back(session, outcome(current, ssh, rest))


def test_the_connection_is_read_from_the_environment_of_a_process() -> None:
    environ = b"A=1\0SSH_CONNECTION=fe80::1%eth0 50000 ::ffff:192.0.2.1 2222\0B=2\0"
    assert parse_connection(environ) == ("fe80::1", "192.0.2.1", 2222)
    assert parse_connection(b"A=1\0") is None


def test_the_ports_of_sshd_are_those_of_its_addresses() -> None:
    assert parse_sshd("port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:2222\n") == {22, 2222}


def test_rules_for_containers_match_the_port_that_was_asked_for() -> None:
    entries = rules(
        {"port": "8080", "from": ["192.0.2.0/24"]}, {"port": "1-9", "limit": True}, {"port": "25", "deny": True}
    )
    text = rules_text(entries, "ipv4", [], ["docker0"], ["br-lan"])
    lines = text.partition("*mangle")[0].splitlines()
    asked = "-A groundwork-docker-asked"
    port = "-m conntrack --ctdir ORIGINAL --ctorigdstport"
    assert lines[4:] == [
        "-A groundwork-docker -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-A groundwork-docker -i br-lan -m conntrack --ctstate DNAT -g groundwork-docker-asked",
        "-A groundwork-docker -i br-lan -o docker0 -j DROP",
        "-A groundwork-docker -i docker0 -j RETURN",
        "-A groundwork-docker -m conntrack --ctstate DNAT -g groundwork-docker-asked",
        "-A groundwork-docker -o docker0 -j DROP",
        f"{asked} -s 192.0.2.0/24 -p tcp {port} 8080 -j RETURN",
        f"{asked} -p tcp {port} 1:9 -m recent --name gwtcp1-9 --set",
        f"{asked} -p tcp {port} 1:9 -m recent --name gwtcp1-9 --update --seconds 30 --hitcount 6 -j DROP",
        f"{asked} -p tcp {port} 1:9 -j RETURN",
        f"{asked} -p tcp {port} 25 -j DROP",
        f"{asked} -j DROP",
        "COMMIT",
    ]
    assert "recent" not in text.partition("*mangle")[2]


def test_a_bridge_that_only_begins_like_those_of_docker_is_outside() -> None:
    assert read_bridges(["docker0", "br-+"], ["br-0123456789ab", "br-lan", "eth0"]) == ["br-lan"]
    assert read_bridges(["br-+", "br-lan"], ["br-lan"]) == []
    with pytest.raises(InputError, match="docker_interfaces has"):
        read_bridges(["docker0 -j ACCEPT"], [])


def test_the_call_in_the_script_of_ufw_comes_and_goes() -> None:
    text = "#!/bin/sh\nset -e\n"
    hooked = with_hook(text)
    assert hooked.splitlines()[2] == '/etc/ufw/groundwork-docker "$1" || exit'
    assert (with_hook(hooked), without_hook(hooked)) == (hooked, text)


def test_the_addresses_of_a_host_are_those_that_others_see() -> None:
    facts = {
        "interfaces": ["lo", "docker0", "eth0", "eth0.100", "br-lan", "br-0123456789ab"],
        "lo": {"ipv4": {"address": "127.0.0.1"}},
        "docker0": {"ipv4": {"address": "172.17.0.1"}},
        "eth0": {"ipv4": {"address": "192.0.2.1"}, "ipv4_secondaries": [{"address": "192.0.2.2"}]},
        "eth0.100": {"ipv4": {"address": "192.0.2.3"}},
        "br_lan": {"ipv6": [{"address": "2001:db8::1"}, {"address": "fe80::1"}]},
        "br_0123456789ab": {"ipv4": {"address": "172.18.0.1"}},
    }
    assert own_addresses(facts) == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
    assert own_addresses({}) == []


def test_what_may_answer_is_what_is_let_in_and_ssh_and_what_debian_needs() -> None:
    told = may_answer([{"port": 80, "limit": True}, {"from": ["192.0.2.1"]}, {"port": 25, "deny": True}], [2222])
    assert told[:2] == [{"port": 80}, {"port": "2222", "comment": "SSH"}]
    assert {"port": "68", "proto": "udp", "comment": "DHCP client"} in told
