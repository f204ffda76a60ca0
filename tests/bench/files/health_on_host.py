# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Runs on a host with Docker Compose: health_wait and `docker compose up --wait` on the same containers.

usage: health_on_host.py TRIALS; prints JSON. The folder of this file holds what Ansible sends with the module.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER / "gw-bench"
PORT = 8099
PATIENCE = 20  # seconds that Compose may wait for a container that crashes
_LAUNCH = """
import json, runpy, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_module("ansible_collections.groundwork.backend.plugins.modules.health_wait", run_name="__main__")
"""
_APP = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
time.sleep(float(os.environ["LATE"]))
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler)
print("since", time.monotonic(), flush=True)
server.serve_forever()
"""
_HEALTH = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/')"
SERVICE: dict[str, Any] = {"image": "python:3.13-slim", "init": True}
ANSWERS: dict[str, Any] = {
    **SERVICE,
    "ports": [f"127.0.0.1:{PORT}:8000"],
    "command": ["python3", "-c", _APP],
    "healthcheck": {"test": ["CMD", "python3", "-c", _HEALTH], "interval": "1s", "retries": 60},
}
CRASHES: dict[str, Any] = {**SERVICE, "restart": "always", "command": ["sh", "-c", "exit 3"]}
CRASHES_WITH_HEALTH: dict[str, Any] = {**CRASHES, "healthcheck": {"test": ["CMD", "true"], "interval": "1s"}}
HTTP = {"kind": "http", "url": f"http://127.0.0.1:{PORT}/"}
CONTAINER = {"kind": "container", "project": PROJECT.name, "service": "web"}


def start_ours(check: Mapping[str, Any]) -> subprocess.Popen[str]:
    """The module with one check, compiled anew as when Ansible sends it."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", _LAUNCH], cwd=FOLDER, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"timeout": 60, "checks": [check], "_ansible_remote_tmp": "/tmp"}))
    process.stdin.close()
    return process


def compose(*arguments: str) -> list[str]:
    """Its command line for the project."""
    return ["docker", "compose", "--project-directory", str(PROJECT), *arguments]


def start_compose() -> subprocess.Popen[str]:
    """Starts the project and waits for it."""
    argv = compose("up", "--detach", "--wait", f"--wait-timeout={PATIENCE}")
    return subprocess.Popen(argv, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write(service: Mapping[str, Any]) -> None:
    """The project's only service; Compose reads JSON, too, and takes $ for itself."""
    PROJECT.mkdir(exist_ok=True)
    (PROJECT / "compose.yaml").write_text(json.dumps({"services": {"web": service}}).replace("$", "$$"))


def ended(processes: Mapping[str, subprocess.Popen[str]]) -> dict[str, tuple[float, int]]:
    """When each one ended, on the monotonic clock, and its exit status."""
    found: dict[str, tuple[float, int]] = {}
    while len(found) < len(processes):
        for name, process in processes.items():
            if name not in found and process.poll() is not None:
                found[name] = time.monotonic(), process.returncode
        time.sleep(0.002)
    return found


def down() -> None:
    """Away with the project."""
    subprocess.run(compose("down", "--timeout=0"), check=True, capture_output=True)


def answering() -> dict[str, float]:
    """Seconds from the moment at which the process answers to the end of each command; all wait for the same one."""
    write({**ANSWERS, "environment": {"LATE": str(random.uniform(1.0, 2.0))}})
    found = ended({"http": start_ours(HTTP), "container": start_ours(CONTAINER), "compose": start_compose()})
    argv = ["docker", "logs", f"{PROJECT.name}-web-1"]
    log = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    down()
    if any(status for _, status in found.values()):
        raise SystemExit(f"somebody did not see the container come up: {found}\n{log}")
    since = next(float(line.split()[1]) for line in log.splitlines() if line.startswith("since "))
    return {name: when - since for name, (when, _) in found.items()}


def crashing(service: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Seconds until each one reports, and its exit status: 0 means that it says that all is well."""
    write(service)
    begun = time.monotonic()
    found = ended({"container": start_ours(CONTAINER), "compose": start_compose()})
    down()
    return {name: (when - begun, status) for name, (when, status) in found.items()}


def main() -> None:
    """Print medians in seconds, and the exit statuses that were seen."""
    trials = int(sys.argv[1])
    os.environ["PYTHONPATH"] = str(FOLDER)
    subprocess.run(["docker", "pull", "--quiet", SERVICE["image"]], check=True, capture_output=True)
    answers = [answering() for _ in range(trials)]
    result: dict[str, Any] = {"answering": {key: statistics.median(one[key] for one in answers) for key in answers[0]}}
    for name, service in (("crashing", CRASHES), ("crashing_with_health", CRASHES_WITH_HEALTH)):
        crashes = [crashing(service) for _ in range(max(3, trials // 5))]
        result[name] = {
            key: {
                "seconds": statistics.median(one[key][0] for one in crashes),
                "statuses": sorted({one[key][1] for one in crashes}),
            }
            for key in crashes[0]
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
