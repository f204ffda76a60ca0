# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Dump one PostgreSQL database with everything that a restore can be checked against, from one snapshot.

Nothing gets its final name unless all of it succeeded: the dump, the roles, the counts and the full read.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _pgdump_facts as facts
from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter, FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    StateError,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import ByteSink, run, stream
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump import (
    GLOBALS_NAME,
    Job,
    dump_arguments,
    globals_arguments,
    list_arguments,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_container import (
    remote_folder,
    stop_connections,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_directory import (
    FolderWriter,
    remote_sizes,
    shares,
)
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_feed import Feed
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_meter import Meter
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_place import prepare
from ansible_collections.groundwork.backend.plugins.module_utils._pgdump_plain import PlainReader, require_complete
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session, Tools, fix_for
from ansible_collections.groundwork.backend.plugins.module_utils._sets import utc_text

# A table in what pg_restore --list prints: 1259 is the OID of pg_class, the number behind it that of the table.
_TABLE = re.compile(r"^\d+; 1259 (\d+) TABLE ", re.MULTILINE)
# pg_dump is to end, with its workers, when the module is killed; it waits for locks without noticing.
_BOUND = ("setpriv", "--pdeathsig", "TERM", "--")
_PRIVATE = ("sh", "-c", 'umask 077 && exec "$0" "$@"')


@dataclass(frozen=True)
class Dumper:
    """One run: what, with which programs, in the snapshot of which session, and who is told.

    run_id is the name of this process, scratch the folder inside of the container for what cannot be streamed.
    """

    job: Job
    tools: Tools
    session: Session
    client: str
    run_id: str
    scratch: str
    meter_for: Callable[[set[int] | None], Meter] = field(default=lambda _only: Meter.silent())

    def dump(self, server: str) -> dict[str, Any]:
        """Write the files of the job and return its component.

        Raises StateError (disk, folder, rows missing), CommandError (pg_dump, pg_dumpall, pg_restore), and
        UnreachableError (the server was lost).
        """
        started_at, clock = utc_text(datetime.now(UTC)), time.monotonic()
        with ExitStack() as stack:
            prepare(self.job, stack)
            try:
                found, files = self._dump(stack)
            except BaseException:
                if self.tools.container is not None or self.job.format == "directory":
                    stop_connections(self.tools, self.run_id)
                raise
        return {
            **self.job.facts(),
            "files": [entry.to_dict() for entry in files],
            "server_version": server,
            "client_version": self.client,
            "read_in_full": self.job.read_in_full,
            **found,
            "started_at": started_at,
            "seconds": round(time.monotonic() - clock, 3),
        }

    def try_out(self) -> None:
        """Let pg_dump list what it would dump, so that it says what it would not accept. Writes nothing."""
        self._require_rights()
        self._tables(facts.begin_snapshot(self.session, self.job.lock_timeout))

    def _dump(self, stack: ExitStack) -> tuple[dict[str, Any], list[FileEntry]]:
        job, session = self.job, self.session
        self._require_rights()
        snapshot = facts.begin_snapshot(session, job.lock_timeout)
        found: dict[str, Any] = {
            "extensions": facts.extensions(session),
            "schema_version": facts.schema_version(session),
            "properties": facts.properties(session),
        }
        only = self._tables(snapshot) if job.filter else None
        meter = self.meter_for(only)
        arguments = dump_arguments(job, snapshot, self.client)
        facts.send_counts(session, only)  # psql counts while pg_dump dumps
        reader: PlainReader | None = None
        try:
            if job.format == "directory":
                entries = self._directory(arguments, meter, stack)
            else:
                entries, reader = self._stream(arguments, meter, stack)
        except CommandError:
            session.require_alive()  # a failed count ends the snapshot: then that is the reason
            raise
        counts = dict(facts.receive_counts(session))
        found["database_bytes"] = facts.database_bytes(session, only)
        if reader is not None:
            require_complete(reader, counts, job.database)
        if job.with_globals:
            writer = stack.enter_context(ArtifactWriter(job.dest / GLOBALS_NAME))
            self._run_dump(self.tools.argv("pg_dumpall", *globals_arguments(job)), writer, "dump the roles of")
            entries.append(writer.entry)
        return {**found, "counts": counts}, entries

    def _require_rights(self) -> None:
        """Said before the dump, not when it is done."""
        if self.job.with_globals and not facts.may_read_roles(self.session):
            raise StateError(
                f"Could not dump the roles of database {self.job.database!r}: login_user may not read pg_authid.",
                fix="Log in as a superuser, or set globals: false.",
            )

    def _stream(
        self, arguments: Sequence[str], meter: Meter, stack: ExitStack
    ) -> tuple[list[FileEntry], PlainReader | None]:
        """One file: what pg_dump prints is written, and read by the other program at the same moment."""
        job = self.job
        writer = stack.enter_context(ArtifactWriter(job.dest / job.dump_name))
        reader = PlainReader() if job.format == "plain" and job.read_in_full else None
        feed: Feed | None = None
        beside: PlainReader | None = None
        if reader is not None and job.compression.method is None:
            beside = reader
        elif job.read_in_full:
            argv = self.tools.argv("pg_restore", "--file=/dev/null", stdin=True)
            feed = self._feed([job.compression.method or "", "-dc"] if reader else argv, stack, reader)
        self._run_dump(self._pg_dump(arguments), _Tee(writer, beside, feed, meter), "dump", meter)
        if feed is not None:
            feed.follow(writer.fileno(), writer.size, wait=meter.tick)
            feed.finish(meter.tick)
        return [writer.entry], reader

    def _directory(self, arguments: Sequence[str], meter: Meter, stack: ExitStack) -> list[FileEntry]:
        """A folder: dumped, then read in full while its files get their checksums."""
        container = self.tools.container
        folder = stack.enter_context(FolderWriter(self.job.dest / self.job.dump_name))
        if container is None:
            self._fill(self._pg_dump([*arguments, f"--file={folder.temporary}"], _PRIVATE), meter)
            sizes, place = folder.sizes(), str(folder.temporary)
        else:
            place = stack.enter_context(remote_folder(self.tools, self.scratch, self.run_id))
            self._fill(self._pg_dump([*arguments, f"--file={place}"], _PRIVATE), meter)
            sizes = remote_sizes(container, place)
        meter.begin("verify" if container is None else "fetch", sum(sizes.values()))
        feeds = self._readers(place, sizes, stack) if self.job.read_in_full else []
        if container is None:
            folder.take_in(meter.add)
        else:
            folder.fetch(container, place, sizes, meter.add)
        for feed in feeds:
            feed.finish()
        return list(folder.entries)

    def _pg_dump(self, arguments: Sequence[str], wrapper: Sequence[str] = ()) -> list[str]:
        if self.tools.container is None:
            return [*_BOUND, *wrapper, *self.tools.argv("pg_dump", *arguments)]
        return self.tools.argv(*wrapper, "pg_dump", *arguments)

    def _fill(self, argv: Sequence[str], meter: Meter) -> None:
        """Run pg_dump for a folder. Not by its output: its workers may keep that open when it is dead."""
        asked = f"dump database {self.job.database!r}"
        with _plainly(), Feed(argv, env=self.tools.env, asked=asked) as process:
            process.finish(meter.tick)

    def _readers(self, place: str, sizes: dict[str, int], stack: ExitStack) -> list[Feed]:
        """Processes that read the folder in full, each its share."""
        common = ("--format=directory", "--file=/dev/null")
        if self.job.jobs == 1:
            feeds = [self._feed(self.tools.argv("pg_restore", *common, place, stdin=True), stack)]
        else:
            asked = f"list the new dump of database {self.job.database!r}"
            listing = run(self.tools.argv("pg_restore", "--list", place), env=self.tools.env, asked=asked).stdout
            argv = self.tools.argv("pg_restore", *common, "--use-list=/dev/stdin", place, stdin=True)
            feeds = []
            for share in shares(listing, sizes, self.job.jobs):
                feeds.append(self._feed(argv, stack))
                feeds[-1].write(share.encode())
        for feed in feeds:
            feed.end()
        return feeds

    def _feed(self, argv: Sequence[str], stack: ExitStack, sink: ByteSink | None = None) -> Feed:
        asked = f"read the new dump of database {self.job.database!r} in full"
        return stack.enter_context(Feed(argv, env=self.tools.env, asked=asked, sink=sink))

    def _tables(self, snapshot: str) -> set[int]:
        """OIDs of the tables that pg_dump selects: nobody else knows its patterns as well."""
        with tempfile.TemporaryFile() as archive:
            arguments = list_arguments(self.job, snapshot, self.client)
            self._run_dump(self._pg_dump(arguments), archive, "list what to dump of")
            archive.seek(0)
            asked = f"list what to dump of database {self.job.database!r}"
            argv = self.tools.argv("pg_restore", "--list", stdin=True)
            return set(map(int, _TABLE.findall(run(argv, env=self.tools.env, stdin=archive, asked=asked).stdout)))

    def _run_dump(self, argv: Sequence[str], sink: ByteSink, verb: str, meter: Meter | None = None) -> None:
        tick = meter.tick if meter is not None else lambda: None
        with _plainly():
            stream(argv, sink, env=self.tools.env, asked=f"{verb} database {self.job.database!r}", tick=tick)


@dataclass(frozen=True)
class _Tee:
    """Writes each chunk, shows it to who reads it here, lets the other program read on, and tells the meter."""

    writer: ArtifactWriter
    reader: PlainReader | None
    feed: Feed | None
    meter: Meter

    def write(self, data: bytes) -> None:
        self.writer.write(data)
        if self.reader is not None:
            self.reader.write(data)
        if self.feed is not None:
            self.feed.follow(self.writer.fileno(), self.writer.size)
        self.meter.add(len(data))


@contextmanager
def _plainly() -> Iterator[None]:
    """Say what to do about the error of a client program, and name the program, not what started it."""
    try:
        yield
    except CommandError as error:
        problem = error.problem.replace(f"{_BOUND[0]} ended", "pg_dump ended", 1)
        raise CommandError(problem, fix=fix_for(error.details["stderr"]), **error.details) from None
