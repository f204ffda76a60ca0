# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A host with sockets and containers, a neighbour of it in a network namespace, and what reaches what."""

from __future__ import annotations

import json

from support.docker_host import DockerHost
from support.rolling import IMAGE

FOUR, SIX = "198.18.99.1", "fd00:99::1"
# Beside these ports of the host itself, which is on the web, SSH is open.
RULES = [
    {"port": "80", "comment": "the port of every container, which is about none of them"},
    {"port": "9001"},
    {"port": "9101", "comment": "web"},
    {"port": "9104", "from": ["192.0.2.0/24", "2001:db8::/32"]},
    {"port": "9105", "from": ["198.18.99.0/24", "fd00:99::/64"]},
    {"port": "9106-9107", "interface": "gwout0"},
]
# Containers, with the address that each has and the option that publishes its port 80.
_CONTAINERS = {
    "listed": (11, "9101:80"),
    "unlisted": (12, "9102:80"),
    "local": (13, "127.0.0.1:9103:80"),
    "elsewhere": (14, "9104:80"),
    "here": (15, "9105:80"),
    "interface": (16, "9107:80"),
}
_BOTH = {"four": FOUR, "six": SIX}
# What the neighbour asks for.
OUTSIDE = {
    **{f"{port} {name}": (address, port) for name, address in _BOTH.items() for port in (22, 9001, 9002)},
    **{f"{port} {name}": (address, port) for name, address in _BOTH.items() for port in (9101, 9102, 9104, 9105, 9107)},
    "127.0.0.1": ("127.0.0.1", 9103),
    "container four": ("172.30.0.12", 80),
    "container of a local port": ("172.30.0.13", 80),
    "container six": ("fd00:30::12", 80),
}
OPEN = {f"{port} {name}" for name in _BOTH for port in (22, 9001, 9101, 9105, 9107)}
# What has to work all the same: from the host, and from a container.
FROM_HOST = {
    "own address": (FOUR, 9102), "own address six": (SIX, 9102), "loopback": ("127.0.0.1", 9102),
    "local port": ("127.0.0.1", 9103), "container": ("172.30.0.12", 80), "outside": ("198.18.99.2", 9300),
}  # fmt: skip
FROM_CONTAINER = {name: FROM_HOST[name] for name in ("container", "outside")} | {"container six": ("fd00:30::12", 80)}

# Answers on its ports, of both families.
_LISTEN = """
import socket, sys, threading

def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello")
        connection.close()

for port in sys.argv[1:]:
    threading.Thread(target=serve, args=(int(port),)).start()
"""
# Prints the names, of a JSON object of addresses and ports, that answered.
_ASK = """
import concurrent.futures, json, socket, sys

def answers(place):
    try:
        with socket.create_connection(place, timeout=2) as asking:
            return bool(asking.recv(5))
    except OSError:
        return False

places = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
    answered = pool.map(answers, map(tuple, places.values()))
    print(json.dumps([name for name, answer in zip(places, answered) if answer]))
"""
# Nothing of it outlasts a restart of the host.
_LINK = f"""
sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0
ip netns add outside
ip link add gwout0 type veth peer name eth0 netns outside
sysctl -qw net.ipv6.conf.gwout0.disable_ipv6=0
ip netns exec outside sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0 net.ipv4.conf.eth0.route_localnet=1
ip addr add {FOUR}/24 dev gwout0
ip addr add {SIX}/64 dev gwout0 nodad
ip link set gwout0 up
ip -n outside addr add 198.18.99.2/24 dev eth0
ip -n outside addr add fd00:99::2/64 dev eth0 nodad
ip -n outside link set eth0 up
ip -n outside route add 172.30.0.0/24 via {FOUR}
ip -n outside route add 127.0.0.1/32 via {FOUR} src 198.18.99.2
ip -n outside route add fd00:30::/64 via {SIX}
systemd-run --quiet --unit=gw-listen python3 /srv/firewall/listen.py 9001 9002
systemd-run --quiet --unit=gw-outside ip netns exec outside python3 /srv/firewall/listen.py 9300
"""


def connect_outside(host: DockerHost) -> None:
    """Give a host that has just started its neighbour, and have something listen."""
    host.sh(_LINK)
    wait(host)


def prepare(host: DockerHost) -> None:
    """Neighbour, sockets and containers, published for IPv4 and IPv6. The host has IMAGE."""
    host.write("/srv/firewall/listen.py", _LISTEN)
    host.write("/srv/firewall/ask.py", _ASK)
    settings = json.loads(host.sh("cat /etc/docker/daemon.json"))
    host.write("/etc/docker/daemon.json", json.dumps({**settings, "ip6tables": True, "experimental": True}))
    host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=0; systemctl restart docker")
    host.sh("docker network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 gwnet >/dev/null")
    mount = "--volume /srv/firewall:/files:ro --stop-signal KILL --restart unless-stopped"
    for name, (number, publish) in _CONTAINERS.items():
        place = f"--network gwnet --ip 172.30.0.{number} --ip6 fd00:30::{number} --publish {publish}"
        host.sh(f"docker run --detach --name {name} {mount} {place} {IMAGE} python /files/listen.py 80 >/dev/null")
    connect_outside(host)


def wait(host: DockerHost) -> None:
    """Wait until everything listens. The host itself reaches containers whatever is let in."""
    places = {name: (f"172.30.0.{number}", 80) for name, (number, _) in _CONTAINERS.items()}
    while _ask(host, "python3", "/srv/firewall/ask.py", {**places, "own": ("127.0.0.1", 9002)}) != {*places, "own"}:
        pass
    host.sh("until ip netns exec outside ss -Hlnt | grep -q :9300; do sleep 0.1; done")


def _ask(host: DockerHost, where: str, script: str, places: dict[str, tuple[str, int]]) -> set[str]:
    return set(json.loads(host.sh(f"{where} {script} '{json.dumps(places)}'")))


def reached(host: DockerHost) -> set[str]:
    """What of OUTSIDE answers the neighbour."""
    return _ask(host, "ip netns exec outside python3", "/srv/firewall/ask.py", OUTSIDE)


def require_firewall(host: DockerHost) -> None:
    """The neighbour reaches what is listed and nothing else; the host and its containers reach what they did."""
    found = reached(host)
    assert found == OPEN, f"open: {sorted(found - OPEN)}, closed: {sorted(OPEN - found)}"
    for places, where, script in (
        (FROM_HOST, "python3", "/srv/firewall/ask.py"),
        (FROM_CONTAINER, "docker exec listed python", "/files/ask.py"),
    ):
        found = _ask(host, where, script, places)
        assert found == set(places), f"{where} does not reach {sorted(set(places) - found)}"
