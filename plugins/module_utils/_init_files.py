# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Make the files of a new inventory on the controller: all of them, or none."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _init_render
from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import load_compose_file, texts
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import merge_services, uses
from ansible_collections.groundwork.backend.plugins.module_utils._init_guess import (
    env_example,
    find_compose_files,
    health_path,
    migration_folders,
)
from ansible_collections.groundwork.backend.plugins.module_utils._init_model import Found, Plan
from ansible_collections.groundwork.backend.plugins.module_utils._init_plan import make_plan
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_vault import Vault

VAULT_FILE = "group_vars/all/vault.yml"
FILES = ("hosts.yml", "group_vars/all/main.yml", VAULT_FILE)
_LENGTH = 40
_ALPHABET = string.ascii_letters + string.digits  # needs no quoting in a URL, in a shell or in YAML
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


@dataclass(frozen=True)
class Wish:
    """What the user asked for. password_file None: make a new one, unless this run of Ansible has a vault password."""

    source: Path
    inventory: Path
    app_name: str = ""
    host: str = ""
    compose_files: Sequence[str] = ()
    password_file: Path | None = None


def make_secret() -> str:
    """A new secret of 238 bits."""
    first = secrets.choice(string.ascii_letters)  # so that nothing reads it as a number
    return first + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH - 1))


def survey(root: Path, compose_files: Sequence[str]) -> Found:
    """Read what the source says. Raises InputError that names the file."""
    documents = [(name, load_compose_file(root, name)) for name in compose_files]
    services = merge_services(documents)
    variables = [use for _name, document in documents for text in texts(document) for use in uses(text)]
    variables += [
        use for service in services.values() for name in service.pass_through for use in uses(f"${{{name}:-}}")
    ]
    migrations, alembic = migration_folders(
        root, (folder for service in services.values() for folder in service.init_folders)
    )
    health = {name: health_path(service.health, root, service.context) for name, service in services.items()}
    return Found(services, variables, env_example(root, compose_files[0])[1], migrations, alembic, health)


def create(wish: Wish, vault_for: Callable[[Path | None], Vault], *, read_only: bool) -> dict[str, Any]:
    """Make the inventory, and return what the module stack_inventory returns.

    vault_for gives the vault of a password file, or of this run of Ansible. Raises InputError and StateError.
    """
    root, target = wish.source, wish.inventory
    if not root.is_dir():
        raise InputError(f"The source {root} is no folder.", fix="Give the top folder of your repository: -e source=….")
    there = [name for name in FILES if (target / name).exists()]
    if len(there) == len(FILES):
        return _result(wish, Plan(), {}, changed=False)
    _require_room(target, there)
    name = wish.app_name or re.sub(r"[^a-z0-9_-]+", "-", root.name.lower()).strip("-_")
    if not _NAME.match(name):
        raise InputError(
            f"The name of the stack would be {name!r}.",
            fix="Give one in lower-case letters, digits, - and _: -e app_name=….",
        )
    compose_files = list(wish.compose_files) or find_compose_files(root)
    plan = make_plan(survey(root, compose_files), make_secret)
    password_file, vault, new_password = _vault(wish, vault_for)
    contents = {
        "hosts.yml": _init_render.hosts(name, wish.host),
        "group_vars/all/main.yml": _init_render.main_yml(name, _source(root, target), compose_files, plan),
        VAULT_FILE: _init_render.vault_yml(plan),
    }
    if not read_only:
        _write(target, contents, vault, password_file if new_password else None, new_password)
    return _result(
        wish, plan, contents, changed=True, password_file=password_file, password_file_made=bool(new_password)
    )


def _require_room(target: Path, there: Sequence[str]) -> None:
    """Raises StateError when the folder holds anything: nothing of it is overwritten, and nothing is mixed with it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise StateError(f"{target} is no folder.", fix="Give another one: -e inventory=….")
    found = list(there) or sorted(path.name for path in target.iterdir())
    if found:
        raise StateError(
            f"The inventory {target} has {', '.join(found[:5])} already, and nothing was written.",
            fix="Give another folder, or remove them.",
        )


def _source(root: Path, target: Path) -> str:
    """The source as the inventory names it: relative, so that both can move together; else as a whole path."""
    if os.path.commonpath([root, target]) == "/" or "{" in str(root):
        return str(root)
    return f"{{{{ inventory_dir }}}}/{os.path.relpath(root, target)}"


def _vault(wish: Wish, vault_for: Callable[[Path | None], Vault]) -> tuple[Path | None, Vault, str]:
    """The password file, its vault, and the password when the file has to be made."""
    given = wish.password_file
    if given is not None:
        if wish.inventory in given.parents:
            raise InputError(
                f"The vault password file {given} would lie in the inventory, beside what it protects.",
                fix="Keep it in another folder, such as ~/.config/groundwork.",
            )
        if not given.exists():
            raise InputError(
                f"There is no vault password file {given}.", fix="Leave vault_password_file out to have one made."
            )
        return given, vault_for(given), ""
    own = vault_for(None)
    if own.secrets:
        return None, own, ""
    path = Path.home() / ".config" / "groundwork" / f"{wish.inventory.name}.vault-password"
    if path.exists():
        raise StateError(
            f"The file {path}, where the new vault password would go, is there already.",
            fix=f"Use it, with -e vault_password_file={path}, or remove it when nothing is encrypted with it.",
        )
    from ansible.parsing.vault import VaultSecret  # noqa: PLC0415 - on the controller only

    password = make_secret()
    return path, Vault([("default", VaultSecret(password.encode()))]), password


def _write(target: Path, contents: Mapping[str, str], vault: Vault, password_file: Path | None, password: str) -> None:
    staging = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with os_errors(f"make the folder {staging}"):
            staging.mkdir(parents=True, mode=0o755)
        for name, text in contents.items():
            path = staging / name
            with os_errors(f"make the folder {path.parent}"):
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_file(path, vault.encrypt(text) if name == VAULT_FILE else text.encode())
            if name != VAULT_FILE:
                path.chmod(0o644)
        if password_file is not None:
            with os_errors(f"make the folder {password_file.parent}"):
                password_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(password_file, f"{password}\n".encode())
        try:
            with os_errors(f"make the inventory {target}"):
                staging.rename(target)  # over an empty folder too; over any other it fails
                sync_directory(target.parent)
        except StateError:
            if password_file is not None:
                password_file.unlink(missing_ok=True)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _result(
    wish: Wish,
    plan: Plan,
    contents: Mapping[str, str],
    *,
    changed: bool,
    password_file: Path | None = None,
    password_file_made: bool = False,
) -> dict[str, Any]:
    shown = {name: text for name, text in contents.items() if name != VAULT_FILE}
    return {
        "changed": changed,
        "inventory": str(wish.inventory),
        "files": [str(wish.inventory / name) for name in FILES],
        "vault_password_file": str(password_file or ""),
        "vault_password_file_made": password_file_made,
        "generated": [name for name, secret in plan.vault.items() if secret.value and not secret.comment],
        "empty": plan.empty,
        "checks": plan.checks,
        "diff": [
            {"before_header": name, "after_header": name, "before": "", "after": text} for name, text in shown.items()
        ],
    }


def inventory_options() -> dict[str, Any]:
    """The options of the module stack_inventory."""
    return {
        "source": {"type": "path", "required": True},
        "inventory": {"type": "path", "required": True},
        "app_name": {"type": "str", "default": ""},
        "host": {"type": "str", "default": ""},
        "compose_files": {"type": "list", "elements": "str", "default": []},
        "vault_password_file": {"type": "path"},
    }
