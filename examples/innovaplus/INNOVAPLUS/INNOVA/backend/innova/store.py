# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: ideas, their indexes, and whether it answers."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pymongo
from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, ReturnDocument
from pymongo.errors import OperationFailure, PyMongoError

log = logging.getLogger("gunicorn.error")

INDEXES = [
    IndexModel([("slug", ASCENDING)], name="slug", unique=True),
    IndexModel([("country", ASCENDING), ("_id", DESCENDING)], name="country_newest"),
]
#: Seconds. A health check that waits longer for its database has found out.
PATIENCE = 3
_REFUSED = {13, 18}  # Unauthorized, AuthenticationFailed

Document = dict[str, Any]


def _now() -> datetime:
    """In milliseconds, as BSON has it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _word(error: PyMongoError) -> str:
    if not isinstance(error, OperationFailure):
        return "unreachable"
    return "refused" if error.code in _REFUSED else "failing"


class Store:
    """One database. Nothing is connected, and nothing fails, before the first use."""

    def __init__(self, uri: str, database: str) -> None:
        self._client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            appname="innovaplus-backend",
            tz_aware=True,
            serverSelectionTimeoutMS=PATIENCE * 1000,
            connectTimeoutMS=PATIENCE * 1000,
        )
        self._ideas = self._client[database]["ideas"]
        self._has_indexes = False
        self._told = "ok"

    async def close(self) -> None:
        await self._client.close()

    async def state(self) -> str:
        """One word for /health, which everybody reads: ok, unreachable, refused or failing. The log says why, once."""
        reason: Exception | None = None
        word = "ok"
        try:
            with pymongo.timeout(PATIENCE):
                await self._ideas.database.command("ping")
                await self._prepare()
        except PyMongoError as error:
            reason = error
            word = _word(error)
        if word != self._told:
            log.warning("MongoDB is %s: %.200s", word, reason) if reason else log.info("MongoDB is ok")
            self._told = word
        return word

    async def _prepare(self) -> None:
        """Make the indexes, which is nothing to the server where they are there."""
        if not self._has_indexes:
            await self._ideas.create_indexes(INDEXES)
            self._has_indexes = True

    async def add(self, idea: Document) -> Document:
        """Raises DuplicateKeyError for a slug that is taken."""
        await self._prepare()  # the index is what refuses a second one
        now = _now()
        document = {**idea, "votes": 0, "created_at": now, "updated_at": now}
        await self._ideas.insert_one(document)
        return document

    async def find(self, idea: ObjectId) -> Document | None:
        return await self._ideas.find_one({"_id": idea})

    async def newest(self, country: str | None, before: ObjectId | None, limit: int) -> list[Document]:
        """The newest ideas first, of one country or of all, older than *before*."""
        query: Document = {}
        if country:
            query["country"] = country
        if before:
            query["_id"] = {"$lt": before}
        return await self._ideas.find(query).sort("_id", DESCENDING).limit(limit).to_list()

    async def change(self, idea: ObjectId, changes: Document) -> Document | None:
        update = {"$set": {**changes, "updated_at": _now()}}
        return await self._ideas.find_one_and_update({"_id": idea}, update, return_document=ReturnDocument.AFTER)

    async def vote(self, idea: ObjectId) -> Document | None:
        update = {"$inc": {"votes": 1}}
        return await self._ideas.find_one_and_update({"_id": idea}, update, return_document=ReturnDocument.AFTER)

    async def remove(self, idea: ObjectId) -> bool:
        return (await self._ideas.delete_one({"_id": idea})).deleted_count == 1
