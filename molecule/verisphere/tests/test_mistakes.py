# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a user gets wrong: one sentence that names the variable and the fix, and nothing is changed on the host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import INVENTORY, ROOT, Playbook, ask, current_release, fingerprint, in_postgres
from testinfra.host import Host

WEB = {"port": 8081, "health": {"path": "/ready"}}
MIGRATION = {
    "engine": "sql", "service": "postgres", "database": "verisphere", "path": "ops/postgres/migrations",
    "user": "postgres", "password": "x",
}  # fmt: skip
# More of such sentences: tests/unit/test_compose.py and test_release.py.
MISTAKES = {
    "undefined compose file": (
        {"app_compose_files": ["ops/compose/nope.yml"]},
        ["app_compose_files names ops/compose/nope.yml", "Give the path below the source's top folder"],
    ),
    "unknown service": (
        {"app_web_services": {"semantic-dedup": WEB}},
        ["app_web_services.semantic-dedup", "the compose files have: postgres, semantic-dedupe", "Correct the name"],
    ),
    "no name": ({"app_name": ""}, ["app_name is", "set it in the inventory"]),
    "no source": ({"app_source": {}}, ["app_source has the keys []", "set either path"]),
    "variable that compose needs": ({"app_env": {"POSTGRES_DB": "x"}}, ["DATABASE_URL", "Add to app_env"]),
    "bad variable name": ({"app_env": {"A B": "x"}}, ["app_env has a variable named 'A B'"]),
    "web service without health": (
        {"app_web_services": {"semantic-dedupe": {"port": 8081}}},
        ["app_web_services.semantic-dedupe needs port", "health.path"],
    ),
    "wrong type": ({"app_compose_files": {"a": 1}}, ["app_compose_files"]),
    "migrations of an unknown service": (
        {"app_migrations": [MIGRATION | {"service": "db"}], "app_store_services": []},
        ["app_migrations[0].service names the service 'db'", "the compose files have: postgres, semantic-dedupe"],
    ),
}


@pytest.mark.parametrize(("variables", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_before_anything_is_changed(
    host: Host, playbook: Playbook, variables: dict[str, object], words: list[str]
) -> None:
    before = fingerprint(host)
    run = playbook("site", **variables)
    assert run.rc != 0, run.output
    assert "failed=1" in run.words, run.output
    assert run.changed == 0
    for word in words:
        assert word in run.words, run.output
    assert fingerprint(host) == before


def test_an_undefined_secret_is_named(host: Host, playbook: Playbook, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    text = (INVENTORY / "hosts.yml").read_text().replace("{{ inventory_dir }}/../../..", str(ROOT))
    (inventory / "hosts.yml").write_text(text)
    shutil.copy(INVENTORY / "group_vars" / "all" / "10-verisphere.yml", inventory / "group_vars" / "all" / "main.yml")
    before = fingerprint(host)
    run = playbook("site", inventory=inventory, app_source={"path": str(ROOT / "examples" / "verisphere")})
    assert run.rc != 0
    assert "'vault_postgres_superpass' is undefined" in run.words, run.output
    assert "group_vars/all/vault.yml" in run.words
    assert fingerprint(host) == before


UBUNTU = 'NAME="Ubuntu"\\nID=ubuntu\\nVERSION_ID="24.04"\\nPRETTY_NAME="Ubuntu 24.04 LTS"\\n'


@pytest.fixture
def as_ubuntu(host: Host) -> Iterator[None]:
    """The host says that it is Ubuntu, through a file mounted over os-release."""
    mount = "mount --bind /run/os-release /usr/lib/os-release"
    host.check_output("sudo sh -c %s", f"printf '{UBUNTU}' > /run/os-release; {mount}")
    yield
    host.check_output("sudo umount /usr/lib/os-release")


@pytest.mark.usefixtures("as_ubuntu")
def test_another_distribution_is_refused(host: Host, playbook: Playbook) -> None:
    before = fingerprint(host)
    run = playbook("site")
    assert run.rc != 0
    assert "Debian 12 or 13 is needed" in run.words, run.output
    assert "Ubuntu" in run.words
    assert fingerprint(host) == before


@pytest.mark.slow
def test_debians_own_packages_are_refused_on_debian_12(playbook: Playbook, tmp_path: Path) -> None:
    address, testbed = "198.18.0.102", str(ROOT / "tests" / "testbed")
    subprocess.run(
        [sys.executable, testbed, "host", "start", "bookworm", "--os", "debian12", "--address", address, "--fresh"],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        inventory = tmp_path / "inventory"
        shutil.copytree(INVENTORY, inventory)
        text = (INVENTORY / "hosts.yml").read_text().replace("{{ inventory_dir }}/../../..", str(ROOT))
        (inventory / "hosts.yml").write_text(text.replace("198.18.0.101", address))
        run = playbook(
            "site",
            inventory=inventory,
            docker_source="debian",
            app_source={"path": str(ROOT / "examples" / "verisphere")},
        )
        assert run.rc != 0
        assert run.changed == 0
        assert "Compose 2.24.0 or newer is needed, and the packages of Debian 12 have none" in run.words, run.output
        assert "Set docker_source to docker" in run.words
    finally:
        subprocess.run([sys.executable, testbed, "host", "stop", "bookworm"], check=True, capture_output=True)


def test_a_broken_migration_leaves_the_service_and_the_database_as_they_were(
    host: Host, playbook: Playbook, source: Path
) -> None:
    (source / "ops" / "postgres" / "migrations" / "0003_broken.sql").write_text(
        "CREATE TABLE half_done (a int);\nALTER TABLE no_such_table ADD COLUMN b int;\n"
    )
    containers = "sudo docker ps --no-trunc --format '{{.ID}} {{.Image}}'"
    running, current = host.check_output(containers), current_release(host)
    run = playbook("deploy", app_source={"path": str(source)})
    assert run.rc != 0
    for word in ("0003_broken.sql", "no_such_table", "was not put in place", "keeps serving"):
        assert word in run.words, run.output
    assert host.check_output(containers) == running
    assert current_release(host) == current
    assert in_postgres(host, "SELECT to_regclass('half_done') IS NULL") == "t"
    assert in_postgres(host, "SELECT max(version) FROM schema_migrations WHERE state = 'applied'") == "0002"
    status, ready = ask(host, "/ready")
    assert (status, ready["schema_version"]) == (200, "0002")
    assert playbook("deploy").changed == 0
