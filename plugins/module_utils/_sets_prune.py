# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Remove backup sets: aside by a rename first, so that half of a set never has the name of one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Manifest
from ansible_collections.groundwork.backend.plugins.module_utils._retention import Keep, SetState, Verdict, plan
from ansible_collections.groundwork.backend.plugins.module_utils._set_files import held, remove_torn_manifests
from ansible_collections.groundwork.backend.plugins.module_utils._sets import (
    folder_names,
    is_id,
    parse_id,
    set_ids,
)

_REMOVING = ".removing-"
_LEFTOVER = re.compile(r"\.removing-(?:partial-)?(.+)\Z")


@dataclass(frozen=True)
class Pruning:
    """verdicts: of each set, newest first; going: the sets to remove, oldest first."""

    verdicts: Sequence[Verdict]
    going: Sequence[Manifest]


def plan_pruning(good: Sequence[Manifest], damaged: Mapping[str, str], keep: Keep, now: datetime) -> Pruning:
    """What to remove; pure. damaged: id of a set to the reason why it cannot be used."""
    usable = [SetState(manifest.id, parse_id(manifest.id)) for manifest in good if manifest.id not in damaged]
    broken = [SetState(set_id, parse_id(set_id), reason) for set_id, reason in damaged.items()]
    verdicts = plan([*usable, *broken], keep, now)
    going = {verdict.id for verdict in verdicts if not verdict.stays}
    return Pruning(verdicts, [manifest for manifest in reversed(good) if manifest.id in going])


def leftovers(path: Path) -> list[Path]:
    """Folders whose removal was cut off; of others' folders, none."""
    names = sorted(folder_names(path))
    return [path / name for name in names if (match := _LEFTOVER.match(name)) and is_id(match[1])]


def tidy(path: Path) -> None:
    """Finish what killed processes left in *path*. The caller holds the lock."""
    _remove_trees(leftovers(path))
    for set_id in set_ids(path):
        remove_torn_manifests(path / set_id)


def discard(path: Path, folders: Iterable[Path]) -> list[Path]:
    """Remove folders of *path*, and give those that stay because somebody reads them. The caller holds the lock.

    The renames are on the disk before the first file goes: after a power cut a folder has its old name and all of its
    files, or the name of a leftover.
    """
    aside, busy = [], []
    for folder in folders:
        target = path / f"{_REMOVING}{folder.name.removeprefix('.')}"
        _remove_trees([target] if target.exists() else [])
        with held(folder, to_remove=True) as free, os_errors(f"remove {folder}"):
            if free:
                folder.rename(target)
                aside.append(target)
            else:
                busy.append(folder)
    with os_errors(f"sync {path}"):
        sync_directory(path)
    _remove_trees(aside)
    return busy


def _remove_trees(folders: Iterable[Path]) -> None:
    """Remove as many as can be. Raises the first StateError in the end."""
    errors = []
    for folder in folders:
        try:
            with os_errors(f"remove {folder}"):
                shutil.rmtree(folder)
        except StateError as error:
            errors.append(error)
    if errors:
        raise errors[0]
