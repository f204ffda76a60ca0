# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait against real containers of a Docker Engine, made of an image that holds this host's sh and sleep."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.postgres import free_port

RUN = f"gw-health-{uuid.uuid4().hex[:8]}"


def _docker(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {arguments}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def _shell_image() -> bytes:
    """A tar with sh, sleep, cat and the libraries that they need."""
    programs = [Path(shutil.which(name) or f"/bin/{name}") for name in ("sh", "sleep", "cat")]
    files = {Path("/bin") / program.name: program for program in programs}
    for program in programs:
        told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
        files |= {Path(library): Path(library) for library in re.findall(r"(/\S+) \(0x", told)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", dereference=True) as archive:
        for name, source in files.items():
            archive.add(source.resolve(), str(name).lstrip("/"))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    return out.getvalue()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A tiny image; every container of this run is removed with it."""
    engine = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False)
    if not engine or engine.returncode != 0 or b"Cannot connect" in engine.stderr:
        told = "no Docker Engine answers (start one: python3 tests/testbed up)"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    _docker("import", "-", f"{RUN}:1", stdin=_shell_image())
    yield f"{RUN}:1"
    left = _docker("ps", "--all", "--quiet", f"--filter=label=gw-test={RUN}").split()
    if left:
        _docker("rm", "--force", "--volumes", *left)
    _docker("rmi", "--force", f"{RUN}:1")


@pytest.fixture
def container(image: str) -> Callable[..., str]:
    """container("sleep 60", "--restart=always", name="web") starts one and returns its name."""

    def start(script: str, *options: str, service: str = "", create: bool = False, **labels: str) -> str:
        name = f"{RUN}-{uuid.uuid4().hex[:6]}"
        if service:
            known = {"project": RUN, "service": service, "oneoff": "False", **labels}
            options += tuple(f"--label=com.docker.compose.{key}={value}" for key, value in known.items())
        verb = ("create",) if create else ("run", "--detach")
        common = ("--name", name, "--label", f"gw-test={RUN}", "--network=none", "--stop-timeout=1", "--init=false")
        _docker(*verb, *common, *options, image, "/bin/sh", "-c", script)
        return name

    return start


@pytest.fixture
def wait(module: ModuleRunner) -> Callable[..., dict[str, Any]]:
    """wait({"container": …}, …) runs the module; the kind is container unless told."""

    def run(
        *checks: dict[str, Any],
        timeout: float = 20,
        check: bool = False,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        filled = [{"kind": "container", "name": f"c{position}", **given} for position, given in enumerate(checks, 1)]
        return module("health_wait", {"timeout": timeout, "checks": filled, **options}, check=check, env=env)

    return run


Start = Callable[..., str]
Wait = Callable[..., dict[str, Any]]


def test_running_without_a_health_check(container: Start, wait: Wait) -> None:
    """By name, by id and by service; all have to run for a while; the time that has passed already counts."""
    name = container("sleep 60", service="worker")
    container("sleep 60", service="worker")
    number = _docker("inspect", "--format", "{{.Id}}", name)
    service = {"project": RUN, "service": "worker"}
    result = wait({"container": name, "running_for": 2}, {"container": number, "running_for": 2}, service)
    assert not result.get("failed"), result["msg"]
    assert {one["status"] for one in result["checks"].values()} == {"running"}
    assert "has no health check and runs for less than 3 seconds" in result["checks"]["c3"]["last_error"]
    again = wait(service)
    assert again["checks"]["c1"]["attempts"] == 1


def test_health_check_of_the_container(container: Start, wait: Wait) -> None:
    """Starting, then healthy; unhealthy is waited for and told with the output of its check."""
    health = ("--health-timeout=2s", "--health-retries=1")
    failing = ("--health-cmd=echo no model; exit 1", "--health-interval=300ms")
    bad = container("echo cannot find the model; sleep 60", *failing, *health)
    good = container("sleep 60", "--health-cmd=true", "--health-interval=6s", *health)  # Docker first looks after 6 s
    result = wait({"container": good}, {"container": bad, "optional": True})
    assert not result.get("failed"), result["msg"]
    assert result["checks"]["c1"]["status"] == "healthy"
    assert result["checks"]["c1"]["attempts"] > 1
    result = wait({"container": good}, {"name": "model", "container": bad}, timeout=2)
    first = result["msg"].splitlines()[0]
    assert re.match(r"1 of 2 checks failed after \d\.\d seconds: model: \S+ is unhealthy: no model\.$", first)
    assert any(line.endswith(" cannot find the model") for line in result["logs"]["model"])


def test_restart_loop_ends_the_wait(container: Start, wait: Wait) -> None:
    """A container that crashes at once and is restarted by Docker; its log is returned, stderr in its place."""
    name = container("echo no DATABASE_URL >&2; sleep 0.1; echo giving up; exit 3", "--restart=always")
    result = wait({"name": "app", "container": name}, timeout=60)
    assert result["elapsed"] < 15
    assert result["checks"]["app"]["state"] == "failed"
    assert "is in a restart loop: restarted 3 times, exit code 3" in result["msg"]
    told = [line.split(" ", 1)[1] for line in result["logs"]["app"]]
    assert told[:2] == ["no DATABASE_URL", "giving up"]


def test_exit_without_restart_ends_the_wait(container: Start, wait: Wait) -> None:
    """At once, with the exit code; log_lines limits the log."""
    name = container("sleep 0.8; echo one; echo two; echo three; exit 7")
    result = wait({"name": "app", "container": name, "running_for": 30}, timeout=60, log_lines=2)
    assert result["elapsed"] < 15
    assert f"app: {name} exited with 7" in result["msg"]
    assert [line.split(" ", 1)[1] for line in result["logs"]["app"]] == ["two", "three"]


def test_one_shot(container: Start, wait: Wait) -> None:
    """Finished with 0 is ok when it is meant to end, wrong when it is not, and never with another code."""
    done = container("exit 0", service="migrate")
    result = wait({"project": RUN, "service": "migrate", "one_shot": True}, {"container": done, "one_shot": True})
    assert not result.get("failed"), result["msg"]
    assert result["checks"]["c1"]["status"] == "exited"
    result = wait({"container": done}, timeout=60)
    assert result["elapsed"] < 15
    assert "exited with 0, and one_shot is not set" in result["msg"]
    failed = container("exit 1")
    result = wait({"container": failed, "one_shot": True}, timeout=60)
    assert result["elapsed"] < 15
    assert "exited with 1" in result["msg"]


def test_a_container_that_cannot_start_ends_the_wait(image: str, wait: Wait) -> None:
    """Docker's own reason is told."""
    name = f"{RUN}-broken"
    _docker("create", "--name", name, "--label", f"gw-test={RUN}", "--network=none", image, "/bin/nosuchprogram")
    subprocess.run(["docker", "start", name], capture_output=True, check=False)
    result = wait({"container": name}, timeout=60)
    assert result["elapsed"] < 15
    assert f"{name} is created: " in result["msg"]
    assert "nosuchprogram" in result["msg"]


def test_a_missing_container_is_waited_for(container: Start, wait: Wait) -> None:
    """It may appear; fail_fast says that it will not; as down it holds."""
    late: list[str] = []

    def start() -> None:
        time.sleep(1.5)
        late.append(container("sleep 60", service="late"))

    thread = threading.Thread(target=start)
    thread.start()
    result = wait({"project": RUN, "service": "late", "running_for": 0.5})
    thread.join()
    assert not result.get("failed"), result["msg"]
    assert result["checks"]["c1"]["last_error"]
    missing = {"container": f"{RUN}-nobody"}
    result = wait({**missing, "fail_fast": True}, timeout=60)
    assert result["elapsed"] < 15
    assert f"there is no container {RUN}-nobody" in result["msg"]
    assert result["logs"] == {} or "No such container" in str(result["logs"])
    result = wait({**missing, "expect": "down"})
    assert not result.get("failed")


def test_runs_of_a_service_by_hand_do_not_count(container: Start, wait: Wait) -> None:
    """docker compose run leaves containers with the label of the service."""
    container("exit 9", service="hand", oneoff="True")
    container("sleep 60", service="hand")
    result = wait({"project": RUN, "service": "hand", "running_for": 0.1})
    assert not result.get("failed"), result["msg"]


def test_release_of_a_container(container: Start, wait: Wait) -> None:
    """The old container, still running, does not pass for the new one."""
    name = container("sleep 60", "--label=release=old")
    check = {"container": name, "running_for": 0.1}
    release = {"field": "Config.Labels.release", "equals": "new"}
    result = wait({**check, "release": release}, timeout=1)
    assert 'another release answers: Config.Labels.release is "old", expected "new"' in result["msg"]
    result = wait({**check, "release": {**release, "equals": "old"}})
    assert not result.get("failed"), result["msg"]


def test_release_by_container_id(container: Start, wait: Wait) -> None:
    """A service that still runs in the old container is not the new one."""
    old = _docker("inspect", "--format", "{{.Id}}", container("sleep 60", service="rolled"))
    service = {"project": RUN, "service": "rolled", "running_for": 0.1}
    result = wait({**service, "release": {"field": "Id", "equals": "0" * 64}}, timeout=1)
    assert f'another release answers: Id is "{old}"' in result["msg"]
    result = wait({**service, "release": {"field": "Id", "equals": old}})
    assert not result.get("failed"), result["msg"]


def test_unhealthy_may_recover(container: Start, wait: Wait, tmp_path: Path) -> None:
    """Trap 23: the first unhealthy is not the end of the wait. It recovers when the module has been told of it."""
    health = ("--health-interval=300ms", "--health-retries=1", "--health-cmd=cat /tmp/ready")
    name = container("until [ -e /tmp/go ]; do sleep 0.1; done; : > /tmp/ready; sleep 60", *health)
    early = wait({"container": name}, timeout=2)
    assert early["checks"]["c1"]["state"] == "timeout"
    assert early["checks"]["c1"]["status"] == "unhealthy"
    docker, told = tmp_path / "docker", tmp_path / "told"
    docker.write_text(f'#!/bin/sh\n{shutil.which("docker")} "$@" | tee -a {told}\n')
    docker.chmod(0o755)

    def recover() -> None:
        while not told.exists() or '"unhealthy"' not in told.read_text():
            time.sleep(0.05)
        _docker("exec", name, "/bin/sh", "-c", ": > /tmp/go")

    late = threading.Thread(target=recover, daemon=True)
    late.start()
    result = wait({"container": name}, timeout=60, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert not result.get("failed"), result["msg"]
    assert "is unhealthy" in result["checks"]["c1"]["last_error"]
    late.join()


def test_a_missing_image_ends_the_wait_for_a_container(wait: Wait, image: str) -> None:
    """Docker does not tell why there is no container, so that the image has to be named."""
    check = {"name": "app", "container": f"{RUN}-nobody", "images": [image, f"{RUN}:absent"]}
    result = wait(check, timeout=60)
    assert result["checks"]["app"]["state"] == "failed"
    assert f"app: the image {RUN}:absent is not on this host" in result["msg"]


def test_a_user_who_may_not_use_the_socket(image: str, root: Path) -> None:
    """Through Ansible as nobody, with the engine's own socket: one sentence, before any waiting."""
    become: dict[str, str] = {"ansible_become_user": "nobody", "ansible_become_method": "sudo"}
    if os.geteuid() == 0:
        become |= {"ansible_become_method": "su", "ansible_become_flags": "-s /bin/sh"}
    checks = [{"kind": "tcp", "port": 1}, {"kind": "container", "container": "web"}]
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "-i",
        "localhost,",
        "localhost",
        "-c",
        "local",
        "--one-line",
    ]
    argv += ["--become", "-e", json.dumps(become), "-m", "groundwork.backend.health_wait"]
    done = subprocess.run(
        [*argv, "-a", json.dumps({"timeout": 60, "checks": checks})],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    result = json.loads(done.stdout.split("=> ", 1)[1])
    assert result["msg"] == (
        "Docker's socket may not be used by this user. Run with become, or add the user to the group docker."
    )
    assert "elapsed" not in result


def test_log_of_the_container_behind_an_http_check(container: Start, wait: Wait) -> None:
    """With the secrets of the check masked in it."""
    container("echo token is canary-token; sleep 60", service="web")
    check = {
        "kind": "http",
        "name": "web",
        "url": f"http://127.0.0.1:{free_port()}/",
        "bearer": "canary-token",
        "log_container": {"project": RUN, "service": "web"},
    }
    result = wait(check, timeout=1)
    assert [line.split(" ", 1)[1] for line in result["logs"]["web"]] == ["token is ********"]
    assert "canary-token" not in result["_printed"]


def test_down_is_what_is_not_there(container: Start, wait: Wait) -> None:
    """A container that only just runs is not down; a stopped one is, although that ends a wait for up."""
    name = container("sleep 60")
    result = wait({"container": name, "expect": "down", "running_for": 30}, timeout=1)
    assert "expected to be down: " in result["msg"]
    _docker("kill", name)
    result = wait({"container": name, "expect": "down"})
    assert not result.get("failed"), result["msg"]


def test_docker_that_stops_answering_is_unknown(container: Start, wait: Wait, tmp_path: Path) -> None:
    """Neither up nor down holds when the docker command hangs, and the deadline is kept."""
    name = container("sleep 60")
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = version ] || exec sleep 60\nexec {shutil.which("docker")} "$@"\n')
    docker.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    check = {"container": name, "attempt_timeout": 0.5}
    result = wait(check, {**check, "expect": "down"}, timeout=1.5, env=env)
    assert result["unmet"] == ["c1", "c2"]
    assert result["elapsed"] < 30, "the hanging command ends after a minute"
    # The last attempt has what is left until the deadline, if that is less than its own time.
    assert "no end after 0." in result["checks"]["c1"]["last_error"]
    assert "the log cannot be read" in result["logs"]["c1"][0]


def _compose(name: str) -> dict[str, Any]:
    return {"kind": "compose", "project": name, "running_for": 0.5}


def test_a_compose_project(container: Start, wait: Wait, image: str) -> None:
    """Services run, one-shots have finished with 0: those that are named, and those that others depend on."""
    project = f"{RUN}-good"
    depends = {"depends_on": "migrate:service_completed_successfully:false,db:service_healthy:true"}
    container("exit 0", service="migrate", project=project)
    container("exit 0", service="seed", project=project)
    container("sleep 60", "--health-cmd=true", "--health-interval=300ms", service="db", project=project)
    container("sleep 60", service="web", project=project, **depends)
    container("exit 9", service="web", project=project, oneoff="True")
    check = {
        **_compose(project),
        "one_shots": ["seed"],
        "services": ["migrate", "seed", "db", "web"],
        "images": [image],
    }
    for check_mode in (False, True):
        result = wait(check, check=check_mode)
        assert not result.get("failed"), result["msg"]
    result = wait(_compose(project), timeout=60)
    assert result["elapsed"] < 15
    assert "exited with 0, and one_shots does not name it" in result["msg"]
    result = wait({**check, "services": [*check["services"], "worker"]}, timeout=1)
    assert f"the service worker of project {project} has no container" in result["msg"]


def test_a_compose_project_that_cannot_come_up(container: Start, wait: Wait) -> None:
    """A failed one-shot, a crash loop and a missing image end the wait; the log is of the container that failed."""
    project = f"{RUN}-bad"
    fine = container("echo all is well; sleep 60", service="db", project=project)
    failed = container("echo cannot migrate; exit 4", service="migrate", project=project)
    check = {**_compose(project), "name": "stack", "one_shots": ["migrate"]}
    result = wait(check, timeout=60)
    assert result["elapsed"] < 15
    assert f"stack: {failed} exited with 4" in result["msg"]
    assert any(line.startswith(f"{failed} | ") and "cannot migrate" in line for line in result["logs"]["stack"])
    assert fine not in str(result["logs"])
    result = wait({**check, "images": [f"{RUN}:absent"]}, timeout=60)
    assert result["elapsed"] < 15
    assert f"stack: the image {RUN}:absent is not on this host" in result["msg"]
    _docker("rm", "--force", failed)
    container("exit 3", "--restart=always", service="app", project=project)
    assert "is in a restart loop" in wait({**_compose(project), "timeout": 40}, timeout=60)["msg"]
    result = wait({**_compose(f"{RUN}-none"), "fail_fast": True}, timeout=60)
    assert f"the project {RUN}-none has no container" in result["msg"]
