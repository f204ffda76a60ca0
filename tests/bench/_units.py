# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Requests that fail while a systemd service is deployed again and again, and how long such a deploy takes.

One test-bed host carries examples/innovaplus as inventories/innovaplus has it, with its MongoDB in a container and
nginx in front; only TLS is left out. A client on the host's own loopback sends 200 requests a second all the time, each
when its moment has come, whatever became of those before, and on a connection of its own, so that it has nothing to ask
again. One in four is a POST, which a proxy must not send twice. Each deploy is deploy.yml with a changed source.

The application answers them itself, with 422 and what is wrong with them: the test bed's stand-in for MongoDB is no
measure of one, and hosts with few processors would measure it. Any other answer counts as a failure. The gate of each
deploy asks for /health, and with it for the database.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from support.scenario import copy_source, current_release
from testinfra.host import Host

from bench.deploy import Bench, fresh_host
from bench.figures import Figure

HOST, ADDRESS = "bench-units", "198.18.0.117"
DEPLOYS = 20
RATE = 200  # requests a second
NAME = "units.example.org"
BACKEND = Path("examples/innovaplus/INNOVAPLUS/INNOVA/backend")
# What became of each request, by what it was: {"GET": {"422": 3, "ConnectionResetError()": 1}}.
CLIENT = """
import asyncio, collections, json, pathlib, sys, time
rate, name = int(sys.argv[1]), sys.argv[2]
found = collections.defaultdict(collections.Counter)
seconds, late, answered, tasks = [], [], [], set()

async def ask(method, path, body):
    began = time.monotonic()
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", 80)
            head = f"{method} {path} HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n"
            head += f"Content-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n" if body else ""
            writer.write(f"{head}\\r\\n{body}".encode())
            answer = await reader.read()
            writer.close()
        words = answer.split(None, 2)
        if len(words) < 2:
            return "no answer"
        length = next((int(line[15:]) for line in answer.partition(b"\\r\\n\\r\\n")[0].lower().split(b"\\r\\n")
                       if line.startswith(b"content-length:")), None)
        if length is not None and len(answer.partition(b"\\r\\n\\r\\n")[2]) != length:
            return "half an answer"
        return words[1].decode()
    except Exception as error:
        return repr(error)
    finally:
        seconds.append(time.monotonic() - began)

async def one(number):
    if number % 4 == 0:
        kind, request = "POST", ("POST", "/ideas", json.dumps({"slug": f"Bench {number}", "body": 500 * "x"}))
    else:
        kind, request = "GET", ("GET", "/ideas?limit=0", "")
    told = await ask(*request)
    found[kind][told] += 1
    if told != "422":
        print(time.strftime("%T"), kind, told, flush=True)

async def main():
    began, number = time.monotonic(), 0
    while not pathlib.Path("/tmp/enough").exists():
        wait = began + number / rate - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        late.append(max(0, -wait))
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    took = time.monotonic() - began
    await asyncio.gather(*tasks)
    seconds.sort()
    told = {"found": found, "rate": number / took, "slowest": seconds[-1], "p99": seconds[len(seconds) * 99 // 100],
            "latest": max(late)}
    pathlib.Path("/tmp/told.new").write_text(json.dumps(told))
    pathlib.Path("/tmp/told.new").rename("/tmp/told")

asyncio.run(main())
"""


def settings(root: Path, source: Path) -> dict[str, Any]:
    """The inventory of INNOVAPLUS as the scenario of that name has it, without TLS, backups and figures for others."""
    files = (
        root / "inventories/innovaplus/group_vars/all/main.yml",
        root / "molecule/innovaplus/inventory/group_vars/all/20-test.yml",
    )
    found: dict[str, Any] = {}
    for path in files:
        found |= yaml.safe_load(path.read_text())
    web = {key: value for key, value in found["app_web_services"]["backend"].items() if key != "site"}
    return {
        **{key: value for key, value in found.items() if not key.startswith(("certbot_", "backup_"))},
        "app_source": {"path": str(source)},
        "app_web_services": {"backend": {**web, "server_names": [NAME]}},
        "app_compose_files": ["docker-compose.yml"],
        "app_migrations": [],
        "certbot_certificates": [],
        "backup_components": [],
        "backup_schedule": {},
    }


def _deploys(found: Bench, source: Path) -> list[float]:
    """Seconds of each deploy of a changed source."""
    seconds = []
    for number in range(DEPLOYS):
        before = current_release(found.host, "innovaplus")
        (source / "innova" / "build.py").write_text(f'"""Which build this is."""\n\nNUMBER = {number}\n')
        seconds.append(found.run("deploy")[0])
        if current_release(found.host, "innovaplus") == before:
            raise SystemExit("A deploy of a changed source made no release.")
        print(f"deploy {number + 1} of {DEPLOYS}: {seconds[-1]:.1f} s", flush=True)
    return seconds


def _begin(host: Host) -> None:
    """Start the client."""
    host.check_output("printf %%s %s >/tmp/client.py", CLIENT)
    host.check_output("rm -f /tmp/enough /tmp/told && sudo systemctl reset-failed")
    host.check_output(
        f"sudo systemd-run --quiet --unit=client --nice=-5 -p LimitNOFILE=20000 -p StandardOutput=file:/tmp/client.log "
        f"python3 /tmp/client.py {RATE} {NAME}"
    )


def _end(host: Host) -> dict[str, Any]:
    """Stop it; what it counted."""
    host.check_output("sudo touch /tmp/enough; timeout 60 sh -c 'until [ -s /tmp/told ]; do sleep 0.1; done'")
    told: dict[str, Any] = json.loads(host.check_output("cat /tmp/told"))
    print(host.check_output("head -n 40 /tmp/client.log") or "nothing failed")
    return told


def measure(root: Path) -> list[Figure]:
    """All figures."""
    folder = root / "build" / "bench" / "units"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rm", "-rf", str(folder / "source")], check=True)
    source = copy_source(root / BACKEND, folder / "source")
    with fresh_host(root, HOST, ADDRESS, "debian13-docker", **settings(root, source)) as found:
        found.run("site")
        found.run("deploy")
        _begin(found.host)
        try:
            seconds = _deploys(found, source)
        finally:
            told = _end(found.host)
    asked = sum(sum(one.values()) for one in told["found"].values())
    failed = {kind: sum(count for what, count in one.items() if what != "422") for kind, one in told["found"].items()}
    print(json.dumps(told, indent=2))
    name = f"during {DEPLOYS} deploys of a systemd service"
    return [
        Figure(f"requests a second {name}", "requests/s", told["rate"], "asked for", float(RATE)),
        # Beside the deploys, as a share of all requests would be rounded to none.
        Figure(f"failed requests {name}", "requests", float(sum(failed.values())), "deploys", float(DEPLOYS), 0.0),
        Figure("failed requests of these that write", "requests", float(failed["POST"]), "all", float(asked)),
        Figure("99 of 100 requests answered within", "s", told["p99"], "slowest", told["slowest"]),
        Figure("deploy of a systemd service, changed source", "s", statistics.median(seconds), "slowest", max(seconds)),
    ]


if __name__ == "__main__":
    sys.exit("Run it as tests/bench/run.py _units.")
