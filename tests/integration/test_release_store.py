# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""release_store with the images and containers of a real Docker Engine."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRunner
from support.postgres_container import docker, need_image

RUNS = "python:3.13-slim"  # a stand-in of the test bed, for containers that run
DROP = {"database": "db", "version": "7", "name": "drop_it", "lossy": ["ban-drop-column"]}


@dataclass
class Stack:
    """A stack's folder on this machine, and its images and containers on this machine's engine."""

    module: ModuleRunner
    path: Path
    project: str
    containers: list[str] = field(default_factory=list)

    def __call__(self, action: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run the module."""
        given = {"action": action, "path": str(self.path), "project": self.project, **options}
        return self.module("release_store", given, check=check)

    def make(self, release: str, *services: str) -> None:
        """The folders, settings and images of a release."""
        source, settings = self.path / "releases" / release, self.path / "shared" / release
        source.mkdir(parents=True)
        (source / "app.py").write_text("")
        settings.mkdir(parents=True)
        for name in (".env", "override.yml", "settings.json"):
            (settings / name).write_text("")
        for service in services:
            self.image(f"{self.project}/{service}:{release}")

    def image(self, name: str) -> None:
        """A tiny image of its own."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(uuid.uuid4().hex))
        subprocess.run(["docker", "import", "-", name], input=out.getvalue(), check=True, capture_output=True)

    def deploy(self, release: str, *services: str, **options: Any) -> dict[str, Any]:
        """A release that was deployed well and is current."""
        self.make(release, *services)
        self.link("current", release)
        return self.record(release, **options)

    def record(self, release: str, result: str = "ok", **options: Any) -> dict[str, Any]:
        recorded = self("record", release=release, result=result, **options)
        assert "failed" not in recorded, recorded["msg"]
        return recorded

    def link(self, name: str, release: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).symlink_to(f"releases/{release}")

    def container(self, image: str, *options: str, run: bool = False) -> str:
        """A container that was never started, or that runs."""
        verb = ["run", "--detach"] if run else ["create"]
        self.containers.append(docker(*verb, "--network=none", *options, image, "sleep", "600"))
        return self.containers[-1]

    def names(self) -> set[str]:
        """All images whose name begins with the project's, without that beginning."""
        told = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        return {name.removeprefix(self.project) for name in told if name.startswith(self.project)}

    def folders(self) -> dict[str, set[str]]:
        return {part: {one.name for one in (self.path / part).iterdir()} for part in ("releases", "shared")}


@pytest.fixture
def stack(module: ModuleRunner, root: Path, tmp_path: Path) -> Iterator[Stack]:
    """An empty stack; its containers and images are removed afterwards."""
    need_image(root, RUNS)
    project = f"gw{uuid.uuid4().hex[:10]}"
    for part in ("releases", "shared"):
        (tmp_path / project / part).mkdir(parents=True)
    made = Stack(module, tmp_path / project, project)
    yield made
    if made.containers:
        docker("rm", "--force", "--volumes", *made.containers)
    for name in made.names():
        docker("image", "rm", f"{project}{name}")


def test_a_deploy_is_recorded_with_who_holds_the_lock(stack: Stack) -> None:
    stack.make("r1", "web")
    options = {
        "release": "r1",
        "result": "ok",
        "schema_versions": {"db": "7"},
        "migrations": [DROP],
        "checkpoint": "s1",
    }
    lock = {"id": "run1", "controller": "ci-7", "user": "alice", "pid": 1, "start_ticks": 1, "machine": "m"}
    lock |= {"process_started_at": "t", "boot_id": "b", "pid_namespace": 1, "taken_at": "t", "note": ""}
    (stack.path / "deploy.lock").write_text(json.dumps(lock))
    result = stack("record", check=True, **options)
    assert (result["changed"], (stack.path / "shared/r1/release.json").exists()) == (True, False)
    assert stack("record", **options)["changed"] is True
    path = stack.path / "shared" / "r1" / "release.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = json.loads(path.read_text())
    assert (found["id"], found["by"], found["controller"], found["result"]) == ("r1", "alice", "ci-7", "ok")
    assert (found["schema_versions"], found["migrations"], found["checkpoint"]) == ({"db": "7"}, [DROP], "s1")
    assert found["images"] == [f"{stack.project}/web:r1"]
    assert found["deployed_at"].endswith("Z")
    assert stack("record", check=True, **options)["changed"] is False
    assert stack("record", **options)["changed"] is False
    assert stack("record", **options, deploy="run2")["record"]["number"] == 2


def test_the_list_has_the_newest_first_and_says_what_is_missing(stack: Stack) -> None:
    stack.deploy("r1", "web")
    stack.deploy("r2", "web", "job")
    stack.deploy("r3")
    (stack.path / "shared" / "r1" / ".env").unlink()
    docker("image", "rm", f"{stack.project}/job:r2")
    (stack.path / "releases" / "0123456789ab").mkdir()
    (stack.path / "releases" / "notes").mkdir()
    result = stack("list")
    assert [one["id"] for one in result["releases"]] == ["r3", "r2", "r1", "0123456789ab"]
    assert [one["complete"] for one in result["releases"]] == [True, False, False, False]
    assert result["releases"][1]["missing"] == [f"the image {stack.project}/job:r2"]
    assert result["releases"][2]["missing"] == ["the file shared/r1/.env"]
    assert (result["current"], result["previous"], result["changed"]) == ("r3", "r2", False)
    assert [one["current"] for one in result["releases"]] == [True, False, False, False]
    assert result["releases"][3]["result"] is None


def test_where_nothing_was_deployed_there_is_nothing(stack: Stack, module: ModuleRunner, tmp_path: Path) -> None:
    result = module("release_store", {"action": "list", "path": str(tmp_path / "nope"), "project": "x"})
    assert (result["releases"], result["current"], result["previous"]) == ([], "", "")
    assert "There is no release to go back to" in stack("resolve")["msg"]
    result = stack("prune")
    assert (result["changed"], result["removed"]) == (False, [])


def test_previous_and_a_named_release_are_found(stack: Stack) -> None:
    for release in ("ra1", "ra2", "rb1"):
        stack.deploy(release, "web")
    result = stack("resolve")
    assert (result["release"], result["changed"], result["lost"]) == ("ra2", False, [])
    assert stack("resolve", to="ra1")["release"] == "ra1"
    assert "ra2, ra1" in stack("resolve", to="ra")["msg"]
    assert stack("resolve", to="rb")["release"] == "rb1", "on another host it may not be the current one"
    stack.link("current", "ra1")
    stack.record("ra1")
    assert stack("resolve")["release"] == "rb1"
    stack.record("rb1", "rolled_back")
    assert stack("resolve")["release"] == "ra2"
    (stack.path / "shared" / "ra1" / "going_back").touch()
    cut_off = stack("resolve")
    assert (cut_off["release"], cut_off["unfinished"]) == ("ra1", True)
    other = stack("resolve", to="ra2")
    assert (other["release"], other["unfinished"]) == ("ra2", False)


@pytest.mark.parametrize("what", ["releases/r1", "shared/r1/override.yml", "image"])
def test_an_incomplete_release_is_refused_whatever_force_says(stack: Stack, what: str) -> None:
    stack.deploy("r1", "web")
    stack.deploy("r2", "web")
    if what == "image":
        docker("image", "rm", f"{stack.project}/web:r1")
    elif (stack.path / what).is_dir():
        shutil.rmtree(stack.path / what)
    else:
        (stack.path / what).unlink()
    result = stack("resolve", force=True)
    assert result["failed"]
    assert "Release r1 is incomplete" in result["msg"]
    assert (what if what != "image" else f"{stack.project}/web:r1") in result["msg"]


def test_a_way_back_across_a_loss_is_refused_unless_forced(stack: Stack) -> None:
    stack.deploy("r1", "web")
    stack.deploy("r2", "web", migrations=[DROP, {"database": "db", "version": "8", "name": "add", "lossy": []}])
    stack.make("r3")
    stack.record("r3", "failed", migrations=[{**DROP, "version": "9", "name": "drop_more"}])
    stack.deploy("r4", "web")
    result = stack("resolve", to="r1")
    assert result["failed"]
    assert "7 drop_it of database db in release r2 (ban-drop-column)" in result["msg"]
    assert "9 drop_more of database db in release r3" in result["msg"]
    assert [one["version"] for one in result["lost"]] == ["7", "9"]
    result = stack("resolve", to="r1", force=True)
    assert (result["release"], [one["version"] for one in result["lost"]]) == ("r1", ["7", "9"])
    assert "never served" in stack("resolve", to="r3")["msg"]


def test_a_record_that_cannot_be_read_is_told_and_keeps_everything(stack: Stack) -> None:
    for release in ("r1", "r2", "r3", "r4"):
        stack.deploy(release)
    (stack.path / "shared" / "r2" / "release.json").write_text('{"id": "r2", "dep')
    assert "cannot be read" in stack("list")["releases"][-1]["missing"][-1]
    assert "What was migrated after release r1 is not known" in stack("resolve", to="r1")["msg"]
    assert stack("resolve", to="r1", force=True)["release"] == "r1"
    result = stack("prune", keep=1)
    assert result["removed"] == ["r1"]
    assert "cannot be read" in result["kept"]["r2"]


def test_prune_removes_old_releases_with_settings_and_images(stack: Stack) -> None:
    for number in range(1, 6):
        stack.deploy(f"r{number}", "web", "job")
    planned = stack("prune", keep=2, check=True)
    assert (planned["changed"], planned["removed"]) == (True, ["r3", "r2", "r1"])
    assert stack.folders()["releases"] == {"r1", "r2", "r3", "r4", "r5"}
    result = stack("prune", keep=2)
    assert (result["removed"], result["kept"]) == (planned["removed"], {"r5": "current", "r4": "previous"})
    assert set(result["removed_images"]) == {
        f"{stack.project}/{name}:r{n}" for name in ("web", "job") for n in (1, 2, 3)
    }
    assert result["diff"] == {
        "before": {"releases": ["r5", "r4", "r3", "r2", "r1"]},
        "after": {"releases": ["r5", "r4"]},
    }
    assert stack.folders() == {"releases": {"r4", "r5"}, "shared": {"r4", "r5"}}
    assert stack.names() == {"/web:r4", "/job:r4", "/web:r5", "/job:r5"}
    assert stack("prune", keep=2)["changed"] is False


def test_current_previous_and_project_stay_whatever_keep_says(stack: Stack) -> None:
    for number in range(1, 6):
        stack.deploy(f"r{number}")
    stack.link("current", "r3")
    stack.link("project", "r1")
    assert set(stack("prune", keep=1)["removed"]) == {"r4"}
    assert stack.folders()["releases"] == {"r1", "r2", "r3", "r5"}
    assert "keep is 0" in stack("prune", keep=0)["msg"]


def test_a_release_that_was_deployed_again_is_a_new_one(stack: Stack) -> None:
    for release in ("r1", "r2", "r3"):
        stack.deploy(release)
    stack.link("current", "r1")
    stack.record("r1")
    assert stack("prune", keep=1)["removed"] == ["r2"]


def test_releases_of_containers_stay(stack: Stack) -> None:
    """One that runs, one that was stopped, one that was never started, and one by a label only."""
    for release in ("stopped", "created", "labelled", "unused", "r8", "r9"):
        stack.deploy(release, "web")
    stack.make("running")
    docker("tag", RUNS, f"{stack.project}/web:running")
    stack.container(f"{stack.project}/web:running", run=True)
    docker("image", "rm", f"{stack.project}/web:stopped")
    docker("tag", RUNS, f"{stack.project}/web:stopped")
    docker("stop", "--time=0", stack.container(f"{stack.project}/web:stopped", run=True))
    stack.container(f"{stack.project}/web:created")
    labels = {"com.docker.compose.project": stack.project, "org.groundwork.release": "labelled"}
    stack.container(RUNS, *(f"--label={key}={value}" for key, value in labels.items()))
    stack.record("running", "failed")
    result = stack("prune", keep=1)
    assert result["removed"] == ["unused"]
    assert all(result["kept"][name].startswith("used by ") for name in ("running", "stopped", "created", "labelled"))
    assert "/web:unused" not in stack.names()
    assert {"/web:running", "/web:stopped", "/web:created", "/web:labelled"} <= stack.names()


def test_a_release_whose_files_a_container_has_mounted_stays(stack: Stack) -> None:
    """Through the link that Compose resolves paths by, which points elsewhere now."""
    for release in ("r1", "r2", "r3", "r4"):
        stack.deploy(release)
    stack.link("project", "r1")
    mount = f"--mount=type=bind,source={stack.path}/project/,target=/conf"
    stack.container(RUNS, mount, run=True)
    stack.link("project", "r4")
    result = stack("prune", keep=1)
    assert result["removed"] == ["r2"]
    assert result["kept"]["r1"].startswith("used by ")


def test_images_of_other_projects_stay(stack: Stack) -> None:
    for release in ("r1", "r2", "r3"):
        stack.deploy(release, "web")
    others = [f"{stack.project}-test/web:r1", f"{stack.project}/web/deep:r1", f"{stack.project}test/web:r1"]
    for name in others:
        stack.image(name)
    docker("tag", f"{stack.project}/web:r1", f"{stack.project}-other/web:r1")
    stack.image(f"{stack.project}/web:1.0")
    before = stack.names()
    assert stack("prune", keep=1)["removed"] == ["r1"]
    assert stack.names() == before - {"/web:r1"}
    assert docker("image", "inspect", "--format", "{{.RepoTags}}", f"{stack.project}-other/web:r1") == (
        f"[{stack.project}-other/web:r1]"
    )


def test_one_image_of_two_releases_goes_with_the_last_of_them(stack: Stack) -> None:
    stack.make("r1")
    docker("tag", RUNS, f"{stack.project}/web:r1")
    stack.record("r1")
    for release in ("r2", "r3"):
        stack.make(release)
        docker("tag", RUNS, f"{stack.project}/web:{release}")
        stack.link("current", release)
        stack.record(release)
    stack.container(f"{stack.project}/web:r3", run=True)
    assert stack("prune", keep=1)["removed"] == ["r1"]
    assert stack.names() == {"/web:r2", "/web:r3"}


def test_what_is_not_ours_is_left_alone_and_links_are_not_followed(stack: Stack, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "r1").mkdir(parents=True)
    (precious / "r1" / "data").write_text("")
    for release in ("r1", "r2", "r3"):
        stack.deploy(release)
    (stack.path / "releases" / "r1" / "link").symlink_to(precious)
    (stack.path / "releases" / "notes").mkdir()
    (stack.path / "releases" / "aaaaaaaaaaaa").symlink_to(precious / "r1")
    (stack.path / "releases" / "file.txt").write_text("")
    (stack.path / "shared" / "certificates").mkdir()
    result = stack("prune", keep=1)
    assert result["removed"] == ["r1"]
    assert (precious / "r1" / "data").exists()
    assert stack.folders() == {
        "releases": {"r2", "r3", "notes", "aaaaaaaaaaaa", "file.txt"},
        "shared": {"r2", "r3", "certificates"},
    }


def test_leftovers_of_interrupted_deploys_go_when_they_are_old(stack: Stack) -> None:
    stack.deploy("r1")
    fresh, removed = stack.path / "releases" / ".partial-bbbbbbbbbbbb", stack.path / "shared" / ".removed-r0"
    for folder in (fresh, removed):
        folder.mkdir()
        (folder / "file").write_text("")
        os.utime(folder / "file", (0, 0))  # as rsync does: the copy is new although the file is old
        os.utime(folder, (0, 0))
    result = stack("prune")
    assert result["removed_leftovers"] == [str(removed)]
    assert (fresh.exists(), removed.exists()) == (True, False)


def test_the_record_of_a_loss_stays_for_the_way_back_across_it(stack: Stack) -> None:
    stack.deploy("r1")
    stack.make("r2", "web")
    stack.record("r2", "failed", migrations=[DROP])
    stack.deploy("r3")
    assert stack("prune", keep=2)["removed"] == ["r2"]
    assert stack.folders()["shared"] == {"r1", "r2", "r3"}
    assert [one.name for one in (stack.path / "shared" / "r2").iterdir()] == ["release.json"]
    assert stack.names() == set()
    assert [one["id"] for one in stack("list")["releases"]] == ["r3", "r1"]
    assert "7 drop_it" in stack("resolve", to="r1")["msg"]
    assert stack("prune", keep=2)["changed"] is False
    stack.deploy("r4")
    assert stack("prune", keep=2)["removed"] == ["r1"]
    assert stack.folders()["shared"] == {"r3", "r4"}


def test_without_docker_it_is_a_sentence(stack: Stack, module: ModuleRunner) -> None:
    stack.deploy("r1")
    given = {"path": str(stack.path), "project": stack.project}
    nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    for options in ({"action": "prune"}, {"action": "list"}, {"action": "record", "release": "r1", "result": "ok"}):
        result = module("release_store", {**given, **options}, env=nowhere)
        assert "The Docker Engine does not answer" in result["msg"]


@pytest.mark.parametrize("release", ["../r1", "", "R1", ".partial-x", "a/b"])
def test_a_name_that_is_no_id_is_refused(stack: Stack, release: str) -> None:
    result = stack("record", release=release, result="ok")
    assert result["failed"]
    assert "is no id of a release" in result["msg"]
