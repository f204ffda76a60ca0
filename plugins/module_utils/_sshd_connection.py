# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Who came in over SSH, and how: the connection that this process belongs to."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._exec import piped, start
from ansible_collections.groundwork.backend.plugins.module_utils._sshd import Connection, accepted

_LOG_LINES = 20000


def find_connection() -> Connection | None:
    """The SSH connection that this process belongs to; None without one.

    sudo drops SSH_CONNECTION for what it starts, but has it itself: so the processes above are asked.
    """
    told, user, pid = "", "", os.getpid()
    while pid > 1:
        folder = Path("/proc") / str(pid)
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            stat = (folder / "stat").read_text()
            for one in environment:
                if one.startswith(b"SSH_CONNECTION="):
                    told = one.partition(b"=")[2].decode()
                    user = pwd.getpwuid(folder.stat().st_uid).pw_name
        except (OSError, KeyError):
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    if len(words := told.split()) != 4:
        return None
    address, port, local_address, local_port = words
    method, kind, key = accepted(_log_line(f" for {user} from {address} port {port} "))
    return Connection(user, groups_of(user), address, int(port), local_address, int(local_port), method, kind, key)


def groups_of(user: str) -> tuple[str, ...]:
    """The names of a user's groups; that of the user alone when there is no such user yet."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return (user,)
    found = []
    for number in os.getgrouplist(user, account.pw_gid):
        with suppress(KeyError):
            found.append(grp.getgrgid(number).gr_name)
    return tuple(found)


def _log_line(part: str) -> str:
    argv = [
        "journalctl",
        "--quiet",
        "--reverse",
        "--output=cat",
        f"--lines={_LOG_LINES}",
        "-t",
        "sshd",
        "-t",
        "sshd-session",
    ]
    with start(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as process:
        try:
            for line in piped(process.stdout):
                text = line.decode(errors="replace")
                if part in text and text.startswith("Accepted "):
                    return text
        finally:
            process.kill()
    return ""


def has_key(user: str, patterns: Sequence[str]) -> bool:
    """Whether one of the user's files of keys has a line. patterns: AuthorizedKeysFile."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return False
    for pattern in " ".join(patterns).split():
        name = pattern.replace("%h", account.pw_dir).replace("%u", user).replace("%%", "%")
        with suppress(OSError):
            text = (Path(account.pw_dir) / name).read_text(errors="replace")
            if any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
                return True
    return False
