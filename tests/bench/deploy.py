# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Requests that fail while releases change, and how long a deploy takes.

One test-bed host carries the stack of the scenario "deploy" and its proxy. wrk asks on the host's own loopback without
a pause, 50 to 200 ms an answer, one in fifty 2 s, one in four a POST, with one WebSocket beside it, during deploys,
failing deploys, rollbacks and reloads of the proxy. The peers change the same service on the same host afterwards:
"docker compose up -d" on the published port, and the steps of docker-rollout (twice the replicas, wait, stop the old
ones), written anew here, behind an nginx that knows all ports they can get.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.load import Load, WebSocket
from support.scenario import KEYS, Playbook, Run, connect, copy_source, environment, forget_compiled
from testinfra.host import Host

from bench.figures import Figure

HOST, ADDRESS = "bench-deploy", "198.18.0.109"
DEPLOYS, FAILURES, ROLLBACKS, RELOADS, PEER_CHANGES = 20, 5, 5, 20, 5
CONNECTIONS = 48
SECONDS_AT_MOST = 2700
PASSWORD = "not-a-secret-on-a-test-host"

PLAIN = """
services:
  web:
    build: .
    environment: {GREETING: "${GREETING}"}
    ports: ["127.0.0.1:%s:8000"]
    stop_grace_period: 30s
"""
# What docker-rollout does with a service without a health check: a second set, ten seconds, and the old ones go.
ROLLOUT_STEPS = """
set -e
old=$(sudo docker compose ps --quiet web)
sudo -E docker compose up --detach --no-deps --no-recreate --scale web=2 web
sleep 10
sudo docker stop $old
sudo docker rm $old
"""
ROLLOUT_PROXY = """
upstream rolled { server 127.0.0.1:8200; server 127.0.0.1:8201; server 127.0.0.1:8202; keepalive 32; }
server {
    listen 127.0.0.1:8082;
    location / { proxy_pass http://rolled; proxy_http_version 1.1; proxy_set_header Connection ""; }
}
"""


@dataclass
class Bench:
    """The host and how playbooks run on it."""

    host: Host
    playbook: Playbook
    folder: Path

    def run(self, name: str, *, fails: bool = False, **variables: Any) -> tuple[float, Run]:
        """Seconds of a playbook that has to end well, or with *fails* badly."""
        begun = time.monotonic()
        done = self.playbook(name, **variables)
        if (done.rc != 0) is not fails:
            raise SystemExit(f"{name}.yml ended with {done.rc}:\n{done.output[-6000:]}")
        return time.monotonic() - begun, done


@contextmanager
def bench(root: Path) -> Iterator[Bench]:
    """A host with the stack, for the length of the measurement."""
    with fresh_host(root, HOST, ADDRESS, "debian13-docker") as found:
        found.run("site")
        yield found


@contextmanager
def fresh_host(root: Path, name: str, address: str, image: str, **more: Any) -> Iterator[Bench]:
    """A host with nothing of the stack yet, and an inventory for it with *more* settings."""
    folder = root / "build" / "bench" / name.removeprefix("bench-")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("variables-*"):
        old.unlink()
    command = [sys.executable, str(root / "tests" / "testbed"), "host"]
    arguments = [name, "--os", image, "--address", address, "--fresh"]
    subprocess.run([*command, "start", *arguments], check=True, capture_output=True)
    try:
        inventory = folder / "inventory.json"
        keys = root / "build" / "testbed" / "ssh"
        reach = {
            "ansible_host": address,
            "ansible_user": "debian",
            "ansible_ssh_private_key_file": str(keys / "id_ed25519"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=accept-new "
            f"-o UserKnownHostsFile={keys / 'known_hosts'}",
            **settings(root / "molecule" / "deploy" / "app"),
            **more,
        }
        group: dict[str, Any] = {"hosts": {name: {}}}
        inventory.write_text(
            json.dumps({"all": {"hosts": {name: reach}, "children": {"app": group, "database": group, "proxy": group}}})
        )
        host = connect(address)
        forget_compiled(host)
        yield Bench(host, Playbook(folder, inventory), folder)
    finally:
        subprocess.run([*command, "stop", name], check=True, capture_output=True)


def settings(source: Path) -> dict[str, Any]:
    """The inventory of the scenario "deploy", for one host."""
    migration = {"engine": "sql", "service": "db", "database": "relay", "path": "migrations", "user": "relay"}
    web = {"port": 8000, "health": {"path": "/ready", "expect": "ok", "release": "release"}}
    return {
        "app_name": "relay",
        "app_source": {"path": str(source)},
        "app_compose_files": ["compose.yml"],
        "app_env": {"DB_PASSWORD": PASSWORD, "GREETING": "{{ relay_greeting | default('hello') }}"},
        "app_web_services": {"web": web | {"server_names": ["relay.example.org"]}},
        "app_migrations": [migration | {"password": PASSWORD}],
        "app_drain_seconds": 5,
        "backup_components": [],
        "backup_schedule": {},
        "docker_daemon": {
            "registry-mirrors": ["http://198.18.0.1:5000"],
            "insecure-registries": ["198.18.0.1:5000"],
        },
    }


def ours(found: Bench, root: Path) -> tuple[dict[str, list[float]], Load]:
    """Seconds of each kind of change, and the load that went on all the time."""
    seconds: dict[str, list[float]] = {"no-op": [], "deploy": [], "refused": [], "rollback": []}
    seconds["no-op"] = [found.run("deploy")[0] for _ in range(3)]
    broken = found.folder / "broken"
    subprocess.run(["rm", "-rf", str(broken)], check=True)
    app = copy_source(root / "molecule" / "deploy" / "app", broken) / "app.py"
    app.write_text(app.read_text() + "\nraise SystemExit('a mistake in the code')\n")
    with Load(found.host, CONNECTIONS, seconds=SECONDS_AT_MOST) as load, WebSocket(ADDRESS) as socket:
        for number in range(DEPLOYS):
            seconds["deploy"].append(found.run("deploy", relay_greeting=f"number {number}")[0])
            print(f"deploy {number + 1} of {DEPLOYS}: {seconds['deploy'][-1]:.1f} s", flush=True)
        for number in range(FAILURES):
            marked = {"app_source": {"path": str(broken)}, "relay_greeting": f"broken {number}"}
            taken, run = found.run("deploy", fails=True, **marked)
            if "a mistake in the code" not in run.words:
                raise SystemExit(f"The reason is not told:\n{run.output[-6000:]}")
            seconds["refused"].append(taken)
        for _ in range(ROLLBACKS):
            seconds["rollback"].append(found.run("rollback")[0])
            found.run("deploy", relay_greeting=f"number {DEPLOYS - 1}")
        for number in range(RELOADS):
            reload_proxy(found, number)
    print(f"WebSocket: {socket.answers_after_switch} answers of the old replica after the first switch", flush=True)
    return seconds, load


def reload_proxy(found: Bench, number: int) -> None:
    """One change of the proxy's configuration."""
    given = json.dumps({"files": {"http/bench.conf": f"# change {number}\n"}})
    command = ["ansible", "-i", str(found.playbook.inventory), "proxy", "--become"]
    done = subprocess.run(
        [*command, "-m", "groundwork.backend.nginx_config", "-a", given],
        env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or '"reloaded": true' not in done.stdout:
        raise SystemExit(f"The proxy was not reloaded:\n{done.stdout}{done.stderr}")


def peer(found: Bench, source: Path, ports: str, asked: int, change: str) -> Load:
    """The load during changes of a plain compose project on the host."""
    folder = f"peer-{asked}"
    keys = ["-i", str(KEYS / "id_ed25519"), "-o", f"UserKnownHostsFile={KEYS / 'known_hosts'}"]
    subprocess.run(["scp", "-q", "-r", *keys, str(source), f"debian@{ADDRESS}:{folder}"], check=True)
    found.host.check_output("sh -c %s", f"printf %s '{PLAIN % ports}' >{folder}/compose.yml")
    up = f"cd {folder} && GREETING=0 sudo -E docker compose up --detach --build web 2>&1"
    found.host.check_output("sh -c %s", up)
    time.sleep(3)
    with Load(found.host, CONNECTIONS, asked, SECONDS_AT_MOST) as load:
        for number in range(1, PEER_CHANGES + 1):
            found.host.check_output("sh -c %s", f"cd {folder} && export GREETING={number} && ({change}) 2>&1")
            time.sleep(3)
    found.host.check_output("sh -c %s", f"cd {folder} && GREETING=0 sudo -E docker compose down --timeout 1 2>&1")
    return load


def measure(root: Path) -> list[Figure]:
    """All figures."""
    subprocess.run([sys.executable, str(root / "tests" / "testbed"), "up"], check=True)
    source = root / "molecule" / "deploy" / "app"
    with bench(root) as found:
        seconds, load = ours(found, root)
        plain = peer(found, source, "8100", 8100, "sudo -E docker compose up --detach web")
        found.host.check_output(
            "sh -c %s",
            f"printf %s '{ROLLOUT_PROXY}' | sudo tee /etc/nginx/conf.d/rollout.conf && sudo nginx -s reload",
        )
        rolled = peer(found, source, "8200-8202", 8082, ROLLOUT_STEPS)
    changes = f"{DEPLOYS} deploys, {FAILURES} failing, {ROLLBACKS} rollbacks and as many deploys, {RELOADS} reloads"
    print(
        f"ours ({changes}):\n{load.report.text}\n\ncompose up:\n{plain.report.text}\n\nrollout:\n{rolled.report.text}"
    )
    median = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    asked, failed = float(load.report.requests), float(load.report.failed)
    plain_failed, rolled_failed = float(plain.report.failed), float(rolled.report.failed)
    return [
        Figure("requests asked", "requests", asked, "at least", 50_000.0),
        Figure("failed requests", "requests", failed, f"compose up -d, {PEER_CHANGES} changes", plain_failed, 0.0),
        Figure("failed requests", "requests", failed, f"docker-rollout's steps, {PEER_CHANGES} changes", rolled_failed),
        Figure("deploy, trivial change", "s", median["deploy"], "no-op deploy", median["no-op"]),
        Figure("bad release to refused", "s", median["refused"], "deploy", median["deploy"]),
        Figure("rollback", "s", median["rollback"], "deploy", median["deploy"]),
    ]
