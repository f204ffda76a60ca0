# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The options of module_utils/_psql.py, client_options()."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the client programs of PostgreSQL are."""

    DOCUMENTATION = r"""
options:
  container:
    description:
      - Name or id of the running container of the server. Its own client programs are used then, over its local
        socket unless O(login_host) is set, and C(docker) is needed on the managed host.
      - When it is not set, the client programs of the managed host are used.
    type: str
  bin_dir:
    description:
      - Folder on the managed host with PostgreSQL's client programs, such as C(pg_dump), C(pg_restore) and C(psql).
      - The default is Debian's folder for the server's version, and in a restore for the version of the C(pg_dump)
        that wrote the dump where that is newer, else what is on C(PATH).
    type: path
"""
