# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""port_exposure on a real host: what it tells is compared with what answers in another network namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.docker_host import DockerHost
from support.rolling import IMAGE

# The host's addresses on a link whose other end is in the namespace "outside".
ADDRESSES = {"ipv4": "198.18.99.1", "ipv6": "fd00:99::1"}
WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, never bound to

# Answers "hello" on each of its arguments, such as tcp/0.0.0.0/9001; "*" takes both families.
_LISTEN = """
import socket, sys, threading

def serve(proto, host, port):
    six = host == "*" or ":" in host
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if six:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "*")
    listener.bind(("::" if host == "*" else host, int(port)))
    if proto == "tcp":
        listener.listen()
    while proto == "tcp":
        connection, _ = listener.accept()
        connection.sendall(b"hello")
        connection.close()
    while True:
        _, peer = listener.recvfrom(100)
        listener.sendto(b"hello", peer)

for argument in sys.argv[1:]:
    threading.Thread(target=serve, args=argument.split("/")).start()
"""

# Prints the arguments, such as tcp/198.18.99.1/9001, that answered, as JSON.
_ASK = """
import json, socket, sys

def answers(proto, host, port):
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as asking:
        asking.settimeout(5)
        try:
            asking.connect((host, int(port)))
            if proto == "udp":
                asking.send(b"hi")
            return bool(asking.recv(5))
        except OSError:  # refused, by the host at once
            return False

print(json.dumps([one for one in sys.argv[1:] if answers(*one.split("/"))]))
"""

# The engine asks once whether IPv6 is there; hosts of the test bed start without it.
_LINK = f"""
sysctl -qw net.ipv6.conf.all.disable_ipv6=0
systemctl reset-failed docker.service
systemctl restart docker
ip netns add outside
ip link add gwout0 type veth peer name eth0 netns outside
sysctl -qw net.ipv6.conf.gwout0.disable_ipv6=0
ip netns exec outside sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0
ip addr add {ADDRESSES["ipv4"]}/30 dev gwout0
ip addr add {ADDRESSES["ipv6"]}/64 dev gwout0 nodad
ip link set gwout0 up
ip -n outside addr add 198.18.99.2/30 dev eth0
ip -n outside addr add fd00:99::2/64 dev eth0 nodad
ip -n outside link set eth0 up
"""

# Rules by hand, of both kinds, that send a port to another one.
_RULES = """
nft add table ip gwown
nft 'add chain ip gwown pre { type nat hook prerouting priority dstnat; }'
nft add rule ip gwown pre tcp dport 9201 redirect to :9001
iptables -t nat -A PREROUTING -p tcp --dport 9202 -j REDIRECT --to-ports 9001
"""

SOCKETS = (
    "tcp/0.0.0.0/9001", "tcp/*/9002", "tcp/127.0.0.1/9003", f"tcp/{ADDRESSES['ipv4']}/9004", "udp/0.0.0.0/9005",
    "udp/127.0.0.1/9006", "tcp/::/9007", "tcp/::1/9008",
)  # fmt: skip
# Those of containers: what it listens on, and options of `docker run`.
CONTAINERS = {
    "open": ("tcp/0.0.0.0/80", "--publish 9101:80 --label com.docker.compose.project=shop "
             "--label com.docker.compose.service=web"),
    "local": ("tcp/0.0.0.0/80", "--publish 127.0.0.1:9102:80"),
    "names": ("udp/0.0.0.0/53", "--publish 9103:53/udp"),
    "unpublished": ("tcp/0.0.0.0/9104", ""),
    "shared": ("tcp/0.0.0.0/9105", "--network host"),
}  # fmt: skip
_UDP = (9005, 9006, 9103)
PORTS = [("udp" if port in _UDP else "tcp", port) for port in (*range(9001, 9010), *range(9101, 9106), 9201, 9202)]

_CLEAN = f"""
docker rm --force {" ".join(CONTAINERS)} >/dev/null 2>&1 || true
systemctl stop gw-listen gw-lazy.socket gw-lazy.service >/dev/null 2>&1 || true
rm -f /etc/systemd/system/gw-lazy.*
ip netns del outside 2>/dev/null || true
nft delete table ip gwown 2>/dev/null || true
iptables -t nat -D PREROUTING -p tcp --dport 9202 -j REDIRECT --to-ports 9001 2>/dev/null || true
sysctl -qw net.ipv6.conf.all.disable_ipv6=1
"""


@pytest.fixture(scope="module")
def host(app_host: DockerHost) -> Iterator[DockerHost]:
    """The Debian host with something on every port of PORTS, and a network namespace to ask from."""
    app_host.sh(_CLEAN)
    app_host.write("/srv/exposure/listen.py", _LISTEN)
    app_host.write("/srv/exposure/ask.py", _ASK)
    app_host.write("/etc/systemd/system/gw-lazy.socket", "[Socket]\nListenStream=9009\nAccept=no\n")
    app_host.write("/etc/systemd/system/gw-lazy.service", "[Service]\nExecStart=sleep infinity\n")
    mount = "--volume /srv/exposure:/files:ro --stop-signal KILL --restart unless-stopped"
    runs = [
        f"docker run --detach --name {name} {mount} {options} {IMAGE} python /files/listen.py {listens} >/dev/null"
        for name, (listens, options) in CONTAINERS.items()
    ]
    listen = f"systemd-run --quiet --unit=gw-listen python3 /srv/exposure/listen.py {' '.join(SOCKETS)}"
    app_host.sh("\n".join([_LINK, _RULES, listen, *runs, "systemctl daemon-reload", "systemctl start gw-lazy.socket"]))
    _wait(app_host)
    yield app_host
    app_host.sh(_CLEAN)


@pytest.fixture
def without_proxy(host: DockerHost) -> Iterator[DockerHost]:
    """The host with an engine that publishes ports by rules alone."""
    before = host.sh("cat /etc/docker/daemon.json")
    _restart(host, json.dumps({**json.loads(before), "userland-proxy": False}))
    yield host
    _restart(host, before)


def _restart(host: DockerHost, settings: str) -> None:
    host.write("/etc/docker/daemon.json", settings)
    host.sh("systemctl reset-failed docker.service; systemctl restart docker")
    _wait(host)


def _wait(host: DockerHost) -> None:
    """Wait until everything listens that was started."""
    inside = "nsenter --net=/proc/$(docker inspect --format '{{.State.Pid}}' %s)/ns/net ss -Hlntu 2>/dev/null"
    wanted = [("ss -Hlntu", one) for one in SOCKETS]
    wanted += [(inside % name, listens) for name, (listens, _) in CONTAINERS.items()]
    host.sh("\n".join(f"until {ss} | grep -q ':{one.split('/')[2]} '; do sleep 0.1; done" for ss, one in wanted))


def not_seen(result: dict[str, Any]) -> list[str]:
    """What is told not to be seen; the rest tells which ports on loopback neighbours may reach."""
    return [one for one in result["unseen"] if " on loopback" not in one]


def look(host: DockerHost, **options: Any) -> dict[str, Any]:
    result = host.module("port_exposure", {"fail": False, **options})
    assert "failed" not in result, result["_printed"]
    return result


def told(result: dict[str, Any]) -> set[str]:
    """What should answer at the two addresses, such as "tcp/198.18.99.1/9001"."""
    return {
        f"{proto}/{address}/{port}"
        for proto, port in PORTS
        for family, address in ADDRESSES.items()
        for one in result["exposed"]
        if (one["proto"], one["family"], one["port"]) == (proto, family, port)
        and (one["address"] in WILDCARDS or one["address"] == address)
    }


def answers(host: DockerHost) -> set[str]:
    """What does answer there, asked from outside."""
    places = [f"{proto}/{address}/{port}" for proto, port in PORTS for address in ADDRESSES.values() if port != 9009]
    command = f"ip netns exec outside python3 /srv/exposure/ask.py {' '.join(places)}"
    return set(json.loads(host.sh(command)))


def test_a_port_is_told_exactly_if_it_answers_outside(host: DockerHost) -> None:
    four, six = ADDRESSES.values()
    answered = answers(host)
    assert answered == {
        f"tcp/{four}/9001", f"tcp/{four}/9002", f"tcp/{six}/9002", f"tcp/{four}/9004", f"udp/{four}/9005",
        f"tcp/{six}/9007", f"tcp/{four}/9101", f"tcp/{six}/9101", f"udp/{four}/9103", f"udp/{six}/9103",
        f"tcp/{four}/9105", f"tcp/{four}/9201", f"tcp/{four}/9202",
    }  # fmt: skip
    # Nothing asks the socket unit: systemd would start its service, which answers nobody.
    lazy = {f"tcp/{four}/9009", f"tcp/{six}/9009"}
    assert told(look(host)) == answered | lazy


def test_without_dockers_proxy_ports_are_told_exactly_if_they_answer_outside(without_proxy: DockerHost) -> None:
    four, six = ADDRESSES.values()
    answered, result = answers(without_proxy), look(without_proxy)
    assert answered & {f"tcp/{four}/9101", f"tcp/{six}/9101", f"udp/{four}/9103", f"udp/{six}/9103"} == {
        f"tcp/{four}/9101",
        f"udp/{four}/9103",
    }
    assert told(result) - {f"tcp/{four}/9009", f"tcp/{six}/9009"} == answered
    assert {one["owner"] for one in result["exposed"] if one["port"] == 9103} == {"container names"}


def test_owners(host: DockerHost) -> None:
    result = look(host)
    owner = {one["port"]: one for one in result["exposed"]}
    assert owner[9101]["owner"] == "container open (Compose project shop, service web)"
    assert owner[9103]["owner"] == "container names"
    shared = host.sh("docker inspect --format '{{.State.Pid}}' shared").strip()
    assert owner[9105]["owner"] == f"container shared and python (process {shared})"
    main = host.sh("systemctl show --value --property=MainPID gw-listen").strip()
    assert owner[9001]["owner"] == f"python3 (process {main}, gw-listen.service)"
    assert owner[9009]["owner"] == "systemd (process 1, gw-lazy.socket)"
    assert owner[9201]["owner"] == "a rule of nftables in chain pre of table gwown"
    assert owner[9202]["owner"] == "a rule of iptables in chain PREROUTING"
    assert "sshd" in owner[22]["owner"]
    assert "ssh.service" in owner[22]["owner"]
    assert not_seen(result) == []


def test_nothing_is_changed_and_check_mode_does_the_same(host: DockerHost) -> None:
    state = "nft --stateless list ruleset 2>/dev/null; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names || true"
    before = host.sh(state)
    done, checked = (host.module("port_exposure", {"fail": False}, check=check) for check in (False, True))
    assert done["exposed"] == checked["exposed"]
    assert (done["changed"], checked["changed"]) == (False, False)
    assert host.sh(state) == before


def test_what_is_not_allowed_fails_with_its_owner_and_what_is_missing_does_not(host: DockerHost) -> None:
    ports = {(one["proto"], one["port"]) for one in look(host)["exposed"]}
    allowed = [{"port": str(port), "proto": proto} for proto, port in sorted(ports - {("tcp", 9101)})]
    allowed.append({"port": "4444-4445", "comment": "nobody"})
    failed = host.module("port_exposure", {"allowed": allowed})
    assert failed["msg"] == (
        "1 port answers from outside and is not in allowed: tcp 9101 on 0.0.0.0 and :: by container open (Compose "
        "project shop, service web). Publish a container's port on 127.0.0.1 only, or not at all; or add what is "
        "meant to be open to allowed."
    )
    assert {one["port"] for one in failed["unexpected"]} == {9101}
    fine = host.module("port_exposure", {"allowed": [*allowed, {"port": "9101"}]})
    assert fine.get("failed", False) is False, fine
    assert fine["unexpected"] == []
    assert [one["comment"] for one in fine["missing"]] == ["nobody"]


def test_without_root_it_says_what_it_cannot_see_and_proves_nothing(host: DockerHost) -> None:
    seen = host.module("port_exposure", {"fail": False}, become=False)
    assert [one.split(",")[0] for one in not_seen(seen)] == [
        "Rules that forward ports",
        "Containers have no names here: Docker's socket may not be used by this user. Run with become",
        "The processes behind tcp 22",
    ]
    assert {one["owner"] for one in seen["exposed"] if one["port"] == 9001} == {
        "gw-listen.service (its process is another user's)"
    }
    everything = [{"port": "1-65535", "proto": "any"}]
    refused = host.module("port_exposure", {"allowed": everything}, become=False)
    assert refused["failed"] is True
    assert refused["msg"].startswith("Nothing unexpected answers from outside, as far as can be seen, and not all can")
    assert "Run with become." in refused["msg"]
