# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run a module of the collection in its own process, with arguments as Ansible hands them over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import forks

# Imported as on a managed host, without Ansible's finder of collections, which takes longer to load than all the rest.
_PREPARE = """
import json, runpy, sys
import ansible_collections
ansible_collections.__path__ = [sys.argv[1] + "/ansible_collections", *ansible_collections.__path__]
from ansible.module_utils.testing import patch_module_args
"""
_RUN = """
with patch_module_args(json.load(sys.stdin)):
    runpy.run_module(sys.argv[2], run_name="__main__")
"""


@dataclass(frozen=True)
class ModuleRunner:
    """Starts modules of the checkout.

    forked: whether a run to the end is a fork of a process that has imported what is Ansible's own already, which takes
    most of the time of a start. What is the collection's each run imports itself.
    """

    root: Path
    forked: bool = True

    def start(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        check: bool = False,
        diff: bool = True,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start the module and return its process (for tests that kill it).

        The name of a module of another collection is a full one, such as "community.general.ini_file". under: a
        command that runs the module's process, such as strace with its options.
        """
        process = subprocess.Popen(
            [*under, sys.executable, "-c", _PREPARE + _RUN, self._collections, _imported(name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert process.stdin is not None
        process.stdin.write(_handed_over(arguments, check, diff))
        process.stdin.close()
        process.stdin = None
        return process

    def __call__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        check: bool = False,
        diff: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run the module to its end and return its result; result["failed"] tells of an error.

        "_printed" holds all that it printed, for canary tests.
        """
        wanted = {**os.environ, **(env or {})}
        if self.forked and forks.begins_alike(wanted):
            parent = forks.parent(_PREPARE, self._collections, then=_RUN)
            out, err = parent.run(_imported(name), env=wanted, stdin=_handed_over(arguments, check, diff), seconds=300)
        else:
            process = self.start(name, arguments, check=check, diff=diff, env=env)
            out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        try:
            result: dict[str, Any] = json.loads(out)
        except json.JSONDecodeError as error:
            raise AssertionError(f"{name} printed no JSON. stdout: {out!r} stderr: {err!r}") from error
        result["_printed"] = out + err
        return result

    @property
    def _collections(self) -> str:
        return str(self.root / "build" / "collections")


def _imported(name: str) -> str:
    """What Python imports for the module."""
    collection, _dot, module = name.rpartition(".")
    return f"ansible_collections.{collection or 'groundwork.backend'}.plugins.modules.{module}"


def _handed_over(arguments: Mapping[str, Any], check: bool, diff: bool) -> str:
    """What the module is given, as JSON."""
    internal = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
    return json.dumps({**arguments, **internal})
