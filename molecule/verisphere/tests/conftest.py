# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: playbooks run as a user runs them, and a fingerprint of the host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection

collection.install()

INVENTORY = ROOT / "molecule" / "verisphere" / "inventory"
KEYS = ROOT / "build" / "testbed" / "ssh"
HOST = "verisphere"
ADDRESS = "198.18.0.101"


@dataclass(frozen=True)
class Run:
    """What a playbook run printed and how it ended."""

    rc: int
    output: str

    @property
    def words(self) -> str:
        """The output with all white space as single spaces, so that wrapped sentences can be found."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        """The changed= of the recap."""
        counts = re.findall(rf"^{HOST}\s*:.*changed=(\d+)", self.output, re.MULTILINE)
        assert counts, self.output
        return int(counts[-1])


class Playbook:
    """playbook("deploy", "--check", source="...") runs a playbook of the collection on the scenario's host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str, *arguments: str, inventory: Path = INVENTORY, **variables: Any) -> list[str]:
        """The argv of a run; variables go into a file, as secrets would."""
        path = self.folder / "variables.json"
        path.write_text(json.dumps(variables))
        return [
            "ansible-playbook",
            "-i",
            str(inventory),
            name if name.endswith(".yml") else f"playbooks/{name}.yml",
            "-e",
            f"@{path}",
            *arguments,
        ]

    def __call__(self, name: str, *arguments: str, inventory: Path = INVENTORY, **variables: Any) -> Run:
        """Run to the end."""
        done = subprocess.run(
            self.command(name, *arguments, inventory=inventory, **variables),
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout + done.stderr)


def environment() -> Mapping[str, str]:
    """The environment of a user's shell: without what Molecule sets, with the project's ansible.cfg."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_", "PY_"))}
    return {**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


@pytest.fixture(scope="session")
def host() -> Host:
    """The scenario's host over SSH. (testinfra's own Ansible connection does not template inventory variables.)"""
    return testinfra.get_host(
        f"ssh://debian@{ADDRESS}",
        ssh_identity_file=str(KEYS / "id_ed25519"),
        ssh_extra_args=f"-o UserKnownHostsFile={KEYS / 'known_hosts'} -o StrictHostKeyChecking=accept-new",
    )


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    """Runs playbooks."""
    return Playbook(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the example application that a test may change."""
    target = tmp_path / "source"
    subprocess.run(["cp", "-a", str(ROOT / "examples" / "verisphere"), str(target)], check=True)
    return target


def fingerprint(host: Host) -> str:
    """Everything that a deploy could change on the host: files with their times, and containers with their ids."""
    done = host.run(
        "sudo sh -c %s",
        'find /etc /srv /var/backups /usr/bin -printf "%p %s %m %T@\\n" | sort | sha256sum; '
        'docker ps --all --no-trunc --format "{{.ID}} {{.Image}} {{.State}}"; docker images --no-trunc --quiet | sort',
    )
    assert done.rc == 0, done.stderr
    assert "running" in done.stdout, "the fingerprint holds the stack's containers"
    return str(done.stdout)


def current_release(host: Host) -> str:
    """The id that the link "current" points to; the folder of the releases is closed to ordinary users."""
    target: str = host.check_output("sudo readlink /srv/verisphere/current")
    return target.rpartition("/")[2]


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
