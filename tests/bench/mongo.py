# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""mongo_dump and mongo_restore beside a plain loop with pymongo and beside MongoDB's own tools; deploys of a service.

The server is a stand-in, SecantusDB, a replica set of one member as in the integration tests: it speaks MongoDB's wire
protocol, is written in Python, and is slower than mongod, above all with several clients at once. So the figures
compare programs that wait for the same server, and tell nothing of MongoDB's own speed. A GiB of documents of 1 to 100
kB lies in several collections with an index each; half of every document can be compressed away.

Ours are the module's whole process with its checks: checksums, counts, definitions, everything on the disk. The plain
loop (_mongo_plain.py) is a process, too, and does none of that. mongodump and mongorestore take their turn when they
are on PATH. Peak memory is the largest resident set of the process (VmHWM).

GROUNDWORK_BENCH_MIB sets another size (MiB of documents), GROUNDWORK_BENCH_PARTS chooses from "speed", "interop" (the
round trips of make interop) and "deploys" (of the systemd service), separated by commas.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from support.mongo import PASSWORD, MongoServer, replica_set

from bench._runs import Ended, module, program, require, turns
from bench.figures import Figure

MIB = int(os.environ.get("GROUNDWORK_BENCH_MIB", "1024"))
PARTS = os.environ.get("GROUNDWORK_BENCH_PARTS", "speed,interop,deploys").split(",")
DUMP_ROUNDS, RESTORE_ROUNDS = 3, 2
JOBS = (1, 4)
COLLECTIONS = 6
SMALLEST, LARGEST = 1000, 100_000
INSERTED_BYTES = 4 << 20
ALLOWED_MEMORY_MIB = 100.0
DATABASE, STACK, COMPONENT = "bench", "bench", "mongo"
PLAIN = Path(__file__).with_name("_mongo_plain.py")
# The cache of the integration tests is too small for batches of this size: the server would stop to answer.
SERVER = ("--cache-size", "2G", "--oplog-max-entries", "1000")


def measure(root: Path) -> list[Figure]:
    """All figures of the chosen parts."""
    if unknown := set(PARTS) - {"speed", "interop", "deploys"}:
        raise SystemExit(f"GROUNDWORK_BENCH_PARTS names {', '.join(sorted(unknown))}, which is none of the parts.")
    figures = []
    if "interop" in PARTS:
        interop(root)
    if "speed" in PARTS:
        with _speed(root) as speed:
            figures += [*speed.dumps(), *speed.restores(), *speed.memory()]
    if "deploys" in PARTS:
        from bench import _units  # noqa: PLC0415 - it needs the test bed, the other parts do not

        figures += _units.measure(root)
    return figures


def interop(root: Path) -> None:
    """The round trips with MongoDB's tools, where there are any: they have no figure, and are to succeed."""
    if subprocess.run([sys.executable, str(root / "tests" / "interop.py")], check=False).returncode == 1:
        raise SystemExit("The round trips with MongoDB's tools found a difference.")


@contextmanager
def _speed(root: Path) -> Iterator[Speed]:
    """A server with documents, for the length of the measurement."""
    folder = Path(tempfile.mkdtemp(prefix="gw-bench-", dir="/var/tmp"))
    try:
        (folder / "server").mkdir()
        with replica_set(folder / "server", *SERVER) as server:
            yield Speed(root, server, folder, fill(server))
    finally:
        shutil.rmtree(folder)


def fill(server: MongoServer) -> float:
    """Make the documents, the same ones each time; how many MiB they are."""
    begun, made, number, chance = time.monotonic(), 0, 0, random.Random(9)
    for index in range(COLLECTIONS):
        collection = server.client[DATABASE][f"documents_{index}"]
        while made < (MIB << 20) * (index + 1) // COLLECTIONS:
            batch: list[RawBSONDocument] = []
            while sum(len(one.raw) for one in batch) < INSERTED_BYTES:
                body = chance.randbytes(chance.randint(SMALLEST, LARGEST) // 2).hex()
                batch.append(RawBSONDocument(bson.encode({"_id": number, "group": number % 100, "body": body})))
                number += 1
            collection.insert_many(batch)
            made += sum(len(one.raw) for one in batch)
        collection.create_index("group")
    mib = made / 2**20
    print(f"{number} documents, {mib:.0f} MiB in {time.monotonic() - begun:.0f} s", flush=True)
    return mib


@dataclass
class Speed:
    """Runs of ours and of the peers on one database of *mib*; the last dumps stay for the restores."""

    root: Path
    server: MongoServer
    folder: Path
    mib: float
    peaks: dict[str, float] = field(default_factory=dict)
    component: dict[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> Path:
        """The backup sets."""
        return self.folder / "sets"

    def dumps(self) -> list[Figure]:
        """Figures of dumps without compression, and of what a dump is by default."""
        runs = {f"ours, {_jobs(jobs)}": self._ours_dumps(jobs, gzip=False) for jobs in JOBS}
        runs["plain loop"] = self._plain("dump", DATABASE)
        if tool := _found("mongodump"):
            runs["mongodump"] = self._theirs_dumps(tool)
        # The last one that is not compressed is what is restored.
        packed = turns({"ours": self._ours_dumps(JOBS[-1], gzip=True)}, "dump, gzip", 1)
        taken = turns(runs, "dump", DUMP_ROUNDS)
        what = f"mongo_dump, gzip (the default), {_jobs(JOBS[-1])}"
        return [*self._figures("dump", taken), Figure(what, "MB/s", self._speed_of(packed["ours"]))]

    def restores(self) -> list[Figure]:
        """Figures of restores of the newest dump that is not compressed, into scratch databases."""
        runs = {f"ours, {_jobs(jobs)}": self._ours_restores(jobs) for jobs in JOBS}
        runs["plain loop"] = self._dropped(self._plain("restore", "scratch"))
        if tool := _found("mongorestore"):
            runs["mongorestore"] = self._dropped(self._theirs_restores(tool))
        return self._figures("restore", turns(runs, "restore", RESTORE_ROUNDS))

    def memory(self) -> list[Figure]:
        """The largest resident set of each program; ours are held to the target."""
        allowed: dict[str, Any] = {"peer": "allowed", "peer_value": ALLOWED_MEMORY_MIB, "target": 1.0}
        return [
            Figure(f"peak memory of {name}", "MiB", round(peak, 1), **(allowed if name.startswith("mongo_") else {}))
            for name, peak in sorted(self.peaks.items())
        ]

    def _figures(self, action: str, taken: dict[str, float]) -> list[Figure]:
        """MB/s of ours beside each peer. MongoDB's tool is the target, also where nobody could measure it."""
        tool = f"mongo{action}"
        theirs = self._speed_of(taken[tool]) if tool in taken else None
        figures = []
        for jobs in JOBS:
            what, ours = f"mongo_{action}, {_jobs(jobs)}", self._speed_of(taken[f"ours, {_jobs(jobs)}"])
            beside = tool if theirs else f"{tool} (not on PATH)"
            figures += [
                Figure(what, "MB/s", ours, "plain loop", self._speed_of(taken["plain loop"])),
                Figure(what, "MB/s", ours, beside, theirs, 1.0, more_is_better=True),
            ]
        return figures

    def _speed_of(self, seconds: float) -> float:
        return round(self.mib * 2**20 / 1e6 / seconds, 1)

    def _noted(self, name: str, ended: Ended) -> float:
        self.peaks[name] = max(ended.peak_mib, self.peaks.get(name, 0))
        return ended.seconds

    def _must(self, name: str, options: dict[str, Any]) -> tuple[Ended, dict[str, Any]]:
        ended, result = module(self.root, name, options)
        require(name, result)
        return ended, result

    def _ours_dumps(self, jobs: int, *, gzip: bool) -> Callable[[], float]:
        def run() -> float:
            shutil.rmtree(self.sets, ignore_errors=True)
            self.sets.mkdir()
            place = {"path": str(self.sets), "stack": STACK}
            begun = self._must("backup_set", {"action": "begin", **place})[1]
            dest = Path(begun["path"]) / "components" / COMPONENT
            os.sync()
            asked = {"database": DATABASE, "name": COMPONENT, "dest": str(dest), "gzip": gzip, "jobs": jobs}
            ended, result = self._must("mongo_dump", self.server.options(engine="driver", **asked))
            done = {"action": "commit", **place, "id": begun["id"], "components": [result["component"]]}
            self._must("backup_set", done)
            return self._noted(f"mongo_dump, {_jobs(jobs)}{', gzip' if gzip else ''}", ended)

        return run

    def _ours_restores(self, jobs: int) -> Callable[[], float]:
        def run() -> float:
            where = {"set_path": str(self._newest()), "component": COMPONENT, "target": "scratch", "jobs": jobs}
            ended, _result = self._must("mongo_restore", self.server.options(action="stage", **where))
            self.server.client.drop_database("scratch")
            return self._noted(f"mongo_restore, {_jobs(jobs)}", ended)

        return run

    def _plain(self, action: str, database: str) -> Callable[[], float]:
        folder = self.folder / "plain"

        def run() -> float:
            if action == "dump":
                shutil.rmtree(folder, ignore_errors=True)
            argv = [sys.executable, str(PLAIN), action, str(self.server.port), database, str(folder)]
            return self._noted(f"the plain loop, {action}", program(argv, told=PASSWORD))

        return run

    def _theirs_dumps(self, tool: str) -> Callable[[], float]:
        folder = self.folder / "theirs"

        def run() -> float:
            shutil.rmtree(folder, ignore_errors=True)
            argv = [tool, *self.server.tool_login(self.folder), "--quiet", f"--db={DATABASE}", f"--out={folder}"]
            return self._noted("mongodump", program([*argv, f"--numParallelCollections={JOBS[-1]}"]))

        return run

    def _theirs_restores(self, tool: str) -> Callable[[], float]:
        def run() -> float:
            argv = [tool, *self.server.tool_login(self.folder), "--quiet", f"--nsInclude={DATABASE}.*"]
            argv += [f"--nsFrom={DATABASE}.*", "--nsTo=scratch.*", f"--numParallelCollections={JOBS[-1]}"]
            dump = self._newest() / "components" / COMPONENT
            return self._noted("mongorestore", program([*argv, str(dump)]))

        return run

    def _newest(self) -> Path:
        (path,) = (path for path in self.sets.iterdir() if path.name[0] != ".")
        return path

    def _dropped(self, run: Callable[[], float]) -> Callable[[], float]:
        """What was restored is dropped, so that the disk does not fill up."""

        def both() -> float:
            seconds = run()
            self.server.client.drop_database("scratch")
            return seconds

        return both


def _jobs(number: int) -> str:
    return f"{number} job{'s' if number > 1 else ''}"


def _found(tool: str) -> str | None:
    """Where it is; says so when it is nowhere."""
    path = shutil.which(tool)
    if path is None:
        print(f"{tool} is not on PATH: the target to be at least as fast is not measured.", flush=True)
    return path
