# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Every public variable that a role uses is documented: <role>_name stands in argument_specs.yml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, nodes

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
BARE = {"when", "that", "until", "changed_when", "failed_when", "var"}  # expressions that stand without {{ }}
ENVIRONMENT = Environment(autoescape=True, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])


def expressions(value: Any, key: str = "") -> Iterator[str]:
    """Every template text inside of a YAML value."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from expressions(name)
            yield from expressions(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item, key)
    elif isinstance(value, str):
        yield f"{{{{ {value} }}}}" if key in BARE and "{{" not in value else value


def used(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every name in the templates and YAML of a role, or of the playbooks, with its file."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".yml", ".yaml"):
            texts = list(expressions(list(yaml.safe_load_all(path.read_text()))))
        elif path.suffix == ".j2":
            texts = [path.read_text()]
        else:
            continue
        for text in texts:
            if "{{" in text or "{%" in text:
                yield from ((node.name, path) for node in ENVIRONMENT.parse(text).find_all(nodes.Name))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_of_the_role_is_documented(role: Path) -> None:
    entry_points = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"].values()
    documented = {name for entry in entry_points for name in entry["options"]}
    found = [*used(role), *used(ROOT / "playbooks")]
    own = {(name, path.relative_to(ROOT)) for name, path in found if name.startswith(f"{role.name}_")}
    assert own, "the role uses none of its variables"
    assert sorted((name, str(path)) for name, path in own if name not in documented) == []
    assert documented <= {name for name, _path in own}, "documented and not used"
