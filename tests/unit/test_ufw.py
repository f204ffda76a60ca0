# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Lists of rules, UFW's files, and the way from the one to the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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
    not_in_force,
    not_loaded,
    read_bridges,
    rules_text,
    with_hook,
    without_hook,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_host import families
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_plan import outcome, plan
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_ssh import (
    Session,
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
# As iptables-save 1.8.11 tells what loaded() makes, without what UFW and Docker have beside it.
_OURS = """\
-A groundwork-docker -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A groundwork-docker -i docker0 -j RETURN
-A groundwork-docker -m conntrack --ctstate DNAT -g groundwork-docker-asked
-A groundwork-docker -o docker0 -j DROP
-A groundwork-docker-asked -s 192.0.2.7/32 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j RETURN
"""
_LIMIT = "-A groundwork-docker-asked -p tcp -m conntrack --ctorigdstport 25 --ctdir ORIGINAL"
_RECENT = "--name gwtcp25 --mask 255.255.255.255 --rsource"
_CLOSED = "-A groundwork-docker-asked -j DROP\nCOMMIT\n"
SAVED = f"""\
*mangle
:INPUT ACCEPT [0:0]
-A FORWARD -j groundwork-docker
{_OURS}{_LIMIT} -j RETURN
{_CLOSED}*raw
-A PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP
COMMIT
*filter
:INPUT DROP [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j groundwork-docker
{_OURS}{_LIMIT} -m recent --set {_RECENT}
{_LIMIT} -m recent --update --seconds 30 --hitcount 6 {_RECENT} -j DROP
{_LIMIT} -j RETURN
{_CLOSED}-A ufw-before-input -j ufw-user-input
COMMIT
"""


def loaded(*more: dict[str, Any]) -> str:
    entries = rules({"port": "8080", "from": ["192.0.2.7"]}, {"port": "25", "limit": True}, *more)
    return rules_text(entries, "ipv4", [], ["docker0"], [])


def rules(*entries: dict[str, Any]) -> list[Rule]:
    return read_entries(entries, INTERFACES)


def planned(current: list[Rule], *entries: dict[str, Any], ssh: tuple[int, ...] = (22,)) -> list[str]:
    return [" ".join(one.command) for one in plan(current, *with_ssh(rules(*entries), ssh))]


def after(current: list[Rule], *entries: dict[str, Any], ssh: tuple[int, ...] = (22,)) -> list[Rule]:
    return outcome(current, plan(current, *with_ssh(rules(*entries), ssh)))


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
    assert [one.partition(" in ")[0] for one in planned([], {"port": "80"})] == [
        "ufw prepend allow", "ufw prepend allow", "ufw allow", "ufw allow",
    ]  # fmt: skip
    assert planned(after([], {"port": "80"}), {"port": "80"}) == []


@pytest.mark.parametrize("actions", [("allow", "limit"), ("limit", "allow")])
def test_another_action_for_ssh_takes_the_place_of_the_one_before(actions: tuple[str, str]) -> None:
    first, second = ({"port": "22", "limit": action == "limit"} for action in actions)
    before = after([], first, {"port": "80"})
    assert [one.partition(" proto")[0] for one in planned(before, second, {"port": "80"})] == [
        f"ufw {actions[1]} in", f"ufw {actions[1]} in",
    ]  # fmt: skip


def test_what_logs_is_the_same_for_ufw() -> None:
    logged = Rule("ipv4", "allow", "tcp", "22", "0.0.0.0/0", logged="log", ours=False)
    assert [step for step in planned([logged]) if "0.0.0.0/0" in step] == []
    with pytest.raises(StateError, match=r"ufw delete deny in log proto tcp from 0\.0\.0\.0/0 to any port 22"):
        planned([replace(logged, action="deny")])


def test_a_rule_of_ssh_that_stood_behind_others_comes_first_and_is_open_meanwhile() -> None:
    deny = {"from": ["192.0.2.0/24"], "deny": True}
    before = rules(deny, {"port": "22", "from": ["0.0.0.0/0"]})
    assert planned(before, deny, {"port": "22", "from": ["0.0.0.0/0"]}) == [
        "ufw prepend allow in from 0.0.0.0/0 to any port 22 comment groundwork",
        "ufw delete allow in proto tcp from 0.0.0.0/0 to any port 22",
        "ufw prepend allow in proto tcp from 0.0.0.0/0 to any port 22 comment groundwork",
        "ufw delete allow in from 0.0.0.0/0 to any port 22",
    ]
    now = after(before, deny, {"port": "22", "from": ["0.0.0.0/0"]})
    assert list(map(str, now)) == ["allow 22/tcp from 0.0.0.0/0", "deny any from 192.0.2.0/24"]


def test_a_rule_of_somebody_else_is_not_taken_for_a_moment() -> None:
    deny = {"from": ["192.0.2.0/24"], "deny": True}
    before = [*rules(deny, {"port": "22"}), Rule("ipv4", "allow", "any", "22", "0.0.0.0/0", ours=False)]
    steps = [step for step in planned(before, deny) if " from 0.0.0.0/0 " in step]
    assert [step.partition(" from")[0] for step in steps] == [
        "ufw delete allow in proto tcp", "ufw prepend allow in proto tcp",
    ]  # fmt: skip


def test_rules_of_ssh_that_do_not_do_the_same_keep_their_order() -> None:
    office, limit = {"port": "22", "from": ["192.0.2.0/24"]}, {"port": "22", "from": ["0.0.0.0/0"], "limit": True}
    assert list(map(str, after(rules(office), office, limit))) == [
        "allow 22/tcp from 192.0.2.0/24",
        "limit 22/tcp from 0.0.0.0/0",
    ]


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
    before = rules(two, one)
    assert [step.split(" in ")[0] for step in planned(before, one, two, ssh=())] == [
        "ufw delete allow", "ufw delete deny", "ufw deny", "ufw allow",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            [{"port": "80", "from": ["192.0.2.0/24"], "deny": True}],
            [{"port": "80", "from": ["192.0.2.1"], "deny": True}, {"port": "80", "from": ["192.0.2.0/24"]}],
        ),
        ([{"port": "80"}], [{"port": "443"}, {"port": "80", "limit": True}]),
        (
            [{"from": ["192.0.2.1"]}, {"port": "80"}, {"port": "443"}],
            [{"from": ["192.0.2.1"]}, {"port": "80", "limit": True}, {"port": "443"}],
        ),
    ],
)
def test_another_action_leaves_the_order_of_the_list_and_a_second_run_has_nothing_to_do(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    for first, second in ((one, other), (other, one)):
        now = after(rules(*first), *second, ssh=())
        wanted = sorted(rules(*second), key=lambda rule: rule.family)
        # Where everything is let in, the order says nothing.
        open_wide = all(rule.action == "allow" for rule in wanted)
        assert set(now) == set(wanted)
        assert open_wide or now == wanted
        assert planned(now, *second, ssh=()) == []


def test_a_comment_changes_in_place() -> None:
    before = rules({"port": "80", "from": ["192.0.2.1"]})
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
            require_way_back(session, outcome(current, plan(current, ssh, rest)))
    else:
        require_way_back(session, outcome(current, plan(current, ssh, rest)))


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
        "-A groundwork-docker -i br-lan -o br-lan -j RETURN",
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


def test_rules_that_the_kernel_tells_in_its_own_words_are_in_force() -> None:
    assert not not_in_force(SAVED, "ipv4", loaded())
    assert not not_loaded(SAVED, "ipv4")
    assert not_loaded("", "ipv4")


@pytest.mark.parametrize(
    "gone",
    [
        "-A groundwork-docker-asked -j DROP\n",
        "-A groundwork-docker -o docker0 -j DROP\n",
        "-A FORWARD -j DOCKER-USER\n",
        "-A INPUT -j ufw-before-input\n",
    ],
)
def test_a_rule_that_the_kernel_lacks_is_missed(gone: str) -> None:
    for table in SAVED.split("COMMIT\n"):
        if gone in table:
            assert not_in_force(SAVED.replace(table, table.replace(gone, "")), "ipv4", loaded())


def test_rules_that_the_kernel_did_not_take_are_missed() -> None:
    assert not_in_force(SAVED, "ipv4", loaded({"port": "81"}))


def test_without_ipv6_in_the_kernel_there_are_no_rules_for_it(tmp_path: Path) -> None:
    assert families(tmp_path) == ["ipv4", "ipv6"]
    assert families(tmp_path / "ipv6") == ["ipv4"]


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
