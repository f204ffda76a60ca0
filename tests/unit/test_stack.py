# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What playbooks derive from containers and settings."""

from __future__ import annotations

from ansible_collections.groundwork.backend.plugins.module_utils._stack import (
    container_endpoints,
    mongo_checks,
    release_table,
    status_table,
    store_checks,
    web_checks,
    writers,
)

CONTAINERS = [
    {
        "Labels": {"com.docker.compose.service": "web"},
        "Status": "Up 5 minutes (healthy)",
        "Ports": [
            {"IP": "127.0.0.1", "PrivatePort": 8081, "PublicPort": 18081, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 443, "PublicPort": 443, "Type": "tcp"},
            {"PrivatePort": 9000, "Type": "tcp"},
        ],
    }
]
SERVICES = {"web": {"port": 8081, "health": {"path": "/ready", "expect": "ok", "release": "release"}}}


def test_endpoints_of_running_containers() -> None:
    assert container_endpoints(CONTAINERS) == {
        "web": {"8081": {"host": "127.0.0.1", "port": 18081}, "443": {"host": "127.0.0.1", "port": 443}}
    }


def test_a_gate_checks_health_and_release_at_the_endpoint() -> None:
    [check] = web_checks(SERVICES, container_endpoints(CONTAINERS), "stack", "abc")
    assert check["url"] == "http://127.0.0.1:18081/ready"
    assert check["jmespath"] == "ok"
    assert check["release"] == {"field": "release", "equals": "abc"}
    assert check["log_container"] == {"project": "stack", "service": "web"}


def test_a_status_does_not_ask_for_a_release() -> None:
    [check] = web_checks(SERVICES, {}, "stack")
    assert check["url"] == "http://127.0.0.1:1/ready"
    assert "release" not in check


def test_stores_are_checked_by_container_and_by_a_real_login() -> None:
    migration = {"service": "db", "database": "app", "user": "admin", "password": "secret"}
    endpoints = {"db": {"5432": {"host": "127.0.0.1", "port": 15432}}}
    container, login = store_checks(["db"], [migration], endpoints, "stack")
    assert container == {"kind": "container", "project": "stack", "service": "db"}
    assert (login["kind"], login["login_host"], login["login_port"]) == ("postgres", "127.0.0.1", 15432)
    assert (login["login_user"], login["login_password"], login["database"]) == ("admin", "secret", "app")
    assert store_checks(["db"], [{**migration, "port": 5433}], endpoints, "stack")[1]["login_port"] == 1


def test_a_mongodb_is_checked_by_a_login_with_the_password_of_the_inventory() -> None:
    stores = [{"name": "a", "database": "app", "user": "owner", "port": 1}, {"name": "b", "database": "open"}]
    owner, everybody = mongo_checks(stores, [{"name": "b"}, {"name": "a", "password": "secret"}])
    assert owner == {
        "name": "database app", "kind": "mongo", "login_port": 1, "login_user": "owner", "login_password": "secret",
        "database": "app",
    }  # fmt: skip
    assert everybody == {"name": "database open", "kind": "mongo"}


def test_the_table_has_a_line_for_everything_and_says_what_is_wrong() -> None:
    lines = status_table(
        CONTAINERS,
        {"web": {"state": "timeout", "last_error": "status 503"}},
        [{"item": {"database": "db"}, "schema_version": "0002", "pending": [{"version": "0003"}]}],
        {"latest": None, "count": 0, "damaged": [{"id": "20261121T061200Z", "reason": "no manifest"}]},
        "abc",
        lock={"verdict": "alive", "summary": "alice on ci-7"},
        log=[{"time": "10:00", "step": "deploy", "result": "failed", "release": "def", "user": "alice", "note": "no"}],
    )
    assert [line.replace(" ", "") for line in lines] == [
        "what|name|state",
        "release|current|abc",
        "service|web|Up5minutes(healthy)",
        "health|web|timeout:status503",
        "schema|db|0002,1pending",
        "backup|newest|none",
        "backup|20261121T061200Z|damaged:nomanifest",
        "deploy|lock|aliceonci-7",
        "deploy|10:00|deployfaileddefalice:no",
    ]


def test_a_status_tells_which_release_a_unit_runs() -> None:
    units = [
        {
            "name": "a.service",
            "state": "active (running)",
            "since": "10:00",
            "directory": "/srv/a/releases/abc/backend",
        },
        {"name": "a.socket", "state": "active (running)", "since": "09:00", "directory": ""},
    ]
    lines = status_table([], {}, [], {}, "abc", lock={"verdict": "free"}, log=[], units=units)
    assert [line.replace(" ", "") for line in lines[2:4]] == [
        "service|a.service|active(running),releaseabc,since10:00",
        "service|a.socket|active(running),since09:00",
    ]


def test_the_table_of_releases_says_what_is_missing_and_what_was_lost() -> None:
    deployed = {"deployed_at": "10:00", "by": "alice", "result": "ok", "schema_versions": {"db": "0002"}}
    lossy = [{"version": "0002", "lossy": ["ban-drop-table"]}]
    lines = release_table(
        [
            {"id": "abc", **deployed, "migrations": lossy, "current": True, "complete": True, "missing": []},
            {"id": "def", **dict.fromkeys(deployed), "migrations": None, "current": False, "complete": False}
            | {"missing": ["image web"]},
        ]
    )
    assert [line.replace(" ", "") for line in lines] == [
        "release|deployedat|by|result|schema|",
        "abc|10:00|alice|ok|db0002|current;lostsomething:0002",
        "def|-|-|-|-|incomplete:imageweb",
    ]


def container(name: str, service: str, state: str = "running", **labels: str) -> dict[str, object]:
    """An entry of GET /containers/json."""
    return {"Names": [f"/{name}"], "State": state, "Labels": {"com.docker.compose.service": service, **labels}}


def test_everything_that_runs_and_is_no_store_may_write() -> None:
    found = [
        container("db", "db"),
        container("web", "web", **{"org.groundwork.release": "before"}),
        container("shell", "web", **{"com.docker.compose.oneoff": "True"}),
        container("loop", "worker", "restarting"),
    ]
    told = writers(found, ["db"], [], "now", ["web", "worker"])
    assert told == {"running": ["loop", "shell", "web"], "stopped": [], "needed": []}


def test_only_what_the_release_has_is_started_and_needed_is_what_a_deploy_starts() -> None:
    found = [
        container("db", "db", "exited"),
        container("old", "web", "exited", **{"org.groundwork.release": "before"}),
        container("new", "web", "exited", **{"org.groundwork.release": "now"}),
        container("shell", "web", "exited", **{"com.docker.compose.oneoff": "True"}),
        container("seed", "seed", "exited"),
        container("worker", "worker", "exited"),
        container("tool", "tool", "exited"),
    ]
    told = writers(found, ["db"], ["seed"], "now", ["web", "worker", "seed"])
    assert told == {"running": [], "stopped": ["new", "tool", "worker"], "needed": ["new", "worker"]}


def backup_lines(*sets: dict[str, object]) -> list[str]:
    """The lines on backups of the table."""
    told = {"latest": sets[0]["id"], "count": len(sets), "damaged": [], "sets": list(sets)}
    lines = status_table([], {}, [], told, "abc", lock={"verdict": "free"}, log=[])
    return [" ".join(line.split()) for line in lines if line.startswith("backup")]


def test_the_newest_set_is_shown_with_its_age_and_what_a_drill_has_proven() -> None:
    proof = {"at": "2026-11-21T07:00:00Z", "seconds": 12.34}
    assert backup_lines(
        {"id": "20261122T061200Z", "bytes": 5 * 1024**2, "age_seconds": 7300.0, "proven": None},
        {"id": "20261121T061200Z", "bytes": 9, "age_seconds": 93700.0, "proven": proof},
    ) == [
        "backup | newest | 20261122T061200Z of 2, 5.0 MiB, 2 h old",
        "backup | proven to restore | 20261121T061200Z at 2026-11-21T07:00:00Z in 12.3 s",
    ]


def test_what_the_newest_set_holds_of_mongodb_is_shown() -> None:
    counts = {"orders": 40, "people": 2}
    components = [
        {"engine": "postgres", "name": "shop", "counts": {"public.orders": 3}},
        {"engine": "mongo", "name": "one", "counts": counts, "consistent": True},
        {"engine": "mongo", "name": "two", "counts": {}, "consistent": False},
    ]
    newest = {"id": "20261122T061200Z", "bytes": 9, "components": components}
    told = {"latest": newest["id"], "count": 1, "damaged": [], "sets": [newest], "newest": newest}
    lines = status_table([], {}, [], told, "abc", lock={"verdict": "free"}, log=[])
    assert [" ".join(line.split()) for line in lines if "collections" in line] == [
        "backup | one | 2 collections, 42 documents",
        "backup | two | 0 collections, 0 documents, not of one moment",
    ]


def test_sets_that_no_drill_has_proven_are_shown_as_that() -> None:
    assert backup_lines({"id": "20261122T061200Z", "bytes": 9, "age_seconds": -5.0}) == [
        "backup | newest | 20261122T061200Z of 1, 9 bytes, less than 0 s (the clock of the host goes wrong) old",
        "backup | proven to restore | none: run drill.yml",
    ]
