# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Backup sets with one MongoDB component: of a dump by mongo_dump, or of files from elsewhere."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import read_entry
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Component, Manifest, write_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._sets import utc_text
from support.backup_sets import STACK
from support.modules import ModuleRunner

NAME = "mongo"
_numbers = itertools.count()


@dataclass(frozen=True)
class MongoSets:
    """The sets of one folder."""

    module: ModuleRunner
    folder: Path

    def dump(self, **options: Any) -> Path:
        """Begin, mongo_dump with these options, commit; the set's folder."""
        begun = self._run(action="begin")
        dest = Path(begun["path"]) / "components" / NAME
        dumped = self.module("mongo_dump", {**options, "name": NAME, "dest": str(dest)})
        assert dumped.get("changed") is True, dumped
        return self._commit(begun["id"], dumped["component"])

    def of_files(self, folder: Path, database: str, **facts: Any) -> Path:
        """A set with copies of the files in *folder*, as if a backup had written them so."""
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_numbers))
        path = self.folder / f"{moment:%Y%m%dT%H%M%SZ}"
        dest = path / "components" / NAME / database
        shutil.copytree(folder, dest)
        files = [{**read_entry(file).to_dict(), "name": f"{database}/{file.name}"} for file in sorted(dest.iterdir())]
        component = {
            "engine": "mongo", "name": NAME, "database": database, "files": files,
            "started_at": utc_text(moment), "seconds": 1.0, **facts,
        }  # fmt: skip
        components = (Component.from_dict(component),)
        write_manifest(path, Manifest(path.name, STACK, utc_text(moment), 1.0, None, ("test",), {}, components))
        return path

    def _commit(self, set_id: str, component: dict[str, Any]) -> Path:
        return Path(self._run(action="commit", id=set_id, components=[component])["path"])

    def _run(self, **options: Any) -> dict[str, Any]:
        result = self.module("backup_set", {"path": str(self.folder), "stack": STACK, **options})
        assert result.get("changed") is True, result
        return result
