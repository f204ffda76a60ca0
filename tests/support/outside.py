# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A server as a host outside sees it, over IPv4 and IPv6. The host outside has the ACME server (install-pebble)."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from dataclasses import dataclass
from typing import Self

from testinfra.host import Host

from support.scenario import connect

_ASK = """
import concurrent.futures, json, socket, sys

def answers(place):
    try:
        with socket.create_connection(place, timeout=3):
            return True
    except OSError:
        return False

places = [tuple(place) for place in json.loads(sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
    print(json.dumps([place for place, answer in zip(places, pool.map(answers, places)) if answer]))
"""


def six(address: str) -> str:
    """The IPv6 address that the host with this IPv4 address gets."""
    return f"fd00:198:18::{address.rpartition('.')[2]}"


@dataclass(frozen=True)
class Outside:
    """The server and the host outside. names: what leads to the server."""

    server: Host
    outside: Host
    addresses: tuple[str, str]
    names: tuple[str, ...]

    @classmethod
    def of(cls, server: str, outside: str, *names: str) -> Self:
        """Over SSH, by their IPv4 addresses; the host outside trusts the ACME server's root from then on."""
        found = cls(connect(server), connect(outside), (server, outside), names)
        found.connect()
        root = "https://127.0.0.1:15000/roots/0"
        found.outside.check_output("curl --silent --insecure --output /tmp/acme-root.pem %s", root)
        return found

    def connect(self) -> None:
        """Give both hosts an IPv6 address; it does not outlast a restart."""
        for host, address in zip((self.server, self.outside), self.addresses, strict=True):
            host.check_output(
                "sudo sh -c %s",
                "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 && "
                f"ip -6 addr replace {six(address)}/64 dev eth0 nodad",
            )

    def open_ports(self, ports: list[int]) -> set[tuple[str, int]]:
        """Which of these ports take a connection from outside, with the address."""
        places = [(address, port) for address in (self.addresses[0], six(self.addresses[0])) for port in ports]
        told = self.outside.check_output("python3 -c %s %s", _ASK, json.dumps(places))
        return {(address, port) for address, port in json.loads(told)}

    def curl(self, url: str, *options: str) -> str:
        """What curl prints on the host outside; it trusts the ACME server's root and no other."""
        names = [f"{name}:{port}:{self.addresses[0]}" for name in self.names for port in (80, 443)]
        resolve = [word for one in names for word in ("--resolve", one)]
        words = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", "/tmp/acme-root.pem"]
        done = self.outside.run(shlex.join([*words, *resolve, *options, url]))
        return str(done.stdout + done.stderr)

    def reboot(self) -> None:
        """Restart the server."""
        before = self.server.check_output("cat /proc/sys/kernel/random/boot_id")
        self.server.check_output("sudo systemctl reboot --no-block")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # no connection
                if self.server.check_output("cat /proc/sys/kernel/random/boot_id") != before:
                    return
            time.sleep(0.5)
        raise AssertionError("the server did not come back within 120 seconds")
