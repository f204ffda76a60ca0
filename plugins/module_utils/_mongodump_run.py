# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Dump one MongoDB database with all that a restore can be checked against; nothing is left when anything fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import ArtifactWriter, FileEntry
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._mongo import SNAPSHOT_UNAVAILABLE, Server, code_of
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_bson import DocumentWriter
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_files import (
    PRELUDE,
    VIEW,
    Definition,
    encode_metadata,
    encode_prelude,
    find_unmovable,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_read import (
    batches,
    definitions,
    sizes,
    snapshot_time,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongo_work import Work, read_ahead
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump import (
    Job,
    cut_off,
    dump_folder,
    nothing_there,
)
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_space import full_disks_told
from ansible_collections.groundwork.backend.plugins.module_utils._mongodump_users import user_files
from ansible_collections.groundwork.backend.plugins.module_utils._mongorestore_place import CUT_OFF, records
from ansible_collections.groundwork.backend.plugins.module_utils._sets import utc_text
from ansible_collections.groundwork.backend.plugins.module_utils._version import COLLECTION_VERSION

if TYPE_CHECKING:
    from bson.timestamp import Timestamp

_TRIES = 5


@dataclass
class Dumper:
    """One run: what, from where, and who is told."""

    job: Job
    server: Server
    work: Work
    unmovable: list[str] = field(default_factory=list, init=False)  # known from plan() on
    _apart: list[str] = field(default_factory=list)

    def plan(self) -> tuple[tuple[Definition, ...], Timestamp | None]:
        """What there is to dump, and the moment of the dump (None: each collection as it is when it is read).

        The definitions are those of that moment: they were the same before and after. Raises StateError.
        """
        self._require_snapshots()
        if half := [key for key, one in records(self.server, self.job.database).items() if one.state in CUT_OFF]:
            raise cut_off(self.job, half[0])
        found = definitions(self.server, self.job.database)
        self.unmovable = find_unmovable(found)
        if not found and not self.job.allow_empty:
            raise nothing_there(self.job, self.server.place)
        readable = [one.source for one in found if one.source is not None]
        plain = [one.name for one in found if one.source == one.name and not one.options.get("capped")]
        if self.job.snapshot == "never" or not self.server.has_snapshots or not readable:
            return found, None
        for _ in range(_TRIES):
            # A capped collection may not be readable in a snapshot, and any other will do.
            at = snapshot_time(self.server, self.job.database, (plain or readable)[0])
            again = definitions(self.server, self.job.database)
            if again == found:
                return found, at
            found = again
        raise StateError(
            f"Collections of {self.job.database!r} or their indexes change all the time.", fix="Run at a quieter time."
        )

    def dump(self) -> dict[str, Any]:
        """Write the files of the job and return its component. Raises StateError and UnreachableError."""
        job = self.job
        started_at, clock = utc_text(datetime.now(UTC)), time.monotonic()
        with full_disks_told(job, self.work), dump_folder(job) as folder:
            found, at = self.plan()
            job.names(found)
            size = sizes(self.server, job.database, [one.source for one in found if one.source is not None])
            self.work.total = size[0] if size else None
            entries = [self._write(folder, PRELUDE, encode_prelude(self.server.version, _tool()))]
            for one in found:
                entries.append(self._write(folder, job.metadata_name(one), encode_metadata(one), named=True))
            counts = self._collections(folder, found, at, entries)
            self._require_still_there(found, counts, at)
            if job.users:
                for name, data in user_files(self.server, job.database):
                    entries.append(self._write(folder, name, data))
        files = [FileEntry(f"{job.database}/{entry.name}", entry.bytes, entry.sha256) for entry in entries]
        return {
            **job.facts(),
            "files": [entry.to_dict() for entry in sorted(files, key=lambda entry: entry.name)],
            "server_version": self.server.version,
            "consistent": self._consistent(found, at),
            "outside_snapshot": sorted(self._apart),
            "counts": dict(sorted(counts.items())),
            "views": [one.name for one in found if one.kind == VIEW],
            "users": job.users,
            "data_bytes": self.work.done,
            "database_bytes": size[1] if size else None,
            "started_at": started_at,
            "seconds": round(time.monotonic() - clock, 3),
        }

    def _require_snapshots(self) -> None:
        if self.job.snapshot == "required" and not self.server.has_snapshots:
            raise StateError(
                f"A snapshot is required, and MongoDB at {self.server.place} is a standalone server, which cannot "
                "show all collections as they were at one moment.",
                fix="Make it a replica set (one member is enough), or set snapshot: auto.",
            )

    def _require_still_there(
        self, found: Sequence[Definition], counts: Mapping[str, int], at: Timestamp | None
    ) -> None:
        """One that is gone is read as an empty one: by a snapshot, some servers know only what was in it."""
        now = {one.name: one.uuid for one in definitions(self.server, self.job.database)}
        read = [one for one in found if one.source is not None and (at is None or not counts[one.name])]
        if gone := [one.name for one in read if one.name not in now or now[one.name] != one.uuid]:
            raise StateError(
                f"{', '.join(gone)} of {self.job.database!r} was dropped, renamed or made anew while it was dumped.",
                fix="Run again, at a time when nothing does that.",
            )

    def _consistent(self, found: Sequence[Definition], at: Timestamp | None) -> bool:
        readable = [one for one in found if one.source is not None]
        return not readable or (at is not None and not self._apart)

    def _collections(
        self, folder: Path, found: Sequence[Definition], at: Timestamp | None, entries: list[FileEntry]
    ) -> dict[str, int]:
        """Write the documents, several collections at a time; how many each had."""
        counts: dict[str, int] = {}

        def one(definition: Definition) -> None:
            entry, count = self._collection(folder, definition, at)
            with self.work.lock:
                entries.append(entry)
                counts[definition.name] = count

        tasks = [partial(one, definition) for definition in found if definition.source is not None]
        self.work.run(self.job.jobs, tasks)
        return counts

    def _collection(self, folder: Path, definition: Definition, at: Timestamp | None) -> tuple[FileEntry, int]:
        try:
            return self._documents(folder, definition, at)
        except StateError as error:
            # Before MongoDB 8.0, capped collections cannot be read in a snapshot.
            if at is None or not definition.options.get("capped") or code_of(error) != SNAPSHOT_UNAVAILABLE:
                raise
            if self.job.snapshot == "required":
                raise StateError(
                    f"A snapshot is required, and the server cannot read the capped collection {definition.name!r} "
                    "in one.",
                    fix="Set snapshot: auto, or do without the capped collection.",
                ) from None
        with self.work.lock:
            self._apart.append(definition.name)
        return self._documents(folder, definition, None)

    def _documents(self, folder: Path, definition: Definition, at: Timestamp | None) -> tuple[FileEntry, int]:
        source, name = definition.source, self.job.data_name(definition)
        assert source is not None and name is not None  # noqa: S101, PT018 - a view has no documents
        count = 0
        with ArtifactWriter(folder / name) as writer:
            packed = DocumentWriter(writer, compressed=self.job.gzip)
            for batch in read_ahead(batches(self.server, self.job.database, source, at)):
                packed.write(batch.data)
                count += batch.count
                self.work.tell(definition.name, len(batch.data))
            packed.finish()
        return writer.entry, count

    def _write(self, folder: Path, name: str, data: bytes, *, named: bool = False) -> FileEntry:
        """A small file; *named* already has the ending of compression in its name."""
        with ArtifactWriter(folder / (name if named else name + self.job.suffix)) as writer:
            packed = DocumentWriter(writer, compressed=self.job.gzip)
            packed.write(data)
            packed.finish()
        return writer.entry


def _tool() -> str:
    return f"groundwork.backend {COLLECTION_VERSION}"
