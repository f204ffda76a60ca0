# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Render an env file that systemd reads back unchanged; pure.

Source of the rules: systemd.exec(5), EnvironmentFile=, and env-file.c. In double quotes a backslash takes the meaning
from a quote, a backslash, a backtick and a dollar sign, and a line break stands for itself. Nothing is expanded. A
value with another control character is dropped with no more than a line in the journal, so that it is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import to_text
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

#: What each unit gets from its release; an env file would override it.
OWN_VARIABLES = frozenset({"APP_NAME", "APP_RELEASE"})
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENTRY = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:\\.|[^"\\])*)"|([^\n"]*))\n""", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def render(values: Mapping[Any, object], variable: str = "app_env") -> str:
    """An env file with one NAME=value a line, in the order given.

    Raises InputError for a name or a value that systemd would drop (the value is not shown), and for a name of ours.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{variable} is no mapping of variables.", fix="Give names with their values.")
    lines = []
    for key, value in values.items():
        name = str(key)
        if isinstance(value, Mapping | list | tuple):
            raise InputError(
                f"The value of {variable}.{name} is a {type(value).__name__}.",
                fix="Write it as text, as the program wants it.",
            )
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{variable} has a variable named {name!r}.",
                fix="Use letters, digits and underscores, not a digit first.",
            )
        if name in OWN_VARIABLES:
            raise InputError(f"{variable} sets {name}, which each unit gets from its release.", fix="Leave it out.")
        text = to_text(value)
        if _CONTROL.search(text):
            raise InputError(
                f"The value of {variable}.{name} has a control character, which systemd takes in no variable.",
                fix="Encode it, for example in base64.",
            )
        lines.append(f"{name}={_quoted(text)}\n")
    return "".join(lines)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def values(text: str) -> dict[str, str]:
    """The values of a text that render() wrote, by name."""
    return {
        match[1]: re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL) if match[2] is not None else match[3]
        for match in _ENTRY.finditer(text)
    }
