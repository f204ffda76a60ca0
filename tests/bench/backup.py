# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_backup and pg_restore beside PostgreSQL's own tools and community.postgresql, damages that each notices, and RTO.

One server on this machine holds 2 GiB of rows that cannot be compressed, 2 GiB that can, and vectors with an HNSW
index. Dumps and restores of ours and of PostgreSQL take turns; before each, everything written is on the disk. Ours are
the module's whole process, with its checks. The peer postgresql_db gets the same format and compression; no target is
set against it, so it runs once. Peak memory is the largest resident set of the module's own process (VmHWM), without
the programs that it starts.

GROUNDWORK_BENCH_MIB sets another size (MiB of each kind of row), GROUNDWORK_BENCH_PARTS chooses from "speed", "damages"
and "recovery" (separated by commas).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql
from support.damages import DAMAGES, Damage
from support.load import NAME
from support.postgres import PostgresServer
from support.scenario import KEYS

from bench._runs import Ended, module, program, require, turns
from bench.deploy import Bench, fresh_host
from bench.figures import Figure

HOST, ADDRESS = "bench-backup", "198.18.0.113"
MIB = int(os.environ.get("GROUNDWORK_BENCH_MIB", "2048"))
PARTS = os.environ.get("GROUNDWORK_BENCH_PARTS", "speed,damages,recovery").split(",")
ROUNDS = 3
# Those of gzip take minutes in all, and differ little: one processor compresses from the begin to the end.
ROUNDS_OF = {"gzip:1": 2}
JOBS = 2
PEER = "community.postgresql.postgresql_db"
# Without compression pg_dump only copies, and gzip's fastest level keeps it busy the least: the two hardest cases.
COMPRESSIONS = {"none": "0", "gzip:1": "1"}
ROW_BYTES, LINE_BYTES, DIMENSIONS = 8000, 1024, 128
DAMAGED_ROWS = 20_000
ALLOWED_MEMORY_MIB = 80.0

TABLES = """
CREATE EXTENSION vector;
CREATE TABLE random_rows (id bigint PRIMARY KEY, body text STORAGE EXTERNAL);
CREATE TABLE lines (id bigint PRIMARY KEY, line text);
CREATE TABLE embeddings (id bigint PRIMARY KEY, embedding vector({dimensions}));
INSERT INTO lines SELECT i, rpad('', {length}, format('GET /items/%s HTTP/1.1 200 %s ', i % 5000, i % 997))
FROM generate_series(1, {lines}) AS i;
INSERT INTO embeddings SELECT i, array_agg(random())::real[]::vector
FROM generate_series(1, {vectors}) AS i, generate_series(1, {dimensions}) GROUP BY i;
CREATE INDEX ON embeddings USING hnsw (embedding vector_l2_ops);
"""
BALLAST = "CREATE TABLE ballast AS SELECT i, repeat(md5(i::text), 32) AS body FROM generate_series(1, {rows}) AS i"


def measure(root: Path) -> list[Figure]:
    """All figures of the chosen parts."""
    if unknown := set(PARTS) - {"speed", "damages", "recovery"}:
        raise SystemExit(f"GROUNDWORK_BENCH_PARTS names {', '.join(sorted(unknown))}, which is none of the parts.")
    figures = []
    if {"speed", "damages"} & set(PARTS):
        with _tools(root) as tools:
            if "speed" in PARTS:
                figures += speed(tools)
            if "damages" in PARTS:
                figures += damages(tools)
    if "recovery" in PARTS:
        figures += recovery(root)
    return figures


@dataclass
class Tools:
    """The server, a folder for files, and modules and programs that are watched while they run."""

    root: Path
    server: PostgresServer
    folder: Path
    made: int = 0
    sets: Path = field(init=False)

    def __post_init__(self) -> None:
        self.sets = self.folder / "sets"
        self.sets.mkdir()

    def program(self, name: str, *arguments: str, database: str = "postgres") -> Ended:
        """Run a client program to its end."""
        return program([str(self.server.bindir / name), *arguments], self._login(database))

    def module(self, name: str, options: dict[str, Any]) -> tuple[Ended, dict[str, Any]]:
        """Run a module to its end, whatever that is."""
        return module(self.root, name, options, {"PATH": f"{self.server.bindir}:{os.environ['PATH']}"})

    def must(self, name: str, options: dict[str, Any]) -> tuple[Ended, dict[str, Any]]:
        """Run a module that has to succeed."""
        ended, result = self.module(name, options)
        require(name, result)
        return ended, result

    def stage(self, path: Path, component: str, target: str, **more: Any) -> tuple[Ended, dict[str, Any]]:
        """Restore a component of a set into a new database, with all checks, whatever comes of it."""
        options = {**self.server.login(target), "bin_dir": str(self.server.bindir), **more}
        del options["database"]
        where = {"action": "stage", "set_path": str(path), "component": component, "target": target}
        return self.module("pg_restore", {**options, **where})

    def peer_login(self, database: str) -> dict[str, Any]:
        """Options of postgresql_db for a database."""
        options = self.server.login(database)
        options["name"] = options.pop("database")
        return options

    def new_name(self) -> str:
        """A name that no database has."""
        self.made += 1
        return f"scratch_{self.made}"

    def new_database(self) -> str:
        """An empty database."""
        name = self.new_name()
        self.server.create_database(name)
        return name

    def drop(self, database: str) -> None:
        """Drop a database, so that the disk does not fill up."""
        with self.server.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def back_up(self, stack: str, database: str, components: dict[str, dict[str, Any]]) -> tuple[Path, list[Ended]]:
        """Write a set with one dump for each component; its folder, and how each dump and the commit ended."""
        place = {"path": str(self.sets / stack), "stack": stack}
        (self.sets / stack).mkdir(exist_ok=True)
        _ended, begun = self.must("backup_set", {"action": "begin", **place})
        ended, done = [], []
        for name, options in components.items():
            dest = Path(begun["path"]) / "components" / name
            os.sync()
            one, result = self.must(
                "pg_backup",
                {
                    **self.server.login(database),
                    "bin_dir": str(self.server.bindir),
                    "name": name,
                    "dest": str(dest),
                    "globals": False,
                    **options,
                },
            )
            ended.append(one)
            done.append(result["component"])
        one, committed = self.must("backup_set", {"action": "commit", **place, "id": begun["id"], "components": done})
        return Path(committed["path"]), [*ended, one]

    def _login(self, database: str) -> dict[str, str]:
        server = self.server
        return {
            "PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": server.superuser,
            "PGPASSWORD": server.superpass, "PGDATABASE": database,
        }  # fmt: skip


@contextmanager
def _tools(root: Path) -> Iterator[Tools]:
    """A server for the length of the measurement."""
    folder = Path(tempfile.mkdtemp(prefix="gw-bench-", dir="/var/tmp"))
    folder.chmod(0o755)  # the server runs as another user
    memory = {"shared_buffers": "1GB", "maintenance_work_mem": "256MB", "max_wal_size": "4GB"}
    server = PostgresServer.start(16, folder / "server", **memory)
    try:
        yield Tools(root, server, folder)
    finally:
        server.down("immediate")
        shutil.rmtree(folder)


def fill(tools: Tools) -> str:
    """The database that is dumped."""
    database = tools.new_database()
    begun = time.monotonic()
    bytes_each = MIB << 20
    with tools.server.connect(database) as connection:
        vectors = max(1000, 20_000 * MIB // 2048)
        connection.execute(
            TABLES.format(
                dimensions=DIMENSIONS, length=LINE_BYTES, lines=bytes_each // LINE_BYTES, vectors=vectors
            ).encode()
        )
        with connection.cursor().copy("COPY random_rows FROM STDIN") as copy:
            for number in range(bytes_each // ROW_BYTES):
                copy.write(f"{number}\t{base64.b64encode(os.urandom(ROW_BYTES * 3 // 4)).decode()}\n")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        (found,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
    print(f"database: {found / 2**20:.0f} MiB in {time.monotonic() - begun:.0f} s", flush=True)
    return database


def speed(tools: Tools) -> list[Figure]:
    """Dumps and restores, taking turns."""
    runs = Speed(tools, fill(tools))
    figures = [figure for compression in COMPRESSIONS for figure in runs.dumps(compression)]
    return [
        *figures,
        *runs.restores(),
        Figure("commit of the set, which reads it again", "s", round(statistics.median(runs.commits), 2)),
        Figure("peak memory of pg_backup", "MiB", round(max(runs.dump_peaks), 1), "allowed", ALLOWED_MEMORY_MIB, 1.0),
        Figure(
            "peak memory of pg_restore", "MiB", round(max(runs.restore_peaks), 1), "allowed", ALLOWED_MEMORY_MIB, 1.0
        ),
    ]


@dataclass
class Speed:
    """Runs of ours and of the peers on one database; the last dumps stay for the restores."""

    tools: Tools
    database: str
    commits: list[float] = field(default_factory=list)
    dump_peaks: list[float] = field(default_factory=list)
    restore_peaks: list[float] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        """What pg_dump writes."""
        return self.tools.folder / "raw.dump"

    def dumps(self, compression: str) -> list[Figure]:
        """Figures of dumps with one compression."""
        flag = f"--compress={COMPRESSIONS[compression]}"
        peer = self.tools.folder / "peer.pgc"

        def ours() -> float:
            shutil.rmtree(self.tools.sets / "speed", ignore_errors=True)
            _path, (dump, commit) = self.tools.back_up("speed", self.database, {"bench": {"compression": compression}})
            self.dump_peaks.append(dump.peak_mib)
            self.commits.append(commit.seconds)
            return dump.seconds

        def plain() -> float:
            arguments = ["--format=custom", flag, "--no-password", f"--file={self.raw}"]
            return self.tools.program("pg_dump", *arguments, database=self.database).seconds

        def other() -> float:
            options = {"state": "dump", "target": str(peer), "dump_extra_args": flag}
            return self.tools.must(PEER, {**self.tools.peer_login(self.database), **options})[0].seconds

        rounds = ROUNDS_OF.get(compression, ROUNDS)
        taken = turns({"ours": ours, "pg_dump": plain}, f"dump, {compression}", rounds)
        taken |= turns({"postgresql_db": other}, f"dump, {compression}", 1)
        peer.unlink()
        what = f"dump, {compression} ({self.raw.stat().st_size / 2**20:.0f} MiB), sha256, counts, full read"
        return [
            Figure(what, "s", taken["ours"], "pg_dump, same flags", taken["pg_dump"], 1.15),
            Figure(what, "s", taken["ours"], "postgresql_db state=dump", taken["postgresql_db"]),
        ]

    def restores(self) -> list[Figure]:
        """Restores of the newest set, and of the same dump by pg_restore."""
        (newest,) = (path for path in (self.tools.sets / "speed").iterdir() if path.name[0] != ".")

        def ours() -> float:
            target = self.tools.new_name()
            ended, result = self.tools.stage(newest, "bench", target, jobs=JOBS)
            require("pg_restore", result)
            self.restore_peaks.append(ended.peak_mib)
            self.tools.drop(target)
            return ended.seconds

        def plain() -> float:
            target = self.tools.new_database()
            arguments = ["--exit-on-error", f"--jobs={JOBS}", f"--dbname={target}", str(self.raw)]
            ended = self.tools.program("pg_restore", *arguments)
            self.tools.drop(target)
            return ended.seconds

        taken = turns({"ours": ours, "pg_restore": plain}, "restore")
        what = f"restore with {JOBS} jobs, checksums, counts, extensions, indexes"
        return [Figure(what, "s", taken["ours"], "pg_restore, same jobs", taken["pg_restore"], 1.10)]


def damages(tools: Tools) -> list[Figure]:
    """Who notices what, as a table, and how many each misses."""
    database = tools.new_database()
    rows = "INSERT INTO rows SELECT i, repeat(md5(i::text), 10) FROM generate_series({}, {}) AS i"
    with tools.server.connect(database) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, body text)")
        connection.execute("CREATE TABLE others AS SELECT generate_series(1, 100) AS id")
        connection.execute(rows.format(1, DAMAGED_ROWS // 2).encode())
        earlier = _dumps(tools, database, "earlier")
        connection.execute(rows.format(DAMAGED_ROWS // 2 + 1, DAMAGED_ROWS).encode())
    dumps = _dumps(tools, database, "dumps")
    kinds = {
        "compressed": {"compression": "gzip"},
        "uncompressed": {"compression": "none"},
        "directory": {"format": "directory"},
    }
    whole, _ended = tools.back_up("damages", database, kinds)
    noticed: dict[str, dict[str, bool | None]] = {}
    healthy = Damage("(none)", "compressed", lambda _dump, _earlier: None)
    for damage in (healthy, *DAMAGES):
        noticed[damage.name] = {
            "ours": _ours_notices(tools, whole, damage, earlier),
            "pg_restore --list": _list_notices(tools, dumps, damage, earlier),
            "gzip -t": _gzip_notices(tools, dumps, damage, earlier),
            "postgresql_db": _peer_notices(tools, dumps, damage, earlier),
        }
    if any(noticed.pop(healthy.name).values()):
        raise SystemExit("A dump without damage was refused, so that the table says nothing.")
    missed = _print_damages(noticed)
    return [
        Figure("damages not noticed", f"of {len(DAMAGES)}", float(missed["ours"]), name, float(count), 0.0)
        for name, count in missed.items()
        if name != "ours"
    ]


def _dumps(tools: Tools, database: str, name: str) -> Path:
    """The same database in all forms, by PostgreSQL's own tools."""
    folder = tools.folder / name
    folder.mkdir()
    for kind, arguments in {
        "compressed": ["--format=custom"],
        "uncompressed": ["--format=custom", "--compress=0"],
        "directory": ["--format=directory"],
        "script": ["--format=plain", "--compress=6"],
    }.items():
        tools.program("pg_dump", *arguments, f"--file={folder / kind}", database=database)
    return folder


def _damaged(tools: Tools, dump: Path, damage: Damage, earlier: Path, suffix: str = "") -> Path:
    """A damaged copy of a dump."""
    copy = tools.folder / f"damaged{suffix}"
    subprocess.run(["rm", "-rf", copy], check=True)
    subprocess.run(["cp", "-a", dump, copy], check=True)
    damage.do(copy, earlier)
    return copy


def _ours_notices(tools: Tools, whole: Path, damage: Damage, earlier: Path) -> bool:
    """Both must: the check of the set, and the restore."""
    place = tools.sets / "damaged"
    subprocess.run(["rm", "-rf", place], check=True)
    place.mkdir()
    subprocess.run(["cp", "-a", whole, place], check=True)
    component = place / whole.name / "components" / damage.kind
    damage.do(component / ("database.dir" if damage.kind == "directory" else "database.dump"), earlier / damage.kind)
    options = {"action": "verify", "path": str(place), "stack": "damages", "id": whole.name}
    _ended, verified = tools.module("backup_set", options)
    target = tools.new_name()
    _ended, restored = tools.stage(place / whole.name, damage.kind, target)
    if not restored.get("failed"):
        tools.drop(target)
    told = bool(verified.get("failed") or verified.get("damaged"))
    if told != bool(restored.get("failed")):
        print(f"{damage.name}: the set {'is' if told else 'is not'} called damaged, the restore the other way round")
    return told and bool(restored.get("failed"))


def _list_notices(tools: Tools, dumps: Path, damage: Damage, earlier: Path) -> bool:
    copy = _damaged(tools, dumps / damage.kind, damage, earlier / damage.kind)
    command = [str(tools.server.bindir / "pg_restore"), "--list", str(copy)]
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _gzip_notices(tools: Tools, dumps: Path, damage: Damage, earlier: Path) -> bool | None:
    """On the files of the directory, else on a compressed script with the same damage; None where nothing is gzip's."""
    if damage.kind == "uncompressed":
        return None
    kind = "directory" if damage.kind == "directory" else "script"
    copy = _damaged(tools, dumps / kind, damage, earlier / kind, "" if kind == "directory" else ".gz")
    files = list(copy.glob("*.gz")) if kind == "directory" else [copy]
    return subprocess.run(["gzip", "-t", *files], capture_output=True, check=False).returncode != 0


def _peer_notices(tools: Tools, dumps: Path, damage: Damage, earlier: Path) -> bool:
    """Whether a restore into an empty database fails."""
    suffix = ".dir" if damage.kind == "directory" else ".pgc"
    copy = _damaged(tools, dumps / damage.kind, damage, earlier / damage.kind, suffix)
    target = tools.new_database()
    _ended, result = tools.module(PEER, {**tools.peer_login(target), "state": "restore", "target": str(copy)})
    tools.drop(target)
    return bool(result.get("failed"))


def _print_damages(noticed: dict[str, dict[str, bool | None]]) -> dict[str, int]:
    """The table; how many damages each column misses."""
    columns = list(next(iter(noticed.values())))
    words = {True: "noticed", False: "NO", None: "-"}
    width = max(map(len, noticed))
    print(f"\n{'damage'.ljust(width)}  {'  '.join(name.ljust(17) for name in columns)}".rstrip())
    for name, row in noticed.items():
        print(f"{name.ljust(width)}  {'  '.join(words[row[column]].ljust(17) for column in columns)}".rstrip())
    return {column: sum(row[column] is not True for row in noticed.values()) for column in columns}


def recovery(root: Path) -> list[Figure]:
    """Seconds from a bare host and a set on the controller until the stack answers with all rows."""
    if not (root / "playbooks" / "restore.yml").exists():
        print("recovery is left out: there is no playbooks/restore.yml.")
        return []
    mib = max(8, MIB // 8)
    component = {"engine": "postgres", "name": "relay", "service": "db", "database": "relay", "user": "relay"}
    subprocess.run([sys.executable, str(root / "tests" / "testbed"), "up"], check=True, stdout=subprocess.DEVNULL)
    with fresh_host(root, HOST, ADDRESS, "debian13-docker", backup_components=[component]) as found:
        found.run("site")
        _psql(found, BALLAST.format(rows=mib * 1024))
        found.run("backup")
        rows = _psql(found, "SELECT count(*) FROM ballast")
        newest = found.host.check_output("sudo sh -c %s", "cd /var/backups/relay && ls -d [0-9]* | tail -n 1")
        fetched = _fetch(found.folder, newest)
    with fresh_host(root, HOST, ADDRESS, "debian13", backup_components=[component]) as found:
        begun = time.monotonic()
        site, _run = found.run("site")
        restore, _run = found.run("restore", backup_folder=str(fetched), confirm="relay")
        asked = urllib.request.Request(f"http://{ADDRESS}/ready", headers={"Host": NAME})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            served = json.load(answer)
        seconds = time.monotonic() - begun
        if not served.get("ok") or _psql(found, "SELECT count(*) FROM ballast") != rows:
            raise SystemExit(f"What serves is not what was lost: {served}")
    print(f"recovery: site.yml {site:.0f} s, restore.yml {restore:.0f} s, {rows} rows of 1 KiB", flush=True)
    return [Figure(f"bare host and set ({mib} MiB) to serving", "s", round(seconds, 1))]


def _psql(found: Bench, query: str) -> str:
    """One query in the stack's database."""
    container = "$(docker ps --quiet --filter label=com.docker.compose.service=db)"
    script = f'docker exec {container} psql --username relay --tuples-only --no-align --command "{query}"'
    told: str = found.host.check_output("sudo sh -c %s", script)
    return told.strip()


def _fetch(folder: Path, name: str) -> Path:
    """Copy a set from the host to the controller."""
    sets = folder / "sets"
    shutil.rmtree(sets, ignore_errors=True)
    sets.mkdir()
    keys = ["-i", str(KEYS / "id_ed25519"), "-o", f"UserKnownHostsFile={KEYS / 'known_hosts'}"]
    remote = f"sudo tar --create --directory /var/backups/relay {name}"
    with subprocess.Popen(["ssh", *keys, f"debian@{ADDRESS}", remote], stdout=subprocess.PIPE) as ssh:
        subprocess.run(["tar", "--extract", "--directory", sets], stdin=ssh.stdout, check=True)
    if ssh.returncode != 0:
        raise SystemExit(f"The set {name} could not be fetched.")
    return sets / name
