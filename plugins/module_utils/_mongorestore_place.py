# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Where a restore works, and what it says of itself there: its record is in the database, so the next run knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._mongo import Server, server_errors
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_names import RESTORE, STATE, Family
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import drop

# In this order; SWAPPING sets aside what is live, PLACING puts what was restored in its place. A swap is taken back by
# REVERTING, which moves away what is live by then, and RETURNING, which brings back what was set aside.
STAGING, STAGED, SWAPPING, PLACING, LIVE = "staging", "staged", "swapping", "placing", "live"
REVERTING, RETURNING, TAKEN_BACK = "reverting", "returning", "reverted"
CUT_OFF = {SWAPPING: "swap", PLACING: "swap", REVERTING: "revert", RETURNING: "revert"}
SURE = {"w": "majority", "j": True}


@dataclass(frozen=True)
class Record:
    """How far a restore is.

    aside:  the names of what was live at the swap; before and reverted: numbers of families.
    target: whether the whole database is one that a restore has made.
    """

    state: str
    counts: Mapping[str, int] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    before: int = 1
    reverted: int = 1
    target: bool = False

    def document(self) -> dict[str, Any]:
        """For the database: a name of a collection is no name of a field."""
        return {**asdict(self), "counts": [[name, count] for name, count in self.counts.items()]}

    @staticmethod
    def of(document: Mapping[str, Any]) -> Record:
        """The reverse of document()."""
        return Record(
            state=str(document["state"]),
            counts={str(name): int(count) for name, count in document["counts"]},
            aside=tuple(document["aside"]),
            before=int(document["before"]),
            reverted=int(document["reverted"]),
            target=bool(document.get("target")),
        )


@dataclass(frozen=True)
class Place:
    """A database that one component of one set is restored into. beside: it is the live one, whose collections stay."""

    server: Server
    database: str
    set_id: str
    component: str
    beside: bool

    def family(self, kind: str, number: int = 1) -> Family:
        """Names of collections that wait in this database."""
        return Family(self.database, kind, self.set_id, number)

    def staged_name(self, collection: str) -> str:
        """What a collection is called from when it is made until it is live."""
        return self.family(RESTORE).name(collection) if self.beside else collection

    def record(self) -> Record | None:
        """What this restore has left; None when it has left nothing."""
        return records(self.server, self.database).get(self._key)

    def others(self) -> dict[str, Record]:
        """The records of other restores of the same database."""
        found = records(self.server, self.database)
        return {key: record for key, record in found.items() if key != self._key}

    def say(self, record: Record) -> None:
        """Write the record, and return when it survives a crash of the server."""
        document = {"_id": self._key, **record.document()}
        self._write("update", updates=[{"q": {"_id": self._key}, "u": document, "upsert": True}])

    def forget(self, *keys: str) -> None:
        """Remove the records of these restores, or this one's; and the collection of records with the last one."""
        gone = keys or (self._key,)
        self._write("delete", deletes=[{"q": {"_id": {"$in": list(gone)}}, "limit": 0}])
        if not records(self.server, self.database):
            drop(self.server, self.database, STATE)

    @property
    def _key(self) -> str:
        return f"{self.set_id} {self.component}"

    def _write(self, command: str, **arguments: Any) -> None:
        with server_errors(f"write the state of the restore into {self.database}"):
            answer = self.server.client[self.database].command({command: STATE, **arguments, "writeConcern": SURE})
            require_written(answer, self.database)


def is_target(server: Server, database: str) -> bool:
    """Whether a restore has made a database: one that is live has records of what was restored in it, too."""
    found = records(server, database)
    return bool(found) and all(one.target for one in found.values())


def records(server: Server, database: str) -> dict[str, Record]:
    """What restores have left in a database, by "<set> <component>"."""
    from pymongo import ReadPreference  # noqa: PLC0415 - optional on the host

    # Whatever login_uri prefers: a secondary may not have heard of it yet.
    collection = server.client[database].get_collection(STATE, read_preference=ReadPreference.PRIMARY)
    with server_errors(f"read the state of the restore in {database}"):
        return {one["_id"]: Record.of(one) for one in collection.find()}


def require_written(answer: Mapping[str, Any], where: str) -> None:
    """A write that failed for a document is an answer, and no error. Raises OperationFailure."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - optional on the host

    if answer.get("writeErrors") or answer.get("writeConcernError"):
        raise OperationFailure(f"a document was refused in {where}", None, dict(answer))
