# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The running hosts as an Ansible inventory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from .constants import HOST_USER


def render_inventory(hosts: Mapping[str, str], private_key: Path, known_hosts: Path) -> str:
    """Return the inventory in YAML; hosts maps names to addresses. Strings are quoted as in JSON."""
    if not hosts:
        return "all:\n  hosts: {}\n"
    common = shlex.join(["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known_hosts}"])
    lines = ["all:", "  hosts:"]
    for name in sorted(hosts):
        values = {
            "ansible_host": hosts[name],
            "ansible_user": HOST_USER,
            "ansible_ssh_private_key_file": str(private_key),
            "ansible_ssh_common_args": common,
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        lines.append(f"    {json.dumps(name)}:")
        lines += [f"      {key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
