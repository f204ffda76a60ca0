# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The pure parts of alembic_migrate: masks, command lines, results and sentences."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import (
    _alembic,
    _alembic_agent,
    _alembic_process,
    _alembic_told,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError

ONE, TWO = {"revision": "one", "message": "first"}, {"revision": "two", "message": ""}
JOB = {"action": "upgrade", "target": "head", "config": "alembic.ini"}
STATE = {"heads": ["two"], "version_table": "alembic_version", "alembic": "1.20.1"}
BEFORE = {**STATE, "current": [], "missing": [ONE, TWO], "steps": [ONE, TWO]}


@pytest.mark.parametrize(
    ("name", "value", "given", "text", "masked"),
    [
        ("DATABASE_URL", "postgresql://u:s3cret@h/d", False, "for postgresql://u:s3cret@h/d", "for ********"),
        ("DATABASE_URL", "postgresql://u:p%40ss@h/d", False, "it is p@ss", "it is ********"),
        ("X", "postgresql://u:p%40ss@h/d", False, "p%40ss and p@ss", "******** and ********"),
        ("DB_PASSWORD", "tr\\icky", False, "{'DB_PASSWORD': 'tr\\\\icky'}", "{'DB_PASSWORD': '********'}"),
        ("DB_PASSWORD", "two words", False, "two+words two%20words", "******** ********"),
        ("PLAIN", "visible", False, "visible", "visible"),
        ("PLAIN", "hidden", True, "hidden", "********"),
        ("MODE", "production", True, "production", "production"),
        ("PASSWORD", "production", True, "production", "********"),
        ("PWD", "/srv/place", False, "/srv/place/env.py", "/srv/place/env.py"),
        ("DEBUG", "1", True, "1 and 11", "1 and 11"),
        ("", "", False, "redis://:unknown@h", "redis://:********@h"),
        ("", "", False, "host=h password=unknown dbname=d", "host=h password=******** dbname=d"),
        ("", "", False, "password = 'two words', user=u", "password = ********, user=u"),
    ],
)
def test_secrets_are_masked(name: str, value: str, given: bool, text: str, masked: str) -> None:
    masks = _alembic_agent.Masks()
    masks.add(name, value, given)
    assert masks.apply(text) == masked


def test_the_agent_needs_nothing_of_the_collection_and_compiles_for_old_pythons() -> None:
    tree = ast.parse(Path(_alembic_agent.__file__).read_text(), feature_version=(3, 8))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    assert not [name for name in imported if name.startswith("ansible")]


def test_the_agent_ends_with_the_module_also_when_nobody_reads_its_answers() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(_alembic_agent.__file__).parent)!r})\n"
        "import io, threading, _alembic_agent as agent\n"
        "agent._watch(io.BytesIO(b'go\\n'), threading.Event(), agent.Channel('mark'))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert subprocess.run([sys.executable, "-c", code], stdout=writer, check=False).returncode == 3
    finally:
        os.close(writer)


def test_both_sides_ask_for_the_same_identity() -> None:
    assert _alembic._IDENTITY == _alembic_agent._IDENTITY


def test_an_image_runs_in_a_container_that_is_named_and_logs_nothing() -> None:
    place = _alembic_process.in_image("a/b:1", network="net", volumes=["/a:/b:ro"], directory="/app", python="py")
    text = " ".join(place.argv)
    assert text.startswith("docker run --rm --interactive --pull never --log-driver none --name groundwork-alembic-")
    assert f"--name {place.container} --label org.groundwork.alembic={place.container} " in text
    assert " --network net --workdir /app --volume /a:/b:ro --entrypoint py a/b:1 -c " in text


def test_a_service_runs_with_all_the_files_and_starts_no_other() -> None:
    compose = {
        "project": "p",
        "directory": "/d",
        "files": ["/a.yml", "/b.yml"],
        "env_files": ["/.env"],
        "service": "web",
    }
    place = _alembic_process.in_service(compose)
    text = " ".join(place.argv)
    beginning = (
        "docker compose --project-name p --project-directory /d --file /a.yml --file /b.yml --env-file /.env run "
    )
    assert text.startswith(f"{beginning}--rm --no-deps --no-TTY --name {place.container} ")
    assert text.endswith(f"--entrypoint python web -c {_alembic_process.BOOTSTRAP}")


@pytest.mark.parametrize("values", [{"A": None}, {"A": ["x"]}, {"A=B": "x"}, {"": "x"}, {"A": "secret\0"}])
def test_values_that_no_environment_takes(values: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        _alembic_process.texts("env", values)
    assert "secret" not in str(caught.value)


def test_the_image_of_a_service() -> None:
    config = {"services": {"built": {"build": {}}, "named": {"image": "a/b:1"}}}
    assert _alembic_process.service_image(config, "p", "named") == "a/b:1"
    assert _alembic_process.service_image(config, "p", "built") == "p-built"
    with pytest.raises(InputError, match="no service 'web'; they have: built, named"):
        _alembic_process.service_image(config, "p", "web")


def test_values_become_text() -> None:
    assert _alembic_process.texts("env", {"A": 1, "B": True, "C": ""}) == {"A": "1", "B": "true", "C": ""}


def test_an_upgrade_that_another_runner_has_done_changed_nothing() -> None:
    after = {**STATE, "current": ["two"], "missing": []}
    began = {"current": ["two"], "steps": []}
    result = _alembic_told.result_of(JOB, {**BEFORE, **began}, after)
    assert (result["changed"], result["applied"], result["pending"]) == (False, [], [])


def test_an_upgrade_that_went_half_of_the_way() -> None:
    after = {**STATE, "current": ["one"], "missing": [TWO]}
    result = _alembic_told.result_of(JOB, BEFORE, after)
    assert (result["changed"], result["applied"], result["pending"]) == (True, [ONE], [TWO])
    assert result["diff"][0]["after"] == "one first\ntwo\n"


def test_pending_ends_at_the_target() -> None:
    result = _alembic_told.result_of({**JOB, "target": "one"}, {**BEFORE, "steps": [ONE]})
    assert (result["changed"], result["applied"], result["pending"]) == (True, [], [ONE])


def test_a_downgrade_counts_what_is_missing_afterwards() -> None:
    before = {**BEFORE, "current": ["two"], "missing": [], "steps": [TWO, ONE]}
    job = {**JOB, "action": "downgrade"}
    assert _alembic_told.result_of(job, before)["undone"] == [TWO, ONE]
    after = {**STATE, "current": ["one"], "missing": [TWO]}
    result = _alembic_told.result_of(job, before, after)
    assert (result["undone"], result["pending"], result["changed"]) == ([TWO], [TWO], True)


@pytest.mark.parametrize("kind", sorted(_alembic_told._REFUSALS))
def test_every_refusal_has_a_sentence(kind: str) -> None:
    found = {"event": "refused", "kind": kind, "output": "", "running": None, "text": "this."}
    error = _alembic_told.explain(found, "the image i", JOB)
    assert isinstance(error, GroundworkError)
    assert "{" not in str(error)
    assert error.fix


def test_every_refusal_of_the_agent_is_known() -> None:
    tree = ast.parse(Path(_alembic_agent.__file__).read_text())
    raised = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused"
        if isinstance(node.args[0], ast.Constant)
    }
    assert raised == set(_alembic_told._REFUSALS)


def test_the_database_of_the_lock_must_be_that_of_env_py() -> None:
    _alembic.require_same(["a", "1", "2"], ["a", "1", "2"])
    with pytest.raises(InputError, match=r"name the database 'a', and env.py connects to 'b'\.$|to 'b'\. "):
        _alembic.require_same(["a", "1", "2"], ["b", "3", "2"])
    with pytest.raises(InputError, match="connects to 'a' of another server"):
        _alembic.require_same(["a", "1", "2"], ["a", "1", "3"])
