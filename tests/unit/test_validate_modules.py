# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""ansible-test's own validate-modules, run on the checkout without the containers and downloads of ansible-test."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

COLLECTION = Path("ansible_collections", "groundwork", "backend")
# run_module() is the only importer of AnsibleModule, so that no module imports ansible.module_utils.basic itself.
BY_DESIGN = {"missing-module-utils-basic-import"}


@pytest.fixture(scope="module")
def reports(root: Path) -> dict[str, Any]:
    """What validate-modules tells of each module."""
    core = importlib.metadata.distribution("ansible-core").locate_file("ansible_test")
    program = Path(str(core), "_util", "controller", "sanity", "validate-modules", "validate.py")
    collections = root / "build" / "collections"
    version = yaml.safe_load((root / "galaxy.yml").read_text())["version"]
    modules = sorted(str(path.relative_to(root)) for path in root.glob("plugins/modules/*.py") if path.stem[0] != "_")
    options = ["--format", "json", "--arg-spec", "--collection", str(COLLECTION), "--collection-version", version]
    done = subprocess.run(
        [sys.executable, str(program), *options, *modules],
        cwd=collections / COLLECTION,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert sorted(found) == modules  # each has the warning of BY_DESIGN, so that a module without a report was not read
    return found


def test_no_module_has_an_error(reports: dict[str, Any]) -> None:
    told = [
        f"{name}: {one['code']}: {one['msg']}"
        for name, report in reports.items()
        for one in [*report["errors"], *report["warnings"]]
        if one["code"] not in BY_DESIGN
    ]
    assert told == []
