# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the proxy costs, and how long a run of each role takes when there is nothing to do.

One test-bed host carries the stack of the scenario "deploy" with a site that has TLS, HSTS, security headers, the JSON
log and two rate limits. wrk asks it on the host's own loopback over kept-alive TLS connections for a fixed answer of a
second nginx behind it; in turn it asks Debian's nginx.conf as the package brings it, with a plain TLS server before the
same upstream and the same certificate.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.scenario import environment

from bench.deploy import Bench, fresh_host
from bench.figures import Figure

HOST, ADDRESS, NAME = "bench-edge", "198.18.0.126", "relay.example.org"
ROUNDS, SECONDS, CONNECTIONS = 7, 10, 32
SLOWEST = round(1 / 0.95, 3)  # 0.95 of the peer's requests in the same time
OURS, PEER = f"https://{NAME}/fixed", f"https://{NAME}:8443/fixed"
ROLES = ("host", "ufw", "docker", "app", "backup", "nginx", "certbot")

UPSTREAM = """
worker_processes 1; pid /run/nginx-upstream.pid; error_log /dev/null;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000000;
    server { listen 127.0.0.1:9000; default_type application/json; return 200 "{}"; }
}
"""
# The paths of Debian's own nginx.conf are those of a copy.
PEER_SITE = """
server {
    listen 127.0.0.1:8443 ssl;
    server_name relay.example.org;
    ssl_certificate /etc/groundwork/tls/relay/fullchain.pem;
    ssl_certificate_key /etc/groundwork/tls/relay/privkey.pem;
    location / { proxy_pass http://127.0.0.1:9000; }
}
"""


def stack(folder: Path) -> dict[str, Any]:
    """What the inventory says beside the stack itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "90", "-subj", "/CN=relay"]
    make += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    web = {"port": 8000, "health": {"path": "/ready", "expect": "ok", "release": "release"}}
    site = {
        "tls": {"certificate": "relay", "hsts": {"max_age": 300}},
        "security_headers": True,
        "rate_limits": ["by_key", "by_address"],
        "locations": [{"path": "/fixed", "upstream": {"name": "fixed"}}],
    }
    return {
        "app_web_services": {"web": web | {"server_names": [NAME], "site": site}},
        "nginx_upstreams": {"fixed": ["127.0.0.1:9000"]},
        "nginx_rate_limits": {
            "by_key": {"rate": "1000000r/s", "burst": 1000, "key": "header:X-API-Key"},
            "by_address": {"rate": "1000000r/s", "burst": 1000},
        },
        "certbot_certificates": [
            {"name": "relay", "own": {"certificate": certificate.read_text(), "key": key.read_text()}}
        ],
        "certbot_verify_chain": False,
    }


def write(found: Bench, path: str, text: str) -> None:
    """A file on the host."""
    found.host.check_output("sh -c %s", f"printf %s '{text}' | sudo tee {path}")


def begin_peers(found: Bench) -> None:
    """Start the upstream, and Debian's nginx beside ours."""
    write(found, "/etc/nginx-upstream.conf", UPSTREAM)
    write(found, "/etc/nginx-peer/sites-enabled/peer", PEER_SITE)
    for command in (
        "sudo nginx -c /etc/nginx-upstream.conf",
        "sudo nginx -c /etc/nginx-peer/nginx.conf",
        f"echo '127.0.0.1 {NAME}' | sudo tee -a /etc/hosts",
    ):
        found.host.check_output("sh -c %s", command)


def ask(found: Bench, url: str, seconds: int = SECONDS) -> tuple[float, float]:
    """Microseconds per request with both cores busy, and the 99th percentile of an answer in milliseconds."""
    told = found.host.check_output(
        "wrk --threads 1 --connections %s --duration %s --latency %s", str(CONNECTIONS), f"{seconds}s", url
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    slowest = re.search(r"99%\s+([\d.]+)(us|ms|s)\s", told)
    if rate is None or slowest is None or "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"wrk did not get what it asked of {url}:\n{told}")
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}[slowest[2]]
    return 1e6 / float(rate[1]), float(slowest[1]) * unit


def quiet_roles(found: Bench, root: Path) -> dict[str, float]:
    """Seconds of each role in a site.yml that changes nothing, as Ansible's own profiler counts them."""
    done = subprocess.run(
        found.playbook.command("site"),
        cwd=root,
        env={**environment(), "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_roles"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not re.search(rf"^{HOST}\s*:.*changed=0\s", done.stdout, re.MULTILINE):
        raise SystemExit(f"The second site.yml did not end well, or changed something:\n{done.stdout[-6000:]}")
    told = {name: float(taken) for name, taken in re.findall(r"^(\S+) -+ ([\d.]+)s$", done.stdout, re.MULTILINE)}
    return {role: told[role if role in told else f"groundwork.backend.{role}"] for role in ROLES}


def measure(root: Path) -> list[Figure]:
    """All figures."""
    subprocess.run([sys.executable, str(root / "tests" / "testbed"), "up"], check=True)
    folder = root / "build" / "bench" / "edge"
    folder.mkdir(parents=True, exist_ok=True)
    with fresh_host(root, HOST, ADDRESS, "debian13-docker", **stack(folder)) as found:
        copy = "cp -a /etc/nginx /etc/nginx-peer && rm /etc/nginx-peer/sites-enabled/* && "
        copy += (
            "sed -i 's#/etc/nginx/#/etc/nginx-peer/#; s#/run/nginx.pid#/run/nginx-peer.pid#' /etc/nginx-peer/nginx.conf"
        )
        found.host.check_output("sudo sh -c %s", copy)
        found.run("site")
        roles = quiet_roles(found, root)
        begin_peers(found)
        for url in (OURS, PEER):
            ask(found, url, 3)
        taken: dict[str, list[tuple[float, float]]] = {OURS: [], PEER: []}
        for number in range(ROUNDS):
            for url in (OURS, PEER) if number % 2 else (PEER, OURS):
                taken[url].append(ask(found, url))
                print(f"{url}: {1e6 / taken[url][-1][0]:.0f} requests/s, p99 {taken[url][-1][1]:.2f} ms", flush=True)
    each, slowest = ({url: statistics.median(one[part] for one in taken[url]) for url in taken} for part in (0, 1))
    return [
        Figure(
            "TLS, kept alive: time for a request",
            "µs",
            round(each[OURS], 1),
            "Debian's nginx.conf",
            each[PEER],
            SLOWEST,
        ),
        Figure("the same, 99th percentile", "ms", slowest[OURS], "Debian's nginx.conf", slowest[PEER]),
        *(Figure(f"role {role}, nothing to do", "s", taken) for role, taken in roles.items()),
    ]
