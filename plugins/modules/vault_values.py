#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change variables in a vault file. The work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vault_values
short_description: Change variables in a file that ansible-vault encrypts
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Sets variables at the top of an encrypted YAML file, with the vault password that C(ansible-playbook) was given. All
    other lines, comments among them, stay as they are.
  - The new file takes the place of the old one in one step. No copy of the old one is left.
  - Runs on the controller, as the user of C(ansible-playbook), whatever host the task is for.
extends_documentation_fragment:
  - groundwork.backend._attributes
attributes:
  check_mode:
    support: full
    details:
      - Decrypts the file and looks for the variables and the right to write, so that it finds what would go wrong.
  diff_mode:
    support: none
    details:
      - The values are secrets. RV(variables) has the names.
  idempotent:
    support: full
options:
  path:
    description: The file. It must be encrypted as a whole, and is with the first vault password of this run again.
    type: path
    required: true
  values:
    description: The new values, by the names of variables that the file has already. They are never printed.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the new password into the vault
  groundwork.backend.vault_values:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    values: {vault_postgres_app_pass: "{{ new_password }}"}
  register: written

- name: Tell what changed
  ansible.builtin.debug:
    msg: "Changed: {{ written.variables | join(', ') }}"
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
variables:
  description: The names of the variables that changed, or would.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_vault import values_options


def execute(_context: Context) -> dict[str, Any]:
    """Never called by Ansible, which takes the action plugin."""
    raise StateError(
        "vault_values works on the controller, through its action plugin.", fix="Use it as a task of a playbook."
    )


def main() -> None:
    """Run the module."""
    run_module(execute, argument_spec=values_options(), supports_check_mode=True)


if __name__ == "__main__":
    main()
