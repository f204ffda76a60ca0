# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait on a Debian host with a real systemd, through Ansible."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HOST, ADDRESS = "health", "198.18.0.120"
UNITS = {
    "app": "WorkingDirectory=/srv/app/releases/new\nExecStart=sleep infinity",
    "broken": "ExecStart=sh -c 'echo no DATABASE_URL; exit 7'",
    "loop": "ExecStart=sh -c 'echo token canary-17; exit 3'\nRestart=always\nRestartSec=200ms",
    "slowloop": "ExecStart=sh -c 'sleep 1; exit 4'\nRestart=always\nRestartSec=100ms",
    "migrate": "Type=oneshot\nExecStart=true",
    "stopped": "ExecStart=sleep infinity",
}
Wait = Callable[..., dict[str, Any]]


def _testbed(root: Path, *arguments: str) -> str:
    argv = [sys.executable, str(root / "tests" / "testbed"), *arguments]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def inventory(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An inventory with a started host that has the units."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        told = "no Docker Engine answers (start one: python3 tests/testbed up)"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    started = json.loads(
        _testbed(root, "host", "start", HOST, "--os", "debian13", "--address", ADDRESS, "--fresh").splitlines()[-1]
    )
    path = tmp_path_factory.mktemp("health") / "inventory.yml"
    path.write_text(_testbed(root, "inventory"))
    lines = ["set -e", "mkdir -p /srv/app/releases/new"]
    for name, body in UNITS.items():
        unit = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{body}"
        lines.append(f"cat >/etc/systemd/system/gw-{name}.service <<'END'\n{unit}\nEND")
    lines += ["systemctl daemon-reload", "systemctl start gw-app gw-migrate gw-loop gw-slowloop gw-broken || true"]
    known = path.with_name("known_hosts")
    options = ("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known}")
    subprocess.run(
        ["ssh", "-i", started["private_key"], *options, f"{started['user']}@{ADDRESS}", "sudo", "bash"],
        input="\n".join(lines), text=True, check=True, capture_output=True,
    )  # fmt: skip
    yield path
    _testbed(root, "host", "stop", HOST)


@pytest.fixture
def ansible(root: Path, inventory: Path) -> Callable[..., tuple[int, str]]:
    """ansible("command", "true") runs a module on the host; exit status and output."""

    def run(module: str, arguments: str, *options: str) -> tuple[int, str]:
        argv = [str(Path(sys.executable).with_name("ansible")), "-i", str(inventory), HOST, "--one-line", "--become"]
        done = subprocess.run(
            [*argv, *options, "-m", module, "-a", arguments], cwd=root, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout

    return run


@pytest.fixture
def wait(ansible: Callable[..., tuple[int, str]]) -> Wait:
    """wait({"unit": …}, …) runs the module on the host; the kind is systemd unless told."""

    def run(*checks: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        filled = [{"kind": "systemd", "name": f"c{position}", **given} for position, given in enumerate(checks, 1)]
        arguments = json.dumps({"timeout": 20, "checks": filled, **options})
        rc, printed = ansible("groundwork.backend.health_wait", arguments, *(["--check"] if check else []))
        result: dict[str, Any] = json.loads(printed.split("=> ", 1)[1])
        assert result["changed"] is False
        result |= {"_printed": printed, "failed": rc != 0}
        return result

    return run


def test_units_that_are_up(wait: Wait) -> None:
    """An active service, a one-shot that has ended, a unit that does not run; the same in check mode."""
    checks = [
        {"unit": "gw-app"},
        {"unit": "gw-migrate.service", "one_shot": True},
        {"unit": "gw-stopped", "expect": "down"},
    ]
    for check_mode in (False, True):
        result = wait(*checks, check=check_mode)
        assert not result.get("failed"), result["msg"]
        assert result["checks"]["c1"]["status"] == "running"


def test_units_that_cannot_come_up(wait: Wait) -> None:
    """Failed, looping and missing units are terminal; one that runs for a moment again and again is never up."""
    optional = {"optional": True, "timeout": 8}
    result = wait(
        {"unit": "gw-broken", **optional}, {"unit": "gw-loop", **optional}, {"unit": "gw-absent", **optional},
        {"unit": "gw-slowloop", "running_for": 0, "stable_for": 4, **optional}, {"unit": "gw-stopped", **optional},
        timeout=10,
    )  # fmt: skip
    assert not result.get("failed"), result["msg"]
    told = {name: (one["state"], one["last_error"]) for name, one in result["checks"].items()}
    assert told["c1"] == ("failed", "gw-broken.service failed: result exit-code, exit code 7")
    assert told["c2"][0] == "failed"
    assert "gw-loop.service is in a restart loop: restarted 3 times while it was waited for" in told["c2"][1]
    assert told["c3"] == ("failed", "there is no unit gw-absent.service")
    assert told["c4"][0] in ("failed", "timeout")
    assert told["c5"] == ("timeout", "gw-stopped.service is inactive (dead)")


def test_the_journal_is_in_the_result(wait: Wait) -> None:
    """Of the unit, or of the one that is named beside another kind; with secrets masked, at most log_lines."""
    result = wait({"name": "app", "unit": "gw-broken"}, log_lines=50)
    assert result["msg"].startswith("1 of 1 check failed after ")
    assert any(line.endswith("no DATABASE_URL") for line in result["logs"]["app"])
    web = {"kind": "http", "name": "web", "url": "http://127.0.0.1:1/", "bearer": "canary-17", "log_unit": "gw-loop"}
    result = wait(web, timeout=1, log_lines=5)
    assert len(result["logs"]["web"]) == 5
    assert any("token ********" in line for line in result["logs"]["web"])
    assert "canary-17" not in result["_printed"]


def test_release_by_working_directory(wait: Wait, ansible: Callable[..., tuple[int, str]]) -> None:
    """The old process, whose folder is another, does not pass. Without python3-jmespath the task says so at once."""
    check = {"unit": "gw-app", "release": {"field": "cwd", "equals": "/srv/app/releases/new"}}
    result = wait(check, timeout=60)
    assert result["msg"].startswith("Check 'c1': release.field needs the Python library jmespath")
    assert "python3-jmespath" in result["msg"]
    rc, printed = ansible("shell", "apt-get -qq update && apt-get -qq install --no-install-recommends python3-jmespath")
    assert rc == 0, printed
    result = wait(check)
    assert not result.get("failed"), result["msg"]
    check["release"]["equals"] = "/srv/app/releases/newer"
    told = 'another release answers: cwd is "/srv/app/releases/new", expected "/srv/app/releases/newer"'
    assert told in wait(check, timeout=1)["msg"]


def test_missing_libraries_are_named_before_any_waiting(wait: Wait) -> None:
    """A bare Debian has none of them, and no Docker."""
    for kind, package in (({"kind": "postgres", "database": "a"}, "python3-psycopg"),
                          ({"kind": "mongo"}, "python3-pymongo"),
                          ({"kind": "container", "container": "a"}, "the docker role")):  # fmt: skip
        result = wait(kind, timeout=60)
        assert "elapsed" not in result
        assert package in result["msg"]
