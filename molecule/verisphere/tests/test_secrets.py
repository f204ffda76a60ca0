# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""No password appears in a process list, a log, a ledger, a manifest or in what Ansible prints, even with -vvv."""

from __future__ import annotations

import shlex
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import ADDRESS, KEYS, ROOT, Playbook, environment, in_postgres
from support.scenario import Run
from testinfra.host import Host

SSH = [
    "ssh", "-i", str(KEYS / "id_ed25519"), "-o", f"UserKnownHostsFile={KEYS / 'known_hosts'}", f"debian@{ADDRESS}",
]  # fmt: skip
# Prints each argument of each process once, until its standard input ends. It looks again so soon because a dump of a
# small database is over in a tenth of a second.
WATCH = """
import os, select, sys
seen = set()
while not select.select([0], [], [], 0.005)[0]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.update(file.read().split(b"\\0"))
        except OSError:
            continue
    sys.stdout.buffer.writelines(argument + b"\\n" for argument in found - seen)
    sys.stdout.buffer.flush()
    seen |= found
"""


@pytest.fixture
def secrets() -> list[str]:
    """The scenario's real passwords, as prepared for the inventory."""
    folder = ROOT / "build" / "molecule"
    found = [(folder / name).read_text().split()[0] for name in ("superpass", "app_pass")]
    assert all(len(secret) == 24 for secret in found)
    return [*found, *(quote(secret, safe="") for secret in found)]


def local_processes(found: set[str], done: threading.Event) -> None:
    """Collect the arguments of all processes of the controller."""
    while not done.wait(0.05):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.update(path.read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue


def apart(playbook: Playbook, name: str, *arguments: str, **variables: Any) -> Run:
    """A run as a program of its own: the list of processes shows its arguments, as it does on a user's machine."""
    process = playbook.start(name, *arguments, **variables)
    output, _ = process.communicate()
    return Run(process.returncode, output)


def test_a_deploy_and_a_backup_show_no_secret(
    host: Host, playbook: Playbook, source: Path, secrets: list[str], tmp_path: Path
) -> None:
    (source / "ops" / "postgres" / "migrations" / "0003_rotate.sql").write_text(
        "ALTER ROLE verisphere_app PASSWORD :'app_password';\n"
    )
    arguments = tmp_path / "arguments"
    watcher = subprocess.Popen(
        [*SSH, f"sudo python3 -c {shlex.quote(WATCH)}"], stdin=subprocess.PIPE, stdout=arguments.open("wb")
    )
    here: set[str] = set()
    done = threading.Event()
    local = threading.Thread(target=local_processes, args=(here, done))
    local.start()
    try:
        runs = [
            apart(playbook, name, "-vvv", "--diff", **variables)
            for name, variables in (
                ("deploy", {"app_source": {"path": str(source)}}),
                ("backup", {}),
                ("status", {}),
                ("deploy", {"app_source": {"path": str(source)}, "app_web_services": {"nope": {"port": 1}}}),
            )
        ]
    finally:
        done.set()
        local.join()
        watcher.communicate()
        in_postgres(host, "DELETE FROM schema_migrations WHERE version = '0003'")
        assert playbook("deploy").rc == 0, "the way back to the release of the example"
    assert [run.rc == 0 for run in runs] == [True, True, True, False], runs[0].output
    assert watcher.returncode == 0
    remote = arguments.read_text(errors="replace")
    assert "pg_dump" in remote, "the watcher saw the host's processes"
    assert any("ansible-playbook" in line for line in here), "and the controller's"
    with host.sudo():
        places = {
            "journal": host.check_output("journalctl --no-pager --quiet"),
            "container logs": host.check_output(
                "for id in $(docker ps --all --quiet); do docker logs $id 2>&1; done; "
                "docker inspect --format '{{json .Config.Cmd}}{{json .Config.Labels}}' $(docker ps --all --quiet)"
            ),
            "ledger": host.check_output(
                "docker exec verisphere_postgres pg_dump -U postgres -d verisphere --table 'schema_migrations*'"
            ),
            "manifests": host.check_output("cat /var/backups/verisphere/*/manifest.json"),
            "releases": host.check_output("grep -rIl '' /srv/verisphere/releases | xargs cat"),
            "overrides": host.check_output("cat /srv/verisphere/shared/*/override.yml"),
        }
    places |= {f"output {index}": run.output for index, run in enumerate(runs)}
    places |= {"processes of the host": remote, "processes of the controller": "\n".join(here)}
    for secret in secrets:
        assert [place for place, text in places.items() if secret in text] == []


def test_the_env_file_alone_holds_them(secrets: list[str]) -> None:
    # The pattern goes through standard input: sudo writes arguments to the journal.
    found = subprocess.run(
        [*SSH, "sudo grep -rIlFf - /srv /etc /var/backups /home /root /tmp"],
        input=secrets[0], stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {path.rpartition("/")[2] for path in found} == {".env"}


def test_facts_are_cached_nowhere() -> None:
    shown = subprocess.run(
        ["ansible-config", "dump", "--only-changed"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CACHE_PLUGIN" not in shown.stdout
