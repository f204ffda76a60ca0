# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""restore.yml: what was destroyed comes back, and where anything fails everything is as before."""

from __future__ import annotations

import json
import os
import signal

import pytest
from conftest import DIGEST, NOTES, SETS, UNBEARABLE, Stack

OPEN = {"app_maintenance": "off"}


@pytest.fixture(autouse=True)
def intact(stack: Stack, good_set: str) -> None:
    """Every test begins with all notes."""
    assert stack.notes() == NOTES


def test_a_restore_that_is_not_confirmed_changes_nothing(stack: Stack, good_set: str) -> None:
    before, started = stack.picture(), stack.started()
    run = stack.restore(good_set, confirm="another")
    assert run.rc != 0
    assert "give -e confirm=notes" in run.words, run.output
    assert (stack.picture(), stack.started()) == (before, started)


def test_a_look_says_what_would_happen_and_touches_nothing(stack: Stack, good_set: str) -> None:
    before, started = stack.picture(), stack.started()
    run = stack.playbook("restore", "--check", backup_set=good_set)
    assert run.rc == 0, run.output
    assert f"Backup set {good_set} would replace notes" in run.words, run.output
    assert (stack.picture(), stack.started()) == (before, started)


def test_destroyed_data_comes_back_with_equal_counts(stack: Stack, good_set: str) -> None:
    [component] = stack.manifest(good_set)["components"]
    digest = stack.sql(DIGEST)
    stack.sql("DROP TABLE notes")
    assert stack.ask()[0] == 500
    run = stack.restore(good_set)
    assert run.rc == 0, run.output
    assert stack.sql(DIGEST) == digest
    assert component["counts"]["public.notes"] == stack.notes() == NOTES
    beats = int(stack.sql("SELECT count(*) FROM beats"))
    stack.host.check_output("timeout 30 sh -c %s", f"until [ $({_count('beats')}) -gt {beats} ]; do sleep 0.2; done")
    kept = run.words.split("What was live before is kept as ")[1].split()[0]
    assert kept.startswith(f"notes_before_{good_set.lower()}")  # with _2 and so on where a test before has restored it
    assert stack.sql("SELECT to_regclass('notes') IS NULL, count(*) > 0 FROM beats", kept) == "t|t"
    assert f"Backup set {good_set} of notes serves" in run.words, run.output
    stack.picture()


@pytest.mark.slow
def test_what_a_restore_that_was_cut_off_has_paused_runs_after_the_next(stack: Stack, good_set: str) -> None:
    kept = stack.picture()["databases"].count(f"notes_before_{good_set.lower()}")  # by tests before
    stack.sql("DELETE FROM notes")
    stack.host.check_output("sudo docker stop notes-worker-1")
    [component] = stack.manifest(good_set)["components"]
    held = {"engine": "postgres", "name": component["name"], "service": "db", "database": "notes", "user": "notes"}
    left = {"set": good_set, "components": [held], "swapping": False, "sites": [], "writers": ["notes-worker-1"]}
    stack.host.check_output("echo %s | sudo tee /srv/notes/restore.json", json.dumps(left))
    run = stack.restore(good_set)
    assert run.rc == 0, run.output
    assert stack.notes() == NOTES
    picture = stack.picture()
    assert picture["databases"].count(f"notes_before_{good_set.lower()}") == kept + 1
    assert "notes-worker-1" in picture["running"]


@pytest.mark.slow
def test_restoring_again_can_drop_what_was_live_before(stack: Stack, good_set: str) -> None:
    stack.sql("DELETE FROM notes WHERE id % 2 = 0")
    run = stack.restore(good_set, backup_previous="drop")
    assert run.rc == 0, run.output
    assert stack.notes() == NOTES
    assert "_before_" not in stack.picture()["databases"]


def test_a_damaged_set_is_refused_before_anything_is_paused(stack: Stack, good_set: str) -> None:
    before, started = stack.picture(), stack.started()
    stack.flip(good_set)
    try:
        run = stack.restore(good_set)
    finally:
        stack.flip(good_set)
    assert run.rc != 0
    assert "database.dump" in run.words, run.output
    assert "Nothing was changed." in run.words, run.output
    assert (stack.picture(), stack.started()) == (before, started)


def test_what_does_not_fit_is_refused_before_anything_is_paused(stack: Stack, good_set: str) -> None:
    large = stack.forge(good_set, "20200102T000000Z", database_bytes=1 << 60)
    before, started = stack.picture(), stack.started()
    try:
        run = stack.restore(large)
    finally:
        stack.host.check_output("sudo rm -r %s", f"{SETS}/{large}")
    assert run.rc != 0
    for words in ("takes about 1048576.0 TiB", "Nothing was changed."):
        assert words in run.words, run.output
    assert (stack.picture(), stack.started()) == (before, started)


def test_a_set_that_does_not_hold_what_it_says_leaves_everything_as_before(stack: Stack, good_set: str) -> None:
    [component] = stack.manifest(good_set)["components"]
    forged = stack.forge(good_set, "20200101T000000Z", counts={**component["counts"], "public.notes": NOTES + 1})
    before = stack.picture()
    try:
        run = stack.restore(forged)
    finally:
        stack.host.check_output("sudo rm -r %s", f"{SETS}/{forged}")
    assert run.rc != 0
    for word in (f"public.notes has {NOTES} rows instead of {NOTES + 1}", "The data is as before"):
        assert word in run.words, run.output
    assert stack.picture() == before


def test_a_gate_that_fails_after_the_swap_brings_the_data_before_back(stack: Stack) -> None:
    stack.sql(f"INSERT INTO notes (body) VALUES ('{UNBEARABLE}')")
    poisoned = stack.back_up()
    stack.sql(f"DELETE FROM notes WHERE body = '{UNBEARABLE}'")
    before = stack.picture()
    try:
        run = stack.restore(poisoned, app_health_timeout=6)
    finally:
        stack.host.check_output("sudo rm -r %s", f"{SETS}/{poisoned}")
    assert run.rc != 0
    for word in ("web", "The data is as before, and the stack was started again."):
        assert word in run.words, run.output
    assert stack.picture() == before


def test_a_restore_that_is_killed_after_the_swap_keeps_all_else_away_until_it_is_undone(
    stack: Stack,
) -> None:
    stack.sql(f"INSERT INTO notes (body) VALUES ('{UNBEARABLE}')")
    poisoned = stack.back_up()
    stack.sql(f"DELETE FROM notes WHERE body = '{UNBEARABLE}'")
    restore = stack.playbook.start("restore", backup_set=poisoned, confirm="notes", app_health_timeout=45)
    try:
        gate = "grep -q '\"swapping\": true' /srv/notes/restore.json && docker ps --format '{{.Names}}' | grep -q web"
        stack.host.check_output("sudo timeout 240 sh -c %s", f"sleep 5; until {gate}; do sleep 0.2; done")
    finally:
        os.killpg(restore.pid, signal.SIGKILL)
        output, _ = restore.communicate(timeout=60)
    assert restore.returncode == -signal.SIGKILL, output
    stack.sql("INSERT INTO notes (body) VALUES ('written since')")
    # an inventory and a host that have changed meanwhile: the set that was restored is gone
    stack.host.check_output("sudo rm -r %s", f"{SETS}/{poisoned}")
    before = stack.sets()
    for playbook, variables in (("deploy", {}), ("rollback", {}), ("backup", {}), ("prune", {}), ("maintenance", OPEN)):
        refused = stack.playbook(playbook, **variables)
        assert refused.rc != 0
        assert "restore.yml -e restore_action=undo" in refused.words, refused.output
    assert stack.sets() == before
    assert int(stack.sql("SELECT count(*) FROM notes")) == NOTES + 2

    look = stack.playbook("restore", "--check", restore_action="undo")
    assert look.rc == 0, look.output
    assert f"The restore of set {poisoned} of notes would be undone: notes would be as before it" in look.words
    assert int(stack.sql("SELECT count(*) FROM notes")) == NOTES + 2
    run = stack.playbook("restore", restore_action="undo")
    assert run.rc == 0, run.output
    picture = stack.picture()
    assert stack.notes() == NOTES
    assert {"notes_db", "notes-web-1", "notes-worker-1"} <= set(picture["running"])
    reverted = f"notes_reverted_{poisoned.lower()}"
    assert stack.sql("SELECT count(*) FROM notes WHERE body = 'written since'", reverted) == "1"
    assert f"notes_before_{poisoned.lower()}" not in picture["databases"]
    started = stack.started()
    again = stack.playbook("restore", restore_action="undo")
    assert (again.rc, again.changed) == (0, 0), again.output
    assert "there is no restore of notes to undo" in again.words, again.output
    assert stack.started() == started
    stack.sql(f"DROP DATABASE {reverted}", "postgres")


def _count(table: str) -> str:
    """A command that counts the rows of a table."""
    return f"sudo docker exec notes_db psql -X -At -U notes -d notes -c 'SELECT count(*) FROM {table}'"
