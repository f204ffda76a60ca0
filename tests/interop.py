# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Round trips between mongo_dump and mongo_restore and MongoDB's own mongodump and mongorestore, where they are.

usage: interop.py        (make interop)

Three comparisons, of a database with every BSON type, made from the dump in tests/fixtures/mongodump: the files of
mongo_dump and of mongodump; the database that mongorestore makes of mongo_dump's files; the one that mongo_restore
makes of mongodump's. The tools are those on PATH. The server is the stand-in of the tests, SecantusDB.

Ends with 0 when everything that could be compared is equal, 1 when something differs, and 2 when there was nothing to
compare with.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import collection

collection.install()

from support.modules import ModuleRunner
from support.mongo import MongoServer, replica_set
from support.mongo_dumps import MONGODUMP, differences
from support.mongo_sets import NAME, MongoSets

FIXTURE = MONGODUMP / "plain" / "fixture_db"
ORIGIN, COPY = "fixture_db", "fixture_copy"
TOOLS = ("mongodump", "mongorestore")
EQUAL, DIFFERENT, NOTHING_COMPARED = 0, 1, 2


@dataclass(frozen=True)
class Trip:
    """A server that holds the database ORIGIN, a folder for files, and MongoDB's tools that were found."""

    server: MongoServer
    folder: Path
    tools: dict[str, str]
    module: ModuleRunner

    def begin(self) -> None:
        """Make the database of the fixture."""
        self.restore_ours(FIXTURE, ORIGIN)

    def dump_ours(self, database: str) -> Path:
        """By mongo_dump; the folder with the files."""
        dest = self.folder / f"ours-{database}"
        options = self.server.options(engine="driver", database=database, dest=str(dest), gzip=False)
        self._must("mongo_dump", options)
        return dest / database

    def dump_theirs(self, database: str) -> Path:
        """By mongodump; the folder with the files."""
        dest = self.folder / f"theirs-{database}"
        self._tool("mongodump", f"--db={database}", f"--out={dest}")
        return dest / database

    def restore_ours(self, files: Path, database: str) -> None:
        """By mongo_restore, of a set that has these files."""
        sets = MongoSets(self.module, self.folder / "sets")
        where = {"set_path": str(sets.of_files(files, files.name)), "component": NAME, "target": database}
        # What restores into its own name would be the live one.
        own = {"database": f"{database}_live", "action": "stage"}
        self._must("mongo_restore", self.server.options(**own, **where))
        self.server.client[database].drop_collection("groundwork.restore")

    def restore_theirs(self, files: Path, database: str) -> None:
        """By mongorestore."""
        names = (f"--nsInclude={files.name}.*", f"--nsFrom={files.name}.*", f"--nsTo={database}.*")
        self._tool("mongorestore", *names, str(files.parent))

    def _must(self, name: str, options: dict[str, Any]) -> None:
        result = self.module(name, options)
        if result.get("failed"):
            raise SystemExit(f"{name} failed: {result['msg']}")

    def _tool(self, name: str, *arguments: str) -> None:
        argv = [self.tools[name], *self.server.tool_login(self.folder), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def compare(trip: Trip) -> dict[str, list[str]]:
    """Differences by comparison, as far as there are tools."""
    trip.begin()
    ours, found = trip.dump_ours(ORIGIN), {}
    found["fixture_db of tests/fixtures, and mongo_dump of what mongo_restore made of it"] = differences(FIXTURE, ours)
    if "mongorestore" in trip.tools:
        trip.restore_theirs(ours, COPY)
        found["mongo_dump, mongorestore, and mongo_dump again"] = differences(ours, trip.dump_ours(COPY))
        trip.server.client.drop_database(COPY)
        shutil.rmtree(trip.folder / f"ours-{COPY}")
    if "mongodump" in trip.tools:
        theirs = trip.dump_theirs(ORIGIN)
        found["mongo_dump and mongodump of one database"] = differences(theirs, ours)
        trip.restore_ours(theirs, COPY)
        found["mongodump, mongo_restore, and mongo_dump"] = differences(theirs, trip.dump_ours(COPY))
    return found


def main() -> int:
    """Look for the tools, make the round trips, tell."""
    tools = {name: path for name in TOOLS if (path := shutil.which(name))}
    missing = [name for name in TOOLS if name not in tools]
    if not tools:
        print(
            f"Nothing was compared: neither {' nor '.join(TOOLS)} is on PATH.\n"
            "This is no failure of the collection, and no success either. Install the MongoDB Database Tools, put "
            "them on PATH, and run make interop again."
        )
        return NOTHING_COMPARED
    with tempfile.TemporaryDirectory(prefix="gw-interop-") as folder:
        storage = Path(folder) / "server"
        storage.mkdir()
        with replica_set(storage) as server:
            found = compare(Trip(server, Path(folder), tools, ModuleRunner(ROOT)))
    for what, told in found.items():
        print(f"{what}: {'equal' if not told else 'DIFFERENT'}")
        for line in told:
            print(f"  {line}")
    if missing:
        print(f"Left out for want of {missing[0]}, which is not on PATH: its round trips.")
    return DIFFERENT if any(found.values()) else EQUAL


if __name__ == "__main__":
    sys.exit(main())
