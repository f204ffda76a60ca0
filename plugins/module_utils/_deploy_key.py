# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A private SSH key for git, as a file that lives no longer than the commands that use it."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, last_lines, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run

# accept-new: a server that is met for the first time is noted in known_hosts, one whose key changed is refused.
_OPTIONS = ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new")


@contextmanager
def deploy_key_environment(key: str) -> Iterator[dict[str, str]]:
    """The environment in which git uses *key* (the text of a private key) for SSH; empty without a key.

    A GIT_SSH_COMMAND of the user stays, with the key behind it.
    Raises InputError when the text is no private key, or one with a passphrase.
    """
    if not key.strip():
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="groundwork-") as folder:  # mode 0700
        path = Path(folder) / "deploy_key"
        with os_errors(f"write {path}"):
            path.touch(mode=0o600)
            # OpenSSH wants the newline at the end, and no carriage returns.
            path.write_text("\n".join(key.split("\r\n")).strip() + "\n")
        _require_readable(path)
        words = ["-i", str(path), *(word for option in _OPTIONS for word in ("-o", option))]
        yield {"GIT_SSH_COMMAND": f"{os.environ.get('GIT_SSH_COMMAND') or 'ssh'} {shlex.join(words)}"}


def _require_readable(path: Path) -> None:
    """ssh itself would only say that the server denied access."""
    read = run(["ssh-keygen", "-y", "-P", "", "-f", str(path)], check=False)
    if read.rc == 0:
        return
    if "passphrase" in read.stderr:
        raise InputError(
            "app_source.deploy_key is a private key with a passphrase, which nobody is there to type.",
            fix="Remove its passphrase (ssh-keygen -p); the vault keeps it safe.",
        )
    told = last_lines(read.stderr.replace(str(path), "deploy_key"), 1)
    raise InputError(
        f"app_source.deploy_key cannot be read as a private SSH key; ssh-keygen says: {told}",
        fix="Give its whole text, from the line with BEGIN to the line with END, as a block (|) in a vaulted file.",
    )
