# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A digest of the repository's files that a service mounts, so that compose recreates it when only these changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import os_errors

MOUNTS_LABEL = "org.groundwork.mounts"
_ROUNDS = 200_000
# Images of databases read it once, when they make their data.
_READ_ONCE = "/docker-entrypoint-initdb.d"


def mounted_paths(config: Mapping[str, Any], service: str, root: Path) -> dict[str, Path]:
    """Where the service sees it -> the file or folder below *root*: bind mounts, configs and secrets that are files.

    config: parsed ``docker compose config --format json``.
    """
    found: dict[str, Path] = {}
    keys = config["services"][service]
    for volume in keys.get("volumes") or ():
        if volume.get("type") == "bind":
            found[str(volume["target"])] = Path(volume["source"])
    for kind in ("configs", "secrets"):
        for entry in keys.get(kind) or ():
            if path := (config.get(kind) or {}).get(entry["source"], {}).get("file"):
                found[f"{kind}/{entry.get('target') or entry['source']}"] = Path(path)
    return {
        target: path
        for target, path in sorted(found.items())
        if path.is_relative_to(root) and not f"{target}/".startswith(f"{_READ_ONCE}/")
    }


def digest(mounts: Mapping[str, Path], salt: str) -> str:
    """Twelve hex digits of all that is mounted, too slow to compute to search for a secret by trying; else nothing.

    Raises StateError when something cannot be read.
    """
    if not mounts:
        return ""
    seen = hashlib.sha256()
    for target, path in mounts.items():
        with os_errors(f"read {path}, which is mounted at {target}"):
            for name, content in _contents(path):
                seen.update(f"{target}\0{name}\0{content}\0".encode(errors="surrogateescape"))
    return hashlib.pbkdf2_hmac("sha256", seen.digest(), salt.encode(), _ROUNDS).hex()[:12]


def _contents(top: Path) -> Iterator[tuple[str, str]]:
    """The path below *top* and a digest of each file; of a folder, the files of its folders in order."""
    if not top.is_dir():
        yield "", _content(top)
        return
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted([*files, *(one for one in folders if (Path(folder) / one).is_symlink())]):
            path = Path(folder) / name
            yield str(path.relative_to(top)), _content(path)


def _content(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    # A link that leads nowhere, or to a folder; nothing at all, where the engine makes a folder.
    return f"link {path.readlink()}" if path.is_symlink() else "none"
