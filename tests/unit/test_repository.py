# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Rules for every file of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FOLDERS = {"plugins", "tests", "molecule", "examples", "docs"}
TOO_GENERAL = {"/", "/root", "/home", "/opt", "/srv", "/tmp", "/var"}


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file that is tracked or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_python_files_have_their_licence(files: list[Path]) -> None:
    # An empty __init__.py stays empty: ansible-test (empty-init) wants it so.
    python = [path for path in files if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PYTHON_FOLDERS]
    assert python
    for path in python:
        text = path.read_text()
        assert not text or "SPDX-License-Identifier: GPL-3.0-or-later" in "\n".join(text.splitlines()[:2]), path


def test_no_path_of_a_development_machine(files: list[Path]) -> None:
    folders = [r"(?<![\w./}-])/wor[k]/", re.escape(str(ROOT))]
    if str(ROOT.parent) not in TOO_GENERAL:
        folders.append(re.escape(f"{ROOT.parent}/"))
    private = re.compile("|".join(folders).encode())
    found = [f"{path}: {match[0].decode()}" for path in files if (match := private.search(path.read_bytes()))]
    assert found == []
