# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What Docker has of a stack's releases: the images of built services, and the containers that use a release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._compose import RELEASE_LABEL
from ansible_collections.groundwork.backend.plugins.module_utils._probe_container import docker_error

_PROJECT_LABEL = "com.docker.compose.project"
_SECONDS = 60.0


@dataclass(frozen=True)
class Image:
    """One name of an image; one image can have several. name is with the tag."""

    name: str
    tag: str
    id: str


def project_images(project: str) -> list[Image]:
    """The names ``<project>/<service>:<tag>``, never those of another project. Raises as docker_error() says."""
    told = _docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}\t{{.Tag}}\t{{.ID}}")
    found = [line.split("\t") for line in told.splitlines()]
    return [
        Image(f"{repository}:{tag}", tag, number)
        for repository, tag, number in found
        if _is_of(project, repository) and tag != "<none>"
    ]


def containers() -> list[dict[str, Any]]:
    """What Docker knows of all containers, also stopped ones and those of other projects."""
    ids = _docker("ps", "--all", "--quiet", "--no-trunc").split()
    if not ids:
        return []
    done = _exec.run(["docker", "container", "inspect", *ids], timeout=_SECONDS, check=False)
    if done.rc != 0 and "no such container" not in done.stderr.lower():  # one that has gone since is fine
        raise docker_error(done.stderr)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def remove_image(name: str) -> str:
    """Take one name away; the image itself goes with its last name. Returns why it stayed, or nothing."""
    done = _exec.run(["docker", "image", "rm", name], timeout=_SECONDS, check=False)
    gone = done.rc == 0 or "no such image" in done.stderr.lower()
    return "" if gone else " ".join(done.stderr.split())


def users(
    release: str, project: str, path: Path, images: Iterable[Image], found: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The names of the containers that use a release: by label, image, or a folder of it that is mounted.

    path: the folder of the stack. found: see containers().
    """
    known = list(images)
    names = {image.name for image in known}
    own = [image for image in known if image.tag == release]
    used = []
    for one in found:
        labels = one["Config"].get("Labels") or {}
        labelled = labels.get(_PROJECT_LABEL) == project and labels.get(RELEASE_LABEL) == release
        started_as = one["Config"]["Image"]
        # By its name where it was started by one: unchanged images of several releases are one image.
        by_image = started_as in {image.name for image in own} or (
            started_as not in names and one["Image"] in {image.id for image in own}
        )
        if labelled or by_image or _mounts(one, path, release):
            used.append(str(one["Name"]).lstrip("/"))
    return used


def _mounts(container: Mapping[str, Any], path: Path, release: str) -> bool:
    """Whether files of a release are mounted, also through a link that pointed to it when the container was started."""
    folders = [str(path / part / release) for part in ("releases", "shared")]
    sources = [str(mount.get("Source") or "") for mount in container.get("Mounts") or ()]
    if any(source == folder or source.startswith(f"{folder}/") for source in sources for folder in folders):
        return True
    try:
        lines = Path(f"/proc/{container['State']['Pid'] or '-'}/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    # proc_pid_mountinfo(5), field 4: the path inside of its file system, which may begin anywhere above path.
    roots = [f"{fields[3]}/" for line in lines if len(fields := line.split()) > 3]
    return any(f"/{path.name}/{part}/{release}/" in root for root in roots for part in ("releases", "shared"))


def _is_of(project: str, repository: str) -> bool:
    return repository.startswith(f"{project}/") and "/" not in repository.removeprefix(f"{project}/")


def _docker(*arguments: str) -> str:
    done = _exec.run(["docker", *arguments], timeout=_SECONDS, check=False)
    if done.rc != 0:
        raise docker_error(done.stderr)
    return done.stdout
