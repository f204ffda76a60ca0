# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How soon health_wait tells that a process answers, what 200 checks cost, and how soon a crash loop is told.

Compose is measured on a test-bed host (files/health_on_host.py), which is started and stopped here.

Every trial starts the module (ours or the peer) as Ansible does on a host, in a process of its own, and a web server
that begins to answer a random while later. Start-up is what a run on a server that answers already takes. The module
uri is repeated once a second, as until does with delay: 1.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ansible

from bench.figures import Figure

TRIALS = 100
ENDPOINTS = 200
REPEATS = 5
HOST, ADDRESS = "bench-health", "198.18.0.107"
_LAUNCH = """
import json, runpy, sys
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[sys.argv[1]])._install()
from ansible.module_utils.testing import patch_module_args
import atexit, resource
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
with patch_module_args(json.load(sys.stdin)):
    runpy.run_module(sys.argv[2], run_name="__main__")
"""
_OURS = "ansible_collections.groundwork.backend.plugins.modules.health_wait"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def _serve_for_ever(listener: socket.socket) -> None:
    """A server that costs less than what is measured: 200 requests at once do not wait for its threads."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # wait_for only connects
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, sock=listener, backlog=500)
        await server.serve_forever()

    asyncio.run(serve())


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True


def measure(root: Path) -> list[Figure]:
    """Needs the test bed's engine and registry with the images redis:7-alpine and python:3.13-slim."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=500)
    threading.Thread(target=_serve_for_ever, args=(listener,), daemon=True).start()
    answering = listener.getsockname()[1]
    url = f"http://127.0.0.1:{answering}/"
    own = {"timeout": 60, "checks": [{"kind": "http", "url": url}]}
    uri = {"url": url}
    port = {"host": "127.0.0.1", "port": answering}
    start_up = {
        "ours": _median(lambda: _seconds(root, _OURS, own)),
        "uri": _median(lambda: _seconds(root, "ansible.modules.uri", uri)),
        "wait_for": _median(lambda: _seconds(root, "ansible.modules.wait_for", port)),
    }
    late: dict[str, list[float]] = {"ours": [], "uri": [], "wait_for": []}
    for number in range(TRIALS):
        for name in late if number < TRIALS // 4 else ["ours"]:
            late[name].append(_late(root, name))
    ours = statistics.median(late["ours"])
    one, many, memory = _endpoints(root, url)
    what = "from answering to returned"
    figures = [
        Figure(what, "s", round(ours, 3), "start-up + 0.1 s", round(start_up["ours"] + 0.1, 3), 1.0),
        Figure(what, "s", round(ours, 3), "uri, until, delay 1", round(statistics.median(late["uri"]), 3)),
        Figure(what, "s", round(ours, 3), "wait_for", round(statistics.median(late["wait_for"]), 3)),
        Figure(f"wait for {ENDPOINTS} endpoints", "s", many, "1 endpoint", one, 1.5),
        Figure(f"memory with {ENDPOINTS} checks", "MiB", memory, "60 MiB", 60.0, 1.0),
    ]  # fmt: skip
    return [*figures, *_crash_loop(root), *_beside_compose(root)]


def _start(root: Path, module: str, arguments: Mapping[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, str(root / "build" / "collections"), module],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps({**arguments, "_ansible_remote_tmp": "/tmp"}))
    process.stdin.close()
    process.stdin = None
    return process


def _run(root: Path, module: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The result, and the most memory in KiB."""
    out, err = _start(root, module, arguments).communicate(timeout=120)
    return json.loads(out), int(err.split()[-1])


def _seconds(root: Path, module: str, arguments: Mapping[str, Any]) -> float:
    begun = time.monotonic()
    _run(root, module, arguments)
    return time.monotonic() - begun


def _median(trial: Callable[[], float]) -> float:
    return statistics.median(trial() for _ in range(REPEATS * 2))


def _late(root: Path, name: str) -> float:
    """Seconds from the first moment at which the server answers to the end of the task that waits for it."""
    server = _Server(("127.0.0.1", 0), _Handler, bind_and_activate=False)
    server.server_bind()
    port = server.server_address[1]
    ready: list[float] = []

    def answer() -> None:
        server.server_activate()
        ready.append(time.monotonic())
        server.serve_forever(poll_interval=0.05)

    timer = threading.Timer(random.uniform(1.0, 2.0), answer)
    timer.start()
    url = f"http://127.0.0.1:{port}/"
    if name == "ours":
        _run(root, _OURS, {"timeout": 60, "checks": [{"kind": "http", "url": url}]})
    elif name == "wait_for":
        _run(root, "ansible.modules.wait_for", {"host": "127.0.0.1", "port": port, "timeout": 60})
    else:
        while _run(root, "ansible.modules.uri", {"url": url})[0].get("failed"):
            time.sleep(1)
    ended = time.monotonic()
    timer.join(0)
    server.shutdown()
    server.server_close()
    return ended - ready[0]


def _endpoints(root: Path, url: str) -> tuple[float, float, float]:
    """Median seconds of the task with one check and with all, and MiB with all."""
    one = [{"kind": "http", "name": "0", "url": url}]
    many = [{"kind": "http", "name": str(number), "url": f"{url}{number}"} for number in range(ENDPOINTS)]
    singles, alls, memory = [], [], 0
    for _ in range(REPEATS):
        singles.append(_seconds(root, _OURS, {"timeout": 60, "checks": one}))
        begun = time.monotonic()
        result, kibibytes = _run(root, _OURS, {"timeout": 60, "checks": many})
        alls.append(time.monotonic() - begun)
        memory = max(memory, kibibytes)
        if result.get("failed"):
            raise SystemExit(result["msg"])
    return round(statistics.median(singles), 3), round(statistics.median(alls), 3), round(memory / 1024, 1)


def _crash_loop(root: Path) -> list[Figure]:
    """Seconds of the whole task, for a container that crashes at once; started just before."""
    if not shutil.which("docker"):
        raise SystemExit("Docker is needed: python3 tests/testbed up redis:7-alpine python:3.13-slim")
    spent = []
    for _ in range(REPEATS):
        name = f"gw-bench-{uuid.uuid4().hex[:8]}"
        argv = ["docker", "run", "--detach", "--name", name, "--network=none", "--restart=always"]
        argv += ["--entrypoint=/bin/sh"]
        subprocess.run([*argv, "redis:7-alpine", "-c", "exit 3"], check=True, capture_output=True)
        try:
            spent.append(_seconds(root, _OURS, {"timeout": 60, "checks": [{"kind": "container", "container": name}]}))
        finally:
            with suppress(subprocess.CalledProcessError):
                subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)
    return [Figure("report of a crash-looping container", "s", round(statistics.median(spent), 2), "3 s", 3.0, 1.0)]


def _beside_compose(root: Path) -> list[Figure]:
    """Both on one host, on the same containers."""
    testbed = [sys.executable, str(root / "tests" / "testbed"), "host"]
    start = [*testbed, "start", HOST, "--os", "debian13-docker", "--address", ADDRESS, "--fresh"]
    started = subprocess.run(start, cwd=root, check=True, capture_output=True, text=True).stdout
    host = json.loads(started.splitlines()[-1])
    try:
        with tempfile.TemporaryDirectory() as folder:
            known = f"UserKnownHostsFile={folder}/known"
            ssh = ["ssh", "-q", "-i", host["private_key"], "-o", "StrictHostKeyChecking=accept-new", "-o", known]
            ssh += [f"{host['user']}@{ADDRESS}", "sudo"]
            unpack = "mkdir -p /srv/bench && tar -x -C /srv/bench"
            subprocess.run([*ssh, "sh", "-c", f"'{unpack}'"], input=_payload(root), check=True)
            run = [*ssh, "python3", "/srv/bench/health_on_host.py", str(TRIALS // 4)]
            found = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)
    finally:
        subprocess.run([*testbed, "stop", HOST], cwd=root, check=True, capture_output=True)
    seconds = {name: round(value, 3) for name, value in found["answering"].items()}
    what = "from answering to returned, in a container"
    peer = "compose up --wait"
    figures = [
        Figure(f"{what}: http", "s", seconds["http"], peer, seconds["compose"]),
        Figure(f"{what}: container", "s", seconds["container"], peer, seconds["compose"]),
    ]
    for key, told in (("crashing", "no health check"), ("crashing_with_health", "health check")):
        ours, theirs = found[key]["container"], found[key]["compose"]
        if 0 in ours["statuses"]:
            raise SystemExit(f"health_wait said that a crash-looping container is well: {found}")
        wrong = " (says that it is well)" if 0 in theirs["statuses"] else ""
        name = f"report of a crash-looping container, {told}"
        figures.append(Figure(name, "s", round(ours["seconds"], 2), peer + wrong, round(theirs["seconds"], 2)))
    return figures


def _payload(root: Path) -> bytes:
    """A tar of what Ansible sends to a host with the module, and of the measurement."""
    ours = Path("ansible_collections/groundwork/backend/plugins")
    parts = {
        Path("ansible/module_utils"): Path(ansible.__file__).parent / "module_utils",
        Path("ansible/release.py"): Path(ansible.__file__).with_name("release.py"),
        ours / "module_utils": root / "plugins" / "module_utils",
        ours / "modules": root / "plugins" / "modules",
        Path("health_on_host.py"): Path(__file__).parent / "files" / "health_on_host.py",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, source in parts.items():
            archive.add(source, str(name), filter=lambda item: None if "__pycache__" in item.name else item)
        archive.addfile(tarfile.TarInfo("ansible/__init__.py"))  # empty, as in what Ansible sends
    return out.getvalue()
