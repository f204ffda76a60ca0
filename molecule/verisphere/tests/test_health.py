# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait's kind compose, on a project that Compose itself started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Playbook
from testinfra.host import Host

FOLDER = "/tmp/health-test"
PROJECT = "health-test"
IMAGE = "redis:7-alpine"
COMPOSE = {
    "services": {
        "cache": {"image": IMAGE, "healthcheck": {"test": "redis-cli ping", "interval": "1s", "start_period": "5s"}},
        "seed": {"image": IMAGE, "command": ["true"]},
        "broken": {"image": IMAGE, "command": ["sh", "-c", "echo no configuration; exit 3"], "profiles": ["broken"]},
    }
}


@pytest.fixture
def project(host: Host) -> Any:
    """Starts the project with the profiles given; removes it afterwards."""
    host.check_output("mkdir -p %s && printf '%%s' %s > %s/compose.yml", FOLDER, json.dumps(COMPOSE), FOLDER)
    compose = f"sudo docker compose --project-name {PROJECT} --project-directory {FOLDER}"

    def start(*profiles: str) -> None:
        options = " ".join(f"--profile {profile}" for profile in profiles)
        host.check_output(f"{compose} {options} up --detach --quiet-pull")

    yield start
    host.check_output(f"{compose} --profile '*' down --timeout 1")


def wait(playbook: Playbook, folder: Path, **check: object) -> tuple[int, str]:
    """Run one health_wait task on the host; its exit status and what Ansible printed."""
    path = folder / "wait.yml"
    task = {
        "groundwork.backend.health_wait": {"timeout": 60, "checks": [{"kind": "compose", "project": PROJECT, **check}]}
    }
    path.write_text(json.dumps([{"hosts": "all", "become": True, "gather_facts": False, "tasks": [task]}]))
    run = playbook(str(path))
    return run.rc, run.words


def test_a_project_with_a_finished_one_shot_is_up(project: Any, playbook: Playbook, tmp_path: Path) -> None:
    project()
    rc, words = wait(playbook, tmp_path, one_shots=["seed"])
    assert rc == 0, words


def test_a_service_that_ended_with_an_error_ends_the_wait_at_once(
    project: Any, playbook: Playbook, tmp_path: Path
) -> None:
    project("broken")
    rc, words = wait(playbook, tmp_path, one_shots=["seed"])
    assert rc != 0
    assert "broken" in words
    assert "no configuration" in words, "the log of the service is in the result"
    elapsed = re.search(r"elapsed: ([0-9.]+)", words)
    assert elapsed is not None
    assert float(elapsed.group(1)) < 60, "it did not wait for the deadline"
