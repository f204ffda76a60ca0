# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Files that ansible-vault encrypts, read and written on the controller with Ansible's own library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock

_HEADER = b"$ANSIBLE_VAULT;"


@dataclass(frozen=True)
class Vault:
    """Encrypts and decrypts. secrets: (vault id, secret) as Ansible's loader has them, the first one encrypts."""

    secrets: Any

    def encrypt(self, text: str) -> bytes:
        """The text as the content of a vault file. Raises StateError."""
        from ansible.parsing.vault import VaultLib  # noqa: PLC0415 - on the controller only

        with _vault_errors("encrypt the secrets"):
            found: bytes = VaultLib(self.secrets).encrypt(text, secret=self.secrets[0][1])
        return found

    def decrypt(self, data: bytes, path: Path) -> str:
        """The text of a vault file. Raises InputError when it is none, StateError for a wrong password."""
        from ansible.parsing.vault import VaultLib  # noqa: PLC0415 - on the controller only

        if not data.startswith(_HEADER):
            raise InputError(
                f"{path} is not encrypted as a whole.", fix=f"Encrypt it first: ansible-vault encrypt {path}."
            )
        if not self.secrets:
            raise InputError(
                f"{path} is encrypted, and this run has no vault password.",
                fix="Give --vault-password-file or --ask-vault-pass.",
            )
        with _vault_errors(f"decrypt {path}"):
            return str(VaultLib(self.secrets).decrypt(data).decode())


@contextmanager
def _vault_errors(asked: str) -> Iterator[None]:
    from ansible.errors import AnsibleError  # noqa: PLC0415 - on the controller only

    try:
        yield
    except AnsibleError as error:
        raise StateError(f"Could not {asked}: {error.message}", fix="Check the vault password.") from None


def vault_from(loader: Any, password_file: Path | None) -> Vault:
    """The vault of a password file (a program is run, as Ansible does), or else of this run of Ansible.

    Raises InputError when the file cannot be used.
    """
    if password_file is None:
        return Vault(list(loader._vault.secrets or []))
    from ansible.errors import AnsibleError  # noqa: PLC0415 - on the controller only
    from ansible.parsing.vault import get_file_vault_secret  # noqa: PLC0415

    try:
        secret = get_file_vault_secret(filename=str(password_file), loader=loader)
        secret.load()
    except AnsibleError as error:
        raise InputError(
            f"The vault password file {password_file} cannot be used: {error.message}",
            fix="Give a file with one line, or a program that prints it.",
        ) from None
    return Vault([("default", secret)])


def change_values(path: Path, vault: Vault, values: Mapping[str, str], *, read_only: bool = False) -> list[str]:
    """Set variables in a vault file, which has them already; its other lines stay as they are. Returns what changed.

    The file is replaced in one step, keeps its owner and mode, and no copy of the old one is left. Raises InputError
    for a variable that is not there, and StateError when the file or its folder cannot be written.
    """

    def busy() -> StateError:
        return StateError(f"Another run is changing {path}.", fix="Run again when it has ended.")

    if not path.is_file():
        raise InputError(
            f"There is no vault file {path}.", fix="Make it with ansible-vault create, or name another one."
        )
    with directory_lock(path.parent, busy, wait_seconds=30):
        with os_errors(f"read {path}"):
            data, status = path.read_bytes(), path.stat()
        before = vault.decrypt(data, path)
        after, changed = set_values(before, values, str(path))
        if not os.access(path.parent, os.W_OK):
            raise StateError(f"The folder {path.parent} cannot be written.", fix="Give this user access.")
        if changed and not read_only:
            write_file(path, vault.encrypt(after))
            with os_errors(f"keep the owner and the mode of {path}"):
                os.chown(path, status.st_uid, status.st_gid)
                path.chmod(status.st_mode & 0o7777)
    return changed


def set_values(text: str, values: Mapping[str, str], name: str) -> tuple[str, list[str]]:
    """The YAML text with top-level variables set, comments and order kept; and the names of those that changed.

    Raises InputError when one is not there, or is no plain value.
    """
    import yaml  # noqa: PLC0415 - on the controller only

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise InputError(f"{name} is not valid YAML.", fix="Correct it with ansible-vault edit.") from None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    found = {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}
    if missing := [variable for variable in values if variable not in found]:
        raise InputError(
            f"{name} does not set {' and '.join(missing)}.",
            fix="Add what is missing, with the value that is in use now, with ansible-vault edit.",
        )
    changed = []
    for variable in sorted(values, key=lambda variable: -found[variable].start_mark.index):
        node = found[variable]
        if not isinstance(node, yaml.ScalarNode):
            raise InputError(f"{variable} in {name} is no plain value.", fix="Write it as text.")
        if node.value != values[variable]:
            changed.append(variable)
            end = node.end_mark.index
            while end > node.start_mark.index and text[end - 1] in "\r\n":
                end -= 1  # a block scalar ends behind its line
            text = text[: node.start_mark.index] + json.dumps(values[variable], ensure_ascii=False) + text[end:]
    return text, sorted(changed)


def values_options() -> dict[str, Any]:
    """The options of the module vault_values; its action plugin returns path and variables."""
    return {
        "path": {"type": "path", "required": True},
        "values": {"type": "dict", "required": True, "no_log": True},
    }


def values_result(path: Path, variables: list[str]) -> dict[str, Any]:
    """What the module vault_values returns."""
    return {"changed": bool(variables), "path": str(path), "variables": variables}
