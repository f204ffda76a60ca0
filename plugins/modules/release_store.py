#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Record, list, find and prune the releases of a stack on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_store
short_description: Record, list, find and prune the releases of a stack on a host
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - A release is a folder C(releases/<id>) with its source, a folder C(shared/<id>) with its settings and its record
    C(release.json), and the images C(<project>/<service>:<id>) of the services that are built.
  - The record has every deploy of the release, numbered through all releases of the stack. That number is what is older
    or newer, and no clock. A release that is deployed again counts by its newest good deploy.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the release's summary for O(action=record), and the ids of all releases for O(action=prune).
  idempotent:
    support: full
    details:
      - With O(action=record), two entries with the same O(deploy) are one. Without O(deploy), each is a new one.
options:
  action:
    description:
      - V(list) tells which releases there are.
      - V(record) adds a deploy to a release's record. Record also deploys that failed, when their migrations had run.
      - V(resolve) finds the release to go back to, and refuses one that is incomplete, and one from before a migration
        that lost something.
      - V(prune) removes old releases with their settings and images, and what interrupted deploys left.
    type: str
    required: true
    choices: [list, record, resolve, prune]
  path:
    description:
      - The folder of the stack on the managed host, such as C(/srv/verisphere).
    type: path
    required: true
  project:
    description:
      - The name of the compose project.
    type: str
    required: true
  runtime:
    description:
      - What releases run as. With V(systemd) they have no images, no containers and no compose override, and Docker is
        not asked.
    type: str
    choices: [compose, systemd]
    default: compose
  release:
    description:
      - For O(action=record), the release's id.
    type: str
  result:
    description:
      - For O(action=record), how the deploy ended. V(rolled_back) says that a release served and was left for an older
        one; V(previous) as O(to) does not choose it again until it is deployed again.
    type: str
    choices: [ok, failed, rolled_back]
  deploy:
    description:
      - For O(action=record), the id of the deploy. The default is the C(id) of the run that holds C(deploy.lock).
    type: str
  by:
    description:
      - For O(action=record), who deployed. The default is the user that holds C(deploy.lock).
    type: str
  controller:
    description:
      - For O(action=record), the machine that deployed. The default is that of the holder of C(deploy.lock).
    type: str
  schema_versions:
    description:
      - For O(action=record), the schema version of each database after the deploy.
    type: dict
    default: {}
  migrations:
    description:
      - For O(action=record), the migrations that the deploy applied.
    type: list
    elements: dict
    default: []
    suboptions:
      database:
        description:
          - The database.
        type: str
        required: true
      version:
        description:
          - The migration's version.
        type: str
        required: true
      name:
        description:
          - The migration's name.
        type: str
        default: ""
      lossy:
        description:
          - The rules by which it loses data or structure; empty when it loses nothing.
        type: list
        elements: str
        default: []
  checkpoint:
    description:
      - For O(action=record), the id of the backup set that was made before the migrations.
    type: str
    default: ""
  to:
    description:
      - For O(action=resolve), V(previous), the id of a release, or the beginning of one.
      - V(previous) is the newest good release that was deployed before the current one. When a rollback to the current
        one was cut off, it is the current one.
    type: str
    default: previous
  force:
    description:
      - For O(action=resolve), go back across migrations that lost something, and to a release that never served.
    type: bool
    default: false
  keep:
    description:
      - For O(action=prune), how many of the newest releases that served to keep, at least 1.
      - The current and the previous release stay in any case, and so does one that a container uses, running or not.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Record a deploy
  groundwork.backend.release_store:
    action: record
    path: /srv/verisphere
    project: verisphere
    release: 3f9c0d1e2a4b
    result: ok
    schema_versions: {verisphere: "20261104"}
    migrations:
      - {database: verisphere, version: "20261104", name: drop_legacy_scores, lossy: [ban-drop-column]}

- name: Find the release to go back to
  groundwork.backend.release_store:
    action: resolve
    path: /srv/verisphere
    project: verisphere
    to: previous
  register: target

- name: Say which one it is
  ansible.builtin.debug:
    msg: "Back to {{ target.release }}"

- name: Remove old releases
  groundwork.backend.release_store:
    action: prune
    path: /srv/verisphere
    project: verisphere
    keep: 3
"""

RETURN = r"""
releases:
  description:
    - The releases, newest deploy first. Each has C(id), C(current), C(complete), C(missing), which is a list, and
      C(deployed_at), C(by), C(controller), C(result), C(schema_versions), C(migrations), C(checkpoint), C(images), and
      C(number), the place in the order of deploys. What was never recorded is V(null).
  returned: when action is list
  type: list
  elements: dict
current:
  description: Id of the current release; empty when there is none.
  returned: when action is list or resolve or prune
  type: str
previous:
  description: Id of the release that V(previous) means; empty when there is none.
  returned: when action is list
  type: str
release:
  description: Id of the release that was recorded or found.
  returned: when action is record or resolve
  type: str
record:
  description: The release's summary, with the keys of RV(releases) up to C(images).
  returned: when action is record or resolve
  type: dict
unfinished:
  description: Whether the release is the current one by a rollback that was cut off.
  returned: when action is resolve
  type: bool
lost:
  description:
    - The migrations on the way back that lost something, each with C(release), C(database), C(version), C(name) and
      C(rules). Also returned when the task fails because of them.
  returned: when action is resolve
  type: list
  elements: dict
removed:
  description: Ids of the releases that were removed.
  returned: when action is prune
  type: list
  elements: str
removed_images:
  description: Names of the images that were removed. An image goes with its last name.
  returned: when action is prune
  type: list
  elements: str
removed_leftovers:
  description: Folders that interrupted deploys had left.
  returned: when action is prune
  type: list
  elements: str
kept:
  description: Why each of the other releases stays, by id.
  returned: when action is prune
  type: dict
"""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._lock_record import read as read_lock
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._releases import (
    COMPOSE,
    GOING_BACK,
    SETTINGS,
    Deploy,
    Release,
    check_id,
    linked,
    read_releases,
    record,
    with_entry,
)
from ansible_collections.groundwork.backend.plugins.module_utils._releases_back import (
    choose,
    lost_since,
    missing,
    previous,
    require_safe,
)
from ansible_collections.groundwork.backend.plugins.module_utils._releases_engine import (
    Image,
    containers,
    project_images,
    users,
)
from ansible_collections.groundwork.backend.plugins.module_utils._releases_prune import carry_out, leftovers, plan


def list_releases(context: Context, path: Path) -> dict[str, Any]:
    """Tell which releases there are."""
    current = linked(path, "current")
    found = [one for one in read_releases(path, context.params["runtime"]) if not one.pruned]
    images = {image.name for image in _images(context)} if found else set()
    told = [
        {
            **one.summary(),
            "current": one.id == current,
            "complete": not (absent := missing(one, images) + ([one.damaged] if one.damaged else [])),
            "missing": absent,
        }
        for one in found
    ]
    before = previous(found, current)
    return {"changed": False, "releases": told, "current": current, "previous": before.id if before else ""}


def record_deploy(context: Context, path: Path) -> dict[str, Any]:
    """Add a deploy to a release's record."""
    params = context.params
    release_id = check_id(params["release"])
    holder = None
    with suppress(StateError):  # the lock only helps to say who deploys
        holder = read_lock(path / "deploy.lock")
    images = [image.name for image in _images(context) if image.tag == release_id]
    entry = Deploy(
        number=0,
        deploy=_first(params["deploy"], holder.id if holder else None),
        deployed_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        by=_first(params["by"], holder.user if holder else None),
        controller=_first(params["controller"], holder.controller if holder else None),
        result=params["result"],
        schema_versions=params["schema_versions"],
        migrations=params["migrations"],
        checkpoint=params["checkpoint"],
        images=sorted(images),
    )
    known = read_releases(path, context.params["runtime"])
    before = next((one for one in known if one.id == release_id), Release(release_id))
    if before.damaged:
        context.warn(f"{before.damaged}. It is begun anew.")
    if context.check_mode:
        after = with_entry(before, entry, max((one.number for one in known), default=0) + 1)
        changed = after != before
    else:
        after, changed = record(path, release_id, entry, params["runtime"])
    return {
        "changed": changed,
        "release": release_id,
        "record": after.summary(),
        "diff": {"before": before.summary(), "after": after.summary()},
    }


def resolve(context: Context, path: Path) -> dict[str, Any]:
    """Find the release to go back to."""
    params = context.params
    current = linked(path, "current")
    found = read_releases(path, context.params["runtime"])
    begun = current if current and (path / "shared" / current / GOING_BACK).exists() else ""
    target = choose(found, current, params["to"], begun)
    if target.damaged:
        raise StateError(f"{target.damaged}.", fix="Name another release.")
    if absent := missing(target, [image.name for image in _images(context)]):
        raise StateError(
            f"Release {target.id} is incomplete: {', '.join(absent)} is missing.",
            fix="Name another release, or deploy that version again.",
            missing=absent,
        )
    lost = lost_since(found, target)
    if not params["force"]:
        require_safe(target, found, lost)
    return {
        "changed": False,
        "release": target.id,
        "current": current,
        "unfinished": target.id == begun,
        "record": target.summary(),
        "lost": lost,
    }


def prune(context: Context, path: Path) -> dict[str, Any]:
    """Remove old releases."""
    params = context.params
    if params["keep"] < 1:
        raise InputError(f"keep is {params['keep']}.", fix="Give how many releases to keep, at least 1.")
    found = read_releases(path, context.params["runtime"])
    images = _images(context)
    seen = containers() if params["runtime"] == COMPOSE else []
    planned = plan(
        found,
        keep=params["keep"],
        links={name: linked(path, name) for name in ("current", "project")},
        used={one.id: users(one.id, params["project"], path, images, seen) for one in found},
        images=images,
        leftovers=leftovers(path),
    )
    stayed = {} if context.check_mode or not planned else carry_out(path, planned)
    for release, reason in stayed.items():
        context.warn(f"Release {release} was not removed, Docker keeps an image of it: {reason}")
    removed = [release for release in planned.releases if release not in stayed]
    before = [one.id for one in found if not one.pruned]
    return {
        "changed": bool(removed or planned.records or planned.leftovers),
        "current": linked(path, "current"),
        "removed": removed,
        "removed_images": [image.name for image in planned.images if image.tag in removed],
        "removed_leftovers": [str(folder) for folder in planned.leftovers],
        "kept": {**planned.kept, **stayed},
        "diff": {"before": {"releases": before}, "after": {"releases": [one for one in before if one not in removed]}},
    }


def _images(context: Context) -> list[Image]:
    """The images of the stack's releases; units have none, and may be on a host without Docker."""
    return project_images(context.params["project"]) if context.params["runtime"] == COMPOSE else []


def _first(*values: str | None) -> str:
    return next((value for value in values if value), "")


_ACTIONS = {"list": list_releases, "record": record_deploy, "resolve": resolve, "prune": prune}


def execute(context: Context) -> dict[str, Any]:
    """Do what the option action says."""
    return _ACTIONS[context.params["action"]](context, Path(context.params["path"]))


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        argument_spec={
            "action": {"type": "str", "required": True, "choices": list(_ACTIONS)},
            "path": {"type": "path", "required": True},
            "project": {"type": "str", "required": True},
            "runtime": {"type": "str", "choices": list(SETTINGS), "default": COMPOSE},
            "release": {"type": "str"},
            "result": {"type": "str", "choices": ["ok", "failed", "rolled_back"]},
            "deploy": {"type": "str"},
            "by": {"type": "str"},
            "controller": {"type": "str"},
            "schema_versions": {"type": "dict", "default": {}},
            "migrations": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "database": {"type": "str", "required": True},
                    "version": {"type": "str", "required": True},
                    "name": {"type": "str", "default": ""},
                    "lossy": {"type": "list", "elements": "str", "default": []},
                },
            },
            "checkpoint": {"type": "str", "default": ""},
            "to": {"type": "str", "default": "previous"},
            "force": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 5},
        },
        required_if=[("action", "record", ("release", "result"))],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
