# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Backup sets without a server: written through the module, or by its own code in this process where there are many."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._manifest import read_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context
from ansible_collections.groundwork.backend.plugins.modules import backup_set
from support.modules import ModuleRunner

STACK = "verisphere"


def call(module: ModuleRunner, base: Path, action: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """One run of the module."""
    return module("backup_set", {"action": action, "path": str(base), "stack": STACK, **more}, check=check)


def component(folder: Path, name: str = "db", data: bytes = b"rows") -> dict[str, Any]:
    """Write one component's file and describe it, as a store module does; nothing is synced."""
    target = folder / "components" / name
    target.mkdir(mode=0o755)
    (target / "dump").write_bytes(data)
    return {
        "engine": "postgres",
        "name": name,
        "files": [{"name": "dump", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}],
        "started_at": "2026-11-21T06:12:00Z",
        "seconds": 0.5,
        "schema_version": 7,
        "counts": {"public.claims": 3},
    }


def begun(module: ModuleRunner, base: Path, **more: Any) -> tuple[str, Path]:
    """Id and folder of a set that is being written."""
    result = call(module, base, "begin", **more)
    assert result["changed"] is True, result
    return result["id"], Path(result["path"])


def committed(module: ModuleRunner, base: Path, data: bytes = b"rows", **more: Any) -> Path:
    """A set that was begun, written and committed by the module."""
    set_id, folder = begun(module, base, **more)
    result = call(module, base, "commit", id=set_id, components=[component(folder, data=data)])
    assert result["changed"] is True, result
    return Path(result["path"])


def in_process(base: Path, action: str, **more: Any) -> dict[str, Any]:
    """The action without a process of its own; for many sets."""
    params = {
        "action": action,
        "path": str(base),
        "stack": STACK,
        "id": None,
        "components": None,
        "release": None,
        "hosts": None,
        "schema_versions": {},
        "min_free_bytes": 0,
        "stale_after": 21600,
        "keep": None,
        "full": False,
        "seconds": None,
        **more,
    }
    return backup_set.execute(Context(params, check_mode=False, diff_mode=False, warn=lambda _text: None))


def plant(base: Path, set_id: str, data: bytes = b"rows", stack: str = STACK) -> Path:
    """A committed set, made in this process."""
    folder = Path(in_process(base, "begin", id=set_id, stack=stack)["path"])
    return Path(in_process(base, "commit", id=set_id, stack=stack, components=[component(folder, data=data)])["path"])


def copy_as(folder: Path, set_id: str) -> None:
    """The same set under another id; for very many."""
    copy = folder.with_name(set_id)
    shutil.copytree(folder, copy)
    manifest = replace(read_manifest(folder), id=set_id)
    (copy / "manifest.json").write_text(json.dumps(manifest.to_dict()))


def days_ago(days: float) -> str:
    """The id of a set that was begun then."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ")
