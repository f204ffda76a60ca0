# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a PostgreSQL role is and how it may log in, read from the catalogs; and whether a password is the stored one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._postgres import server_errors

_ROLE = """
SELECT r.oid, r.rolcanlogin, r.rolsuper, r.rolconnlimit, r.rolvaliduntil < now(),
       EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.roleid
               WHERE m.member = r.oid AND o.rolname = %s)
FROM pg_roles r WHERE r.rolname = %s
"""
_SETTINGS = """
SELECT coalesce(d.datname, ''), s.setconfig FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE s.setrole = %s
"""
_SESSIONS = """
SELECT pid, datname, application_name, host(client_addr), state,
       to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM pg_stat_activity WHERE usesysid = %s AND pid <> pg_backend_pid() ORDER BY backend_start, pid
"""
_OWNS = """
SELECT count(*) FROM pg_shdepend d
WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = %s AND d.deptype = 'o'
  AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


@dataclass(frozen=True)
class Role:
    """One role. settings: database ("" for all) -> setting -> value; verifier is None where it may not be read."""

    name: str
    oid: int
    can_log_in: bool
    superuser: bool
    connection_limit: int
    expired: bool
    is_member: bool
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    verifier: str | None = None
    readable: bool = False

    @property
    def acts_as(self) -> str:
        """The role that its sessions begin as."""
        return self.settings.get("", {}).get("role") or self.name

    @property
    def closed(self) -> bool:
        """Whether no password lets anybody in."""
        if self.readable and self.superuser:
            return self.verifier is None
        return not self.can_log_in and not (self.readable and self.verifier)


def read_role(connection: Any, name: str, group: str) -> Role | None:
    """The role, and whether it is a direct member of *group*; None when there is no such role."""
    with server_errors(f"read the role {name!r}"):
        row = connection.execute(_ROLE, [group, name]).fetchone()
        if row is None:
            return None
        oid, can_log_in, superuser, limit, expired, member = row
        settings = {
            database: dict(entry.split("=", 1) for entry in entries)
            for database, entries in connection.execute(_SETTINGS, [oid]).fetchall()
        }
        readable = connection.execute("SELECT has_column_privilege('pg_authid', 'rolpassword', 'SELECT')").fetchone()[0]
        verifier = None
        if readable:
            verifier = connection.execute("SELECT rolpassword FROM pg_authid WHERE oid = %s", [oid]).fetchone()[0]
    return Role(
        name, oid, can_log_in, superuser, limit, bool(expired), member, settings, verifier, readable
    )  # fmt: skip


def sessions_of(connection: Any, role: Role) -> list[dict[str, Any]]:
    """The sessions that were opened as *role*, also those that act as another one now, without this one."""
    with server_errors(f"look for sessions of {role.name!r}"):
        rows = connection.execute(_SESSIONS, [role.oid]).fetchall()
    names = ("pid", "database", "application_name", "address", "state", "since")
    return [dict(zip(names, row, strict=True)) for row in rows]


def owned_objects(connection: Any, role: Role) -> int:
    """How many objects of this database, and of those that all databases share, belong to *role*."""
    with server_errors(f"look for what {role.name!r} owns"):
        return int(connection.execute(_OWNS, [role.oid]).fetchone()[0])


def matches(verifier: str, password: str) -> bool | None:
    """Whether a stored SCRAM verifier is that of *password*; None when only a login can tell.

    RFC 5803 has the form of the verifier, RFC 5802 the computation. A password that is not ASCII is normalised by
    SASLprep, which a login leaves to libpq.
    """
    mechanism, _, rest = verifier.partition("$")
    if mechanism != "SCRAM-SHA-256":
        return False  # the older md5 form is replaced
    if not password.isascii() or not password.isprintable():
        return None
    try:
        head, keys = rest.split("$")
        iterations, salt = head.split(":")
        stored = base64.b64decode(keys.split(":")[0], validate=True)
        salted = hashlib.pbkdf2_hmac(
            "sha256", password.encode(), base64.b64decode(salt, validate=True), int(iterations)
        )
    except (ValueError, binascii.Error):
        return None
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)
