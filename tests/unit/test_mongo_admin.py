# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Users and versions of MongoDB: what is asked for, and what has to be done."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_user import Found, check_account, plan
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_version import series, upgrade_fault

OWNER = frozenset({("app", "dbOwner")})


@pytest.mark.parametrize(
    ("image", "data", "ran"),
    [
        ("8.0.12", "8.0", "8.0.4"),
        ("8.0.4", "8.0", "8.0.12"),  # a patch release back
        ("8.0.12", "7.0", "7.0.14"),
        ("8.0.12", "7.3", ""),
        ("8.2.1", "8.0", "8.0.12"),
        ("9.0.0", "8.0", "8.0.12"),
        ("5.0.31", "4.4", "4.4.29"),
        ("4.4.29", "4.2", ""),
        ("8.0.12", "", ""),
        ("8.0.12", "", "7.0.14"),
        ("8.0.0-rc1", "7.0", ""),
    ],
)
def test_an_image_that_takes_the_data(image: str, data: str, ran: str) -> None:
    assert upgrade_fault(image, data, ran) == ""


@pytest.mark.parametrize(
    ("image", "data", "ran", "told"),
    [
        ("7.0.14", "8.0", "", "used by 8.0: MongoDB does not go back. Name an image of 8.0"),
        ("7.0.14", "7.0", "8.0.12", "used by 8.0: MongoDB does not go back"),
        ("7.0.14", "", "8.0.12", "used by 8.0: MongoDB does not go back"),
        ("8.0.12", "6.0", "6.0.20", "takes data of 7.0, and found 6.0. Name an image of 7.0 first"),
        ("8.0.12", "", "6.0.20", "takes data of 7.0, and found 6.0. Name an image of 7.0 first"),
        ("8.2.1", "6.0", "", "takes data of 8.0, and found 6.0. Name an image of 7.0 first"),
        ("8.0.12", "4.4", "4.4.29", "Name an image of 5.0 first"),
        (
            "8.0.12",
            "6.0",
            "7.0.14",
            "set mongodb_feature_compatibility_version to 7.0, run, and then name the new image",
        ),
    ],
)
def test_an_image_that_does_not(image: str, data: str, ran: str, told: str) -> None:
    assert told in upgrade_fault(image, data, ran)


@pytest.mark.parametrize("version", ["", "8", "latest", "8.x", "v8.0", "8.0x"])
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(InputError, match=r"Write it like 8\.0"):
        series(version)


def account(**values: Any) -> Any:
    options = {"name": "appuser", "database": "app", "password": "p", "roles": ["dbOwner"]}
    options.update(values)
    return check_account(**options)


def test_a_user_without_a_difference_is_left_alone() -> None:
    assert plan(Found(OWNER), account()) == []
    assert plan(Found(frozenset({("x", "read")})), account(roles=None)) == []


def test_a_new_user_has_its_roles() -> None:
    wanted = account(roles=["dbOwner", {"role": "read", "db": "other"}])
    assert plan(None, wanted) == ["create appuser@app with dbOwner on app, read on other"]
    assert plan(None, account(roles=None)) == ["create appuser@app without roles"]


def test_a_password_and_roles_that_differ() -> None:
    found = Found(frozenset({("app", "dbOwner"), ("app", "read")}), known_password=False)
    assert plan(found, account(roles=["dbOwner", "readWrite"])) == [
        "set the password of appuser@app",
        "grant readWrite on app to appuser@app",
        "revoke read on app from appuser@app",
    ]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": ""}, "The name '' is none"),
        ({"database": "a b"}, "no name of a MongoDB database"),
        ({"database": "local"}, "belongs to the server itself"),
        ({"password": ""}, "appuser@app is empty or has characters"),
        ({"password": "a\nb"}, "cannot be printed"),
        ({"roles": [3]}, "The role 3 is neither"),
        ({"roles": [{"role": "read"}]}, "nor a role with its database"),
        ({"roles": [{"role": "read", "db": ""}]}, "nor a role with its database"),
        ({"roles": [""]}, "The role '' is neither"),
    ],
)
def test_what_is_no_user_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        account(**values)
    assert values.get("password") in (None, "") or values["password"] not in str(caught.value)


def test_a_user_may_be_in_admin() -> None:
    assert account(database="admin").database == "admin"
