# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How mongodump is called, and what its failures mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    GroundworkError,
    InputError,
    UnreachableError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import Job
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_program import Tool
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_tool import (
    arguments,
    configuration,
    failure,
    hidden,
    require_usable,
    version_of,
)

JOB = Job("shop", "shop", Path("/backups/shop"), users=True)
SECRET = "canary-mongo-8e"
LOGIN = {"login_user": "app", "login_password": SECRET, "auth_source": "shop"}


def test_the_arguments() -> None:
    tls = {"tls": True, "ca_cert": "/ca.pem", "login_host": "db", "login_port": 27018}
    assert arguments(JOB, {**LOGIN, **tls}, "/out") == [
        "--config=/dev/stdin", "--host=db", "--port=27018", "--username=app", "--authenticationDatabase=shop",
        "--sslCAFile=/ca.pem", "--db=shop", "--out=/out", "--numParallelCollections=4", "--ssl", "--gzip",
        "--dumpDbUsersAndRoles", "--excludeCollectionsWithPrefix=groundwork.restore.2",
        "--excludeCollectionsWithPrefix=groundwork.before.2", "--excludeCollectionsWithPrefix=groundwork.reverted.2",
    ]  # fmt: skip


def test_the_driver_and_the_program_log_in_to_the_same_database_when_none_is_named() -> None:
    assert "--authenticationDatabase=admin" in arguments(JOB, {**LOGIN, "auth_source": None}, "/out")


def test_nobody_logs_in_without_a_user() -> None:
    given_arguments = arguments(JOB, {}, "/out")
    assert not [one for one in given_arguments if one.startswith(("--config", "--username", "--auth"))]
    assert configuration({}) == ""


@pytest.mark.parametrize("container", ["", "mongodb"])
@pytest.mark.parametrize("login", [LOGIN, {"login_uri": f"mongodb://app:{SECRET}@db/"}])
def test_no_secret_is_an_argument(container: str, login: dict[str, str]) -> None:
    argv = Tool("100.9.0", container, "sha256:1").argv(JOB, login, Path("/out"))
    assert "--config=/dev/stdin" in argv
    assert SECRET not in " ".join(argv)
    assert SECRET in configuration(login)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_survives_the_configuration(password: str) -> None:
    assert yaml.safe_load(configuration({"login_password": password})) == {"password": password}


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("mongodump version: 100.9.4\ngit version: x\nGo version: go1.21\n", "100.9.4"),
        ("mongodump version: r100.3.0-2-gabc\n", "100.3.0-2-gabc"),
        ("mongodump version: built-without-version-string\n", "unknown"),
    ],
)
def test_versions(printed: str, version: str) -> None:
    assert version_of(printed) == version


@pytest.mark.parametrize("printed", ["mongodump version: 4.2.1\n", "mongodump version: 100.2.1\n"])
def test_a_mongodump_that_takes_its_password_as_an_argument_only_is_refused(printed: str) -> None:
    with pytest.raises(DependencyError, match=r"mongodump 100\.3 or newer is needed"):
        version_of(printed)


AUTHENTICATION = (
    "2026-01-01T00:00:00.000+0000\tFailed: can't create session: failed to connect to mongodb://127.0.0.1:27017/: "
    "connection() error occurred during connection handshake: auth error: sasl conversation error: unable to "
    'authenticate using mechanism "SCRAM-SHA-256": (AuthenticationFailed) Authentication failed.\n'
)


@pytest.mark.parametrize(
    ("rc", "printed", "kind", "words"),
    [
        (1, AUTHENTICATION, UnreachableError, "refused the login of user 'app' with auth_source 'shop'"),
        (1, "Failed: (Unauthorized) not authorized on shop\n", CommandError, "Grant the missing right to login_user"),
        (
            1,
            "one\n\t[##......]  shop.orders  1/9  (11.1%)\nFailed: x\n",
            CommandError,
            "it ended with 1: one\nFailed: x",
        ),
        (-15, "", CommandError, "it was ended by signal 15: it printed nothing"),
        (1, f"Failed: {SECRET}\n", CommandError, "Failed: ********"),
    ],
)
def test_failures(rc: int, printed: str, kind: type[GroundworkError], words: str) -> None:
    error = failure(JOB, LOGIN, rc, printed, "127.0.0.1:27017")
    assert isinstance(error, kind)
    assert words in str(error)
    assert SECRET not in str(error) + str(error.details)


def test_parts_of_a_connection_string_are_hidden() -> None:
    params: dict[str, Any] = {"login_uri": "mongodb://app:p%40ss%2Bword@db/"}
    told = hidden(params, "mongodb://app:p%40ss%2Bword@db/ and p%40ss%2Bword and p@ss+word")
    assert told == "******** and ******** and ********"


def test_certificates_of_the_host_are_no_files_of_a_container() -> None:
    with pytest.raises(InputError, match="files of the host"):
        require_usable(JOB, {"ca_cert": "/ca.pem"}, "mongodb")
