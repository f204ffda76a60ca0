# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The reason of a failed task, which the messages of deploys, restores and backups carry."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._failure import failure

BUILD = {
    "msg": "non-zero return code",
    "rc": 17,
    "cmd": ["/usr/bin/docker", "compose", "--password", "canary"],
    "stdout": "",
    "stderr": "#1 building\nfailed to solve: no such host\n",
}


def test_a_sentence_stays_as_it_is() -> None:
    assert failure({"msg": "The disk is full.", "rc": 1, "cmd": "dd"}) == "The disk is full."


def test_a_command_tells_its_last_lines_and_none_of_its_arguments() -> None:
    assert failure(BUILD) == "docker ended with 17: #1 building\nfailed to solve: no such host"
    assert (
        failure(BUILD | {"cmd": "A=canary sh -c x", "stderr": ""}) == "the command ended with 17: it printed nothing."
    )
    assert failure(BUILD | {"stderr": "", "stdout": "said here"}).endswith(": said here")
    assert failure({"msg": "non-zero return code", "rc": 2}) == "the command ended with 2: it printed nothing."
    lines = failure(BUILD | {"stderr": "\n".join(map(str, range(100)))}).splitlines()
    assert (len(lines), lines[-1]) == (20, "99")


def test_of_a_loop_it_is_the_first_item_that_failed() -> None:
    results = [{"msg": "fine"}, {"failed": True, "msg": "second"}, {"failed": True, "msg": "third"}]
    assert failure({"msg": "One or more items failed", "results": results}) == "second"
    assert failure({"msg": "No hosts", "results": []}) == "No hosts"


@pytest.mark.parametrize("results", [["a package", "another"], {"a package": "broken"}, "text", None])
def test_results_that_are_those_of_no_loop_are_let_be(results: Any) -> None:
    assert failure({"msg": "no such package", "results": results}) == "no such package"


@pytest.mark.parametrize("hidden", [BUILD, {"results": [BUILD | {"failed": True}]}])
def test_what_no_log_hides_stays_hidden(hidden: dict[str, Any]) -> None:
    assert failure(hidden | {"_ansible_no_log": True}) == "the command ended with 17, and no_log hides what it printed."


@pytest.mark.parametrize("nothing", [{}, {"msg": ""}, {"msg": None}])
def test_without_words_it_points_at_the_task(nothing: dict[str, str]) -> None:
    assert failure(nothing) == "see the task above"
