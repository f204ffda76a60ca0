# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind file: something is at a path, is large and young enough, and holds what it should."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe

OPTIONS: dict[str, dict[str, Any]] = {
    "path": {"type": "path"},
    "min_bytes": {"type": "int"},
    "max_age": {"type": "float"},
    "regex": {"type": "str"},
}
_READ_LIMIT = 1 << 16


@dataclass
class FileProbe(Probe):
    """Looks at the path; a symbolic link counts as what it points to. max_age is in seconds."""

    path: Path
    min_bytes: int | None
    max_age: float | None
    pattern: re.Pattern[str] | None

    def attempt(self, seconds: float) -> Outcome:  # noqa: ARG002, RUF100 - a file system has no time limit
        """Up when the path is there and what is asked of it holds."""
        try:
            found = self.path.stat()
            text = self._text(stat.S_ISREG(found.st_mode))
        except FileNotFoundError:
            return Outcome("down", f"there is no {self.path}")
        except OSError as error:
            return Outcome("unknown", f"{self.path} cannot be read: {error.strerror}")
        age = time.time() - found.st_mtime
        reason = ""
        if self.min_bytes is not None and found.st_size < self.min_bytes:
            reason = f"{self.path} has {found.st_size} bytes, expected at least {self.min_bytes}"
        elif self.max_age is not None and age > self.max_age:
            reason = f"{self.path} was changed {age:.0f} seconds ago, expected at most {self.max_age:g}"
        elif self.pattern and not (text and self.pattern.search(text)):
            reason = f"{self.path} does not match {self.pattern.pattern!r}"
        return Outcome("down" if reason else "up", reason, status=stat.filemode(found.st_mode))

    def _text(self, regular: bool) -> str:
        if not self.pattern or not regular:  # reading from a pipe would wait, and take what is meant for others
            return ""
        with self.path.open("rb") as file:
            return file.read(_READ_LIMIT).decode(errors="replace")


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"file {given['path']}"


def build(asked: Asked) -> FileProbe:
    """The probe for the keys of one check. Raises InputError."""
    path, regex = Path(asked.get("path")), asked.get("regex")
    if not path.is_absolute():
        raise asked.error(f"path {str(path)!r} is not absolute.")
    for key in ("min_bytes", "max_age"):
        if asked.get(key, 0) < 0:
            raise asked.error(f"{key} is {asked.get(key):g}; it is 0 or more.")
    return FileProbe(
        path, asked.get("min_bytes"), asked.get("max_age"), asked.pattern("regex", regex) if regex else None
    )
