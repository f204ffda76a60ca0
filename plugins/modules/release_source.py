# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find the source of a release on the controller, check it against the inventory, and derive the release's id."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_source
short_description: Find an application's source, check it against the inventory, and derive the release id
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Runs on the controller (delegate it to localhost), so that mistakes are found before anything is changed on a host.
  - Takes a folder, or a branch, tag or commit of a git repository, and lists the files that belong to the release.
  - Compares the compose files in it with the settings - files and services that do not exist, ports that are not
    published, variables that are used and not set. It reads the files only; the host's own C(docker compose config), in
    M(groundwork.backend.compose_override), has the last word.
  - Derives the release's id from the files and the digest of the settings.
extends_documentation_fragment:
  - groundwork.backend._compose_settings
attributes:
  check_mode:
    support: full
    description: Changes nothing on any managed host in either mode; keeps a cache on the controller.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The same source and settings give the same id.
options:
  path:
    description: The top folder of the source on the controller, as an absolute path.
    type: path
  git:
    description:
      - The address of a git repository. What its C(.gitattributes) mark as C(export-ignore) does not belong to the
        release.
      - Files of Git LFS are not fetched; a release that has their pointers instead is refused.
    type: str
  version:
    description: Branch, tag or commit of O(git).
    type: str
    default: HEAD
  deploy_key:
    description:
      - The text of a private SSH key without a passphrase, for O(git) and its submodules. It belongs to a vaulted file.
      - It is in a file of a private folder while git runs. A server that C(known_hosts) does not know is added there;
        one whose key changed is refused. The environment variable E(GIT_SSH_COMMAND) is kept, with the key behind it.
      - Hosts of repositories often take a deploy key for one repository only. With private submodules, give the key of
        an account that may read them all.
    type: str
  submodules:
    description:
      - Whether the files of submodules belong to the release, at their recorded commits, recursively. Those that are
        marked C(export-ignore), or C(update = none) in C(.gitmodules), do not.
      - As with git itself, a submodule's address may be a folder of the controller only where git's setting
        C(protocol.file.allow) is C(always).
    type: bool
    default: true
  exclude:
    description:
      - Patterns of files and folders that do not belong to the release. Without a slash they match a name at any depth,
        with one they match the path below the top folder.
    type: list
    elements: str
    default: []
  compose_files:
    description:
      - The compose files, as paths below the top folder, in the order in which Compose layers them. A source that runs
        without Compose has none.
    type: list
    elements: str
    required: true
  env_names:
    description: Names of the variables that the C(.env) file will hold.
    type: list
    elements: str
    default: []
  required_paths:
    description:
      - Folders that the inventory names, as paths below the top folder, each under the name of the variable that names
        it, such as the folder of the migrations.
    type: dict
    default: {}
  required_files:
    description:
      - Files that the inventory names, in the same way, such as the requirements of Python.
    type: dict
    default: {}
  settings_digest:
    description: A digest of all settings that make a new release when they change.
    type: str
    default: ""
  expected_release:
    description: Fail when the release is not this one, because the source or the settings changed since it was checked.
    type: str
  cache:
    description: A folder on the controller for git mirrors and file lists.
    type: path
    default: ~/.cache/groundwork
"""

EXAMPLES = r"""
- name: Find the source
  groundwork.backend.release_source:
    path: "{{ inventory_dir }}/../../examples/verisphere"
    compose_files: [ops/compose/docker-compose.yml]
    env_names: "{{ app_env.keys() | list }}"
    web_services: {semantic-dedupe: 8081}
  delegate_to: localhost
  become: false
  register: source

- name: Find the source in a private repository
  groundwork.backend.release_source:
    git: git@git.example.org:team/app.git
    version: v1.4.0
    deploy_key: "{{ vault_deploy_key }}"
    compose_files: [docker-compose.yml]
  delegate_to: localhost
  become: false
  register: source

- name: Show the id
  ansible.builtin.debug:
    msg: "{{ source.release }} has {{ source.files }} files"
"""

RETURN = r"""
release:
  description: The release's id, twelve hex digits.
  type: str
  returned: success
  sample: 3f9c0d1e2a4b
root:
  description: The folder on the controller that holds the source.
  type: str
  returned: success
file_list:
  description: A file on the controller that lists the release's files, separated by NUL, for rsync's C(--files-from).
  type: str
  returned: success
files:
  description: The number of files.
  type: int
  returned: success
commit:
  description: The commit, when the source is a git repository.
  type: str
  returned: when O(git) is given
"""

import shutil
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    require_fit,
    settings_from,
    settings_options,
)
from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import read_compose_files
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._git import fetch_git
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._release import (
    list_files,
    refuse_lfs_pointers,
    release_id,
    write_file_list,
)


def execute(context: Context) -> dict[str, Any]:
    """Find, check, identify."""
    params = context.params
    if shutil.which("rsync") is None:
        raise DependencyError(
            "The program rsync is needed on the controller to copy the source to the hosts.", fix="Install rsync there."
        )
    result: dict[str, Any] = {"changed": False}
    cache = Path(params["cache"])
    if params["git"]:
        root, result["commit"] = fetch_git(
            cache,
            params["git"],
            params["version"],
            deploy_key=params["deploy_key"] or "",
            submodules=params["submodules"],
        )
    else:
        root = Path(params["path"])
        if not root.is_absolute():
            raise InputError(
                f"app_source.path is {root}, which depends on the folder that Ansible runs in.",
                fix="Give a whole path, such as {{ inventory_dir }}/../../myapp.",
            )
        root = root.resolve()
    files = list_files(root, params["exclude"])
    refuse_lfs_pointers(root, files)
    for variable, path in params["required_paths"].items():
        if not (root / path).is_dir():
            raise InputError(
                f"{variable} is {path}, and there is no such folder in the source {root}.",
                fix="Give the path below the source's top folder.",
            )
    for variable, name in params["required_files"].items():
        if name not in files:
            raise InputError(
                f"{variable} is {name}, and there is no such file in the source {root}.",
                fix="Give the path below the source's top folder, and see that app_source_exclude does not match it.",
            )
    model, needed = read_compose_files(root, params["compose_files"])
    require_fit(model, settings_from(params))
    if missing := sorted(needed - set(params["env_names"])):
        raise InputError(
            f"The compose files use {', '.join(missing)} without a default, and app_env does not set "
            f"{'it' if len(missing) == 1 else 'them'}.",
            fix="Add to app_env what is missing; secrets belong to a vaulted file beside it.",
        )
    release = release_id(root, files, params["settings_digest"])
    expected = params["expected_release"]
    if expected not in (None, release):
        raise StateError(
            f"The source or the settings changed since release {expected} was checked: now it is {release}.",
            fix="Run the playbook again.",
        )
    return result | {
        "release": release,
        "root": str(root),
        "file_list": str(write_file_list(cache, release, files)),
        "files": len(files),
    }


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        argument_spec={
            "path": {"type": "path"},
            "git": {"type": "str"},
            "version": {"type": "str", "default": "HEAD"},
            "deploy_key": {"type": "str", "no_log": True},
            "submodules": {"type": "bool", "default": True},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "compose_files": {"type": "list", "elements": "str", "required": True},
            "env_names": {"type": "list", "elements": "str", "default": []},
            "required_paths": {"type": "dict", "default": {}},
            "required_files": {"type": "dict", "default": {}},
            "settings_digest": {"type": "str", "default": ""},
            "expected_release": {"type": "str"},
            "cache": {"type": "path", "default": "~/.cache/groundwork"},
            **settings_options()["argument_spec"],
        },
        mutually_exclusive=[("path", "git")],
        required_one_of=[("path", "git")],
        required_by={"deploy_key": ["git"]},
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
