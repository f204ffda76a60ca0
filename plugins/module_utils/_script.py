# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Decide how a migration runs: in one transaction, or statement by statement; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.groundwork.backend.plugins.module_utils import _sql
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._limits import NO_LIMITS, Limits, of_file
from ansible_collections.groundwork.backend.plugins.module_utils._sql import Statement, folded
from ansible_collections.groundwork.backend.plugins.module_utils._sql_variables import Expanded, expand

# sections of dbmate, goose and sql-migrate
_DOWN_SECTION = re.compile(
    r"^[ \t]*--[ \t]*(?:migrate:down|\+goose Down|\+migrate Down)\b", re.MULTILINE | re.IGNORECASE
)
_NOISE = {"WORK", "TRANSACTION"}
# What PostgreSQL's PreventInTransactionBlock() guards, as far as it shows in the text.
_ALONE = {
    ("ALTER", "SYSTEM"), ("CREATE", "DATABASE"), ("DROP", "DATABASE"), ("CREATE", "TABLESPACE"), ("DROP", "TABLESPACE"),
    ("CREATE", "SUBSCRIPTION"), ("DROP", "SUBSCRIPTION"), ("DISCARD", "ALL"),
}  # fmt: skip


@dataclass(frozen=True)
class BuiltIndex:
    """An index that a script builds and that may stay invalid: its name, and its table as written ("public.items")."""

    name: str
    table: str


@dataclass(frozen=True)
class Script:
    """A migration that is ready to run; transactional tells how."""

    file: str
    expanded: Expanded
    statements: tuple[Statement, ...]
    transactional: bool
    limits: Limits

    def line(self, statement: Statement, position: int = 0) -> int:
        """The line in the file of a character of a statement."""
        return self.expanded.line(statement.start + position)


def prepare(text: str, variables: Mapping[str, str], file: str, limits: Limits = NO_LIMITS) -> Script:
    """Expand, split and classify a script.

    limits are those of the options, which the file may override.

    Its own BEGIN; … COMMIT; is taken off, because the ledger row belongs into the same transaction. Raises InputError,
    with the line, for a script without a statement, with several transactions, or with one around a statement that
    needs none.
    """
    if down := _DOWN_SECTION.search(text):
        raise InputError(
            f"{file}, line {_sql.line_at(text, down.start())}: what undoes the migration would run as a part of it.",
            fix="Move what stands below this line into a file of the same name that ends in .down.sql.",
        )
    limits = of_file(limits, text, file)
    expanded = expand(text, variables, file)
    statements = _sql.split(expanded.text, file)
    if not statements:
        raise InputError(f"{file} holds no SQL statement.", fix="Write one, or remove the file.")
    alone = [statement for statement in statements if runs_alone(statement.words)]
    if not alone:
        return Script(file, expanded, _unwrapped(statements, expanded, file), True, limits)
    for statement in statements:
        if transaction_control(statement.words):
            raise InputError(
                f"{file}, line {expanded.line(statement.start)}: {statement.words[0]} cannot stand in a file with a "
                f"statement that runs outside of transactions (line {expanded.line(alone[0].start)}: "
                f"{' '.join(alone[0].words[:3])}).",
                fix="Move that statement into a migration of its own.",
            )
    return Script(file, expanded, tuple(statements), False, limits)


def transaction_control(words: Sequence[str]) -> str:
    """ "begin", "commit", "savepoint" or "other" for a statement that controls transactions, else "".

    "other" is what cannot be made one transaction: ROLLBACK, AND CHAIN, two-phase commit.
    """
    kind, rest = words[0], set(words[1:])
    if kind == "BEGIN" or (kind == "START" and "TRANSACTION" in rest):
        return "begin"
    if kind in {"COMMIT", "END"}:
        return (
            "commit" if rest <= _NOISE | {"AND", "NO", "CHAIN"} and ("CHAIN" not in rest or "NO" in rest) else "other"
        )
    if kind in {"SAVEPOINT", "RELEASE"} or (kind == "ROLLBACK" and "TO" in rest):
        return "savepoint"
    if kind in {"ROLLBACK", "ABORT"} or (kind == "PREPARE" and words[1:2] == ("TRANSACTION",)):
        return "other"
    return ""


def runs_alone(words: Sequence[str]) -> bool:
    """Whether PostgreSQL refuses the statement inside a transaction."""
    kind = words[0]
    if kind == "VACUUM" or tuple(words[:2]) in _ALONE or tuple(words) == ("CLUSTER",):
        return True
    if kind in {"CREATE", "DROP"} and "INDEX" in words[1:3]:
        return "CONCURRENTLY" in words[2:4]
    if kind == "REINDEX":
        return bool({"CONCURRENTLY", "SCHEMA", "DATABASE", "SYSTEM"} & set(words))
    if kind == "ALTER" and words[1:2] == ("TABLE",):
        return "DETACH" in words and words[-1] == "CONCURRENTLY"
    return kind == "ALTER" and words[1:2] == ("DATABASE",) and "TABLESPACE" in words


def built_index(statement: Statement) -> BuiltIndex | None:
    """The index of CREATE INDEX … CONCURRENTLY or IF NOT EXISTS, when it is named."""
    words = list(statement.words)
    if words[0] != "CREATE" or "INDEX" not in words[1:3] or "ON" not in words:
        return None
    head, tail = words[words.index("INDEX") + 1 : words.index("ON")], words[words.index("ON") + 1 :]
    name = [word for word in head if word not in {"CONCURRENTLY", "IF", "NOT", "EXISTS"}]
    if not name or len(name) == len(head):
        return None
    table = [word for word in tail if word != "ONLY"]
    parts = 3 if table[1:2] == ["."] else 1
    return BuiltIndex(folded(name[-1]), "".join(f'"{folded(part)}"' if part != "." else part for part in table[:parts]))


def _unwrapped(statements: Sequence[Statement], expanded: Expanded, file: str) -> tuple[Statement, ...]:
    kinds = [transaction_control(statement.words) for statement in statements]
    begins = [at for at, kind in enumerate(kinds) if kind == "begin"]
    inner = list(statements)
    if begins and kinds[-1] == "commit" and all(statement.words[0] == "SET" for statement in statements[: begins[0]]):
        inner = [*statements[: begins[0]], *_begin_modes(statements[begins[0]]), *statements[begins[0] + 1 : -1]]
    for statement in inner:
        if transaction_control(statement.words) not in {"", "savepoint"}:
            raise InputError(
                f"{file}, line {expanded.line(statement.start)}: {' '.join(statement.words[:2])} cannot be run as "
                "part of one transaction, and a migration is one.",
                fix="Let one BEGIN; … COMMIT; stand around the whole file, or none, and split the file otherwise.",
            )
    if not inner:
        raise InputError(f"{file} holds nothing between BEGIN and COMMIT.", fix="Write a statement.")
    return tuple(inner)


def _begin_modes(begin: Statement) -> list[Statement]:
    """BEGIN ISOLATION LEVEL … as SET TRANSACTION …, at the same place; nothing for a plain BEGIN."""
    modes = [word for word in begin.words[1:] if word not in _NOISE]
    return (
        [replace(begin, text=f"SET TRANSACTION {' '.join(modes)}", words=("SET", "TRANSACTION", *modes))]
        if modes
        else []
    )
