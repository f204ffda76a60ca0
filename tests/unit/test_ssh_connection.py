# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The SSH connection in the environment of a process, and of the processes above this one."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._ssh_connection import parse_ssh_connection

COLLECTIONS = Path(__file__).resolve().parents[2] / "build" / "collections"
ASK = f"""
import sys
import ansible_collections
ansible_collections.__path__ = ["{COLLECTIONS}/ansible_collections", *ansible_collections.__path__]
from ansible_collections.groundwork.backend.plugins.module_utils._ssh_connection import find_ssh_connection
print(find_ssh_connection())
"""


def test_it_is_read_from_the_environment_of_a_process() -> None:
    environ = b"A=1\0SSH_CONNECTION=fe80::1%eth0 50000 ::ffff:192.0.2.1 2222\0B=2\0"
    assert parse_ssh_connection(environ) == ("fe80::1%eth0", 50000, "::ffff:192.0.2.1", 2222)
    assert parse_ssh_connection(b"A=1\0SSH_CONNECTION=192.0.2.1 22\0") is None


def test_of_the_processes_above_the_first_that_came_in_counts() -> None:
    """As below sudo, which takes the variable away, and with one connection in another."""
    outer, inner = "192.0.2.1 50000 192.0.2.2 22", "192.0.2.2 50001 192.0.2.3 2222"
    command = f'env SSH_CONNECTION=\'{inner}\' sh -c \'env --unset=SSH_CONNECTION "$0" -c "$1"; true\' "$0" "$1"; true'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, ASK],
        env={**os.environ, "SSH_CONNECTION": outer},
        capture_output=True,
        text=True,
        check=True,
    )
    user = getpass.getuser()
    expected = f"SshConnection(user={user!r}, client='192.0.2.1', client_port=50000, address='192.0.2.2', port=22)"
    assert done.stdout.strip() == expected, done.stderr
