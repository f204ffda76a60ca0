# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the answers of _alembic_agent.py mean: the module's result, or a sentence; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    DependencyError,
    GroundworkError,
    InputError,
    StateError,
    UnreachableError,
    last_lines,
)

_OUTPUT_LINES = 20
_Sentence = tuple[type[GroundworkError], str, str]
_REFUSALS: dict[str, _Sentence] = {
    "no_alembic": (
        DependencyError,
        "Alembic is needed in {where} and could not be imported: {text}.",
        "Install it there (pip install alembic), or set python to the interpreter that has it.",
    ),
    "old_alembic": (DependencyError, "Alembic 1.5 or newer is needed, found {text} in {where}.", "Upgrade it there."),
    "no_config": (
        InputError,
        "There is no file {text} in {where}.",
        "Set directory to the folder with Alembic's configuration, and config to its name there.",
    ),
    "scripts": (
        InputError,
        "Alembic cannot use {config} in {where}: {text}.",
        "Correct script_location and the scripts in it.",
    ),
    "dialect": (
        InputError,
        "env.py connects to a database of the kind {text}.",
        "alembic_migrate works with PostgreSQL: correct env or url.",
    ),
    "several_databases": (
        InputError,
        "env.py migrates more than one database in a run, and the lock is held in one. Nothing was applied.",
        "Give each database an alembic.ini (config) or a section (section) of its own.",
    ),
    "no_migrations": (
        InputError,
        "env.py in {where} ended without running migrations: it never calls context.run_migrations().",
        "Let it call context.configure() and context.run_migrations(), as alembic init writes it.",
    ),
    "several_heads": (
        StateError,
        "The project has several heads: {text}.",
        "Merge them (alembic merge heads), or set target to heads or to one of them.",
    ),
    "unknown_current": (
        StateError,
        "The database is at revision {text}, which the scripts in {where} do not have.",
        "Run the release that has it; or, when it is gone for good, set the right one with action stamp and purge.",
    ),
    "target": (InputError, "Alembic cannot {action} to {target}: {text}.", "Correct target."),
    "moved": (
        StateError,
        "env.py has connected to another database than a moment before.",
        "Let it take the address from one place.",
    ),
}
# What drivers say, which is libpq's or the server's text: a connection of env.py that fails.
_CONNECTIONS = (
    (
        r"password authentication failed|no password supplied",
        "Check the password that env.py uses (env, url, or the project's settings).",
    ),
    (r'database ".*" does not exist', "Create the database first, or correct the address that env.py uses."),
    (
        r"could not translate host name|[Nn]ame or service not known|failed to resolve host|[Nn]ame resolution"
        r"|[Cc]onnect(?:ion|) .*(?:refused|failed)|timeout expired|timed out|No route to host",
        "Check the address that env.py uses; in a container it is the one of its network (network).",
    ),
    (
        r"read-only transaction",
        "env.py itself changes the database before the migrations, which check mode does not do: do that elsewhere.",
    ),
)


def explain(found: Mapping[str, Any], where: str, job: Mapping[str, Any]) -> GroundworkError:
    """The sentence for an answer that is refused or failed; a state in it becomes a detail for the caller."""
    details: dict[str, Any] = {"output": found["output"]}
    if found["event"] == "refused":
        kind, sentence, fix = _REFUSALS[found["kind"]]
        values = {**job, "where": where, "text": str(found.get("text")).rstrip(".")}
        return kind(sentence.format_map(values), fix=fix, **details)
    text = found["text"].rstrip(".")
    if found["sqlstate"]:
        text += f" (SQLSTATE {found['sqlstate']})"
    fix = next((fix for words, fix in _CONNECTIONS if re.search(words, found["text"])), "")
    if not found["changing"]:
        error = UnreachableError if fix else StateError
        told = "" if fix else _ending(found["output"])
        return error(f"env.py in {where} failed before it came to the migrations: {text}.{told}", fix=fix, **details)
    details.update(state=found["state"], began=found["began"])
    if running := found["running"]:
        message = f" ({running['message']})" if running["message"] else ""
        told = f"{_left(found['state'])}{_ending(found['printed'])}"
        return StateError(
            f"Revision {running['revision']}{message} failed: {text}.{told}",
            failed_revision=running,
            **details,
        )
    return StateError(
        f"env.py in {where} failed: {text}.{_left(found['state'])}{_ending(found['output'])}", fix=fix, **details
    )


def stopped(seconds: float, found: Mapping[str, Any] | None) -> GroundworkError:
    """The sentence for a run that took too long."""
    return StateError(
        f"Alembic did not end within {seconds:g} seconds and was stopped; the server rolls back what was not "
        f"committed.{_ending(found['output']) if found else ''}",
        fix="Raise timeout, or look into pg_stat_activity for what it waits for.",
        output=found["output"] if found else "",
    )


def result_of(
    job: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The module's result; without *after* it is what would be done, or that there is nothing to do."""
    action, steps, now = job["action"], before["steps"], after or before
    missing = {step["revision"] for step in now["missing"]}
    result: dict[str, Any] = {
        "changed": bool(steps) if after is None else before["current"] != after["current"],
        "applied": [],
        "pending": now["missing"],
        "revisions": now["current"],
        "previous_revisions": before["current"],
        "schema_version": ", ".join(now["current"]) or None,
        "previous_version": ", ".join(before["current"]) or None,
        "heads": now["heads"],
        "version_table": now["version_table"],
        "alembic_version": now["alembic"],
    }
    if action == "upgrade":
        result["pending"] = [step for step in steps if step["revision"] in missing]
        result["applied"] = [step for step in steps if step["revision"] not in missing]
        done = ("", _lines(steps))
    elif action == "downgrade":
        result["undone"] = [step for step in steps if after is None or step["revision"] in missing]
        done = (_lines(steps), "")
    else:
        result["stamped"] = steps
        done = ("".join(f"{revision}\n" for revision in before["current"]) if steps else "", _lines(steps))
    table = now["version_table"]
    result["diff"] = [{"before_header": table, "after_header": table, "before": done[0], "after": done[1]}]
    if before.get("sql"):
        result["diff"].append({"before_header": "SQL", "after_header": "SQL", "before": "", "after": before["sql"]})
    return result


def _lines(steps: list[dict[str, str]]) -> str:
    return "".join(f"{step['revision']} {step['message']}".rstrip() + "\n" for step in steps)


def _left(state: Mapping[str, Any] | None) -> str:
    if not state:
        return ""
    return f" The database is at {', '.join(state['current']) or 'no revision'} now."


def _ending(output: str) -> str:
    told = last_lines(output, _OUTPUT_LINES)
    return f" Its output ends with:\n{told}\n" if told else ""
