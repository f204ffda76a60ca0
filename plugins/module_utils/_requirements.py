# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a requirements file brings: the files it includes, whether it has hashes, what makes its result unique. Pure.

Source of the format: pip's documentation, "Requirements File Format".
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

_INCLUDE = re.compile(r"(?:-[rc]\s*=?\s*|--(?:requirement|constraint)(?:\s+|=))(\S+)")
_HASH = re.compile(r"(?:^|\s)--hash[= ]")
_EDITABLE = re.compile(r"-e|--editable\b|-f|--find-links\b")
# pip takes a name with a slash for a path, too.
_LOCAL = re.compile(r"(?:\S+\s*@\s*)?(?:file:|\.{0,2}/|\.(?:\s|\[|$))|(?!-)[^\s:;#]+/")
_COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)


@dataclass(frozen=True)
class Requirements:
    """files: name below the release -> text, with the included ones; local: whether they name files of it."""

    files: dict[str, str]
    hashed: bool
    local: bool

    def digest(self, *others: str) -> str:
        """Twelve hex digits for the content of the files and for what else decides about the result."""
        told = hashlib.sha256()
        for part in [*others, *(text for item in sorted(self.files.items()) for text in item)]:
            told.update(f"{len(part)} {part}\0".encode())
        return told.hexdigest()[:12]


def read_requirements(path: str, read: Callable[[str], str]) -> Requirements:
    """The file *path* with what it includes; *read* gives the text of a file below the release.

    Raises InputError for a file outside of the release, and what *read* raises.
    """
    files: dict[str, str] = {}
    hashed = local = False
    waiting = [posixpath.normpath(path)]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        if name.startswith(("/", "../")):
            raise InputError(
                f"The requirements in {path} include {name}, which is outside of the release.",
                fix="Keep the file in the source.",
            )
        files[name] = text = read(name)
        for line in _lines(text):
            hashed = hashed or bool(_HASH.search(line))
            if match := _INCLUDE.match(line):
                if "://" not in match[1]:
                    waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), match[1])))
            elif _EDITABLE.match(line) or _LOCAL.match(line):
                local = True
    return Requirements(files, hashed, local)


def _lines(text: str) -> list[str]:
    """Without comments, with lines that go on put together."""
    joined = text.replace("\r\n", "\n").replace("\\\n", " ")
    return [line for raw in _COMMENT.sub("", joined).splitlines() if (line := raw.strip())]
