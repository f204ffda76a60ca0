# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The options of module_utils/_postgres.py, login_options()."""

from __future__ import annotations


class ModuleDocFragment:
    """How to reach one PostgreSQL database."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host name or address of the server, or the folder of its Unix socket.
      - When it is not set, the local Unix socket is used.
    type: str
  login_port:
    description: TCP port of the server; it is also part of the Unix socket's name.
    type: int
    default: 5432
  login_user:
    description: Role to log in as.
    type: str
    default: postgres
  login_password:
    description: Password of O(login_user). It is never printed.
    type: str
  database:
    description: Name of the database.
    type: str
    required: true
  ssl_mode:
    description:
      - How TLS is used, in libpq's words.
      - V(verify-full) with O(ca_cert) is the only value that proves which server answers.
    type: str
    default: prefer
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File on the managed host with the certificates of the authorities that may sign the server's one.
    type: path
  ssl_cert:
    description: File on the managed host with the certificate that proves who O(login_user) is, where the server asks.
    type: path
  ssl_key:
    description: File on the managed host with the key of O(ssl_cert). Only its owner may be able to read it.
    type: path
"""
