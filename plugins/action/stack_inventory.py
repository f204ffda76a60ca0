# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Make a new inventory, on the controller: the files and the vault password are there and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._init_files import Wish, create, inventory_options
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_vault import vault_from


class ActionModule(ActionBase):
    """Does the whole work; the module of the same name only documents it."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the module's documentation says."""
        super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(inventory_options())
        password_file = given["vault_password_file"]
        wish = Wish(
            source=_absolute(given["source"]),
            inventory=_absolute(given["inventory"]),
            app_name=given["app_name"],
            host=given["host"],
            compose_files=given["compose_files"],
            password_file=_absolute(password_file) if password_file else None,
        )
        try:
            result = create(wish, lambda path: vault_from(self._loader, path), read_only=self._task.check_mode)
        except GroundworkError as error:
            raise AnsibleActionFail(str(error)) from None
        if not self._task.diff:
            result.pop("diff")
        return result


def _absolute(path: str) -> Path:
    """A path as the user's shell means it."""
    return Path(path).expanduser().resolve()
