# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A release's source from git: branches, submodules, deploy keys, the cache. git and ssh are the real ones."""

from __future__ import annotations

import signal
import socket
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.git_repository import add_submodule, allow_folders, commit, git, private_key, repository
from support.modules import ModuleRunner
from support.processes import command_lines

from ansible_collections.groundwork.backend.plugins.module_utils._deploy_key import deploy_key_environment
from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._git import fetch_git, submodule_address
from ansible_collections.groundwork.backend.plugins.module_utils._release import list_files

COMPOSE = "services: {web: {image: x, ports: ['80:80']}}\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """app has lib (by a relative address), which has deep."""
    allow_folders(monkeypatch)
    deep = repository(tmp_path / "remote" / "deep", deep_txt="deep one\n")
    lib = repository(tmp_path / "remote" / "lib", lib_txt="lib one\n")
    add_submodule(lib, str(deep), "vendor/deep")
    app = repository(tmp_path / "remote" / "app", compose_yml=COMPOSE)
    git(app, "remote", "add", "origin", str(app))
    add_submodule(app, "../lib", "libs/lib")
    return app


def move_on(app: Path, text: str) -> None:
    """A new commit in the submodule lib, recorded in app."""
    commit(app.parent / "lib", lib_txt=text)
    git(app / "libs" / "lib", "pull", "--quiet", "origin", "main")
    commit(app)


def options(app: Path, cache: Path) -> dict[str, object]:
    return {"git": str(app), "version": "main", "compose_files": ["compose.yml"], "cache": str(cache)}


def test_a_git_source_follows_its_branch(tmp_path: Path, cache: Path) -> None:
    app = repository(tmp_path / "app", app_py="one\n")
    tree, first = fetch_git(cache, str(app), "main")
    assert (tree / "app.py").read_text() == "one\n"
    commit(app, app_py="two\n")
    tree, second = fetch_git(cache, str(app), "main")
    assert first != second
    assert (tree / "app.py").read_text() == "two\n"
    assert fetch_git(cache, str(app), first)[1] == first


def test_mistakes_in_version_and_address_are_sentences(tmp_path: Path, cache: Path) -> None:
    app = repository(tmp_path / "app")
    with pytest.raises(InputError, match="'nope'"):
        fetch_git(cache, str(app), "nope")
    with pytest.raises(InputError, match="holds a password") as raised:
        fetch_git(cache, "https://me:hunter2@example.org/x.git", "main")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(CommandError, match="clone"):
        fetch_git(cache, str(tmp_path / "no-repository"), "main")


def test_what_is_marked_export_ignore_is_left_out_also_a_submodule(nested: Path, cache: Path) -> None:
    (nested / ".gitattributes").write_text("README.md export-ignore\nlibs export-ignore\n")
    commit(nested)
    assert list_files(fetch_git(cache, str(nested), "main")[0], []) == [".gitattributes", ".gitmodules", "compose.yml"]


def test_submodules_are_in_the_tree_with_their_own_submodules(nested: Path, cache: Path) -> None:
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/lib.txt").read_text() == "lib one\n"
    assert (tree / "libs/lib/vendor/deep/deep.txt").read_text() == "deep one\n"


def test_a_submodule_is_at_its_recorded_commit_not_at_its_newest(nested: Path, cache: Path) -> None:
    commit(nested.parent / "lib", lib_txt="lib two\n")
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/lib.txt").read_text() == "lib one\n"


def test_the_mirror_of_a_submodule_is_updated_when_its_commit_changes(nested: Path, cache: Path) -> None:
    fetch_git(cache, str(nested), "main")
    move_on(nested, "lib two\n")
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/lib.txt").read_text() == "lib two\n"


def test_a_submodule_whose_commit_is_cached_is_not_fetched_again(nested: Path, cache: Path) -> None:
    fetch_git(cache, str(nested), "main")
    (nested.parent / "lib").rename(nested.parent / "elsewhere")
    commit(nested, compose_yml=COMPOSE + "# changed\n")
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/lib.txt").read_text() == "lib one\n"


def test_a_commit_that_no_branch_of_the_submodule_has_any_more_is_fetched(nested: Path, cache: Path) -> None:
    lib = nested.parent / "lib"
    git(
        nested, "config", "--file", ".gitmodules", "submodule.libs/lib.url", f"file://{lib}"
    )  # a folder is copied whole
    commit(nested)
    git(lib, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(lib, "commit", "--quiet", "--amend", "-m", "rewritten")
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/vendor/deep/deep.txt").read_text() == "deep one\n"


def test_submodules_can_be_left_out_and_taken_in_again(nested: Path, cache: Path) -> None:
    for wanted in (False, True, False):
        tree, _ = fetch_git(cache, str(nested), "main", submodules=wanted)
        assert (tree / "libs/lib/lib.txt").exists() is wanted


def test_a_submodule_that_git_does_not_update_is_left_out(nested: Path, cache: Path) -> None:
    git(nested, "config", "--file", ".gitmodules", "submodule.libs/lib.update", "none")
    commit(nested)
    assert not (fetch_git(cache, str(nested), "main")[0] / "libs/lib/lib.txt").exists()


def test_a_submodule_that_cannot_be_fetched_is_named(nested: Path, cache: Path) -> None:
    (nested.parent / "deep").rename(nested.parent / "gone")
    with pytest.raises(CommandError, match=r"the submodule libs/lib/vendor/deep from .*/deep"):
        fetch_git(cache, str(nested), "main")
    assert not list((cache / "trees").iterdir())


def test_a_submodule_whose_commit_was_not_pushed_is_named(nested: Path, cache: Path) -> None:
    commit(nested / "libs" / "lib", lib_txt="only here\n")
    commit(nested)
    with pytest.raises(InputError, match=r"The submodule libs/lib is recorded at the commit .* Push"):
        fetch_git(cache, str(nested), "main")


def test_a_submodule_without_an_address_is_named(nested: Path, cache: Path) -> None:
    (nested / ".gitmodules").unlink()
    commit(nested)
    with pytest.raises(InputError, match=r"a submodule libs/lib, and its \.gitmodules has no address"):
        fetch_git(cache, str(nested), "main")


def test_a_password_in_the_address_of_a_submodule_is_refused_and_not_shown(nested: Path, cache: Path) -> None:
    git(nested, "config", "--file", ".gitmodules", "submodule.libs/lib.url", "https://me:hunter2@example.org/lib.git")
    commit(nested)
    with pytest.raises(InputError, match="the submodule libs/lib holds a password") as raised:
        fetch_git(cache, str(nested), "main")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("allowed", ["folder", "command"])
def test_a_repository_cannot_make_the_controller_read_its_folders_or_run_commands(
    nested: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.delenv("GIT_CONFIG_COUNT")
    if allowed == "command":
        address = f"ext::sh -c touch% {tmp_path}/ran"
        git(nested, "config", "--file", ".gitmodules", "submodule.libs/lib.url", address)
        commit(nested)
    with pytest.raises(CommandError, match=r"the submodule libs/lib (.|\n)*transport '(file|ext)' not allowed"):
        fetch_git(cache, str(nested), "main")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("address", "parent", "expected"),
    [
        ("https://b.example/x.git", "git@a.example:t/app.git", "https://b.example/x.git"),
        ("../lib.git", "git@a.example:t/app.git", "git@a.example:t/lib.git"),
        ("../../u/lib.git", "git@a.example:t/app.git", "git@a.example:u/lib.git"),
        ("../lib", "ssh://git@a.example:2222/t/app/", "ssh://git@a.example:2222/t/lib"),
        ("./lib/", "https://a.example/t/app.git", "https://a.example/t/app.git/lib"),
        ("../.././lib", "/srv/git/t/app", "/srv/git/lib"),
    ],
)
def test_relative_addresses_start_from_the_repository(address: str, parent: str, expected: str) -> None:
    assert submodule_address(address, parent) == expected


def test_an_address_that_climbs_too_high_is_a_sentence() -> None:
    with pytest.raises(InputError, match="climbs above"):
        submodule_address("../../../x", "a.example:t/app")


def test_the_release_changes_with_the_commit_of_a_submodule(module: ModuleRunner, nested: Path, cache: Path) -> None:
    first = module("release_source", options(nested, cache))
    assert module("release_source", options(nested, cache))["release"] == first["release"]
    move_on(nested, "lib two\n")
    second = module("release_source", options(nested, cache))
    assert second["release"] != first["release"]
    assert b"libs/lib/vendor/deep/deep.txt" in Path(second["file_list"]).read_bytes().split(b"\0")


def test_two_runs_at_once_share_the_cache(module: ModuleRunner, nested: Path, cache: Path) -> None:
    processes = [module.start("release_source", options(nested, cache)) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert len(list((cache / "trees").iterdir())) == 1
    assert len(list((cache / "git").iterdir())) == 3


def test_what_a_killed_run_left_in_the_cache_is_removed(nested: Path, cache: Path) -> None:
    (cache / "new" / "tree" / "libs").mkdir(parents=True)
    (cache / "new" / "mirror").mkdir()
    (cache / "new" / "mirror" / "HEAD").write_text("half")
    tree, _ = fetch_git(cache, str(nested), "main")
    assert (tree / "libs/lib/lib.txt").read_text() == "lib one\n"
    assert sorted(entry.name for entry in cache.iterdir()) == ["git", "trees"]


def test_a_cache_that_stays_in_use_is_a_sentence(nested: Path, cache: Path) -> None:
    fetch_git(cache, str(nested), "main")
    with (
        directory_lock(cache / "git", lambda: StateError("the test cannot hold the lock")),
        pytest.raises(StateError, match=f"Another run has been fetching into {cache}"),
    ):
        fetch_git(cache, str(nested), "main", wait_seconds=0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nonsense", "cannot be read as a private SSH key"),
        ("public", "cannot be read as a private SSH key"),
        ("truncated", "cannot be read as a private SSH key"),
        ("passphrase", "with a passphrase"),
    ],
)
def test_a_key_that_ssh_cannot_use_is_a_sentence_without_the_key(
    module: ModuleRunner, tmp_path: Path, cache: Path, kind: str, words: str
) -> None:
    key = private_key(tmp_path / "key", passphrase="secret" if kind == "passphrase" else "")
    match kind:
        case "nonsense":
            key = "canary in the key"
        case "public":
            key = (tmp_path / "key.pub").read_text()
        case "truncated":
            key = "".join(key.splitlines(keepends=True)[:3])
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    given = {**options(tmp_path, cache), "git": "git@127.0.0.1:app.git", "deploy_key": key}
    result = module("release_source", given, env={"TMPDIR": str(temporary)})
    assert result["failed"]
    assert words in result["msg"]
    assert not any(line in result["_printed"] for line in key.splitlines() if not line.startswith("---"))
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("form", ["as it is", "no newline at the end", "carriage returns", "indented"])
def test_a_key_works_as_people_paste_it(tmp_path: Path, form: str) -> None:
    key = private_key(tmp_path / "key")
    match form:
        case "no newline at the end":
            key = key.rstrip("\n")
        case "carriage returns":
            key = key.replace("\n", "\r\n")
        case "indented":
            key = "\n" + key + "\n\n"
    with deploy_key_environment(key) as environment:
        assert "IdentitiesOnly=yes" in environment["GIT_SSH_COMMAND"]


def test_a_key_without_a_git_address_is_refused(module: ModuleRunner, tmp_path: Path) -> None:
    result = module("release_source", {"path": str(tmp_path), "deploy_key": "x", "compose_files": ["compose.yml"]})
    assert result["failed"]
    assert "deploy_key" in result["msg"]


class _Locked(BaseHTTPRequestHandler):
    """A server that wants a password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def test_a_key_for_an_https_address_is_explained(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):  # an editor's terminal may answer for the user
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(CommandError, match=r"could not read Username(.|\n)*works with SSH addresses only"):
            fetch_git(
                cache, f"http://127.0.0.1:{server.server_port}/app", "main", deploy_key=private_key(tmp_path / "key")
            )
        server.shutdown()


def test_the_key_is_private_while_git_runs_and_gone_after_a_signal(
    module: ModuleRunner, tmp_path: Path, cache: Path
) -> None:
    key = private_key(tmp_path / "key")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:  # ssh waits for the banner of this one
        address = f"ssh://git@127.0.0.1:{server.getsockname()[1]}/app.git"
        process = module.start(
            "release_source",
            {**options(tmp_path, cache), "git": address, "deploy_key": key},
            env={"TMPDIR": str(temporary), "GIT_SSH_COMMAND": f"ssh -F none -o UserKnownHostsFile={tmp_path}/known"},
        )
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            [path] = temporary.glob("groundwork-*/*")
            assert path.read_text() == key
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            commands = command_lines().values()
            assert any(str(path) in command for command in commands)
            assert not any(key.splitlines()[1] in command for command in commands)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert not list(temporary.iterdir()), out + err
    assert key.splitlines()[1] not in out + err
