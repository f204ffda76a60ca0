# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Commands: their output, their failure, their secrets, and what happens when the reader gives up."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, DependencyError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import in_container, run, stream


def test_output_and_environment() -> None:
    done = run(["sh", "-c", 'printf "%s %s" "$NAME" "$LC_ALL"; printf err >&2; exit 3'], env={"NAME": "é"}, check=False)
    assert (done.rc, done.stdout, done.stderr) == (3, "é C.UTF-8", "err")


@pytest.mark.parametrize("stdin", ["text", b"text"])
def test_stdin(stdin: str | bytes) -> None:
    assert run(["cat"], stdin=stdin).stdout == "text"
    assert run(["cat"]).stdout == ""


def test_stdin_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"text")
    with (tmp_path / "f").open("rb") as file:
        assert run(["cat"], stdin=file).stdout == "text"


def test_a_failure_says_what_was_asked_and_keeps_the_details() -> None:
    argv = ["sh", "-c", "echo one >&2; echo two >&2; exit 4"]
    with pytest.raises(CommandError, match="Could not tidy up: sh ended with 4: one\ntwo") as caught:
        run(argv, asked="tidy up")
    assert caught.value.details == {"cmd": argv, "rc": 4, "stderr": "one\ntwo"}
    with pytest.raises(CommandError, match="it printed nothing"):
        run(["false"])


def test_a_missing_program() -> None:
    for call in (lambda: run(["gw-no-such"]), lambda: stream(["gw-no-such"], io.BytesIO())):
        with pytest.raises(DependencyError, match="'gw-no-such' is needed and was not found"):
            call()


def test_a_command_that_does_not_end() -> None:
    with pytest.raises(CommandError, match=r"no end after 0\.2 seconds"):
        run(["sleep", "60"], timeout=0.2)


def test_stream_hands_over_every_byte_and_takes_both_results() -> None:
    sink = io.BytesIO()
    done = stream(["sh", "-c", "head -c 3000001 /dev/zero; echo warned >&2"], sink)
    assert (len(sink.getvalue()), done.rc, done.stdout, done.stderr) == (3000001, 0, "", "warned\n")
    with pytest.raises(CommandError, match="sh ended with 7"):
        stream(["sh", "-c", "echo data; exit 7"], io.BytesIO())


def test_stream_kills_the_command_when_the_sink_fails(tmp_path: Path) -> None:
    class Full:
        def write(self, data: bytes, /) -> int:
            raise OSError(28, "full")

    pid = tmp_path / "pid"
    with pytest.raises(OSError, match="full"):
        stream(["sh", "-c", f"echo $$ >{pid}; exec yes"], Full())
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_a_container_gets_names_and_no_values() -> None:
    assert in_container("db", ["psql", "-X"]) == ["docker", "exec", "db", "psql", "-X"]
    argv = in_container("db", ["psql"], user="postgres", env_names=["PGPASSWORD", "PGUSER"], stdin=True)
    assert argv == [
        "docker", "exec", "--interactive", "--user", "postgres", "--env", "PGPASSWORD", "--env", "PGUSER", "db", "psql",
    ]  # fmt: skip


def test_a_secret_in_the_environment_is_not_in_argv() -> None:
    done = run(["sh", "-c", 'tr "\\0" " " </proc/$$/cmdline'], env={"SECRET": "canary-1"})
    assert "canary-1" not in done.stdout
    assert "SECRET" not in os.environ
