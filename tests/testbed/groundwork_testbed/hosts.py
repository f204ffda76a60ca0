# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Hosts: containers with real systemd, SSH and room for a nested engine."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from .constants import HOST_USER, LABEL, LABEL_FILTER, NETWORK, OS_LABEL, STATE_LABEL
from .engine import docker, label_arguments, try_docker
from .errors import TestbedError
from .machine import attempt, nameservers, need, run, step
from .state import State, pick_address

BOOT_SECONDS = 120
CONTAINER_PREFIX = "groundwork-testbed-"

# What an engine of Debian 12 knows, without SYS_RESOURCE (not to be had everywhere), SYS_TIME and SYS_MODULE
# (a host must not change the clock or the kernel of the machine below it).
CAPABILITIES = (
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
)


@dataclass(frozen=True)
class Host:
    """A host as the engine knows it."""

    name: str
    address: str
    os_name: str
    image: str
    running: bool
    state: str


def check_name(name: str) -> None:
    """Raise TestbedError unless the name can be a host name."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
        raise TestbedError(
            f"{name!r} was asked for as a host's name; it has lower-case letters, digits and inner hyphens, 42 at most."
        )


def container(name: str) -> str:
    """Return the name of a host's container."""
    return CONTAINER_PREFIX + name


def all_hosts() -> dict[str, Host]:
    """Return every host of any test bed on this engine, by name."""
    ids = docker("ps", "-aq", "--filter", f"label={STATE_LABEL}", what="Hosts could not be listed").split()
    if not ids:
        return {}
    told = try_docker("inspect", "--type=container", *ids)
    if told.returncode != 0 and "no such container" not in told.stderr.lower():  # one that has gone since is fine
        raise TestbedError(f"Hosts could not be read: {told.stderr.strip()}")
    found = {}
    for item in json.loads(told.stdout or "[]"):
        labels = item["Config"]["Labels"]
        network = item["NetworkSettings"]["Networks"].get(NETWORK) or {}
        address = (network.get("IPAMConfig") or {}).get("IPv4Address") or network.get("IPAddress") or ""
        name = item["Name"].removeprefix("/").removeprefix(CONTAINER_PREFIX)
        found[name] = Host(
            name,
            address,
            labels[OS_LABEL],
            item["Config"]["Image"],
            bool(item["State"]["Running"]),
            labels.get(STATE_LABEL, ""),
        )
    return found


def own_running(state: State) -> dict[str, Host]:
    """Return the running hosts of this checkout, by name."""
    return {name: host for name, host in all_hosts().items() if host.running and host.state == str(state.root)}


def ensure_key(state: State) -> None:
    """Have the key pair with which hosts are reached."""
    if state.private_key.is_file() and state.private_key.with_suffix(".pub").is_file():
        return
    need({"ssh": "openssh-client", "ssh-keygen": "openssh-client"})
    state.private_key.unlink(missing_ok=True)
    run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "groundwork-testbed", "-f", str(state.private_key)],
        what="The key of the test bed could not be made",
    )


def describe(host: Host, state: State) -> dict[str, str | int]:
    """Return what another program needs to reach the host."""
    return {
        "name": host.name,
        "address": host.address,
        "user": HOST_USER,
        "port": 22,
        "private_key": str(state.private_key),
    }


def launch(name: str, os_name: str, image: str, asked: str | None, state: State, *, fresh: bool) -> tuple[Host, bool]:
    """Start the container of a host and return it, and whether it is a new one.

    A host that runs already is left alone if its image and address are what was asked and fresh is false.
    Raises TestbedError.
    """
    hosts = all_hosts()
    old = hosts.get(name)
    address = pick_address(
        name, asked, state.read_addresses(), {host.name: host.address for host in hosts.values() if host.running}
    )
    if old is not None:
        same = old.running and old.image == image and old.state == str(state.root) and old.address == address
        if same and not fresh:
            return old, False
        remove(name)
    state.write_addresses({**state.read_addresses(), name: address})
    _forget_key(address, state)
    arguments = [
        f"--name={container(name)}",
        f"--hostname={name}",
        f"--network={NETWORK}",
        f"--ip={address}",
        *label_arguments({LABEL: "1", OS_LABEL: os_name, STATE_LABEL: str(state.root)}),
        "--cap-drop=ALL",
        *(f"--cap-add={capability}" for capability in CAPABILITIES),
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--device-cgroup-rule=a *:* rwm",
        "--cgroupns=private",
        "--tmpfs=/run:exec,mode=755",
        "--tmpfs=/run/lock",
        "--tmpfs=/tmp:exec,mode=1777",
        "--stop-signal=SIGRTMIN+3",
        "--stop-timeout=20",
        # `reboot` inside a host ends its process 1; the engine starts it again.
        "--restart=on-failure:20",
        f"--env=TESTBED_NAMESERVERS={' '.join(nameservers())}",
    ]
    for place in ("docker", "containerd"):
        volume = f"{container(name)}-{place}"
        docker("volume", "create", f"--label={LABEL}=1", volume, what=f"A volume for {name} could not be made")
        arguments.append(f"--volume={volume}:/var/lib/{place}")
    docker("run", "-d", *arguments, image, what=f"Host {name} ({os_name}) could not be started")
    return Host(name, address, os_name, image, True, str(state.root)), True


def wait(host: Host, state: State) -> None:
    """Wait until systemd is running and SSH lets us in.

    Raises TestbedError, also when the system comes up degraded: a host begins its life without failed units.
    """
    end = time.monotonic() + BOOT_SECONDS
    _wait_systemd(host, end)
    key = state.private_key.with_suffix(".pub").read_text(encoding="utf-8")
    home = f"/home/{HOST_USER}/.ssh"
    docker(
        "exec",
        "-i",
        "-u",
        HOST_USER,
        container(host.name),
        "sh",
        "-c",
        f"umask 077; mkdir -p {home}; cat >{home}/authorized_keys",
        what=f"The key could not be put into {host.name}",
        stdin=key,
    )
    said = ""
    while time.monotonic() < end:
        done = attempt([*ssh_command(host, state), "true"], timeout=20)
        if done.returncode == 0:
            return
        said = done.stderr.strip()
        time.sleep(0.2)
    raise TestbedError(f"SSH to {host.name} ({host.address}) does not work after {BOOT_SECONDS} seconds: {said}")


def _wait_systemd(host: Host, end: float) -> None:
    status = ""
    while time.monotonic() < end:
        done = try_docker("exec", container(host.name), "systemctl", "is-system-running")
        status = done.stdout.strip() or done.stderr.strip()
        if status == "running":
            return
        if status == "degraded":
            failed = try_docker(
                "exec", container(host.name), "systemctl", "list-units", "--failed", "--plain", "--no-legend"
            )
            raise TestbedError(
                f"Host {host.name} was started, but systemd is degraded. Failed units:\n{failed.stdout.strip()}\n"
                f"Look at `docker exec {container(host.name)} journalctl -b`."
            )
        if try_docker("inspect", "--format={{.State.Running}}", container(host.name)).stdout.strip() != "true":
            break
        time.sleep(0.2)
    logs = try_docker("logs", "--tail=15", container(host.name))
    raise TestbedError(
        f"Host {host.name} was started, but systemd is not running after {BOOT_SECONDS} seconds at most "
        f"(last seen: {status or 'nothing'}).\n{(logs.stdout + logs.stderr).strip()}"
    )


def ssh_command(host: Host, state: State) -> list[str]:
    """Return the ssh command to which a remote command is added."""
    return [
        "ssh",
        "-F",
        "none",
        "-i",
        str(state.private_key),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        f"UserKnownHostsFile={state.known_hosts}",
        f"{HOST_USER}@{host.address}",
    ]


def _forget_key(address: str, state: State) -> None:
    """Remove the host keys of this address; the next host there has others."""
    if state.known_hosts.is_file():
        attempt(["ssh-keygen", "-q", "-R", address, "-f", str(state.known_hosts)])
        Path(f"{state.known_hosts}.old").unlink(missing_ok=True)


def remove(name: str) -> bool:
    """Remove a host with its volumes and return whether there was anything."""
    volumes = docker(
        "volume", "ls", "-q", "--filter", LABEL_FILTER, what="The volumes of hosts could not be listed"
    ).split()
    own = [volume for volume in volumes if volume in (f"{container(name)}-docker", f"{container(name)}-containerd")]
    there = name in all_hosts()
    if there:
        docker("rm", "-fv", container(name), what=f"Host {name} could not be removed")
    if own:
        docker("volume", "rm", "-f", *own, what=f"The volumes of {name} could not be removed")
    return there or bool(own)


def remove_all() -> None:
    """Remove every container and volume of the test bed."""
    for name in all_hosts():
        with step(f"remove host {name}"):
            remove(name)
    volumes = docker("volume", "ls", "-q", "--filter", LABEL_FILTER, what="Volumes could not be listed").split()
    if volumes:
        docker("volume", "rm", "-f", *volumes, what="Volumes could not be removed")
