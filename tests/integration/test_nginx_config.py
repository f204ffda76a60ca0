# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""nginx_config with a real nginx: what is asked is served, and what nginx refuses changes nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disks
from support.modules import ModuleRunner
from support.nginx import OwnNginx, own_nginx

SITE = "http/site.conf"


@pytest.fixture
def nginx(module: ModuleRunner) -> Iterator[OwnNginx]:
    """An nginx that is not started."""
    with own_nginx(module) as server:
        yield server


@pytest.fixture
def running(nginx: OwnNginx) -> OwnNginx:
    """An nginx that answers "old"."""
    nginx.change({SITE: nginx.server("old")})
    nginx.start()
    return nginx


def files(nginx: OwnNginx) -> dict[str, str]:
    """The managed files that count."""
    top = nginx.directory / "live"
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*.conf")}


def refused(nginx: OwnNginx, given: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A call that fails and changes nothing."""
    before, generation = files(nginx), (nginx.directory / "live").readlink()
    result = nginx.call(given, **more)
    assert result.get("failed") is True, result
    assert result["changed"] is False
    assert files(nginx) == before
    assert (nginx.directory / "live").readlink() == generation
    assert [path.name for path in nginx.directory.glob("generations/*")] == [generation.name]
    return result


def test_check_do_check_again_do_again(running: OwnNginx) -> None:
    wanted = {SITE: running.server("new")}
    foreseen = running.call(wanted, check=True)
    assert (foreseen["changed"], foreseen["tested"], foreseen["written"]) == (True, True, [SITE])
    assert running.get() == "old"
    done = running.call(wanted)
    assert (done["changed"], done["reloaded"], done["diff"]) == (True, True, foreseen["diff"])
    assert running.get() == "new"
    master_files = files(running)
    for check in (True, False):
        again = running.call(wanted, check=check)
        assert (again["changed"], again["reloaded"], again["diff"]) == (False, False, [])
    assert files(running) == master_files


def test_diff_shows_before_and_after_of_each_file(running: OwnNginx) -> None:
    result = running.change({"http/more.conf": "# more\n"}, absent=[SITE])
    assert [(one["before_header"], one["after_header"]) for one in result["diff"]] == [
        ("(absent)", "http/more.conf"),
        (SITE, "(absent)"),
    ]
    assert result["diff"][0]["after"] == "# more\n"
    assert "old" in result["diff"][1]["before"]


def test_files_of_others_stay(running: OwnNginx) -> None:
    running.change({"http/more.conf": "# more\n"})
    assert running.get() == "old"
    assert {SITE, "http/more.conf"} <= files(running).keys()


def test_purge_removes_what_is_not_given_and_not_kept(running: OwnNginx) -> None:
    running.change({"a/one.conf": "1", "a/two.conf": "2", "a/three.conf": "3", "a/deep/four.conf": "4"})
    result = running.change({"a/one.conf": "1"}, purge=["a/*.conf"], keep=["a/th*.conf"])
    assert (result["written"], result["removed"]) == ([], ["a/two.conf"])
    assert {"a/one.conf", "a/three.conf", "a/deep/four.conf"} <= files(running).keys()


def test_initial_files_are_those_of_the_first_generation_only(nginx: OwnNginx) -> None:
    assert nginx.call(initial={SITE: nginx.server("first")}, check=True)["written"] == [SITE]
    assert nginx.change(initial={SITE: nginx.server("first")})["written"] == [SITE]
    nginx.start()
    assert nginx.get() == "first"
    assert nginx.call(initial={SITE: nginx.server("other")})["changed"] is False
    nginx.change({"http/more.conf": "# more\n"}, absent=[SITE])
    assert nginx.call(initial={SITE: nginx.server("other")})["changed"] is False


def test_a_stopped_nginx_is_not_started(nginx: OwnNginx) -> None:
    result = nginx.change({SITE: nginx.server("new")})
    assert (result["running"], result["reloaded"], result["tested"]) == (False, False, True)
    assert not nginx.socket.exists()
    nginx.start()
    assert nginx.get() == "new"
    assert nginx.call({SITE: nginx.server("new")})["changed"] is False


def test_the_pid_file_of_a_dead_nginx_is_not_believed(nginx: OwnNginx) -> None:
    (nginx.folder / "nginx.pid").write_text(f"{os.getpid()}\n")
    assert nginx.change({SITE: nginx.server("new")})["running"] is False
    (nginx.folder / "nginx.pid").unlink()


def test_a_mistake_in_a_managed_file(running: OwnNginx) -> None:
    result = refused(running, {"http/wrong.conf": "# fine\nserver_nam x;\n"})
    assert (result["file"], result["line"], result["managed"]) == ("http/wrong.conf", 2, True)
    assert 'line 2 of the managed file http/wrong.conf: unknown directive "server_nam"' in result["msg"]
    assert running.get() == "old"


def test_check_mode_finds_the_same_mistake(running: OwnNginx) -> None:
    result = running.call({"http/wrong.conf": "server_nam x;\n"}, check=True)
    assert (result["failed"], result["file"], result["line"], result["managed"]) == (True, "http/wrong.conf", 1, True)


def test_a_broken_file_of_the_user_is_named_as_one(running: OwnNginx) -> None:
    own = running.folder / "etc" / "conf.d" / "mine.conf"
    own.write_text("# mine\n\nbroken on;\n")
    result = refused(running, {SITE: running.server("new")})
    assert (result["file"], result["line"], result["managed"]) == (str(own), 3, False)
    assert "did so before this change" in result["msg"]
    assert f"{own}, line 3, which is none of the managed files" in result["msg"]


def test_a_file_of_the_user_that_a_change_does_not_fit(running: OwnNginx) -> None:
    own = running.folder / "etc" / "conf.d" / "mine.conf"
    own.write_text(f"server {{ listen unix:{running.socket} default_server; }}\n")
    result = running.call(
        {SITE: running.server("new").replace(f"{running.socket};", f"{running.socket} default_server;")}
    )
    assert "a duplicate default server" in result["msg"]
    assert running.get() == "old"


def test_a_name_that_two_servers_have_is_a_warning(running: OwnNginx) -> None:
    result = running.change({"http/twin.conf": running.server("twin")})
    assert "nginx: conflicting server name" in str(result["warnings"])


def test_a_taken_port_brings_the_old_configuration_back(running: OwnNginx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = refused(running, {SITE: running.server("new", f"listen 127.0.0.1:{port};")})
        assert result["restored"] is True
        assert f"bind() to 127.0.0.1:{port} failed (98: Address already in use)" in result["msg"]
        assert "still could not bind()" in result["msg"]
        assert running.get() == "old"
    assert running.change({SITE: running.server("new", f"listen 127.0.0.1:{port};")})["reloaded"] is True
    assert running.get() == "new"


def test_a_changed_main_file_is_loaded_too(running: OwnNginx) -> None:
    running.change({"http/more.conf": "# more\n"})
    running.config.write_text(running.config.read_text().replace("worker_processes 2;", "worker_processes 3;"))
    foreseen = running.call(check=True)
    assert (foreseen["changed"], foreseen["written"]) == (True, [])
    assert running.change()["reloaded"] is True
    assert running.call()["changed"] is False


def test_two_generations_are_kept(running: OwnNginx) -> None:
    for text in ("one", "two", "three"):
        result = running.change({SITE: running.server(text)})
    left = sorted(path.name for path in running.directory.glob("generations/*"))
    assert left == ["000003", "000004"]
    assert result["generation"] == "000004"


def test_without_nginx_check_mode_tells_and_a_run_says_what_is_missing(nginx: OwnNginx) -> None:
    foreseen = nginx.call({SITE: "#"}, check=True, binary="nginx-that-is-not-there")
    assert (foreseen["changed"], foreseen["tested"], foreseen["written"]) == (True, False, [SITE])
    result = nginx.call({SITE: "#"}, binary="nginx-that-is-not-there")
    assert result["msg"].startswith("nginx is needed, and there is no program nginx-that-is-not-there.")
    assert not nginx.directory.exists()


def test_without_a_main_file(nginx: OwnNginx) -> None:
    nginx.config.unlink()
    assert nginx.call({SITE: "#"}, check=True)["tested"] is False
    assert nginx.call({SITE: "#"})["msg"].startswith(f"There is no file {nginx.config}.")


def test_a_main_file_that_reads_nothing_of_it(nginx: OwnNginx) -> None:
    nginx.config.write_text(nginx.config.read_text().replace("include groundwork/live", "# include groundwork/live"))
    result = nginx.call({SITE: nginx.server("new")})
    assert "reads none of the managed files. Add `include groundwork/live/http/*.conf;`" in result["msg"]
    assert not (nginx.directory / "live").exists()
    assert nginx.call({SITE: nginx.server("new")}, check=True)["tested"] is False


def test_a_full_disk_leaves_the_old_configuration(nginx: OwnNginx) -> None:
    with disks.small_disk(nginx.directory, "64k"):
        nginx.change({SITE: nginx.server("old")})
        nginx.start()
        result = refused(nginx, {SITE: nginx.server("new"), "http/large.conf": "# much\n" * 20_000})
        assert "No space left on device. Free space" in result["msg"]
        assert nginx.get() == "old"
        assert nginx.change({SITE: nginx.server("new")})["reloaded"] is True


@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_a_live_that_is_not_ours(nginx: OwnNginx, kind: str) -> None:
    nginx.directory.mkdir()
    live = nginx.directory / "live"
    if kind == "folder":
        live.mkdir()
    else:
        live.symlink_to("elsewhere")
    msg = nginx.call({SITE: nginx.server("new")})["msg"]
    assert ("is no symbolic link" if kind == "folder" else "points to elsewhere, which is no generation") in msg


@pytest.mark.parametrize(
    "path", ["../nginx.conf", "/etc/passwd", "http/.hidden", "a//b", "", "generation.conf", "root/x"]
)
def test_paths_that_are_refused(nginx: OwnNginx, path: str) -> None:
    assert f"{path!r} cannot be the path of a managed file" in nginx.call({path: "#"})["msg"]


def test_a_folder_that_is_not_beside_the_main_file(nginx: OwnNginx, tmp_path: Path) -> None:
    msg = nginx.call({SITE: "#"}, directory=str(tmp_path))["msg"]
    assert "The folder has to be beside the file" in msg


def test_a_call_that_waits_too_long_for_another_says_so(running: OwnNginx) -> None:
    fd = os.open(running.directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    result = running.call({SITE: running.server("new")}, lock_timeout=0)
    os.close(fd)
    assert "Another call has been changing the files" in result["msg"]
    assert running.get() == "old"


def test_calls_at_once_lose_nothing(running: OwnNginx) -> None:
    processes = [
        running.module.start("nginx_config", running.arguments({f"http/{name}.conf": f"# {name}\n"}))
        for name in "abcdef"
    ]
    for process in processes:
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert {f"http/{name}.conf" for name in "abcdef"} < files(running).keys()
    assert running.get() == "old"
