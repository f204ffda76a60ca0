# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Progress of a dump in real runs of ansible-playbook: lines at a terminal, silence elsewhere, the same result."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.playbooks import Playbooks, Played
from support.postgres import UNPRIVILEGED, PostgresServer
from support.terminal import Terminal

LINE = r"^\[one\]: dump\b.*\d B$|^\[one\]: dump\b.*\d [KM]iB\b.*$"
ROWS = "CREATE TABLE rows AS SELECT i, repeat(md5(i::text), 100) AS body FROM generate_series(1, 2000) AS i"
# The real program, which stands still after its first MiB until the gate is open.
HELD = """#!/bin/sh
[ "$1" = --version ] && exec {real} --version
{real} "$@" | {{ head -c 1048576; until [ -e {gate} ]; do sleep 0.1; done; cat; }}
"""


@dataclass(frozen=True)
class Held:
    """Runs of pg_backup whose pg_dump waits for a gate; all files are in *folder*."""

    folder: Path
    server: PostgresServer
    database: str

    @property
    def play(self) -> Playbooks:
        """Playbooks that leave what they write on the host in a folder of ours."""
        env = {"ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"), "ANSIBLE_PIPELINING": "1"}
        return Playbooks(self.folder, env=env)

    def open(self) -> None:
        """Let pg_dump go on, in this and in later runs."""
        (self.folder / "gate").touch()

    def task(self, dest: str, *, password: str | None = None, **keywords: Any) -> dict[str, Any]:
        """The dump into a folder of that name, with task keywords such as become."""
        options = {
            **self.server.login(self.database),
            "bin_dir": str(self.folder / "bin"),
            "dest": str(self.folder / dest),
            "compression": "none",
            "globals": False,
            **({"login_password": password} if password else {}),
        }
        return {"name": "dump", "groundwork.backend.pg_backup": options, **keywords}

    def terminal(self, task: dict[str, Any], *arguments: str) -> Terminal:
        """A run at a terminal."""
        return Terminal(self.play, [task], *arguments)


@pytest.fixture
def held(postgres16: PostgresServer) -> Iterator[Held]:
    """A database of a few MiB, and tools in a folder that every user of the machine can read."""
    folder = Path(tempfile.mkdtemp(prefix="gw-progress-", dir="/tmp"))
    folder.chmod(0o755)
    name = folder.name.replace("-", "_")
    postgres16.create_database(name, ROWS)
    (folder / "bin").mkdir()
    for program in ("psql", "pg_dumpall", "pg_restore"):
        (folder / "bin" / program).symlink_to(postgres16.bindir / program)
    (folder / "bin" / "pg_dump").write_text(HELD.format(real=postgres16.bindir / "pg_dump", gate=folder / "gate"))
    (folder / "bin" / "pg_dump").chmod(0o755)
    yield Held(folder, postgres16, name)
    shutil.rmtree(folder)


def lasting(played: Played) -> dict[str, Any]:
    """The result without what differs between any two runs and without the hidden option.

    Times and folders differ, and the size of the database: autovacuum writes its maps when it likes.
    """
    result = dict(played.result("dump"))
    changing = {"started_at", "seconds", "files", "database_bytes"}
    result["component"] = {key: value for key, value in result["component"].items() if key not in changing}
    arguments = result.pop("invocation")["module_args"]
    return {**result, "arguments": {k: v for k, v in arguments.items() if k not in ("dest", "progress_file")}}


def test_a_terminal_shows_how_far_it_is_and_the_result_is_that_of_a_pipe(held: Held) -> None:
    with held.terminal(held.task("watched")) as terminal:
        terminal.wait_for(LINE)
        held.open()
        watched = terminal.finish()
    piped = held.play([held.task("piped")])
    assert (watched.rc, piped.rc) == (0, 0), watched.output + piped.output
    assert lasting(watched) == lasting(piped)
    assert not re.search(LINE, piped.output, re.MULTILINE)
    assert piped.result("dump")["invocation"]["module_args"]["progress_file"] is None
    assert list(held.folder.rglob("groundwork-progress-*")) == [], "the file is removed"


def test_the_lines_do_not_go_to_the_log_file(held: Held) -> None:
    log = held.folder / "ansible.log"
    play = Playbooks(held.folder, env={**held.play.env, "ANSIBLE_LOG_PATH": str(log)})
    with Terminal(play, [held.task("d")]) as terminal:
        terminal.wait_for(LINE)
        held.open()
        assert terminal.finish().rc == 0
    assert "dump" in log.read_text()
    assert not re.search(LINE, log.read_text(), re.MULTILINE)


def test_a_task_that_may_not_be_logged_tells_nothing(held: Held) -> None:
    held.open()
    with held.terminal(held.task("d", no_log=True)) as terminal:
        played = terminal.finish()
    assert played.rc == 0, played.output
    assert (held.folder / "d" / "database.dump").exists()
    assert not re.search(LINE, played.output, re.MULTILINE)


def test_a_failure_is_told_as_without_a_terminal(held: Held) -> None:
    held.open()
    task = held.task("d", password="wrong")
    with held.terminal(task) as terminal:
        watched = terminal.finish()
    piped = held.play([task])
    assert (watched.rc, piped.rc) == (2, 2), watched.output
    assert "rejected the password of user 'postgres'" in watched.result("dump")["msg"]
    assert watched.result("dump")["msg"] == piped.result("dump")["msg"]


def test_check_mode_writes_nothing(held: Held) -> None:
    held.open()
    with held.terminal(held.task("d"), "--check") as terminal:
        played = terminal.finish()
    assert played.rc == 0, played.output
    assert played.result("dump")["changed"] is True
    assert not (held.folder / "d").exists()


def test_async_is_left_to_ansible(held: Held) -> None:
    held.open()
    with held.terminal({**held.task("d"), "async": 120, "poll": 1}) as terminal:
        played = terminal.finish()
    assert played.rc == 0, played.output
    assert played.result("dump")["component"]["counts"] == {"public.rows": 2000}
    assert not re.search(LINE, played.output, re.MULTILINE)


def test_another_user_on_the_host_dumps_and_is_watched(held: Held) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, which becomes another user without a password")
    for name in ("other", "remote"):
        (held.folder / name).mkdir()
        os.chown(held.folder / name, UNPRIVILEGED, UNPRIVILEGED)
    become = {"become": True, "become_user": "nobody", "become_method": "ansible.builtin.su"}
    variables = {"ansible_become_flags": "--shell /bin/sh", "ansible_python_interpreter": "/usr/bin/python3"}
    with held.terminal(held.task("other/d", vars=variables, **become)) as terminal:
        terminal.wait_for(LINE)
        held.open()
        played = terminal.finish()
    assert played.rc == 0, played.output
    assert (held.folder / "other" / "d" / "database.dump").stat().st_uid == UNPRIVILEGED
    assert list((held.folder / "remote").iterdir()) == []


def test_what_cannot_be_read_or_written_ends_no_dump(held: Held) -> None:
    """The folder for temporary files is a file: neither half of the progress works."""
    held.open()
    (held.folder / "remote").write_text("no folder")
    with held.terminal(held.task("d")) as terminal:
        played = terminal.finish()
    assert played.rc == 0, played.output
    assert played.result("dump")["component"]["counts"] == {"public.rows": 2000}
