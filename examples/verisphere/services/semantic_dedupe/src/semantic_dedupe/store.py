# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the service asks of PostgreSQL."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from .settings import REQUIRED_SCHEMA_VERSION

MIN_VECTOR_VERSION = (0, 8)  # the first with hnsw.iterative_scan

# Any two numbers that nothing else in this database takes an advisory lock on ("deDu", "clai").
_LOCK = (0x64654475, 0x636C6169)

# The index holds half precision, so it only proposes; the order and the distances come from the full vectors.
# Without iterative_scan the index would hand over its ef_search best of *all* models and the filter would then drop
# those of the others, possibly all. The index is the planner's choice: up to several thousand claims of a model it
# reads them all instead, which is exact.
_SCAN_SETTINGS = (
    "SELECT set_config('hnsw.ef_search', '100', true), set_config('hnsw.iterative_scan', 'strict_order', true)"
)

NEAREST = """
SELECT claim_id, claim_text, distance
FROM (
  SELECT e.claim_id, e.embedding <=> %(vector)s::vector AS distance
  FROM claim_embeddings e
  WHERE e.embedding_model = %(model)s AND e.claim_id <> %(exclude)s
  ORDER BY e.embedding::halfvec(3072) <=> %(vector)s::halfvec(3072)
  LIMIT 100
) candidates
JOIN claims USING (claim_id)
ORDER BY distance, claim_id
LIMIT %(limit)s
"""

# What libpq says, and what we say. Its own text is not passed on: after a mistake in DATABASE_URL it can hold a part
# of the password.
_CAUSES = (
    ("password authentication failed", "user or password refused"),
    ("Connection refused", "connection refused"),
    ("does not exist", "the database or the role does not exist"),
    ("starting up", "the server is starting"),
    ("shutting down", "the server is shutting down"),
    ("too many", "too many connections"),
    ("timeout", "no answer in time"),
    ("host name", "host name not known"),
    ("resolve host", "host name not known"),
)


@dataclass(frozen=True)
class Match:
    claim_id: int
    text: str
    distance: float  # cosine distance: 0 same direction, 1 unrelated, 2 opposite


@dataclass(frozen=True)
class Verdict:
    claim_id: int
    created: bool
    duplicate: bool
    nearest: Match | None


@dataclass(frozen=True)
class DatabaseState:
    database: str  # "ok" or why not
    vector: str | None = None  # version of the extension
    schema_version: str | None = None
    problems: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Take away what a keyboard or a copy adds: Unicode composition and white space. Case and signs are kept."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def explain(error: psycopg.Error) -> str:
    """Say in a few words why there is no connection."""
    if isinstance(error, psycopg.ProgrammingError):
        return "DATABASE_URL is not a valid connection string"
    return next((ours for theirs, ours in _CAUSES if theirs in str(error)), "cannot connect")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _literal(vector: Sequence[float]) -> str:
    return "[" + ",".join(f"{x:.8g}" for x in vector) + "]"


class Store:
    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._pool = ConnectionPool(
            database_url,
            min_size=0,  # nothing is connected before it is needed
            max_size=10,
            open=False,
            timeout=5,
            # Give up early: the next request tries anew, instead of waiting out a long back-off after a restart.
            reconnect_timeout=4,
            check=self._check,
            kwargs={"connect_timeout": 3, "application_name": "semantic-dedupe", "options": "-c statement_timeout=10s"},
        )

    def _check(self, conn: psycopg.Connection[Any]) -> None:
        try:
            ConnectionPool.check_connection(conn)
        except psycopg.Error:
            # After a restart of the server all are dead. The pool would find out one by one, with a growing pause
            # after each, until the request has timed out; so have all of them replaced now.
            self._pool.check()
            raise

    def open(self) -> None:
        self._pool.open(wait=False)

    def close(self) -> None:
        self._pool.close(timeout=3)

    def repeat(self, text: str, model: str, threshold: float) -> Verdict | None:
        """Record the repetition of a known text; None for a text that needs an embedding first."""
        with self._pool.connection() as conn:
            row = conn.execute(
                "SELECT c.claim_id FROM claims c JOIN claim_embeddings e USING (claim_id)"
                " WHERE c.content_hash = %s AND e.embedding_model = %s",
                (_hash(text), model),
            ).fetchone()
            if row is None:
                return None
            return _repeated(conn, row[0], text, model, threshold)

    def add(self, text: str, vector: Sequence[float], model: str, threshold: float) -> Verdict:
        """Store a claim with its embedding, unless another request was faster, and judge it."""
        with self._pool.connection() as conn:
            # One at a time, for a few milliseconds: of two texts alike that arrive together, the second must see the
            # first. The same text twice is kept out by the UNIQUE constraint, lock or no lock.
            conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", _LOCK)
            row = conn.execute(
                "INSERT INTO claims (claim_text, content_hash) VALUES (%s, %s)"
                " ON CONFLICT (content_hash) DO NOTHING RETURNING claim_id",
                (text, _hash(text)),
            ).fetchone()
            if row is None:
                # Nobody deletes claims, and the conflict proves the row.
                [(claim_id,)] = conn.execute(
                    "SELECT claim_id FROM claims WHERE content_hash = %s", (_hash(text),)
                ).fetchall()
                _put_embedding(conn, claim_id, vector, model)
                return _repeated(conn, claim_id, text, model, threshold)
            matches = nearest(conn, _literal(vector), model, exclude=row[0], limit=1)
            _put_embedding(conn, row[0], vector, model)
            match = matches[0] if matches else None
            duplicate = match is not None and match.distance <= threshold
            return _record(conn, Verdict(row[0], True, duplicate, match), model, threshold)

    def similar(self, claim_id: int, limit: int) -> list[Match] | None:
        """Return the nearest other claims of the same embedding model, nearest first; None for an unknown id."""
        with self._pool.connection() as conn:
            row = conn.execute(
                "SELECT e.embedding::text, e.embedding_model"
                " FROM claims c LEFT JOIN claim_embeddings e USING (claim_id) WHERE c.claim_id = %s",
                (claim_id,),
            ).fetchone()
            if row is None:
                return None
            if row[0] is None:
                return []
            return nearest(conn, row[0], row[1], exclude=claim_id, limit=limit)

    def state(self) -> DatabaseState:
        """Look at the database over a connection of its own, so that a busy pool does not look like a dead server."""
        if not self._url:
            return DatabaseState("not configured", problems=("DATABASE_URL is not set",))
        try:
            with psycopg.connect(
                self._url,
                connect_timeout=3,
                application_name="semantic-dedupe-ready",
                options="-c statement_timeout=3s",
            ) as conn:
                return _look(conn)
        except psycopg.Error as error:
            why = explain(error)
            return DatabaseState("unreachable", problems=(f"The database cannot be reached: {why}",))


def nearest(conn: psycopg.Connection[Any], vector: str, model: str, exclude: int, limit: int) -> list[Match]:
    """Return the claims of `model` nearest to `vector` (pgvector's text form), but for the id `exclude`."""
    conn.execute(_SCAN_SETTINGS)
    rows = conn.execute(NEAREST, {"vector": vector, "model": model, "exclude": exclude, "limit": limit})
    return [Match(row[0], row[1], max(0.0, row[2])) for row in rows]


def _put_embedding(conn: psycopg.Connection[Any], claim_id: int, vector: Sequence[float], model: str) -> None:
    """Store the embedding; one of another model is replaced, so that claims move over to a new model one by one."""
    conn.execute(
        "INSERT INTO claim_embeddings (claim_id, embedding_model, embedding) VALUES (%s, %s, %s)"
        " ON CONFLICT (claim_id) DO UPDATE SET embedding_model = excluded.embedding_model,"
        " embedding = excluded.embedding, updated_at = now()"
        " WHERE claim_embeddings.embedding_model <> excluded.embedding_model",
        (claim_id, model, _literal(vector)),
    )


def _repeated(conn: psycopg.Connection[Any], claim_id: int, text: str, model: str, threshold: float) -> Verdict:
    return _record(conn, Verdict(claim_id, False, True, Match(claim_id, text, 0.0)), model, threshold)


def _record(conn: psycopg.Connection[Any], verdict: Verdict, model: str, threshold: float) -> Verdict:
    match = verdict.nearest
    conn.execute(
        "INSERT INTO similarity_checks (claim_id, nearest_claim_id, distance, threshold, duplicate, embedding_model)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (
            verdict.claim_id,
            match.claim_id if match else None,
            match.distance if match else None,
            threshold,
            verdict.duplicate,
            model,
        ),
    )
    return verdict


def _look(conn: psycopg.Connection[Any]) -> DatabaseState:
    problems = []
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    vector: str | None = row[0] if row else None
    if vector is None:
        problems.append("The extension vector is missing in this database")
    elif tuple(int(part) for part in vector.split(".")[:2]) < MIN_VECTOR_VERSION:
        problems.append(f"The extension vector is {vector}, 0.8 or newer is needed")
    version = None
    try:
        version = _schema_version(conn)
    except psycopg.errors.InsufficientPrivilege:
        problems.append("This role may not read public.schema_migrations: GRANT SELECT on it")
    else:
        # A newer schema is fine: during a deploy, and after a rollback, the release before runs on it.
        if version is None or int(version) < int(REQUIRED_SCHEMA_VERSION):
            found = f"found {version}" if version else "found none applied"
            problems.append(f"Migrations are not current: {REQUIRED_SCHEMA_VERSION} is needed, {found}")
    return DatabaseState("ok", vector, version, tuple(problems))


def _schema_version(conn: psycopg.Connection[Any]) -> str | None:
    """Return the highest version, by number, that the ledger says is in place; None without one."""
    row = conn.execute("SELECT to_regclass('public.schema_migrations')").fetchone()
    if row is None or row[0] is None:
        return None
    rows = conn.execute("SELECT version FROM public.schema_migrations WHERE state IN ('applied', 'baseline')")
    versions: list[str] = [row[0] for row in rows if row[0].isdecimal()]
    return max(versions, key=int, default=None)
