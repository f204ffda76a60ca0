# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""psql's variables in a SQL script: :name, :'name' and :"name", with psql's quoting rules; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _sql
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

_NAME = re.compile(rf"{_sql.LETTER_OR_DIGIT}+")
_SHORTEST_SECRET = 4  # replacing "1" or "on" in a message would only garble it
_IDENTIFIER_BYTES = 63  # the server cuts longer names, also in its messages


@dataclass(frozen=True)
class Expanded:
    """A script with its variables replaced.

    edits: for each replacement (start, end) in the new text, and the newlines that it added.
    """

    text: str
    edits: tuple[tuple[int, int, int], ...]

    def line(self, offset: int) -> int:
        """The line in the file as written, from 1, of a character of the new text."""
        added = sum(newlines for _, end, newlines in self.edits if end <= offset)
        return _sql.line_at(self.text, offset) - added

    def edited(self, start: int, end: int) -> bool:
        """Whether a replacement lies in text[start:end]."""
        return any(start <= edit_start < end for edit_start, _, _ in self.edits)


def check_variables(variables: Mapping[str, Any]) -> dict[str, str]:
    """The variables as text. Raises InputError for a bad name or a value that is no scalar; never tells a value."""
    checked: dict[str, str] = {}
    for name, value in variables.items():
        if not _NAME.fullmatch(str(name)):
            raise InputError(
                f"The variable name {name!r} cannot be written in a script.", fix="Use letters, digits and underscores."
            )
        if not isinstance(value, str | int | float):
            raise InputError(f"The variable {name!r} is not a text or a number.", fix="Give it a scalar value.")
        checked[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
        if "\0" in checked[str(name)]:
            raise InputError(f"The variable {name!r} holds a NUL character.", fix="PostgreSQL cannot store it.")
    return checked


def expand(text: str, variables: Mapping[str, str], file: str) -> Expanded:
    """Replace variables outside of literals, quoted names and comments; a value is not searched for more variables.

    An unknown :name stays as it is (it may be an array slice). Raises InputError for an unknown :'name' or :"name".
    """
    if ":" not in text:
        return Expanded(text, ())
    parts: list[str] = []
    edits: list[tuple[int, int, int]] = []
    length = 0
    for token in _sql.tokens(text, file, variables=True):
        raw = text[token.start : token.end]
        part = raw
        if token.kind == "variable":
            quote, name = raw[1], raw.strip(":'\"")
            if name in variables:
                part = _quoted(variables[name], quote)
                edits.append((length, length + len(part), part.count("\n")))
            elif quote in "'\"":
                raise InputError(
                    f"{file}, line {_sql.line_at(text, token.start)}: the variable {name!r} is not known.",
                    fix="Add it to variables, or write a space after the colon when it is not meant as a variable.",
                )
        parts.append(part)
        length += len(part)
    return Expanded("".join(parts), tuple(edits))


def redact(text: str, variables: Mapping[str, str]) -> str:
    """A server's message without the values of variables, in each way in which it may quote them."""
    forms: dict[str, str] = {}
    for name, value in variables.items():
        cut = value.encode()[:_IDENTIFIER_BYTES].decode(errors="ignore")
        for form in (value, _quoted(value, "'"), _quoted(value, '"'), cut, *value.splitlines()):
            bare = form.strip().removeprefix("E").strip("'\"") if form is not value else form
            if len(bare) >= _SHORTEST_SECRET:
                forms[bare] = f"(value of {name})"
    if not forms:
        return text
    found = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    return found.sub(lambda match: forms[match[0]], text)


def literal(value: str) -> str:
    """A value as a SQL literal."""
    return _quoted(value, "'")


def _quoted(value: str, quote: str) -> str:
    """A value as psql writes it: PQescapeLiteral and PQescapeIdentifier of libpq."""
    if quote == '"':
        return '"' + value.replace('"', '""') + '"'
    if quote != "'":
        return value
    literal = "'" + value.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{literal}" if "\\" in value else literal
