# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Reach a PostgreSQL server in a container of this host that publishes no port: at its address on a bridge network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import docker_error

_SECONDS = 30.0
_SHM = "/dev/shm"  # noqa: S108 - the server's, which is only looked at


@dataclass(frozen=True)
class ServerContainer:
    """address is that of the container on a bridge network; shm_bytes the size of its /dev/shm, None: not known."""

    address: str
    shm_bytes: int | None


def find(container: str) -> ServerContainer:
    """Look a running container up by its name or id.

    Raises DependencyError (no docker), UnreachableError, CommandError, and StateError when there is no such container,
    it does not run, or this host has no way to its network.
    """
    details = _inspect(container, "container", [container])
    if not details:
        raise StateError(f"There is no container {container!r} on this host.", fix="Check container (docker ps).")
    found = details[0]
    state = found["State"]["Status"]
    if state != "running":
        raise StateError(f"The container {container!r} is not running, but {state}.", fix="Start it, then run again.")
    networks: Mapping[str, Any] = found["NetworkSettings"]["Networks"] or {}
    addresses = {name: network["IPAddress"] or network["GlobalIPv6Address"] for name, network in networks.items()}
    candidates = sorted(name for name, address in addresses.items() if address)
    # from the host, there is no way into the other kinds of networks (overlay, macvlan, ipvlan)
    drivers = {one["Name"]: one["Driver"] for one in _inspect(container, "network", candidates)}
    bridges = [name for name in candidates if drivers.get(name) == "bridge"]
    if not bridges:
        raise _no_way(container, str(found["HostConfig"]["NetworkMode"]), drivers)
    return ServerContainer(addresses[bridges[0]], shared_memory(found))


def shared_memory(found: Mapping[str, Any]) -> int | None:
    """The size of a container's /dev/shm in bytes, from `docker container inspect`; None where Docker does not set it.

    Docker's own one is HostConfig.ShmSize; a mount there, or another one's or the host's IPC namespace, hides it.
    """
    host = found["HostConfig"]
    mounted = {mount.get("Destination") for mount in found.get("Mounts") or []} | set(host.get("Tmpfs") or {})
    if _SHM in mounted or str(host.get("IpcMode") or "").partition(":")[0] in {"host", "container", "none"}:
        return None
    return int(host["ShmSize"]) or None


def _no_way(container: str, mode: str, drivers: Mapping[str, str]) -> StateError:
    if mode == "host":
        return StateError(
            f"The container {container!r} uses the network of the host, so it has no address of its own.",
            fix="Leave container out, and set login_host to 127.0.0.1.",
        )
    if mode == "none":
        return StateError(
            f"The container {container!r} has no network.", fix="Give it one; a bridge network needs no published port."
        )
    if mode.startswith("container:"):
        return StateError(
            f"The container {container!r} uses the network of another container.",
            fix=f"Set container to {mode.removeprefix('container:')[:12]}.",
        )
    kinds = ", ".join(f"{name} ({driver})" for name, driver in drivers.items())
    return StateError(
        f"The container {container!r} is on no bridge network, which is the only kind that its host can reach"
        f"{f'; it is on {kinds}' if kinds else ''}.",
        fix="Add it to one (docker network connect), or set login_host to an address that this host can reach.",
    )


def _inspect(container: str, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    asked = f"look up the container {container!r}"
    done = _exec.run(["docker", kind, "inspect", "--", *names], timeout=_SECONDS, check=False, asked=asked)
    if done.rc != 0 and "no such" not in done.stderr.lower():
        raise docker_error(done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found
