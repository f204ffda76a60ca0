# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: the server, and a host outside that looks at it, over IPv4 and IPv6."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection
from support.outside import Outside, six
from support.scenario import Playbook

collection.install()

SERVER, OUTSIDE = "198.18.0.123", "198.18.0.124"
SERVER_SIX = six(SERVER)
NAME = "edge.example.org"
IMAGE = "python:3.13-slim"
# Containers that the stack does not have: one on all addresses, one on loopback.
UNLISTED, LOCAL = 9002, 9003


class Edge(Outside):
    """The server and the host outside."""

    def tls(self, *options: str, name: str = NAME) -> tuple[int, str]:
        """How a handshake from outside ends, as openssl s_client tells it."""
        words = ["openssl", "s_client", "-connect", f"{SERVER}:443", "-servername", name, *options]
        done = self.outside.run("sh -c %s", f"{shlex.join(words)} </dev/null 2>&1")
        return done.rc, str(done.stdout)

    def serial(self) -> str:
        """The serial number of the certificate that is served."""
        ask = f"openssl s_client -connect {SERVER}:443 -servername {NAME} </dev/null 2>/dev/null"
        return str(self.outside.check_output("sh -c %s", f"{ask} | openssl x509 -noout -serial"))

    def wait_until_served(self, serial: str) -> None:
        """Wait for a certificate: a reload of nginx is asked for, and ended a moment later."""
        deadline = time.monotonic() + 15
        while self.serial() != serial:
            assert time.monotonic() < deadline, f"{serial} is not served"
            time.sleep(0.2)

    def start_short_lived(self, seconds: int) -> str:
        """Start a second ACME server, whose certificates live so long; its directory URL."""
        changes = f's/(certificateValidityPeriod": )[0-9]+/\\1{seconds}/; s/:14000/:14001/; s/:15000/:15001/'
        self.outside.check_output(
            "sudo sh -c %s",
            f"sed -E '{changes}' /etc/pebble/pebble.json >/etc/pebble/short.json && "
            "systemd-run --unit=pebble-short --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 "
            "/usr/bin/pebble -config /etc/pebble/short.json -dnsserver 127.0.0.1:8053",
        )
        self.outside.check_output("timeout 20 sh -c %s", "until ss -Hlnt | grep -q :14001; do sleep 0.1; done")
        return f"https://{OUTSIDE}:14001/dir"

    def wait(self) -> None:
        """Wait until the stack and the containers of the tests answer on the server itself."""
        ports = " ".join(map(str, (443, 9001, UNLISTED, LOCAL)))
        ask = f"for port in {ports}; do curl -sko /dev/null --max-time 2 http://127.0.0.1:$port/ || exit 1; done"
        self.server.check_output("timeout 120 sh -c %s", f"until sh -c '{ask}'; do sleep 0.3; done")


@pytest.fixture(scope="session")
def edge() -> Edge:
    """The hosts over SSH."""
    return Edge.of(SERVER, OUTSIDE, NAME, f"www.{NAME}")


@pytest.fixture(scope="session")
def containers(edge: Edge) -> Iterator[None]:
    """Containers beside the stack, which nothing lists."""
    for name, publish in (("unlisted", f"{UNLISTED}:8000"), ("local", f"127.0.0.1:{LOCAL}:8000")):
        edge.server.check_output(
            f"sudo docker run --detach --init --name {name} --restart unless-stopped --publish {publish} {IMAGE} "
            "python -m http.server 8000"
        )
    edge.wait()
    yield
    edge.server.check_output("sudo docker rm --force unlisted local")


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """Runs playbooks."""
    return Playbook(tmp_path, ROOT / "molecule" / "edge" / "inventory")
