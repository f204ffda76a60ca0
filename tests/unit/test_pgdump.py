# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What pg_backup asks of PostgreSQL's client programs, and which of them it takes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils import _psql
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import (
    Job,
    check_time,
    compression_arguments,
    dump_arguments,
    globals_arguments,
    require_client,
)
from ansible_collections.groundwork.backend.plugins.module_utils._psql import (
    Tools,
    environment,
    host_folder,
    major,
    parse_version,
)

JOB = Job("it's", "name", Path("/b"), "gzip:6", "30s", True)
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
    ("compression", "client", "arguments"),
    [
        (None, "15.1", []),
        ("none", "15.1", ["--compress=0"]),
        ("6", "15.1", ["--compress=6"]),
        ("gzip", "15.1", []),
        ("gzip:9", "15.1", ["--compress=9"]),
        ("lz4", "16.1", ["--compress=lz4"]),
        ("zstd:19", "18beta1", ["--compress=zstd:19"]),
    ],
)
def test_compression(compression: str | None, client: str, arguments: list[str]) -> None:
    assert compression_arguments(compression, client) == arguments


@pytest.mark.parametrize("compression", ["", "bzip2", "10", "gzip:", "zstd:x", "none:1", "-1"])
def test_compression_that_is_refused(compression: str) -> None:
    with pytest.raises(InputError, match="is not known"):
        compression_arguments(compression, "18.0")


def test_new_methods_need_a_new_client() -> None:
    with pytest.raises(DependencyError, match=r"zstd needs pg_dump 16 or newer, found 15\.14"):
        compression_arguments("zstd:3", "15.14")


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
