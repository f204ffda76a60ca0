# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The Postgres login options: only the password is secret, and each failure has its sentence."""

from __future__ import annotations

import sys

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres, _postgres_container
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    InputError,
    StateError,
    UnreachableError,
)

PARAMS = {"login_host": "db.example", "login_port": 5432, "login_user": "app", "database": "shop"}


def test_only_the_password_is_secret() -> None:
    secret = {name for name, option in _postgres.login_options()["argument_spec"].items() if option.get("no_log")}
    assert secret == {"login_password"}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ('FATAL:  password authentication failed for user "app"', "rejected the password of user 'app'"),
        ("fe_sendauth: no password supplied", "rejected the password"),
        ('FATAL:  database "shop" does not exist', "no such database"),
        ('FATAL:  role "app" does not exist', "no user 'app'"),
        ("failed to resolve host 'db.example': [Errno -2] Name or service not known", "host name is unknown"),
        ('connection to server at "127.0.0.1", port 1 failed: Connection refused', "connection refused"),
        ("connection failed: /var/run/postgresql/.s.PGSQL.5432 No such file or directory", "connection refused"),
        ("connection timeout expired", "no answer within 10 seconds"),
        ("FATAL:  the database system is starting up", "starting up"),
        ('FATAL:  permission denied for database "shop"', "may not connect"),
        ("FATAL:  connection requires a valid client certificate", "wants a client certificate"),
        ('private key file "/k" has group or world access', 'cannot be used (private key file "/k" has'),
        ('root certificate file "/c" does not exist No such file or directory', "cannot be used (root certificate"),
        ("something\n  new", "something new."),
    ],
)
def test_each_reason_has_its_sentence(told: str, words: str) -> None:
    error = _postgres.unreachable(PARAMS, told)
    assert words in str(error)
    assert str(error).startswith("Could not connect to database 'shop' at db.example:5432: ")
    assert error.fix


def test_password_is_never_in_the_message() -> None:
    error = _postgres.unreachable({**PARAMS, "login_password": "canary-9f"}, 'invalid value "canary-9f" here')
    assert "canary-9f" not in str(error)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:canary@h:5432/d",
        "postgres://u:canary@h/d?port=5432",
        "host=h port=5432 user=u password=canary dbname=d",
    ],
)
def test_connection_strings(dsn: str) -> None:
    found = _postgres.dsn_parameters(dsn)
    assert found == {"host": "h", "port": "5432", "user": "u", "password": "canary", "dbname": "d"}


@pytest.mark.parametrize(
    "dsn", ["postgresql+psycopg://u:canary@h/d", "postgresql://u:canary%zz@h/d", "canary", "x=canary"]
)
def test_what_is_no_connection_string_is_not_printed(dsn: str) -> None:
    with pytest.raises(InputError, match="login_dsn") as caught:
        _postgres.dsn_parameters(dsn)
    assert "canary" not in str(caught.value)


def test_missing_file_of_the_tls_options_is_named() -> None:
    with pytest.raises(StateError, match=r"Could not read the file /absent\.pem of ssl_key: No such file"):
        _postgres.connect({**PARAMS, "ssl_key": "/absent.pem"}, application_name="test")


def test_missing_psycopg_names_debians_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DependencyError, match="python3-psycopg"):
        _postgres.connect(PARAMS, application_name="test")


def test_connection_refused_without_a_server() -> None:
    with pytest.raises(UnreachableError, match="connection refused"):
        _postgres.connect({**PARAMS, "login_host": "127.0.0.1", "login_port": 1}, application_name="test")


def test_unknown_host() -> None:
    with pytest.raises(UnreachableError, match="host name is unknown"):
        _postgres.connect({**PARAMS, "login_host": "no-such-host.invalid"}, application_name="test")


@pytest.mark.parametrize(
    ("host", "mounts", "expected"),
    [
        ({"IpcMode": "private"}, [], 64),
        ({"IpcMode": "shareable"}, [{"Destination": "/data"}], 64),
        ({"IpcMode": "host"}, [], None),
        ({"IpcMode": "container:abc"}, [], None),
        ({"IpcMode": "private"}, [{"Destination": "/dev/shm"}], None),
        ({"IpcMode": "private", "Tmpfs": {"/dev/shm": "size=1g"}}, [], None),
    ],
)
def test_shared_memory_of_a_container_where_docker_sets_it(
    host: dict[str, object], mounts: list[dict[str, str]], expected: int | None
) -> None:
    found = {"HostConfig": {"ShmSize": 64, "Tmpfs": None, **host}, "Mounts": mounts}
    assert _postgres_container.shared_memory(found) == expected


def test_either_options_or_a_string_name_the_database() -> None:
    group = _postgres.login_or_dsn_options()
    assert group["argument_spec"]["login_dsn"]["no_log"] is True
    assert ["login_dsn", "login_password"] in group["mutually_exclusive"]
