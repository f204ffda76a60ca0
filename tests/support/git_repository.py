# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Real git repositories for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; what it printed."""
    settings = ["user.name=t", "user.email=t@example.org", "init.defaultBranch=main", "protocol.file.allow=always"]
    words = [word for setting in settings for word in ("-c", setting)]
    done = subprocess.run(["git", *words, "-C", str(folder), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path, **files: str) -> Path:
    """A new repository with one commit; the keyword a_txt is the file a.txt."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    return commit(folder, **{"README_md": "read me\n", **files})


def commit(folder: Path, **files: str) -> Path:
    """Write files and commit everything."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "change")
    return folder


def add_submodule(parent: Path, address: str, path: str) -> None:
    """Add a submodule at its newest commit."""
    git(parent, "submodule", "--quiet", "add", "--", address, path)
    git(parent, "commit", "--quiet", "-m", f"add {path}")


def allow_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git take the address of a submodule from a folder of this machine, which it refuses by default."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")


def private_key(path: Path, *, passphrase: str = "") -> str:
    """A new key pair at *path*; the text of the private key."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path.read_text()
