# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Names of collections that are in a database because of a restore, beside those of the application; pure.

A server renames a collection inside of its database at once and as one step, and copies it to bring it into another
one. So what is restored waits in the live database itself, and so does what was live before: under names that begin
with a prefix of their own, groundwork.<kind>.<set id>. (and a number behind the id when that prefix is taken).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

STATE = "groundwork.restore"
RESTORE, BEFORE, REVERTED = "restore", "before", "reverted"
_NAMESPACE_BYTES = 255  # https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Namespace-Length
_OURS = re.compile(r"groundwork\.(restore|before|reverted)\.[0-9]{8}t[0-9]{6}z(_[0-9]+)?\..", re.DOTALL)


@dataclass(frozen=True)
class Family:
    """The collections of one database that wait together; kind: RESTORE, BEFORE or REVERTED."""

    database: str
    kind: str
    set_id: str
    number: int = 1

    @property
    def prefix(self) -> str:
        """What the names of all its collections begin with."""
        number = "" if self.number == 1 else f"_{self.number}"
        return f"groundwork.{self.kind}.{self.set_id.lower()}{number}."

    def name(self, collection: str) -> str:
        """The name of a collection as long as it waits; one that would be too long is told by a sha256."""
        name = self.prefix + collection
        if len(f"{self.database}.{name}".encode()) <= _NAMESPACE_BYTES:
            return name
        return f"{self.prefix}sha256-{hashlib.sha256(collection.encode()).hexdigest()}"

    def members(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are of this family."""
        return sorted(name for name in names if name.startswith(self.prefix))

    def all_numbers(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are of this kind and set, whatever their number."""
        own = re.compile(rf"groundwork\.{self.kind}\.{self.set_id.lower()}(_[0-9]+)?\..", re.DOTALL)
        return sorted(name for name in names if own.match(name))


def is_restores(collection: str) -> bool:
    """Whether a name is one of these, or that of the journal: no collection of an application."""
    return collection == STATE or _OURS.match(collection) is not None


def free_family(database: str, kind: str, set_id: str, names: Iterable[str]) -> Family:
    """The first family of a kind that has no member yet."""
    taken, number = list(names), 1
    while (family := Family(database, kind, set_id, number)).members(taken):
        number += 1
    return family
