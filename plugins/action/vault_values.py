# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Change variables in a vault file, on the controller, with the vault password that this run of Ansible was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_vault import (
    change_values,
    values_options,
    values_result,
    vault_from,
)


class ActionModule(ActionBase):
    """Does the whole work; the module of the same name only documents it."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the module's documentation says."""
        super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(values_options())
        path = Path(given["path"]).expanduser().resolve()
        values = {str(name): str(value) for name, value in given["values"].items()}
        try:
            changed = change_values(path, vault_from(self._loader, None), values, read_only=self._task.check_mode)
        except GroundworkError as error:
            raise AnsibleActionFail(str(error)) from None
        return values_result(path, changed)
