# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The role mongodb on a Debian host, with the test bed's stand-in for the official image."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.collection import ROOT
from support.docker_host import DockerHost
from support.scenario import Playbook, Run

ROOT_PASSWORD, APP_PASSWORD, NEW = "canary-root-5b$ '", "canary-app-6c", "canary-new-7d"
IMAGE = "mongo:8.2"
APP = {"name": "appuser", "database": "innova_db", "roles": ["dbOwner"]}
GUEST = {"name": "guest", "database": "admin", "roles": [{"role": "read", "db": "innova_db"}], "password": NEW}
ROLE = {"name": "groundwork.backend.mongodb"}
# Each case is a dictionary of variables; the sentences of those that fail are written to told_file.
CASE = """
- ansible.builtin.set_fact:
  args: "{{ defaults | combine(case) }}"
  no_log: true
- block:
    - ansible.builtin.include_role: {name: groundwork.backend.mongodb, tasks_from: preflight}
    - ansible.builtin.set_fact: {told: "{{ told | default([]) + ['taken'] }}"}
  rescue:
    - ansible.builtin.set_fact: {told: "{{ told | default([]) + [ansible_failed_result.msg] }}"}
"""
LOGIN = """
import pymongo, sys
def client(user="", password="", source="admin"):
    login = {"username": user, "password": password, "authSource": source} if user else {}
    return pymongo.MongoClient("127.0.0.1", 27017, directConnection=True, serverSelectionTimeoutMS=5000, **login)
def enters(*login):
    try:
        client(*login).innova_db.command("listCollections")
    except pymongo.errors.OperationFailure:
        return False
    return True
"""
# Writes with its first connection whenever it is told to, and says how that went.
HOLDER = """
import os
held = client("appuser", sys.argv[1], "innova_db").innova_db
held.items.insert_one({"_id": "before"})
open("/run/held", "w").close()
open("/run/go").read()
held.items.insert_one({"_id": "after"})
held.command("ping")
open("/run/done", "w").close()
"""


@dataclass(frozen=True)
class Server:
    """The host, and runs of the role on it."""

    host: DockerHost
    folder: Path

    def tasks(self, tasks: list[dict[str, Any]], *arguments: str, **settings: Any) -> Run:
        """Run tasks; no secret may be printed."""
        playbook = self.folder / "play.yml"
        play = {"hosts": self.host.name, "become": True, "gather_facts": False, "tasks": tasks}
        playbook.write_text(json.dumps([play]))
        run = Playbook(self.folder, self.host.inventory)(str(playbook), "-vv", "--diff", *arguments, **settings)
        assert [one for one in (ROOT_PASSWORD, APP_PASSWORD, NEW) if one in run.output] == []
        return run

    def role(self, *arguments: str, **settings: Any) -> Run:
        """Run the role."""
        defaults = {
            "mongodb_image": IMAGE,
            "mongodb_root_password": ROOT_PASSWORD,
            "mongodb_replica_set": "rs0",
            "mongodb_open_files": 0,  # the engine of a test host may not raise limits
            "mongodb_users": [{**APP, "password": APP_PASSWORD}, GUEST],
        }
        task = {"name": "Bring MongoDB", "ansible.builtin.import_role": ROLE}
        return self.tasks([task], *arguments, **{**defaults, **settings})

    def python(self, script: str, *arguments: str) -> str:
        """What a script prints on the host; arguments are passed on as JSON."""
        self.host.write("/root/ask.py", LOGIN + script)
        quoted = " ".join("'" + argument.replace("'", "'\\''") + "'" for argument in arguments)
        return self.host.sh(f"python3 /root/ask.py {quoted}").strip()

    def enters(self, user: str, password: str, source: str) -> bool:
        """Whether a login can list the collections of the application's database."""
        return self.python("print(enters(*sys.argv[1:]))", user, password, source) == "True"

    def inspect(self) -> dict[str, Any]:
        """What Docker tells of the container."""
        found: dict[str, Any] = json.loads(self.host.sh("docker inspect mongodb"))[0]
        return found

    def variant(self, version: str) -> str:
        """An image that is the stand-in as another version."""
        name = f"mongo-variant:{version}"
        self.host.sh(f"printf 'FROM {IMAGE}\\nENV MONGO_VERSION={version}\\n' | docker build -q -t {name} - >/dev/null")
        return name


@pytest.fixture(scope="module")
def server(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The host before the role."""
    yield Server(docker_host, tmp_path_factory.mktemp("mongodb"))
    docker_host.sh(
        "systemctl stop holder 2>/dev/null || true; docker rm --force mongodb; docker volume rm --force mongodb_data; "
        "docker rmi --force $(docker images -q mongo-variant) >/dev/null 2>&1 || true; "
        "rm -rf /etc/groundwork/mongodb.d /run/go /run/held /run/done /root/ask.py /root/holder.py"
    )


@pytest.fixture(scope="module")
def runs(server: Server) -> tuple[Run, str, Run]:
    """A run in check mode, what it left (nothing), and a run, with the image by its digest."""
    listing = "docker ps --all --format '{{.Names}}'; docker volume ls -q; ls /etc/groundwork 2>/dev/null || true"
    before = server.host.sh(listing)
    checked = server.role("--check")
    left = server.host.sh(listing).replace(before, "", 1)
    server.host.sh(f"docker pull -q {IMAGE}")
    digest = server.host.sh(f"docker inspect --format '{{{{index .RepoDigests 0}}}}' {IMAGE}").strip().partition("@")[2]
    run = server.role(mongodb_image=f"{IMAGE}@{digest}")
    assert run.rc == 0, run.output
    return checked, left, run


def test_check_mode_foresees_and_changes_nothing(runs: tuple[Run, str, Run]) -> None:
    checked, left, run = runs
    assert checked.rc == 0, checked.output
    assert left == ""
    assert 0 < checked.changed <= run.changed


def test_nobody_enters_without_a_password(runs: tuple[Run, str, Run], server: Server) -> None:
    entered = {
        "nobody": server.python("print(enters())") == "True",
        "root": server.enters("root", ROOT_PASSWORD, "admin"),
        "root, wrong": server.enters("root", "wrong", "admin"),
        "appuser": server.enters("appuser", APP_PASSWORD, "innova_db"),
        "appuser, elsewhere": server.enters("appuser", APP_PASSWORD, "admin"),
        "guest": server.enters("guest", NEW, "admin"),
    }
    assert [name for name, found in entered.items() if found] == ["root", "appuser", "guest"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host.address, 27017), timeout=5)


def test_the_container_is_limited_and_tells_no_secret(runs: tuple[Run, str, Run], server: Server) -> None:
    found = server.inspect()
    told = json.dumps(found) + server.host.sh("docker logs mongodb 2>&1; ps -eo args; journalctl --since -10min")
    assert [one for one in (ROOT_PASSWORD, APP_PASSWORD, NEW) if one in told] == []
    host = found["HostConfig"]
    assert found["State"]["Health"]["Status"] == "healthy"
    assert host["PortBindings"] == {"27017/tcp": [{"HostIp": "127.0.0.1", "HostPort": "27017"}]}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
    assert (host["Memory"], host["RestartPolicy"]["Name"]) == (1 << 30, "unless-stopped")
    assert [mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"] == ["mongodb_data"]
    modes = server.host.sh(
        "cd /etc/groundwork/mongodb.d; stat --format '%a %u' . mongodb mongodb/key mongodb/root_password"
    )
    assert modes.split("\n")[:-1] == ["700 0", "500 999", "400 999", "400 999"]


def test_it_is_a_replica_set_whose_dumps_are_of_one_moment(runs: tuple[Run, str, Run], server: Server) -> None:
    hello = "h = client().admin.command('hello'); print(h['setName'], h['me'], h['isWritablePrimary'])"
    assert server.python(hello) == "rs0 127.0.0.1:27017 True"
    login = {"login_user": "appuser", "login_password": APP_PASSWORD, "auth_source": "innova_db"}
    dump = {"database": "innova_db", "dest": "/root/dump", "snapshot": "required", "allow_empty": True}
    result = server.host.module("mongo_dump", {**login, **dump}, check=True)
    assert result.get("failed") is not True, result


def test_users_of_a_server_that_is_somewhere_else(runs: tuple[Run, str, Run], server: Server) -> None:
    external = {"host": "127.0.0.1", "user": "root", "password": ROOT_PASSWORD}
    others = [{**GUEST, "name": "other"}]
    run = server.role(mongodb_image="", mongodb_external=external, mongodb_users=others)
    assert (run.rc, run.changed) == (0, 1), run.output
    assert server.enters("other", NEW, "admin")


def test_new_passwords_and_users_keep_connections_and_container(runs: tuple[Run, str, Run], server: Server) -> None:
    """A user that is listed without roles keeps its own."""
    before = server.inspect()
    server.host.write("/root/holder.py", LOGIN + HOLDER)
    server.host.sh(
        f"mkfifo /run/go; systemd-run --quiet --unit holder python3 /root/holder.py {APP_PASSWORD}; "
        "until test -e /run/held; do sleep 0.1; done"
    )
    wanted = {
        "mongodb_root_password": NEW,
        "mongodb_users": [
            {"name": APP["name"], "database": APP["database"], "password": NEW},
            {**GUEST, "state": "absent"},
        ],
    }
    foretold, run, again = server.role("--check", **wanted), server.role(**wanted), server.role(**wanted)
    assert (run.rc, again.rc) == (0, 0), run.output + again.output
    # The password of root, the file that holds it, and the users.
    assert (foretold.changed, run.changed, again.changed) == (3, 3, 0), foretold.output + run.output + again.output
    assert server.enters("root", NEW, "admin")
    assert server.enters("appuser", NEW, "innova_db")
    assert not server.enters("root", ROOT_PASSWORD, "admin")
    assert not server.enters("appuser", APP_PASSWORD, "innova_db")
    assert not server.enters("guest", NEW, "admin")
    after = server.inspect()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    server.host.sh("echo >/run/go; until test -e /run/done; do systemctl is-active --quiet holder; sleep 0.1; done")


def test_an_image_that_does_not_take_the_data_is_refused(runs: tuple[Run, str, Run], server: Server) -> None:
    """With the server running, and with what the last run saw when it is gone; then the next release is taken.

    Neither is a server without the replica set that the data is of.
    """
    settings = {"mongodb_root_password": NEW, "mongodb_users": []}
    before = server.inspect()
    older = server.role(**settings, mongodb_image=server.variant("8.0.4"))
    assert older.rc != 0
    assert "The image has MongoDB 8.0.4, and the data was used by 8.2: MongoDB does not go back." in older.words
    alone = server.role(**settings, mongodb_replica_set="")
    assert alone.rc != 0
    assert "is of the replica set rs0, and mongodb_replica_set is empty." in alone.words
    moved = server.role(**settings, mongodb_port=27018)
    assert moved.rc != 0
    assert "The replica set rs0 has its member at port 27017, and mongodb_port is 27018" in moved.words
    assert server.inspect()["Id"] == before["Id"]
    server.host.sh("docker rm --force mongodb")
    later = server.role(**settings, mongodb_image=server.variant("10.0.1"))
    assert later.rc != 0
    assert "takes data of 9.0, and found 8.2. Name an image of 9.0 first" in later.words
    assert "mongodb" not in server.host.sh("docker ps --all --format '{{.Names}}'").split()
    next_one = {"mongodb_image": server.variant("9.0.2"), "mongodb_feature_compatibility_version": "9.0"}
    run = server.role(**settings, **next_one)
    assert run.rc == 0, run.output
    assert server.enters("root", NEW, "admin")
    kept = json.loads(server.host.sh("cat /etc/groundwork/mongodb.d/mongodb/versions.json"))
    assert kept == {"version": "9.0.2", "feature_compatibility_version": "9.0", "replica_set": "rs0"}


def test_bad_settings_are_sentences(server: Server) -> None:
    user = {**APP, "password": APP_PASSWORD}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "taken"),
        ({"mongodb_image": ""}, "Neither mongodb_image nor mongodb_external is set"),
        ({"mongodb_external": {"host": "db", "user": "a", "password": NEW}}, "Both mongodb_image and mongodb_external"),
        ({"mongodb_image": "", "mongodb_external": {"host": "db"}}, "mongodb_external has no user"),
        ({"mongodb_root_password": ""}, "mongodb_root_password is empty"),
        ({"mongodb_root_password": f"{NEW}\n"}, "mongodb_root_password has a line break"),
        ({"mongodb_container": "a b"}, "mongodb_container is no name"),
        ({"mongodb_replica_set": "rs/0"}, "mongodb_replica_set has other characters"),
        ({"mongodb_feature_compatibility_version": "8"}, 'is not like "8.0"'),
        ({"mongodb_memory": "1 GB"}, "mongodb_memory is not like 512m or 2g"),
        ({"mongodb_arguments": ["--port=1"]}, "mongodb_arguments has --port=1, which the role sets itself"),
        ({"mongodb_users": [APP]}, "the user appuser@innova_db has no password"),
        ({"mongodb_users": [user, user]}, "the user appuser@innova_db is listed more than once"),
        ({"mongodb_users": [{**user, "name": "root", "database": "admin"}]}, "root@admin is who makes the others"),
    ]
    defaults = yaml.safe_load((ROOT / "roles/mongodb/defaults/main.yml").read_text())
    told_file = server.folder / "told.json"
    (server.folder / "case.yml").write_text(CASE)
    run = server.tasks(
        [
            {
                "name": "Try a case",
                "ansible.builtin.include_tasks": str(server.folder / "case.yml"),
                "loop": "{{ cases }}",
                "loop_control": {"loop_var": "case", "label": "one"},
            },
            {
                "name": "Tell",
                "ansible.builtin.copy": {"content": "{{ told | to_json }}", "dest": str(told_file), "mode": "0600"},
                "delegate_to": "localhost",
                "become": False,
            },
        ],
        cases=[case for case, _told in cases],
        defaults={**defaults, "mongodb_image": IMAGE, "mongodb_root_password": ROOT_PASSWORD},
    )
    assert run.rc == 0, run.output
    told = [" ".join(one.split()) for one in json.loads(told_file.read_text())]
    assert [(want, got) for (_case, want), got in zip(cases, told, strict=True) if want not in got] == []
