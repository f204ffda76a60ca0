# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Split a SQL script into statements; pure.

The rules are those of PostgreSQL's scanner (src/backend/parser/scan.l) with standard_conforming_strings on. The body of
a SQL-standard function ends at an END that follows a semicolon: no statement in such a body begins with END.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

BOM = "\ufeff"
# A-Z, a-z, _ and everything beyond ASCII; written as what it is not, which compiles in no time
LETTER = r"[^\x00-@\[-\^`\{-\x7f]"
LETTER_OR_DIGIT = r"[^\x00-/:-@\[-\^`\{-\x7f]"
_WORD_PART = r"[^\x00-#%-/:-@\[-\^`\{-\x7f]"  # also $
_SPACE = r"[ \t\n\r\f\v]"
_ESCAPED = r"'(?:[^'\\]++|\\.|'')*+'"
# 'a'<newline>'b' is one literal; after E'…' the next part keeps the backslash rules of the first.
_CONTINUED = r"(?:[ \t\f\v]|--[^\n\r]*)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*[\n\r])*+"
_RULES = {
    "space": rf"{_SPACE}+",
    "comment": r"--[^\n\r]*",
    "nested_comment": r"/\*",
    "string": rf"[eE]{_ESCAPED}(?:{_CONTINUED}{_ESCAPED})*+|'(?:[^']++|'')*+'",
    "identifier": r'"(?:[^"]++|"")*+"',
    "word": rf"{LETTER}{_WORD_PART}*",
    "number": rf"[0-9]{LETTER_OR_DIGIT}*",
    "dollar": rf"\$(?:{LETTER}{LETTER_OR_DIGIT}*)?\$",
    "cast": "::|:=",
}
_OTHER = "(?P<symbol>.)"
_TOKEN = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _RULES.items()) + f"|{_OTHER}", re.DOTALL)
# The same with psql's variables, which only exist outside of literals and comments.
_TOKEN_OR_VARIABLE = re.compile(
    "|".join(f"(?P<{name}>{rule})" for name, rule in _RULES.items())
    + rf"""|(?P<variable>:(?:{LETTER_OR_DIGIT}+|'{LETTER_OR_DIGIT}+'|"{LETTER_OR_DIGIT}+"))|{_OTHER}""",
    re.DOTALL,
)
_COPY_THROUGH_CLIENT = {("FROM", "STDIN"), ("TO", "STDOUT")}
_INSIGNIFICANT = {"space", "comment", "nested_comment"}


class Token(NamedTuple):
    """One token: its kind (a key of the rules above, "variable" or "symbol") and its place, text[start:end]."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Statement:
    """One statement without its semicolon: text is script[start:end] (characters), line is that of start, from 1.

    words are its tokens without comments; unquoted words are in upper case, everything else is as written.
    """

    text: str
    start: int
    end: int
    line: int
    words: tuple[str, ...]


def line_at(text: str, offset: int) -> int:
    """The line number, from 1, of a character."""
    return text.count("\n", 0, offset) + 1


def tokens(text: str, file: str, *, variables: bool = False) -> Iterator[Token]:
    """The tokens of a script, without a gap. Raises InputError at a quote or comment that never ends."""
    pattern = _TOKEN_OR_VARIABLE if variables else _TOKEN
    position = 0
    if text.startswith(BOM):
        position = 1
        yield Token("space", 0, 1)
    while match := pattern.match(text, position):
        kind, start, position = str(match.lastgroup), position, match.end()
        if kind == "nested_comment":
            position = _comment_end(text, file, start)
        elif kind == "dollar":
            closing = text.find(match[0], position)
            if closing < 0:
                raise _never_ends(text, file, start, f"the dollar quote {match[0]}")
            position = closing + len(match[0])
        elif match[0] in ("'", '"'):
            raise _never_ends(text, file, start, f"the quote {match[0]}")
        yield Token(kind, start, position)


def split(text: str, file: str) -> list[Statement]:
    """The statements of a script, in order; empty ones are left out.

    Raises InputError, with *file* and the line, for what only psql can run: meta-commands, and COPY with inline data.
    """
    statements: list[Statement] = []
    words: list[str] = []
    first: Token | None = None
    last = Token("space", 0, 0)
    parentheses, in_body, counted, line = 0, False, 0, 1

    def finish() -> None:
        nonlocal first, words, parentheses, in_body, counted, line
        if first is not None:
            line += text.count("\n", counted, first.start)
            counted = first.start
            statements.append(Statement(text[first.start : last.end], first.start, last.end, line, tuple(words)))
        first, words, parentheses, in_body = None, [], 0, False

    for token in tokens(text, file):
        if token.kind in _INSIGNIFICANT:
            continue
        raw = text[token.start : token.end]
        if raw == "\\":
            raise _psql_only(text, file, token)
        if raw == ";" and not parentheses and not in_body:
            finish()
            continue
        word = raw.upper() if token.kind == "word" and raw.isascii() else raw
        if token.kind == "symbol":
            parentheses = max(0, parentheses + (raw == "(") - (raw == ")"))
        elif word == "ATOMIC" and words[-1:] == ["BEGIN"] and _creates_routine(words):
            in_body = True
        elif word == "END" and words and words[-1] in (";", "ATOMIC"):
            in_body = False
        elif words[:1] == ["COPY"] and (words[-1], word) in _COPY_THROUGH_CLIENT:
            raise InputError(
                f"{file}, line {line_at(text, token.start)}: COPY … {words[-1]} {word.lower()} needs psql, which this "
                "module is not.",
                fix="Write the rows as INSERT, or use COPY with a file of the server.",
            )
        first = first or token
        last = token
        words.append(word)
    finish()
    return statements


def folded(word: str) -> str:
    """The name that a word of a statement stands for: without quotes, or in lower case."""
    return word[1:-1].replace('""', '"') if word.startswith('"') else word.lower()


def _creates_routine(words: list[str]) -> bool:
    return words[0] == "CREATE" and bool({"FUNCTION", "PROCEDURE"} & set(words[1:4]))


def _comment_end(text: str, file: str, start: int) -> int:
    depth, position = 1, start + 2
    mark = re.compile(r"/\*|\*/")
    while match := mark.search(text, position):
        depth += 1 if match[0] == "/*" else -1
        position = match.end()
        if not depth:
            return position
    raise _never_ends(text, file, start, "the comment /*")


def _never_ends(text: str, file: str, start: int, what: str) -> InputError:
    return InputError(f"{file}, line {line_at(text, start)}: {what} that opens here never ends.", fix="Close it.")


def _psql_only(text: str, file: str, token: Token) -> InputError:
    found = re.match(r"\\\S*", text[token.start :])
    command = found[0] if found else "\\"
    return InputError(
        f"{file}, line {line_at(text, token.start)}: {command} is a command of psql, which this module is not.",
        fix="Write it as SQL; put what \\i would include into a migration of its own.",
    )
