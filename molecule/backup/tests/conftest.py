# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Fixtures of the scenario: a stack with data, its backup sets, and what clients and the database say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support import collection
from support.scenario import KEYS, Playbook, Run, connect, environment

collection.install()

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Component, Manifest

SCENARIO = ROOT / "molecule" / "backup"
ADDRESS, SUCCESSOR = "198.18.0.110", "198.18.0.111"
SETS = "/var/backups/notes"
NOTES = 3000
# Every note with its place, in one number; the worker's own table is left out, as it changes all the time.
DIGEST = "SELECT count(*) || ' ' || md5(string_agg(id || body || place, ',' ORDER BY id)) FROM notes"
UNBEARABLE = "the service cannot stand this"


@dataclass(frozen=True)
class Stack:
    """The stack on one host."""

    host: Host
    playbook: Playbook

    def sql(self, statements: str, database: str = "notes") -> str:
        """What the database answers, as superuser over the container's socket."""
        done = self.host.run(
            "sudo docker exec notes_db psql -X -At -v ON_ERROR_STOP=1 -U notes -d %s -c %s", database, statements
        )
        assert done.rc == 0, done.stderr
        return str(done.stdout).strip()

    def ask(self, path: str = "/") -> tuple[int, str]:
        """Status and text of an answer through the proxy, from the host's own loopback."""
        told = self.host.check_output(
            "curl --silent --show-error --max-time 10 --write-out %s %s", "\n%{http_code}", f"http://127.0.0.1{path}"
        )
        text, _, status = told.rpartition("\n")
        return int(status), text

    def notes(self) -> int:
        """How many notes the service counts."""
        status, text = self.ask()
        assert status == 200, text
        return int(json.loads(text)["notes"])

    def sets(self) -> list[str]:
        """Ids of the sets, oldest first."""
        return sorted(self.host.check_output("sudo ls %s", SETS).split())

    def manifest(self, set_id: str) -> dict[str, Any]:
        """The manifest of a set."""
        told: dict[str, Any] = json.loads(self.host.check_output("sudo cat %s", f"{SETS}/{set_id}/manifest.json"))
        return told

    def back_up(self) -> str:
        """Write a set; returns its id."""
        before = self.sets()
        run = self.playbook("backup")
        assert run.rc == 0, run.output
        [new] = set(self.sets()) - set(before)
        return new

    def restore(self, set_id: str, **variables: Any) -> Run:
        """Run restore.yml, confirmed."""
        return self.playbook("restore", backup_set=set_id, **{"confirm": "notes", **variables})

    def picture(self) -> dict[str, Any]:
        """Everything that a restore that fails leaves as it was, but the times at which containers were started."""
        assert self.host.run("sudo test -e /srv/notes/deploy.lock").rc != 0, "a lock was left"
        assert self.host.run("sudo test -e /srv/notes/restore.json").rc != 0, "a restore left something to undo"
        return {
            "databases": self.sql("SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database", "postgres"),
            "notes": self.sql(DIGEST),
            "running": sorted(self.host.check_output("sudo docker ps --format '{{.Names}}'").split()),
            "answer": self.ask("/"),
        }

    def started(self) -> list[str]:
        """When each container was started: the same when nothing of the stack was touched."""
        command = "sudo docker ps --quiet | xargs sudo docker inspect --format '{{.Name}} {{.State.StartedAt}}'"
        return sorted(self.host.check_output(command).splitlines())

    def forge(self, set_id: str, new_id: str, **facts: Any) -> str:
        """A copy of a set, dated otherwise, whose manifest is in order and tells other facts of the component."""
        manifest = Manifest.from_dict(self.manifest(set_id))
        [component] = manifest.components
        told = Component.from_dict({**component.to_dict(), **facts})
        text = json.dumps(replace(manifest, id=new_id, components=(told,), proven=None).to_dict())
        self.host.check_output("sudo cp -a %s %s", f"{SETS}/{set_id}", f"{SETS}/{new_id}")
        self.host.check_output("printf %%s %s | sudo tee %s", text, f"{SETS}/{new_id}/manifest.json")
        return new_id

    def dump(self, set_id: str) -> str:
        """Path of the database dump of a set."""
        return f"{SETS}/{set_id}/components/notes/database.dump"

    def flip(self, set_id: str) -> None:
        """Turn one bit of a dump around, in the middle of it; a second time turns it back."""
        script = (
            "import sys; f = open(sys.argv[1], 'r+b'); f.seek(0, 2); n = f.tell() // 2; f.seek(n); "
            "b = f.read(1)[0]; f.seek(n); f.write(bytes([b ^ 1]))"
        )
        self.host.check_output("sudo python3 -c %s %s", script, self.dump(set_id))


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run commands as the reader of a guide does: in the clone, here with the test bed's SSH key."""
    ssh = f"ssh -i {KEYS / 'id_ed25519'} -o UserKnownHostsFile={KEYS / 'known_hosts'} -o BatchMode=yes"
    return subprocess.run(
        ["bash", "-e", "-u", "-c", script], cwd=ROOT, env={**environment(), "RSYNC_RSH": ssh},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def copy_inventory(folder: Path) -> Path:
    """A copy of the scenario's inventory that a test may change."""
    shutil.copytree(SCENARIO / "inventory", folder)
    for path in (folder / "hosts.yml", folder / "group_vars" / "all" / "main.yml"):
        text = path.read_text().replace("{{ inventory_dir }}/../../..", str(ROOT))
        path.write_text(text.replace("inventory_dir ~ '/../../..", f"'{ROOT}"))
    return folder


@pytest.fixture(scope="session")
def host() -> Host:
    """The scenario's host."""
    return connect(ADDRESS)


@pytest.fixture
def stack(host: Host, tmp_path: Path) -> Stack:
    """The stack on it."""
    return Stack(host, Playbook(tmp_path, SCENARIO / "inventory"))


@pytest.fixture(scope="session")
def good_set(host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set with all notes; the id."""
    stack = Stack(host, Playbook(tmp_path_factory.mktemp("good"), SCENARIO / "inventory"))
    stack.sql(
        "TRUNCATE notes; INSERT INTO notes (body, place) "
        "SELECT md5(n::text), format('[%s,%s,%s]', n, n % 7, n % 11)::vector "
        f"FROM generate_series(1, {NOTES}) n"
    )
    return stack.back_up()
