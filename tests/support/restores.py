# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A server, a backup set, and the live database that pg_restore is to replace."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import backup_sets
from support.modules import ModuleRunner
from support.postgres import PostgresServer

LIVE_ROW = [("not restored",)]


@dataclass
class Bench:
    """pg_restore of one set on one server; the live name and all that begin with it are those of one test."""

    module: ModuleRunner
    server: PostgresServer
    set_path: Path
    live: str

    @property
    def staged(self) -> str:
        """The database beside the live one."""
        return f"{self.live}_restore_{self.set_path.name.lower()}"

    @property
    def before(self) -> str:
        """What was live before."""
        return f"{self.live}_before_{self.set_path.name.lower()}"

    def options(self, action: str, **more: Any) -> dict[str, Any]:
        """The options of pg_restore."""
        return {
            **self.server.local(self.live), "action": action, "set_path": str(self.set_path),
            "component": backup_sets.NAME, **more,
        }  # fmt: skip

    def run(self, action: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run pg_restore to its end."""
        return self.module("pg_restore", self.options(action, **more), check=check)

    def start(self, action: str, **more: Any) -> subprocess.Popen[str]:
        """Start it, for tests that step in."""
        return self.module.start("pg_restore", self.options(action, **more))

    def done(self, action: str, **more: Any) -> dict[str, Any]:
        """Run, and require that it changed something."""
        result = self.run(action, **more)
        assert result["changed"] is True, result
        return result

    def refused(self, action: str, sentence: str, **more: Any) -> dict[str, Any]:
        """Run, and require this failure and that nothing has changed."""
        result = self.run(action, **more)
        assert result.get("failed"), result
        assert sentence in result["msg"], result["msg"]
        self.require_untouched()
        return result

    def make_live(self) -> Bench:
        """Make the live database that the restore is to replace; this bench."""
        self.server.create_database(
            self.live, "CREATE TABLE present (note text); INSERT INTO present VALUES ('not restored')"
        )
        return self

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run SQL in the live database or another one; its rows."""
        return self.server.execute(statement, database or self.live)

    def require_untouched(self) -> None:
        """The live database serves and is the one that was there; nothing of the restore is left."""
        assert self.execute("SELECT note FROM present") == LIVE_ROW
        assert self.databases() == {self.live}

    def databases(self) -> set[str]:
        """Those of this test."""
        found = self.execute("SELECT datname FROM pg_database", "postgres")
        return {name for (name,) in found if name == self.live or name.startswith(f"{self.live}_")}

    def state(self, database: str) -> str:
        """What the comment of a database tells of the restore."""
        query = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'"
        ((comment,),) = self.execute(query, "postgres")
        return str(json.loads(comment.partition("groundwork.restore ")[2])["state"])
