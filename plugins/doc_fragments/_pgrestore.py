# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The options of module_utils/_pgrestore.py, restore_login_options()."""

from __future__ import annotations

from ansible_collections.groundwork.backend.plugins.doc_fragments._postgres import ModuleDocFragment as LoginFragment


class ModuleDocFragment:
    """How to reach the server of a database that may not exist yet."""

    DOCUMENTATION = LoginFragment.DOCUMENTATION.replace(
        """    description: Name of the database.
    type: str
    required: true
""",
        """    description: Name of the live database. The default is that of the component.
    type: str
""",
    )
