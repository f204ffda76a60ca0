# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The registry on the bridge's gateway, from which hosts pull as from a mirror of the public one."""

from __future__ import annotations

import contextlib
import email.message
import http.client
import json
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .constants import GATEWAY, REGISTRY, REGISTRY_PORT
from .engine import docker, try_docker
from .errors import TestbedError
from .machine import alive, attempt, install, run, start_daemon, step, stop_processes, which
from .state import State

CONFIG_NAME = "groundwork-testbed-registry.yml"
MARK = "X-Groundwork-Testbed"
START_SECONDS = 20
FREE_SECONDS = 5
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def repository(name: str) -> tuple[str, str]:
    """Split the name of an image as users write it into the registry's repository and tag.

    "python:3.11-slim" is ("library/python", "3.11-slim").
    """
    path, _, tag = name.partition(":")
    return (path if "/" in path else f"library/{path}"), tag or "latest"


def render_config(storage: Path, address: str, mark: str) -> str:
    """Return the registry's configuration. mark says in each answer whose registry it is."""
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
            "http": {"addr": address, "headers": {MARK: [mark]}},
        },
        indent=2,
    )


def _get(url: str, accept: str = "*/*") -> tuple[int, email.message.Message, bytes]:
    """Ask the registry, past any proxy. Status 0 means that nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
    except (OSError, http.client.HTTPException):
        return 0, email.message.Message(), b""


def program(state: State) -> str:
    """Return the registry's program: the installed one, or the package's, unpacked without installing a service."""
    found = which("docker-registry")
    if found is not None:
        return found
    unpacked = state.cache / "docker-registry" / "usr" / "bin" / "docker-registry"
    if unpacked.is_file():
        return str(unpacked)
    with (
        step("fetch docker-registry"),
        tempfile.TemporaryDirectory(prefix="registry-", dir=state.cache) as name,
    ):
        fetch = ["sh", "-c", 'cd "$0" && apt-get -q download docker-registry', name]
        if attempt(fetch).returncode != 0:
            run(["apt-get", "-q", "update"], what="The package lists could not be read", root=True)
            run(fetch, what="The package docker-registry could not be fetched")
        package = next(iter(Path(name).glob("*.deb")))
        if which("dpkg-deb") is None:
            install(["dpkg"])
        run(
            ["dpkg-deb", "--extract", str(package), str(state.cache / "docker-registry")],
            what="The package docker-registry could not be unpacked",
        )
    return str(unpacked)


def _registries() -> dict[int, str]:
    """Return the running registries of test beds: process id to path of the configuration."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or not alive(int(folder.name)):
            continue
        with contextlib.suppress(OSError):
            for argument in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                if Path(argument).name == CONFIG_NAME:
                    found[int(folder.name)] = argument
    return found


def _wait(address: str, log: Path, mark: str, pid: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        status, headers, _ = _get(f"http://{address}/v2/")
        if status == 200 and headers.get(MARK) == mark:
            return
        if not alive(pid):
            break
        time.sleep(0.05)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
    raise TestbedError(f"The registry was started on {address}, but does not answer there. The end of {log}:\n{tail}")


def _start(state: State, folder: Path, address: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG_NAME
    config.write_text(render_config(state.registry / "data", address, str(state.root)), encoding="utf-8")
    log = folder / "registry.log"
    process = start_daemon([program(state), "serve", str(config)], log, folder / "registry.pid")
    try:
        _wait(address, log, str(state.root), process.pid)
    except TestbedError:
        process.terminate()
        raise
    return process.pid


def ensure_registry(state: State) -> None:
    """Have our registry on the gateway; one of another checkout's test bed makes way for it.

    Raises TestbedError when something else has the port.
    """
    status, headers, _ = _get(f"http://{REGISTRY}/v2/")
    if status == 200 and headers.get(MARK) == str(state.root):
        return
    with step(f"registry on {REGISTRY}"):
        stop_processes(list(_registries()))
        if not _port_gets_free():
            raise TestbedError(
                f"The registry needs {REGISTRY}, but another program listens there. Stop it, and try again."
            )
        _start(state, state.registry / "gateway", REGISTRY)


def _port_gets_free() -> bool:
    """Whether nothing listens on our port, at the latest after some seconds.

    A process that has just ended may hold it for a moment: its first thread ends before its others.
    """
    end = time.monotonic() + FREE_SECONDS
    while time.monotonic() < end:
        try:
            with socket.create_connection((GATEWAY, REGISTRY_PORT), timeout=1):
                time.sleep(0.1)
        except OSError:
            return True
    return False


def stop_registry() -> bool:
    """Stop the registry and return whether there was one."""
    pids = list(_registries())
    if pids:
        with step("stop the registry"):
            stop_processes(pids)
    return bool(pids)


def holds(name: str, image: str) -> bool:
    """Whether the registry has the image with this id under this name."""
    path, tag = repository(name)
    status, headers, body = _get(f"http://{REGISTRY}/v2/{path}/manifests/{tag}", f"{MANIFEST}, {OCI_MANIFEST}")
    if status != 200:
        return False
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return image in (headers.get("Docker-Content-Digest"), json.loads(body)["config"]["digest"])
    return False


@contextlib.contextmanager
def pusher(state: State) -> Iterator[str]:
    """Run a second registry over the same files on a loopback address.

    Engines push there without TLS as they are; for the gateway's address each would have to be configured.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pid = _start(state, state.registry / "push", address)
    try:
        yield address
    finally:
        stop_processes([pid])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def push(name: str, image: str, address: str) -> None:
    """Push an image of the engine through the registry at this address. Raises TestbedError."""
    path, tag = repository(name)
    target = f"{address}/{path}:{tag}"
    docker("tag", image, target, what=f"{name} could not be tagged")
    try:
        docker("push", "-q", target, what=f"{name} could not be pushed")
    finally:
        try_docker("image", "rm", target)
