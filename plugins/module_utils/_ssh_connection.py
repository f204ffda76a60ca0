# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The SSH connection that this process belongs to."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SshConnection:
    """Who came in as which user, from where, and to which address and port of this host."""

    user: str
    client: str
    client_port: int
    address: str
    port: int


def find_ssh_connection() -> SshConnection | None:
    """The connection by which this process was started; of several, one in another, the first. None without one.

    sudo drops SSH_CONNECTION for what it starts, but has it itself: so the processes above are asked.
    """
    found, pid = None, os.getpid()
    while pid > 1:
        folder = Path("/proc") / str(pid)
        with suppress(OSError, KeyError):
            if told := parse_ssh_connection((folder / "environ").read_bytes()):
                found = SshConnection(pwd.getpwuid(folder.stat().st_uid).pw_name, *told)
        try:
            pid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def parse_ssh_connection(environ: bytes) -> tuple[str, int, str, int] | None:
    """Client, its port, own address and own port by SSH_CONNECTION in the environment of a process."""
    for entry in environ.split(b"\0"):
        name, _, value = entry.decode(errors="replace").partition("=")
        words = value.split()
        if name == "SSH_CONNECTION" and len(words) == 4:
            return words[0], int(words[1]), words[2], int(words[3])
    return None
