#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Create, change and remove one user of a MongoDB server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mongo_user
short_description: Create, change and remove a user of a MongoDB server
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - A user has a name, the database in which it was created (its C(authSource)), a password and roles.
  - A password is changed in place. Connections that are open stay open, and new ones need the new password.
  - A user that was created, or whose password was set, is logged in with once, so that it is known to get in.
extends_documentation_fragment:
  - groundwork.backend._mongo
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Whether there are roles of these names is only known when they are granted.
  diff_mode:
    support: full
    details:
      - The diff has the roles, and whether the password is the one asked for; never a password.
  idempotent:
    support: full
    details:
      - The server does not tell passwords. A login with O(password) shows whether it is the user's, and one that is
        refused is a line in the server's log.
options:
  name:
    description: Name of the user.
    type: str
    required: true
  database:
    description: Database of the user, in which programs have to look for it (C(authSource)).
    type: str
    required: true
  password:
    description:
      - Password of the user. It is never printed.
      - Without it, a user that is there keeps the one it has; a new user needs one.
    type: str
  roles:
    description:
      - All roles of the user; others are revoked. Each is a name such as V(dbOwner), which is a role on O(database), or
        a dictionary with C(role) and C(db).
      - Without it, a user that is there keeps the ones it has.
    type: list
    elements: raw
  state:
    description: Whether there is such a user.
    type: str
    choices: [present, absent]
    default: present
notes:
  - O(login_user) needs the role C(userAdmin) on O(database), which C(dbOwner) and C(root) hold.
seealso:
  - module: groundwork.backend.mongo_server
"""

EXAMPLES = r"""
- name: Have the application's user own its database
  groundwork.backend.mongo_user:
    login_user: root
    login_password: "{{ mongodb_root_password }}"
    name: appuser
    database: innova_db
    password: "{{ mongo_password }}"
    roles: [dbOwner]
  register: appuser

- name: Tell what was done
  ansible.builtin.debug:
    msg: "{{ appuser.actions }}"

- name: Let a report read two databases
  groundwork.backend.mongo_user:
    login_user: root
    login_password: "{{ mongodb_root_password }}"
    name: report
    database: admin
    password: "{{ report_password }}"
    roles:
      - {role: read, db: innova_db}
      - {role: read, db: orders}
"""

RETURN = r"""
user:
  description: The user, as C(name@database).
  returned: success
  type: str
exists:
  description: Whether there was such a user before.
  returned: success
  type: bool
actions:
  description: What was done, or would be, as short phrases.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import connect, mongo_options
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_user import (
    Account,
    Found,
    apply,
    check_account,
    drop,
    has_password,
    look,
    plan,
    text,
)


def execute(context: Context) -> dict[str, Any]:
    """Connect, compare, and do what is left."""
    params = context.params
    wanted = check_account(params["name"], params["database"], params["password"], params["roles"])
    absent = params["state"] == "absent"
    if absent and (wanted.name, wanted.database) == (params["login_user"], params["auth_source"] or "admin"):
        raise InputError(f"{wanted} would remove itself.", fix="Log in as another user to remove it.")
    server = context.cleanup.enter_context(connect(params, "groundwork mongo_user"))
    found = look(server, params, wanted)
    if absent:
        actions = [f"remove {wanted}"] if found else []
    elif found is None and wanted.password is None:
        raise InputError(f"There is no user {wanted}, and a new one needs a password.", fix="Give one.")
    else:
        actions = plan(found, wanted)
    if actions and not context.check_mode:
        if absent:
            drop(server, wanted)
        else:
            apply(server, found, wanted)
            if wanted.password is not None and not has_password(params, wanted):
                raise StateError(
                    f"The server took the password of {wanted} and does not let it in with it.",
                    fix="Look for authenticationRestrictions of the user, and into the server's log.",
                )
    return {
        "changed": bool(actions),
        "user": str(wanted),
        "exists": found is not None,
        "actions": actions,
        "diff": {"before": _state(found), "after": "absent\n" if absent else _state(_after(found, wanted))},
    }


def _after(found: Found | None, wanted: Account) -> Found:
    kept = found.roles if found else frozenset()
    return Found(kept if wanted.roles is None else wanted.roles)


def _state(found: Found | None) -> str:
    if found is None:
        return "absent\n"
    password = "as asked for" if found.known_password else "another one"
    return "".join([*(f"role: {text(role)}\n" for role in sorted(found.roles)), f"password: {password}\n"])


def main() -> None:
    """Run the module."""
    run_module(
        execute,
        **mongo_options(
            {
                "name": {"type": "str", "required": True},
                "database": {"type": "str", "required": True},
                "password": {"type": "str", "no_log": True},
                "roles": {"type": "list", "elements": "raw"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            }
        ),
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
