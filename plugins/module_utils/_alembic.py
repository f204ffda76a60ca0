# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One run of Alembic from the comparison to the result, under the lock of migrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._alembic_process import Agent, Place
from ansible_collections.groundwork.backend.plugins.module_utils._alembic_told import explain, result_of, stopped
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._migration_lock import MigrationLock, holder

# the same as in _alembic_agent.py
_IDENTITY = (
    "SELECT current_database(), CAST((SELECT oid FROM pg_database WHERE datname = current_database()) AS text), "
    "CAST(extract(epoch FROM pg_postmaster_start_time()) AS text)"
)
_LAST_WORDS_SECONDS = 5.0


@dataclass
class Run:
    """What one run works on. connect() opens a connection that the caller closes; timeout is in seconds.

    place() says where Alembic runs, each time with another name for the container.

    job is what _alembic_agent.py takes.
    """

    connect: Callable[[], Any]
    warn: Callable[[str], None]
    place: Callable[[], Place]
    job: Mapping[str, Any]
    lock_wait: float
    timeout: float | None = None

    def execute(self) -> dict[str, Any]:
        """Do it, and return the module's result. On failure the error's details hold the state that was left."""
        connection = self.connect()
        before: dict[str, Any] = {}
        allowed = False
        try:
            with Agent(self.place(), self.job) as agent:
                before = self._plan(connection, agent)
                if self.job["read_only"] or not before["steps"]:
                    return result_of(self.job, before)
                self._lock(connection, agent)
                agent.allow()
                allowed = True
                after = self._answer(agent)
            return {**result_of(self.job, {**before, **after["began"]}, after), "output": after["output"]}
        except GroundworkError as error:
            if allowed:  # the program has left by now
                before.update(error.details.pop("began", {}))
                left = error.details.pop("state", None) or self._look()
                error.details.update(result_of(self.job, before, left) if left else {"changed": True})
                error.details.pop("diff", None)
            raise

    def _plan(self, connection: Any, agent: Agent) -> dict[str, Any]:
        with _postgres.server_errors("look at the database"):
            expected = [str(value) for value in connection.execute(_IDENTITY).fetchone()]
            at_work = holder(connection) if self.job["read_only"] else ""
        if at_work:
            self.warn(f"Another run of migrations is at work ({at_work}); what it has not committed counts as pending.")
        before = self._answer(agent)
        require_same(expected, before["identity"])
        if not before["heads"]:
            self.warn("The project has no revision.")
        if before.get("no_sql"):
            self.warn(f"The SQL cannot be shown: {before['no_sql']}.")
        return before

    def _lock(self, connection: Any, agent: Agent) -> None:
        keeper = self.connect()
        lock = MigrationLock(keeper)
        with _postgres.server_errors("take the lock of migrations"):
            lock.acquire(self.lock_wait)
            lock.require(connection)

        def tick() -> None:
            with _postgres.server_errors("keep the lock of migrations"):
                lock.require(connection)

        agent.tick = tick

    def _answer(self, agent: Agent) -> dict[str, Any]:
        found = agent.answer(self.timeout)
        if found is None:
            agent.hang_up()
            with suppress(GroundworkError):  # it may be gone without a word
                found = agent.answer(_LAST_WORDS_SECONDS)
            if found is None or found["event"] == "stopped":
                raise stopped(self.timeout or 0, found)
        if found["event"] in ("plan", "done"):
            return found
        raise explain(found, agent.place.where, self.job)

    def _look(self) -> dict[str, Any] | None:
        """The state, read anew, after the program has died."""
        with suppress(GroundworkError), Agent(self.place(), {**self.job, "action": "look"}) as agent:
            return self._answer(agent)
        return None


def require_same(expected: Sequence[str], found: Sequence[str]) -> None:
    """The lock is worth something only in the database that env.py migrates. Raises InputError."""
    if list(expected) != list(found):
        place = " of another server" if expected[0] == found[0] else ""
        raise InputError(
            f"The login options name the database {expected[0]!r}, and env.py connects to {found[0]!r}{place}.",
            fix="Let both name one database: the lock of migrations is taken with the login options.",
        )
