# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Release ids and the source of a release; git is the real one."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from support.git_repository import repository
from support.modules import ModuleRunner

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._release import keep_newest, list_files, release_id


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "ops").mkdir(parents=True)
    (folder / "ops" / "compose.yml").write_text("services: {web: {image: x, ports: ['80:80']}}\n")
    (folder / "app.py").write_text("print('hello')\n")
    (folder / "link").symlink_to("app.py")
    (folder / ".env").write_text("SECRET=1\n")
    (folder / "node_modules" / "deep").mkdir(parents=True)
    (folder / "node_modules" / "deep" / "x.js").write_text("")
    return folder


def identify(folder: Path, settings: str = "s") -> str:
    return release_id(folder, list_files(folder, [".env", "node_modules"]), settings)


def test_excluded_names_do_not_belong_to_the_release(source: Path) -> None:
    assert list_files(source, [".env", "node_modules"]) == ["app.py", "link", "ops/compose.yml"]
    assert "app.py" not in list_files(source, ["*.py"])
    assert list_files(source, [".env", "node_modules", "ops/*"]) == ["app.py", "link"]


def test_the_id_is_the_same_for_the_same_content(source: Path) -> None:
    before = identify(source)
    (source / "app.py").touch()
    (source / ".env").write_text("SECRET=2\n")
    assert identify(source) == before
    assert len(before) == 12


@pytest.mark.parametrize("change", ["content", "name", "executable", "link", "settings"])
def test_the_id_changes_with_what_is_deployed(source: Path, change: str) -> None:
    before = identify(source)
    match change:
        case "content":
            (source / "app.py").write_text("print('bye')\n")
        case "name":
            (source / "app.py").rename(source / "main.py")
        case "executable":
            (source / "app.py").chmod(0o755)
        case "link":
            (source / "link").unlink()
            (source / "link").symlink_to("ops/compose.yml")
    assert identify(source, "t" if change == "settings" else "s") != before


def test_a_missing_or_empty_source_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"app_source\.path"):
        list_files(tmp_path / "nope", [])
    with pytest.raises(InputError, match="app_source_exclude"):
        list_files(tmp_path, [])


@pytest.fixture
def options(source: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "path": str(source),
        "exclude": [".env", "node_modules"],
        "compose_files": ["ops/compose.yml"],
        "web_services": {"web": 80},
        "cache": str(tmp_path / "cache"),
    }


def test_the_module_finds_checks_and_lists(module: ModuleRunner, options: dict[str, object]) -> None:
    first, second = module("release_source", options), module("release_source", options, check=True)
    assert first["release"] == second["release"]
    assert first["changed"] is False
    assert Path(first["file_list"]).read_bytes().split(b"\0") == [b"app.py", b"link", b"ops/compose.yml", b""]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compose_files": ["nope.yml"]}, ["app_compose_files names nope.yml"]),
        ({"web_services": {"wep": 80}}, ["app_web_services.wep", "the compose files have: web"]),
        ({"web_services": {"web": 81}}, ["app_web_services.web.port is 81", "80"]),
        ({"required_paths": {"app_migrations: sql": "sql"}}, ["app_migrations: sql", "no such folder"]),
        ({"path": "/nonexistent"}, ["app_source.path is /nonexistent"]),
        ({"path": "some/folder"}, ["app_source.path is some/folder", "Give a whole path"]),
    ],
)
def test_mistakes_are_sentences(
    module: ModuleRunner, options: dict[str, object], change: dict[str, object], words: list[str]
) -> None:
    result = module("release_source", options | change)
    assert result["failed"]
    assert all(word in result["msg"] for word in words), result["msg"]


def test_a_source_that_changed_since_it_was_checked_is_refused(
    module: ModuleRunner, options: dict[str, object], source: Path
) -> None:
    checked = module("release_source", options)["release"]
    assert "failed" not in module("release_source", options | {"expected_release": checked})
    (source / "app.py").write_text("print('changed meanwhile')\n")
    result = module("release_source", options | {"expected_release": checked})
    assert result["failed"]
    assert f"since release {checked} was checked" in result["msg"]


def test_an_unset_variable_is_named(module: ModuleRunner, options: dict[str, object], source: Path) -> None:
    (source / "ops" / "compose.yml").write_text("services: {web: {image: 'x:${TAG}', ports: ['80:80']}}\n")
    result = module("release_source", options)
    assert result["failed"]
    assert "TAG" in result["msg"]
    assert "app_env" in result["msg"]
    assert "failed" not in module("release_source", options | {"env_names": ["TAG"]})


def test_a_pointer_of_git_lfs_is_refused_unless_it_is_left_out(
    module: ModuleRunner, options: dict[str, object], source: Path
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5000\n"
    (source / "ops" / "model.bin").write_text(pointer)
    result = module("release_source", options)
    assert result["failed"]
    assert "ops/model.bin" in result["msg"]
    assert "git lfs pull" in result["msg"]
    assert "failed" not in module("release_source", options | {"exclude": [".env", "node_modules", "*.bin"]})


def test_a_text_about_git_lfs_is_no_pointer(module: ModuleRunner, options: dict[str, object], source: Path) -> None:
    (source / "notes.txt").write_text("A pointer begins with: version https://git-lfs.github.com/spec/v1\n")
    assert "failed" not in module("release_source", options)


def test_the_cache_keeps_what_was_used_last_and_what_may_be_in_use(
    module: ModuleRunner, options: dict[str, object], tmp_path: Path
) -> None:
    lists = tmp_path / "cache" / "lists"
    lists.mkdir(parents=True)
    now, hour = time.time(), 3600
    for number in range(8):
        (lists / f"old{number}").write_text("")
        os.utime(lists / f"old{number}", (now, now - (100 - number) * hour))
    (lists / "at-work").write_text("")
    os.utime(lists / "at-work", (now, now - hour))
    result = module("release_source", options)
    kept = {"old5", "old6", "old7", "at-work", str(result["release"])}
    assert {path.name for path in lists.iterdir()} == kept


def test_trees_of_the_cache_are_pruned_by_their_last_use(
    module: ModuleRunner, options: dict[str, object], source: Path, tmp_path: Path
) -> None:
    del options["path"]
    repo = repository(tmp_path / "repo", compose_yml="services: {web: {image: x, ports: ['80:80']}}\n")
    given = options | {"git": str(repo), "version": "main", "compose_files": ["compose.yml"]}
    first = Path(str(module("release_source", given)["root"]))
    trees = first.parent
    for number in range(6):
        (trees / f"old{number}" / "deep").mkdir(parents=True)
        os.utime(trees / f"old{number}", (0, 1000 + number))
    os.utime(first, (0, 0))
    again = module("release_source", given)
    assert Path(str(again["root"])) == first
    assert {path.name for path in trees.iterdir()} == {first.name, "old2", "old3", "old4", "old5"}


def test_old_trees_of_the_cache_go_whole_also_those_of_a_removal_that_was_killed(tmp_path: Path) -> None:
    for number, name in enumerate(["old", "newer", "newest"]):
        (tmp_path / name / "app").mkdir(parents=True)
        (tmp_path / name / "app" / "app.py").write_text("")
        os.utime(tmp_path / name, (number, number))
    (tmp_path / ".going-1-half" / "app").mkdir(parents=True)
    keep_newest(tmp_path, count=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer", "newest"]


def test_a_tree_that_cannot_be_removed_is_not_found_under_its_name_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: nothing of it is removed in this run."""
    (tmp_path / "old").mkdir()
    os.utime(tmp_path / "old", (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_arguments, **_options: None)
        keep_newest(tmp_path, count=0)
    assert not (tmp_path / "old").exists()
    assert len(list(tmp_path.iterdir())) == 1
    keep_newest(tmp_path, count=5)
    assert list(tmp_path.iterdir()) == []
