# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Make a staged database the live one, collection by collection.

The server has no way to do it at once. The order is: the journal is written into the staged database; live views that
are in the way of a collection are dropped; each collection takes the place of the live one of its name, by name; views
are made anew; what the backup does not have is dropped; the staged database is dropped, and the journal with it. Every
step is left out when it has been done, so a run that was cut off is finished by doing the same once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import (
    NAMESPACE_NOT_FOUND,
    Server,
    code_of,
    server_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import VIEW, Definition
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import definitions, drop
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_stage import STATE


@dataclass(frozen=True)
class Step:
    """One command of the swap: drop or create in the live database, or move a collection into it."""

    kind: str
    name: str
    definition: Definition | None = None

    def words(self, live: str) -> str:
        """For the result."""
        told = {
            "drop": f"drop {live}.{self.name}",
            "move": f"replace collection {live}.{self.name}",
            "view": f"make view {live}.{self.name}",
        }
        return told[self.kind]


def extra_names(staged: Sequence[Definition], live: Sequence[Definition]) -> list[str]:
    """What the live database has and the backup has not; the server's own stays."""
    wanted = {one.name for one in staged}
    return [one.name for one in live if one.name not in wanted and not one.name.startswith("system.")]


def plan(staged: Sequence[Definition], live: Sequence[Definition], extra: Sequence[str]) -> list[Step]:
    """What is left to do, in order. *extra* is what the journal says of the begin."""
    kinds = {one.name: one.kind for one in live}
    collections = [one for one in staged if one.kind != VIEW]
    views = [one for one in staged if one.kind == VIEW]
    steps = [Step("drop", one.name) for one in collections if kinds.get(one.name) == VIEW]
    steps += [Step("move", one.name) for one in collections]
    for view in views:
        steps += [Step("drop", view.name)] if view.name in kinds else []
        steps.append(Step("view", view.name, view))
    return steps + [Step("drop", name) for name in extra if name in kinds]


def staged_definitions(server: Server, staged: str) -> list[Definition]:
    """What is in the staged database, but for the journal."""
    return [one for one in definitions(server, staged) if one.name != STATE]


def carry_out(server: Server, staged: str, live: str, steps: Sequence[Step], work: Work) -> None:
    """Do the steps. Raises StateError and UnreachableError; what is left is done by the next run."""
    for step in steps:
        work.tell(step.name, 0)
        with _interrupted(live):
            if step.kind == "drop":
                drop(server, live, step.name)
            elif step.kind == "move":
                _move(server, staged, live, step.name)
            elif step.definition is not None:
                with server_errors(f"make view {live}.{step.name}"):
                    server.client[live].command({"create": step.name, **step.definition.options})
                drop(server, staged, step.name)


@contextmanager
def _interrupted(live: str) -> Iterator[None]:
    """Add to an error what it leaves."""
    try:
        yield
    except GroundworkError as error:
        raise type(error)(
            error.problem,
            fix=f"{error.fix} Some collections of {live} may be restored ones now: run action swap again; it goes on.",
            **error.details,
        ) from None


def _move(server: Server, staged: str, live: str, name: str) -> None:
    try:
        with server_errors(f"rename {staged}.{name} to {live}.{name}"):
            server.client.admin.command(
                {"renameCollection": f"{staged}.{name}", "to": f"{live}.{name}", "dropTarget": True}
            )
    except StateError as error:
        # The server goes on with a rename whose client was killed: then it has just ended.
        if code_of(error) != NAMESPACE_NOT_FOUND or _has(server, staged, name) or not _has(server, live, name):
            raise


def _has(server: Server, database: str, name: str) -> bool:
    with server_errors(f"list the collections of {database}"):
        return name in server.client[database].list_collection_names()
