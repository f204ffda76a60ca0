# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a rollout does to containers, through the command lines of Docker and Compose."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, StateError, last_lines
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import docker_error
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import Replica, read_replica

_ASK_SECONDS = 30.0
_GONE = "no such container"
_PROGRESS = re.compile(r"\s*(Container|Network|Volume) \S+\s+\w+\s*$|time=")  # what compose tells as it goes
_TAKEN = re.compile(r"address already in use|port is already allocated|all ports are allocated")
_TAKEN_FIX = "Another program took a port of the release: write the override again, which then chooses others."


def inspect_all(*labels: str) -> list[dict[str, Any]]:
    """`docker container inspect` of every container with these labels, stopped ones, too; it holds secrets.

    Raises UnreachableError, StateError and CommandError when Docker does not tell.
    """
    filters = [f"--filter=label={label}" for label in labels]
    listed = run(["docker", "ps", "--all", "--quiet", "--no-trunc", *filters], timeout=_ASK_SECONDS, check=False)
    if listed.rc != 0:
        raise docker_error(listed.stderr)
    ids = listed.stdout.split()
    if not ids:
        return []
    done = run(["docker", "container", "inspect", *ids], timeout=_ASK_SECONDS, check=False)
    if done.rc != 0 and _GONE not in done.stderr.lower():  # one that went meanwhile is no error
        raise docker_error(done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def inspect_services(project: str, services: Collection[str]) -> list[dict[str, Any]]:
    """`docker container inspect` of the containers of these services of a project, without `compose run`'s."""
    found = inspect_all(f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
    return [one for one in found if one["Config"]["Labels"].get("com.docker.compose.service") in services]


def list_replicas(project: str, services: Collection[str]) -> list[Replica]:
    """The replicas of these services, in the order of their numbers."""
    found = map(read_replica, inspect_services(project, services))
    return sorted(found, key=lambda one: (one.service, one.number, one.name))


def require_images(images: Mapping[str, str]) -> None:
    """Raise StateError for a service (key) whose image (value) is not on this host."""
    for service, image in sorted(images.items()):
        argv = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
        done = run(argv, timeout=_ASK_SECONDS, check=False)
        if done.rc != 0 and "no such image" in done.stderr.lower():
            raise StateError(
                f"The image {image} of the service {service!r} is not on this host; nothing was started.",
                fix="Build or pull it first.",
            )
        if done.rc != 0:
            raise docker_error(done.stderr)


def start_more(compose: Sequence[str], scale: Mapping[str, int], end: float) -> None:
    """Have as many containers of each service as *scale* says, without touching those that are there.

    compose is the beginning of the command, from compose_argv(); end is the deadline on the monotonic clock. There is
    one command for each service: a command for several would wait until those that another one depends on are healthy.
    Raises CommandError.
    """
    for service, count in scale.items():
        options = ["--detach", "--no-deps", "--no-recreate", "--no-build", "--pull", "never"]
        argv = [*compose, "up", *options, "--scale", f"{service}={count}", service]
        asked = f"start new replicas of {service}"
        done = run(argv, timeout=max(1.0, end - time.monotonic()), check=False, asked=asked)
        if done.rc != 0:
            told = [line.strip() for line in done.stderr.splitlines() if line.strip() and not _PROGRESS.match(line)]
            raise CommandError(
                f"Could not {asked}: {' '.join(told[-3:]) or f'docker compose ended with {done.rc}'}.",
                fix=_TAKEN_FIX if _TAKEN.search(done.stderr) else "",
                cmd=argv,
                rc=done.rc,
                stderr=last_lines(done.stderr, 50),
            )


def stop(replicas: Iterable[Replica]) -> None:
    """Stop all at once, each with its own stop signal and grace period. Raises CommandError."""
    _on_all(["docker", "stop"], [one for one in replicas if not one.stopped], "stop")


def remove(replicas: Iterable[Replica]) -> None:
    """Remove containers with their anonymous volumes, whatever they do. Raises CommandError."""
    _on_all(["docker", "rm", "--force", "--volumes"], list(replicas), "remove")


def _on_all(argv: Sequence[str], replicas: Sequence[Replica], verb: str) -> None:
    if not replicas:
        return
    done = run([*argv, *(one.id for one in replicas)], check=False)
    told = [line for line in done.stderr.splitlines() if _GONE not in line.lower()]
    if done.rc != 0 and told:
        names = ", ".join(one.name for one in replicas)
        raise CommandError(
            f"Could not {verb} {names}: {' '.join(told[-5:])}", cmd=list(argv), rc=done.rc, stderr="\n".join(told)
        )
