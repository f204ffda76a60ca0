# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""docs/losing-a-machine.md, command by command, on a second host that is bare."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ADDRESS, DIGEST, NOTES, ROOT, SUCCESSOR, Stack, copy_inventory, shell
from support.scenario import Playbook, connect, copy_source

GUIDE = ROOT / "docs" / "losing-a-machine.md"
TESTBED = [sys.executable, str(ROOT / "tests" / "testbed"), "host"]


def commands() -> list[str]:
    """The shell blocks of the guide: the settings, how copies are kept, and the way back."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def successor() -> Iterator[None]:
    """A bare host."""
    start = ["start", "backup-two", "--os", "debian13-docker", "--address", SUCCESSOR, "--fresh"]
    subprocess.run([*TESTBED, *start], check=True, capture_output=True)
    yield
    subprocess.run([*TESTBED, "stop", "backup-two"], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.usefixtures("successor")
def test_the_guide_brings_the_stack_back_on_another_machine(stack: Stack, good_set: str, tmp_path: Path) -> None:
    """The release is newer than the set by then: what the set lacks of the schema is migrated."""
    inventory, copies = copy_inventory(tmp_path / "inventory"), tmp_path / "copies"
    source = copy_source(ROOT / "molecule" / "backup" / "app", tmp_path / "source")
    (source / "migrations" / "0002_stars.sql").write_text("ALTER TABLE notes ADD COLUMN stars int DEFAULT 0;\n")
    (inventory / "group_vars" / "all" / "newer.yml").write_text(f'app_source: {{path: "{source}"}}\n')
    settings, keep, *back = commands()
    names = {"INVENTORY": inventory, "STACK": "notes", "OLD": ADDRESS, "NEW": SUCCESSOR, "COPIES": copies}
    assert set(re.findall(r"^(\w+)=", settings, re.MULTILINE)) == names.keys()
    ours = "".join(f"{name}={value}\n" for name, value in names.items())
    digest = stack.sql(DIGEST)
    kept = shell(ours + keep)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    assert (copies / good_set / "manifest.json").is_file()
    assert back
    done = shell(ours + "".join(back))
    assert done.returncode == 0, done.stdout + done.stderr
    new = Stack(connect(SUCCESSOR), Playbook(tmp_path, inventory))
    assert new.notes() == NOTES
    assert new.sql(DIGEST) == digest
    assert new.sql("SELECT count(*) FROM notes WHERE stars = 0") == str(NOTES), "migrated after the restore"
