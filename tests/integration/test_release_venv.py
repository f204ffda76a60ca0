# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""release_venv with the real venv and pip, and with wheels of this test."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner

SECRET = "canary-77ab"


@dataclass(frozen=True)
class Stack:
    """The folder of a stack, and a folder of wheels that takes the place of an index."""

    module: ModuleRunner
    path: Path
    wheels: Path

    def wheel(self, name: str, version: str, text: str = "") -> str:
        """Build a wheel with one module; its sha256."""
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        files = {
            f"{name}.py": f"VERSION = {version!r}\n{text}",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = []
        for file, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{file},sha256={digest},{len(content)}\n")
        with zipfile.ZipFile(path, "w") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
            archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def release(self, name: str, requirements: str) -> None:
        """Put a release there."""
        folder = self.path / "releases" / name
        folder.mkdir(parents=True)
        (folder / "requirements.txt").write_text(requirements)

    def run(self, name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's result."""
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_TOKEN": SECRET}
        arguments = {"path": str(self.path), "release": name, "requirements": "requirements.txt", "env": env, **options}
        return self.module("release_venv", arguments, check=check)

    def version(self, release: str, name: str = "shoplib") -> str:
        """What the Python of a release imports."""
        python = self.path / "releases" / release / ".venv" / "bin" / "python"
        argv = [str(python), "-c", f"import {name}; print({name}.VERSION)"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    def environments(self) -> list[str]:
        """The environments that are there."""
        return sorted(one.name for one in (self.path / "venvs").glob("*"))


@pytest.fixture
def stack(module: ModuleRunner, tmp_path: Path) -> Stack:
    """A stack whose wheels have shoplib 1.0."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    found = Stack(module, tmp_path / "shop", wheels)
    found.wheel("shoplib", "1.0")
    return found


def test_unchanged_requirements_cost_nothing(stack: Stack) -> None:
    stack.release("r1", "shoplib==1.0\n")
    planned = stack.run("r1", check=True)
    assert (planned["changed"], planned["made"], stack.environments()) == (True, True, [])
    first = stack.run("r1")
    assert (first["changed"], first["made"], stack.version("r1")) == (True, True, "1.0")
    assert not stack.run("r1", check=True)["changed"]
    assert not stack.run("r1")["changed"]
    (stack.wheels / "shoplib-1.0-py3-none-any.whl").unlink()  # nothing is installed again
    stack.release("r2", "shoplib==1.0\n")
    second = stack.run("r2")
    assert (second["changed"], second["made"], second["venv"], stack.version("r2")) == (
        True, False, first["venv"], "1.0",
    )  # fmt: skip


def test_what_cannot_be_installed_leaves_nothing_and_says_why(stack: Stack) -> None:
    stack.release("r1", "shoplib==1.0\n")
    stack.run("r1")
    before = stack.environments()
    stack.release("r2", "shoplib==9.9\n")
    result = stack.run("r2")
    assert result["failed"]
    assert "The requirements requirements.txt of release r2 could not be installed" in result["msg"]
    assert "No matching distribution found for shoplib==9.9" in result["msg"]
    assert SECRET not in str(result)
    assert "Looking in links: ********" in result["stderr"]  # printed, and masked
    assert (stack.environments(), stack.version("r1")) == (before, "1.0")


def test_uv_installs_the_same_in_an_environment_of_its_own(stack: Stack) -> None:
    uv = {"installer": "uv", "env": {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(stack.wheels)}}
    stack.release("r1", "shoplib==1.0\n")
    by_pip = stack.run("r1")["venv"]
    by_uv = stack.run("r1", **uv)
    assert (by_uv["made"], by_uv["venv"] != by_pip, stack.version("r1")) == (True, True, "1.0")
    assert not stack.run("r1", **uv)["changed"]
    stack.release("r2", "shoplib==9.9\n")
    assert "there is no version of shoplib==9.9" in stack.run("r2", **uv)["msg"]
    assert stack.version("r1") == "1.0"


def test_a_uv_that_is_not_there_is_told_before_anything_is_made(stack: Stack) -> None:
    stack.release("r1", "shoplib==1.0\n")
    told = stack.run("r1", installer="uv", uv="/nowhere/uv")["msg"]
    assert "there is no program /nowhere/uv on this host. Install it, or name it" in told
    assert stack.environments() == []


def test_a_wheel_with_another_hash_is_refused(stack: Stack) -> None:
    good = stack.wheel("shoplib", "1.0")
    stack.release("r1", f"shoplib==1.0 --hash=sha256:{good}\n")
    assert not stack.run("r1").get("failed")
    stack.release("r2", f"shoplib==1.0 --hash=sha256:{64 * '0'}\n")
    assert "DO NOT MATCH THE HASHES" in stack.run("r2")["msg"]


def test_one_line_without_a_hash_is_refused(stack: Stack) -> None:
    good = stack.wheel("shoplib", "1.0")
    stack.wheel("other", "1.0")
    stack.release("r1", f"shoplib==1.0 --hash=sha256:{good}\nother==1.0\n")
    assert "all requirements must have their versions pinned" in stack.run("r1")["msg"].replace("\n", " ").lower() or (
        "--require-hashes mode" in stack.run("r1")["msg"]
    )


def test_what_was_left_half_made_is_made_again(stack: Stack) -> None:
    stack.release("r1", "shoplib==1.0\n")
    folder = Path(stack.run("r1")["venv"])
    (folder / ".groundwork-complete").unlink()
    (folder / "bin" / "python").unlink()
    assert stack.run("r1")["made"]
    assert stack.version("r1") == "1.0"


def test_environments_that_no_release_has_go(stack: Stack) -> None:
    stack.release("r1", "shoplib==1.0\n")
    kept = Path(stack.run("r1")["venv"]).name
    (stack.path / "venvs" / "old").mkdir()
    assert stack.run("r1", state="pruned", check=True)["removed"] == ["old"]
    assert stack.run("r1", state="pruned")["removed"] == ["old"]
    assert stack.environments() == [kept]
    assert not stack.run("r1", state="pruned")["changed"]


def test_requirements_that_are_not_there(stack: Stack) -> None:
    (stack.path / "releases" / "r1").mkdir(parents=True)
    assert "Give app_python.requirements as a path below" in stack.run("r1")["msg"]
