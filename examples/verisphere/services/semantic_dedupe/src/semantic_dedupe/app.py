# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import psycopg
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, Field

from .embeddings import EmbeddingError, make_embedder
from .settings import REQUIRED_SCHEMA_VERSION, Settings
from .store import Store, normalise

log = logging.getLogger("semantic_dedupe")


def _usable(text: str) -> str:
    text = normalise(text)
    if not text:
        raise ValueError("must not be empty")
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    return text


class NewClaim(BaseModel):
    text: Annotated[str, Field(max_length=4000), AfterValidator(_usable)]
    threshold: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None


class MatchOut(BaseModel):
    claim_id: int
    text: str
    distance: float


class VerdictOut(BaseModel):
    claim_id: int
    created: bool
    duplicate: bool
    nearest: MatchOut | None


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.from_env()
    store = Store(settings.database_url)
    embedder = make_embedder(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store.open()
        yield
        store.close()
        embedder.close()

    app = FastAPI(title="VeriSphere Semantic Dedupe", lifespan=lifespan)
    _add_error_handlers(app)
    last_problems: list[str] = []

    @app.get("/health")
    async def health() -> dict[str, Any]:
        # async, and so in no queue behind requests that wait for the database.
        return {"ok": True, "release": settings.release}

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        # Not in FastAPI's own pool of threads, which slow requests can fill.
        state = await asyncio.to_thread(store.state)
        problem = embedder.problem()
        problems = [*settings.problems, *state.problems, *([problem] if problem else [])]
        if problems != last_problems:  # once, not with every probe
            log.warning("not ready: %s", "; ".join(problems)) if problems else log.info("ready")
            last_problems[:] = problems
        answer = {
            "ok": not problems,
            "database": state.database,
            "vector": state.vector,
            "schema_version": state.schema_version,
            "required": REQUIRED_SCHEMA_VERSION,
            "embeddings": problem or "ok",
            "release": settings.release,
        }
        if problems:
            response.status_code = 503
            answer["problems"] = problems
        return answer

    @app.post("/claims", status_code=201)
    def add_claim(claim: NewClaim, response: Response) -> VerdictOut:
        threshold = settings.threshold if claim.threshold is None else claim.threshold
        # A known text costs no call to the provider. The call itself happens outside any transaction.
        verdict = store.repeat(claim.text, embedder.model, threshold)
        if verdict is None:
            verdict = store.add(claim.text, embedder.embed(claim.text), embedder.model, threshold)
        if not verdict.created:
            response.status_code = 200
        return VerdictOut.model_validate(verdict, from_attributes=True)

    @app.get("/claims/{claim_id}/similar")
    def similar(claim_id: int, limit: Annotated[int, Query(ge=1, le=50)] = 5) -> list[MatchOut]:
        matches = store.similar(claim_id, limit)
        if matches is None:
            raise HTTPException(404, f"There is no claim {claim_id}")
        return [MatchOut.model_validate(match, from_attributes=True) for match in matches]

    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def unprocessable(request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own handler repeats the input, and fails where JSON cannot carry it (NaN, half a surrogate pair).
        detail = [{"loc": item["loc"], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
        return JSONResponse({"detail": detail}, 422)

    @app.exception_handler(EmbeddingError)
    async def no_embedding(request: Request, error: EmbeddingError) -> JSONResponse:
        log.warning("no embedding: %s", error)
        return JSONResponse({"detail": str(error)}, error.status)

    @app.exception_handler(psycopg.Error)
    async def no_database(request: Request, error: psycopg.Error) -> JSONResponse:
        log.error("database: %s %s", type(error).__name__, error.sqlstate or "")
        return JSONResponse({"detail": "The database is not ready for this request; /ready says why"}, 503)


def main() -> None:
    settings = Settings.from_env()
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s: %(name)s: %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it prints libpq's words, see store.explain
    # 8 s to finish what is under way: Docker kills after 10.
    uvicorn.run(
        create_app(settings),
        host="0.0.0.0",  # noqa: S104 - a container is reached from outside itself
        port=settings.port,
        log_level=settings.log_level,
        timeout_graceful_shutdown=8,
    )


if __name__ == "__main__":
    main()
