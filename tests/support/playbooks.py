# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run real playbooks against this machine, as hosts with a local connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import ansible_runs
from support.collection import COLLECTIONS, ROOT


@dataclass(frozen=True)
class Played:
    """What a run left: its exit status, all that it printed, and by host the last result of each task's name."""

    rc: int
    output: str
    results: Mapping[str, Mapping[str, dict[str, Any]]]

    def result(self, task: str, host: str = "one") -> dict[str, Any]:
        """The result of a task on a host."""
        return self.results[host][task]


@dataclass(frozen=True)
class Playbooks:
    """Playbooks written by a test, in *folder*."""

    folder: Path
    hosts: Sequence[str] = ("one",)
    env: Mapping[str, str] = field(default_factory=dict)

    def start(
        self, tasks: Sequence[Mapping[str, Any]], *arguments: str, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start ansible-playbook with these tasks, as a process group of its own."""
        return subprocess.Popen(
            self._argv(tasks, arguments),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            env=self._env,
        )

    def _argv(self, tasks: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> list[str]:
        number = len(list(self.folder.glob("*.play.json")))
        playbook, inventory = self.folder / f"{number}.play.json", self.folder / "inventory.json"
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory.write_text(json.dumps({"all": {"hosts": dict.fromkeys(self.hosts, local)}}))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, "-i", str(inventory), str(playbook), *arguments]

    @property
    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            **self.env,
        }

    def finish(self, process: subprocess.Popen[str]) -> Played:
        """Wait for the end of a run."""
        out, err = process.communicate(timeout=300)
        return self.played(process.returncode, out, err)

    def played(self, rc: int, out: str, err: str) -> Played:
        """What a run left, from what it printed."""
        results: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.hosts}
        if out.strip():
            for play in json.loads(out[out.index("{") :])["plays"]:
                for task in play["tasks"]:
                    for host, result in task["hosts"].items():
                        results[host][task["task"]["name"]] = result
        return Played(rc, out + err, results)

    def __call__(self, tasks: Sequence[Mapping[str, Any]], *arguments: str) -> Played:
        """Run ansible-playbook with these tasks to its end."""
        ended = ansible_runs.run(self._argv(tasks, arguments), folder=self.folder, env=self._env)
        return self.played(ended.rc, ended.out, ended.err)
