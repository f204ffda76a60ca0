# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What pgvector is known to get wrong in a migration: indexes over its limits, bad versions, builds without memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._script import Script
from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement, folded

# Dimensions that an index holds, by type of its column: pgvector's README, "HNSW" and "IVFFlat".
LIMITS = {"vector": 2000, "halfvec": 4000, "bit": 64000}
_OPERATORS = ("_ops", "_OPS")
_METHODS = {"HNSW", "IVFFLAT"}
_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE", "LIKE"}
_UNITS = {"B": 1, "": 2**10, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
SAFE_FROM = (0, 8, 4)
_CVE = ((0, 6, 0), (0, 8, 1))  # the first and the last version with CVE-2026-3172

Column = tuple[str, str]  # the table's name without its schema, the column's


def refuse_large_indexes(scripts: Sequence[Script], existing: Callable[[], Mapping[Column, tuple[str, int]]]) -> None:
    """Raise InputError, with the line, for a vector index over the limit of its type, before a file runs.

    existing() is type and dimensions by column, as in the database; columns of the scripts are added on the way.
    """
    if not builds_vector_index(scripts):
        return
    columns = dict(existing())
    for script in scripts:
        for statement in script.statements:
            columns.update(_declared(statement.words))
            for type_name, dimensions, what in _indexed(statement, columns):
                limit = LIMITS.get(type_name)
                if limit and dimensions > limit:
                    raise InputError(
                        f"{script.file}, line {script.line(statement)}: an index on {type_name}({dimensions}) is over "
                        f"the limit of pgvector, which is {limit} dimensions.",
                        fix=_fix(type_name, dimensions, what),
                    )


def refuse_bad_version(version: str | None, allowed: Sequence[str]) -> None:
    """Raise StateError for a version of the extension ("0.8.1") with a known fault, unless it is allowed."""
    if version is None or version in allowed:
        return
    number = tuple(int(part) for part in re.findall("[0-9]+", version)[:3])
    if number >= SAFE_FROM:
        return
    faults = ["HNSW indexes can become corrupt"]
    if _CVE[0] <= number <= _CVE[1]:
        faults.append("CVE-2026-3172 is open")
    raise StateError(
        f"pgvector {version} is in this database, where {' and '.join(faults)}.",
        fix="Install 0.8.4 or newer on the server and set vector_extension to latest, or name the version in "
        "allowed_vector_versions.",
    )


def versions(connection: Any) -> tuple[str | None, str | None]:
    """The version of the extension in this database, and the one that the server's files have; None: there is none."""
    row = connection.execute(
        "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def vector_columns(connection: Any) -> list[dict[str, Any]]:
    """Every column of a vector type: {"table", "column", "type", "dimensions" (None: any), "indexes"}.

    indexes is a list of {"name", "method", "valid"}; one on an expression counts for the columns in it.
    """
    found = connection.execute(
        """
        SELECT format('%I.%I', nspname, relname), attname::text, typname::text, nullif(atttypmod, -1), coalesce((
          SELECT json_agg(json_build_object('name', index.relname, 'method', amname, 'valid', indisvalid)
                          ORDER BY index.relname)
          FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_am ON pg_am.oid = index.relam
          WHERE indrelid = attrelid AND (attnum = ANY (indkey) OR EXISTS (SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = indexrelid AND refobjid = attrelid
            AND refobjsubid = attnum))), '[]')
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
        JOIN pg_type ON pg_type.oid = atttypid
        JOIN pg_depend AS owner ON owner.classid = 'pg_type'::regclass AND owner.objid = atttypid
          AND owner.deptype = 'e' JOIN pg_extension ON pg_extension.oid = owner.refobjid AND extname = 'vector'
        WHERE relkind IN ('r', 'p', 'm') AND attnum > 0 AND NOT attisdropped
        ORDER BY 1, attnum
        """
    )
    names = ("table", "column", "type", "dimensions", "indexes")
    return [dict(zip(names, row, strict=True)) for row in found]


def known_columns(columns: Sequence[Mapping[str, Any]]) -> dict[Column, tuple[str, int]]:
    """What vector_columns() returned, as refuse_large_indexes() takes it."""
    return {
        (re.split(r"\.(?=[^.]*$)", column["table"])[1].strip('"'), column["column"]): (
            column["type"],
            column["dimensions"] or 0,
        )
        for column in columns
    }


def memory_warning(connection: Any, scripts: Sequence[Script], shm_bytes: int | None = None) -> str:
    """A sentence when a parallel build of an HNSW index could not get its shared memory; empty when it may, or unknown.

    pgvector allocates maintenance_work_mem at once, of which a script can set its own, and with posix shared memory it
    comes from /dev/shm of the server. The size of that shows in the server's /proc/mounts where it was set, as Docker
    does, and only to who may read the server's files; otherwise shm_bytes counts, which Docker tells.
    """
    wanted = _memory_of_builds(scripts)
    if not wanted:
        return ""
    row = connection.execute(
        "SELECT pg_size_bytes(current_setting('maintenance_work_mem')), "
        "current_setting('dynamic_shared_memory_type') = 'posix' "
        "AND current_setting('max_parallel_maintenance_workers')::int > 0, "
        "has_function_privilege('pg_read_file(text)', 'EXECUTE') AND pg_has_role('pg_read_server_files', 'USAGE')"
    ).fetchone()
    configured, parallel, readable = row
    # a statement of its own: the right to call a function is checked also where it is not called
    mounts = connection.execute("SELECT pg_read_file('/proc/mounts')").fetchone()[0] if readable else ""
    shared = shared_bytes(mounts) or shm_bytes
    memory = max(configured if size is None else size for size in wanted)
    if shared is None or memory <= shared or not parallel:
        return ""
    return (
        f"maintenance_work_mem is {memory // 2**20} MiB and /dev/shm of the server has {shared // 2**20} MiB, so a "
        "parallel build of a vector index can fail. Give the container a larger shm_size, or lower "
        "maintenance_work_mem."
    )


def _memory_of_builds(scripts: Sequence[Script]) -> set[int | None]:
    """maintenance_work_mem in bytes for each build of an HNSW index; None: what the server has."""
    found: set[int | None] = set()
    for script in scripts:
        memory: int | None = None
        for statement in script.statements:
            words = [word for word in statement.words if word not in {"LOCAL", "SESSION"}]
            if words[:2] == ["SET", "MAINTENANCE_WORK_MEM"]:
                memory = _bytes(words[-1])
            elif words[0] == "RESET" and words[-1] in {"ALL", "MAINTENANCE_WORK_MEM"}:
                memory = None
            elif words[0] == "CREATE" and "INDEX" in words[1:3] and "HNSW" in map(str.upper, words):
                found.add(memory)
    return found


def _bytes(setting: str) -> int | None:
    """A size as PostgreSQL writes it: 8192 (kB), '64MB', '1 GB'."""
    match = re.fullmatch(r"'?\s*([0-9]+)\s*(B|kB|MB|GB|TB|)\s*'?", setting)
    return int(match[1]) * _UNITS[match[2]] if match else None


def shared_bytes(mounts: str) -> int | None:
    """The size of /dev/shm in the content of /proc/mounts, where the last line counts, or None."""
    found = re.findall(r"^\S+ /dev/shm (\S+) (\S+)", mounts, re.MULTILINE)
    size = re.search(r"\bsize=([0-9]+)k\b", found[-1][1]) if found and found[-1][0] == "tmpfs" else None
    return int(size[1]) * 1024 if size else None


def creates_extension(scripts: Sequence[Script]) -> bool:
    """Whether a script creates or updates the extension, so that the version of the server's files counts."""
    return any(
        statement.words[1:2] == ("EXTENSION",) and "vector" in map(folded, statement.words)
        for script in scripts
        for statement in script.statements
    )


def builds_vector_index(scripts: Sequence[Script]) -> bool:
    """Whether a script builds an index of pgvector."""
    return any(bool(_METHODS & set(statement.words)) for script in scripts for statement in script.statements)


def _declared(words: Sequence[str]) -> Iterator[tuple[Column, tuple[str, int]]]:
    """Columns with their types in CREATE TABLE and ALTER TABLE."""
    if words[0] not in {"CREATE", "ALTER"} or "TABLE" not in words[1:4]:
        return
    start = words.index("TABLE") + 1
    while start < len(words) and words[start] in {"IF", "NOT", "EXISTS", "ONLY"}:
        start += 1
    name = start + 2 if words[start + 1 : start + 2] == (".",) else start
    for at in range(name + 1, len(words) - 3):
        kind = words[at].lower()
        if kind not in LIMITS or words[at + 1] != "(" or not words[at + 2].isdecimal():
            continue
        before = at - 2 if words[at - 1] == "." else at  # extensions.vector(3)
        column = words[before - 1]
        if column == "TYPE":  # ALTER COLUMN c [SET DATA] TYPE vector(3)
            column = words[before - 4] if words[before - 2] == "DATA" else words[before - 2]
        if column not in _CONSTRAINTS:
            yield (folded(words[name]), folded(column)), (kind, int(words[at + 2]))


def _indexed(
    statement: Statement, columns: Mapping[Column, tuple[str, int]]
) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """Type, dimensions, and (column, operator class) of what CREATE INDEX … USING hnsw indexes."""
    words = statement.words
    if words[0] != "CREATE" or "INDEX" not in words[1:3] or "USING" not in words or "ON" not in words:
        return
    using = words.index("USING")
    if words[using + 1 : using + 2] and words[using + 1].upper() not in _METHODS:
        return
    ends = [words.index(word) for word in ("WITH", "WHERE", "TABLESPACE") if word in words]
    key = words[using + 3 : min(ends, default=len(words))]
    if cast := _cast(key):
        yield cast
    elif key and (folded(words[using - 1]), folded(key[0])) in columns:
        kind, dimensions = columns[folded(words[using - 1]), folded(key[0])]
        yield kind, dimensions, (key[0], key[1] if len(key) > 1 else "")


def _cast(key: Sequence[str]) -> tuple[str, int, tuple[str, str]] | None:
    """Type, dimensions, and (what, operator class) of e::halfvec(3) and CAST(e AS halfvec(3)) in an index."""
    for at, word in enumerate(key[:-1]):
        if word not in {"::", "AS"}:
            continue
        kind = at + 3 if key[at + 2 : at + 3] == (".",) else at + 1  # extensions.halfvec(3)
        if key[kind].lower() in LIMITS and key[kind + 1 : kind + 2] == ("(",) and key[kind + 2].isdecimal():
            operators = next((one for one in key[kind + 4 :] if one not in {")", "."} and one.endswith(_OPERATORS)), "")
            return key[kind].lower(), int(key[kind + 2]), (key[at - 1], operators)
    return None


def _fix(kind: str, dimensions: int, what: tuple[str, str]) -> str:
    column, operators = what[0].lower(), what[1].lower()
    if kind == "vector" and dimensions <= LIMITS["halfvec"]:
        operators = operators.replace("vector_", "halfvec_") if operators.startswith("vector_") else "halfvec_l2_ops"
        return f"Index the expression (({column}::halfvec({dimensions})) {operators}), and write it so in queries."
    return "Index binary_quantize(column)::bit(n) with bit_hamming_ops, or store fewer dimensions."
