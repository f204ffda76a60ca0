# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What pg_backup asks of PostgreSQL's client programs, and which of them it takes."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils import _psql
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    InputError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import (
    Compression,
    Filter,
    Job,
    check_jobs,
    check_time,
    dump_arguments,
    globals_arguments,
    list_arguments,
    parse_compression,
    require_client,
    require_reader,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_container import (
    application_name,
    is_over,
    run_name,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_directory import shares
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_facts import setting_statement
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_meter import Meter
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_plain import PlainReader, require_complete
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress
from ansible_collections.groundwork.backend.plugins.module_utils._psql import (
    Tools,
    environment,
    host_folder,
    major,
    parse_version,
)

JOB = Job("it's", "name", Path("/b"), compression=Compression("gzip", 6), lock_timeout="30s")
PARAMS = {
    "login_host": None, "login_port": 5432, "login_user": "postgres", "login_password": "canary-77",
    "database": "a=b", "ssl_mode": "prefer", "ca_cert": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "version", "number"),
    [
        ("pg_dump (PostgreSQL) 16.9\n", "16.9", 16),
        ("pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", "15.14", 15),
        ("pg_dump (PostgreSQL) 18beta1\n", "18beta1", 18),
        ("pg_dump (PostgreSQL) 9.6.24\n", "9.6.24", 9),
    ],
)
def test_versions(text: str, version: str, number: int) -> None:
    assert parse_version(text) == version
    assert major(version) == number


def test_a_program_that_tells_no_version() -> None:
    with pytest.raises(DependencyError, match="which tells no version"):
        parse_version("pg_dump, of a kind")


@pytest.mark.parametrize(
    ("text", "dump_format", "client", "arguments", "told"),
    [
        (None, "custom", "15.1", ["--compress=6"], "gzip"),
        (None, "directory", "15.1", ["--compress=6"], "gzip"),
        (None, "plain", "15.1", ["--compress=0"], "none"),
        ("none", "custom", "15.1", ["--compress=0"], "none"),
        ("0", "custom", "15.1", ["--compress=0"], "none"),
        ("6", "plain", "15.1", ["--compress=6"], "gzip:6"),
        ("gzip", "plain", "15.1", ["--compress=6"], "gzip"),
        ("gzip:9", "custom", "15.1", ["--compress=9"], "gzip:9"),
        ("lz4", "custom", "16.1", ["--compress=lz4"], "lz4"),
        ("zstd:19", "plain", "18beta1", ["--compress=zstd:19"], "zstd:19"),
    ],
)
def test_compression(text: str | None, dump_format: str, client: str, arguments: list[str], told: str) -> None:
    compression = parse_compression(text, dump_format)
    assert compression.arguments(client) == arguments
    assert str(compression) == told


@pytest.mark.parametrize("text", ["", "bzip2", "10", "gzip:", "zstd:x", "none:1", "-1"])
def test_compression_that_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not known"):
        parse_compression(text, "custom")


@pytest.mark.parametrize(("text", "highest"), [("gzip:10", 9), ("gzip:0", 9), ("lz4:13", 12), ("zstd:23", 22)])
def test_levels_that_are_refused(text: str, highest: int) -> None:
    with pytest.raises(InputError, match=rf"does not have\. Use a level from 1 to {highest}"):
        parse_compression(text, "custom")


def test_new_methods_need_a_new_client() -> None:
    with pytest.raises(DependencyError, match=r"zstd needs pg_dump 16 or newer, found 15\.14"):
        Compression("zstd", 3).arguments("15.14")


def test_a_compressed_plain_dump_needs_a_program_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("db", "name", Path("/b"), "plain", Compression("zstd"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DependencyError, match=r"the program zstd is needed .* Install Debian's package zstd"):
        require_reader(job)
    require_reader(Job("db", "name", Path("/b"), "plain", Compression("zstd"), read_in_full=False))
    require_reader(Job("db", "name", Path("/b"), "custom", Compression("zstd")))


@pytest.mark.parametrize(
    ("dump_format", "compression", "name"),
    [
        ("custom", Compression("zstd"), "database.dump"),
        ("directory", Compression("zstd"), "database.dir"),
        ("plain", Compression(), "database.sql"),
        ("plain", Compression("gzip", 9), "database.sql.gz"),
        ("plain", Compression("lz4"), "database.sql.lz4"),
        ("plain", Compression("zstd"), "database.sql.zst"),
    ],
)
def test_names_of_dumps(dump_format: str, compression: Compression, name: str) -> None:
    job = Job("db", "name", Path("/b"), dump_format, compression)
    assert job.names == [name, "globals.sql"]


def test_jobs() -> None:
    assert check_jobs(4, "directory") == 4
    assert check_jobs(1, "plain") == 1
    with pytest.raises(InputError, match="Set format to directory"):
        check_jobs(2, "custom")
    with pytest.raises(InputError, match="needs at least one"):
        check_jobs(0, "directory")


@pytest.mark.parametrize("text", ["0", "200ms", "30s", "5min", "1h"])
def test_times(text: str) -> None:
    assert check_time(text) == text


@pytest.mark.parametrize("text", ["", "5m", "-1", "1 h", "0'; DROP TABLE x; --"])
def test_times_that_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no time"):
        check_time(text)


def test_the_client_must_not_be_older() -> None:
    require_client("18.0", "16.9", 16, "/x")
    require_client("16.1", "16.9", 16, "/x")
    with pytest.raises(
        DependencyError, match=r"pg_dump 16 or newer is needed .* found 15\.14 in /x\. Install Debian's"
    ):
        require_client("15.14", "16.9", 16, "/x")


def test_arguments() -> None:
    assert dump_arguments(JOB, "0003-1", "16.9") == [
        "--format=custom", "--no-password", "--snapshot=0003-1", "--lock-wait-timeout=30s", "--compress=6",
    ]  # fmt: skip
    assert globals_arguments(JOB) == ["--globals-only", "--no-password", "--database=dbname='it\\'s'"]
    parallel = Job("db", "name", Path("/b"), "directory", Compression("gzip"), jobs=3)
    assert "--jobs=3" in dump_arguments(parallel, "0003-1", "16.9")


def test_patterns_are_handed_on_and_include_the_extensions() -> None:
    chosen = Filter(schemas=('"Mixed"', "app*"), exclude_tables=("audit.log_?",))
    assert chosen.arguments("16.9") == [
        '--schema="Mixed"', "--schema=app*", "--strict-names", "--extension=*", "--exclude-table=audit.log_?",
    ]  # fmt: skip
    assert Filter(exclude_schemas=("old",)).arguments("16.9") == ["--exclude-schema=old"]
    assert "--extension=*" not in Filter(tables=("t",)).arguments("13.5")
    assert not Filter()
    assert chosen.to_dict() == {
        "schemas": ['"Mixed"', "app*"], "tables": [], "exclude_schemas": [], "exclude_tables": ["audit.log_?"],
    }  # fmt: skip
    job = Job("db", "name", Path("/b"), "plain", filter=chosen)
    listed = list_arguments(job, "0003-1", "16.9")
    assert listed[:2] == ["--format=custom", "--schema-only"]
    assert "--exclude-table=audit.log_?" in listed


@pytest.mark.parametrize(
    ("role", "setting", "statement"),
    [
        (None, "work_mem=64MB", "ALTER DATABASE %I SET \"work_mem\" TO '64MB';"),
        (None, 'search_path="$user", public', "ALTER DATABASE %I SET \"search_path\" TO '$user', 'public';"),
        (None, 'search_path="a, ""b""", c', "ALTER DATABASE %I SET \"search_path\" TO 'a, \"b\"', 'c';"),
        (None, "search_path=", "ALTER DATABASE %I SET \"search_path\" TO '';"),
        (None, 'search_path=""', "ALTER DATABASE %I SET \"search_path\" TO '';"),
        ("it's", "app.note=50% o'clock", "ALTER ROLE \"it's\" IN DATABASE %I SET \"app.note\" TO '50%% o''clock';"),
        (None, "app.path=C:\\x", "ALTER DATABASE %I SET \"app.path\" TO E'C:\\\\x';"),
        (None, "app.sum=a=b", "ALTER DATABASE %I SET \"app.sum\" TO 'a=b';"),
    ],
)
def test_settings_become_statements(role: str | None, setting: str, statement: str) -> None:
    assert setting_statement(role, setting) == statement


def test_the_login_is_in_the_environment_and_a_container_gets_names() -> None:
    env = environment(PARAMS, "run 1")
    assert env["PGPASSWORD"] == "canary-77"
    assert env["PGDATABASE"] == "a=b"
    assert "PGHOST" not in env
    argv = Tools(env, container="db").argv("pg_restore", "--file=/dev/null", stdin=True)
    assert argv[:3] == ["docker", "exec", "--interactive"]
    assert argv[-3:] == ["db", "pg_restore", "--file=/dev/null"]
    assert "PGPASSWORD" in argv
    assert "canary" not in " ".join(argv)
    assert Tools(env, folder=Path("/b")).argv("psql", "-X") == ["/b/psql", "-X"]


def test_a_run_is_over_when_its_process_is() -> None:
    mine = run_name()
    assert len(application_name(mine)) < 64, "PostgreSQL cuts longer names off"
    assert not is_over(mine)
    child = subprocess.Popen(["true"])
    boot, namespace, _pid, _start = mine.split(".")
    assert not is_over(f"{boot}.{namespace}.{os.getpid()}"), "no name of a run"
    child.wait()
    assert is_over(f"{boot}.{namespace}.{child.pid}.12345")
    assert is_over(f"{boot}.{namespace}.{os.getpid()}.1"), "another process has its number now"
    assert is_over(f"00000000.{namespace}.{os.getpid()}.1"), "the host was booted since"
    assert not is_over(f"{boot}.1.{child.pid}.12345"), "of another container of this host, nothing is known"


LISTING = """;
; Archive created at 2026-11-21
;
215; 1259 16391 TABLE public big postgres
3400; 0 16391 TABLE DATA public big postgres
3401; 0 16392 TABLE DATA public TABLE DATA postgres
3402; 0 16393 TABLE DATA public small postgres
3403; 0 0 BLOBS - BLOBS
3410; 2606 16400 CONSTRAINT public big big_pkey postgres
"""


def test_the_full_read_is_shared_out_by_size() -> None:
    sizes = {"toc.dat": 999, "3400.dat.gz": 100, "3401.dat.gz": 60, "3402.dat.gz": 30, "blobs_3403.toc": 5}
    parts = shares(LISTING, sizes, 2)
    assert [[line.partition(";")[0] for line in part.splitlines()] for part in parts] == [
        ["215", "3410", "3400"], ["3401", "3402", "3403"],
    ]  # fmt: skip
    assert len(shares(LISTING, sizes, 9)) == 4
    assert shares("; nothing\n", {}, 3) == [""]


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), unique_by=lambda each: each[0]), st.integers(1, 9))
def test_every_entry_is_read_by_exactly_one(entries: list[tuple[int, bool]], jobs: int) -> None:
    lines = [f"{number}; 0 1 {'TABLE DATA' if data else 'VIEW'} public t owner" for number, data in entries]
    parts = shares("\n".join(lines), {}, jobs)
    assert len(parts) <= jobs
    assert sorted(line for part in parts for line in part.splitlines()) == sorted(lines)


PLAIN = b"""--
-- PostgreSQL database dump
--

\\restrict zg2

CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$
COPY public.fake (id) FROM stdin;
-- PostgreSQL database dump complete
$$;

--
-- Data for Name: a; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.a (id, "odd FROM stdin;
") FROM stdin;
1\tx
2\t\\\\.
3\t-- PostgreSQL database dump complete
\\.


--
-- Data for Name: no; rows; Type: TABLE DATA; Schema: Odd; Owner: postgres
--

COPY "Odd"."no; rows" (id) FROM stdin;
\\.


--
-- Data for Name: leaf; Type: TABLE DATA; Schema: public; Owner: postgres
--

-- load via partition root public."by ""x"" y"

COPY public."by ""x"" y" (id) FROM stdin;
1
\\.


--
-- Data for Name: leaf2; Type: TABLE DATA; Schema: public; Owner: postgres
--

-- load via partition root public."by ""x"" y"

COPY public."by ""x"" y" (id) FROM stdin;
1
2
\\.


--
-- PostgreSQL database dump complete
--

\\unrestrict zg2

"""
ROWS = {"public.a": 3, "Odd.no; rows": 0, 'public.by "x" y': 3}


def read_plain(text: bytes, chunk: int) -> PlainReader:
    reader = PlainReader()
    for place in range(0, len(text), chunk):
        reader.write(text[place : place + chunk])
    return reader


@given(st.integers(1, len(PLAIN)))
def test_a_plain_dump_is_read_in_chunks_of_any_size(chunk: int) -> None:
    reader = read_plain(PLAIN, chunk)
    assert reader.rows == ROWS
    assert reader.problem() is None
    require_complete(reader, ROWS, "db")


LAST_LINE_ENDS = PLAIN.rindex(b"complete\n") + len(b"complete\n")


@given(st.integers(0, LAST_LINE_ENDS - 1), st.integers(1, 200))
def test_a_plain_dump_that_is_cut_off_anywhere_is_noticed(length: int, chunk: int) -> None:
    with pytest.raises(StateError, match=r"The new dump of database 'db' (is not complete|has \d+ rows)"):
        require_complete(read_plain(PLAIN[:length], chunk), ROWS, "db")


def test_a_plain_dump_without_a_row_is_noticed() -> None:
    with pytest.raises(StateError, match=r"has 2 rows of public\.a, and its snapshot 3"):
        require_complete(read_plain(PLAIN.replace(b"1\tx\n", b""), 4096), ROWS, "db")


def test_what_is_done_is_never_more_than_the_tables() -> None:
    meter = Meter(Progress(None), None, {"1": ("public.a", 100), "2": ("public.b", 300)})
    assert meter.total == 400
    assert meter.done({"1": 40}) == 40
    assert meter.done({"2": 900, "77": 5}) == 100 + 300
    assert meter.done({}) == 400


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian's folders for 9 and 15, and another client on PATH."""
    for folder in ("debian/9/bin", "debian/15/bin", "path", "half"):
        (tmp_path / folder).mkdir(parents=True)
        for program in ("psql", "pg_dump")[: 1 if folder == "half" else 2]:
            (tmp_path / folder / program).touch(mode=0o755)
    monkeypatch.setattr(_psql, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_which_client_is_taken(installs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_folder(None, 15) == installs / "debian/15/bin"
    assert host_folder(None, 17) == installs / "path"
    assert host_folder(None, None) == installs / "path"
    assert host_folder(str(installs / "debian/9/bin"), 15) == installs / "debian/9/bin"
    with pytest.raises(DependencyError, match=r"are not in .*half\. Correct bin_dir"):
        host_folder(str(installs / "half"), 15)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert host_folder(None, 17) == installs / "debian/15/bin"
    monkeypatch.setattr(_psql, "DEBIAN_FOLDER", installs / "none")
    with pytest.raises(DependencyError, match="Install Debian's package postgresql-client"):
        host_folder(None, 15)


@pytest.mark.parametrize("name", ["pg_backup", "backup_set"])
def test_the_documentation_names_every_option(name: str, root: Path) -> None:
    module = importlib.import_module(f"ansible_collections.groundwork.backend.plugins.modules.{name}")
    documented = set(yaml.safe_load(module.DOCUMENTATION)["options"])
    source = (root / "plugins" / "modules" / f"{name}.py").read_text()
    spec = source.split("argument_spec={")[1].split("\n        },")[0]
    assert documented == set(re.findall(r'^ {12}"(\w+)":', spec, re.MULTILINE))
    for text in (module.EXAMPLES, module.RETURN):
        assert yaml.safe_load(text)
