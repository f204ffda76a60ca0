# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Values of .env reach the container unchanged, whatever they hold."""

from __future__ import annotations

import base64
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testinfra.host import Host

from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import render

AWKWARD = st.text(st.sampled_from(" \t#$\"'\\\n\r={}:é`!%&|;()<>*?~ab01nrtx"), max_size=16)
ANY = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=16)
VALUES = st.lists(st.one_of(AWKWARD, AWKWARD, ANY), min_size=40, max_size=40)
FOLDER = "/tmp/dotenv-test"


def put(host: Host, name: str, text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    host.check_output("mkdir -p %s && echo %s | base64 -d > %s", FOLDER, encoded, f"{FOLDER}/{name}")


def write(host: Host, values: list[str]) -> dict[str, str]:
    variables = {f"V{index}": value for index, value in enumerate(values)}
    put(host, ".env", render(variables))
    service = {"image": "python:3.11-slim", "environment": {name: f"${{{name}}}" for name in variables}}
    put(host, "compose.yml", json.dumps({"services": {"a": service}}))
    return variables


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES)
def test_compose_reads_every_value_back(host: Host, values: list[str]) -> None:
    variables = write(host, values)
    config = json.loads(host.check_output("docker compose --project-directory %s config --format json", FOLDER))
    # In the output of config a dollar sign is doubled, so that it could be fed to compose again.
    read = {name: value.replace("$$", "$") for name, value in config["services"]["a"]["environment"].items()}
    assert read == variables


def test_a_container_sees_every_value(host: Host) -> None:
    variables = write(
        host, ["two words", "a#b # c", "$HOME ${X:-y} $$", 'it\'s "quoted"', "a\nb\r\nc", "k=v=w", "back\\", ""]
    )
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    with host.sudo():
        printed = host.check_output("docker compose --project-directory %s run --rm -T a python -c %s", FOLDER, program)
    seen = json.loads(printed.splitlines()[-1])
    assert {name: seen[name] for name in variables} == variables
