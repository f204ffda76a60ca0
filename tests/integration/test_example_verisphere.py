# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The example stack verisphere: its service as a real process, its migrations in a real PostgreSQL with pgvector."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import httpx
import psycopg
import pytest
from support.postgres import free_port
from support.services import answering

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "verisphere"
SOURCE = EXAMPLE / "services" / "semantic_dedupe" / "src"
MIGRATIONS = sorted((EXAMPLE / "ops" / "postgres" / "migrations").glob("*.sql"))
PASSWORD = "it's-a-canary"  # the quote must survive psql's quoting
KEY = "sk-canary-key"

sys.path.insert(0, str(SOURCE))
sys.dont_write_bytecode = True  # the folder is what a deploy takes: leave nothing in it
from semantic_dedupe.embeddings import LocalEmbedder
from semantic_dedupe.settings import REQUIRED_SCHEMA_VERSION
from semantic_dedupe.store import NEAREST, nearest

sys.dont_write_bytecode = False

TOWER = "The Eiffel Tower is 330 metres tall."
TOWER_NEAR = "the eiffel tower is 330 METRES high!"
OCTOPUS = "Octopuses have three hearts and blue blood."

_names = itertools.count(1)


class Server(Protocol):
    """What these tests use of the fixture postgres16."""

    bindir: Path

    def dsn(self, database: str = ..., user: str | None = ..., password: str | None = ...) -> str: ...
    def create_database(self, name: str) -> str: ...


@dataclass
class Database:
    server: Server
    name: str

    @property
    def app_dsn(self) -> str:
        return self.server.dsn(self.name, "verisphere_app", PASSWORD.replace("'", "%27"))

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; rows, or nothing."""
        with psycopg.connect(self.server.dsn(self.name)) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])

    def disconnect_app(self) -> None:
        self.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'verisphere_app' AND datname = current_database()"
        )

    def make_ledger(self) -> None:
        """The collection's ledger, which its runner makes before the first file."""
        self.query(
            "CREATE TABLE public.schema_migrations (version text PRIMARY KEY, name text, checksum text,"
            " applied_at timestamptz, execution_ms bigint, applied_by text, state text)"
        )

    def record(self, version: str, state: str = "applied") -> None:
        self.query("INSERT INTO schema_migrations (version, state) VALUES (%s, %s)", version, state)

    def psql(self, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.server.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-f", path,
             self.server.dsn(self.name)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def migrate(self) -> None:
        self.make_ledger()
        for path in MIGRATIONS:
            done = self.psql(path, "-v", f"app_password={PASSWORD}")
            assert done.returncode == 0, done.stderr
            self.record(path.name.split("_")[0])


@dataclass
class Service:
    """The service in a process of its own, as its image starts it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def post(self, text: str, **more: Any) -> httpx.Response:
        return self.client.post("/claims", json={"text": text, **more})

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get("/ready")
        return answer.status_code, answer.json()


@contextmanager
def run_service(folder: Path, **env: str) -> Iterator[Service]:
    port = free_port()
    log_path = folder / f"service-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "semantic_dedupe.app"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(SOURCE),
                "PORT": str(port),
                "NO_PROXY": "127.0.0.1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **env,
            },
            stdout=log,
            stderr=log,
        )
    with answering(process, port, "/health", log_path) as client:
        yield Service(process, client, log_path)


@pytest.fixture(scope="module")
def new_database(postgres16: Server) -> Iterator[Any]:
    names = []

    def make(migrate: bool = True) -> Database:
        names.append(f"verisphere_{next(_names)}")
        database = Database(postgres16, names[-1])
        postgres16.create_database(names[-1])
        if migrate:
            database.migrate()
        return database

    yield make
    with psycopg.connect(postgres16.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="module")
def database(new_database: Any) -> Database:
    """One migrated database for the tests of this file that can share one."""
    made: Database = new_database()
    return made


@pytest.fixture(scope="module")
def service(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with local embeddings on `database`."""
    with run_service(
        tmp_path_factory.mktemp("verisphere"),
        DATABASE_URL=database.app_dsn,
        EMBEDDINGS_PROVIDER="local",
        APP_RELEASE="r-1",
    ) as running:
        yield running


@pytest.fixture
def empty(database: Database) -> Database:
    database.query("TRUNCATE claims, claim_embeddings, similarity_checks")
    return database


# --- migrations ---------------------------------------------------------------------------------------------------


def test_migrations_run_twice_and_without_a_ledger(new_database: Any) -> None:
    database = new_database(migrate=False)
    for path in MIGRATIONS * 2:
        done = database.psql(path, "-v", f"app_password={PASSWORD}")
        assert done.returncode == 0, done.stderr
    with psycopg.connect(database.app_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM claims")


def test_first_migration_without_a_password_leaves_nothing(new_database: Any) -> None:
    database = new_database(migrate=False)
    assert database.psql(MIGRATIONS[0]).returncode != 0
    assert database.query("SELECT to_regclass('claims')") == [(None,)]


def test_required_version_is_the_newest_migration() -> None:
    assert MIGRATIONS[-1].name.startswith(f"{REQUIRED_SCHEMA_VERSION}_")


@contextmanager
def only_the_vector_index(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection whose planner has nothing but the HNSW index to order by; all is rolled back.

    With the few rows of a test the planner would rather read them all, as it should.
    """
    with psycopg.connect(database.server.dsn(database.name)) as connection:
        connection.execute("DROP INDEX claim_embeddings_model")
        connection.execute("ALTER TABLE claim_embeddings DROP CONSTRAINT claim_embeddings_pkey")
        connection.execute("SET LOCAL enable_seqscan = off")
        yield connection
        connection.rollback()


def explain(connection: psycopg.Connection[Any], text: str) -> str:
    """The plan of the query that the service sends."""
    values = {"vector": vector(text), "model": LocalEmbedder.model, "exclude": 0, "limit": 5}
    return "\n".join(row[0] for row in connection.execute(b"EXPLAIN " + NEAREST.encode(), values))


def vector(text: str) -> str:
    return json.dumps(LocalEmbedder().embed(text))


def add_crowd(database: Database, text: str) -> None:
    """200 claims of another model around `text`, more than the index looks at in one go."""
    middle = LocalEmbedder().embed(text)
    with psycopg.connect(database.server.dsn(database.name)) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "WITH new AS (INSERT INTO claims (claim_text, content_hash) VALUES ('crowd', %s) RETURNING claim_id)"
            " INSERT INTO claim_embeddings SELECT claim_id, 'another', %s FROM new",
            [(f"crowd {n}", json.dumps([*middle[:n], middle[n] + 0.5, *middle[n + 1 :]])) for n in range(200)],
        )


def test_the_query_of_the_service_fits_the_index(empty: Database) -> None:
    with only_the_vector_index(empty) as connection:
        assert "Index Scan using claim_embeddings_hnsw" in explain(connection, TOWER)


def test_the_index_looks_past_a_crowd_of_another_model(service: Service, empty: Database) -> None:
    words = (
        "ocean tariff violin glacier senate pollen turbine archive comet harvest tunnel vaccine lantern orchid copper"
    )
    for word in words.split():
        assert service.post(word).status_code == 201
    add_crowd(empty, TOWER)
    with only_the_vector_index(empty) as connection:
        # Without hnsw.iterative_scan the crowd takes all places, and none is left; an approximate index may miss a few.
        assert len(nearest(connection, vector(TOWER), LocalEmbedder.model, 0, 50)) > len(words.split()) / 2


def test_a_small_model_is_searched_exactly(service: Service, empty: Database) -> None:
    claim_id = service.post(TOWER).json()["claim_id"]
    add_crowd(empty, TOWER_NEAR)
    empty.query("ANALYZE claim_embeddings")
    with psycopg.connect(empty.server.dsn(empty.name)) as connection:
        connection.execute("SET LOCAL enable_seqscan = off")  # as if the table were large
        assert "claim_embeddings_model" in explain(connection, TOWER_NEAR)
        matches = nearest(connection, vector(TOWER_NEAR), LocalEmbedder.model, 0, 5)
        assert [match.claim_id for match in matches] == [claim_id]


# --- health and readiness -----------------------------------------------------------------------------------------


def test_ready_follows_the_migrations(new_database: Any, tmp_path: Path) -> None:
    database = new_database(migrate=False)
    # The superuser's name, because the role of the application is only made by the first migration.
    with run_service(tmp_path, DATABASE_URL=database.server.dsn(database.name), EMBEDDINGS_PROVIDER="local") as service:
        assert service.client.get("/health").json() == {"ok": True, "release": "unknown"}
        status, answer = service.ready()
        assert (status, answer["ok"], answer["database"], answer["schema_version"]) == (503, False, "ok", None)
        assert any("extension vector is missing" in problem for problem in answer["problems"])
        assert any("0002 is needed, found none" in problem for problem in answer["problems"])
        assert service.post(TOWER).status_code == 503

        database.migrate()
        status, answer = service.ready()
        assert (status, answer["ok"], answer["schema_version"], answer["required"]) == (200, True, "0002", "0002")
        assert service.post(TOWER).status_code == 201

        database.query("DELETE FROM schema_migrations WHERE version = '0002'")
        for state in ("failed", "running"):
            database.record(f"{len(state):04}", state)
        status, answer = service.ready()
        assert (status, answer["schema_version"]) == (503, "0001")
        database.record("10")  # the number 10, which as text would come before "2"
        database.record("2", "baseline")
        assert service.ready()[1]["schema_version"] == "10"
        assert service.ready()[0] == 200


def test_ready_as_the_application_role(service: Service) -> None:
    status, answer = service.ready()
    assert status == 200, answer
    assert {key: answer[key] for key in ("ok", "database", "schema_version", "required", "release")} == {
        "ok": True, "database": "ok", "schema_version": "0002", "required": "0002", "release": "r-1",
    }  # fmt: skip


def test_alive_but_not_ready_without_a_database(tmp_path: Path) -> None:
    url = f"postgresql://verisphere_app:canary@127.0.0.1:{free_port()}/verisphere"
    with run_service(tmp_path, DATABASE_URL=url, EMBEDDINGS_PROVIDER="local") as service:
        assert service.client.get("/health").status_code == 200
        status, answer = service.ready()
        assert (status, answer["database"]) == (503, "unreachable")
        assert "connection refused" in answer["problems"][0]
        assert service.post(TOWER).status_code == 503
        assert service.client.get("/claims/1/similar").status_code == 503
        assert service.client.get("/health").status_code == 200
        assert "canary" not in service.log


@pytest.mark.parametrize("url", ["", "postgresql://verisphere_app:canary@[::1/verisphere", "canary"])
def test_ready_names_a_bad_database_url_and_does_not_repeat_it(url: str, tmp_path: Path) -> None:
    with run_service(tmp_path, DATABASE_URL=url, EMBEDDINGS_PROVIDER="local") as service:
        status, answer = service.ready()
        assert status == 503
        assert "DATABASE_URL" in answer["problems"][0]
        assert service.post(TOWER).status_code == 503
        assert "canary" not in service.log + json.dumps(answer)


def test_recovers_when_the_database_appears(new_database: Any, tmp_path: Path) -> None:
    database = new_database()
    database.query("ALTER ROLE verisphere_app NOLOGIN")
    try:
        with run_service(tmp_path, DATABASE_URL=database.app_dsn, EMBEDDINGS_PROVIDER="local") as service:
            assert service.ready()[0] == 503
            assert service.post(TOWER).status_code == 503
            database.query("ALTER ROLE verisphere_app LOGIN")
            assert service.ready()[0] == 200
            assert service.post(TOWER).status_code == 201
            # As after a restart of the server: many connections in the pool, all of them dead.
            _post_together(service, database, [OCTOPUS + "!" * n for n in range(8)])
            database.disconnect_app()
            assert service.post(TOWER_NEAR).status_code == 201
            assert PASSWORD not in service.log
    finally:
        database.query("ALTER ROLE verisphere_app LOGIN")


def test_wrong_settings_are_named_and_do_not_stop_the_service(database: Database, tmp_path: Path) -> None:
    env = {"EMBEDDINGS_PROVIDER": "magic", "DEDUPE_THRESHOLD": "nan", "LOG_LEVEL": "loud"}
    with run_service(tmp_path, DATABASE_URL=database.app_dsn, **env) as service:
        assert service.client.get("/health").status_code == 200
        status, answer = service.ready()
        assert status == 503
        for name in ("EMBEDDINGS_PROVIDER", "DEDUPE_THRESHOLD", "OPENAI_API_KEY"):
            assert any(problem.startswith(name) for problem in answer["problems"])


# --- claims -------------------------------------------------------------------------------------------------------


def test_dedupe(service: Service, empty: Database) -> None:
    first = service.post(TOWER)
    assert first.status_code == 201
    claim_id = first.json()["claim_id"]
    assert first.json() == {"claim_id": claim_id, "created": True, "duplicate": False, "nearest": None}

    again = service.post(f"  {TOWER.replace(' ', '  ')}\n")
    assert again.status_code == 200
    assert again.json() == {
        "claim_id": claim_id, "created": False, "duplicate": True,
        "nearest": {"claim_id": claim_id, "text": TOWER, "distance": 0},
    }  # fmt: skip
    assert empty.count("claims") == 1

    near = service.post(TOWER_NEAR)
    assert near.status_code == 201
    assert near.json()["duplicate"] is True
    assert near.json()["nearest"]["claim_id"] == claim_id
    assert 0 < near.json()["nearest"]["distance"] <= 0.15

    far = service.post(OCTOPUS)
    assert far.status_code == 201
    assert far.json()["duplicate"] is False
    assert far.json()["nearest"]["distance"] > 0.7

    assert (empty.count("claims"), empty.count("claim_embeddings"), empty.count("similarity_checks")) == (3, 3, 4)
    assert empty.query("SELECT count(*) FROM similarity_checks WHERE duplicate") == [(2,)]


def test_threshold_of_a_request(service: Service, empty: Database) -> None:
    service.post(TOWER)
    assert service.post(OCTOPUS, threshold=2).json()["duplicate"] is True
    assert service.post(TOWER_NEAR, threshold=0).json()["duplicate"] is False


def test_same_text_from_eight_threads_is_one_row(service: Service, empty: Database) -> None:
    answers = _post_together(service, empty, [TOWER] * 8)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["claim_id"] for answer in answers}) == 1
    assert (empty.count("claims"), empty.count("claim_embeddings"), empty.count("similarity_checks")) == (1, 1, 8)


def test_texts_alike_from_eight_threads_see_each_other(service: Service, empty: Database) -> None:
    answers = _post_together(service, empty, [TOWER + "!" * n for n in range(8)])
    assert [answer.status_code for answer in answers] == [201] * 8
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 7


def _post_together(service: Service, database: Database, texts: list[str]) -> list[httpx.Response]:
    """Post all texts so that every request is past its first look at the database before any of them can store."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with (
        ThreadPoolExecutor(len(texts)) as pool,
        psycopg.connect(database.server.dsn(database.name)) as gate,
    ):
        gate.execute("LOCK TABLE claim_embeddings IN SHARE ROW EXCLUSIVE MODE")  # reading is free, writing waits
        pending = [pool.submit(service.post, text) for text in texts]
        deadline = time.monotonic() + 8
        while database.query(waiting) != [(len(texts),)] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert database.query(waiting) == [(len(texts),)]
        gate.rollback()
        return [future.result() for future in pending]


def test_similar(service: Service, empty: Database) -> None:
    ids = {text: service.post(text).json()["claim_id"] for text in (TOWER, OCTOPUS, TOWER_NEAR)}
    answer = service.client.get(f"/claims/{ids[TOWER]}/similar").json()
    assert [match["claim_id"] for match in answer] == [ids[TOWER_NEAR], ids[OCTOPUS]]
    assert answer[0]["distance"] < answer[1]["distance"]
    assert answer[0]["text"] == TOWER_NEAR
    assert len(service.client.get(f"/claims/{ids[TOWER]}/similar?limit=1").json()) == 1

    empty.query("UPDATE claim_embeddings SET embedding_model = 'another' WHERE claim_id = %s", ids[TOWER_NEAR])
    answer = service.client.get(f"/claims/{ids[TOWER]}/similar").json()
    assert [match["claim_id"] for match in answer] == [ids[OCTOPUS]]

    for unknown in (ids[TOWER] + 1000, 2**70):
        assert service.client.get(f"/claims/{unknown}/similar").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": ""}',
        b'{"text": " \\n\\t "}',
        b'{"text": "' + b"x" * 4001 + b'"}',
        b'{"text": "a\\u0000b"}',
        b'{"text": "\\ud800"}',
        b'{"text": "a", "threshold": NaN}',
        b'{"text": "a", "threshold": 2.1}',
        b'{"text": 5}',
        b"{}",
        b"not json",
    ],
)
def test_bad_input(service: Service, empty: Database, body: bytes) -> None:
    answer = service.client.post("/claims", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert empty.count("claims") == 0


@pytest.mark.parametrize("text", ["!", "🙂", "%s {x} '; DROP TABLE claims; --", "x" * 4000])
def test_odd_but_good_input(service: Service, empty: Database, text: str) -> None:
    assert service.post(text).status_code == 201
    assert empty.query("SELECT claim_text FROM claims") == [(text,)]


# --- the provider openai ------------------------------------------------------------------------------------------


class StubEmbeddings:
    """A stub of OpenAI's embeddings endpoint: not OpenAI, only a local HTTP server that answers in its format.

    Its vectors come from LocalEmbedder. `status`, `dimensions` and `hold` make it fail, answer wrongly, or wait.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.status = 200
        self.dimensions = 3072
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append((self.path, self.headers["Authorization"], body))
                stub.arrived.set()
                stub.hold.wait(20)
                vector = LocalEmbedder().embed(body["input"])[: stub.dimensions]
                answer: dict[str, Any] = {"object": "list", "data": [{"index": 0, "embedding": vector}]}
                if stub.status != 200:
                    answer = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
                content = json.dumps(answer).encode()
                self.send_response(stub.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stub() -> Iterator[StubEmbeddings]:
    stub = StubEmbeddings()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def openai(empty: Database, stub: StubEmbeddings, tmp_path: Path) -> Iterator[Service]:
    with run_service(tmp_path, DATABASE_URL=empty.app_dsn, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=stub.url) as running:
        yield running


def test_openai(openai: Service, stub: StubEmbeddings, empty: Database, service: Service) -> None:
    assert openai.ready()[0] == 200
    assert openai.post(TOWER).status_code == 201
    path, authorization, body = stub.requests[0]
    assert (path, authorization) == ("/v1/embeddings", f"Bearer {KEY}")
    assert (body["model"], body["input"]) == ("text-embedding-3-large", TOWER)
    assert openai.post(TOWER).status_code == 200
    assert len(stub.requests) == 1  # a known text costs nothing
    assert empty.query("SELECT embedding_model FROM claim_embeddings") == [("text-embedding-3-large",)]

    # The same text through the other provider: the claim stays one, its embedding moves over.
    assert service.post(TOWER_NEAR).json()["nearest"] is None
    assert service.post(TOWER).status_code == 200
    assert set(empty.query("SELECT embedding_model FROM claim_embeddings")) == {("local-hash-3072",)}
    assert (empty.count("claims"), empty.count("claim_embeddings")) == (2, 2)


@pytest.mark.parametrize(
    ("status", "dimensions", "answer"), [(401, 3072, 502), (429, 3072, 503), (500, 3072, 503), (200, 1536, 502)]
)
def test_openai_failures_are_told_and_store_nothing(
    openai: Service, stub: StubEmbeddings, empty: Database, *, status: int, dimensions: int, answer: int
) -> None:
    stub.status, stub.dimensions = status, dimensions
    response = openai.post(TOWER)
    assert response.status_code == answer
    assert str(status if status != 200 else dimensions) in response.json()["detail"]
    assert KEY not in response.text + openai.log
    assert empty.count("claims") == 0
    stub.status, stub.dimensions = 200, 3072
    assert openai.post(TOWER).status_code == 201


def test_openai_out_of_reach(empty: Database, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with run_service(tmp_path, DATABASE_URL=empty.app_dsn, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url) as service:
        response = service.post(TOWER)
        assert (response.status_code, "cannot be reached" in response.json()["detail"]) == (503, True)


def test_openai_without_a_key(empty: Database, tmp_path: Path) -> None:
    with run_service(tmp_path, DATABASE_URL=empty.app_dsn, OPENAI_API_KEY="") as service:
        status, answer = service.ready()
        assert (status, answer["database"]) == (503, "ok")
        assert "OPENAI_API_KEY is empty" in answer["embeddings"]
        assert service.post(TOWER).status_code == 503


def test_sigterm_finishes_what_is_under_way(openai: Service, stub: StubEmbeddings, empty: Database) -> None:
    stub.hold.clear()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(openai.post, TOWER)
        assert stub.arrived.wait(20)
        openai.process.terminate()
        # New requests are refused from now on, the one under way is not.
        assert _stops_answering(str(openai.client.base_url.join("/health")))
        stub.hold.set()
        assert pending.result(20).status_code == 201
    assert openai.process.wait(20) in (0, -15)  # uvicorn ends by the signal that it was sent
    assert "shutdown complete" in openai.log
    assert empty.count("claims") == 1


def _stops_answering(url: str) -> bool:
    for _ in range(100):
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            return True
        time.sleep(0.1)
    return False
