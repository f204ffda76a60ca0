# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a restore can be compared with, asked in the snapshot of the dump: rows, extensions, schema version, properties.

Each function works on a Session whose search_path is pg_catalog alone; begin_snapshot() sees to that.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session

# A role's own settings must not cut a long count off, hide rows from it, or lead it to other tables.
_SETTINGS = """
SELECT set_config(name, CASE name WHEN 'search_path' THEN 'pg_catalog' WHEN 'row_security' THEN 'off'
                                  WHEN 'lock_timeout' THEN '{lock_timeout}' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('search_path', 'row_security', 'lock_timeout', 'statement_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout');
"""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_catalog.pg_export_snapshot();"
_SERVER = "SELECT jsonb_build_array(current_setting('server_version'), current_setting('server_version_num')::int);"
_EXTENSIONS = "SELECT coalesce(jsonb_object_agg(extname, extversion), '{}') FROM pg_catalog.pg_extension;"
_HAS_LEDGER = """
SELECT count(*) FROM pg_catalog.pg_attribute
WHERE attrelid = to_regclass('public.schema_migrations') AND attname IN ('version', 'state') AND NOT attisdropped;
"""
_SCHEMA_VERSION = r"""
SELECT max(version::text COLLATE "C") FROM public.schema_migrations
WHERE version::text ~ '^[0-9]+$' AND state::text IN ('applied', 'baseline') AND version::text::numeric = (
  SELECT max(version::text::numeric) FROM public.schema_migrations
  WHERE version::text ~ '^[0-9]+$' AND state::text IN ('applied', 'baseline'));
"""
# to_jsonb of the whole row, because the columns of the locale differ from version to version.
_PROPERTIES = """
SELECT jsonb_build_object(
  'row', to_jsonb(d), 'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'acl', datacl::text[], 'comment', shobj_description(d.oid, 'pg_database'),
  'settings', (SELECT coalesce(jsonb_agg(jsonb_build_array(rolname, setting) ORDER BY setrole, place), '[]')
               FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = setrole
               CROSS JOIN LATERAL unnest(setconfig) WITH ORDINALITY AS one (setting, place)
               WHERE setdatabase = d.oid AND (setrole = 0 OR rolname IS NOT NULL)))
FROM pg_database AS d WHERE datname = current_database();
"""
# Partitioned tables and views hold no rows themselves; an extension's own tables come back with the extension; a
# standby has no rows of unlogged tables, and pg_dump leaves them out there.
_TABLES = r"""
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE relkind = 'r' AND nspname <> 'information_schema' AND nspname !~ '^pg_'
  AND NOT (relpersistence = 'u' AND pg_is_in_recovery())
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
# An enum's values have other hashes in another database, so the rows of such partitions spread anew when they are
# restored; pg_dump loads them through the root (forcePartitionRootLoad() in pg_dump.c), and only its sum stays.
_COUNT = r"""
SELECT format('SELECT jsonb_build_array(%L, count(*)) FROM ONLY %I.%I', CASE WHEN EXISTS (
    SELECT FROM pg_partition_ancestors(c.oid) AS a JOIN pg_partitioned_table AS p ON p.partrelid = a.relid
    JOIN pg_opclass AS o ON o.oid = ANY (p.partclass) JOIN pg_am AS m ON m.oid = o.opcmethod
    WHERE amname = 'hash' AND opcname = 'enum_ops' AND opcnamespace = 'pg_catalog'::regnamespace)
  THEN (SELECT rn.nspname || '.' || r.relname FROM pg_class AS r JOIN pg_namespace AS rn ON rn.oid = r.relnamespace
        WHERE r.oid = pg_partition_root(c.oid))
  ELSE nspname || '.' || relname END, nspname, relname)
"""
_SIZES = "SELECT jsonb_build_array(c.oid::text, nspname || '.' || relname, pg_table_size(c.oid))"
# What a restore writes where the server keeps its databases: tables and indexes that are in no tablespace of their own.
# Materialized views are left out, as a refresh of one would have to be waited for. What is bloated comes back smaller.
_BYTES = """
SELECT coalesce(sum(CASE WHEN c.reltablespace = 0 THEN pg_table_size(c.oid) ELSE 0 END
  + coalesce((SELECT sum(pg_table_size(i.oid))
              FROM pg_catalog.pg_index JOIN pg_catalog.pg_class AS i ON i.oid = indexrelid
              WHERE indrelid = c.oid AND i.reltablespace = 0), 0)), 0)
"""
# pg_dump writes each element of these as a literal of its own (variable_is_guc_list_quote() in its dumputils.c).
_LISTS = {
    "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
    "temp_tablespaces", "unix_socket_directories",
}  # fmt: skip


def server_versions(session: Session) -> tuple[str, int]:
    """The server's version as it states it, and its major number."""
    version, number = json.loads(session.query(_SERVER)[0])
    return version, number // 10000


def may_read_roles(session: Session) -> bool:
    """Whether pg_dumpall can read the roles with their passwords."""
    return session.query("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT');") == ["t"]


def begin_snapshot(session: Session, lock_timeout: str) -> str:
    """Begin the transaction whose snapshot the dump uses; the snapshot's name."""
    session.query(_SETTINGS.format(lock_timeout=lock_timeout))
    (snapshot,) = session.query(_SNAPSHOT)
    return snapshot


def extensions(session: Session) -> dict[str, str]:
    """Version by name of each extension in the database."""
    found: dict[str, str] = json.loads(session.query(_EXTENSIONS)[0])
    return found


def database_bytes(session: Session, only: Collection[int] | None) -> int:
    """Bytes on disk of what a restore of these tables writes into the server's data directory.

    It is for a session that has counted their rows, and so holds the locks that it would wait for otherwise.
    """
    return int(session.query(f"{_BYTES}{_TABLES}{_among(only)};")[0])


def schema_version(session: Session) -> str | None:
    """Highest applied or baseline version of the migrations, as it stands in their ledger."""
    if session.query(_HAS_LEDGER) != ["2"]:
        return None
    (line,) = session.query(_SCHEMA_VERSION)
    return line or None


def properties(session: Session) -> dict[str, Any]:
    """What belongs to the database itself and is in no dump of it.

    settings are statements with %I in the place of the database's name, for format(); acl is as in pg_database.datacl,
    None for the server's default.
    """
    found = json.loads(session.query(_PROPERTIES)[0])
    row = found["row"]
    return {
        "owner": found["owner"],
        "encoding": found["encoding"],
        "collate": row["datcollate"],
        "ctype": row["datctype"],
        "provider": {"i": "icu", "b": "builtin"}.get(row.get("datlocprovider", "c"), "libc"),
        "locale": row.get("datlocale", row.get("daticulocale")),
        "icu_rules": row.get("daticurules"),
        "settings": [setting_statement(role, setting) for role, setting in found["settings"]],
        "acl": found["acl"],
        "connection_limit": row["datconnlimit"],
        "comment": found["comment"],
    }


def setting_statement(role: str | None, setting: str) -> str:
    """ALTER … SET for "name=value" of pg_db_role_setting, for one role or for all, with %I for the database."""
    name, _equals, value = setting.partition("=")
    values = _elements(value) if name.lower() in _LISTS else [value]
    whose = f"ALTER ROLE {_identifier(role)} IN DATABASE %I" if role is not None else "ALTER DATABASE %I"
    # format() takes every percent sign for a place
    return f"{whose} SET {_identifier(name)} TO {', '.join(map(_literal, values)) or _literal('')};"


def send_counts(session: Session, only: Collection[int] | None) -> None:
    """Start to count the rows of each table, or of those with these OIDs."""
    session.send(f"{_COUNT}{_TABLES}{_among(only)}ORDER BY nspname, relname \\gexec\n")


def receive_counts(session: Session) -> Counter[str]:
    """Rows by "schema.table", when they are counted; a Counter, so that update() adds what other sessions counted."""
    counts: Counter[str] = Counter()
    for line in session.receive():
        name, rows = json.loads(line)
        counts[name] += rows
    return counts


def table_sizes(session: Session, only: Collection[int] | None) -> dict[str, tuple[str, int]]:
    """By OID as text: "schema.table" and bytes on disk without indexes, of the tables that are dumped."""
    rows = map(json.loads, session.query(f"{_SIZES}{_TABLES}{_among(only)};"))
    return {oid: (name, size or 0) for oid, name, size in rows}


def _among(only: Collection[int] | None) -> str:
    return "" if only is None else f"  AND c.oid = ANY ('{{{','.join(map(str, only))}}}'::oid[])\n"


def _elements(value: str) -> list[str]:
    """The elements of a list as the server keeps it: separated by commas, quoted like identifiers where needed."""
    found = re.findall(r'\s*("(?:[^"]|"")*"|[^",\s][^,]*)\s*(?:,|$)', value)
    return [one[1:-1].replace('""', '"') if one.startswith('"') else one.strip() for one in found]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _literal(value: str) -> str:
    quoted = "'" + value.replace("'", "''").replace("%", "%%") + "'"
    return f"E{quoted}".replace("\\", "\\\\") if "\\" in value else quoted
