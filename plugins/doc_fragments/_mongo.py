# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The options of module_utils/_mongo.py, mongo_options()."""

from __future__ import annotations


class ModuleDocFragment:
    """How to reach one MongoDB server."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host name or address of the server. The default is V(127.0.0.1).
      - Exactly this server is talked to, whatever its replica set says of its members.
    type: str
  login_port:
    description: TCP port of the server. The default is V(27017).
    type: int
  login_user:
    description: User to log in as. Without it, nobody logs in.
    type: str
  login_password:
    description: Password of O(login_user). It is never printed.
    type: str
  auth_source:
    description: Database in which O(login_user) was created. The default is V(admin).
    type: str
  tls:
    description: Whether to use TLS.
    type: bool
  ca_cert:
    description: File on the managed host with the certificates of the authorities that may sign the server's one.
    type: path
  client_cert:
    description: File on the managed host with the certificate and the key that prove who this client is.
    type: path
  login_uri:
    description:
      - The whole connection as one string, C(mongodb://user:password@host:27017/?authSource=app), in place of all the
        options that begin with C(login_), and of O(auth_source), O(tls), O(ca_cert) and O(client_cert).
      - It is never printed, and no password of it.
    type: str
requirements:
  - The Python library C(pymongo) 3.11 or newer (Debian's package C(python3-pymongo))
"""
