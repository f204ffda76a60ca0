# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Render an env file that Docker Compose 2.24 or newer reads back unchanged; pure.

Source of the rules: the dotenv package of compose-go. Unquoted values end at " #" and are expanded; single quotes are
literal but cannot hold a single quote or end in a backslash; double quotes know escapes and expand variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ENTRY = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=('[^']*'|"(?:\\.|[^"\\])*"|[^\n]*)\n""", re.DOTALL)


def quote(value: str) -> str:
    """One value, quoted only as far as needed."""
    if _PLAIN.match(value):
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def to_text(value: object) -> str:
    """A value as compose sees it: YAML's true and false in lower case, null as the empty string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def render(values: Mapping[Any, object]) -> str:
    """An env file with one NAME=value a line, in the order given.

    Raises InputError for a name that no shell takes and for a value with a NUL byte (the value is not shown).
    """
    lines = []
    for key, value in values.items():
        name = str(key)
        if isinstance(value, Mapping | list | tuple):
            raise InputError(
                f"The value of app_env.{name} is a {type(value).__name__}.",
                fix="Write it as text, as the program wants it.",
            )
        text = to_text(value)
        if not _NAME.match(name):
            raise InputError(
                f"app_env has a variable named {name!r}.", fix="Use letters, digits and underscores, not a digit first."
            )
        if "\0" in text:
            raise InputError(
                f"The value of app_env.{name} has a NUL byte.", fix="Environment variables cannot hold it."
            )
        lines.append(f"{name}={quote(text)}")
    return "".join(f"{line}\n" for line in lines)


def raw_values(text: str) -> dict[str, str]:
    """The values of a text that render() wrote, by name, still quoted: enough to tell whether one differs."""
    return {match[1]: match[2] for match in _ENTRY.finditer(text)}
