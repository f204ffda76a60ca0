# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: the host, its service and its database."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection, scenario
from support.scenario import KEYS, Playbook, connect, copy_source, environment, fingerprint

collection.install()

__all__ = ["KEYS", "Playbook", "environment", "fingerprint"]

INVENTORY = ROOT / "molecule" / "verisphere" / "inventory"
ADDRESS = "198.18.0.101"


@pytest.fixture(scope="session")
def host() -> Host:
    """The scenario's host."""
    return connect(ADDRESS)


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """Runs playbooks."""
    return Playbook(tmp_path, INVENTORY)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the example application that a test may change."""
    return copy_source(ROOT / "examples" / "verisphere", tmp_path / "source")


def current_release(host: Host) -> str:
    """The id of the release that serves."""
    return scenario.current_release(host, "verisphere")


def in_postgres(host: Host, query: str, database: str = "verisphere") -> str:
    """One value from the stack's database, over the container's local socket."""
    done = host.run("sudo docker exec verisphere_postgres psql -X -At -U postgres -d %s -c %s", database, query)
    assert done.rc == 0, done.stderr
    return str(done.stdout).strip()


def ask(host: Host, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON answer of the service, asked on the host's own loopback."""
    data = "" if body is None else f"--json {_quote(json.dumps(body))}"
    done = host.run(
        f"curl --silent --show-error --max-time 20 --write-out '\\n%{{http_code}}' {data} http://127.0.0.1:8081{path}"
    )
    assert done.rc == 0, done.stderr
    text, _, status = str(done.stdout).rpartition("\n")
    return int(status), json.loads(text)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
