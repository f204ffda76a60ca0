# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Generations of nginx's managed files: each is a folder that is complete before the link ``live`` turns to it.

A kill between any two steps leaves the old generation live, or the new one; both are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._nginx import (
    IDENTITY_FILE,
    IDENTITY_FOLDER,
    identity,
)

_NAME = re.compile(r"\d{6,}")


@dataclass(frozen=True)
class Generations:
    """The folder with ``live``, ``generations/`` and ``loaded`` (what nginx is known to run)."""

    directory: Path

    @property
    def folder(self) -> Path:
        """Where the generations are."""
        return self.directory / "generations"

    @property
    def link(self) -> Path:
        """The link to the generation that counts."""
        return self.directory / "live"

    def live(self) -> str:
        """The name of the live generation, or nothing. Raises StateError when ``live`` is no link of ours."""
        if not self.link.is_symlink():
            if self.link.exists():
                raise StateError(
                    f"{self.link} is no symbolic link.", fix="Move it away: the module keeps a link of its own there."
                )
            return ""
        name = self.link.readlink().name
        if not (_NAME.fullmatch(name) and (self.folder / name).is_dir()):
            raise StateError(
                f"{self.link} points to {self.link.readlink()}, which is no generation in {self.folder}.",
                fix="Remove the link, then run the role nginx and a deploy, which write all files again.",
            )
        return name

    def read(self, name: str) -> dict[str, str]:
        """The managed files of a generation."""
        top = self.folder / name
        with os_errors(f"read {top}"):
            return {
                path: file.read_text(errors="surrogateescape")
                for file in sorted(top.rglob("*"))
                if file.is_file() and (path := str(file.relative_to(top))) != IDENTITY_FILE
            }

    def next_name(self) -> str:
        """A name that no generation has had."""
        taken = [int(path.name) for path in self.folder.glob("*") if _NAME.fullmatch(path.name)]
        return f"{max(taken, default=0) + 1:06d}"

    def stage(self, tree: Mapping[str, str], name: str) -> Path:
        """Write a whole generation under a temporary name, safely on disk. Raises StateError (disk full)."""
        staging = self.folder / f".partial-{name}"
        with os_errors(f"write the configuration in {staging}"):
            for folder in (self.directory, self.folder):
                folder.mkdir(mode=0o755, exist_ok=True)
                folder.chmod(0o755)
            if staging.exists():
                shutil.rmtree(staging)
            try:
                write_tree(staging, tree, self.folder / name, sync=True)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        return staging

    def keep(self, staging: Path, name: str) -> None:
        """Give the staged generation its name."""
        with os_errors(f"write {self.folder / name}"):
            staging.rename(self.folder / name)
            sync_directory(self.folder)

    def turn(self, name: str) -> None:
        """Make *name* the live generation, in one step; no name takes the link away."""
        with os_errors(f"turn {self.link}"):
            if name:
                fresh = self.directory / ".live"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(f"{self.folder.name}/{name}")
                fresh.rename(self.link)
            else:
                self.link.unlink()
            sync_directory(self.directory)

    def clean(self, keep: set[str], count: int = 2) -> None:
        """Remove what is left of earlier calls, and generations beyond *count*: those named stay, then the newest."""
        with os_errors(f"clean {self.folder}"):
            names = sorted((path.name for path in self.folder.iterdir()), reverse=True)
            generations = [name for name in names if _NAME.fullmatch(name)]
            kept = sorted(generations, key=lambda name: name in keep, reverse=True)[:count]
            for name in names:
                if name not in kept:
                    shutil.rmtree(self.folder / name)

    def mark_loaded(self, name: str, config: Path) -> None:
        """Remember that nginx runs this generation with this main configuration file."""
        data = json.dumps({"generation": name, "config": _digest(config)})
        if self._loaded() != data:
            write_file(self.directory / "loaded", data.encode())

    def is_loaded(self, name: str, config: Path, master_started: float) -> bool:
        """Whether the running nginx has what is on disk. master_started: seconds since the epoch."""
        if self._loaded() == json.dumps({"generation": name, "config": _digest(config)}):
            return True
        with os_errors(f"read {self.link}"):
            changed = max(self.link.lstat().st_mtime if name else 0.0, config.stat().st_mtime)
        return master_started > changed

    def _loaded(self) -> str:
        marker = self.directory / "loaded"
        with os_errors(f"read {marker}"):
            return marker.read_text(errors="replace") if marker.exists() else ""


def _digest(config: Path) -> str:
    with os_errors(f"read {config}"):
        return hashlib.sha256(config.read_bytes()).hexdigest()


def write_tree(top: Path, tree: Mapping[str, str], generation: Path, *, sync: bool = False) -> None:
    """Write all files of a generation that shall be known as *generation*; 0644 and 0755 whatever the umask.

    Raises OSError.
    """
    folders = {top, top / IDENTITY_FOLDER}
    for path in tree:
        folders |= {top / folder for folder in Path(path).parents}
    for folder in sorted(folders):
        folder.mkdir()
        folder.chmod(0o755)
    for path, text in {**tree, IDENTITY_FILE: identity(generation)}.items():
        with (top / path).open("w", errors="surrogateescape") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o644)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
    if sync:
        for folder in sorted(folders, reverse=True):
            sync_directory(folder)
