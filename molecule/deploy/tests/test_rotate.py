# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""rotate_secret.yml under load: every request opens its own connection to the database, and none may fail."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SCENARIO, Fleet
from support.load import Load
from support.scenario import Playbook, copy_source

FIRST = "a-first-password"
VAULT = "the-word-of-the-vault"
SETTINGS = """
app_source: {path: "%s"}
app_env:
  DB_PASSWORD: "{{ relay_password }}"
  GREETING: hello
  DATABASE_URL: "postgresql://{{ vault_relay_user }}:{{ vault_relay_app_password }}@db:5432/relay"
app_logins:
  relay:
    service: db
    database: relay
    role: relay_app
    user_variable: vault_relay_user
    password_variable: vault_relay_app_password
    admin_user: relay
    admin_password: "{{ relay_password }}"
"""
# Connects anew for every request, so that a login that is closed too early fails one at once.
CONNECTS = """    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"]) as connection:
        login = (await (await connection.execute("SELECT session_user")).fetchone())[0]
"""


@dataclass(frozen=True)
class Stack:
    """The scenario's application with a database login of its own, in an inventory with a vault."""

    fleet: Fleet
    playbook: Playbook
    inventory: Path
    password_file: Path

    @property
    def vault(self) -> Path:
        return self.inventory / "group_vars" / "all" / "vault.yml"

    def run(self, name: str, *arguments: str, **variables: Any) -> Any:
        vault = ("--vault-password-file", str(self.password_file))
        return self.playbook(name, *vault, *arguments, inventory=self.inventory, **variables)

    def secrets(self) -> dict[str, str]:
        """What the vault file says: each of its lines is a name and a JSON text."""
        text = self.ansible_vault("view")
        return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in text.splitlines())}

    def ansible_vault(self, action: str) -> str:
        return subprocess.run(
            ["ansible-vault", action, "--vault-password-file", str(self.password_file), str(self.vault)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def logins(self) -> set[str]:
        """The logins with which the replicas of both hosts answer."""
        return {answer["login"] for answer in self.fleet.answers("/work", 12)}

    def gets_in(self, user: str, password: str) -> list[bool]:
        """On both hosts, whether the server takes a password, asked at the container's own address."""
        command = f'PGPASSWORD={password} psql -X -h "$(hostname -i)" -U {user} -d relay -c "SELECT 1"'
        hosts = (self.fleet.one, self.fleet.two)
        return [host.run("sudo docker exec relay_db sh -c %s", command).rc == 0 for host in hosts]


def in_database(fleet: Fleet, statements: str) -> None:
    """On both hosts, as superuser."""
    for host in (fleet.one, fleet.two):
        host.check_output("sudo docker exec relay_db psql -X -v ON_ERROR_STOP=1 -U relay -d relay -c %s", statements)


def application(folder: Path) -> Path:
    """A copy of the application that asks its database."""
    source = copy_source(SCENARIO / "app", folder)
    compose, app, needs = source / "compose.yml", source / "app.py", source / "requirements.txt"
    text = compose.read_text()
    url = "postgresql://relay:${DB_PASSWORD}@db:5432/relay"
    assert url in text
    compose.write_text(text.replace(url, "${DATABASE_URL}"))
    text = app.read_text()
    for before, after in (
        ("    known = scope", f"{CONNECTS}    known = scope"),
        ('"release": RELEASE,', '"release": RELEASE, "login": login,'),
        ("import os\n", "import os\n\nimport psycopg\n"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    app.write_text(text)
    needs.write_text(f"{needs.read_text()}psycopg[binary]==3.3.9\n")
    return source


@pytest.fixture(scope="module")
def stack(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deployed with the first login; afterwards the scenario's own application again."""
    folder = tmp_path_factory.mktemp("rotate")
    playbook = Playbook(folder, SCENARIO / "inventory")
    inventory, password_file = folder / "inventory", folder / "vault-password"
    shutil.copytree(SCENARIO / "inventory", inventory)
    for path in (inventory / "hosts.yml", inventory / "group_vars" / "all" / "main.yml"):
        text = path.read_text().replace("{{ inventory_dir }}/../../..", str(ROOT))
        path.write_text(text.replace("inventory_dir ~ '/../../..", f"'{ROOT}"))
    (inventory / "group_vars" / "all" / "rotate.yml").write_text(SETTINGS % application(folder / "source"))
    password_file.write_text(f"{VAULT}\n")
    made = Stack(fleet, playbook, inventory, password_file)
    made.vault.write_text(f'vault_relay_user: "relay_app"\nvault_relay_app_password: "{FIRST}"\n')
    made.ansible_vault("encrypt")
    in_database(fleet, f"CREATE ROLE relay_app LOGIN PASSWORD '{FIRST}'; GRANT CONNECT ON DATABASE relay TO relay_app")
    try:
        deployed = made.run("deploy")
        assert deployed.rc == 0, deployed.output
        yield made
    finally:
        back = playbook("deploy")
        in_database(fleet, "DROP OWNED BY relay_app; DROP ROLE IF EXISTS relay_app_alt; DROP ROLE relay_app")
        assert back.rc == 0, back.output


@pytest.mark.slow
def test_a_rotation_that_fails_leaves_the_login_the_vault_and_the_services_as_they_were(stack: Stack) -> None:
    before, vault = stack.secrets(), stack.vault.read_bytes()
    user, password = before["vault_relay_user"], before["vault_relay_app_password"]
    with Load(stack.fleet.proxy) as load:
        run = stack.run("rotate_secret", app_hooks={"after_switch": ["sh -c 'test $(hostname) != deploy-two'"]})
    assert run.rc != 0
    assert f"{user} stays the login with the password that the vault file has" in run.words, run.output
    assert load.report.failed == 0, load.report
    assert stack.vault.read_bytes() == vault
    assert stack.logins() == {user}
    assert stack.gets_in(user, password) == [True, True]
    closed = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'relay_app%'"
    for host in (stack.fleet.one, stack.fleet.two):
        assert host.check_output("sudo docker exec relay_db psql -XAtU relay -c %s", closed) == "1"


def test_the_login_changes_under_load_without_a_failed_request_and_no_secret_is_shown(stack: Stack) -> None:
    old = stack.secrets()
    before, password = old["vault_relay_user"], old["vault_relay_app_password"]
    after = "relay_app_alt" if before == "relay_app" else "relay_app"
    assert stack.logins() == {before}
    assert stack.gets_in(before, password) == [True, True]
    with Load(stack.fleet.proxy) as load:
        run = stack.run("rotate_secret", "-vvv")
        assert run.rc == 0, run.output[-8000:]
    admin = (ROOT / "build" / "molecule" / "relay_password").read_text().split()[0]
    for secret in (password, stack.secrets()["vault_relay_app_password"], admin, VAULT):
        shown = run.output.find(secret)
        assert shown == -1, run.output[max(shown - 300, 0) : shown]
    assert load.report.failed == 0, load.report
    assert load.report.requests > 1000, load.report
    assert stack.logins() == {after}
    assert stack.secrets()["vault_relay_user"] == after
    assert stack.gets_in(before, password) == [False, False], "the password before is of no use any more"
    assert stack.gets_in(after, stack.secrets()["vault_relay_app_password"]) == [True, True]
    assert stack.run("deploy").changed == 0, "the vault file says what runs"
