# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The commands of the test bed."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence

from . import hosts
from .constants import DEFAULT_OS, SUITES
from .engine import (
    answers,
    docker,
    ensure_engine,
    ensure_network,
    image_id,
    own_images,
    remove_images,
    remove_network,
    stop_own_engine,
)
from .errors import TestbedError
from .inventory import render_inventory
from .machine import root_prefix, run, step
from .registry import ensure_registry, holds, push, pusher, stop_registry
from .rootfs import READY_PACKAGES, Settings, base_rootfs, ensure_all, ensure_rootfs, host_rootfs
from .standins import STANDINS
from .standins.model import ensure_standin
from .state import State, default_root


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="testbed", description="Debian hosts with systemd, and what they need.")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="engine, network, host images, stand-in images, registry")
    up.add_argument(
        "images", nargs="*", metavar="IMAGE", help="only these stand-ins, and only bare hosts; default: everything"
    )
    host = commands.add_parser("host", help="start, stop and list hosts")
    actions = host.add_subparsers(dest="action", required=True)
    start = actions.add_parser("start", help="start a host and wait until SSH answers")
    start.add_argument("name")
    start.add_argument("--os", default=DEFAULT_OS, choices=sorted(SUITES), dest="os_name")
    start.add_argument("--address")
    start.add_argument("--fresh", action="store_true", help="remove a host of this name first")
    stop = actions.add_parser("stop", help="remove a host with its volumes")
    stop.add_argument("name")
    actions.add_parser("list", help="list the running hosts as JSON lines")
    commands.add_parser("inventory", help="print an Ansible inventory of the running hosts")
    down = commands.add_parser("down", help="remove hosts, volumes, network and registry")
    down.add_argument("--purge", action="store_true", help="remove images and caches, too")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status."""
    options = parser().parse_args(arguments)
    state = State(default_root())
    try:
        _dispatch(options, state)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(
            f"testbed: `{' '.join(arguments)}` met an error of the system: {error}. "
            f"Check the space and the rights of {state.root}.",
            file=sys.stderr,
        )
        return 1
    return 0


def _dispatch(options: argparse.Namespace, state: State) -> None:
    if options.command == "up":
        with state.lock():
            up(state, options.images)
    elif options.command == "down":
        with state.lock():
            down(state, purge=options.purge)
        if options.purge:
            purge_state(state)
    elif options.command == "inventory":
        running = hosts.own_running(state) if answers() else {}
        addresses = {name: host.address for name, host in running.items()}
        print(render_inventory(addresses, state.private_key, state.known_hosts), end="")
    elif options.action == "list":
        for _, host in sorted((hosts.own_running(state) if answers() else {}).items()):
            print(json.dumps({**hosts.describe(host, state), "os": host.os_name}))
    elif options.action == "stop":
        hosts.check_name(options.name)
        with state.lock():
            stop(options.name)
    else:
        hosts.check_name(options.name)
        start(options, state)


def up(state: State, images: Sequence[str]) -> None:
    """Have everything that hosts need; images names the stand-ins, none means all and the images of ready hosts."""
    unknown = sorted(set(images) - set(STANDINS))
    if unknown:
        raise TestbedError(f"No stand-in for {', '.join(unknown)}. There are: {', '.join(sorted(STANDINS))}.")
    wanted = [STANDINS[name] for name in STANDINS if not images or name in images]
    settings = Settings()
    state.sweep()
    ensure_engine(state)
    ensure_network()
    hosts.ensure_key(state)
    ensure_registry(state)
    built = set(own_images())
    bases = sorted({standin.base for standin in wanted if standin.tag(settings) not in built})
    kinds = [os_name for os_name in SUITES if not images or os_name not in READY_PACKAGES]
    ensure_all([*map(host_rootfs, kinds), *map(base_rootfs, bases)], state, settings)
    missing = {}
    for standin in wanted:
        identifier = ensure_standin(standin, state, settings)
        publish(standin.name, identifier)
        if not holds(standin.name, identifier):
            missing[standin.name] = identifier
    if missing:
        with pusher(state) as address:
            for name, identifier in missing.items():
                with step(f"push {name}"):
                    push(name, identifier, address)
                    if not holds(name, identifier):
                        raise TestbedError(f"{name} was pushed, but the registry does not return it.")


def publish(name: str, identifier: str) -> None:
    """Give a stand-in its public name in this engine too, unless a real image has that name."""
    present = image_id(name)
    if present is None or (present != identifier and present in set(own_images().values())):
        docker("tag", identifier, name, what=f"The stand-in could not be named {name}")


def start(options: argparse.Namespace, state: State) -> None:
    """Start a host. The lock is not held while it boots."""
    settings = Settings()
    with state.lock():
        ensure_engine(state)
        ensure_network()
        hosts.ensure_key(state)
        ensure_registry(state)
        image = ensure_rootfs(host_rootfs(options.os_name), state, settings)
        host, new = hosts.launch(options.name, options.os_name, image, options.address, state, fresh=options.fresh)
    if new:
        with step(f"host {host.name} ({host.os_name}, {host.address})"):
            hosts.wait(host, state)
    print(json.dumps(hosts.describe(host, state)), flush=True)


def stop(name: str) -> None:
    """Remove a host; that there is none is said, and is no error."""
    if not answers() or not hosts.remove(name):
        print(f"There is no host {name}.")


def down(state: State, *, purge: bool) -> None:
    """Remove what the test bed made."""
    if purge and not answers() and shutil.which("dockerd"):
        ensure_engine(state)  # only the engine itself can remove its images
    if answers():
        hosts.remove_all()
        stop_registry()
        remove_network()
        if purge:
            remove_images(STANDINS)
        stop_own_engine(state)
    else:
        stop_registry()
    state.known_hosts.unlink(missing_ok=True)


def purge_state(state: State) -> None:
    """Remove caches and the registry's files."""
    for folder in (state.cache, state.registry):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            run([*root_prefix(), "rm", "-rf", "--", str(folder)], what=f"{folder} could not be removed")
