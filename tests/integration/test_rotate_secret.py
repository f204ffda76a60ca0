# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What rotate_secret.yml says of settings that it cannot use, before it connects to any host.

The rotation itself runs in the Molecule scenario deploy, under load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.collection import COLLECTIONS, ROOT

LOGIN = {"service": "db", "database": "x", "role": "x", "password_variable": "vault_p", "user_variable": "vault_u"}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "none described": ({}, "Which login shall be rotated? app_logins has none"),
    "not one of them": ({"login": "c", "app_logins": {"a": LOGIN}}, "app_logins has a: name one with -e login="),
    "several": ({"app_logins": {"a": LOGIN, "b": LOGIN}}, "app_logins has a, b: name one with -e login="),
    "another kind": ({"app_logins": {"a": {"engine": "mongo"}}}, "engine is mongo: only postgres can be rotated yet"),
    "no server": (
        {"app_logins": {"a": {key: LOGIN[key] for key in ("database", "role", "password_variable")}}},
        "app_logins.a needs role, database, password_variable, and either service or host",
    ),
    "no variable": (
        {"vault_u": "x", "app_logins": {"a": LOGIN}},
        "names the variable vault_p, which is not defined. Add it to the vault file",
    ),
    "another user": (
        {"vault_u": "y", "vault_p": "z", "app_logins": {"a": LOGIN}},
        "vault_u is y, and app_logins.a knows the logins x and x_alt: correct role, or set second",
    ),
    "no vault file": (
        {"vault_u": "x", "vault_p": "z", "app_logins": {"a": LOGIN}},
        "There is no vault file",
    ),
}


@pytest.mark.parametrize(("variables", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_before_any_host_is_reached(tmp_path: Path, variables: dict[str, Any], told: str) -> None:
    inventory, given = tmp_path / "hosts.yml", tmp_path / "given.json"
    inventory.write_text("app: {hosts: {nowhere.invalid: {app_name: x, app_env: {}}}}\n")
    given.write_text(json.dumps(variables))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), "-e", f"@{given}",
            str(ROOT / "playbooks" / "rotate_secret.yml"),
        ],
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, words
    assert told in words
    assert "unreachable=0" in words
