# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""systemd on this host: what there is of units, how they are verified, put in place and started."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    InputError,
    StateError,
    last_lines,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import owner_of

ETC = Path("/etc/systemd/system")
RUN = Path("/run/systemd/system")
_OWN = Path("/run/groundwork-units")
_PROPERTIES = (
    "Id", "ActiveState", "SubState", "Result", "ExecMainStatus", "MainPID", "UnitFileState", "StateChangeTimestamp",
    "FragmentPath",
)  # fmt: skip
_SECONDS = 30.0
_RANDOM = 8  # letters that mkstemp adds
_EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+) (\S+)")


def systemctl(*words: str, timeout: float = _SECONDS, check: bool = True, asked: str = "") -> Completed:
    """Ask systemd. Raises CommandError."""
    return run(["systemctl", *words], timeout=timeout, check=check, asked=asked or f"have systemd {words[0]} units")


def shown(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What systemd tells of these units, by name; of one that it does not know, that it is not found."""
    if not names:
        return {}
    told = systemctl("show", f"--property={','.join(_PROPERTIES)}", "--", *names).stdout
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in told.split("\n\n")]
    return dict(zip(names, filter(None, blocks), strict=True))


def directory_of(pid: str) -> str:
    """The working directory of a process; empty when it has none any more."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


def text_of(path: Path) -> str:
    """What stands in a file, whoever wrote it; empty when there is none. Raises StateError."""
    with os_errors(f"read {path}"):
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return ""


def owned(app: str, folder: Path = ETC) -> dict[str, str]:
    """The units of a stack in a folder, name -> text."""
    found = {}
    for path in sorted([*folder.glob("*.service"), *folder.glob("*.socket")]):
        if not path.is_symlink() and owner_of(text := text_of(path)) == app:
            found[path.name] = text
    return found


def pending(app: str) -> frozenset[str]:
    """Units of a stack to restart, and env files to remove, that a run did not come to. A reboot forgets them."""
    return frozenset(text_of(_pending(app)).split())


def note_pending(app: str, names: Iterable[str]) -> None:
    """What the next run has to do, whatever becomes of this one; none for nothing."""
    if text := " ".join(sorted(names)):
        put(_pending(app), f"{text}\n")
    else:
        _pending(app).unlink(missing_ok=True)


def _pending(app: str) -> Path:
    return _OWN / app / "pending"


@contextmanager
def alone(app: str, seconds: float) -> Iterator[None]:
    """One run at a time for a stack: when Ansible was killed, its module may still be at work. Raises StateError."""

    def busy() -> StateError:
        return StateError(
            f"Another run has been working on the units of {app} for {seconds:g} s.",
            fix="Look with ps whether a module of Ansible runs on this host, and run again when it has ended.",
        )

    with os_errors(f"create {_OWN / app}"):
        (_OWN / app).mkdir(mode=0o700, parents=True, exist_ok=True)
    with directory_lock(_OWN / app, busy, wait_seconds=seconds):
        yield


def put(path: Path, text: str, *, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
    """Write a file in one step; nobody sees it with another owner or mode. Raises InputError and StateError."""
    uid, gid = ids(owner, group)
    with os_errors(f"write {path}"):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * _RANDOM}"):  # of a run that was killed
            left.unlink()
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 until it is whole
        try:
            with os.fdopen(fd, "w") as stream:
                os.fchown(stream.fileno(), uid, gid)
                os.fchmod(stream.fileno(), mode)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        sync_directory(path.parent)


def ids(owner: str, group: str) -> tuple[int, int]:
    """The numbers of a user and a group. Raises InputError."""
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InputError(
            f"There is no user {owner} or no group {group} on this host.",
            fix="Run site.yml, which makes those of app_user, app_group and app_units.",
        ) from error


def attributes_of(path: Path) -> tuple[str, int, int, int] | None:
    """Content, uid, gid and mode of a file; None when there is none. Raises StateError."""
    with os_errors(f"read {path}"):
        try:
            status = path.stat()
            return path.read_text(errors="replace"), status.st_uid, status.st_gid, status.st_mode & 0o7777
        except FileNotFoundError:
            return None


def make_folder(path: Path, owner: str, group: str) -> None:
    """A folder that a unit may write to. Raises InputError and StateError."""
    uid, gid = ids(owner, group)
    with os_errors(f"create {path}"):
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(path, uid, gid)


def verify(texts: Mapping[str, str]) -> None:
    """Have systemd-analyze read units (name -> text) that are in place nowhere. Raises InputError with what it says."""
    with tempfile.TemporaryDirectory(prefix="groundwork-units-") as folder:
        paths = _written(Path(folder), texts)
        argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *paths]
        done = run(argv, timeout=_SECONDS, check=False)
        told = [line.replace(f"{folder}/", "") for line in (done.stdout + done.stderr).splitlines()]
        ours = [f"{line.rstrip('.')}." for line in told if any(line.startswith(f"{name}:") for name in texts)]
    if ours:
        raise InputError(
            f"systemd does not take the units: {' '.join(ours[:5])}",
            fix="Correct app_units; nothing was replaced.",
        )
    if done.rc != 0:
        raise CommandError(
            f"Could not verify the units: {last_lines(done.stderr, 3)}", cmd=argv, rc=done.rc, stderr=done.stderr
        )


def exposures(texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How exposed services are, as `systemd-analyze security` has it: 0 is the best and 10 the worst; with its word."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="groundwork-units-") as folder:
        for path in _written(Path(folder), texts):
            if not path.endswith(".service"):
                continue
            argv = ["systemd-analyze", "security", "--no-pager", "--offline=true", path]
            if match := _EXPOSURE.search(run(argv, timeout=_SECONDS, check=False).stdout):
                found[Path(path).name] = {"exposure": float(match[1]), "rating": match[2]}
    return found


def _written(folder: Path, texts: Mapping[str, str]) -> list[str]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in texts]


def stop(names: Iterable[str], *, timeout: float = _SECONDS) -> list[str]:
    """Stop units, sockets first so that nobody starts a service again; their names in that order. Raises StateError."""
    ordered = sorted(names, key=lambda name: (not name.endswith(".socket"), name))
    if not ordered:
        return []
    done = systemctl("stop", "--", *ordered, timeout=timeout, check=False)
    if left := [name for name, one in shown(ordered).items() if one["ActiveState"] not in ("inactive", "failed")]:
        raise StateError(f"Could not stop {', '.join(left)}: {last_lines(done.stderr, 3) or 'systemd says no more'}.")
    return ordered


def pause(names: Sequence[str], *, timeout: float) -> None:
    """Stop units, and have no start of the host start them. Raises CommandError and StateError."""
    systemctl("disable", "--", *names)
    stop(names, timeout=timeout)


def take_away(names: Iterable[str], folder: Path = ETC, *, timeout: float = _SECONDS) -> None:
    """Stop units and remove their files. Raises StateError."""
    ordered = stop(names, timeout=timeout)
    if not ordered:
        return
    if folder == ETC:
        systemctl("disable", "--", *ordered, check=False)
    for name in ordered:
        with os_errors(f"remove {folder / name}"):
            (folder / name).unlink(missing_ok=True)
    systemctl("daemon-reload")
    systemctl("reset-failed", "--", *ordered, check=False)  # systemd remembers one that failed


def act(verb: str, names: Sequence[str], timeout: float, explain: Callable[[Sequence[str], str], StateError]) -> None:
    """Start or restart units; *explain* makes the error of those that do not come up."""
    if not names:
        return
    try:
        done = systemctl(verb, "--", *names, timeout=timeout, check=False)
    except CommandError as error:  # a program that never says that it is ready
        raise explain(names, error.problem) from error
    if done.rc != 0:
        raise explain(names, last_lines(done.stderr, 3))
