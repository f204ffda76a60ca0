# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""release_source with a deploy key, on a git server that answers over SSH only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.git_repository import add_submodule, git, private_key, repository
from support.git_server import BASE, GitServer
from support.modules import ModuleRunner
from support.playbooks import Playbooks, Played
from support.postgres_container import need_image

COMPOSE = "services: {web: {image: x}}\n"


@dataclass(frozen=True)
class Bench:
    """A controller of its own: known_hosts, temporary folder, cache."""

    module: ModuleRunner
    server: GitServer
    key: str
    folder: Path

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def address(self) -> str:
        return f"git@{self.server.address}:app.git"

    @property
    def env(self) -> dict[str, str]:
        ssh = f"ssh -F none -o UserKnownHostsFile={self.known_hosts}"
        return {"TMPDIR": str(self.folder / "tmp"), "GIT_SSH_COMMAND": ssh}

    def __call__(self, **changes: Any) -> dict[str, Any]:
        given = {
            "git": self.address,
            "version": "main",
            "compose_files": ["compose.yml"],
            "cache": str(self.folder / "cache"),
            "deploy_key": self.key,
        }
        result = self.module("release_source", {**given, **changes}, env=self.env)
        assert not list((self.folder / "tmp").iterdir())
        return result

    def role(self, **source: Any) -> Played:
        """The role's search for the source, with an inventory's app_source."""
        variables = {
            "app_name": "shop",
            "app_compose_files": ["compose.yml"],
            "app_source": {"git": self.address, "version": "main", **source},
        }
        task = {
            "name": "role",
            "ansible.builtin.include_role": {"name": "groundwork.backend.app", "tasks_from": "source"},
            "vars": variables,
        }
        # the cache is below the home folder
        return Playbooks(self.folder, env={**self.env, "HOME": str(self.folder)})([task], "-vvv")


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[tuple[GitServer, str]]:
    """A server with app, which has lib at a relative address; the private key of its only reader."""
    need_image(root, BASE)
    folder = Path(tempfile.mkdtemp(prefix="gw-git-", dir="/tmp"))
    key = private_key(folder / "key")
    lib = repository(folder / "lib", lib_txt="lib one\n")
    app = repository(folder / "app", compose_yml=COMPOSE)
    add_submodule(app, str(lib), "libs/lib")
    git(app, "config", "--file", ".gitmodules", "submodule.libs/lib.url", "../lib.git")
    git(app, "commit", "--quiet", "-am", "relative address")
    server = GitServer.start(folder / "given", (folder / "key.pub").read_text(), app, lib)
    yield server, key
    server.remove()
    shutil.rmtree(folder)


@pytest.fixture
def bench(module: ModuleRunner, served: tuple[GitServer, str], tmp_path: Path) -> Bench:
    (tmp_path / "tmp").mkdir()
    return Bench(module, *served, tmp_path)


def test_a_private_repository_and_its_submodules_are_read_with_the_key(bench: Bench) -> None:
    result = bench()
    assert "failed" not in result, result["msg"]
    assert (Path(result["root"]) / "libs/lib/lib.txt").read_text() == "lib one\n"
    assert bench.server.address in bench.known_hosts.read_text()
    again = bench(deploy_key=bench.key.rstrip("\n"))
    assert again["release"] == result["release"]


def test_the_key_is_in_no_output_and_not_in_the_cache(bench: Bench) -> None:
    secret = bench.key.splitlines()[1]
    result = bench()
    assert secret not in result["_printed"]
    kept = [path for path in bench.folder.rglob("*") if path.is_file()]
    assert kept
    assert not any(secret.encode() in path.read_bytes() for path in kept)


@pytest.mark.parametrize("cached", [False, True])
def test_a_wrong_key_is_a_sentence_also_when_the_repository_is_cached(bench: Bench, cached: bool) -> None:
    if cached:
        assert "failed" not in bench()
    wrong = private_key(bench.folder / "wrong")
    result = bench(deploy_key=wrong)
    assert result["failed"]
    assert f"Could not {'fetch' if cached else 'clone'} {bench.address}" in result["msg"]
    assert "Permission denied" in result["msg"]
    assert "public half of app_source.deploy_key" in result["msg"]
    assert wrong.splitlines()[1] not in result["_printed"]


def test_a_server_whose_key_changed_is_refused(bench: Bench) -> None:
    private_key(bench.folder / "other")
    bench.known_hosts.write_text(f"{bench.server.address} {(bench.folder / 'other.pub').read_text()}")
    before = bench.known_hosts.read_text()
    result = bench()
    assert result["failed"]
    assert "Host key verification failed" in result["msg"]
    assert "known_hosts" in result["msg"]
    assert bench.known_hosts.read_text() == before


def test_a_submodule_that_the_key_cannot_read_is_named(bench: Bench) -> None:
    address = f"git@{bench.server.address}:no-such.git"
    app = repository(bench.folder / "app", compose_yml=COMPOSE)
    git(app, "config", "--file", ".gitmodules", "submodule.lib.path", "libs/lib")
    git(app, "config", "--file", ".gitmodules", "submodule.lib.url", address)
    git(app, "add", ".gitmodules")
    git(app, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},libs/lib")
    git(app, "commit", "--quiet", "-m", "add lib")
    result = bench(git=str(app))
    assert result["failed"]
    assert f"Could not clone the submodule libs/lib from {address}" in result["msg"]


FIND = "groundwork.backend.app : Find the source and compare it with the settings"


def test_the_role_hands_the_key_on_and_shows_it_nowhere(bench: Bench) -> None:
    played = bench.role(deploy_key=bench.key)
    assert played.rc == 0, played.output
    assert (Path(played.result(FIND)["root"]) / "libs/lib/lib.txt").exists()
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in played.output
    assert bench.key.splitlines()[1] not in played.output


def test_the_role_can_leave_submodules_out(bench: Bench) -> None:
    played = bench.role(deploy_key=bench.key, submodules=False)
    assert played.rc == 0, played.output
    assert not (Path(played.result(FIND)["root"]) / "libs/lib/lib.txt").exists()


def test_a_misspelt_variable_of_the_vault_is_not_taken_for_no_key(bench: Bench) -> None:
    played = bench.role(deploy_key="{{ vault_deploy_kye }}")
    assert played.rc != 0
    assert "vault_deploy_kye" in str(played.result(FIND)["msg"])
