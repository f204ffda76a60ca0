#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring one MongoDB server into service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mongo_server
short_description: Make a MongoDB server a replica set of one, change its administrator's password, read versions
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Without options, it tells the version of a server and that of its data, and changes nothing.
extends_documentation_fragment:
  - groundwork.backend._mongo
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The diff has the replica set and the version of the data. That a password changes is in RV(actions).
  idempotent:
    support: full
options:
  login_password_before:
    description:
      - The password that O(login_user) had before. When the server refuses O(login_password) and takes this one,
        O(login_user) gets O(login_password). Connections that are open stay open.
    type: str
  replica_set:
    description:
      - Name of the replica set that the server was started for (C(--replSet)), of which it becomes the only member.
        A server that is in one of this name already stays as it is, and its other members, too.
    type: str
  member:
    description:
      - Host and port under which the server, and programs that use it, reach it. It is what the replica set tells
        programs that ask for its members.
      - The default is O(login_host) and O(login_port).
    type: str
  feature_compatibility_version:
    description:
      - The version that the data shall be of, such as V(8.0). The server can then use what came with that release, and
        no older one takes the data any more.
    type: str
  timeout:
    description: Seconds until the server has to be the primary of O(replica_set).
    type: float
    default: 60
notes:
  - O(login_user) needs the role C(root).
seealso:
  - module: groundwork.backend.mongo_user
"""

EXAMPLES = r"""
- name: Read versions
  groundwork.backend.mongo_server:
    login_user: root
    login_password: "{{ mongodb_root_password }}"
  register: mongodb

- name: Tell them
  ansible.builtin.debug:
    msg: "MongoDB {{ mongodb.version }} with data of {{ mongodb.feature_compatibility_version }}"

- name: Make it a replica set of one member, for dumps of one moment
  groundwork.backend.mongo_server:
    login_user: root
    login_password: "{{ mongodb_root_password }}"
    replica_set: rs0

- name: Change the password of root
  groundwork.backend.mongo_server:
    login_user: root
    login_password: "{{ new_password }}"
    login_password_before: "{{ old_password }}"
"""

RETURN = r"""
version:
  description: Version of the server.
  returned: success
  type: str
feature_compatibility_version:
  description: Version of its data, before this run.
  returned: success
  type: str
replica_set:
  description: Name of its replica set before this run; V(null) when it was in none.
  returned: success
  type: str
actions:
  description: What was done, or would be, as short phrases.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import connect, mongo_options
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_server import Setup, has_password_before

_NAME = "groundwork mongo_server"


def execute(context: Context) -> dict[str, Any]:
    """Log in with the one password or the other, and do what is left."""
    params = context.params
    if params["login_password_before"] and not params["login_user"]:
        raise InputError("login_password_before needs login_user and login_password.", fix="Give them.")
    before = has_password_before(params, _NAME)
    login = {**params, "login_password": params["login_password_before"]} if before else params
    server = context.cleanup.enter_context(connect(login, _NAME))
    setup = Setup(server, read_only=context.check_mode)
    if name := params["replica_set"]:
        setup.replica_set(name, params["member"] or _own_address(params), params["timeout"])
    if before:
        setup.password(params["login_user"], params["auth_source"] or "admin", params["login_password"])
    found = setup.compatibility()
    if wanted := params["feature_compatibility_version"]:
        setup.set_compatibility(wanted)
    old = {"replica_set": server.hello.get("setName"), "feature_compatibility_version": found}
    new = {"replica_set": name or old["replica_set"], "feature_compatibility_version": wanted or found}
    return {
        "changed": bool(setup.actions),
        "version": server.version,
        **old,
        "actions": setup.actions,
        "diff": {"before": old, "after": new},
    }


def _own_address(params: dict[str, Any]) -> str:
    if params["login_uri"]:
        raise InputError("replica_set needs member beside login_uri.", fix="Give host and port of the server.")
    return f"{params['login_host'] or '127.0.0.1'}:{params['login_port'] or 27017}"


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        **mongo_options(
            {
                "login_password_before": {"type": "str", "no_log": True},
                "replica_set": {"type": "str"},
                "member": {"type": "str"},
                "feature_compatibility_version": {"type": "str"},
                "timeout": {"type": "float", "default": 60},
            }
        ),
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
