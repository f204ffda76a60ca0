# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The databases of a server, seen and changed over psql from a database that no restore touches."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from ansible_collections.groundwork.backend.plugins.module_utils import _pgdump_facts
from ansible_collections.groundwork.backend.plugins.module_utils._errors import CommandError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._pgrestore import Mark, mark_in, unmarked
from ansible_collections.groundwork.backend.plugins.module_utils._psql import Session, Tools
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import literal

LOCK_SECONDS = 10.0  # psql of a killed run ends a moment after it
_POLL_SECONDS = 0.1

# A role's own settings must not cut a long statement off, hide rows, or lead to other tables. What is run here may hold
# a role's password verifier: the server is asked to keep it out of its log, where this role may ask.
_SETTINGS = r"""
\set VERBOSITY terse
SELECT set_config(name, CASE name WHEN 'search_path' THEN 'pg_catalog' WHEN 'row_security' THEN 'off'
                                  WHEN 'default_transaction_read_only' THEN 'off' WHEN 'lock_timeout' THEN '60s'
                                  WHEN 'client_min_messages' THEN 'warning' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('search_path', 'row_security', 'default_transaction_read_only', 'lock_timeout', 'client_min_messages',
               'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout',
               'idle_session_timeout');
"""
_QUIET_LOG = """
SELECT set_config(name, CASE name WHEN 'log_statement' THEN 'none' WHEN 'log_min_error_statement' THEN 'panic'
                                  ELSE '-1' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('log_statement', 'log_min_error_statement', 'log_min_duration_statement', 'log_min_duration_sample')
  AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
"""
_DATABASES = """
SELECT jsonb_build_array(datname, shobj_description(oid, 'pg_database')) FROM pg_catalog.pg_database ORDER BY datname;
"""
_ROLES = "SELECT to_jsonb(rolname) FROM pg_catalog.pg_roles;"
_USED = """
SELECT count(*) FROM pg_catalog.pg_class AS c
WHERE oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  AND relkind <> 't' AND relnamespace <> 'pg_toast'::regnamespace;
"""
_OWN_RIGHTS = """
SELECT format('REVOKE ALL ON DATABASE %I FROM %I', datname, pg_get_userbyid(datdba))
FROM pg_catalog.pg_database WHERE datname = {name};
"""
_RIGHTS = """
SELECT format('GRANT %s ON DATABASE %I TO %s%s', privilege_type, {name},
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM aclexplode(({items})::aclitem[]);
"""
_PROVIDER_OPTION = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}


def name_of(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Database:
    """A database with its comment (without the mark of a restore) and that mark."""

    name: str
    comment: str | None
    mark: Mark | None


class Server:
    """A server, over psql in its maintenance database; use it as a context manager. Raises as Session does."""

    def __init__(self, tools: Tools, params: Mapping[str, Any], maintenance: str) -> None:
        self.tools = tools
        self.maintenance = maintenance
        self._params = params
        self._idle: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._idle is not None:
            self._idle.__exit__(kind, error, trace)
            self._idle = None

    def at(self, database: str) -> Tools:
        """The client programs, for another database."""
        return replace(self.tools, env={**self.tools.env, "PGDATABASE": database})

    @contextmanager
    def session(self, database: str | None = None) -> Iterator[Session]:
        """A session in a database; the maintenance database when none is named, where one is kept for the next time."""
        name = database or self.maintenance
        kept, self._idle = (self._idle, None) if database is None else (None, self._idle)
        with ExitStack() as stack:
            if kept is not None:
                stack.push(kept)
                session = kept
            else:
                session = stack.enter_context(Session(self.at(name), {**self._params, "database": name}))
                session.query(_SETTINGS)
            yield session
            if database is None and self._idle is None:  # not reached by an error, after which a psql has ended
                self._idle = session
                stack.pop_all()

    def versions(self) -> tuple[str, int]:
        """The server's version as it states it, and its major number."""
        with self.session() as session:
            return _pgdump_facts.server_versions(session)

    @contextmanager
    def lock(self, database: str) -> Iterator[None]:
        """Nobody else restores this database during the block. Raises StateError."""
        key = f"hashtextextended({literal(f'groundwork pg_restore {database}')}, 0)"
        with self.session() as session:
            deadline = time.monotonic() + LOCK_SECONDS
            while session.query(f"SELECT pg_try_advisory_lock({key});") != ["t"]:
                if time.monotonic() >= deadline:
                    raise StateError(
                        f"Another pg_restore is at work on database {database!r}.",
                        fix="Wait until it has ended, then run again.",
                    )
                time.sleep(_POLL_SECONDS)
            yield

    def databases(self) -> dict[str, Database]:
        """Every database by name."""
        with self.session() as session:
            rows = [json.loads(line) for line in session.query(_DATABASES)]
        return {name: Database(name, unmarked(comment), mark_in(comment)) for name, comment in rows}

    def roles(self) -> set[str]:
        """Names of all roles."""
        with self.session() as session:
            return {json.loads(line) for line in session.query(_ROLES)}

    def create_roles(self, statements: Sequence[str]) -> None:
        """Run statements of a globals.sql, all or none. Raises CommandError, which quotes none of them."""
        with self.session() as session:
            session.query(_QUIET_LOG)
            session.query("\n".join(["BEGIN;", *(f"{statement};" for statement in statements), "COMMIT;"]))

    def properties(self, database: str) -> dict[str, Any]:
        """What a database is beside its content, as pg_backup records it."""
        with self.session(database) as session:
            return _pgdump_facts.properties(session)

    def create(self, name: str, properties: Mapping[str, Any], major: int) -> None:
        """Create an empty database. Raises CommandError, and StateError for a locale that the server cannot have."""
        with self.session() as session:
            session.query(create_statement(name, properties, major) + ";")

    def close(self, name: str, mark: Mark) -> None:
        """Mark a database, and let only its owner in."""
        with self.session() as session:
            session.query(
                f"BEGIN;\nCOMMENT ON DATABASE {name_of(name)} IS {literal(mark.comment(None))};\n"
                f"REVOKE ALL ON DATABASE {name_of(name)} FROM PUBLIC;\nCOMMIT;"
            )

    def finish(self, name: str, properties: Mapping[str, Any], mark: Mark) -> None:
        """Give a database that is complete its rights and settings, and mark it; all or nothing."""
        with self.session() as session:
            rights = [line for part in rights_queries(name, properties.get("acl")) for line in session.query(part)]
            script = [
                "BEGIN;",
                *(f"{line};" for line in rights),
                *(f"{text.strip().rstrip(';')};" for text in settings_statements(name, properties)),
                f"COMMENT ON DATABASE {name_of(name)} IS {literal(mark.comment(properties.get('comment')))};",
                "COMMIT;",
            ]
            session.query("\n".join(script))

    def say(self, database: Database, mark: Mark | None) -> None:
        """Change the mark of a database, or take it away."""
        text = mark.comment(database.comment) if mark else database.comment
        with self.session() as session:
            session.query(f"COMMENT ON DATABASE {name_of(database.name)} IS {literal(text) if text else 'NULL'};")

    def drop(self, name: str) -> None:
        """Drop a database whoever is connected to it. Whatever a killed run left at work in it ends."""
        with self.session() as session:
            session.query(
                f"ALTER DATABASE {name_of(name)} ALLOW_CONNECTIONS false;\nDROP DATABASE {name_of(name)} WITH (FORCE);"
            )

    def is_empty(self, name: str) -> bool:
        """Whether nobody has made anything in a database."""
        with self.session(name) as session:
            return session.query(_USED) == ["0"]


def create_statement(name: str, properties: Mapping[str, Any], major: int) -> str:
    """CREATE DATABASE with the owner, the encoding and the locale that were recorded. Raises StateError."""
    words = [f"CREATE DATABASE {name_of(name)} TEMPLATE template0"]
    if properties.get("owner"):
        words.append(f"OWNER {name_of(properties['owner'])}")
    provider = properties.get("provider") or "libc"
    if major >= 15 and properties.get("collate"):
        words.append(f"LOCALE_PROVIDER {provider}")
    elif provider != "libc":
        raise StateError(f"The database has a locale of {provider}, which needs PostgreSQL 15 or newer.")
    if provider in _PROVIDER_OPTION and properties.get("locale"):
        words.append(f"{_PROVIDER_OPTION[provider]} {literal(properties['locale'])}")
    if properties.get("icu_rules"):
        words.append(f"ICU_RULES {literal(properties['icu_rules'])}")
    options = {"ENCODING": "encoding", "LC_COLLATE": "collate", "LC_CTYPE": "ctype"}
    words += [f"{option} {literal(properties[key])}" for option, key in options.items() if properties.get(key)]
    return " ".join(words)


def rights_queries(name: str, acl: Sequence[str] | str | None) -> list[str]:
    """Queries whose lines are the GRANT statements that give a new database these rights (None: PostgreSQL's own)."""
    if acl is None:
        return [f"SELECT {literal(f'GRANT CONNECT, TEMPORARY ON DATABASE {name_of(name)} TO PUBLIC')};"]
    items = literal(acl) if isinstance(acl, str) else f"ARRAY[{', '.join(map(literal, acl))}]::text[]"
    values = {"name": literal(name), "items": items}
    return [_OWN_RIGHTS.format(**values), _RIGHTS.format(**values)]


def settings_statements(name: str, properties: Mapping[str, Any]) -> list[str]:
    """The recorded ALTER statements and the connection limit, for this database."""
    statements = [
        re.sub("%(.)", lambda found: name_of(name) if found[1] == "I" else found[1], text)
        for text in properties.get("settings") or []
    ]
    limit = properties.get("connection_limit")
    if limit is not None and limit != -1:
        statements.append(f"ALTER DATABASE {name_of(name)} CONNECTION LIMIT {int(limit)}")
    return statements


def in_use(error: CommandError) -> bool:
    """Whether a rename failed because somebody is connected."""
    return "being accessed by other users" in str(error.details.get("stderr", ""))
