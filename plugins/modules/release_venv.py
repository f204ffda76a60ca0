# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Give a release a virtual environment with its requirements, made once for each content of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_venv
short_description: Give a release a Python environment with its requirements
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Makes C(venvs/<digest>) in the folder of a stack, and C(releases/<id>/.venv) a link to it. The digest is that of
    the requirements, with the files that they include, and of the interpreter, so that a release with unchanged
    requirements costs nothing, and an environment never changes.
  - Where requirements take something from the release itself (C(-e .), C(./folder)), the environment is the release's
    alone.
  - When any line has C(--hash), all must have one that fits (C(--require-hashes)).
  - What cannot be installed leaves nothing, and no other release is touched.
attributes:
  check_mode:
    support: full
    description: Says whether an environment would be made or removed. Requirements that are not there yet are not read.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: An environment that is complete is left alone, also when versions are not pinned.
options:
  path:
    description: The folder of the stack.
    type: path
    required: true
  state:
    description:
      - V(present) gives O(release) its environment.
      - V(pruned) removes environments that no release has.
    type: str
    choices: [present, pruned]
    default: present
  release:
    description: The release's id. Needed for V(present).
    type: str
  requirements:
    description: The file with the requirements, as a path below the release's top. Needed for V(present).
    type: str
  installer:
    description: What installs.
    type: str
    choices: [pip, uv]
    default: pip
  uv:
    description:
      - The program uv, for O(installer=uv). It trusts the certificates that the host trusts (E(UV_SYSTEM_CERTS)).
    type: str
    default: uv
  interpreter:
    description: The Python of the host that the environment is for.
    type: str
    default: python3
  env:
    description: Variables for the installer, such as E(PIP_INDEX_URL).
    type: dict
    default: {}
  user:
    description:
      - The user who installs, as programs in packages run then. Afterwards everything belongs to root. The default is
        the user who runs the module.
    type: str
    default: ""
  group:
    description:
      - The group with which O(user) installs; it has to be one that may read releases. The default is the user's.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Give the release its environment
  groundwork.backend.release_venv:
    path: /srv/innovaplus
    release: 3f9c0d1e2a4b
    requirements: backend/requirements.txt
    user: innova
  register: venv

- name: Tell whether it had to be made
  ansible.builtin.debug:
    msg: "{{ venv.venv }} was {{ 'made' if venv.made else 'there already' }}"

- name: Remove those that no release has any more
  groundwork.backend.release_venv:
    path: /srv/innovaplus
    state: pruned
"""

RETURN = r"""
venv:
  description: The folder of the environment.
  type: str
  returned: when state is present
made:
  description: Whether it was made, or would be.
  type: bool
  returned: when state is present
removed:
  description: The environments that were, or would be, removed.
  type: list
  elements: str
  returned: when state is pruned
cmd:
  description: The command that failed.
  type: list
  elements: str
  returned: when requirements could not be installed
rc:
  description: Its exit status.
  type: int
  returned: when requirements could not be installed
stderr:
  description: The last 200 lines of what it printed.
  type: str
  returned: when requirements could not be installed
"""

import os
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _venv
from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import to_text
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._releases import check_id


def execute(context: Context) -> dict[str, Any]:
    """Bring the environments into the state."""
    params = context.params
    path = Path(params["path"])
    os.umask(0o022)  # what is installed is for the users of the units, too
    if params["state"] == "pruned":
        removed = _venv.unused(path)
        for name in removed if not context.check_mode else ():
            _venv.remove(path, name)
        return {"changed": bool(removed), "removed": removed}
    wanted = _venv.Wanted(
        path=path,
        release=path / "releases" / check_id(params["release"]),
        requirements=params["requirements"],
        installer=params["installer"],
        interpreter=params["interpreter"],
        uv=params["uv"],
        env={name: to_text(value) for name, value in params["env"].items()},
        user=params["user"],
        group=params["group"],
    )
    if context.check_mode and not wanted.release.exists():
        return {"changed": True, "made": True, "venv": ""}
    found = wanted.read()
    name = wanted.digest(found)
    made = not _venv.complete(path, name)
    changed = made or _venv.linked(wanted.release) != name
    if not context.check_mode:
        if made:
            _venv.make(wanted, found, name)
        if changed:
            _venv.link(wanted.release, name)
    return {"changed": changed, "made": made, "venv": str(path / "venvs" / name)}


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        unmasked=["env"],  # its "1" and "true" would be masked in every path; _venv masks what the installer prints
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
            "release": {"type": "str"},
            "requirements": {"type": "str"},
            "installer": {"type": "str", "choices": ["pip", "uv"], "default": "pip"},
            "uv": {"type": "str", "default": "uv"},
            "interpreter": {"type": "str", "default": "python3"},
            "env": {"type": "dict", "default": {}, "no_log": True},
            "user": {"type": "str", "default": ""},
            "group": {"type": "str", "default": ""},
        },
        required_if=[("state", "present", ["release", "requirements"])],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
