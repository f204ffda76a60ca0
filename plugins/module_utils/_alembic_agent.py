# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The program that alembic_migrate runs with the project's own Python, in its image or venv.

It needs Alembic 1.5 and Python 3.8, and nothing of this collection. _alembic.py hands it over on standard input, with
the job behind it, and keeps that pipe open: a line "go" allows changes, its end means that the module is gone, and then
this program ends at once, so that its transaction rolls back. Answers are lines of JSON behind a mark. What env.py and
the revisions print goes into memory, and from there, with secrets masked, into the answers.

job: {"mark", "action", "target", "config", "section", "url", "env", "x", "sql", "read_only", "purge"}
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, quote_plus, unquote

OLDEST_ALEMBIC = (1, 5)  # the first one that can be asked for its state without making the version table
_OUTPUT_BYTES = 65536
_SHORTEST_SECRET = 4  # replacing "1" or "on" would only garble
_SECRET_NAME = re.compile(r"pass|secret|token|key|dsn|ur[il]|credential|_pwd?$", re.IGNORECASE)
_HARMLESS = {"true", "false", "none", "null", "localhost", "127.0.0.1", "postgres", "production", "development"}
_IN_URL = re.compile(r"(://[^\s:/@]*:)([^\s@]+)(@)")
_IN_WORDS = re.compile(r"(\bpassword\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'\"&,;)]+)", re.IGNORECASE)
_SKIPPED_SQL = re.compile(r"\s*CREATE\s+(SCHEMA|EXTENSION)\s+IF\s+NOT\s+EXISTS\b", re.IGNORECASE)
_IDENTITY = (
    "SELECT current_database(), CAST((SELECT oid FROM pg_database WHERE datname = current_database()) AS text), "
    "CAST(extract(epoch FROM pg_postmaster_start_time()) AS text)"
)


class Refused(Exception):
    """A reason to stop that the module has a sentence for."""

    def __init__(self, kind: str, **more: Any) -> None:
        super().__init__(kind)
        self.report = {"kind": kind, **more}


class Masks:
    """What must not be in an answer."""

    def __init__(self) -> None:
        self._words: set[str] = set()

    def add(self, name: str, value: str, given: bool) -> None:
        """Mask a value if its name sounds like a secret; given values, whatever they are called."""
        secret = bool(_SECRET_NAME.search(name))
        passwords = [match[2] for match in _IN_URL.finditer(value)]
        for word in (*passwords, *([value] if secret or (given and value.lower() not in _HARMLESS) else ())):
            bare = unquote(word)
            for form in {word, bare, quote(bare, safe=""), quote_plus(bare), repr(bare)[1:-1], *bare.splitlines()}:
                if len(form) >= _SHORTEST_SECRET:
                    self._words.add(form)

    def apply(self, text: str) -> str:
        """The text without them."""
        for word in sorted(self._words, key=len, reverse=True):
            text = text.replace(word, "********")
        return _IN_WORDS.sub(r"\1********", _IN_URL.sub(r"\1********\3", text))


class Channel:
    """The answers, on what was standard output, and the output of everything else, which is kept in memory."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._answers = os.dup(1)
        self.masks = Masks()
        self._kept = os.memfd_create("output")
        for descriptor in (1, 2):
            os.dup2(self._kept, descriptor)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # for the type checker: they are
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
        self._begin = 0

    def forget_output(self) -> None:
        """Leave out of output() what was printed until now."""
        self._begin = self._size()

    def _size(self) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        return os.fstat(self._kept).st_size

    def output(self) -> str:
        """What was printed, masked."""
        size = self._size()
        begin = max(self._begin, size - _OUTPUT_BYTES)
        return self.masks.apply(os.pread(self._kept, size - begin, begin).decode(errors="replace"))

    def answer(self, event: str, **more: Any) -> None:
        """Tell the module."""
        line = (self._mark + json.dumps({"event": event, **more}) + "\n").encode()
        with self._lock:
            while line:
                line = line[os.write(self._answers, line) :]


class Agent:
    """One project, and the database that its env.py connects to."""

    def __init__(self, job: dict[str, Any], channel: Channel) -> None:
        self.job = job
        self.channel = channel
        self.reading = True  # nothing is meant to change now
        self.guarded = True  # and the server shall see to it
        self.running: dict[str, str] | None = None
        self.began: dict[str, Any] = {}  # the state under the lock: another runner may have been first

    def open(self) -> None:
        """Load Alembic and the configuration."""
        for name, value in self.job["env"].items():
            os.environ[name] = value
        time.tzset()
        for name, value in os.environ.items():
            self.channel.masks.add(name, value, name in self.job["env"])
        for text in self.job["x"]:
            self.channel.masks.add("url", text.partition("=")[2], True)
        if "PYTHONPATH" in self.job["env"]:
            sys.path[:0] = [entry for entry in self.job["env"]["PYTHONPATH"].split(os.pathsep) if entry]
        try:
            # only the project's Python has them, and env must be set before
            import alembic  # noqa: PLC0415 - as above
            import sqlalchemy  # noqa: PLC0415 - as above
            from alembic.config import Config  # noqa: PLC0415 - as above
            from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - as above
            from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above
        except ImportError as error:
            raise Refused("no_alembic", text=str(error), python=sys.executable) from None
        self.version: str = alembic.__version__
        self.text: Any = sqlalchemy.text
        self.environment: Any = EnvironmentContext
        if tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) < OLDEST_ALEMBIC:
            raise Refused("old_alembic", text=self.version)
        if not (file := Path.cwd() / self.job["config"]).exists():
            raise Refused("no_config", text=str(file))
        options = argparse.Namespace(
            config=self.job["config"], name=self.job["section"], x=self.job["x"], raiseerr=True
        )
        if self.job["config"].endswith(".toml"):
            self.config = Config(toml_file=self.job["config"], cmd_opts=options)
        else:
            self.config = Config(self.job["config"], ini_section=self.job["section"], cmd_opts=options)
        try:
            if self.job["url"]:
                self.channel.masks.add("url", self.job["url"], True)
                self.config.set_main_option("sqlalchemy.url", self.job["url"].replace("%", "%%"))
            self.channel.masks.add("url", self.config.get_main_option("sqlalchemy.url") or "", True)
            self.script: Any = ScriptDirectory.from_config(self.config)
            self.heads = sorted(self.script.get_heads())
        except Exception as error:
            raise Refused("scripts", text=self.told(error)) from error
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "begin", self.on_begin)
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", self.on_execute, retval=True)

    def on_begin(self, connection: Any) -> None:
        """For this transaction only, because behind a pooler the session is somebody else's later."""
        if connection.dialect.name == "postgresql":
            if self.guarded:
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            # the server notices soon that this program is gone, and not when the statement is done
            connection.exec_driver_sql("SET LOCAL client_connection_check_interval = 2000")

    def on_execute(
        self, _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        """Statements that env.py commonly has before the migrations, and that do nothing the second time."""
        if self.reading and _SKIPPED_SQL.match(statement):
            return "SELECT 1", ()
        return statement, parameters

    def steps(self, action: str, target: str, current: tuple[str, ...]) -> list[Any]:
        """What Alembic itself would do from these revisions."""
        for revision in current:
            try:
                known = self.script.get_revision(revision) is not None
            except Exception:
                known = False
            if not known:
                raise Refused("unknown_current", text=revision)
        if target == "head" and len(self.heads) > 1:
            raise Refused("several_heads", text=", ".join(self.heads))
        plan = {"upgrade": self.script._upgrade_revs, "downgrade": self.script._downgrade_revs}
        try:
            if action == "stamp":
                return list(self.script._stamp_revs((target,), current))
            return list(plan[action](target, current))
        except Exception as error:
            raise Refused("target", text=self.told(error)) from error

    @staticmethod
    def named(steps: list[Any]) -> list[dict[str, str]]:
        """Revisions with their messages."""
        return [{"revision": step.revision.revision, "message": step.revision.doc or ""} for step in steps]

    def identify(self, context: Any) -> list[str]:
        """Which database env.py has connected to."""
        if context.dialect.name != "postgresql":
            raise Refused("dialect", text=context.dialect.name)
        return [str(value) for value in context.connection.execute(self.text(_IDENTITY)).fetchone()]

    def pass_through(self, work: Callable[[tuple[str, ...], Any], Iterator[Any]], **options: Any) -> None:
        """Run env.py with *work* as the migrations; what *work* refuses wins over what env.py makes of it."""
        told: list[BaseException | None] = []

        def guarded(current: tuple[str, ...], context: Any) -> Iterator[Any]:
            try:
                told.append(None)
                if len(told) > 1:
                    raise Refused("several_databases")
                yield from work(current, context)
            except Refused as error:
                told[-1] = error
                raise

        try:
            with self.environment(self.config, self.script, fn=guarded, **options):
                self.script.run_env()
        except Exception:
            if told and isinstance(told[-1], Refused):
                raise told[-1] from None
            raise
        if told and isinstance(told[-1], Refused):
            raise told[-1]
        if not told:
            raise Refused("no_migrations")

    def state(self, *, planning: bool = False) -> dict[str, Any]:
        """Read the database: {"current", "missing", "heads", "identity", "version_table", "alembic"}.

        missing are the revisions up to the heads that it does not have. With planning also "steps", what is to be done.
        """
        job = self.job
        found: dict[str, Any] = {"heads": self.heads, "alembic": self.version, "missing": []}

        def work(current: tuple[str, ...], context: Any) -> Iterator[Any]:
            found["identity"] = self.identify(context)
            schema = context.version_table_schema
            found["version_table"] = f"{schema}.{context.version_table}" if schema else context.version_table
            found["current"] = sorted(current)
            if planning:
                found["steps"] = self.plan(current)
            if not (planning and job["purge"]):
                found["missing"] = self.named(self.steps("upgrade", "heads", current))
            return
            yield  # which makes it a generator

        self.reading, self.guarded = True, job["read_only"]
        self.pass_through(work, dont_mutate=True)
        return found

    def plan(self, current: tuple[str, ...]) -> list[dict[str, str]]:
        """The steps of the job, by name."""
        if self.job["action"] == "stamp":
            return self.stamped(current)
        return self.named(self.steps(self.job["action"], self.job["target"], current))

    def state_afterwards(self) -> dict[str, Any] | None:
        """The state after a failure, when it can be read."""
        try:
            return self.state()
        except Exception:
            return None

    def stamped(self, current: tuple[str, ...]) -> list[dict[str, str]]:
        """The revisions that stamp writes; none when they are what is there."""
        target, purge = self.job["target"], self.job["purge"]
        steps = self.steps("stamp", target, () if purge else current)
        wanted = [script for script in self.script.get_revisions(target) if script is not None]
        if purge and {script.revision for script in wanted} == set(current):
            return []
        if not steps and not (purge and current):
            return []
        return [{"revision": script.revision, "message": script.doc or ""} for script in wanted] or [
            {"revision": "base", "message": ""}
        ]

    def sql(self, current: list[str]) -> tuple[str | None, str | None]:
        """The SQL of the steps, as far as Alembic can write it without a connection: (text, reason why not)."""
        job = self.job
        if job["action"] == "stamp" or len(current) > 1:
            return None, "several revisions are current" if len(current) > 1 else "stamp runs no migration"
        self.config.output_buffer = io.StringIO()
        self.reading = self.guarded = True  # a revision may open a connection of its own

        def work(begin: tuple[str, ...], _context: Any) -> Iterator[Any]:
            yield from self.steps(job["action"], job["target"], begin)

        try:
            self.pass_through(work, as_sql=True, starting_rev=current[0] if current else None)
        except BaseException as error:
            return None, self.told(error)
        return self.channel.masks.apply(self.config.output_buffer.getvalue()), None

    def run(self) -> None:
        """Let Alembic do it."""
        job = self.job

        def work(current: tuple[str, ...], context: Any) -> Iterator[Any]:
            if self.identify(context) != self.expected:
                raise Refused("moved")
            self.began = {"current": sorted(current), "steps": self.plan(current)}
            for step in self.steps(job["action"], job["target"], current):
                self.running = self.named([step])[0] if job["action"] != "stamp" else None
                yield step
            self.running = None

        self.reading = self.guarded = False
        self.pass_through(work, destination_rev=job["target"], purge=job["purge"] and job["action"] == "stamp")

    def told(self, error: BaseException) -> str:
        """The first words of an error, without the SQL and the parameters that SQLAlchemy adds."""
        orig = getattr(error, "orig", None)
        text = " ".join(str(orig).partition("\nLINE ")[0].split()) if orig else str(error).strip()
        return self.channel.masks.apply(f"{type(error).__name__}: {text}" if text else type(error).__name__)

    def serve(self, go: threading.Event) -> None:
        """Answer with the state; when it is allowed, run and answer with the state afterwards."""
        self.open()
        if self.job["action"] == "look":
            self.channel.answer("plan", **self.state())
            return
        found = self.state(planning=True)
        if self.job["sql"] and found["steps"]:
            text, reason = self.sql(found["current"])
            found.update(sql=text, no_sql=reason)
        self.expected = found["identity"]
        self.channel.answer("plan", **found)
        go.wait()
        self.channel.forget_output()
        self.run()
        output = self.channel.output()
        self.channel.answer("done", output=output, began=self.began, **self.state())


def _watch(control: BinaryIO, go: threading.Event, channel: Channel) -> None:
    while line := control.readline():
        if line == b"go\n":
            go.set()
    try:
        channel.answer("stopped", output=channel.output())
    finally:
        os._exit(3)  # also when nobody is there to be told


def main() -> None:
    """Read the job, do it, and leave without waiting for what the project may have left running."""
    control = sys.stdin.buffer
    job = json.loads(control.read(int(control.readline())))
    channel = Channel(job["mark"])
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - it stays open, and nothing of the project reads the pipe
    if sys.path and sys.path[0] == "":  # a folder alembic/ of the project would hide the library
        del sys.path[0]
    go = threading.Event()
    threading.Thread(target=_watch, args=(control, go, channel), daemon=True).start()
    agent = Agent(job, channel)
    try:
        try:
            agent.serve(go)
        except Refused as error:
            channel.answer("refused", output=channel.output(), running=agent.running, **error.report)
        except BaseException as error:
            printed, orig = channel.output(), getattr(error, "orig", None)
            traceback.print_exc()
            channel.answer(
                "failed",
                text=agent.told(error),
                running=agent.running,
                changing=go.is_set(),
                sqlstate=getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None),  # psycopg2 has the second
                printed=printed,
                output=channel.output(),
                began=agent.began,
                state=agent.state_afterwards() if go.is_set() else None,
            )
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
