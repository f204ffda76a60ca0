# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A host of the test bed that has Docker, and modules run there by Ansible over SSH."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from support import ansible_runs

_PLAYBOOK = """
- hosts: {name}
  gather_facts: false
  become: {become}
  tasks:
    - {module}: "{{{{ arguments }}}}"
"""


def testbed(root: Path, *arguments: str) -> str:
    """Run a command of the test bed and return what it printed."""
    argv = [sys.executable, str(root / "tests" / "testbed"), *arguments]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need_engine() -> None:
    """Skip the test where no Docker Engine answers; in CI fail it."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return
    told = "no Docker Engine answers (start one: python3 tests/testbed up)"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


@contextmanager
def reserved(names: Iterable[str]) -> Iterator[str]:
    """One of these names of hosts, which no other process of tests on this machine has for the length of the block.

    Waits for one when all are taken. The kernel takes the name back from a process that was killed.
    """
    with ExitStack() as files:
        locks = {
            name: files.enter_context((Path(tempfile.gettempdir()) / f"groundwork-host-{name}.lock").open("a"))
            for name in names
        }
        while not (got := next((name for name, lock in locks.items() if _locked(lock)), None)):
            time.sleep(1)
        yield got


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def fresh_host(
    root: Path, hosts: Mapping[str, str], folder: Path, os_name: str = "debian13-docker"
) -> Iterator[DockerHost]:
    """A fresh host, for the length of the block; *hosts* are names and addresses to choose from."""
    need_engine()
    with reserved(hosts) as name:
        try:
            yield DockerHost.start(root, name, hosts[name], folder, os_name)
        finally:
            testbed(root, "host", "stop", name)


@dataclass(frozen=True)
class DockerHost:
    """A started host. folder is one on this machine, for the inventory and the like."""

    root: Path
    name: str
    address: str
    user: str
    private_key: str
    folder: Path

    @classmethod
    def start(cls, root: Path, name: str, address: str, folder: Path, os_name: str = "debian13-docker") -> DockerHost:
        """Start a fresh host and wait for its engine, if it is of the kind that has one."""
        arguments = ("--os", os_name, "--address", address, "--fresh")
        told = json.loads(testbed(root, "host", "start", name, *arguments).splitlines()[-1])
        host = cls(root, name, address, told["user"], told["private_key"], folder)
        host.inventory.write_text(testbed(root, "inventory"))
        if os_name.endswith("-docker"):
            host.wait_for_engine()
        return host

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return self.folder / "inventory.yml"

    @property
    def _ssh(self) -> list[str]:
        options = {
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "LogLevel": "ERROR",
            "ControlMaster": "auto",
            "ControlPath": f"/tmp/gw-%C-{os.getpid()}",
            "ControlPersist": "30",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-F", "none", "-i", self.private_key, *words, f"{self.user}@{self.address}", "sudo"]

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell script on the host as root and return what it printed."""
        done = subprocess.run(
            [*self._ssh, "bash", "-eu"], input=script, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file on the host; its folder is made."""
        argv = [*self._ssh, "sh", "-c", f"'mkdir -p $(dirname {path}) && cat >{path}'"]
        subprocess.run(argv, input=text, text=True, check=True, capture_output=True, timeout=60)

    def wait_for_engine(self) -> None:
        """Wait until the engine answers."""
        self.sh("until docker version >/dev/null 2>&1; do sleep 0.2; done")

    def reboot(self) -> None:
        """Restart the host and wait until its engine answers again."""
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.sh(boot)
        self.sh("systemctl reboot --no-block", check=False)
        end = time.monotonic() + 300
        while self.sh(boot, check=False) in (before, ""):
            assert time.monotonic() < end, f"{self.name} does not come back"
            time.sleep(0.2)
        self.wait_for_engine()

    def start_module(
        self, name: str, arguments: Mapping[str, Any], *, check: bool = False, diff: bool = True, become: bool = True
    ) -> subprocess.Popen[str]:
        """Start a module on the host through Ansible and return the process of ansible-playbook."""
        argv = self._play(name, arguments, check, diff, become)
        return subprocess.Popen(
            argv, cwd=self.root, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _play(self, name: str, arguments: Mapping[str, Any], check: bool, diff: bool, become: bool) -> list[str]:
        """The argv of a run of one module."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        play = _PLAYBOOK.format(name=self.name, become=json.dumps(become), module=f"groundwork.backend.{name}")
        (folder / "play.yml").write_text(play)
        (folder / "arguments.json").write_text(json.dumps({"arguments": arguments}))
        return [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory),
            str(folder / "play.yml"), "--extra-vars", f"@{folder / 'arguments.json'}",
            *(["--check"] if check else []), *(["--diff"] if diff else []),
        ]  # fmt: skip

    @property
    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.root / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.root / "build" / "collections"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_INJECT_INVOCATION": "false",
        }

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The result of a module that was started; result["failed"] tells of an error.

        "_printed" holds all that Ansible printed, for canary tests.
        """
        return self._result(*process.communicate(timeout=300))

    def _result(self, out: str, err: str) -> dict[str, Any]:
        assert "Traceback" not in out + err, out + err
        try:
            told = json.loads(out)
        except json.JSONDecodeError as error:
            raise AssertionError(f"no JSON. stdout: {out!r} stderr: {err!r}") from error
        result: dict[str, Any] = told["plays"][0]["tasks"][0]["hosts"][self.name]
        result["_printed"] = out + err
        return result

    def module(
        self, name: str, arguments: Mapping[str, Any], *, check: bool = False, diff: bool = True, become: bool = True
    ) -> dict[str, Any]:
        """Run a module on the host to its end and return its result."""
        argv = self._play(name, arguments, check, diff, become)
        ended = ansible_runs.run(argv, folder=self.root, env=self._env)
        return self._result(ended.out, ended.err)
