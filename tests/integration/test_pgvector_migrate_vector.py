# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate: what it knows about pgvector."""

from __future__ import annotations

import psycopg
import pytest
from support.migrations import Bench

from ansible_collections.groundwork.backend.plugins.module_utils import _pgvector
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError

TABLE = "CREATE EXTENSION vector;\nCREATE TABLE items (id int, e vector(3072) NOT NULL, s public.halfvec(3));\n"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE INDEX ON items USING hnsw (e vector_cosine_ops)", "(e::halfvec(3072)) halfvec_cosine_ops"),
        ("CREATE INDEX CONCURRENTLY i ON public.items USING ivfflat (E vector_l2_ops) WITH (lists = 9)", "2000"),
        ("ALTER TABLE items ALTER s TYPE halfvec(4001); CREATE INDEX ON items USING hnsw (s halfvec_l2_ops)", "4000"),
        ("CREATE INDEX ON items USING hnsw ((e::halfvec(5000)) halfvec_l2_ops)", "binary_quantize"),
        ("CREATE INDEX ON items USING hnsw ((CAST(e AS halfvec(5000))) halfvec_l2_ops)", "binary_quantize"),
        ("CREATE INDEX ON items USING hnsw ((CAST (e AS public.vector(2001))) vector_ip_ops)", "halfvec_ip_ops"),
        ("CREATE INDEX ON items USING hnsw ((e::public.halfvec(5000)) public.halfvec_l2_ops)", "binary_quantize"),
        ("CREATE INDEX ON items USING ivfflat ((subvector(e, 1, 9)::vector(2002)) vector_l2_ops)", "2000"),
        ("ALTER TABLE items ADD COLUMN x vector(2001); CREATE INDEX ON items USING hnsw (x vector_l2_ops)", "2000"),
    ],
)
def test_index_over_the_limit_is_refused_before_a_file_runs(bench18: Bench, statement: str, words: str) -> None:
    bench18.write({"0001_a.sql": TABLE, "0002_i.sql": f"SELECT 1;\n{statement};"})
    result = bench18.run(check=True)
    assert "0002_i.sql, line 2: an index on " in result.get("msg", ""), result
    assert words in result["msg"]
    if "CONCURRENTLY" in statement:
        assert words in bench18.run()["msg"]
        assert not bench18.exists("items")
        bench18.run(target="1")
        assert words in bench18.run()["msg"]  # the column is in the database now


def test_the_fix_works_and_columns_are_returned(bench: Bench) -> None:
    index = "CREATE INDEX big ON items USING hnsw ((e::halfvec(3072)) halfvec_l2_ops) WHERE id::text <> ''"
    more = "CREATE INDEX small ON items USING hnsw (s halfvec_l2_ops); ALTER TABLE items ADD COLUMN free vector"
    bench.write({"0001_a.sql": TABLE, "0002_i.sql": f"{index};{more}"})
    result = bench.run()
    assert result["changed"] is True, result
    assert result["vector_version"] == "0.8.5"
    assert result["vector_columns"] == bench.run()["vector_columns"]
    assert result["vector_columns"] == [
        {"table": "public.items", "column": "e", "type": "vector", "dimensions": 3072,
         "indexes": [{"name": "big", "method": "hnsw", "valid": True}]},
        {"table": "public.items", "column": "s", "type": "halfvec", "dimensions": 3,
         "indexes": [{"name": "small", "method": "hnsw", "valid": True}]},
        {"table": "public.items", "column": "free", "type": "vector", "dimensions": None, "indexes": []},
    ]  # fmt: skip


def test_invalid_index_shows(bench18: Bench) -> None:
    bench18.write({"0001_a.sql": TABLE})
    bench18.run()
    with bench18.connect() as connection:
        connection.execute("ALTER TABLE items DROP COLUMN e, ADD COLUMN e vector(1) DEFAULT '[1]'")
        connection.execute("INSERT INTO items SELECT FROM generate_series(1, 2)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON items (e)")
    assert bench18.run()["vector_columns"][1]["indexes"] == [{"name": "broken", "method": "btree", "valid": False}]


def test_extension_is_created_and_updated(bench: Bench) -> None:
    bench.write({"0001_a.sql": "CREATE TABLE items (e vector(3))"})
    for check in (True, False):
        result = bench.run(check=check, vector_extension="present")
        assert result["extension_changes"] == ["CREATE EXTENSION vector"], result
    assert bench.run(vector_extension="latest")["changed"] is False
    bench.execute("UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector'")
    assert bench.run(vector_extension="present")["changed"] is False
    bench.write({"0002_b.sql": "CREATE TABLE more (e vector(3))"})
    refused = bench.run()
    assert (
        "pgvector 0.8.0 is in this database, where HNSW indexes can become corrupt and CVE-2026-3172" in refused["msg"]
    )
    assert bench.run(check=True, allowed_vector_versions=["0.8.0"])["changed"] is True
    for check in (True, False):
        result = bench.run(check=check, vector_extension="latest")
        assert result["extension_changes"] == ["ALTER EXTENSION vector UPDATE"], result
    assert result["vector_version"] == "0.8.5"
    assert bench.exists("more")


@pytest.mark.parametrize(("version", "cve"), [("0.5.1", False), ("0.6.0", True), ("0.8.1", True), ("0.8.3", False)])
def test_known_bad_versions(version: str, cve: bool) -> None:
    with pytest.raises(StateError) as caught:
        _pgvector.refuse_bad_version(version, ())
    assert ("CVE" in str(caught.value)) is cve
    _pgvector.refuse_bad_version(version, [version])
    for good in ("0.8.4", "0.8.5", "0.9.0", "1.0", None):
        _pgvector.refuse_bad_version(good, ())


def test_size_of_shared_memory() -> None:
    mounts = "proc /proc proc rw 0 0\nshm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0\n"
    assert _pgvector.shared_bytes(mounts) == 64 * 2**20
    assert _pgvector.shared_bytes("tmpfs /dev/shm tmpfs rw,nosuid 0 0\n") is None


def test_memory_above_dev_shm_is_a_warning(bench18: Bench) -> None:
    (mounts,) = bench18.query("SELECT pg_read_file('/proc/mounts')")[0]
    size = _pgvector.shared_bytes(mounts)
    bench18.write({"0001_a.sql": TABLE + "CREATE INDEX ON items USING hnsw (s halfvec_l2_ops)"})
    bench18.execute(f"ALTER DATABASE {bench18.database} SET maintenance_work_mem = '1024GB'")
    found = bench18.run(check=True)
    assert ("shm_size" in str(found.get("warnings"))) is (size is not None and size < 2**40), found


@pytest.mark.parametrize(
    ("first", "second", "warned"),
    [
        ("SET maintenance_work_mem = '1TB'", "CREATE INDEX ON items USING hnsw (s halfvec_l2_ops)", True),
        ("SET LOCAL maintenance_work_mem TO 1073741823", "CREATE INDEX ON items USING hnsw (s halfvec_l2_ops)", True),
        ("SET maintenance_work_mem = '1TB'", "CREATE INDEX ON items USING ivfflat (s halfvec_l2_ops)", False),
        ("SET maintenance_work_mem = '1TB'", "CREATE INDEX ON items (id)", False),
        (
            "SET maintenance_work_mem = '1TB'; RESET maintenance_work_mem",
            "CREATE INDEX ON items USING hnsw (s halfvec_l2_ops)",
            False,
        ),
    ],
)
def test_memory_that_a_file_sets_counts(bench: Bench, first: str, second: str, warned: bool) -> None:
    known = _pgvector.shared_bytes(bench.query("SELECT pg_read_file('/proc/mounts')")[0][0])
    if known is None:
        pytest.skip("needs a /dev/shm whose size was set")
    bench.write({"0001_a.sql": f"{TABLE}{first};\n{second}"})
    found = bench.run(check=True)
    assert ("shm_size" in str(found.get("warnings"))) is warned, found


def test_plain_role_may_build_a_vector_index(bench: Bench) -> None:
    role = f"builder_{bench.database}"
    bench.execute(f"CREATE EXTENSION vector; CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    bench.execute(f"ALTER DATABASE {bench.database} OWNER TO {role}")
    bench.write({"0001_a.sql": "CREATE TABLE items (e vector(3)); CREATE INDEX ON items USING hnsw (e vector_l2_ops)"})
    assert bench.run(login_user=role, login_password="plain").get("changed") is True
