# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Restore a dump into a new database beside the live one, and check it. The live database is not touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    GroundworkError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import (
    FAILED,
    REVERTED,
    STAGED,
    STAGING,
    Dump,
    Mark,
    Names,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_check import check
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_load import Say, fix_for, load
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_roles import Missing, missing_roles
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_server import Database, Server, name_of
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore_verify import Verification
from ansible_collections.groundwork.backend.plugins.module_utils._progress import Progress

_UNFINISHED = {STAGING, FAILED, REVERTED}
_OWN = ("postgres", "template0", "template1")


@dataclass(frozen=True)
class Job:
    """What to restore and how; target: None, or the name of a scratch database in place of the staged one."""

    dump: Dump
    names: Names
    target: str | None
    jobs: int
    roles: bool
    analyze: bool
    keep_failed: bool
    force: bool
    temporary: str
    progress: Progress
    warn: Callable[[str], None]

    @property
    def name(self) -> str:
        """The new database."""
        return self.target or self.names.staged

    def mark(self, state: str) -> Mark:
        """The mark of the new database; one that is a target belongs to no live database."""
        return Mark(self.names.set_id, self.names.component, self.target or self.names.database, state)


@dataclass(frozen=True)
class Plan:
    """What a stage does: drop what an earlier run left, create roles, create a database with these properties."""

    drop: bool
    missing: Missing
    properties: Mapping[str, Any]
    actions: list[str] = field(default_factory=list)


def is_staged(job: Job, databases: Mapping[str, Database]) -> bool:
    """Whether the new database is there already, complete and checked."""
    found = databases.get(job.name)
    return found is not None and found.mark == job.mark(STAGED)


def plan(job: Job, server: Server, databases: Mapping[str, Database]) -> Plan:
    """What there is to do. Raises StateError when a database is in the way, or the roles' file cannot be read."""
    found = databases.get(job.name)
    if found is not None:
        _require_replaceable(job, server, found)
    missing = _missing(job, server) if job.roles else Missing((), ())
    properties = _properties(job, server, databases)
    actions = [f"create role {role}" for role in missing.roles]
    if found is not None:
        actions.append(f"drop database {job.name}")
    rows = sum(job.dump.counts.values())
    actions += [
        f"create database {job.name}" + (f" with owner {properties['owner']}" if properties.get("owner") else ""),
        f"restore {len(job.dump.counts)} tables with {rows} rows into {job.name}",
    ]
    return Plan(found is not None, missing, properties, actions)


def verify(job: Job) -> None:
    """Read every file of the component. Raises StateError."""
    with _verification(job) as verification:
        _wait_for(verification, job)


def stage(job: Job, server: Server, major: int, steps: Plan) -> dict[str, str]:
    """Carry out a plan; the new database's extensions. When anything fails, the new database is dropped.

    The files are verified while they are loaded; before that, when what follows cannot be taken back, or when psql
    would run a script that nobody has checked. A damage comes before every error of the load and of the check. Raises
    CommandError, StateError, UnreachableError.
    """
    with _verification(job) as verification:
        if steps.drop or steps.missing.roles or job.dump.format == "plain":
            _wait_for(verification, job)
        if steps.missing.roles:
            server.create_roles(steps.missing.statements)
        if steps.drop:
            server.drop(job.name)
        with _explained():
            server.create(job.name, steps.properties, major)
        try:
            extensions, told = _fill(job, server, verification)
            with _explained():
                server.finish(job.name, steps.properties, job.mark(STAGED))
        except Exception:
            _clean(job, server)
            _wait_for(verification, job)
            raise
        except BaseException:
            _clean(job, server)
            raise
    for sentence in told:
        job.warn(sentence)
    return extensions


def _fill(job: Job, server: Server, verification: Verification) -> tuple[dict[str, str], list[str]]:
    """Load the dump into the new database and check both; its extensions, and what is worth a warning."""
    server.close(job.name, job.mark(STAGING))
    _create_schemas(job, server)
    load(
        job.dump, server.tools, job.name,
        jobs=job.jobs, temporary=job.temporary, say=_say(job.progress, job.dump.data_bytes, verification),
    )  # fmt: skip
    job.progress.update(0, None, step="check")
    found = check(job.dump, server, job.name, jobs=job.jobs, analyze=job.analyze)
    _wait_for(verification, job)
    return found


def _verification(job: Job) -> Verification:
    return Verification(job.dump, max(2, job.jobs))


def _wait_for(verification: Verification, job: Job) -> None:
    if not verification.complete:
        verification.wait(lambda done, total: job.progress.update(done, total, step="verify"))


def _require_replaceable(job: Job, server: Server, found: Database) -> None:
    if job.target is not None and (job.target in _OWN or job.target == server.maintenance):
        raise StateError(f"The target {job.target!r} is a database of the server itself.", fix="Use another name.")
    ours = found.mark is not None and found.mark.database == job.mark(STAGED).database
    if ours and (found.mark is not None and found.mark.state in _UNFINISHED):
        return  # what a run left that was cut off
    if job.target is not None:
        if job.target == job.names.database:
            raise StateError(
                f"The target {job.target!r} exists and is the live database.",
                fix="Use action: restore, which keeps it, or another target.",
            )
        if not job.force:
            raise StateError(
                f"The target {job.target!r} exists already.", fix="Use another name, or force: true to replace it."
            )
        return
    if not ours and not server.is_empty(job.name):
        raise StateError(
            f"Database {job.name!r} exists already, is not empty and was not made by pg_restore for "
            f"{job.names.database!r}.",
            fix="Look what it is; drop or rename it, then run again.",
        )


def _missing(job: Job, server: Server) -> Missing:
    path = job.dump.globals_file
    if path is None:
        return Missing((), ())
    with os_errors(f"read {path}"):
        data = path.read_bytes()
    try:
        script = data.decode()
    except UnicodeDecodeError:
        raise StateError(f"{path} is not in UTF-8.", fix="Create the roles yourself, and set roles: false.") from None
    return missing_roles(script, server.roles(), str(path))


def _properties(job: Job, server: Server, databases: Mapping[str, Database]) -> Mapping[str, Any]:
    if job.dump.properties is not None:
        return job.dump.properties
    if job.names.database in databases and job.target is None:
        return server.properties(job.names.database)
    if job.target is None:
        job.warn(
            f"The set does not tell owner, encoding, locale, rights and settings of {job.names.database!r}, and there "
            "is no such database: it gets the server's defaults, and the role that logs in becomes its owner."
        )
    return {}


def _create_schemas(job: Job, server: Server) -> None:
    """pg_dump writes no schema when it was told which tables to take."""
    if job.dump.filter.get("tables"):
        schemas = sorted({name.partition(".")[0] for name in job.dump.counts})
        with server.session(job.name) as session:
            session.query("".join(f"CREATE SCHEMA IF NOT EXISTS {name_of(schema)};" for schema in schemas))


def _say(progress: Progress, total: int, verification: Verification) -> Say:
    """Tells how far a restore is; raises when its files were found to be damaged meanwhile, which ends it."""

    def say(done: int, item: str) -> None:
        verification.check()
        progress.update(min(done, total), total, step="restore", item=item)

    return say


def _clean(job: Job, server: Server) -> None:
    with suppress(GroundworkError):  # the error that led here counts; the next run drops it
        found = server.databases().get(job.name)
        if found is None:
            return
        if job.keep_failed:
            server.say(found, job.mark(FAILED))
        else:
            server.drop(job.name)


@contextmanager
def _explained() -> Iterator[None]:
    """Add what to do to an error of the server."""
    try:
        yield
    except CommandError as error:
        fix = error.fix or fix_for(str(error.details.get("stderr", "")))
        raise CommandError(error.problem, fix=fix, **error.details) from None


def seconds_since(clock: float) -> float:
    """Seconds since a moment of the monotonic clock, as results tell them."""
    return round(time.monotonic() - clock, 3)
