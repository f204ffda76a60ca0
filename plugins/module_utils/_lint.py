# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Statements that lose data, break the release before, or block readers; pure. The rules have squawk's names.

A table that the scripts themselves create is empty and unused, so that nothing on it is dangerous. A comment
"-- squawk-ignore RULE, RULE" right before a statement allows it, "-- squawk-ignore-file RULE" the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ansible_collections.groundwork.backend.plugins.module_utils._script import Script
from ansible_collections.groundwork.backend.plugins.module_utils._sql import folded

RULES = {
    "ban-drop-column": "the release before still uses the column, and its data is lost",
    "ban-drop-database": "all of its data is lost",
    "ban-drop-not-null": "the release before may not expect NULL",
    "ban-drop-table": "the release before still uses the table, and its data is lost",
    "ban-truncate-cascade": "it empties tables that the statement does not name",
    "adding-not-nullable-field": "it reads the whole table under a lock; add a CHECK … NOT VALID and validate it first",
    "adding-required-field": "it fails on a table with rows and in the release before; add a DEFAULT",
    "changing-column-type": "it rewrites the table under a lock, and the release before expects the old type",
    "constraint-missing-not-valid": "it reads the whole table under a lock; add it NOT VALID and validate it later",
    "disallowed-unique-constraint": "it builds an index under a lock; build it concurrently, then ADD … USING INDEX",
    "renaming-column": "the release before uses the old name",
    "renaming-table": "the release before uses the old name",
    "require-concurrent-index-creation": "it blocks writers; use CREATE INDEX CONCURRENTLY in a file of its own",
    "require-concurrent-index-deletion": "it blocks readers; use DROP INDEX CONCURRENTLY in a file of its own",
}
# Rules of RULES after which data is gone, or not what it was.
_LOSSY = {"ban-drop-column", "ban-drop-database", "ban-drop-table", "ban-truncate-cascade", "changing-column-type"}
# What DROP … CASCADE takes columns or tables away with.
_OWNERS = {"DOMAIN", "EXTENSION", "SCHEMA", "TYPE"}
_IGNORED = re.compile(r"--\s*squawk-ignore(?P<file>-file)?[ \t]+(?P<rules>[a-z, \t-]+)")
_SKIPPED = {"IF", "NOT", "EXISTS", "ONLY"}


@dataclass(frozen=True)
class Finding:
    """One dangerous statement."""

    file: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.rule} ({RULES[self.rule]})."


def findings(scripts: Sequence[Script]) -> list[Finding]:
    """What is dangerous in scripts that run one after the other."""
    found: list[Finding] = []
    created: set[str] = set()

    def is_new(table: str) -> bool:
        return _bare(table) in created  # the schema may come from search_path

    for script in scripts:
        text = script.expanded.text
        whole = set().union(*(_rules(match) for match in _IGNORED.finditer(text) if match["file"]))
        end = 0
        for statement in script.statements:
            before = _IGNORED.finditer(text, end, statement.start)
            ignored = whole.union(*(_rules(match) for match in before))
            end = statement.end
            words = statement.words
            created.update(map(_bare, _creates(words)))
            found += [
                Finding(script.file, script.line(statement), rule)
                for rule in _check(words, is_new)
                if rule not in ignored
            ]
    return found


def losses(scripts: Sequence[Script]) -> list[list[str]]:
    """For each of scripts that run one after the other, the rules by which it loses data, without duplicates.

    Beside those of RULES: "truncate", "drop-owned", and "drop-cascade" (of a schema, type, domain or extension). What
    is allowed by a comment counts as well. What a DO block or a function does is not seen.
    """
    created: set[str] = set()
    temporary: set[str] = set()

    def is_new(table: str) -> bool:
        return table.removeprefix("public.") in created | temporary

    found: list[list[str]] = []
    for script in scripts:
        rules: dict[str, None] = {}
        temporary.clear()
        for statement in script.statements:
            words = statement.words
            for table in _creates(words):
                if "EXISTS" not in words[3:6]:  # it may be there, with data
                    (created if words[1] in {"TABLE", "UNLOGGED"} else temporary).add(table.removeprefix("public."))
            rules.update(dict.fromkeys(rule for rule in _check(words, is_new) if rule in _LOSSY))
            rules.update(dict.fromkeys(_loses(words, is_new)))
        found.append(list(rules))
    return found


def _loses(words: Sequence[str], is_new: Callable[[str], bool]) -> Iterator[str]:
    if words[0] == "TRUNCATE" and words[-1] != "CASCADE":
        names = words[2:] if words[1:2] == ("TABLE",) else words[1:]
        if not all(is_new(_name(one, 0)[0]) for one in _actions(names)):
            yield "truncate"
    elif tuple(words[:2]) == ("DROP", "OWNED"):
        yield "drop-owned"
    elif words[0] == "DROP" and words[1] in _OWNERS and words[-1] == "CASCADE":
        yield "drop-cascade"


def _creates(words: Sequence[str]) -> list[str]:
    """The table that a statement creates."""
    if words[0] == "CREATE" and "TABLE" in words[1:4]:
        return [_name(words, words.index("TABLE") + 1)[0]]
    return []


def _bare(table: str) -> str:
    return table.rpartition(".")[2]


def _rules(match: re.Match[str]) -> set[str]:
    return set(re.split(r"[,\s]+", match["rules"].strip()))


def _name(words: Sequence[str], at: int) -> tuple[str, int]:
    """The name of a relation as it is written, folded, and the place behind it."""
    while at < len(words) and words[at] in _SKIPPED:
        at += 1
    schema = ""
    if list(words[at + 1 : at + 2]) == ["."]:
        schema = f"{folded(words[at])}."
        at += 2
    return (schema + folded(words[at]) if at < len(words) else ""), at + 1


def _check(words: Sequence[str], is_new: Callable[[str], bool]) -> Iterator[str]:
    kind = tuple(words[:2])
    if kind == ("DROP", "TABLE"):
        if not all(is_new(_name(one, 0)[0]) for one in _actions(words[2:])):
            yield "ban-drop-table"
    elif kind == ("DROP", "DATABASE"):
        yield "ban-drop-database"
    elif kind == ("DROP", "INDEX") and "CONCURRENTLY" not in words:
        yield "require-concurrent-index-deletion"
    elif words[0] == "TRUNCATE" and words[-1] == "CASCADE":
        yield "ban-truncate-cascade"
    elif words[0] == "CREATE" and "INDEX" in words[1:3] and "CONCURRENTLY" not in words[2:4] and "ON" in words:
        if not is_new(_name(words, words.index("ON") + 1)[0]):
            yield "require-concurrent-index-creation"
    elif kind == ("ALTER", "TABLE"):
        table, at = _name(words, 2)
        if not is_new(table):
            for action in _actions(words[at:]):
                yield from _action(action)


def _actions(words: Sequence[str]) -> Iterator[Sequence[str]]:
    depth, start = 0, 0
    for at, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if word == "," and not depth:
            yield words[start:at]
            start = at + 1
    yield words[start:]


def _action(words: Sequence[str]) -> Iterator[str]:
    kind, rest = words[0] if words else "", [word for word in words[1:] if word != "COLUMN"]
    pairs = set(pairwise(rest))
    if kind == "DROP" and rest[:1] != ["CONSTRAINT"]:
        yield "ban-drop-column"
    elif kind == "RENAME" and rest[:1] != ["CONSTRAINT"]:
        yield "renaming-table" if rest[:1] == ["TO"] else "renaming-column"
    elif kind == "ALTER" and rest[:1] != ["CONSTRAINT"]:
        if rest[1:2] == ["TYPE"] or rest[1:4] == ["SET", "DATA", "TYPE"]:
            yield "changing-column-type"
        elif rest[1:4] == ["SET", "NOT", "NULL"]:
            yield "adding-not-nullable-field"
        elif rest[1:4] == ["DROP", "NOT", "NULL"]:
            yield "ban-drop-not-null"
    elif kind == "ADD" and rest[:1] and rest[0] in {"CONSTRAINT", "FOREIGN", "CHECK", "UNIQUE"}:
        if "UNIQUE" in rest and ("USING", "INDEX") not in pairs:
            yield "disallowed-unique-constraint"
        elif {"FOREIGN", "CHECK"} & set(rest) and ("NOT", "VALID") not in pairs:
            yield "constraint-missing-not-valid"
    elif kind == "ADD" and ("NOT", "NULL") in pairs and not {"DEFAULT", "GENERATED"} & set(rest):
        yield "adding-required-field"
