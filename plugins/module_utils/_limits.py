# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""How long a migration waits and runs: from the options, and from the comments at the top of a file; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

_UNITS_MS = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
_MARK = re.compile(r"--\s*groundwork:(.*)")
_FIELDS = {"lock_timeout": "lock_timeout_ms", "statement_timeout": "statement_timeout_ms"}


@dataclass(frozen=True)
class Limits:
    """How long a statement waits for a lock and runs (milliseconds, 0: no limit), and how often a wait is repeated."""

    lock_timeout_ms: int
    statement_timeout_ms: int
    lock_retries: int


NO_LIMITS = Limits(0, 0, 0)


def milliseconds(option: str, value: str | None) -> int:
    """A duration such as "5s", "500ms", "2min" or "500" (milliseconds). Raises InputError that names the option."""
    match = re.fullmatch(r"([0-9]{1,9})\s*(ms|s|min|h|)", (value or "0").strip())
    if not match or int(match[1]) * _UNITS_MS[match[2]] >= 2**31:
        raise InputError(f"{option} is {value!r}, which is no duration.", fix="Write it like 5s, 500ms, 2min or 1h.")
    return int(match[1]) * _UNITS_MS[match[2]]


def of_file(limits: Limits, text: str, file: str) -> Limits:
    """The limits with what the comments before the first statement say: -- groundwork: lock_timeout=10s.

    Raises InputError, with the line, for what is no such setting.
    """
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("--"):
            break
        if not (match := _MARK.match(stripped)):
            continue
        for word in match[1].split():
            name, _, value = word.partition("=")
            if name not in _FIELDS or not value:
                raise InputError(
                    f"{file}, line {number}: {word!r} is no setting of a migration.",
                    fix="Write -- groundwork: lock_timeout=10s statement_timeout=1h, or one of the two.",
                )
            limits = replace(limits, **{_FIELDS[name]: milliseconds(f"{file}, line {number}: {name}", value)})
    return limits
