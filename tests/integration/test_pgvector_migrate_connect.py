# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: the ways to the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.migrations import Bench
from support.postgres_container import CERTIFIED, SERVER_NAME, ContainerServer, docker

AWKWARD = "cänary:/@%1'x y"
FILES = {"0001_a.sql": "CREATE TABLE a (x int)"}


def options(bench: Bench, **more: object) -> dict[str, object]:
    """No login option at all."""
    return {"directory": str(bench.directory), **more}


def test_dsn_as_url_and_as_words(bench: Bench) -> None:
    bench.write(FILES)
    server = bench.server
    role = f"owner_{bench.database}"
    bench.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{AWKWARD.replace(chr(39), chr(39) * 2)}'")
    url = f"postgresql://{role}:{quote(AWKWARD, safe='')}@{server.host}:{server.port}/{bench.database}?sslmode=disable"
    word = AWKWARD.replace("'", "\\'")
    words = f"host={server.host} port={server.port} user={role} password='{word}' dbname={bench.database}"
    for number, dsn in enumerate((url, words)):
        result = bench.module("pgvector_migrate", options(bench, login_dsn=dsn))
        assert result["changed"] is (number == 0), result
        for secret in (AWKWARD, quote(AWKWARD, safe=""), word, "cänary", "c\\u00e4nary"):
            assert secret not in result["_printed"]
    assert bench.query("SELECT applied_by FROM schema_migrations") == [(role,)]


def test_dsn_that_fails_tells_what_is_wrong_and_no_password(bench18: Bench) -> None:
    bench18.write(FILES)
    server, base = bench18.server, f"{bench18.server.host}:{bench18.server.port}"
    cases = {
        f"postgresql://postgres:canary-1@{base}/{bench18.database}": "rejected the password of user 'postgres'",
        f"postgresql://postgres:{server.superpass}@{base}/absent": f"database 'absent' at {base}: the server has no",
        f"postgresql+asyncpg://postgres:canary-2@{base}/x": "Write postgresql:// instead",
        "postgresql://postgres:canary-3%zz@h/x": "login_dsn is no connection string of libpq",
        "host=h canary-4": "login_dsn is no connection string of libpq",
        "postgresql://postgres:canary-5@127.0.0.1:1/x": "at 127.0.0.1:1: nothing listens there",
    }
    for dsn, words in cases.items():
        result = bench18.module("pgvector_migrate", options(bench18, login_dsn=dsn))
        assert words in result.get("msg", ""), result
        assert "canary" not in result["_printed"]
        assert server.superpass not in result["_printed"]


def test_password_of_the_dsn_is_not_in_what_the_server_says(bench18: Bench) -> None:
    dsn = bench18.server.dsn(bench18.database)
    bench18.write({"0001_a.sql": f"SELECT '{bench18.server.superpass}'::int"})
    result = bench18.module("pgvector_migrate", options(bench18, login_dsn=dsn), diff=False)
    assert "invalid input syntax for type integer" in result["msg"]
    assert bench18.server.superpass not in result["_printed"]


def test_a_database_is_named_in_one_way(bench18: Bench) -> None:
    both = bench18.run(login_dsn="postgresql://h/x")
    assert "mutually exclusive" in both["msg"]
    neither = bench18.module("pgvector_migrate", options(bench18))
    assert "one of the following is required: database, login_dsn" in neither["msg"]


def test_server_in_a_container_without_a_published_port(bench17: Bench, postgres17: ContainerServer) -> None:
    assert docker("port", postgres17.name) == ""
    bench17.write(FILES)
    login = {"database": bench17.database, "login_password": postgres17.superpass}
    result = bench17.module("pgvector_migrate", options(bench17, container=postgres17.name, **login))
    assert result["changed"] is True, result
    identifier = docker("container", "inspect", "--format", "{{.Id}}", postgres17.name)
    # as an application has it: the host is a name that only the stack's network knows
    dsn = f"postgresql://postgres:{postgres17.superpass}@postgres:5432/{bench17.database}"
    again = bench17.module("pgvector_migrate", options(bench17, container=identifier[:12], login_dsn=dsn))
    assert (again.get("changed"), again.get("schema_version")) == (False, "0001"), again
    assert bench17.exists("a")


@pytest.fixture
def other(postgres17: ContainerServer) -> Iterator[str]:
    """The name for a container that a test makes of the server's image."""
    name = f"gw-test-way-{os.getpid()}"
    yield name
    docker("rm", "--force", "--volumes", name)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("none", "has no network. Give it one"),
        ("host", "uses the network of the host, so it has no address of its own. Leave container out"),
        ("container:{name}", "uses the network of another container. Set container to "),
    ],
)
def test_container_without_an_address(
    bench17: Bench, postgres17: ContainerServer, other: str, network: str, sentence: str
) -> None:
    network = network.format(name=postgres17.name)
    image = docker("container", "inspect", "--format", "{{.Image}}", postgres17.name)
    docker("run", "--detach", "--name", other, "--network", network, "--entrypoint", "sleep", image, "infinity")
    result = bench17.module("pgvector_migrate", options(bench17, container=other, database="x"))
    assert sentence in result.get("msg", ""), result


def test_container_that_does_not_run_or_exist(bench17: Bench, postgres17: ContainerServer, other: str) -> None:
    image = docker("container", "inspect", "--format", "{{.Image}}", postgres17.name)
    absent = bench17.module("pgvector_migrate", options(bench17, container=other, database="x"))
    assert f"There is no container '{other}' on this host" in absent["msg"]
    docker("create", "--name", other, image)
    stopped = bench17.module("pgvector_migrate", options(bench17, container=other, database="x"))
    assert f"The container '{other}' is not running, but created" in stopped["msg"]


def test_memory_of_the_container_is_known_to_a_plain_role(bench17: Bench, postgres17: ContainerServer) -> None:
    role = f"plain_{bench17.database}"
    bench17.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'; CREATE EXTENSION vector")
    bench17.execute(f"ALTER DATABASE {bench17.database} OWNER TO {role}")
    login = {"database": bench17.database, "login_user": role, "login_password": "plain"}
    own = {"allowed_vector_versions": ["0.8.0"], **login}
    table = "CREATE TABLE items (e vector(3));"
    build = "CREATE INDEX ON items USING hnsw (e vector_l2_ops);"
    for memory, warned in (("65MB", True), ("64MB", False)):
        bench17.write({"0001_a.sql": f"{table} SET maintenance_work_mem = '{memory}'; {build}"})
        result = bench17.module("pgvector_migrate", options(bench17, container=postgres17.name, **own), check=True)
        assert ("/dev/shm of the server has 64 MiB" in str(result.get("warnings"))) is warned, result
    bench17.write({"0001_a.sql": f"{table} SET maintenance_work_mem = '65MB'; {build}"})
    by_address = bench17.module("pgvector_migrate", options(bench17, login_host=postgres17.host, **own), check=True)
    assert "shm" not in str(by_address.get("warnings")), by_address
    superuser = bench17.run(check=True, allowed_vector_versions=["0.8.0"])
    assert "/dev/shm of the server has 64 MiB" in str(superuser.get("warnings")), superuser


def test_server_is_proved_by_its_certificate(
    bench17: Bench, postgres17: ContainerServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench17.write(FILES)
    assert postgres17.authority is not None
    proof = {"ssl_mode": "verify-full", "ca_cert": str(postgres17.authority.path)}
    wrong = bench17.run(**proof)  # the certificate is for a name, not for the address
    assert "the TLS connection failed" in wrong["msg"], wrong
    stranger = type(postgres17.authority).create(tmp_path_factory.mktemp("ca"))
    named = {"container": postgres17.name, "login_host": SERVER_NAME, "ssl_mode": "verify-full"}
    assert "the TLS connection failed" in bench17.run(**named, ca_cert=str(stranger.path))["msg"]
    assert bench17.run(**named, ca_cert=str(postgres17.authority.path))["changed"] is True


def test_role_is_proved_by_its_certificate(
    bench17: Bench, postgres17: ContainerServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench17.write(FILES)
    bench17.execute(f"DROP ROLE IF EXISTS {CERTIFIED}")
    bench17.execute(f"CREATE ROLE {CERTIFIED} LOGIN SUPERUSER")
    login = {"login_user": CERTIFIED, "login_password": None, "ssl_mode": "require"}
    assert postgres17.authority is not None
    own, foreign = postgres17.authority.issue(CERTIFIED), postgres17.authority.issue("someone.else")
    own.chmod(0o600)
    foreign.chmod(0o600)
    assert "wants a client certificate" in bench17.run(**login)["msg"]
    assert "wants a client certificate" in bench17.run(**login, ssl_cert=str(foreign), ssl_key=str(foreign))["msg"]
    absent = str(tmp_path_factory.mktemp("none") / "absent.pem")
    missing = bench17.run(**login, ssl_cert=absent, ssl_key=absent)
    assert f"Could not read the file {absent} of ssl_cert: No such file" in missing["msg"], missing
    open_key = tmp_path_factory.mktemp("open") / "key.pem"
    open_key.write_bytes(Path(own).read_bytes())
    open_key.chmod(0o644)
    assert "mode 0600" in bench17.run(**login, ssl_cert=str(own), ssl_key=str(open_key))["msg"]
    result = bench17.run(**login, ssl_cert=str(own), ssl_key=str(own))
    assert result["changed"] is True, result
    assert bench17.query("SELECT applied_by FROM schema_migrations") == [(CERTIFIED,)]
