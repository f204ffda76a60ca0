# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Real backup sets, as pg_backup and backup_set make them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import read_entry
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import read_manifest, write_manifest
from support.modules import ModuleRunner
from support.postgres import PostgresServer

STACK = "test"
NAME = "shop"


@dataclass(frozen=True)
class Sets:
    """The sets of one folder; each has one component, NAME."""

    module: ModuleRunner
    folder: Path

    def make(self, backup: Mapping[str, Any], change: Callable[[dict[str, Any], Path], None] | None = None) -> Path:
        """Begin, pg_backup with these options, commit; the set's folder.

        change gets the component and its folder before the commit, for sets that hold and tell something untrue.
        """
        begun = self._run(action="begin")
        dest = Path(begun["path"]) / "components" / NAME
        dumped = self.module("pg_backup", {**backup, "name": NAME, "dest": str(dest)})
        assert dumped.get("changed") is True, dumped
        component = dumped["component"]
        if change is not None:
            change(component, dest)
        return Path(self._run(action="commit", id=begun["id"], components=[component])["path"])

    def dump(
        self,
        server: PostgresServer,
        database: str,
        change: Callable[[dict[str, Any], Path], None] | None = None,
        **more: Any,
    ) -> Path:
        """The same of a database on a server of this machine, with its own client programs and more options."""
        return self.make({**server.local(database), **more}, change)

    def _run(self, **options: Any) -> dict[str, Any]:
        result = self.module("backup_set", {"path": str(self.folder), "stack": STACK, **options})
        assert result.get("changed") is True, result
        return result


def copied(set_path: Path, folder: Path) -> Path:
    """A copy of a set to damage."""
    target = folder / set_path.name
    shutil.copytree(set_path, target)
    return target


def component_of(set_path: Path) -> dict[str, Any]:
    """The component in the manifest of a set."""
    component: dict[str, Any] = json.loads((set_path / "manifest.json").read_text())["components"][0]
    return component


def retold(set_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a set's manifest tells of its component, and give the manifest the checksum that belongs to it."""
    manifest = read_manifest(set_path)
    (component,) = manifest.components
    fields = copy.deepcopy(component.to_dict())
    change(fields)
    write_manifest(set_path, replace(manifest, components=(type(component).from_dict(fields),)))


def measured(set_path: Path) -> None:
    """Make the manifest of a set tell the sizes and checksums that its files have now."""

    def change(component: dict[str, Any]) -> None:
        for file in component["files"]:
            entry = read_entry(set_path / "components" / NAME / file["name"])
            file["bytes"], file["sha256"] = entry.bytes, entry.sha256

    retold(set_path, change)
