#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open and close the logins of one PostgreSQL role."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_login
short_description: Open and close the logins of a PostgreSQL role, so that its password changes without a gap
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - PostgreSQL keeps one password for a role. When it changes, every program that still has the old one can open no
    connection any more. So a role gets a second login, and the two take turns. The next one is opened with a new
    password, the programs move to it, and the one before is closed.
  - The second login is a member of the role, and its sessions act as the role from their first statement on
    (C(ALTER ROLE … SET role)). Rights and objects stay with the role, whichever login a program uses. The role's
    settings, such as C(search_path), and its connection limit hold for the second login too.
  - A new password is turned into the SCRAM verifier that the server stores on the managed host, so that it reaches
    neither the server's log nor its statistics.
extends_documentation_fragment:
  - groundwork.backend._postgres
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - A new login cannot be tried before it is there.
  diff_mode:
    support: full
    details:
      - The diff says whether a login is there, is open and has this password, and never shows one.
  idempotent:
    support: full
    details:
      - Whether the password is the stored one is computed from the verifier. Where O(login_user) may not read it, a
        login is tried, and a server that asks for no password then takes any for the right one.
options:
  role:
    description:
      - The role that has the rights and owns the objects. It must exist.
    type: str
    required: true
  login:
    description:
      - The login to open, close or look at. This is O(role) itself, or the name of its second login, which is created
        when it is opened for the first time.
      - The default is O(role).
    type: str
  state:
    description:
      - V(open) lets O(login) in with O(password), and proves it with a login.
      - V(closed) removes its password and its right to log in, hands over what it owns in O(database) to O(role), and
        sees its sessions off. It is refused unless O(replacement) gets in. When O(login) is O(role) and a superuser,
        the right to log in stays, without a password, for the socket of the server's own machine.
      - V(unchanged) only tells how it is.
    type: str
    choices: [open, closed, unchanged]
    default: open
  password:
    description: The password to open O(login) with. It is never printed.
    type: str
  replacement:
    description: The login that took the place of O(login), which is tried before O(login) is closed.
    type: str
  replacement_password:
    description: Its password.
    type: str
  while_used:
    description:
      - Whether an open login gets another password although there are sessions of it. Its programs keep their
        connections and cannot open new ones.
    type: bool
    default: false
  drain:
    description: Seconds that sessions of a closed login have to end by themselves.
    type: float
    default: 30
  terminate:
    description: Whether sessions that are left after O(drain) are ended.
    type: bool
    default: true
  container:
    description:
      - Name or id of the server's running container on the managed host, where it publishes no port. The server is
        reached at the address that the container has on its bridge network, at O(login_port).
    type: str
notes:
  - O(login_user) is a superuser, or has C(CREATEROLE) and the admin option on O(role).
  - C(pg_hba.conf) must let in the second login as it does O(role). Rules for C(all) do.
  - C(REPLICATION) is a right of the login itself and is not handed on by a role.
"""

EXAMPLES = r"""
- name: Open the second login of the application's role
  groundwork.backend.pg_login:
    login_host: 127.0.0.1
    login_password: "{{ vault_postgres_superpass }}"
    database: verisphere
    role: verisphere_app
    login: verisphere_app_alt
    password: "{{ new_password }}"
  register: opened

- name: Close the first one, once every program uses the second
  groundwork.backend.pg_login:
    login_host: 127.0.0.1
    login_password: "{{ vault_postgres_superpass }}"
    database: verisphere
    role: verisphere_app
    state: closed
    replacement: verisphere_app_alt
    replacement_password: "{{ new_password }}"
    drain: 60
  register: closed

- name: Tell who still used it
  ansible.builtin.debug:
    msg: "{{ closed.ended }} sessions were ended: {{ closed.sessions }}"
"""

RETURN = r"""
login:
  description: The login.
  returned: success
  type: str
exists:
  description: Whether there was such a login before.
  returned: success
  type: bool
open:
  description: Whether a password let somebody in before.
  returned: success
  type: bool
acts_as:
  description: The role that its sessions begin as; V(null) when there was no such login.
  returned: success
  type: str
actions:
  description: What was done, or would be, as short phrases.
  returned: success
  type: list
  elements: str
sessions:
  description:
    - Sessions that were opened with the login, with C(pid), C(database), C(application_name), C(address), C(state) and
      C(since). After O(state=closed) these are the ones that were there when O(drain) was over.
    - Also returned when the task fails because the login is in use.
  returned: success
  type: list
  elements: dict
ended:
  description: How many sessions were ended, or would be.
  returned: success
  type: int
"""

import socket
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres, _postgres_container
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_login import Logins
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_role import Role, sessions_of


def execute(context: Context) -> dict[str, Any]:
    """Connect, then open, close or look."""
    params = context.params
    address = _postgres_container.find(params["container"]).address if params["container"] else None
    name = f"groundwork.backend pg_login on {socket.gethostname()}"[:63]

    def connect(user: str, password: str) -> Any:
        changed = {**params, "login_user": user, "login_password": password}
        return _postgres.connect(changed, application_name=name, address=address)

    connection = _postgres.connect(params, application_name=name, address=address)
    context.cleanup.callback(connection.close)
    login = params["login"] or params["role"]
    logins = Logins(connection, params["role"], connect, read_only=context.check_mode)
    before, found, ended = _apply(logins, login, params)
    after = logins.look(login)
    return {
        "changed": bool(logins.actions),
        "login": login,
        "exists": before is not None,
        "open": before is not None and not before.closed,
        "acts_as": before.acts_as if before else None,
        "actions": logins.actions,
        "sessions": found,
        "ended": ended,
        "diff": _diff(login, before, after, logins.actions),
    }


def _apply(logins: Logins, login: str, params: dict[str, Any]) -> tuple[Role | None, list[dict[str, Any]], int]:
    """The login as it was, its sessions, and how many of them ended."""
    if params["state"] == "open":
        before = logins.open(login, params["password"], while_used=params["while_used"])
    elif params["state"] == "closed":
        before = logins.close(login, params["replacement"], params["replacement_password"])
        if before is not None:
            return before, *logins.drain(before, params["drain"], terminate=params["terminate"])
    else:
        before = logins.look(login)
    return before, sessions_of(logins.connection, before) if before else [], 0


def _diff(login: str, before: Role | None, after: Role | None, actions: list[str]) -> dict[str, str]:
    def text(role: Role | None) -> str:
        if role is None:
            return f"{login}: absent\n"
        return f"{login}: {'closed' if role.closed else 'open'}, acts as {role.acts_as}\n"

    return {"before": text(before), "after": text(after) + "".join(f"({action})\n" for action in actions)}


def main() -> None:
    """Run the module."""
    login = _postgres.login_options()
    run_module(
        execute,
        argument_spec={
            **login["argument_spec"],
            "role": {"type": "str", "required": True},
            "login": {"type": "str"},
            "state": {"type": "str", "choices": ["open", "closed", "unchanged"], "default": "open"},
            "password": {"type": "str", "no_log": True},
            "replacement": {"type": "str"},
            "replacement_password": {"type": "str", "no_log": True},
            "while_used": {"type": "bool", "default": False},
            "drain": {"type": "float", "default": 30},
            "terminate": {"type": "bool", "default": True},
            "container": {"type": "str"},
        },
        required_if=[
            ("state", "open", ("password",)),
            ("state", "closed", ("replacement", "replacement_password")),
        ],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
