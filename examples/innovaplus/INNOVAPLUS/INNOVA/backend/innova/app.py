# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP service."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from bson import ObjectId
from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pymongo.errors import DuplicateKeyError, PyMongoError

from . import __version__
from .metrics import Measure, exposition
from .settings import Settings
from .store import Store

log = logging.getLogger("gunicorn.error")

Id = Annotated[str, Path(pattern="^[0-9a-f]{24}$")]
Slug = Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Country = Annotated[str, Field(pattern="^[A-Z]{2}$")]
Body = Annotated[str, Field(max_length=20000)]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=20)]


class NewIdea(BaseModel):
    model_config = ConfigDict(extra="forbid")
    slug: Slug
    title: Title
    country: Country
    body: Body = ""
    tags: Tags = []


class Changes(BaseModel):
    """What a PATCH may say; what is left out stays. The slug is part of addresses, and stays too."""

    model_config = ConfigDict(extra="forbid")
    title: Title = ""
    country: Country = ""
    body: Body = ""
    tags: Tags = []


class Idea(BaseModel):
    id: str
    slug: str
    title: str
    country: str
    body: str
    tags: list[str]
    votes: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, document: dict[str, Any] | None) -> Idea:
        """Raises HTTPException 404 without a document."""
        if document is None:
            raise HTTPException(404, "There is no such idea")
        return cls(id=str(document["_id"]), **{key: value for key, value in document.items() if key != "_id"})


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.from_env()
    # In the process that serves, and not before it: a client of MongoDB does not survive a fork.
    store: Store

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal store
        store = Store(settings.mongo_uri, settings.db_name)
        yield
        await store.close()

    production = settings.environment == "production"
    app = FastAPI(
        title="INNOVAPLUS", version=__version__, lifespan=lifespan, openapi_url=None if production else "/openapi.json"
    )
    app.add_middleware(CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Measure)

    @app.exception_handler(RequestValidationError)
    async def unprocessable(request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own handler repeats the input, and fails where JSON cannot carry it (half a surrogate pair).
        detail = [{"loc": item["loc"], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
        return JSONResponse({"detail": detail}, 422)

    @app.exception_handler(PyMongoError)
    async def no_database(request: Request, error: PyMongoError) -> JSONResponse:
        log.error("%s %s: %.200s", request.method, request.url.path, error)
        return JSONResponse({"detail": "The database did not answer; /health says more"}, 503)

    @app.get("/health")
    async def health(response: Response) -> dict[str, str]:
        mongo = await store.state()
        if mongo != "ok":
            response.status_code = 503
        return {
            "status": "ok" if mongo == "ok" else "error",
            "mongo": mongo,
            "db": settings.db_name,
            "vector_index": "none",  # a MongoDB of one's own has none
            "version": __version__,
            "release": settings.release,
        }

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return exposition()

    @app.post("/ideas", status_code=201)
    async def add(idea: NewIdea, response: Response) -> Idea:
        try:
            added = Idea.of(await store.add(idea.model_dump()))
        except DuplicateKeyError:
            raise HTTPException(409, f"There is an idea {idea.slug} already") from None
        response.headers["Location"] = f"/ideas/{added.id}"
        return added

    @app.get("/ideas")
    async def newest(
        country: Annotated[str | None, Query(pattern="^[A-Z]{2}$")] = None,
        before: Annotated[str | None, Query(pattern="^[0-9a-f]{24}$")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> list[Idea]:
        return [Idea.of(one) for one in await store.newest(country, ObjectId(before) if before else None, limit)]

    @app.get("/ideas/{idea}")
    async def read(idea: Id) -> Idea:
        return Idea.of(await store.find(ObjectId(idea)))

    @app.patch("/ideas/{idea}")
    async def change(idea: Id, changes: Changes) -> Idea:
        return Idea.of(await store.change(ObjectId(idea), changes.model_dump(exclude_unset=True)))

    @app.post("/ideas/{idea}/votes")
    async def vote(idea: Id) -> Idea:
        return Idea.of(await store.vote(ObjectId(idea)))

    @app.delete("/ideas/{idea}", status_code=204)
    async def remove(idea: Id) -> None:
        if not await store.remove(ObjectId(idea)):
            raise HTTPException(404, "There is no such idea")

    return app
