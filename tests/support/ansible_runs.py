# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""ansible-playbook, run to its end as a fork of a process that has imported Ansible already.

A run of its own imports Ansible, and packs modules for the hosts, each time once more. A fork
has the first behind it, and finds packed modules of earlier forks in Ansible's own cache, which lies in the temporary
folder of the process and is used by whatever runs in it. All else is the program as users have it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import forks

_PREPARE = """
import json, os, sys, traceback
import ansible.cli.playbook
import ansible.executor.playbook_executor
import ansible.plugins.connection.ssh
import ansible.plugins.filter.core, ansible.plugins.filter.mathstuff, ansible.plugins.filter.urls
import ansible.plugins.strategy.linear
import ansible.plugins.test.core, ansible.plugins.test.mathstuff
"""
# Ansible's own clean-up at the end of a process would take away the folder that the other forks use: the end is _exit.
_RUN = """
status = 250
try:
    ansible.cli.playbook.main(json.loads(sys.argv[2]))
except SystemExit as ended:
    status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
except BaseException:
    traceback.print_exc()
finally:
    sys.stdout.flush()
    sys.stderr.write(f"\\nended with {status}")
    sys.stderr.flush()
    os._exit(status)
"""
_SECONDS_AT_MOST = 1800
# Settings of Ansible, of which each combination has a process of its own; what pytest says of the running test; what
# Molecule sets for its own runs.
_TAKEN_OVER = {"ANSIBLE", "PYTEST", "MOLECULE", "PY"}


@dataclass(frozen=True)
class Ended:
    """How a run ended, and what it printed."""

    rc: int
    out: str
    err: str


def run(argv: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> Ended:
    """Run ansible-playbook to its end, in a folder and with an environment."""
    if not (forks.begins_alike(env) and _differs(env) <= _TAKEN_OVER):
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)
    begins_with = tuple(sorted((name, value) for name, value in env.items() if not name.startswith("PYTEST_")))
    parent = forks.parent(_PREPARE, "", then=_RUN, env=begins_with)
    out, err = parent.run(json.dumps(argv), env=env, stdin="", seconds=_SECONDS_AT_MOST, folder=folder)
    ended = re.search(r"\nended with (\d+)\Z", err)
    assert ended, f"{argv} was killed\n{out}{err}"
    return Ended(int(ended[1]), out, err[: ended.start()])


def _differs(env: Mapping[str, str]) -> set[str]:
    """The beginnings of the names of variables that are not as in this process."""
    changed = dict(env.items() ^ os.environ.items())
    return {name.partition("_")[0] for name in changed}
