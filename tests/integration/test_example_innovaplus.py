# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The example stack innovaplus: its backend as gunicorn runs it, on a real server; and the gate of its workflow."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
import httpx
import pytest
import yaml
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from support.mongo import APP, PASSWORD, MongoServer, run_server
from support.postgres import free_port
from support.processes import wait_for
from support.services import answering

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "innovaplus"
BACKEND = EXAMPLE / "INNOVAPLUS" / "INNOVA" / "backend"
WORKFLOW = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "deploy-backend.yml").read_text())
ORIGIN = "https://innovaplus.africa"
IDEA = {"slug": "solar-pumps", "title": "Solar pumps", "country": "KE", "tags": ["water"]}
# As in the expression $type: the numbers of the BSON specification.
NUMBERS = {
    "double": 1, "string": 2, "object": 3, "array": 4, "binData": 5, "undefined": 6, "objectId": 7, "bool": 8,
    "date": 9, "null": 10, "regex": 11, "dbPointer": 12, "javascript": 13, "symbol": 14, "javascriptWithScope": 15,
    "int": 16, "timestamp": 17, "long": 18, "decimal": 19, "minKey": 255, "maxKey": 127,
}  # fmt: skip

sys.path.insert(0, str(BACKEND))
sys.dont_write_bytecode = True  # the folder is what a deploy takes: leave nothing in it
from innova.seed import OLD_VALUES, TYPES, ideas, samples, seed
from innova.settings import Settings

sys.dont_write_bytecode = False


@dataclass
class Service:
    """The backend in a process of its own."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def health(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get("/health")
        return answer.status_code, answer.json()

    def wait_for(self, status: int) -> dict[str, Any]:
        """The health answer, as soon as it has this status."""
        deadline = time.monotonic() + 60
        while (found := self.health())[0] != status:
            assert time.monotonic() < deadline, (found, self.log)
            time.sleep(0.1)
        return found[1]


def start(folder: Path, **env: str) -> tuple[subprocess.Popen[bytes], Path]:
    """gunicorn in the folder of the backend, as the unit starts it."""
    log_path = folder / f"backend-{len(list(folder.iterdir()))}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"],
            cwd=BACKEND,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder), "DB_NAME": APP, **env},
            stdout=log,
            stderr=log,
        )
    return process, log_path


@contextmanager
def run_service(folder: Path, **env: str) -> Iterator[Service]:
    port = free_port()
    process, log_path = start(folder, **{"PORT": str(port), "DRAIN_SECONDS": "0.1", **env})
    with answering(process, port, "/openapi.json", log_path) as client:
        yield Service(process, client, log_path)


def uri(port: int, user: str = "app", password: str = PASSWORD, source: str = APP) -> str:
    return f"mongodb://{user}:{password}@127.0.0.1:{port}/{APP}?authSource={source}"


@pytest.fixture(scope="module")
def service(mongo: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The backend with two workers, on an empty database that its user owns."""
    mongo.client.drop_database(APP)
    with run_service(
        tmp_path_factory.mktemp("innovaplus"), MONGO_URI=uri(mongo.port), APP_RELEASE="r-1", ALLOWED_ORIGINS=ORIGIN
    ) as running:
        yield running
    mongo.client.drop_database(APP)


@pytest.fixture
def ideas_api(service: Service, mongo: MongoServer) -> httpx.Client:
    """The backend without ideas; the indexes stay."""
    mongo.client[APP]["ideas"].delete_many({})
    return service.client


# --- health -------------------------------------------------------------------------------------------------------


def test_health_answers_what_the_operations_page_says(service: Service) -> None:
    assert service.health() == (
        200,
        {"status": "ok", "mongo": "ok", "db": APP, "vector_index": "none", "version": "1.0.0", "release": "r-1"},
    )


@pytest.mark.parametrize("login", [{"password": "wrong-canary"}, {"source": "admin"}], ids=["password", "source"])
def test_health_says_that_the_login_is_refused(mongo: MongoServer, tmp_path: Path, login: dict[str, str]) -> None:
    with run_service(tmp_path, MONGO_URI=uri(mongo.port, **login), WEB_CONCURRENCY="1") as refused:
        status, answer = refused.health()
        assert (status, answer["status"], answer["mongo"]) == (503, "error", "refused")
        assert refused.client.get("/ideas").status_code == 503
        assert "mongodb is refused: authentication failed" in refused.log.lower()
        assert login.get("password", PASSWORD) not in refused.log


def test_health_follows_a_server_that_comes_and_goes(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    port = free_port()
    with run_service(tmp_path, MONGO_URI=f"mongodb://127.0.0.1:{port}", WEB_CONCURRENCY="1") as service:
        status, answer = service.health()
        assert (status, answer["status"], answer["mongo"]) == (503, "error", "unreachable")
        with run_server(storage, port):
            assert service.wait_for(200)["mongo"] == "ok"
            assert service.client.post("/ideas", json=IDEA).status_code == 201
        assert service.wait_for(503)["mongo"] == "unreachable"


def test_a_missing_setting_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    process, log = start(tmp_path, PORT=str(free_port()), MONGO_URI="")
    assert process.wait(30) != 0
    assert "MONGO_URI must be set: see backend.env.example" in log.read_text()


# --- ideas --------------------------------------------------------------------------------------------------------


def test_an_idea_is_made_read_changed_and_removed(ideas_api: httpx.Client) -> None:
    made = ideas_api.post("/ideas", json=IDEA)
    assert (made.status_code, made.json() | IDEA) == (201, made.json())
    place = made.headers["Location"]
    assert ideas_api.get(place).json() == made.json()
    changed = ideas_api.patch(place, json={"title": "Pumps"}).json()
    assert (changed["title"], changed["country"], changed["tags"]) == ("Pumps", "KE", ["water"])
    assert ideas_api.post(f"{place}/votes").json()["votes"] == 1
    assert ideas_api.delete(place).status_code == 204
    for answer in (ideas_api.get(place), ideas_api.patch(place, json={}), ideas_api.delete(place)):
        assert answer.status_code == 404


def test_of_one_slug_there_is_one_idea(ideas_api: httpx.Client, mongo: MongoServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ideas_api.post("/ideas", json=IDEA), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert mongo.client[APP]["ideas"].count_documents({}) == 1


def test_ideas_come_newest_first_in_pages(ideas_api: httpx.Client) -> None:
    for number in range(5):
        idea = {**IDEA, "slug": f"s-{number}", "country": "KE" if number % 2 else "GH"}
        assert ideas_api.post("/ideas", json=idea).status_code == 201
    first = ideas_api.get("/ideas?limit=3").json()
    assert [one["slug"] for one in first] == ["s-4", "s-3", "s-2"]
    rest = ideas_api.get(f"/ideas?before={first[-1]['id']}").json()
    assert [one["slug"] for one in rest] == ["s-1", "s-0"]
    assert [one["slug"] for one in ideas_api.get("/ideas?country=KE").json()] == ["s-3", "s-1"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"slug": "A b", "title": "t", "country": "KE"}',
        b'{"slug": "a", "title": "", "country": "KE"}',
        b'{"slug": "a", "title": "\\ud800", "country": "KE"}',
        b'{"slug": "a", "title": "t", "country": "Kenya"}',
        b'{"slug": "a", "title": "t", "country": "KE", "votes": 99}',
        b"not json",
    ],
)
def test_bad_input_is_refused(ideas_api: httpx.Client, body: bytes) -> None:
    answer = ideas_api.post("/ideas", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert ideas_api.get("/ideas").json() == []


def test_browsers_of_allowed_origins_may_read(service: Service) -> None:
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://elsewhere.example", None)):
        answer = service.client.get("/health", headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


# --- figures, processes -------------------------------------------------------------------------------------------


def test_metrics_are_those_of_all_workers(service: Service) -> None:
    def counted() -> float:
        text = service.client.get("/metrics").text
        line = r'innova_requests_total{method="GET",route="/ideas/{idea}",status="404"} ([0-9.]+)'
        found = re.search(line.replace("{", r"\{").replace("}", r"\}"), text)
        return float(found[1]) if found else 0.0

    before = counted()
    for number in range(20):  # over connections of their own, which either worker can get
        address = f"{service.client.base_url}/ideas/{number:024x}"
        assert httpx.get(address, trust_env=False, headers={"Connection": "close"}).status_code == 404
    # A worker counts a request when its answer has gone, so the client can ask before.
    wait_for(lambda: counted() >= before + 20, lambda: f"{counted()} after {before} and 20 requests", seconds=10)
    assert counted() == before + 20


def test_requests_wait_while_it_is_restarted_behind_a_socket_of_systemd(mongo: MongoServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        # As systemd hands a socket over: as the descriptor 3, with the process id of who is meant.
        script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" -m gunicorn'
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path), "DB_NAME": APP}
        env |= {"MONGO_URI": uri(mongo.port), "WEB_CONCURRENCY": "1", "DRAIN_SECONDS": "0.1"}
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/health"

        def run(release: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                ["bash", "-c", script, sys.executable], cwd=BACKEND, env={**env, "APP_RELEASE": release},
                pass_fds=[listener.fileno()],
            )  # fmt: skip

        def ask() -> str:
            return str(httpx.get(address, trust_env=False, timeout=60).json()["release"])

        old = run("old")
        try:
            assert ask() == "old"
        finally:
            old.terminate()
            assert old.wait(30) == 0
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(ask)  # while nobody is there
            new = run("new")
            try:
                assert pending.result(60) == "new"
            finally:
                new.terminate()
                new.wait(30)


def test_a_worker_that_ends_answers_what_is_on_its_way(mongo: MongoServer, tmp_path: Path) -> None:
    with run_service(tmp_path, MONGO_URI=uri(mongo.port), WEB_CONCURRENCY="1", DRAIN_SECONDS="4") as service:
        assert "connection" not in service.client.get("/health").headers  # kept open
        service.process.terminate()
        deadline = time.monotonic() + 30
        while "Answering what is on its way" not in service.log:
            assert time.monotonic() < deadline, service.log
            time.sleep(0.05)
        for answer in (service.client.get("/health"), service.client.get("/health")):  # the second on a new connection
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert service.process.wait(30) == 0


# --- seed ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeded(mongo: MongoServer) -> Iterator[Any]:
    """A database with the documents of the seed; root seeds it, as its user is known in APP only."""
    settings = Settings(f"mongodb://root:{PASSWORD}@127.0.0.1:{mongo.port}", "seeded")
    assert seed(settings, 4000) == ["ideas: 2000 documents", "samples: 2000 documents"]
    assert all("left as it is" in told for told in seed(settings, 4000))
    yield mongo.client["seeded"]
    mongo.client.drop_database("seeded")


def test_the_seed_has_documents_of_every_type() -> None:
    assert set(TYPES) == set(NUMBERS)
    found: dict[str, set[int]] = {}
    for document in samples(2000):
        # The last element of the document is the value: a byte with the type, its name, and what it is.
        found.setdefault(document["type"], set()).add(document.raw[document.raw.rindex(b"value\0") - 1])
    assert found == {name: {number} for name, number in NUMBERS.items()}


def test_the_seed_writes_the_same_bytes_everywhere(seeded: Any) -> None:
    wanted = {"ideas": [bson.encode(one) for one in ideas(2000)], "samples": [one.raw for one in samples(2000)]}
    for name, documents in wanted.items():
        stored = seeded[name].with_options(CodecOptions(RawBSONDocument)).find().sort("_id")
        pairs = list(zip((one.raw for one in stored), documents, strict=True))
        # This server writes the types that are deprecated as those that came after them; MongoDB keeps them.
        assert {bson.decode(there).get("type") for there, given in pairs if there != given} <= set(OLD_VALUES)


def test_the_seed_makes_the_indexes(seeded: Any) -> None:
    names = {name: set(seeded[name].index_information()) for name in ("ideas", "samples")}
    assert names == {"ideas": {"_id_", "slug", "country_newest"}, "samples": {"_id_", "type_number", "late"}}


# --- the gate of the workflow ---------------------------------------------------------------------------------------


def run_gate(service: Service, **env: str) -> subprocess.CompletedProcess[str]:
    """The workflow's own wait for the public answer, as a runner runs it."""
    steps = WORKFLOW["jobs"]["deploy"]["steps"]
    (script,) = [one["run"] for one in steps if one["name"] == "Wait for the public health answer"]
    return subprocess.run(
        ["bash", "-e", "-c", script],
        env={
            "PATH": os.environ["PATH"],
            "NO_PROXY": "*",
            "HEALTH_URL": f"{service.client.base_url}/health",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_workflow_waits_until_both_words_are_ok(service: Service) -> None:
    done = run_gate(service)
    assert done.returncode == 0, done.stderr
    assert '"status": "ok"' in done.stdout


def test_the_workflow_fails_while_mongodb_is_away(tmp_path: Path) -> None:
    with run_service(tmp_path, MONGO_URI="mongodb://127.0.0.1:1", WEB_CONCURRENCY="1") as service:
        done = run_gate(service, HEALTH_TRIES="1")
    assert done.returncode == 1
    assert "did not answer ok" in done.stdout
    assert '"mongo":"unreachable"' in done.stdout
