# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which containers go after a deploy: those of services that the release does not have, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker_host import DockerHost
from support.rolling import IMAGE
from support.scenario import Playbook, Run

BEFORE = {
    "services": {"old": {"image": IMAGE, "stop_grace_period": "1s"}, "tool": {"image": IMAGE, "profiles": ["ops"]}}
}
AFTER = {
    "services": {"new": {"image": IMAGE, "stop_grace_period": "1s"}, "tool": {"image": IMAGE, "profiles": ["ops"]}}
}
ONCE = {"services": {**AFTER["services"], "once": {"image": IMAGE, "command": ["true"]}}}


@pytest.fixture
def folder(app_host: DockerHost) -> Iterator[str]:
    """A release's folder on the host; what runs of two projects is gone afterwards."""
    yield "/srv/orphans/releases/r2"
    for project in ("orphans", "neighbours"):
        app_host.sh(f"docker ps -aq --filter label=com.docker.compose.project={project} | xargs -r docker rm -fv")
    app_host.sh("docker network rm orphans_default neighbours_default; rm -r /srv/orphans")


def retire(host: DockerHost, folder: str, tmp_path: Path, *arguments: str) -> Run:
    """What a deploy does at its end."""
    playbook = tmp_path / "orphans.yml"
    task = {
        "name": "Retire",
        "ansible.builtin.include_role": {"name": "groundwork.backend.app", "tasks_from": "orphans"},
    }
    play = {"hosts": host.name, "become": True, "gather_facts": False, "tasks": [task]}
    playbook.write_text(json.dumps([play]))
    given = {
        "app_name": "orphans", "__app_build_dir": folder, "__app_files": [f"{folder}/compose.yml"],
        "__app_env_file": f"{folder}/.env",
    }  # fmt: skip
    run = Playbook(tmp_path, host.inventory)(str(playbook), *arguments, **given)
    assert run.rc == 0, run.output
    return run


def test_only_what_the_release_does_not_have_any_more_goes(app_host: DockerHost, folder: str, tmp_path: Path) -> None:
    def up(project: str, model: dict[str, object], words: str) -> None:
        app_host.write(f"{folder}/compose.yml", json.dumps(model))
        app_host.sh(f"cd {folder} && touch .env && docker compose -p {project} {words} 2>&1")

    def names() -> set[str]:
        told = app_host.sh("docker ps --all --format '{{.Names}}' --filter label=com.docker.compose.project")
        return {name for name in told.split() if name.startswith(("orphans-", "neighbours-"))}

    up("neighbours", BEFORE, "up -d old")
    up("orphans", BEFORE, "up -d old")
    up("orphans", BEFORE, "--profile ops up -d tool")
    up("orphans", BEFORE, "run -d --name orphans-by-hand old")
    up("orphans", ONCE, "up -d new once")
    stays = {"neighbours-old-1", "orphans-tool-1", "orphans-by-hand", "orphans-new-1", "orphans-once-1"}
    assert names() == stays | {"orphans-old-1"}
    assert retire(app_host, folder, tmp_path, "--check").changed == 1
    assert names() == stays | {"orphans-old-1"}
    assert retire(app_host, folder, tmp_path).changed == 1
    assert names() == stays
    assert retire(app_host, folder, tmp_path).changed == 0
