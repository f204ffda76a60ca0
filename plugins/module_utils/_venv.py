# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Virtual environments of releases: made once for each content of the requirements, linked from every release with it.

``venvs/<digest>`` is complete when it has its mark; ``releases/<id>/.venv`` is a link to it. Programs of packages run
while they are installed, so that an ordinary user installs; afterwards everything belongs to root.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    InputError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker
from ansible_collections.groundwork.backend.plugins.module_utils._requirements import Requirements, read_requirements
from ansible_collections.groundwork.backend.plugins.module_utils._sets import folder_names

MARK = ".groundwork-complete"
LINK = ".venv"
# What packages are built for, and the program that the environment leads to. A security update of it changes neither.
_WHO = (
    "import os, sys, sysconfig; "
    "print(sysconfig.get_config_var('SOABI'), sysconfig.get_platform(), os.path.realpath(sys.executable))"
)
_SECONDS = 60.0
_TOLD_LINES = 12
_SHORTEST_SECRET = 6
_UV = {"UV_SYSTEM_CERTS": "true"}  # an index behind a CA of one's own, which pip takes from the host, too


@dataclass(frozen=True)
class Wanted:
    """What a release needs. env: variables for the installer; user, group: who installs, empty for who runs this."""

    path: Path
    release: Path
    requirements: str
    installer: str
    interpreter: str
    uv: str
    env: Mapping[str, str]
    user: str = ""
    group: str = ""

    def read(self) -> Requirements:
        """The requirements. Raises InputError."""
        return read_requirements(self.requirements, self._text)

    def _text(self, name: str) -> str:
        try:
            return (self.release / name).read_text()
        except (OSError, ValueError) as error:
            raise InputError(
                f"The requirements {name} of the release {self.release.name} cannot be read: {error}.",
                fix="Give app_python.requirements as a path below the source's top folder.",
            ) from error

    def digest(self, found: Requirements) -> str:
        """The name of the environment."""
        told = run([self.interpreter, "-c", _WHO], timeout=_SECONDS, asked=f"ask {self.interpreter} for its version")
        return found.digest(self.installer, told.stdout.strip(), self.release.name if found.local else "")


def linked(release: Path) -> str:
    """The name of the environment that a release has; empty when it has none that is complete."""
    link = release / LINK
    with os_errors(f"read {link}"):
        return link.readlink().name if link.is_symlink() and (link / MARK).exists() else ""


def complete(path: Path, name: str) -> bool:
    """Whether an environment was made to its end."""
    return (path / "venvs" / name / MARK).exists()


def make(wanted: Wanted, found: Requirements, name: str) -> None:
    """Make an environment. What an earlier run left half made goes first. Raises CommandError and DependencyError."""
    folder = wanted.path / "venvs" / name
    remove(wanted.path, name)
    # What is missing is told before anything is made.
    _as(wanted.user, wanted.group)
    if wanted.installer == "uv" and not shutil.which(wanted.uv):
        raise DependencyError(
            f"app_python.installer is uv, and there is no program {wanted.uv} on this host.",
            fix="Install it, or name it with its folder in app_python.uv.",
        )
    try:
        with os_errors(f"create {folder}"):
            folder.mkdir(mode=0o755, parents=True)
            cache = wanted.path / "cache"
            cache.mkdir(mode=0o700, exist_ok=True)
            if wanted.user:
                for one in (folder, cache):
                    shutil.chown(one, wanted.user)
        for argv in _commands(wanted, found, folder):
            _install(wanted, argv)
        if wanted.user:
            _give_to_root(folder)
        os.sync()  # after a power failure the mark would be there, and files before it empty
        write_file(folder / MARK, b"")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _commands(wanted: Wanted, found: Requirements, folder: Path) -> list[list[str]]:
    python = str(folder / "bin" / "python")
    hashes = ["--require-hashes"] if found.hashed else []
    if wanted.installer == "uv":
        options = ["--no-progress", "--compile-bytecode", "--link-mode", "copy"]
        return [
            [wanted.uv, "venv", "--no-project", "--allow-existing", "--python", wanted.interpreter, str(folder)],
            [wanted.uv, "pip", "install", *options, "--python", python, *hashes, "--requirement", wanted.requirements],
        ]
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    return [
        [wanted.interpreter, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", *options, *hashes, "--requirement", wanted.requirements],
    ]


def _as(user: str, group: str) -> list[str]:
    """The beginning of a command that a user runs. Raises InputError."""
    if not user:
        return []
    try:
        gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
    except KeyError as error:
        raise InputError(
            f"There is no user {user} or no group {group} on this host.", fix="Run site.yml, which makes app_user."
        ) from error
    return ["setpriv", f"--reuid={user}", f"--regid={gid}", "--init-groups", "--no-new-privs", "--"]


def _install(wanted: Wanted, argv: list[str]) -> None:
    cache = wanted.path / "cache"
    env = {
        "HOME": str(cache),
        "PIP_CACHE_DIR": str(cache / "pip"),
        **_UV,
        "UV_CACHE_DIR": str(cache / "uv"),
        **wanted.env,
    }
    done = run([*_as(wanted.user, wanted.group), *argv], env=env, cwd=str(wanted.release), check=False)
    if done.rc == 0:
        return
    # Short values are switches, and no secrets.
    mask = Masker([value for value in wanted.env.values() if len(value) >= _SHORTEST_SECRET])
    told = mask(f"{done.stdout}\n{done.stderr}")
    if "ensurepip is not" in told:
        raise DependencyError(
            f"The Python {wanted.interpreter} of this host makes no virtual environments.", fix="Install python3-venv."
        )
    raise CommandError(
        f"The requirements {wanted.requirements} of release {wanted.release.name} could not be installed: "
        f"{Path(argv[0]).name} {' '.join(argv[1:4])} ended with {done.rc}:\n{last_lines(told, _TOLD_LINES)}",
        cmd=argv,
        rc=done.rc,
        stderr=last_lines(told, 200),
    )


def _give_to_root(folder: Path) -> None:
    with os_errors(f"give {folder} to root"):
        for parent, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(Path(parent, name), 0, 0, follow_symlinks=False)


def link(release: Path, name: str) -> None:
    """Have a release use an environment, in one step."""
    temporary = release / f"{LINK}.new"
    with os_errors(f"link {release / LINK}"):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("..", "..", "venvs", name))
        if (release / LINK).is_dir() and not (release / LINK).is_symlink():
            shutil.rmtree(release / LINK)
        temporary.replace(release / LINK)


def unused(path: Path) -> list[str]:
    """The environments that no release links to."""
    releases = (path / "releases" / name / LINK for name in folder_names(path / "releases"))
    used = {one.readlink().name for one in releases if one.is_symlink()}
    return sorted(set(folder_names(path / "venvs")) - used)


def remove(path: Path, name: str) -> None:
    """Remove an environment; its mark first, so that half of one is never taken for a whole one."""
    folder = path / "venvs" / name
    with os_errors(f"remove {folder}"):
        (folder / MARK).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
