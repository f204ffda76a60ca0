# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The controller's half of mongo_restore: tells how far it is while it runs."""

from __future__ import annotations

from ansible_collections.groundwork.backend.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """Everything is in the class above; Ansible looks for this name."""
