# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pgvector_migrate beside other runners: 1,000 files of two statements on one server, and readers behind an ALTER.

The floor is one session of psql that gets all files as one script, each in a transaction with its ledger row. Peers:
the psql loop of the VeriSphere Makefile, yoyo and Alembic (PyPI), dbmate (npm), and Sqitch (Debian); what cannot be had
is named and left out. The server does not wait for the disk, which is the hardest case for us.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from support.modules import ModuleRunner
from support.postgres import PostgresServer

from bench.figures import Figure

FILES = 1000
ROUNDS = 3
ALLOWED_OVER_EMPTY_SECONDS = 0.25
_EMPTY = """
import sys
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[sys.argv[1]])._install()
from ansible.module_utils.testing import patch_module_args
with patch_module_args({}):
    from ansible.module_utils.basic import AnsibleModule
    AnsibleModule({}).exit_json()
"""
_ALEMBIC_ENV = """
import os, sqlalchemy
from alembic import context
with sqlalchemy.create_engine(os.environ["BENCH_DSN"]).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""


@dataclass
class Peer:
    """One runner: write() lays out its files, command() runs it against a DSN in that folder."""

    name: str
    write: Callable[[Path, list[str]], None]
    command: Callable[[str, Path], list[str]]


def measure(root: Path) -> list[Figure]:
    """Makes its own server, and the peers' environments below build/bench."""
    home = root / "build" / "bench"
    folder = Path(tempfile.mkdtemp(prefix="gw-bench-", dir="/tmp"))
    folder.chmod(0o755)  # the server runs as another user
    server = PostgresServer.start(16, folder / "server")
    try:
        bench = _Bench(root, server, folder)
        return [*bench.speed(_peers(home, server)), *bench.readers(_peers(home, server))]
    finally:
        server.down("immediate")
        shutil.rmtree(folder)


@dataclass
class _Bench:
    root: Path
    server: PostgresServer
    folder: Path
    databases: int = 0

    def speed(self, peers: list[Peer]) -> list[Figure]:
        texts = [
            f"CREATE TABLE t{n} (id bigint PRIMARY KEY, name text);\nINSERT INTO t{n} VALUES ({n}, 'name {n}');\n"
            for n in range(1, FILES + 1)
        ]
        floor, ours, noop, empty = [], [], [], []
        directory = self._files("ours", texts)
        script = self.folder / "floor.sql"
        script.write_text(_floor(texts))
        for _ in range(ROUNDS):
            floor.append(_timed([str(self.server.bindir / "psql"), "-qX", "-f", str(script), self._dsn()]))
            database = self._database()
            ours.append(self._ours(database, directory))
            noop.append(self._ours(database, directory))
            empty.append(_timed([sys.executable, "-c", _EMPTY, str(self.root / "build" / "collections")]))
        median = statistics.median
        mine, over = round(median(ours), 2), round(median(noop) - median(empty), 3)
        figures = [
            Figure(f"apply {FILES} files", "s", mine, "floor: one psql session", round(median(floor), 2), 1.3),
            Figure("no-op, over an empty module", "s", over, "allowed", ALLOWED_OVER_EMPTY_SECONDS, 1.0),
        ]
        for peer in peers:
            place = self.folder / peer.name.replace(" ", "_")
            place.mkdir()
            peer.write(place, texts)
            dsn = self._dsn()
            apply, again = (round(_timed(peer.command(dsn, place), cwd=place, dsn=dsn), 2) for _ in range(2))
            if database_tables(dsn) != FILES:
                raise SystemExit(f"{peer.name} made {database_tables(dsn)} of {FILES} tables.")
            figures.append(Figure(f"apply {FILES} files", "s", mine, peer.name, apply, 1.0))
            figures.append(Figure("no-op", "s", round(median(noop), 2), peer.name, again))
        return figures

    def readers(self, peers: list[Peer]) -> list[Figure]:
        """Worst latency of a reader while an ALTER waits behind a transaction of 3 seconds."""
        texts = ["ALTER TABLE busy ADD COLUMN more int;\n"]
        directory = self._files("alter", texts)
        mine = self._worst(lambda database: self._ours(database, directory, lock_timeout="200ms"))
        figures = [Figure("worst read behind an ALTER, lock_timeout 200ms", "s", mine)]
        for peer in peers:
            if peer.name not in ("dbmate", "Alembic"):
                continue
            place = self.folder / f"alter_{peer.name}"
            place.mkdir()
            peer.write(place, texts)
            found = self._worst(
                lambda database, peer=peer, place=place: _timed(
                    peer.command(self.server.dsn(database), place), cwd=place, dsn=self.server.dsn(database)
                )
            )
            figures.append(Figure("worst read behind an ALTER", "s", mine, peer.name, found))
        return figures

    def _worst(self, migrate: Callable[[str], object]) -> float:
        database = self._database()
        with self.server.connect(database) as connection:
            connection.execute("CREATE TABLE busy (x int)")
        latencies: list[float] = []
        done = threading.Event()

        def read() -> None:
            with self.server.connect(database) as reader:
                while not done.is_set():
                    begun = time.monotonic()
                    reader.execute("SELECT count(*) FROM busy")
                    latencies.append(time.monotonic() - begun)
                    time.sleep(0.01)

        runner = threading.Thread(target=migrate, args=(database,))
        with self.server.connect(database) as holder:
            holder.execute("BEGIN; SELECT count(*) FROM busy")
            threads = [runner, threading.Thread(target=read)]
            for thread in threads:
                thread.start()
            time.sleep(3)
            holder.execute("COMMIT")
        runner.join()
        done.set()
        threads[1].join()
        return round(max(latencies), 2)

    def _ours(self, database: str, directory: Path, **more: object) -> float:
        begun = time.monotonic()
        options = {**self.server.login(database), "directory": str(directory), **more}
        result = ModuleRunner(self.root, forked=False)("pgvector_migrate", options, diff=False)
        seconds = time.monotonic() - begun
        if result.get("failed"):
            raise SystemExit(f"pgvector_migrate failed: {result['msg']}")
        return seconds

    def _files(self, name: str, texts: list[str]) -> Path:
        directory = self.folder / name
        directory.mkdir()
        _plain(directory, texts)
        return directory

    def _database(self) -> str:
        self.databases += 1
        self.server.create_database(f"bench_{self.databases}")
        return f"bench_{self.databases}"

    def _dsn(self) -> str:
        return self.server.dsn(self._database())


def _floor(texts: list[str]) -> str:
    ledger = "CREATE TABLE ledger (version text PRIMARY KEY, name text, checksum text, at timestamptz, by text);\n"
    row = "INSERT INTO ledger VALUES ('{}', 'f', repeat('a', 64), clock_timestamp(), session_user);"
    return ledger + "".join(f"BEGIN;\n{text}{row.format(n)}\nCOMMIT;\n" for n, text in enumerate(texts, 1))


def _plain(place: Path, texts: list[str]) -> None:
    for number, text in enumerate(texts, 1):
        (place / f"{number:04}_f.sql").write_text(text)


def _dbmate(place: Path, texts: list[str]) -> None:
    for number, text in enumerate(texts, 1):
        (place / f"{number:014}_f.sql").write_text(f"-- migrate:up\n{text}\n-- migrate:down\n")


def _alembic(place: Path, texts: list[str]) -> None:
    (place / "versions").mkdir()
    (place / "alembic.ini").write_text("[alembic]\nscript_location = .\n")
    (place / "env.py").write_text(_ALEMBIC_ENV)
    for number, text in enumerate(texts, 1):
        down = f"'{number - 1}'" if number > 1 else None
        lines = "".join(f"    op.execute({part!r})\n" for part in text.split(";\n") if part)
        (place / "versions" / f"r{number}.py").write_text(
            f"from alembic import op\nrevision = '{number}'\ndown_revision = {down}\ndef upgrade():\n{lines}"
        )


def _sqitch(psql: Path) -> Callable[[Path, list[str]], None]:
    def write(place: Path, texts: list[str]) -> None:
        (place / "sqitch.conf").write_text(f'[core]\n\tengine = pg\n[engine "pg"]\n\tclient = {psql}\n')
        (place / "deploy").mkdir()
        lines = ["%syntax-version=1.0.0", "%project=bench", ""]
        for number, text in enumerate(texts, 1):
            lines.append(f"f{number} 2026-01-01T00:00:00Z Bench <bench@example.org>")
            (place / "deploy" / f"f{number}.sql").write_text(f"BEGIN;\n{text}COMMIT;\n")
        (place / "sqitch.plan").write_text("\n".join(lines) + "\n")

    return write


def _peers(home: Path, server: PostgresServer) -> list[Peer]:
    psql = server.bindir / "psql"
    loop = f'for f in *.sql; do {psql} -qX -d "$BENCH_DSN" -f $f; done'
    peers = [Peer("psql loop of the Makefile", _plain, lambda _dsn, _place: ["bash", "-c", loop])]
    tools = home / "peers" / "bin"
    if not (tools / "alembic").exists():
        subprocess.run([sys.executable, "-m", "venv", str(tools.parent)], check=True)
        packages = ["yoyo-migrations", "alembic", "psycopg2-binary", "setuptools<81"]
        subprocess.run([str(tools / "pip"), "install", "--quiet", *packages], check=True)
    dbmate = home / "npm" / "node_modules" / ".bin" / "dbmate"
    if not dbmate.exists() and shutil.which("npm"):
        dbmate.parents[2].mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "dbmate"], cwd=dbmate.parents[2], check=False)
    yoyo = [str(tools / "yoyo"), "apply", "--batch", "--no-config-file", "--database"]
    peers += [
        Peer("yoyo", _plain, lambda dsn, place: [*yoyo, dsn, str(place)]),
        Peer("Alembic", _alembic, lambda _dsn, _place: [str(tools / "alembic"), "upgrade", "head"]),
    ]
    if dbmate.exists():
        words = [str(dbmate), "--no-dump-schema", "--migrations-dir", ".", "--url"]
        peers.append(Peer("dbmate", _dbmate, lambda dsn, _place: [*words, f"{dsn}?sslmode=disable", "migrate"]))
    else:
        print("dbmate is left out: npm could not install it.")
    if not shutil.which("sqitch") and shutil.which("apt-get") and os.geteuid() == 0:
        packages = ["sqitch", "libdbd-pg-perl"]
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(
            command, check=False, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )
    if shutil.which("sqitch"):
        deploy = ["sqitch", "deploy", "--no-verify", "--target"]
        peers.append(
            Peer("Sqitch", _sqitch(psql), lambda dsn, _place: [*deploy, f"db:pg:{dsn.removeprefix('postgresql:')}"])
        )
    else:
        print("Sqitch is left out: Debian's packages sqitch and libdbd-pg-perl could not be installed.")
    return peers


def _timed(command: list[str], cwd: Path | None = None, dsn: str = "") -> float:
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "BENCH_DSN": dsn}, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def database_tables(dsn: str) -> int:
    """How many tables there are, to see that a peer did its work."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]'").fetchone()
        return int(row[0]) if row else 0
