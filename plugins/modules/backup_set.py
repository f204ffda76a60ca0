#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Begin, commit, abort and list the backup sets of a stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_set
short_description: Begin, commit, abort and list the backup sets of a stack
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - A backup set is one folder with the dump of every store of a stack and one C(manifest.json).
    It is complete or absent.
  - O(action=begin) makes the folder that the store modules write into; O(action=commit) reads every file again,
    compares it with what the store modules reported, writes the manifest and gives the folder its final name.
  - The folder of a set that is being written begins with C(.partial-) and is never read as a backup.
attributes:
  check_mode:
    description: Can run in check mode and return the status prediction without changing the target.
    support: full
    details:
      - With O(action=commit), files are compared only when the set that is to be committed exists.
  diff_mode:
    description: Returns what changed, or would change.
    support: full
    details:
      - Shows the names of the committed sets and of those that are being written.
  idempotent:
    description: A second run in a row changes nothing.
    support: partial
    details:
      - O(action=begin) begins a new set each time.
      - O(action=commit) and O(action=abort) of a set that is committed or gone already change nothing.
options:
  action:
    description:
      - V(begin) makes a new set's folder. Sets whose writing was cut off are removed, and free space is checked.
      - V(commit) completes the set with the id O(id). When it fails, the set stays as it is, uncommitted.
      - V(abort) removes the uncommitted set with the id O(id), for the C(rescue) of a backup that failed.
      - V(list) tells which sets exist.
    type: str
    required: true
    choices: [begin, commit, abort, list]
  path:
    description:
      - Folder of the stack's sets on the managed host, such as C(/var/backups/verisphere).
        Nothing else belongs into it.
      - O(action=begin) creates it with mode C(0700).
    type: path
    required: true
  stack:
    description:
      - Name of the stack. A set whose manifest names another stack counts as damaged.
    type: str
    required: true
  id:
    description:
      - Id of the set, a UTC time such as V(20261121T061200Z).
      - Required for O(action=commit) and O(action=abort). With O(action=begin), the default is the time of the host.
    type: str
  components:
    description:
      - For O(action=commit), what the store modules returned as C(component), unchanged. At least one.
    type: list
    elements: dict
  release:
    description:
      - Id of the release that was deployed when the set was made. It is kept in the manifest.
    type: str
  hosts:
    description:
      - Names of the hosts that the set was taken from. The default is the name of the managed host.
    type: list
    elements: str
  schema_versions:
    description:
      - Schema version by component name, kept in the manifest. What components report themselves need not be repeated.
    type: dict
    default: {}
  min_free_bytes:
    description:
      - Bytes that must stay free after a set that is 1.1 times as large as the last one.
    type: int
    default: 0
  stale_after:
    description:
      - Seconds without a change after which O(action=begin) takes an uncommitted set for interrupted and removes it.
      - One that was begun before the last boot of the host is interrupted at once.
    type: int
    default: 21600
"""

EXAMPLES = r"""
- name: Begin a backup set
  groundwork.backend.backup_set:
    action: begin
    path: /var/backups/verisphere
    stack: verisphere
  register: backup

- name: Dump the database into it
  groundwork.backend.pg_backup:
    container: verisphere-postgres-1
    database: verisphere
    dest: "{{ backup.path }}/components/verisphere"
  register: dump

- name: Commit the set
  groundwork.backend.backup_set:
    action: commit
    path: /var/backups/verisphere
    stack: verisphere
    id: "{{ backup.id }}"
    components: ["{{ dump.component }}"]

- name: Find the newest set
  groundwork.backend.backup_set:
    action: list
    path: /var/backups/verisphere
    stack: verisphere
  register: backups

- name: Fail when there is none
  ansible.builtin.assert:
    that: backups.latest is not none
"""

RETURN = r"""
id:
  description: Id of the set.
  returned: when action is begin or commit or abort
  type: str
  sample: 20261121T061200Z
path:
  description:
    - Folder of the set. After O(action=begin) the store modules write into C(components/<name>) inside it.
  returned: when action is begin or commit or abort
  type: str
  sample: /var/backups/verisphere/.partial-20261121T061200Z
removed:
  description: Folders of interrupted sets that were removed.
  returned: when action is begin or abort
  type: list
  elements: str
free_bytes:
  description: Free space on the file system of O(path) after the begin, in bytes.
  returned: when action is begin
  type: int
manifest:
  description: The manifest; V(null) in check mode when there is no set yet.
  returned: when action is commit
  type: dict
sets:
  description:
    - The usable sets, newest first. Each has C(id), C(path), C(created_at), C(seconds), C(bytes), C(release) and
      C(components), a list of names.
  returned: when action is list
  type: list
  elements: dict
newest:
  description: Manifest of the newest usable set with its folder as C(path), or V(null).
  returned: when action is list
  type: dict
latest:
  description: Id of the newest usable set, or V(null).
  returned: when action is list
  type: str
count:
  description: How many usable sets there are.
  returned: when action is list
  type: int
bytes:
  description: Size of the committed set, or of all usable sets, in bytes.
  returned: when action is commit or list
  type: int
damaged:
  description: Sets that cannot be used, each with C(id), C(path) and C(reason).
  returned: when action is list
  type: list
  elements: dict
"""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import (
    Component,
    Manifest,
    check_name,
    read_manifest,
)
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._partials import (
    Partial,
    create_partial,
    find_partial,
    locked,
    partial_path,
    partials,
    remove_partial,
    require_nobody_writes,
    seconds_since_begin,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets import (
    check_files,
    new_id,
    parse_id,
    publish,
    read_sets,
    require_space,
    set_ids,
    utc_text,
)


def begin(context: Context, path: Path) -> dict[str, Any]:
    """Make the folder of a new set."""
    if not context.check_mode:
        with os_errors(f"create {path}"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        with locked(path):
            return _begin(context, path)
    return _begin(context, path)


def _begin(context: Context, path: Path) -> dict[str, Any]:
    params = context.params
    interrupted = require_nobody_writes(path, params["stale_after"])
    now = datetime.now(UTC)
    taken = set_ids(path)
    set_id = params["id"] or new_id(taken, now)
    if set_id in taken:
        raise StateError(f"Backup set {set_id} exists already in {path}.", fix="Leave out id, or use another.")
    if taken and not params["id"] and taken[0] > set_id:
        context.warn(f"The newest backup set {taken[0]} is dated after this host's clock ({set_id}): check the clock.")
    before = _layout(path)
    if not context.check_mode:
        for partial in interrupted:
            remove_partial(partial)
    good, _damaged = read_sets(path, params["stack"])
    free = require_space(path, good[0].total_bytes if good else 0, params["min_free_bytes"])
    folder = partial_path(path, set_id)
    if not context.check_mode:
        create_partial(path, set_id)
    return {
        "changed": True,
        "id": set_id,
        "path": str(folder),
        "removed": [str(partial.path) for partial in interrupted],
        "free_bytes": free,
        "diff": {"before": before, "after": {"sets": before["sets"], "partial": [folder.name]}},
    }


def commit(context: Context, path: Path) -> dict[str, Any]:
    """Check what was written, write the manifest, give the set its name."""
    params = context.params
    set_id = params["id"]
    final, folder = path / set_id, partial_path(path, set_id)
    if context.check_mode and not folder.is_dir() and not final.is_dir():
        return {"changed": True, "id": set_id, "path": str(final), "bytes": 0, "manifest": None}
    components = tuple(Component.from_dict(component) for component in params["components"])
    with locked(path):
        if final.is_dir() and not folder.is_dir():
            return _already(path / set_id, params["stack"], components)
        before = _layout(path)
        partial = find_partial(path, set_id)
        check_files(folder, components)
        manifest = _manifest(context, partial, components)
        if not context.check_mode:
            publish(path, folder, manifest)
        after = {
            "sets": sorted({*before["sets"], set_id}, reverse=True),
            "partial": [name for name in before["partial"] if name != folder.name],
        }
    return {
        "changed": True,
        "id": set_id,
        "path": str(final),
        "bytes": manifest.total_bytes,
        "manifest": manifest.to_dict(),
        "diff": {"before": before, "after": after},
    }


def _manifest(context: Context, partial: Partial, components: tuple[Component, ...]) -> Manifest:
    params = context.params
    reported = {component.name: component.facts.get("schema_version") for component in components}
    return Manifest(
        id=params["id"],
        stack=params["stack"],
        created_at=partial.owner.begun_at if partial.owner else utc_text(parse_id(params["id"])),
        seconds=seconds_since_begin(partial),
        release=params["release"],
        hosts=tuple(params["hosts"] or [platform.node()]),
        schema_versions={
            **{name: version for name, version in reported.items() if version is not None},
            **params["schema_versions"],
        },
        components=components,
    )


def _already(folder: Path, stack: str, components: tuple[Component, ...]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest.components != components or manifest.stack != stack:
        raise StateError(
            f"Backup set {folder.name} is committed already, with other components.", fix="Begin a new set."
        )
    return {
        "changed": False,
        "id": manifest.id,
        "path": str(folder),
        "bytes": manifest.total_bytes,
        "manifest": manifest.to_dict(),
    }


def abort(context: Context, path: Path) -> dict[str, Any]:
    """Remove an uncommitted set."""
    set_id = context.params["id"]
    folder = partial_path(path, set_id)
    result = {"changed": False, "id": set_id, "path": str(folder), "removed": []}
    if not folder.is_dir():
        return result
    with locked(path):
        before = _layout(path)
        if not context.check_mode:
            remove_partial(find_partial(path, set_id))
    after = {"sets": before["sets"], "partial": [name for name in before["partial"] if name != folder.name]}
    return {**result, "changed": True, "removed": [str(folder)], "diff": {"before": before, "after": after}}


def list_sets(context: Context, path: Path) -> dict[str, Any]:
    """Tell which sets exist."""
    good, damaged = read_sets(path, context.params["stack"])
    return {
        "changed": False,
        "sets": [
            {
                "id": manifest.id,
                "path": str(path / manifest.id),
                "created_at": manifest.created_at,
                "seconds": manifest.seconds,
                "bytes": manifest.total_bytes,
                "release": manifest.release,
                "components": [component.name for component in manifest.components],
            }
            for manifest in good
        ],
        "newest": {**good[0].to_dict(), "path": str(path / good[0].id)} if good else None,
        "latest": good[0].id if good else None,
        "count": len(good),
        "bytes": sum(manifest.total_bytes for manifest in good),
        "damaged": damaged,
    }


def _layout(path: Path) -> dict[str, list[str]]:
    return {"sets": set_ids(path), "partial": [partial.path.name for partial in partials(path)]}


_ACTIONS = {"begin": begin, "commit": commit, "abort": abort, "list": list_sets}


def execute(context: Context) -> dict[str, Any]:
    """Do what the option action says."""
    if context.params["id"] is not None:
        parse_id(context.params["id"])
    check_name(context.params["stack"], "The stack's name")
    return _ACTIONS[context.params["action"]](context, Path(context.params["path"]))


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        argument_spec={
            "action": {"type": "str", "required": True, "choices": list(_ACTIONS)},
            "path": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "id": {"type": "str"},
            "components": {"type": "list", "elements": "dict"},
            "release": {"type": "str"},
            "hosts": {"type": "list", "elements": "str"},
            "schema_versions": {"type": "dict", "default": {}},
            "min_free_bytes": {"type": "int", "default": 0},
            "stale_after": {"type": "int", "default": 21600},
        },
        required_if=[("action", "commit", ("id", "components")), ("action", "abort", ("id",))],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
