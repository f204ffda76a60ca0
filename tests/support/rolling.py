# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Stacks that are rolled on a host of the test bed: a small web service, its releases, and what runs of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.docker_host import DockerHost

IMAGE = "gw/app:1"
PORT = 8000
SERVICE = {"port": PORT, "health": {"path": "/health", "expect": "ok", "release": "release"}}

# What it does is in its environment: CRASH ends it, WAIT_FOR is a file without which it is not ready, TELLS the release
# that it claims to be, STOP_SECONDS what it needs to end, IGNORE_TERM lets it ignore SIGTERM.
_APP = """
import http.server, json, os, pathlib, signal, sys, time

E = {"APP_RELEASE": "none", **os.environ}
files = pathlib.Path("/files")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = "WAIT_FOR" not in E or (files / E["WAIT_FOR"]).exists()
        body = json.dumps({"ok": True, "release": E.get("TELLS", E["APP_RELEASE"])}).encode()
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def stop(number, _frame):
    print("stopping", flush=True)
    time.sleep(float(E.get("STOP_SECONDS", "0")))
    (files / f"finished-{E['APP_RELEASE']}").write_text(signal.Signals(number).name)
    os._exit(0)


print("hello from", E["APP_RELEASE"], flush=True)
if "STARTED" in E:
    (files / E["STARTED"]).write_text("")
if "CRASH" in E:
    for number in range(300):
        print("line", number, flush=True)
    print("cannot connect to", E.get("DATABASE_URL"), "with", E.get("API_TOKEN"), flush=True)
    sys.exit(3)
if "IGNORE_TERM" in E:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, stop)
server = http.server.ThreadingHTTPServer(("0.0.0.0", int(E.get("LISTEN", "8000"))), Handler)
server.serve_forever()
"""


def prepare(host: DockerHost) -> None:
    """Build the image of the web service."""
    host.write("/srv/image/app.py", _APP)
    host.write(
        "/srv/image/Dockerfile",
        'FROM python:3.11-slim\nCOPY app.py /app.py\nVOLUME /data\nCMD ["python", "-u", "/app.py"]\n',
    )
    host.sh(f"docker build -q -t {IMAGE} /srv/image")


def web(replicas: int = 1, environment: Mapping[str, str] | None = None, **keys: Any) -> dict[str, Any]:
    """A compose service as its author wrote it, with a fixed port, and a fixed name where Compose allows one."""
    return {
        "image": IMAGE,
        **({"container_name": "fixed_name"} if replicas == 1 else {}),
        "restart": "unless-stopped",
        "ports": [f"{PORT}:{PORT}"],
        "deploy": {"replicas": replicas},
        "environment": dict(environment or {}),
        "volumes": ["/srv/files:/files"],
        "stop_grace_period": "1s",
        **keys,
    }


@dataclass
class Rolling:
    """A stack of rolled services on the host. start(), retire() and remove() run the module."""

    host: DockerHost
    project: str
    services: dict[str, Any] = field(default_factory=lambda: {"web": SERVICE})

    def folder(self, release: str) -> str:
        """Where a release's files are."""
        return f"/srv/{self.project}/{release}"

    def override(self, release: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run compose_override for a release whose compose file is there."""
        folder = self.folder(release)
        arguments = {
            "project": self.project,
            "release": release,
            "project_directory": folder,
            "files": [f"{folder}/compose.yml"],
            "dest": f"{folder}/override.yml",
            "web_services": {name: one["port"] for name, one in self.services.items()},
            "rolled_services": list(self.services),
        }
        return self.host.module("compose_override", {**arguments, **options}, check=check)

    def write(self, release: str, services: Mapping[str, Any] | None = None, **top: Any) -> None:
        """Write a release's compose file; top is what stands there beside its services."""
        document = {"services": services or {"web": web()}, **top}
        self.host.write(f"{self.folder(release)}/compose.yml", json.dumps(document))

    def release(self, release: str, services: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Write a release: its compose file, and the override by the module."""
        self.write(release, services)
        result = self.override(release, **options)
        assert not result.get("failed"), result["msg"]
        return result

    def arguments(self, release: str, **options: Any) -> dict[str, Any]:
        """The options of compose_rollout."""
        folder = self.folder(release)
        files = [f"{folder}/compose.yml", f"{folder}/override.yml"]
        common = {"project": self.project, "release": release, "services": self.services, "timeout": 60}
        return {**common, "project_directory": folder, "files": files, **options}

    def run(self, state: str, release: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run compose_rollout, whatever comes of it."""
        return self.host.module("compose_rollout", self.arguments(release, state=state, **options), check=check)

    def good(self, state: str, release: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run compose_rollout, which has to succeed."""
        result = self.run(state, release, check=check, **options)
        assert not result.get("failed"), result["msg"]
        return result

    def running(self) -> dict[str, str]:
        """The containers of the project, of any state: name -> "release state"."""
        told = self.host.sh(
            f"docker ps -a --filter label=com.docker.compose.project={self.project} --format "
            """'{{.Names}} {{.Label "org.groundwork.release"}} {{.State}}'"""
        )
        return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in sorted(told.splitlines())}

    def inspect(self, container: str) -> dict[str, Any]:
        """`docker inspect` of a container."""
        found: dict[str, Any] = json.loads(self.host.sh(f"docker inspect {container}"))[0]
        return found

    def answer(self, at: Mapping[str, Any]) -> dict[str, Any]:
        """What a replica answers at an endpoint."""
        host = f"[{at['host']}]" if ":" in at["host"] else at["host"]
        program = (
            f"import urllib.request as u; print(u.urlopen('http://{host}:{at['port']}/', timeout=20).read().decode())"
        )
        found: dict[str, Any] = json.loads(self.host.sh(f'python3 -c "{program}"'))
        return found

    def clean(self) -> None:
        """Remove the stack."""
        self.host.sh(
            f"docker ps -aq --filter label=com.docker.compose.project={self.project} | xargs -r docker rm -fv\n"
            f"docker network rm {self.project}_default >/dev/null 2>&1 || true\nrm -rf /srv/{self.project} /srv/files/*"
        )
