# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The example stack innovaplus: what its workflow and its inventory say of the same things, and what it pins."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "innovaplus"
BACKEND = EXAMPLE / "INNOVAPLUS" / "INNOVA" / "backend"
WORKFLOW = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "deploy-backend.yml").read_text())
STEPS = {step["name"]: step for step in WORKFLOW["jobs"]["deploy"]["steps"]}


def test_these_tests_run_what_the_requirements_pin() -> None:
    asked = re.findall(r"^([a-z-]+)==(\S+)$", (BACKEND / "requirements.in").read_text(), re.MULTILINE)
    assert len(asked) == 6
    assert {name: importlib.metadata.version(name) for name, _version in asked} == dict(asked)
    pinned = re.findall(r"^(\S+)==(\S+) \\$", (BACKEND / "requirements.txt").read_text(), re.MULTILINE)
    assert set(asked) <= set(pinned)


def test_every_requirement_has_hashes() -> None:
    entries = re.split(
        r"\n(?=\S)", re.sub(r"^#.*\n", "", (BACKEND / "requirements.txt").read_text(), flags=re.MULTILINE)
    )
    assert len(entries) > 10
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


def require_secrets(**env: str) -> subprocess.CompletedProcess[str]:
    """The step as a runner runs it."""
    script = STEPS["Require the secrets"]["run"]
    return subprocess.run(
        ["bash", "-e", "-c", script],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if "run" in step])
def test_every_script_of_the_workflow_can_be_read(name: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", STEPS[name]["run"]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_workflow_names_a_secret_that_is_not_set() -> None:
    given = dict.fromkeys(("SSH_PRIVATE_KEY", "SSH_KNOWN_HOSTS", "DEPLOY_TARGET", "GROUNDWORK_COLLECTION"), "x")
    done = require_secrets(**given)
    assert (done.returncode, "MONGO_APP_PASS is empty" in done.stdout) == (1, True)
    assert require_secrets(**given, MONGO_APP_PASS="x").returncode == 0


def test_the_workflow_has_few_rights_and_nothing_in_it_can_be_exchanged() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    actions = [step["uses"] for step in STEPS.values() if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
    # Secrets are in the environment of the steps that need them; in a script they would be text of a shell.
    assert [name for name, step in STEPS.items() if "${{" in step.get("run", "")] == []
    given = {name for name, step in STEPS.items() if "secrets." in str(step.get("env"))}
    assert given == {"Require the secrets", "Provide the SSH key", "Deploy"}


def test_deploys_wait_for_one_another_and_talk_to_known_hosts_only() -> None:
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is False
    assert re.findall(r"StrictHostKeyChecking=(\S+?)\"", STEPS["Provide the SSH key"]["run"]) == ["yes"]
    assert [name for name, step in STEPS.items() if "ssh-keyscan" in step.get("run", "")] == []


def test_the_journal_is_shown_when_a_step_fails() -> None:
    *_others, last = STEPS.values()
    assert last["if"] == "failure() && env.SSH_AUTH_SOCK != ''"
    assert "--lines 200 " in last["run"]


def test_the_workflow_deploys_the_folder_and_the_unit_of_the_inventory(root: Path) -> None:
    settings = yaml.safe_load((root / "inventories" / "innovaplus" / "group_vars" / "all" / "main.yml").read_text())
    folder = WORKFLOW["env"]["BACKEND"]
    assert (EXAMPLE / folder / "requirements.txt").is_file()
    assert settings["app_source"]["path"].endswith(f"examples/innovaplus/{folder}")
    assert WORKFLOW["env"]["UNIT"] == f"{settings['app_name']}-{next(iter(settings['app_units']))}.service"
    # YAML 1.1 reads the key "on" as true.
    assert WORKFLOW[True]["push"] == {"branches": ["main"], "paths": [f"{folder}/**"]}
    assert "workflow_dispatch" in WORKFLOW[True]
    assert WORKFLOW["env"]["HEALTH_URL"] == f"https://{settings['innovaplus_domain']}/health"
