# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""vault_values in real runs of ansible-playbook: what changes in a vault file, and what stays."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from support.playbooks import Playbooks, Played

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_vault import set_values

PASSWORD = "a password"
TEXT = """---
# of the stack
vault_a: "old"   # why
vault_b: plain
vault_c: |
  a block
vault_d: >-
  folded
  text
vault_list: [1, 2]
"""


@dataclass(frozen=True)
class Bench:
    play: Playbooks

    @property
    def path(self) -> Path:
        return self.play.folder / "vault.yml"

    @property
    def vault(self) -> VaultLib:
        return VaultLib([("default", VaultSecret(PASSWORD.encode()))])

    def text(self) -> str:
        return str(self.vault.decrypt(self.path.read_bytes()).decode())

    def run(self, values: dict[str, str], *arguments: str, password: str | None = PASSWORD) -> Played:
        given = self.play.folder / "password"
        given.write_text(password or "")
        task = {"name": "change", "groundwork.backend.vault_values": {"path": str(self.path), "values": values}}
        vault = ["--vault-password-file", str(given)] if password else []
        return self.play([task], *vault, *arguments)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(Playbooks(tmp_path))
    made.path.write_bytes(made.vault.encrypt(TEXT))
    made.path.chmod(0o640)
    return made


def changed(bench: Bench, played: Played) -> Any:
    assert played.rc == 0, played.output
    return played.result("change")["changed"], played.result("change")["variables"]


def test_check_do_check_again_do_again(bench: Bench) -> None:
    before = bench.path.read_bytes()
    assert changed(bench, bench.run({"vault_a": "new"}, "--check")) == (True, ["vault_a"])
    assert bench.path.read_bytes() == before
    assert changed(bench, bench.run({"vault_a": "new"})) == (True, ["vault_a"])
    assert bench.text() == TEXT.replace('"old"', '"new"')
    after = bench.path.read_bytes()
    for arguments in (["--check"], []):
        assert changed(bench, bench.run({"vault_a": "new", "vault_b": "plain"}, *arguments)) == (False, [])
    assert bench.path.read_bytes() == after, "an unchanged file is not even encrypted anew"


def test_the_file_keeps_its_mode_and_leaves_no_copy(bench: Bench) -> None:
    before = set(bench.play.folder.iterdir())
    bench.run({"vault_a": "new"})
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o640
    assert {path.name for path in set(bench.play.folder.iterdir()) - before} <= {
        "password", "0.play.json", "inventory.json",
    }  # fmt: skip


def test_neither_old_nor_new_values_are_printed(bench: Bench) -> None:
    played = bench.run({"vault_a": "canary-new-value"}, "-vvv", "--diff")
    assert played.rc == 0
    assert "canary-new-value" not in played.output
    assert '"old"' not in played.output


def test_a_variable_that_is_not_there_is_named_and_nothing_changes(bench: Bench) -> None:
    before = bench.path.read_bytes()
    played = bench.run({"vault_a": "new", "vault_z": "new"})
    assert played.rc != 0
    assert "does not set vault_z. Add what is missing" in played.result("change")["msg"]
    assert bench.path.read_bytes() == before


def test_a_wrong_vault_password_is_a_sentence(bench: Bench) -> None:
    message = bench.run({"vault_a": "new"}, password="wrong").result("change")["msg"]
    assert "Could not decrypt" in message
    assert "Check the vault password." in message


def test_a_missing_vault_password_is_a_sentence(bench: Bench) -> None:
    message = bench.run({"vault_a": "new"}, password=None).result("change")["msg"]
    assert "this run has no vault password. Give --vault-password-file or --ask-vault-pass." in message


def test_a_file_in_clear_text_is_refused(bench: Bench) -> None:
    bench.path.write_text(TEXT)
    message = bench.run({"vault_a": "new"}).result("change")["msg"]
    assert f"is not encrypted as a whole. Encrypt it first: ansible-vault encrypt {bench.path}." in message
    assert bench.path.read_text() == TEXT


def test_a_missing_file_is_a_sentence(bench: Bench) -> None:
    bench.path.unlink()
    assert f"There is no vault file {bench.path}." in bench.run({"vault_a": "new"}).result("change")["msg"]


@pytest.mark.parametrize("value", ["", "a'\"\\ #: {x} é\n", "yes", "123"])
@pytest.mark.parametrize("name", ["vault_a", "vault_b", "vault_c", "vault_d"])
def test_any_value_takes_the_place_of_any_scalar(name: str, value: str) -> None:
    import yaml  # noqa: PLC0415 - only here

    text, names = set_values(TEXT, {name: value}, "vault.yml")
    assert names == [name]
    assert yaml.safe_load(text) == {**yaml.safe_load(TEXT), name: value}
    assert "# of the stack" in text


def test_a_list_is_not_replaced() -> None:
    with pytest.raises(InputError, match=r"vault_list in vault\.yml is no plain value"):
        set_values(TEXT, {"vault_list": "x"}, "vault.yml")
