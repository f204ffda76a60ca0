# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The options of module_utils/_postgres.py, login_or_dsn_options()."""

from __future__ import annotations

from ansible_collections.groundwork.backend.plugins.doc_fragments._postgres import ModuleDocFragment as LoginFragment


class ModuleDocFragment:
    """How to reach one PostgreSQL database, by options or by one string."""

    DOCUMENTATION = (
        LoginFragment.DOCUMENTATION.replace(
            """    description: Name of the database.
    type: str
    required: true
""",
            """    description: Name of the database. It or O(login_dsn) is required.
    type: str
""",
        )
        + r"""
  login_dsn:
    description:
      - The whole connection as one string of libpq, such as C(postgresql://user:password@host:5432/database) or
        C(host=/run/postgresql dbname=shop), in place of O(database) and all options that begin with C(login_) or
        C(ssl_). It is never printed, and no password of it.
    type: str
"""
    )
