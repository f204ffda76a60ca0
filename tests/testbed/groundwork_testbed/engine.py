# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Docker Engine on this machine: find it, start it where nothing else does, the network, and stop what we started."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection, Sequence

from .constants import GATEWAY, LABEL, LABEL_FILTER, NAMESPACE, NETWORK, SUBNET
from .errors import TestbedError
from .machine import (
    attempt,
    has_package,
    has_systemd,
    install,
    processes,
    run,
    start_daemon,
    step,
    stop_processes,
    uplink_mtu,
    which,
)
from .state import State

ENGINE_LABEL = f"{LABEL}=1"
START_SECONDS = 60

# An engine that we start keeps its own bridges in the range that is reserved for tests, too.
ENGINE_ARGUMENTS = (
    "--label",
    ENGINE_LABEL,
    "--bip",
    "198.18.1.1/24",
    "--default-address-pool",
    "base=198.18.64.0/18,size=24",
)


def docker(*arguments: str, what: str, stdin: str | None = None) -> str:
    """Run a docker command and return its standard output. Raises TestbedError that starts with what."""
    return run(["docker", *arguments], what=what, stdin=stdin, root=True)


def try_docker(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a docker command and return how it ended."""
    return attempt(["docker", *arguments], root=True, timeout=timeout)


def answers() -> bool:
    """Whether an engine answers."""
    return which("docker") is not None and try_docker("version", "--format", "{{.Server.Version}}").returncode == 0


def ensure_engine(state: State) -> None:
    """Have an engine that answers: the one that runs, the machine's service, or one of our own."""
    if answers():
        return
    if which("ip") is None:
        install(["iproute2"])
    if which("dockerd") is None or which("docker") is None:
        install(["docker.io", *(["docker-cli"] if has_package("docker-cli") else [])])
    if answers():
        return
    with step("start the engine"):
        if has_systemd():
            run(["systemctl", "start", "docker"], what="The engine's service could not be started", root=True)
        else:
            _start_own(state)


def _start_own(state: State) -> None:
    log = state.engine / "dockerd.log"
    process = start_daemon(
        [which("dockerd") or "dockerd", *ENGINE_ARGUMENTS], log, state.engine / "dockerd.pid", root=True
    )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if answers():
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise TestbedError(f"An engine was started, but none answers. The end of {log}:\n{tail}")


def stop_own_engine(state: State) -> None:
    """Stop the engine if the test bed started it and nothing else runs on it."""
    pids = processes("dockerd", ENGINE_LABEL)
    if not pids:
        return
    others = docker("ps", "-q", what="The running containers could not be listed").split()
    if others:
        print(f"The engine is left running: {len(others)} containers that are not the test bed's run on it.")
        return
    with step("stop the engine"):
        stop_processes(pids)
    (state.engine / "dockerd.pid").unlink(missing_ok=True)


def image_id(name: str) -> str | None:
    """Return the id of an image, None when there is no such image."""
    done = try_docker("image", "inspect", "--format", "{{.Id}}", name)
    return done.stdout.strip() if done.returncode == 0 else None


def own_images() -> dict[str, str]:
    """Return the test bed's images, full name to id.

    They are known by name and not by label: what others build on them inherits the label.
    """
    text = docker(
        "image",
        "ls",
        "--no-trunc",
        "--filter",
        f"reference={NAMESPACE}/*",
        "--format",
        "{{.Repository}}:{{.Tag}} {{.ID}}",
        what="Images could not be listed",
    )
    found = {}
    for line in text.splitlines():
        name, _, identifier = line.partition(" ")
        found[name] = identifier
    return found


def ensure_network() -> None:
    """Have the bridge of the test bed. Raises TestbedError when a network of this name has other addresses."""
    done = try_docker("network", "inspect", NETWORK)
    if done.returncode == 0:
        data = json.loads(done.stdout)[0]
        ranges = {(item.get("Subnet"), item.get("Gateway")) for item in data["IPAM"]["Config"] or ()}
        if ranges == {(SUBNET, GATEWAY)} and (data.get("Labels") or {}).get(LABEL) == "1":
            return
        raise TestbedError(
            f"The network {NETWORK} with {SUBNET} is needed, found one of this name that the test bed did not make. "
            f"Remove it with `docker network rm {NETWORK}`, and try again."
        )
    with step(f"network {NETWORK}"):
        docker(
            "network",
            "create",
            "--driver=bridge",
            f"--subnet={SUBNET}",
            f"--gateway={GATEWAY}",
            f"--label={LABEL}=1",
            f"--opt=com.docker.network.driver.mtu={uplink_mtu()}",
            NETWORK,
            what=f"The network {NETWORK} ({SUBNET}) could not be made",
        )


def remove_network() -> None:
    """Remove the bridge, if it is ours."""
    if docker("network", "ls", "-q", "--filter", LABEL_FILTER, what="Networks could not be listed").split():
        with step(f"remove network {NETWORK}"):
            docker("network", "rm", NETWORK, what=f"The network {NETWORK} could not be removed")


def remove_images(public_names: Collection[str]) -> None:
    """Remove the test bed's images: its own names, and the public names if they are the same images."""
    own = own_images()
    if not own:
        return
    with step(f"remove {len(own)} images"):
        data = json.loads(docker("image", "inspect", *sorted(set(own.values())), what="Images could not be read"))
        names = sorted({name for image in data for name in image.get("RepoTags") or ()} & {*own, *public_names})
        docker("image", "rm", "-f", *names, what="Images could not be removed")


def label_arguments(labels: dict[str, str]) -> Sequence[str]:
    """Return --label arguments."""
    return [f"--label={key}={value}" for key, value in labels.items()]
