# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""init.yml as a user runs it: the files it makes, how they are used, and that it makes all of them or none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.collection import COLLECTIONS, ROOT
from support.disks import fill, small_disk

BIN = Path(sys.executable).parent
FILES = {"hosts.yml", "group_vars/all/main.yml", "group_vars/all/vault.yml"}
RENDER = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - ansible.builtin.copy: {dest: "{{ out }}", content: "{{ app_env | groundwork.backend.dotenv }}", mode: "0600"}
"""

PREFLIGHT = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - ansible.builtin.include_role: {name: groundwork.backend.app, tasks_from: preflight, public: true}
    - ansible.builtin.debug: {var: __app_source.release}
"""


@dataclass(frozen=True)
class User:
    """A user with a home of their own, who starts things in *folder*."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventories" / "mine"

    @property
    def password_file(self) -> Path:
        return self.home / ".config" / "groundwork" / "mine.vault-password"

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {
            **os.environ, "HOME": str(self.home), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1",
        }  # fmt: skip
        return subprocess.run(
            [str(BIN / program), *map(str, arguments)],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def init(self, *arguments: str | Path, source: str = "verisphere", inventory: str = "inventories/mine") -> str:
        """Run init.yml and give its words; the last one is its exit status."""
        done = self.run(
            "ansible-playbook", ROOT / "playbooks" / "init.yml", "-e", f"source={source}",
            "-e", f"inventory={inventory}", *arguments,
        )  # fmt: skip
        return f"{' '.join((done.stdout + done.stderr).split())} {done.returncode}"

    def files(self) -> dict[str, bytes]:
        """Everything that is there but the source."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and "verisphere" not in path.parts and ".ansible" not in path.parts
        }

    def secrets(self, password_file: Path | None = None) -> dict[str, str]:
        done = self.run(
            "ansible-vault", "view", "--vault-password-file", password_file or self.password_file,
            self.inventory / "group_vars" / "all" / "vault.yml",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = yaml.safe_load(done.stdout)
        return found


@pytest.fixture
def user(tmp_path: Path) -> User:
    shutil.copytree(ROOT / "examples" / "verisphere", tmp_path / "verisphere")
    (tmp_path / "home").mkdir()
    return User(tmp_path)


def test_the_three_files_and_a_new_password_are_made(user: User) -> None:
    words = user.init("-e", "host=192.0.2.7")
    assert words.endswith(" 0"), words
    made = user.files()
    assert made.keys() == {f"inventories/mine/{name}" for name in FILES} | {
        str(user.password_file.relative_to(user.folder))
    }
    modes = {name: stat.S_IMODE((user.folder / name).stat().st_mode) for name in made}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "inventories/mine/group_vars/all/vault.yml", str(user.password_file.relative_to(user.folder)),
    }  # fmt: skip
    assert stat.S_IMODE(user.password_file.parent.stat().st_mode) == 0o700
    for told in (
        f"The password of the vault is in {user.password_file}, which is new",
        "Fill in with ansible-vault edit: vault_openai_api_key.",
        "New secrets: vault_postgres_superpass, vault_postgres_app_pass.",
    ):
        assert told in words
    hosts = yaml.safe_load(made["inventories/mine/hosts.yml"])["all"]
    assert list(hosts["hosts"]) == ["192.0.2.7"]
    main = yaml.safe_load(made["inventories/mine/group_vars/all/main.yml"])
    assert main["app_source"] == {"path": "{{ inventory_dir }}/../../verisphere"}


def test_secrets_are_nowhere_but_in_the_vault(user: User) -> None:
    words = user.init("--diff", "-vvv")
    secrets = user.secrets()
    made = [value for name, value in secrets.items() if value and not name.endswith("_user")]
    assert len(set(made)) == len(made) == 2
    assert all(len(value) == 40 for value in made)
    everything = [words.encode(), *user.files().values()]
    assert [text for text in everything if any(value.encode() in text for value in made)] == []
    password = user.password_file.read_bytes().strip()
    assert [text for text in everything if password in text] == [user.password_file.read_bytes()]


def test_the_inventory_works(user: User) -> None:
    assert user.init().endswith(" 0")
    vault = ["--vault-password-file", user.password_file]
    syntax = user.run(
        "ansible-playbook", "-i", user.inventory, ROOT / "playbooks" / "site.yml", "--syntax-check", *vault
    )
    assert syntax.returncode == 0, syntax.stderr
    play, out = user.folder / "render.yml", user.folder / "env"
    play.write_text(RENDER)
    done = user.run("ansible-playbook", "-i", user.inventory, play, *vault, "-e", f"out={out}")
    assert done.returncode == 0, done.stdout
    secrets = user.secrets()
    url = f"postgresql://verisphere_app:{secrets['vault_postgres_app_pass']}@postgres:5432/verisphere"
    assert f"DATABASE_URL={url}\n" in out.read_text()
    assert f"POSTGRES_SUPERPASS={secrets['vault_postgres_superpass']}\n" in out.read_text()


def test_the_settings_pass_the_check_of_the_source(user: User) -> None:
    assert user.init().endswith(" 0")
    play = user.folder / "source.yml"
    play.write_text(PREFLIGHT)
    done = user.run(
        "ansible-playbook", "-i", user.inventory, play, "--vault-password-file", user.password_file,
        "-e", f"ansible_python_interpreter={sys.executable}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "__app_source.release:" in done.stdout


def test_a_second_run_changes_nothing(user: User) -> None:
    user.init()
    before = user.files()
    words = user.init()
    assert words.endswith(" 0")
    assert "is there already, and was left as it is" in words
    assert "changed=0" in words
    assert user.files() == before


def test_check_mode_lists_and_writes_nothing(user: User) -> None:
    before = user.files()
    words = user.init("--check", "--diff")
    assert words.endswith(" 0"), words
    assert f"Would write {user.inventory}/hosts.yml" in words
    assert "app_name: verisphere" in words
    assert "changed=1" in words
    assert user.files() == before


@pytest.mark.parametrize("name", [*sorted(FILES), "group_vars/all/other.yml"])
def test_an_inventory_that_is_there_is_not_overwritten(user: User, name: str) -> None:
    path = user.inventory / name
    path.parent.mkdir(parents=True)
    path.write_text("mine: true\n")
    before = user.files()
    words = user.init()
    assert words.endswith(" 2")
    assert f"has {name if name in FILES else 'group_vars'} already, and nothing was written" in words
    assert user.files() == before


def test_an_empty_folder_is_taken(user: User) -> None:
    user.inventory.mkdir(parents=True)
    assert user.init().endswith(" 0")
    assert user.secrets()


def test_a_given_password_file_is_used(user: User) -> None:
    given = user.folder / "password"
    given.write_text("given\n")
    words = user.init("-e", f"vault_password_file={given}")
    assert words.endswith(" 0"), words
    assert f"The password of the vault is in {given}." in words
    assert not user.password_file.exists()
    assert user.secrets(given)


def test_the_vault_password_of_the_run_is_used(user: User) -> None:
    given = user.folder / "password"
    given.write_text("given\n")
    assert user.init("--vault-password-file", given).endswith(" 0")
    assert not user.password_file.exists()
    assert user.secrets(given)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("inventories/mine/password", "would lie in the inventory, beside what it protects"),
        ("nowhere", "There is no vault password file"),
        ("empty", "cannot be used"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_named(user: User, path: str, told: str) -> None:
    (user.folder / "empty").touch()
    words = user.init("-e", f"vault_password_file={path}")
    assert words.endswith(" 2")
    assert told in words
    assert not user.inventory.exists()


def test_a_password_file_from_before_is_not_overwritten(user: User) -> None:
    user.password_file.parent.mkdir(parents=True)
    user.password_file.write_text("older\n")
    words = user.init()
    assert words.endswith(" 2")
    assert f"Use it, with -e vault_password_file={user.password_file}" in words
    assert user.password_file.read_text() == "older\n"
    assert not user.inventory.exists()


def test_a_full_disk_leaves_nothing_behind(user: User) -> None:
    with small_disk(user.folder / "inventories", "1m") as disk:
        fill(disk)
        before = user.files().keys()
        words = user.init()
        assert words.endswith(" 2")
        assert "Free space on that file system" in words
        assert user.files().keys() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"source": "nowhere"}, "is no folder. Give the top folder of your repository"),
        ({"source": "home"}, "There is no compose file in"),
        ({"source": ""}, "Say where your repository is"),
        ({"inventory": "verisphere/README.md"}, "README.md is no folder"),
    ],
)
def test_a_mistake_is_a_sentence(user: User, arguments: dict[str, str], told: str) -> None:
    words = user.init(**arguments)
    assert words.endswith(" 2")
    assert told in words


def test_a_compose_file_that_is_not_there_is_named(user: User) -> None:
    words = user.init("-e", '{"compose_files": ["ops/nope.yml"]}')
    assert words.endswith(" 2")
    assert "app_compose_files names ops/nope.yml" in words
