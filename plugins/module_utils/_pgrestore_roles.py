# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which statements of a globals.sql (pg_dumpall --globals-only) make the roles that a server does not have; pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement, folded, split

# Newer releases wrap their scripts in these commands of psql.
_RESTRICT = re.compile(r"^\\(?:un)?restrict [A-Za-z0-9]+$", re.MULTILINE)
# The role that granted need not exist here, nor be allowed to; the role that runs the statement is recorded then.
_GRANTED_BY = re.compile(r"\s+GRANTED\s+BY\s+(?:\"(?:[^\"]|\"\")*\"|\S+)\s*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Missing:
    """roles: names of the roles to create; statements: what creates them, with everything that is theirs."""

    roles: tuple[str, ...]
    statements: tuple[str, ...]


def missing_roles(script: str, existing: Collection[str], file: str) -> Missing:
    """What a globals.sql says about the roles that do not exist. A role that exists is never altered.

    A membership counts when one of its two roles is new. Raises InputError: no script of pg_dumpall.
    """
    statements = split(_RESTRICT.sub("", script), file)
    roles = tuple(
        name
        for statement in statements
        if (name := _named(statement, "CREATE", "ROLE")) is not None and name not in existing
    )
    known = {*existing, *roles}
    return Missing(
        roles,
        tuple(
            _GRANTED_BY.sub("", statement.text) if statement.words[0] == "GRANT" else statement.text
            for statement in statements
            if _concerns(statement, roles, known)
        ),
    )


def _concerns(statement: Statement, roles: Collection[str], known: Collection[str]) -> bool:
    words = statement.words
    if words[0] == "GRANT" and len(words) > 3 and words[2] == "TO":
        pair = {folded(words[1]), folded(words[3])}
        return not pair.isdisjoint(roles) and pair <= set(known)
    if words[0] == "ALTER" and words[3:5] == ("IN", "DATABASE"):
        return False
    named = (
        _named(statement, "CREATE", "ROLE")
        or _named(statement, "ALTER", "ROLE")
        or _named(statement, "COMMENT", "ON", "ROLE")
    )
    return named in roles


def _named(statement: Statement, *words: str) -> str | None:
    """The name behind these words, when the statement begins with them."""
    count = len(words)
    if statement.words[:count] != words or len(statement.words) == count:
        return None
    return folded(statement.words[count])
