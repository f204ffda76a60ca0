# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""make demo: a bare Debian 13 host becomes the VeriSphere stack, running, migrated and backed up."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = "inventories/demo"
LOG = ROOT / "build" / "demo"
HOST = "demo"
ADDRESS = "198.18.0.100"
SSH = [
    "ssh", "-i", "build/testbed/ssh/id_ed25519", "-o", "UserKnownHostsFile=build/testbed/ssh/known_hosts",
    "-o", "BatchMode=yes", f"debian@{ADDRESS}",
]  # fmt: skip
IMAGES = ["pgvector/pgvector:pg16", "python:3.11-slim"]
CLAIMS = [
    "The Eiffel Tower is in Paris.",
    "the eiffel tower is in paris",
    "Water boils at 100 degrees Celsius at sea level.",
]


class DemoError(Exception):
    """A step failed; the text says which and where its output is."""


@dataclass
class Summary:
    """What was done, with seconds and what was seen."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what is appended to the list is shown as its result."""
        print(f"--- {name} ...", flush=True)
        seen: list[str] = []
        begun = time.monotonic()
        yield seen
        self.rows.append((name, time.monotonic() - begun, "; ".join(seen)))
        print(f"    {self.rows[-1][1]:6.1f} s  {self.rows[-1][2]}", flush=True)

    def show(self) -> None:
        """Print the table."""
        width = max(len(name) for name, _seconds, _seen in self.rows)
        print("\nSummary")
        for name, seconds, seen in self.rows:
            print(f"  {name:<{width}}  {seconds:7.1f} s  {seen}")
        print(f"  {'in all':<{width}}  {sum(row[1] for row in self.rows):7.1f} s")


def run(name: str, *argv: str) -> str:
    """Run a command with its output in a log file; returns the output. Raises DemoError with the last lines."""
    LOG.mkdir(parents=True, exist_ok=True)
    log = LOG / f"{name}.log"
    with log.open("w") as stream:
        status = subprocess.run(argv, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    output = log.read_text()
    if status != 0:
        last = "\n".join(output.splitlines()[-25:])
        raise DemoError(
            f"{' '.join(argv)} ended with {status}. Its last lines:\n{last}\nAll of it: {log.relative_to(ROOT)}"
        )
    return output


def playbook(name: str, log: str, *arguments: str) -> dict[str, int]:
    """Run a playbook; returns the counts of its recap (ok, changed, failed, ...)."""
    output = run(log, "ansible-playbook", "-i", INVENTORY, f"playbooks/{name}.yml", *arguments)
    recap = re.findall(rf"^{HOST}\s*:(.*)$", output, re.MULTILINE)
    if not recap:
        raise DemoError(f"{name}.yml ran on no host; see build/demo/{log}.log.")
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", recap[-1])}


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[str]:
    """An SSH tunnel to a port of the host's own loopback: the service is not reachable from outside."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    process = subprocess.Popen(
        [*SSH[:-1], "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", SSH[-1]],
        cwd=ROOT,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", local), timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{local}"
    finally:
        process.terminate()
        process.wait()


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """GET, or POST with a JSON body; returns the JSON answer. Raises DemoError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError) as error:
        raise DemoError(f"{url} did not answer: {error}") from error


def post_claims(seen: list[str]) -> None:
    """Use the service: three claims, one of them a near duplicate."""
    with tunnel(8081) as base:
        print(f"    GET /ready -> {json.dumps(ask(f'{base}/ready'))}")
        answers = []
        for text in CLAIMS:
            answers.append(ask(f"{base}/claims", {"text": text}))
            print(f"    POST /claims {json.dumps(text)} -> {json.dumps(answers[-1])}")
        duplicates = [answer["duplicate"] for answer in answers]
        if duplicates[1] is not True or duplicates[2] is not False:
            raise DemoError(
                f"The second claim repeats the first and the third does not, and the answers say {duplicates}."
            )
        similar = ask(f"{base}/claims/{answers[0]['claim_id']}/similar?limit=2")
        print(f"    GET /claims/{answers[0]['claim_id']}/similar -> {json.dumps(similar)}")
    seen.append(f"{len(CLAIMS)} claims posted, the near duplicate was found")


def demo() -> None:
    """All steps."""
    summary = Summary()
    with summary.step("test bed: engine, images, registry"):
        run("testbed", sys.executable, "tests/testbed", "up", *IMAGES)
    with summary.step("start a bare Debian 13 host"):
        run(
            "host",
            sys.executable,
            "tests/testbed",
            "host",
            "start",
            HOST,
            "--os",
            "debian13",
            "--address",
            ADDRESS,
            "--fresh",
        )
    with summary.step("site.yml on the bare host") as seen:
        seen.append("changed={changed} failed={failed}".format(**playbook("site", "site")))
    with summary.step("post claims") as seen:
        post_claims(seen)
    for name in ("site", "deploy"):
        with summary.step(f"{name}.yml again") as seen:
            recap = playbook(name, f"{name}-again")
            seen.append("changed={changed} failed={failed}".format(**recap))
            if recap["changed"]:
                raise DemoError(
                    f"{name}.yml changed {recap['changed']} things in its second run; see build/demo/{name}-again.log."
                )
    with summary.step("backup.yml") as seen:
        playbook("backup", "backup")
        listing = run(
            "sets", *SSH, "sudo", "find", "/var/backups/verisphere", "-type", "f", "-printf", "'%P %s bytes\\n'"
        )
        seen.extend(listing.splitlines())
    with summary.step("status.yml"):
        playbook("status", "status")
    table = (LOG / "status.log").read_text()
    print("\n" + "\n".join(line.strip("\"' -") for line in table.splitlines() if "|" in line))
    summary.show()
    print(
        "\nLook around:\n"
        f"  {' '.join(SSH)}\n"
        "  sudo docker ps;  sudo ls -l /srv/verisphere /var/backups/verisphere;  curl http://127.0.0.1:8081/ready\n"
        "  The output of each step is in build/demo/.\n"
        "Clean up:  make demo-down (this host)  or  make testbed-down (all of the test bed)"
    )


if __name__ == "__main__":
    try:
        demo()
    except DemoError as failure:
        sys.exit(f"make demo failed: {failure}")
