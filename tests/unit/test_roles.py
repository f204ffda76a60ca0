# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""argument_specs.yml is the source of truth: its defaults and those of defaults/main.yml are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
SCENARIOS = sorted(path.parent for path in ROOT.glob("molecule/*/molecule.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def main_options(role: Path) -> dict[str, Any]:
    options: dict[str, Any] = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


def test_every_role_has_a_spec() -> None:
    assert [role.name for role in ROLES] == sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_spec(role: Path) -> None:
    specified = {name: option["default"] for name, option in main_options(role).items() if "default" in option}
    assert load(role / "defaults" / "main.yml") == specified


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_typed_described_and_prefixed(role: Path) -> None:
    def walk(options: dict[str, Any]) -> None:
        for name, option in options.items():
            assert option.get("type"), name
            assert option.get("description"), name
            assert (option["type"] == "list") == ("elements" in option), name
            walk(option.get("options", {}))

    walk(main_options(role))
    assert all(name.startswith(f"{role.name}_") for name in main_options(role))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_includes_no_role(role: Path) -> None:
    for path in role.rglob("*.yml"):
        assert "_role:" not in path.read_text(), path
    assert load(role / "meta" / "main.yml")["dependencies"] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_converges_and_verifies(scenario: Path) -> None:
    assert (scenario / "converge.yml").is_file()
    assert list(scenario.glob("tests/test_*.py"))


def test_there_are_scenarios() -> None:
    assert SCENARIOS
