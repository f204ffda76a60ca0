# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The tree of a commit of a git repository with its submodules, from mirrors in a cache folder on the controller."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._deploy_key import deploy_key_environment
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    InputError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._release import keep_newest

_GITLINK = "160000"
_RELATIVE = ("./", "../")


def fetch_git(
    cache: Path, url: str, version: str, *, deploy_key: str = "", submodules: bool = True, wait_seconds: float = 600.0
) -> tuple[Path, str]:
    """The tree of *version* (branch, tag or commit) of a git repository, in the cache folder, and its commit.

    deploy_key is the text of a private SSH key; wait_seconds is for another process that uses the cache.
    What git archive leaves out (export-ignore) is left out, also submodules.
    Raises CommandError with git's words, InputError when the version, a submodule's commit or its address is unknown or
    an address holds a password, StateError when the cache stays in use.
    """
    mirrors, trees, scratch = cache / "git", cache / "trees", cache / "new"
    with os_errors(f"create {cache}"):
        for folder in (mirrors, trees):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def busy() -> StateError:
        return StateError(
            f"Another run has been fetching into {cache} for {wait_seconds:g} seconds.",
            fix="Wait for its end, or end it.",
        )

    with directory_lock(mirrors, busy, wait_seconds=wait_seconds), deploy_key_environment(deploy_key) as ssh:
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir(mode=0o700)
        git = _Git(mirrors, scratch, {"GIT_TERMINAL_PROMPT": "0", **ssh})
        try:
            mirror = git.fetch(url, "app_source.git")
            if (commit := git.commit(mirror, version)) is None:
                raise InputError(
                    f"app_source.version is {version!r}, and {url} has no such branch, tag or commit.",
                    fix="Correct it, or push it.",
                )
            tree = trees / (f"{commit}-submodules" if submodules else commit)
            if not tree.exists():
                (scratch / "tree").mkdir()
                git.export(mirror, commit, scratch / "tree")
                if submodules:
                    git.export_submodules(mirror, url, commit, scratch / "tree")
                (scratch / "tree").rename(tree)
            os.utime(tree)  # what was used last is kept longest
            keep_newest(trees)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return tree, commit


def submodule_address(url: str, parent: str) -> str:
    """The address of a submodule; one that begins with ./ or ../ starts from its parent's, as git-submodule(1) says.

    Raises InputError when it climbs higher than its parent's address goes.
    """
    if not url.startswith(_RELATIVE):
        return url
    base, rest, separator = parent.rstrip("/"), url, "/"
    while rest.startswith(_RELATIVE):
        if rest.startswith("../"):
            # git@host:team/app.git has its last step at the colon.
            separator = "/" if "/" in base else ":"
            base, found, _ = base.rpartition(separator)
            if not found:
                raise InputError(
                    f"The address {url} of a submodule climbs above the address of its repository, {parent}.",
                    fix="Correct .gitmodules.",
                )
        rest = rest.partition("/")[2]
    return f"{base}{separator}{rest}".rstrip("/")


@dataclass(frozen=True)
class _Git:
    """Mirrors below one folder, a folder for what is not complete yet, and the environment for git."""

    mirrors: Path
    scratch: Path
    env: Mapping[str, str]

    def fetch(self, url: str, what: str, *, trusted: bool = True) -> Path:
        """Clone or update the mirror of a repository; its folder. *what* names the setting that holds the address.

        Without trusted, the address comes from a repository: git then refuses transports that reach this machine.
        """
        if urlsplit(url).scheme in ("http", "https") and urlsplit(url).password:
            raise InputError(
                f"{what} holds a password.", fix="Use an SSH address, or git's credential helper on the controller."
            )
        mirror, env = self.mirror(url), self.env if trusted else {**self.env, "GIT_PROTOCOL_FROM_USER": "0"}
        named = url if trusted else f"{what} from {url}"
        try:
            if mirror.exists():
                run(["git", "-C", str(mirror), "fetch", "--prune", "--quiet"], env=env, asked=f"fetch {named}")
                return mirror
            new = self.scratch / "mirror"
            run(["git", "clone", "--mirror", "--quiet", "--", url, str(new)], env=env, asked=f"clone {named}")
            new.rename(mirror)
        except CommandError as error:
            raise CommandError(error.problem, fix=self._fix(error.details["stderr"]), **error.details) from error
        return mirror

    def mirror(self, url: str) -> Path:
        """The folder of a repository's mirror."""
        return self.mirrors / hashlib.sha256(url.encode()).hexdigest()[:16]

    def _fix(self, told: str) -> str:
        key = "GIT_SSH_COMMAND" in self.env
        if "Host key verification failed" in told:
            return "Compare the server's key with what its owner publishes, then correct known_hosts on the controller."
        if "Permission denied" in told and key:
            return "Let the server know the public half of app_source.deploy_key, with the right to read."
        if "could not read Username" in told and key:
            return "A deploy key works with SSH addresses only, such as git@host:team/app.git."
        return ""

    def commit(self, mirror: Path, version: str) -> str | None:
        """The commit that a branch, tag or commit stands for."""
        argv = ["git", "-C", str(mirror), "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}"]
        parsed = run(argv, check=False)
        return parsed.stdout.strip() if parsed.rc == 0 else None

    def export(self, mirror: Path, commit: str, tree: Path) -> None:
        """Unpack a commit into the folder *tree*."""
        archive = self.scratch / "archive.tar"
        argv = ["git", "-C", str(mirror), "archive", "--output", str(archive), commit]
        run(argv, env=self.env, asked=f"read the commit {commit}")
        run(["tar", "-xf", str(archive), "-C", str(tree)], asked=f"unpack the commit {commit}")

    def export_submodules(self, mirror: Path, url: str, commit: str, tree: Path, above: str = "") -> None:
        """Unpack the submodules of a commit, and theirs; *above* is where the repository is in the release."""
        modules = self._submodules(mirror, commit)
        for path, wanted in self._gitlinks(mirror, commit):
            name, folder = above + path, tree / path
            if not folder.is_dir():  # git archive makes the folder unless export-ignore names it
                continue
            settings = modules.get(path, {})
            if settings.get("update") == "none":
                continue
            if not (address := settings.get("url")):
                raise InputError(
                    f"The commit {commit} of {url} has a submodule {name}, and its .gitmodules has no address for it.",
                    fix="Add it to .gitmodules, or remove the submodule.",
                )
            address = submodule_address(address, url)
            below = self._submodule(name, address, wanted)
            self.export(below, wanted, folder)
            self.export_submodules(below, address, wanted, folder, f"{name}/")

    def _submodule(self, name: str, url: str, wanted: str) -> Path:
        """The mirror of a submodule that has the commit *wanted*."""
        mirror = self.mirror(url)
        if mirror.exists() and self.commit(mirror, wanted):
            return mirror
        self.fetch(url, f"the submodule {name}", trusted=False)
        if not self.commit(mirror, wanted):  # of no branch or tag any more, but the server may still have it
            env = {**self.env, "GIT_PROTOCOL_FROM_USER": "0"}
            run(["git", "-C", str(mirror), "fetch", "--quiet", "origin", wanted], env=env, check=False)
        if not self.commit(mirror, wanted):
            raise InputError(
                f"The submodule {name} is recorded at the commit {wanted}, and {url} has no such commit.",
                fix="Push the submodule's commits.",
            )
        return mirror

    @staticmethod
    def _gitlinks(mirror: Path, commit: str) -> Iterator[tuple[str, str]]:
        """Path and commit of each submodule."""
        argv = ["git", "-C", str(mirror), "ls-tree", "-r", "-z", "--full-tree", commit]
        for entry in run(argv, asked=f"list the commit {commit}").stdout.split("\0"):
            if entry.startswith(f"{_GITLINK} "):
                meta, _, path = entry.partition("\t")
                yield path, meta.split()[2]

    @staticmethod
    def _submodules(mirror: Path, commit: str) -> dict[str, dict[str, str]]:
        """What .gitmodules says of each submodule, by path."""
        argv = ["git", "-C", str(mirror), "config", "--blob", f"{commit}:.gitmodules", "--null", "--list"]
        told = run(argv, check=False)
        named: dict[str, dict[str, str]] = {}
        for line in told.stdout.split("\0") if told.rc == 0 else []:
            key, _, value = line.partition("\n")
            if key.startswith("submodule."):
                name, _, setting = key.rpartition(".")
                named.setdefault(name, {})[setting] = value
        return {settings["path"]: settings for settings in named.values() if "path" in settings}
