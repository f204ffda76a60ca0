# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Names, marks, versions, roles and statements of pg_restore."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import FileEntry, read_entry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import Component, Manifest, write_manifest
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import (
    LIVE,
    STAGED,
    Dump,
    Names,
    client_major,
    differences,
    extension_differences,
    fitted,
    listed,
    load,
    mark_in,
    require_versions,
    unmarked,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_check import shared
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_load import (
    container_folder,
    first_errors,
    fix_for,
    target_argument,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_roles import missing_roles
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import (
    create_statement,
    rights_queries,
    settings_statements,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_space import df_available
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_verify import Verification


@pytest.mark.parametrize(
    ("told", "free"),
    [
        (
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 100 40 60 40% /var/lib/my data\n",
            61440,
        ),
        ("Filesystem           1024-blocks    Used Available Capacity Mounted on\ntmpfs 100 100 -4 104% /data", -4096),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\nnone 0 0 0 - /data\n", 0),
        ("df: /data/base: Permission denied\n", None),
        ("", None),
    ],
)
def test_what_df_tells(told: str, free: int | None) -> None:
    assert df_available(told) == free


NAMES = Names("20261121T061200Z", "shop", "orders")
GLOBALS = r"""--
-- PostgreSQL database cluster dump
--

\restrict Zk3a9
SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b$c:d=';
CREATE ROLE "Odd "" role";
ALTER ROLE "Odd "" role" WITH NOLOGIN;
COMMENT ON ROLE "Odd "" role" IS 'semi; colon';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER LOGIN;
ALTER ROLE app SET search_path TO 'app', 'public';
ALTER ROLE app IN DATABASE other SET work_mem TO '1MB';
GRANT "Odd "" role" TO app WITH INHERIT TRUE GRANTED BY postgres;
GRANT pg_monitor TO postgres GRANTED BY "the boss";
GRANT SET ON PARAMETER work_mem TO app;
\unrestrict Zk3a9
"""


def test_names_tell_the_set() -> None:
    assert NAMES.staged == "orders_restore_20261121t061200z"
    assert NAMES.before() == "orders_before_20261121t061200z"
    assert NAMES.before(2) == "orders_before_20261121t061200z_2"


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=63))
def test_names_fit_and_stay_apart(name: str) -> None:
    ending = "_restore_20261121t061200z"
    fits = fitted(name, ending)
    assert len(fits.encode()) <= 63
    assert fits.endswith(ending)
    assert fits != fitted(f"{name}x", ending)
    assert (fits == name + ending) == (len((name + ending).encode()) <= 63)


@pytest.mark.parametrize("comment", [None, "The shop", "Two\nlines", "groundwork.restore by hand"])
def test_a_mark_goes_into_a_comment_and_out_again(comment: str | None) -> None:
    marked = NAMES.mark(STAGED).comment(comment)
    assert mark_in(marked) == NAMES.mark(STAGED)
    assert unmarked(marked) == comment
    again = NAMES.mark(LIVE, "orders_before").comment(marked)
    assert mark_in(again) == NAMES.mark(LIVE, "orders_before")
    assert unmarked(again) == comment


@pytest.mark.parametrize(
    "comment",
    [None, "", "text", "groundwork.restore {}", "groundwork.restore {no json}", 'groundwork.restore {"a": 1}'],
)
def test_what_is_no_mark(comment: str | None) -> None:
    assert mark_in(comment) is None


def dump(**changes: Any) -> Dump:
    component = Component("postgres", "shop", (FileEntry("database.dump", 5, "0" * 64),), "", 1.0)
    given = Dump(
        set_id=NAMES.set_id, component=component, folder=Path("/sets/x"), database="orders", format="custom",
        server_version="16.9", client_version="16.9", extensions={}, counts={}, properties=None, filter={},
    )  # fmt: skip
    return replace(given, **changes)


@pytest.mark.parametrize(
    ("format_", "files", "main", "compression"),
    [
        ("custom", ["database.dump", "globals.sql"], "database.dump", None),
        ("plain", ["globals.sql", "database.sql"], "database.sql", "none"),
        ("plain", ["database.sql.gz"], "database.sql.gz", "gzip"),
        ("plain", ["database.sql.zst"], "database.sql.zst", "zstd"),
        ("plain", ["database.sql.lz4"], "database.sql.lz4", "lz4"),
        ("directory", ["database.dir/toc.dat", "database.dir/3401.dat.gz"], "database.dir", None),
    ],
)
def test_which_file_the_client_is_given(format_: str, files: list[str], main: str, compression: str | None) -> None:
    entries = tuple(FileEntry(name, 7, "0" * 64) for name in files)
    given = dump(format=format_, component=Component("postgres", "shop", entries, "", 1.0))
    assert given.main_file == Path("/sets/x") / main
    assert given.globals_file == (Path("/sets/x/globals.sql") if "globals.sql" in files else None)
    assert given.data_bytes == 7 * (len(files) - ("globals.sql" in files))
    if compression:
        assert given.compression == compression


def written_set(folder: Path, **changes: Any) -> Path:
    facts = {
        "format": "custom", "database": "orders", "server_version": "16.9", "client_version": "16.9",
        "extensions": {}, "counts": {}, **changes,
    }  # fmt: skip
    place = folder / "components" / "shop"
    place.mkdir(parents=True)
    (place / "database.dump").write_bytes(b"12345")
    engine = facts.pop("engine", "postgres")
    component = Component(engine, "shop", (read_entry(place / "database.dump"),), "", 1.0, facts)
    write_manifest(folder, Manifest(NAMES.set_id, "s", "", 1.0, None, (), {}, (component,)))
    return folder


def verify(found: Dump, say: Callable[[int, int], None] = lambda done, total: None) -> None:
    with Verification(found, 2) as verification:
        verification.wait(say)


def test_a_component_is_loaded_and_its_files_are_compared(tmp_path: Path) -> None:
    found = load(written_set(tmp_path), "shop")
    said: list[tuple[int, int]] = []
    verify(found, lambda done, total: said.append((done, total)))
    assert said[-1] == (5, 5)
    (tmp_path / "components/shop/database.dump").write_bytes(b"12346")
    with pytest.raises(StateError, match="is not what the backup wrote"):
        verify(found)
    (tmp_path / "components/shop/database.dump").unlink()
    (tmp_path / "components/shop/database.dump").symlink_to("/etc/hostname")
    with pytest.raises(StateError, match="is not what the backup wrote"):
        verify(found)


def sparse(tmp_path: Path, size: int, sha256: str) -> Dump:
    with (tmp_path / "database.dump").open("wb") as file:
        file.truncate(size)
    component = Component("postgres", "shop", (FileEntry("database.dump", size, sha256),), "", 1.0)
    return dump(folder=tmp_path, component=component)


def test_a_verification_goes_on_where_the_one_beside_the_load_stopped(tmp_path: Path) -> None:
    size = (200 << 20) + 1
    found = sparse(tmp_path, size, hashlib.sha256(bytes(size)).hexdigest())
    with Verification(found, 2) as verification:
        verification.wait(lambda done, total: None)
        assert verification.complete


def test_a_verification_ends_with_its_block(tmp_path: Path) -> None:
    with Verification(sparse(tmp_path, 1 << 40, "0" * 64), 2) as verification:
        pass
    assert not verification.complete
    assert not any(thread.is_alive() for thread in verification._threads)


def test_a_damage_is_told_while_a_verification_runs_beside_something_else(tmp_path: Path) -> None:
    with Verification(sparse(tmp_path, 5, "0" * 64), 2) as verification:
        for thread in verification._threads:
            thread.join()
        with pytest.raises(StateError, match="is not what the backup wrote"):
            verification.check()
        with pytest.raises(StateError, match="is not what the backup wrote"):
            verification.wait(lambda done, total: None)


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        ({"format": "tar"}, "shop", "has the format 'tar', which this version does not know"),
        ({"format": "plain"}, "shop", r"does not list database\.sql"),
        ({"counts": None}, "shop", "does not tell counts, so a restore could not be checked"),
        ({"engine": "redis"}, "shop", "is of engine 'redis'"),
        ({}, "other", "has no component 'other'; it has shop"),
    ],
)
def test_a_component_that_cannot_be_restored(tmp_path: Path, changes: dict[str, Any], name: str, sentence: str) -> None:
    with pytest.raises((StateError, InputError), match=sentence):
        load(written_set(tmp_path, **changes), name)


def test_versions_that_go_together() -> None:
    require_versions(dump(), client="16.1", server="16.2", server_major=16, where="/b")
    require_versions(dump(), client="18.0", server="18.0", server_major=18, where="/b")
    assert client_major(dump(client_version="18beta1"), 16) == 18
    with pytest.raises(StateError, match=r"is of a server of version 16\.9, and this server is older \(15\.1\)"):
        require_versions(dump(), client="16.1", server="15.1", server_major=15, where="/b")
    with pytest.raises(DependencyError, match=r"pg_restore 17 or newer is needed .* found 16\.1 in /b"):
        require_versions(dump(client_version="17.2"), client="16.1", server="16.2", server_major=16, where="/b")
    with pytest.raises(DependencyError, match="pg_restore 18 or newer"):
        require_versions(dump(), client="16.1", server="18.0", server_major=18, where="/b")


def test_differences_of_rows_and_extensions() -> None:
    assert differences({"a.b": 1, "c": 2}, {"a.b": 1, "c": 2}) == []
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == [
        "a is missing (1 rows)",
        "b has 3 rows instead of 2",
        "c was not in the dump (4 rows)",
    ]
    missing, other = extension_differences({"vector": "0.8.0", "gone": "1"}, {"vector": "0.8.5", "more": "1"})
    assert missing == ["gone"]
    assert other == ["Extension vector is 0.8.5 here and was 0.8.0 in the dump."]
    assert listed(list("abc"), 2) == "a, b, and 1 more"


def test_only_missing_roles_are_made_with_what_is_theirs() -> None:
    found = missing_roles(GLOBALS, {"postgres", "pg_monitor"}, "globals.sql")
    assert found.roles == ("app", 'Odd " role')
    assert found.statements == (
        "CREATE ROLE app",
        "ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b$c:d='",
        'CREATE ROLE "Odd "" role"',
        'ALTER ROLE "Odd "" role" WITH NOLOGIN',
        'COMMENT ON ROLE "Odd "" role" IS \'semi; colon\'',
        "ALTER ROLE app SET search_path TO 'app', 'public'",
        'GRANT "Odd "" role" TO app WITH INHERIT TRUE',
    )


def test_nothing_is_altered_when_every_role_exists() -> None:
    found = missing_roles(GLOBALS, {"postgres", "pg_monitor", "app", 'Odd " role'}, "globals.sql")
    assert (found.roles, found.statements) == ((), ())


@pytest.mark.parametrize(
    ("properties", "major", "statement"),
    [
        ({}, 18, 'CREATE DATABASE "a""b" TEMPLATE template0'),
        (
            {"owner": "o", "encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C", "provider": "libc", "locale": None},
            16,
            'CREATE DATABASE "a""b" TEMPLATE template0 OWNER "o" LOCALE_PROVIDER libc ENCODING \'UTF8\' '
            "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C'",
        ),
        (
            {"collate": "C", "ctype": "C", "provider": "icu", "locale": "de-DE", "icu_rules": "&a < b"},
            16,
            "CREATE DATABASE \"a\"\"b\" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < b' "
            "LC_COLLATE 'C' LC_CTYPE 'C'",
        ),
        (
            {"collate": "C", "ctype": "C", "provider": "builtin", "locale": "C.UTF-8"},
            17,
            'CREATE DATABASE "a""b" TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE \'C.UTF-8\' '
            "LC_COLLATE 'C' LC_CTYPE 'C'",
        ),
        ({"collate": "C"}, 14, 'CREATE DATABASE "a""b" TEMPLATE template0 LC_COLLATE \'C\''),
    ],
)
def test_create_database(properties: dict[str, Any], major: int, statement: str) -> None:
    assert create_statement('a"b', properties, major) == statement


def test_a_locale_that_an_old_server_cannot_have() -> None:
    with pytest.raises(StateError, match="needs PostgreSQL 15"):
        create_statement("a", {"provider": "icu", "collate": "C"}, 14)


def test_settings_get_the_name_and_keep_their_percent_signs() -> None:
    settings = [
        "ALTER DATABASE %I SET \"work_mem\" TO '7MB';",
        'ALTER ROLE "100%%I" IN DATABASE %I SET "x.y" TO \'%%m %%I\';',
    ]
    assert settings_statements('a"%b', {"settings": settings, "connection_limit": 5}) == [
        'ALTER DATABASE "a""%b" SET "work_mem" TO \'7MB\';',
        'ALTER ROLE "100%I" IN DATABASE "a""%b" SET "x.y" TO \'%m %I\';',
        'ALTER DATABASE "a""%b" CONNECTION LIMIT 5',
    ]
    assert settings_statements("a", {"connection_limit": -1}) == []


def test_rights_are_the_servers_own_or_the_recorded_ones() -> None:
    (own,) = rights_queries("a", None)
    assert own == "SELECT 'GRANT CONNECT, TEMPORARY ON DATABASE \"a\" TO PUBLIC';"
    revoked, granted = rights_queries("a", ["=T/o", "it's=c/o"])
    assert "REVOKE ALL ON DATABASE" in revoked
    assert "aclexplode((ARRAY['=T/o', 'it''s=c/o']::text[])::aclitem[])" in granted


def test_names_of_databases_are_no_options() -> None:
    assert target_argument("it's\\") == "--dbname=dbname='it\\'s\\\\'"
    assert container_folder("/tmp/", "a").startswith("/tmp/groundwork-pg_restore-")
    assert container_folder("/tmp", "a") == container_folder("/tmp/", "a") != container_folder("/tmp", "b")


def test_errors_are_told_without_the_rows_they_quote() -> None:
    told = (
        'pg_restore: creating TABLE "public.t"\n'
        'pg_restore: error: COPY failed for table "t": ERROR:  duplicate key\n'
        "DETAIL:  Key (id)=(1) already exists.\n"
        'CONTEXT:  COPY t, line 2: "1	secret row"\n'
        "DETAIL:  Failing row contains (1, secret row).\n"
    )
    assert first_errors(told) == (
        'pg_restore: error: COPY failed for table "t": ERROR:  duplicate key\nDETAIL:  Key (id)=(1) already exists.'
    )
    assert first_errors("") == "it printed nothing"
    assert first_errors("one\nodd line") == "one\nodd line"


@pytest.mark.parametrize(
    ("told", "fix"),
    [
        ("could not resize shared memory segment: No space left on device", "shm_size"),
        ('could not extend file "base/1/2": No space left on device', "Free space on the server's disk"),
        ('ERROR:  role "x" does not exist', "roles: true"),
        ('extension "postgis" is not available', "Install the extension's package"),
        ("something else", ""),
    ],
)
def test_what_to_do(told: str, fix: str) -> None:
    assert fix in fix_for(told)
    assert bool(fix) == bool(fix_for(told))


@given(st.dictionaries(st.integers(1, 10**6).map(str), st.integers(0, 10**9), max_size=30), st.integers(1, 8))
def test_tables_are_shared_out_once_each_and_evenly(sizes: dict[str, int], parts: int) -> None:
    shares = shared(sizes, parts)
    assert len(shares) == parts
    assert sorted(oid for share in shares for oid in share) == sorted(map(int, sizes))
    loads = [sum(sizes[str(oid)] + 1 for oid in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0) + 1
