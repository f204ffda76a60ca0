# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The one error family of the collection: what was asked, what was found, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class GroundworkError(Exception):
    """An error that a user can act on.

    problem: one sentence that says what was asked and what was found.
    fix:     one sentence that says what to do.
    details: keys that the module returns beside ``msg`` (JSON-ready; never a secret).
    """

    def __init__(self, problem: str, *, fix: str = "", **details: Any) -> None:
        self.problem = problem
        self.fix = fix
        self.details = details
        super().__init__(f"{problem} {fix}".strip())


class InputError(GroundworkError):
    """What the user wrote (an option, a variable, a file) cannot be used as it is."""


class DependencyError(GroundworkError):
    """A program or a Python library is missing or too old."""


class UnreachableError(GroundworkError):
    """A server did not answer, or refused the connection."""


class StateError(GroundworkError):
    """What was found on the host or in the database does not allow what was asked."""


class CommandError(GroundworkError):
    """A command failed. details hold cmd (list), rc (int), stderr (text)."""


def last_lines(text: str, count: int = 20) -> str:
    """The last *count* lines of a text, for error messages."""
    return "\n".join(text.rstrip().splitlines()[-count:])


@contextmanager
def os_errors(asked: str) -> Iterator[None]:
    """Turn an OSError inside the block into a sentence; *asked* continues "Could not …".

    What is about a pipe, which is full or has no reader any more, is left as it is. Raises StateError.
    """
    try:
        yield
    except (BlockingIOError, BrokenPipeError):
        raise
    except OSError as error:
        fixes = {
            errno.ENOSPC: "Free space on that file system, then run again.",
            errno.EDQUOT: "Raise the quota or free space, then run again.",
            errno.EACCES: "Run with become, or give this user access.",
            errno.EPERM: "Run with become, or give this user access.",
            errno.EROFS: "The file system is read-only: remount it, or choose another folder.",
            errno.ENOENT: "Check the path.",
        }
        raise StateError(
            f"Could not {asked}: {error.strerror or error}.", fix=fixes.get(error.errno or 0, "")
        ) from error
