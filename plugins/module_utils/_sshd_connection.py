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
from ansible_collections.groundwork.backend.plugins.module_utils._ssh_connection import find_ssh_connection
from ansible_collections.groundwork.backend.plugins.module_utils._sshd import Connection, accepted

_LOG_LINES = 20000


def find_connection() -> Connection | None:
    """The SSH connection that this process belongs to; None without one."""
    found = find_ssh_connection()
    if found is None:
        return None
    method, kind, key = accepted(_log_line(f" for {found.user} from {found.client} port {found.client_port} "))
    groups = groups_of(found.user)
    return Connection(found.user, groups, found.client, found.client_port, found.address, found.port, method, kind, key)


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
