#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the inventory of a stack from its compose files. The work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_inventory
short_description: Make the inventory of a stack from its compose files, with new secrets in a vault file
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Reads the compose files of a source without an engine, the example of its env file, its folders of migrations and
    its sources as far as they tell of health paths. Writes C(hosts.yml), C(group_vars/all/main.yml) and
    C(group_vars/all/vault.yml) from what it found.
  - Secrets that the stack's own services agree on are made up, a separate one of 40 letters and digits for each.
    Secrets that somebody else gives out are left empty and named in RV(empty). A URL that holds a password is put
    together from the variable of that password.
  - What is a guess has a comment in the file, and a sentence in RV(checks).
  - Runs on the controller, as the user of C(ansible-playbook), whatever host the task is for. Relative paths begin in
    the folder in which C(ansible-playbook) was started.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows all files but the one with the secrets.
  idempotent:
    support: full
    details:
      - An inventory that has the three files is left as it is, also when the source changed. One that has some of them,
        or anything else, is refused.
options:
  source:
    description: The top folder of the application's repository, on the controller.
    type: path
    required: true
  inventory:
    description: The folder to make. It must not be there, or be empty.
    type: path
    required: true
  app_name:
    description: The name of the stack. The default is the name of the folder O(source).
    type: str
    default: ""
  host:
    description: The name or address of the server.
    type: str
    default: ""
  compose_files:
    description:
      - The compose files, as paths below O(source), in the order in which Compose layers them.
      - The default is the only one that has one of Compose's own names, nearest to the top.
    type: list
    elements: str
    default: []
  vault_password_file:
    description:
      - The file with the vault's password, or a program that prints it, outside of O(inventory).
      - The default is the vault password that C(ansible-playbook) was given. Without one, a new password is written to
        C(~/.config/groundwork/<name of the inventory's folder>.vault-password), with mode C(0600).
    type: path
"""

EXAMPLES = r"""
- name: Make an inventory for the application beside this folder
  groundwork.backend.stack_inventory:
    source: ../myapp
    inventory: inventories/myapp
    host: app.example.org
  register: made

- name: Tell what is left to do
  ansible.builtin.debug:
    msg: "Fill in {{ made.empty | join(', ') }}; check: {{ made.checks | join(' ') }}"
"""

RETURN = r"""
inventory:
  description: The folder.
  returned: success
  type: str
files:
  description: The files in it that were written, or were there already.
  returned: success
  type: list
  elements: str
vault_password_file:
  description: The file with the vault's password; empty when this run's own one was used, or nothing was written.
  returned: success
  type: str
vault_password_file_made:
  description: Whether that file is a new one.
  returned: success
  type: bool
generated:
  description: The variables in the vault file that got a new secret.
  returned: success
  type: list
  elements: str
empty:
  description: The variables in the vault file that have to be filled in.
  returned: success
  type: list
  elements: str
checks:
  description: What was guessed, and what could not be found, as sentences.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._init_files import inventory_options
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module


def execute(_context: Context) -> dict[str, Any]:
    """Never called by Ansible, which takes the action plugin."""
    raise StateError(
        "stack_inventory works on the controller, through its action plugin.", fix="Use it as a task of a playbook."
    )


def main() -> None:
    """Run the module."""
    run_module(execute, argument_spec=inventory_options(), supports_check_mode=True)


if __name__ == "__main__":
    main()
