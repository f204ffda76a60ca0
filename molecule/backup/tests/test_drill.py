# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""drill.yml: proves that the newest set restores, and is loud when it does not."""

from __future__ import annotations

import re

import pytest
from conftest import Stack


def scratch(stack: Stack) -> list[str]:
    """Containers and volumes of drills that are left."""
    containers = stack.host.check_output("sudo docker ps --all --quiet --filter label=org.groundwork.drill").split()
    volumes = stack.host.check_output("sudo docker volume ls --quiet --filter dangling=true").split()
    return containers + volumes


def test_a_drill_proves_the_newest_set_and_touches_nothing_live(stack: Stack, good_set: str) -> None:
    before, started = stack.picture(), stack.started()
    run = stack.playbook("drill")
    assert run.rc == 0, run.output
    assert f"Backup set {good_set} of notes restores" in run.words, run.output
    proven = stack.manifest(good_set)["proven"]
    assert proven["seconds"] > 0
    assert (stack.picture(), stack.started()) == (before, started)
    assert scratch(stack) == []
    status = stack.playbook("status")
    assert status.rc == 0, status.output
    assert re.search(rf"backup *\| newest *\| {good_set} of \d+, .* old", status.words), status.output
    assert f"proven to restore | {good_set} at {proven['at']} in {proven['seconds']:.1f} s" in status.words


def test_a_drill_of_a_damaged_set_fails_loudly(stack: Stack, good_set: str) -> None:
    before = stack.picture()
    stack.flip(good_set)
    try:
        run = stack.playbook("drill")
    finally:
        stack.flip(good_set)
    assert run.rc != 0
    for word in ("THE DRILL OF notes FAILED", f"{good_set} is not proven to restore", "database.dump"):
        assert word in run.words, run.output
    assert stack.picture() == before
    assert scratch(stack) == []


@pytest.mark.slow
def test_a_drill_of_a_set_that_lost_rows_fails_loudly(stack: Stack, good_set: str) -> None:
    [component] = stack.manifest(good_set)["components"]
    counts = {**component["counts"], "public.notes": component["counts"]["public.notes"] + 1}
    forged = stack.forge(good_set, "20990101T000000Z", counts=counts)
    try:
        run = stack.playbook("drill", backup_set=forged)
        assert "proven" not in stack.manifest(forged)
    finally:
        stack.host.check_output("sudo rm -r %s", f"/var/backups/notes/{forged}")
    assert run.rc != 0
    for word in ("THE DRILL OF notes FAILED", "public.notes has"):
        assert word in run.words, run.output
    assert scratch(stack) == []
