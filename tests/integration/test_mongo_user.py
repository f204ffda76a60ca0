# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_user against a real server that speaks MongoDB's wire protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure
from support.modules import ModuleRunner
from support.mongo import PASSWORD, MongoServer

User = Callable[..., dict[str, Any]]
OLD, NEW = "canary-old-1f", "canary-new-2e"
SHOP = "shop"


@pytest.fixture
def user(module: ModuleRunner, mongo: MongoServer) -> Iterator[User]:
    """user(password=…, …) runs the module for clerk@shop; the user is gone afterwards."""

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"name": "clerk", "database": SHOP, "password": OLD, "roles": ["readWrite"], **mongo.options()}
        given.update(options)
        result = module("mongo_user", {name: value for name, value in given.items() if value is not None}, check=check)
        assert not [secret for secret in (OLD, NEW, PASSWORD) if secret in result["_printed"]]
        return result

    yield run
    mongo.client[SHOP].command("dropAllUsersFromDatabase")
    mongo.client.drop_database(SHOP)


def log_in(mongo: MongoServer, password: str) -> Any:
    client: Any = pymongo.MongoClient("127.0.0.1", mongo.port, username="clerk", password=password, authSource=SHOP)
    client[SHOP].items.insert_one({})
    return client


def test_create_and_create_again(user: User, mongo: MongoServer) -> None:
    foretold = user(check=True)
    assert (foretold["changed"], foretold["exists"]) == (True, False), foretold
    with pytest.raises(OperationFailure):
        log_in(mongo, OLD)
    made = user()
    assert made["actions"] == foretold["actions"] == ["create clerk@shop with readWrite on shop"]
    assert made["diff"] == foretold["diff"] == {
        "before": "absent\n", "after": "role: readWrite on shop\npassword: as asked for\n",
    }  # fmt: skip
    log_in(mongo, OLD).close()
    assert [user(check=check)["changed"] for check in (True, False)] == [False, False]


def test_a_new_password_keeps_open_connections(user: User, mongo: MongoServer) -> None:
    user()
    open_one = log_in(mongo, OLD)
    foretold = user(check=True, password=NEW)
    assert foretold["actions"] == ["set the password of clerk@shop"]
    log_in(mongo, OLD).close()
    changed = user(password=NEW)
    assert changed["actions"] == foretold["actions"]
    assert "another one" in changed["diff"]["before"]
    open_one[SHOP].items.insert_one({})
    open_one.close()
    log_in(mongo, NEW).close()
    with pytest.raises(OperationFailure):
        log_in(mongo, OLD)
    assert user(password=NEW)["changed"] is False


def test_roles_are_those_that_are_listed(user: User, mongo: MongoServer) -> None:
    user()
    wanted = [{"role": "read", "db": "other"}, "dbOwner"]
    assert (
        user(roles=wanted, check=True)["actions"]
        == user(roles=wanted)["actions"]
        == [
            "grant read on other to clerk@shop",
            "grant dbOwner on shop to clerk@shop",
            "revoke readWrite on shop from clerk@shop",
        ]
    )
    (found,) = mongo.client[SHOP].command("usersInfo", "clerk")["users"]
    assert sorted((role["db"], role["role"]) for role in found["roles"]) == [("other", "read"), ("shop", "dbOwner")]
    assert user(roles=list(reversed(wanted)))["changed"] is False
    assert user(roles=None, password=None)["changed"] is False


def test_absent(user: User, mongo: MongoServer) -> None:
    gone = {"state": "absent", "password": None, "roles": None}
    assert user(**gone)["changed"] is False
    user()
    assert user(**gone, check=True)["changed"] is True
    log_in(mongo, OLD).close()
    assert user(**gone)["actions"] == ["remove clerk@shop"]
    with pytest.raises(OperationFailure):
        log_in(mongo, OLD)


def test_with_a_connection_string(user: User, mongo: MongoServer) -> None:
    uri = f"mongodb://root:{PASSWORD}@127.0.0.1:{mongo.port}/?authSource=admin"
    login = {**dict.fromkeys(mongo.options()), "login_uri": uri}
    runs = [user(**login) for _ in range(2)]
    assert [run.get("changed") for run in runs] == [True, False], runs
    log_in(mongo, OLD).close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"password": None}, "There is no user clerk@shop, and a new one needs a password"),
        ({"roles": ["noSuchRole"]}, "Could not create the user clerk@shop"),
        ({"login_password": "wrong"}, "refused the login of user 'root' with auth_source 'admin'"),
        ({"login_user": None, "login_password": None}, "Could not look for the user clerk@shop"),
        ({"name": "root", "database": "admin", "state": "absent"}, "root@admin would remove itself"),
    ],
)
def test_what_goes_wrong_is_a_sentence(user: User, options: dict[str, Any], told: str) -> None:
    result = user(**options)
    assert result.get("failed") is True
    assert told in result["msg"]
