# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the Molecule scenarios share: playbooks run as a user runs them, hosts over SSH, and a fingerprint of a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from support import ansible_runs
from support.collection import ROOT

KEYS = ROOT / "build" / "testbed" / "ssh"


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
        """The changed= of the recap, of all managed hosts together."""
        counts = re.findall(r"^(?!localhost)[\w.-]+\s*:.*changed=(\d+)", self.output, re.MULTILINE)
        assert counts, self.output
        return sum(map(int, counts))


@dataclass(frozen=True)
class Playbook:
    """playbook("deploy", "--check", source="...") runs a playbook of the collection on the scenario's hosts."""

    folder: Path
    inventory: Path

    def command(self, name: str, *arguments: str, inventory: Path | None = None, **variables: Any) -> list[str]:
        """The argv of a run; variables go into a file, as secrets would."""
        path = self.folder / f"variables-{len(list(self.folder.glob('variables-*')))}.json"
        path.write_text(json.dumps(variables))
        return [
            "ansible-playbook",
            "-i",
            str(inventory or self.inventory),
            name if name.endswith(".yml") else f"playbooks/{name}.yml",
            "-e",
            f"@{path}",
            *arguments,
        ]

    def start(self, name: str, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a run in a process group of its own, so that a test can interrupt or kill it."""
        return subprocess.Popen(
            self.command(name, *arguments, **variables),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, name: str, *arguments: str, inventory: Path | None = None, **variables: Any) -> Run:
        """Run to the end."""
        command = self.command(name, *arguments, inventory=inventory, **variables)
        ended = ansible_runs.run(command, folder=ROOT, env=environment())
        return Run(ended.rc, ended.out + ended.err)


def environment() -> Mapping[str, str]:
    """The environment of a user's shell: without what Molecule sets, with the project's ansible.cfg."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_", "PY_"))}
    return {**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def connect(address: str) -> Host:
    """A host over SSH. (testinfra's own Ansible connection does not template inventory variables.)

    All commands of this process share a connection, so that they log in once; whether one can log in, they do not say.
    """
    return testinfra.get_host(
        f"ssh://debian@{address}",
        ssh_identity_file=str(KEYS / "id_ed25519"),
        controlpath=f"/tmp/gw-%%C-{os.getpid()}",
        ssh_extra_args=f"-o UserKnownHostsFile={KEYS / 'known_hosts'} -o StrictHostKeyChecking=accept-new",
    )


def forget_compiled(host: Host) -> None:
    """Have Python on a ready host compile Ansible's modules anew every time, as it does on hosts of users."""
    host.check_output("sudo rm -f /usr/lib/python3/dist-packages/groundwork_testbed_python.pth")


def copy_source(example: Path, target: Path) -> Path:
    """A copy of an application that a test may change."""
    subprocess.run(["cp", "-a", str(example), str(target)], check=True)
    return target


def fingerprint(host: Host) -> str:
    """Everything that a deploy could change on the host: files with their times, and containers with their ids.

    The deploy lock is not part of it: it is there while a deploy runs, and gone afterwards.
    """
    done = host.run(
        "sudo sh -c %s",
        'find /etc /srv /var/backups /usr/bin ! -path "/srv/*/deploy.lock*" '
        '\\( -type d -printf "%p %m\\n" -o -printf "%p %s %m %T@\\n" \\) | sort | sha256sum; '
        'docker ps --all --no-trunc --format "{{.ID}} {{.Image}} {{.State}}"; docker images --no-trunc --quiet | sort',
    )
    assert done.rc == 0, done.stderr
    assert "running" in done.stdout, "the fingerprint holds the stack's containers"
    return str(done.stdout)


def current_release(host: Host, app: str) -> str:
    """The id that the link "current" points to; the folder of the releases is closed to ordinary users."""
    target: str = host.check_output("sudo readlink %s", f"/srv/{app}/current")
    return target.rpartition("/")[2]
