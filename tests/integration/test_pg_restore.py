# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_restore against real servers: what is restored, how it becomes live, how that is taken back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support import backup_sets
from support.backup_sets import Sets
from support.modules import ModuleRunner
from support.postgres import PostgresServer
from support.restores import LIVE_ROW, Bench

SCHEMA = """
CREATE EXTENSION vector;
CREATE SCHEMA "Odd schema";
CREATE TABLE public.claims (id int PRIMARY KEY, body text, embedding vector(3));
INSERT INTO public.claims SELECT i, 'claim ' || i, ARRAY[i, 1, 2]::vector(3) FROM generate_series(1, 500) AS i;
CREATE INDEX claims_embedding ON public.claims USING hnsw (embedding vector_l2_ops);
CREATE TABLE "Odd schema"."it's a ""table"" x" (id int REFERENCES public.claims);
INSERT INTO "Odd schema"."it's a ""table"" x" SELECT generate_series(1, 7);
CREATE TABLE public.parted (id int) PARTITION BY RANGE (id);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
INSERT INTO public.parted SELECT generate_series(1, 4);
"""
COUNTS = {"public.claims": 500, 'Odd schema.it\'s a "table" x': 7, "public.parted_low": 4}
_numbers = itertools.count(1)


def source(server: PostgresServer) -> str:
    """The database that the sets are of."""
    name = f"source_{server.major}"
    return server.create_database(
        name,
        f"CREATE ROLE shop_owner_{server.major} LOGIN PASSWORD 'owned'",
        f"CREATE ROLE shop_reader_{server.major} LOGIN PASSWORD 'read'",
        f"ALTER DATABASE {name} OWNER TO shop_owner_{server.major}",
        f"ALTER DATABASE {name} SET work_mem TO '7MB'",
        f"COMMENT ON DATABASE {name} IS 'The shop'",
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO shop_reader_{server.major}",
        SCHEMA,
    )


def live() -> str:
    """The name of a live database, for one test."""
    return f"live_{next(_numbers)}"


@pytest.fixture(scope="module")
def made16(sets: Sets, postgres16: PostgresServer) -> Path:
    return sets.dump(postgres16, source(postgres16), compression="none")


@pytest.fixture(scope="module")
def made18(sets: Sets, postgres18: PostgresServer) -> Path:
    return sets.dump(postgres18, source(postgres18), compression="none")


@pytest.fixture(params=[16, 18], ids=["pg16", "pg18"])
def each(request: pytest.FixtureRequest, module: ModuleRunner) -> Bench:
    """Each of the supported servers in turn."""
    server = request.getfixturevalue(f"postgres{request.param}")
    return Bench(module, server, request.getfixturevalue(f"made{request.param}"), live())


@pytest.fixture
def bench(module: ModuleRunner, postgres18: PostgresServer, made18: Path) -> Bench:
    """For what does not depend on the server's version."""
    return Bench(module, postgres18, made18, live())


@pytest.fixture
def own(module: ModuleRunner, postgres18: PostgresServer, sets: Sets, request: pytest.FixtureRequest) -> Any:
    """Makes benches with a set of their own, from SQL."""

    def make(script: str, change: Any = None, **more: Any) -> Bench:
        name = postgres18.create_database(f"own_{next(_numbers)}", script)
        return Bench(module, postgres18, sets.dump(postgres18, name, change, **more), live())

    return make


def test_a_database_that_is_gone_comes_back_whole(each: Bench) -> None:
    planned = each.run("restore", check=True)
    assert planned["changed"] is True, planned
    assert planned["actions"][-1] == f"rename database {each.staged} to {each.live}"
    assert each.databases() == set()

    result = each.done("restore")
    assert result["actions"] == planned["actions"]
    assert result["counts"] == COUNTS
    assert result["extensions"].keys() == {"plpgsql", "vector"}
    assert (result["database"], result["staged"], result["before"]) == (each.live, None, None)
    assert each.databases() == {each.live}
    assert each.execute("SELECT count(*) FROM parted") == [(4,)]
    major = each.server.major
    told = each.execute(
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, current_setting('work_mem') "
        "FROM pg_database WHERE datname = current_database()"
    )
    assert told == [(f"shop_owner_{major}", "UTF8", "C.UTF-8", "7MB")]
    assert each.execute(f"SELECT has_database_privilege('shop_reader_{major}', current_database(), 'CONNECT')")[0][0]
    assert not each.execute("SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')")[0][0]

    for check in (True, False):
        again = each.run("restore", check=check)
        assert again["changed"] is False, again
        assert "set again: true" in json.dumps(again["warnings"])
    final = each.done("discard", before=True)
    assert final["actions"] == [f"make the restore of database {each.live} final"]
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert each.execute(comment) == [("The shop",)]


def test_the_vector_index_is_there_and_is_used(each: Bench) -> None:
    each.done("restore", jobs=2)
    with each.server.connect(each.live) as connection:
        connection.execute("SET enable_seqscan = off")
        nearest = "SELECT id FROM claims ORDER BY embedding <-> '[42,1,2]' LIMIT 1"
        assert "claims_embedding" in str(connection.execute(f"EXPLAIN {nearest}".encode()).fetchall())
        assert connection.execute(nearest.encode()).fetchall() == [(42,)]
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'claims_embedding'::regclass"
        assert connection.execute(valid).fetchall() == [(True,)]


def test_the_planner_has_statistics_before_the_database_is_live(bench: Bench) -> None:
    bench.done("stage")
    known = "SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename = 'claims'"
    assert bench.execute(known, bench.staged)[0][0] > 0


def test_a_live_database_is_replaced_with_force_only_and_is_kept(bench: Bench) -> None:
    bench.make_live()
    refused = bench.run("restore")
    assert refused["failed"]
    assert f"Set force: true; the present one is kept as {bench.before}." in refused["msg"]
    bench.require_untouched()

    planned = bench.run("restore", check=True, force=True)
    bench.require_untouched()
    result = bench.done("restore", force=True)
    assert result["actions"] == planned["actions"]
    assert result["diff"] == planned["diff"]
    assert result["before"] == bench.before
    assert bench.databases() == {bench.live, bench.before}
    assert bench.execute("SELECT count(*) FROM claims") == [(500,)]
    assert bench.execute("SELECT note FROM present", bench.before) == LIVE_ROW
    assert bench.run("restore", force=True)["changed"] is False


def test_stage_and_swap_are_steps_that_each_happen_once(bench: Bench) -> None:
    bench.make_live()
    early = bench.run("swap")
    assert f"There is no database '{bench.staged}' to make the live one" in early["msg"]

    staged = bench.done("stage")
    assert (staged["staged"], staged["counts"]) == (bench.staged, COUNTS)
    assert bench.execute("SELECT note FROM present") == LIVE_ROW
    for check in (True, False):
        once_more = bench.run("stage", check=check)
        assert (once_more["changed"], once_more["staged"], once_more["counts"]) == (False, bench.staged, COUNTS)
    assert bench.run("swap", check=True)["changed"] is True
    assert bench.databases() == {bench.live, bench.staged}

    swapped = bench.done("swap")
    assert (swapped["staged"], swapped["before"], swapped["live_from_set"]) == (None, bench.before, True)
    assert bench.execute("SELECT count(*) FROM claims") == [(500,)]
    assert bench.run("swap")["changed"] is False
    assert bench.run("stage")["changed"] is False


def test_a_set_is_restored_again_when_asked_and_every_database_before_is_kept(bench: Bench) -> None:
    bench.make_live()
    bench.done("restore", force=True)
    bench.execute("DELETE FROM claims WHERE id > 10")
    result = bench.done("restore", force=True, again=True)
    assert result["before"] == f"{bench.before}_2"
    assert bench.execute("SELECT count(*) FROM claims") == [(500,)]
    assert bench.databases() == {bench.live, bench.before, f"{bench.before}_2"}
    bench.done("discard", before=True)
    assert bench.databases() == {bench.live}
    assert bench.run("discard", before=True)["changed"] is False


def test_revert_brings_back_what_was_live_and_keeps_what_was_written_since(bench: Bench) -> None:
    bench.make_live()
    assert bench.run("revert")["changed"] is False
    bench.done("restore", force=True)
    bench.execute("INSERT INTO parted VALUES (9)")
    planned = bench.run("revert", check=True)
    assert bench.execute("SELECT count(*) FROM parted") == [(5,)]
    reverted = bench.done("revert")
    assert reverted["actions"] == planned["actions"]
    assert reverted["diff"] == planned["diff"]
    assert bench.execute("SELECT note FROM present") == LIVE_ROW
    assert bench.execute("SELECT count(*) FROM parted", bench.staged) == [(5,)]
    assert bench.run("revert")["changed"] is False
    refused = bench.run("swap")
    assert "is not complete (its state is reverted)" in refused["msg"]

    bench.done("stage")
    assert bench.execute("SELECT count(*) FROM parted", bench.staged) == [(4,)]
    assert bench.run("discard", check=True)["changed"] is True
    bench.done("discard")
    bench.require_untouched()


def test_a_restore_that_is_final_is_not_taken_back_and_what_was_live_before_is_kept(bench: Bench) -> None:
    bench.make_live()
    bench.done("restore", force=True)
    assert bench.run("finish", check=True)["changed"] is True
    assert bench.done("finish")["live_from_set"] is False
    assert bench.run("finish")["changed"] is False
    assert bench.run("revert")["changed"] is False
    assert bench.databases() == {bench.live, bench.before}
    bench.done("discard", before=True)
    assert bench.databases() == {bench.live}


def test_a_database_that_was_live_is_kept_under_a_name_of_its_own(bench: Bench) -> None:
    bench.make_live()
    reverted = f"{bench.live}_reverted_{bench.set_path.name.lower()}"
    for name in (reverted, f"{reverted}_2"):
        bench.done("restore", force=True)
        bench.execute("INSERT INTO parted VALUES (9)")
        bench.done("revert")
        assert bench.run("discard", keep_reverted=True, check=True)["changed"] is True
        kept = bench.done("discard", keep_reverted=True)
        assert f"{name!r} is what was live" in str(kept["warnings"])
        assert bench.execute("SELECT count(*) FROM parted", name) == [(5,)]
    bench.done("stage")
    bench.done("discard", keep_reverted=True, before=True)
    assert bench.execute("SELECT note FROM present") == LIVE_ROW
    assert bench.databases() == {bench.live, reverted, f"{reverted}_2"}


@pytest.mark.parametrize("damage", ["gone", "manifest"])
def test_a_swap_is_taken_back_without_its_set(bench: Bench, tmp_path: Path, damage: str) -> None:
    bench.make_live()
    bench.done("restore", force=True)
    bench.set_path = tmp_path / bench.set_path.name
    if damage == "manifest":
        bench.set_path.mkdir()
        (bench.set_path / "manifest.json").write_text("{")
    refused = bench.run("stage")
    assert refused["failed"], refused
    assert bench.run("revert", database=None)["failed"]
    reverted = bench.done("revert")
    assert reverted["component"]["set"] == bench.set_path.name
    bench.done("discard")
    bench.require_untouched()


def test_a_revert_without_a_database_before_takes_the_name_away(bench: Bench) -> None:
    bench.done("restore")
    bench.done("revert")
    assert bench.databases() == {bench.staged}


@pytest.mark.parametrize(
    "more",
    [
        {"format": "directory", "jobs": 2},
        {"format": "plain"},
        {"format": "plain", "compression": "gzip"},
        {"compression": "gzip:1"},
        {"tables": ["public.claims", '"Odd schema".*']},
    ],
    ids=["directory", "plain", "plain-gzip", "custom-gzip", "some-tables"],
)
def test_every_format_restores(own: Any, more: dict[str, Any]) -> None:
    bench = own(SCHEMA, **more)
    result = bench.done("restore", jobs=2)
    expected = {name: rows for name, rows in COUNTS.items() if "tables" not in more or "parted" not in name}
    assert result["counts"] == expected
    assert bench.execute("SELECT count(*) FROM claims") == [(500,)]
    assert bench.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'claims_embedding'::regclass") == [(True,)]


def test_a_set_without_properties_takes_those_of_the_live_database(own: Any) -> None:
    bench = own(SCHEMA, lambda component, _dest: component.pop("properties", None))
    bench.make_live()
    bench.execute(f"ALTER DATABASE {bench.live} SET work_mem TO '9MB'")
    bench.execute(f"REVOKE CONNECT ON DATABASE {bench.live} FROM PUBLIC")
    bench.execute(f"ALTER ROLE postgres IN DATABASE {bench.live} SET search_path TO claims, \"$user\", 'odd one'")
    bench.done("restore", force=True)
    assert bench.execute("SELECT current_setting('work_mem')") == [("9MB",)]
    assert bench.execute("SHOW search_path") == [('claims, "$user", "odd one"',)]
    assert not bench.execute("SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')")[0][0]


def test_a_set_without_properties_on_an_empty_server_is_a_warning(own: Any) -> None:
    bench = own("CREATE TABLE t (id int)", lambda component, _dest: component.pop("properties", None))
    result = bench.done("restore")
    assert "it gets the server's defaults" in json.dumps(result["warnings"])
    assert bench.execute("SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')") == [(True,)]


def test_missing_roles_are_created_and_others_are_left_alone(own: Any) -> None:
    names = [f"{kind}_{next(_numbers)}" for kind in ("group", "member", "keeper")]
    group, member, keeper = names
    create = (
        f"CREATE ROLE {group}; CREATE ROLE {member} LOGIN PASSWORD 'of-the-set'; CREATE ROLE {keeper} PASSWORD 'old';"
        f"GRANT {group} TO {member}, {keeper}; ALTER ROLE {member} SET work_mem TO '5MB';"
        f"CREATE TABLE t (id int); ALTER TABLE t OWNER TO {group}"
    )
    bench = own(create)
    origin = backup_sets.component_of(bench.set_path)["database"]
    bench.execute(f"DROP DATABASE {origin}", "postgres")
    bench.execute(f"DROP ROLE {group}; DROP ROLE {member}; ALTER ROLE {keeper} PASSWORD 'new'", "postgres")
    verifier = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{keeper}'"
    kept = bench.execute(verifier, "postgres")

    result = bench.done("restore")
    assert {f"create role {group}", f"create role {member}"} <= set(result["actions"])
    assert f"create role {keeper}" not in result["actions"]
    with psycopg.connect(bench.server.dsn(bench.live, member, "of-the-set")) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert bench.execute(f"SELECT pg_has_role('{keeper}', '{group}', 'MEMBER')") == [(True,)]
    assert bench.execute(verifier, "postgres") == kept


def test_a_scratch_restore_for_a_drill(bench: Bench) -> None:
    bench.make_live()
    target = f"{bench.live}_drill"
    result = bench.done("stage", target=target)
    assert (result["staged"], result["counts"]) == (target, COUNTS)
    assert bench.databases() == {bench.live, target}
    assert bench.run("stage", target=target)["changed"] is False
    bench.execute("SELECT 1", target)
    assert bench.execute("SELECT count(*) FROM claims", target) == [(500,)]


def test_a_target_that_exists_is_refused_without_force(bench: Bench) -> None:
    bench.make_live()
    target = f"{bench.live}_other"
    bench.server.create_database(target)
    bench.execute("CREATE TABLE precious (id int)", target)
    refused = bench.run("stage", target=target)
    assert "exists already. Use another name, or force: true to replace it." in refused["msg"]
    assert bench.execute("SELECT count(*) FROM precious", target) == [(0,)]
    bench.done("stage", target=target, force=True)
    assert bench.execute("SELECT count(*) FROM claims", target) == [(500,)]
    live = bench.run("stage", target=bench.live, force=True)
    assert "exists and is the live database" in live["msg"]
    own_database = bench.run("stage", target="template1", force=True)
    assert "is a database of the server itself" in own_database["msg"]
    assert bench.execute("SELECT note FROM present") == LIVE_ROW


def test_a_database_that_is_not_ours_is_never_dropped(bench: Bench) -> None:
    bench.server.create_database(bench.staged)
    bench.execute("CREATE TABLE precious (id int)", bench.staged)
    for action in ("stage", "discard"):
        refused = bench.run(action)
        assert refused["failed"]
        assert "not made by pg_restore" in refused["msg"]
    assert bench.execute("SELECT count(*) FROM precious", bench.staged) == [(0,)]
    bench.execute("DROP TABLE precious", bench.staged)
    bench.done("stage")  # an empty one is what a run leaves that was cut off at the first moment


@pytest.mark.parametrize("live", ["x" * 60, "ä" * 31, 'it\'s "odd" = % \\ name'], ids=["long", "cut", "odd"])
def test_names_of_every_kind(bench: Bench, live: str) -> None:
    bench.live = live
    with bench.server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(live)))
        try:
            result = bench.done("restore", force=True)
            assert bench.execute("SELECT count(*) FROM claims") == [(500,)]
            kept = [name for (name,) in bench.execute("SELECT datname FROM pg_database") if "_before_" in name]
            assert result["before"] in kept
            assert len(result["before"].encode()) <= 63
            bench.done("revert")
            bench.done("discard", before=True)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(live)))


def test_the_postgres_database_itself_needs_another_maintenance_database(bench: Bench) -> None:
    bench.live = "postgres"
    refused = bench.run("stage")
    assert "Set it to another, as template1." in refused["msg"]
