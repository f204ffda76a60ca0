# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""make demo: a bare Debian 13 host becomes the VeriSphere stack: migrated, deployed under load, backed up, restored.

make demo STACK=innovaplus does the same with INNOVAPLUS: a systemd service with MongoDB.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "build" / "demo"
HOST = "demo"
ADDRESS = "198.18.0.100"
NAME = "demo.example.org"
PROXY = f"https://{NAME}"
TLS = LOG / "tls"
OPEN = (22, 80, 443)
SSH = [
    "ssh", "-i", "build/testbed/ssh/id_ed25519", "-o", "UserKnownHostsFile=build/testbed/ssh/known_hosts",
    "-o", "BatchMode=yes", f"debian@{ADDRESS}",
]  # fmt: skip
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


def playbook(stack: Stack, name: str, log: str, *arguments: str) -> dict[str, int]:
    """Run a playbook; returns the counts of its recap (ok, changed, failed, ...)."""
    output = run(log, "ansible-playbook", "-i", f"inventories/{stack.inventory}", f"playbooks/{name}.yml", *arguments)
    recap = re.findall(rf"^{HOST}\s*:(.*)$", output, re.MULTILINE)
    if not recap:
        raise DemoError(f"{name}.yml ran on no host; see build/demo/{log}.log.")
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", recap[-1])}


def make_certificate() -> None:
    """A CA for this demo, and a certificate by it for the proxy."""
    TLS.mkdir(parents=True, exist_ok=True)
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]
    ca = [*new, "-subj", "/CN=Demo CA", "-addext", "keyUsage=critical,keyCertSign"]
    run("ca", *ca, "-keyout", str(TLS / "ca.key"), "-out", str(TLS / "ca.pem"))
    signed = ["-CA", str(TLS / "ca.pem"), "-CAkey", str(TLS / "ca.key"), "-addext", f"subjectAltName=DNS:{NAME}"]
    signed += ["-addext", "basicConstraints=critical,CA:FALSE"]
    keys = ["-keyout", str(TLS / "key.pem"), "-out", str(TLS / "certificate.pem")]
    run("certificate", *new, "-subj", f"/CN={NAME}", *signed, *keys)


class Proxy(http.client.HTTPSConnection):
    """A connection to the proxy by the name that its certificate is for, which no DNS knows."""

    def connect(self) -> None:
        """Connect, and require a certificate of the demo's CA."""
        context = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
        self.sock = context.wrap_socket(socket.create_connection((ADDRESS, 443), timeout=30), server_hostname=NAME)


def answer(path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """GET, or POST with a JSON body; returns status and text. Raises DemoError without an answer."""
    data = None if body is None else json.dumps(body)
    connection = Proxy(NAME, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"{PROXY}{path} did not answer: {error}") from error
    finally:
        connection.close()


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer. Raises DemoError for another status than 200 and 201."""
    status, text = answer(path, body)
    if status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
        raise DemoError(f"{PROXY}{path} answered {status}: {text}")
    return json.loads(text)


def look_from_outside(stack: Stack, seen: list[str]) -> None:
    """Which ports take a connection from here."""
    found = []
    for port in (*OPEN, *stack.closed):
        with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), timeout=3):
            found.append(port)
    if tuple(found) != OPEN:
        raise DemoError(f"From outside the ports {found} are open, instead of {list(OPEN)}.")
    seen.append(f"open: {', '.join(map(str, OPEN))}; closed: {', '.join(map(str, stack.closed))}")


def post_claims(seen: list[str]) -> None:
    """Use the service: three claims, one of them a near duplicate."""
    print(f"    GET /ready -> {json.dumps(ask('/ready'))}")
    answers = []
    for text in CLAIMS:
        answers.append(ask("/claims", {"text": text}))
        print(f"    POST /claims {json.dumps(text)} -> {json.dumps(answers[-1])}")
    duplicates = [answer["duplicate"] for answer in answers]
    if duplicates[1] is not True or duplicates[2] is not False:
        raise DemoError(f"The second claim repeats the first and the third does not, and the answers say {duplicates}.")
    similar = ask(f"/claims/{answers[0]['claim_id']}/similar?limit=2")
    print(f"    GET /claims/{answers[0]['claim_id']}/similar -> {json.dumps(similar)}")
    seen.append(f"{len(CLAIMS)} claims posted, the near duplicate was found")


def post_ideas(seen: list[str]) -> None:
    """Use the service: documents by its seed, an idea, one that is there already, and figures that are not for us."""
    print(f"    GET /health -> {json.dumps(ask('/health'))}")
    place = "/srv/innovaplus/current"
    unit = ["sudo", "systemd-run", "--quiet", "--pipe", "--wait", "--uid=innova", "-p", f"WorkingDirectory={place}"]
    unit += ["-p", "EnvironmentFile=/etc/innovaplus/backend.env", f"{place}/.venv/bin/python", "-m", "innova.seed"]
    seeded = run("seed", *SSH, *unit).splitlines()
    idea = {"slug": "solar-pumps", "title": "Solar pumps", "country": "KE"}
    asked = (("POST", "/ideas", idea, 201), ("POST", "/ideas", idea, 409), ("GET", "/metrics", None, 403))
    for method, path, body, expected in asked:
        status, text = answer(path, body)
        print(f"    {method} {path} -> {status} {text[:80].strip()}")
        if status != expected:
            raise DemoError(f"{method} {path} answered {status} instead of {expected}: {text}")
    seen.append("; ".join([*seeded, "an idea posted, its repetition refused"]))


@dataclass(frozen=True)
class Stack:
    """What is shown. closed: ports that must not answer; changed: a file whose text makes a new release."""

    name: str
    inventory: str
    images: tuple[str, ...]
    closed: tuple[int, ...]
    source: str
    changed: str
    use: Callable[[list[str]], None]
    health: str
    backups: str
    look: str


STACKS = {
    stack.name: stack
    for stack in (
        Stack(
            name="verisphere",
            inventory="demo",
            images=("pgvector/pgvector:pg16", "python:3.11-slim"),
            closed=(5432, 8081, 20000),
            source="examples/verisphere",
            changed="services/semantic_dedupe/NEWS",
            use=post_claims,
            health="/ready",
            backups="/var/backups/verisphere",
            look="sudo docker ps",
        ),
        Stack(
            name="innovaplus",
            inventory="demo-innovaplus",
            images=("mongo:8.2",),
            closed=(8000, 27017, 20000),
            source="examples/innovaplus/INNOVAPLUS/INNOVA/backend",
            changed="NEWS",
            use=post_ideas,
            health="/health",
            backups="/var/backups/innova/innovaplus",
            look="systemctl status innovaplus-backend",
        ),
    )
}


@contextlib.contextmanager
def load(stack: Stack, seen: list[str]) -> Iterator[None]:
    """Requests from wrk on the host's own loopback, all the time; says how many there were and how many failed."""
    run("wrk-install", *SSH, "sudo apt-get update -qq && sudo apt-get install -qq --no-install-recommends wrk")
    run("hosts", *SSH, f"grep -q {NAME} /etc/hosts || echo 127.0.0.1 {NAME} | sudo tee -a /etc/hosts")
    start = f"nohup wrk --threads 1 --connections 8 --duration 300s --timeout 10s {PROXY}{stack.health} >wrk.log 2>&1 &"
    run("wrk-start", *SSH, f"sh -c {shlex.quote(start)}")
    yield
    report = run("wrk", *SSH, "pkill -INT wrk; while pgrep -x wrk >/dev/null; do sleep 0.1; done; cat wrk.log")
    requests = re.search(r"(\d+) requests in", report)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += int(refused[1]) if refused else 0
    if not requests or failed:
        raise DemoError(f"{failed} requests failed while the release changed:\n{report}")
    seen.append(f"{requests[1]} requests meanwhile, {failed} failed")


def change_release(stack: Stack, seen: list[str]) -> None:
    """A new release, and back again, while requests come in."""
    source = LOG / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / stack.source, source)
    (source / stack.changed).write_text("A new release.\n")
    before = ask("/health")["release"]
    with load(stack, seen):
        playbook(stack, "deploy", "deploy-new", "-e", json.dumps({"app_source": {"path": str(source)}}))
        new = ask("/health")["release"]
        playbook(stack, "rollback", "rollback")
    after = ask("/health")["release"]
    if new == before or after != before:
        raise DemoError(f"Release {before} served, then {new}, then {after}.")
    seen.insert(0, f"{before} -> {new} -> {after}")


def drill(stack: Stack) -> str:
    """Restore the newest set into a server of its own; returns what was proven."""
    playbook(stack, "drill", "drill")
    told = re.search(r"Backup set .* restores: .* s\.", " ".join((LOG / "drill.log").read_text().split()))
    if not told:
        raise DemoError("drill.yml did not say what it has proven; see build/demo/drill.log.")
    return told[0]


def demo(stack: Stack) -> None:
    """All steps."""
    summary = Summary()
    with summary.step("test bed: engine, images, registry"):
        run("testbed", sys.executable, "tests/testbed", "up", *stack.images)
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
    make_certificate()
    with summary.step("site.yml on the bare host") as seen:
        seen.append("changed={changed} failed={failed}".format(**playbook(stack, "site", "site")))
    with summary.step("look from outside") as seen:
        look_from_outside(stack, seen)
    with summary.step("use the service") as seen:
        stack.use(seen)
    for name in ("site", "deploy"):
        with summary.step(f"{name}.yml again") as seen:
            recap = playbook(stack, name, f"{name}-again")
            seen.append("changed={changed} failed={failed}".format(**recap))
            if recap["changed"]:
                raise DemoError(
                    f"{name}.yml changed {recap['changed']} things in its second run; see build/demo/{name}-again.log."
                )
    with summary.step("deploy.yml and rollback.yml under load") as seen:
        change_release(stack, seen)
    with summary.step("backup.yml") as seen:
        playbook(stack, "backup", "backup")
        listing = run("sets", *SSH, "sudo", "find", stack.backups, "-type", "f", "-printf", "'%P %s bytes\\n'")
        seen.extend(listing.splitlines())
    with summary.step("drill.yml: restore the set for trial") as seen:
        seen.append(drill(stack))
    with summary.step("status.yml"):
        playbook(stack, "status", "status")
    table = (LOG / "status.log").read_text()
    print("\n" + "\n".join(line.strip("\"' -") for line in table.splitlines() if "|" in line))
    summary.show()
    print(
        "\nLook around:\n"
        f"  {' '.join(SSH)}\n"
        f"  {stack.look};  sudo ls -l /srv/{stack.name} {stack.backups};  curl {PROXY}{stack.health}\n"
        "  The output of each step is in build/demo/.\n"
        "Clean up:  make demo-down (this host)  or  make testbed-down (all of the test bed)"
    )


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else "verisphere"
    if asked not in STACKS:
        sys.exit(f"make demo knows no stack {asked}. Use STACK={' or STACK='.join(STACKS)}.")
    try:
        demo(STACKS[asked])
    except DemoError as failure:
        sys.exit(f"make demo failed: {failure}")
