# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Role backup with a MongoDB component: real playbooks against a real server that speaks MongoDB's wire protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.collection import ROOT
from support.mongo import APP, PASSWORD, MongoServer
from support.playbooks import Playbooks, Played

STACK = "innovaplus"
KEEP = 2
OWNER = {"user": "app", "auth_source": APP}
DOCUMENTS = 40


@dataclass(frozen=True)
class Role:
    """Tasks of the role for one stack, whose sets are in a folder of its own."""

    playbooks: Playbooks
    folder: Path
    mongo: MongoServer

    def __call__(self, *steps: tuple[str, dict[str, Any]], **login: Any) -> Played:
        """Run files of the role's tasks, or other ones by their paths, each with variables, in one play."""
        component = {
            "engine": "mongo", "name": "orders", "database": APP, "port": self.mongo.port, "password": PASSWORD,
            **(login or OWNER),
        }  # fmt: skip
        component = {key: value for key, value in component.items() if value is not None}
        given = {
            "backup_stack": STACK, "backup_base_dir": str(self.folder), "backup_components": [component],
            "backup_keep": {"last": KEEP}, "backup_current": str(self.folder / "current"), "ansible_become": False,
        }  # fmt: skip
        run = self.playbooks([_task(file, more) for file, more in steps], "-vvv", "-e", json.dumps(given))
        assert PASSWORD not in run.output
        return run

    def done(self, *steps: tuple[str, dict[str, Any]], **login: Any) -> Played:
        """The same, and require that it went well."""
        run = self(*steps, **login)
        assert run.rc == 0, run.output
        return run

    @property
    def sets(self) -> list[Path]:
        """The folders of the sets, oldest first."""
        return sorted((self.folder / STACK).glob("[0-9]*"))

    def manifest(self) -> dict[str, Any]:
        """That of the newest set."""
        told: dict[str, Any] = json.loads((self.sets[-1] / "manifest.json").read_text())
        return told


def _task(file: str, more: dict[str, Any]) -> dict[str, Any]:
    if file.endswith(".yml"):
        return {"name": f"Run {file}", "ansible.builtin.include_tasks": file, "vars": more}
    role = {"name": "groundwork.backend.backup", "tasks_from": file}
    return {"name": f"Run {file} {more}", "ansible.builtin.include_role": role, "vars": more}


def result(run: Played, task: str) -> dict[str, Any]:
    """The last result of a task of the role."""
    return run.result(f"groundwork.backend.backup : {task}")


def step(name: str) -> tuple[str, dict[str, Any]]:
    """One step of a restore, for every store."""
    return ("restore_step", {"__backup_step": name})


FOUND = (("restore_find", {}), ("restore_verify", {}))


@pytest.fixture(scope="module")
def role(mongo: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """A database of which three sets were asked for, one after the other."""
    database = mongo.client[APP]
    database.orders.insert_many([{"_id": number, "n": number} for number in range(DOCUMENTS)])
    database.orders.create_index([("n", 1)], name="n_unique", unique=True)
    database.create_collection("recent", viewOn="orders", pipeline=[{"$match": {"n": {"$gte": 30}}}])
    folder = tmp_path_factory.mktemp("role-backup")
    one = Role(Playbooks(folder), folder, mongo)
    one.done(*[("create", {})] * 3, ("prune", {}))
    yield one
    mongo.client.drop_database(APP)


def test_sets_are_written_and_as_many_are_kept_as_the_rule_says(role: Role) -> None:
    assert len(role.sets) == KEEP
    (component,) = role.manifest()["components"]
    assert (component["engine"], component["name"], component["counts"]) == ("mongo", "orders", {"orders": DOCUMENTS})
    assert (component["consistent"], component["views"]) == (True, ["recent"])
    assert component["database_bytes"] > 0


def test_a_drill_restores_into_a_scratch_database_and_is_written_into_the_set(role: Role) -> None:
    run = role.done(("drill", {}), user="root", auth_source="admin")
    told = result(run, "Keep what was proven, also for the heartbeat")["ansible_facts"]["__backup_job_text"]
    assert f"restores: 1 collections with {DOCUMENTS} documents are as they were" in told
    assert role.manifest()["proven"]["components"]["orders"]["counts"] == {"orders": DOCUMENTS}
    assert f"{APP}_drill" not in role.mongo.client.list_database_names()


def test_a_drill_does_not_touch_a_database_that_has_its_name(role: Role) -> None:
    other = role.mongo.client[f"{APP}_drill"]
    other.precious.insert_one({})
    run = role(("drill", {}), user="root", auth_source="admin")
    assert run.rc != 0
    assert "was not made by mongo_restore" in run.output
    assert other.precious.count_documents({}) == 1
    role.mongo.client.drop_database(other.name)


def test_a_restore_is_swapped_in_and_taken_back_by_a_later_run(role: Role) -> None:
    """By the owner of the database, with a journal that has no password."""
    database, journal = role.mongo.client[APP], role.folder / "restore.json"
    database.orders.delete_many({"_id": {"$gte": 10}})
    database.since.insert_one({"_id": 1})
    written = {
        "restore_journal": str(journal), "restore_sites": [], "restore_writers": [], "restore_swapping": True,
    }  # fmt: skip
    run = role.done(*FOUND, ("restore_wait", {}), ("restore_room", {}), step("stage"), step("swap"))
    assert result(run, "Keep the name of what was live before")["ansible_facts"]["__backup_kept"] == {
        "orders": f"{APP}.groundwork.before.{role.sets[-1].name.lower()}.*"
    }
    assert database.orders.count_documents({}) == DOCUMENTS
    assert set(database.orders.index_information()) == {"_id_", "n_unique"}
    assert database.recent.count_documents({}) == 10
    assert "since" not in database.list_collection_names()
    role.done(*FOUND, (str(ROOT / "playbooks" / "tasks" / "restore_journal.yml"), written))
    held = json.loads(journal.read_text())["components"]
    assert held == [{"engine": "mongo", "name": "orders", "database": APP, "port": role.mongo.port, **OWNER}]
    killed = {"__backup_wanted": role.sets[-1].name, "__backup_held": held}
    role.done(*[(file, {**more, **killed}) for file, more in (step("revert"), step("keep"))])
    assert database.orders.count_documents({}) == 10
    assert database.since.count_documents({}) == 1
    reverted = f"groundwork.reverted.{role.sets[-1].name.lower()}."
    assert sorted(name for name in database.list_collection_names() if name.startswith("groundwork.")) == [
        f"{reverted}orders", f"{reverted}recent",
    ]  # fmt: skip


def test_what_was_live_before_is_dropped_when_that_is_said(role: Role) -> None:
    database = role.mongo.client[APP]
    role.done(*FOUND, step("stage"), step("swap"), step("finish"), step("forget"))
    assert database.orders.count_documents({}) == DOCUMENTS
    assert not [name for name in database.list_collection_names() if name.startswith("groundwork.before.")]


def test_an_entry_without_a_password_is_refused(role: Role) -> None:
    run = role(("preflight", {}), user="app", password=None)
    assert run.rc != 0
    assert "The entry orders of backup_components has no password: give the one of its user." in run.output


def test_the_entry_that_has_the_password_is_asked_for(role: Role) -> None:
    """When it was taken out of the inventory before a restore that was cut off is undone."""
    held = [{"engine": "mongo", "name": "gone", "database": APP, **OWNER}]
    killed = {"__backup_wanted": "20260101T000000Z", "__backup_held": held}
    run = role(("restore_step", {"__backup_step": "revert", **killed}))
    assert run.rc != 0
    assert "has no entry gone any more, which has the password for its server" in run.output
