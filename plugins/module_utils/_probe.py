# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health checks, what every kind shares: the answer of one attempt, what the user asked for, masking of secrets."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError

MASK = "********"

RELEASE: dict[str, Any] = {  # the option of every kind that can tell one release from another
    "type": "dict",
    "options": {"field": {"type": "str", "required": True}, "equals": {"type": "str", "required": True}},
}


@dataclass(frozen=True)
class Outcome:
    """What one attempt found. "Not reachable" is an outcome, never an exception.

    state:    up, down, or unknown: it is on its way, or who could tell did not answer. Neither up nor down holds then.
    reason:   why it is not up, in words.
    terminal: it will not come up by itself any more, so that waiting is of no use.
    status:   the HTTP status, or the state that Docker tells.
    body:     text of the answer.
    """

    state: Literal["up", "down", "unknown"]
    reason: str = ""
    terminal: bool = False
    status: int | str | None = None
    body: str = ""


class Probe(ABC):
    """One check that can be tried again and again; it may remember what it saw before.

    secrets: texts that must appear in no result. pause: the shortest useful time between two attempts, in seconds.
    """

    secrets: tuple[str, ...] = ()
    pause: float = 0.05

    @abstractmethod
    def attempt(self, seconds: float) -> Outcome:
        """Try once; an attempt that takes longer than *seconds* is over."""

    def logs(self, lines: int) -> list[str]:  # noqa: ARG002, RUF100 - most kinds have no log of their own
        """The last lines of the log of what is checked."""
        return []


@dataclass(frozen=True)
class Asked:
    """The keys of one check that the user gave (no None among them), with its name for the error messages."""

    check: str
    given: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key."""
        return self.given.get(key, default)

    def error(self, problem: str, fix: str = "") -> InputError:
        """The error that names the check."""
        return InputError(f"Check {self.check!r}: {problem}", fix=fix)

    def port(self, key: str, default: int) -> int:
        """A port. Raises InputError."""
        port = int(self.get(key, default))
        if not 0 < port < 65536:
            raise self.error(f"{key} is {port}; a port is a number from 1 to 65535.")
        return port

    def pattern(self, key: str, text: str) -> re.Pattern[str]:
        """A compiled regular expression. Raises InputError."""
        try:
            return re.compile(text)
        except re.error as error:
            raise self.error(
                f"{key} is not a regular expression: {error}: {text!r}.", "Python's syntax applies."
            ) from error

    def expression(self, key: str, text: str) -> Expression:
        """A compiled JMESPath expression. Raises InputError and DependencyError."""
        try:
            import jmespath  # noqa: PLC0415 - Debian's base system does not have it
            from jmespath import exceptions  # noqa: PLC0415
        except ImportError as error:
            raise DependencyError(
                f"Check {self.check!r}: {key} needs the Python library jmespath, "
                f"which {sys.executable or 'this Python'} does not have.",
                fix="Install the Debian package python3-jmespath on that host.",
            ) from error
        try:
            compiled = jmespath.compile(text)
            compiled.search({})  # an unknown function shows only here
        except exceptions.JMESPathTypeError:
            pass  # a function that gets null from an empty answer
        except exceptions.JMESPathError as error:
            told = str(error).splitlines()[0].rstrip(".: ")
            raise self.error(f"{key} is not a JMESPath expression: {told}: {text!r}.") from error
        return Expression(text, compiled.search, exceptions.JMESPathError)

    def release(self) -> ReleaseMatch | None:
        """What O(release) asks for, if anything. Raises InputError and DependencyError."""
        wanted = self.get("release")
        if wanted is None:
            return None
        return ReleaseMatch(self.expression("release.field", wanted["field"]), wanted["equals"])


@dataclass(frozen=True)
class Expression:
    """A JMESPath expression that can be applied to JSON data."""

    text: str
    _search: Callable[[Any], Any]
    _error: type[Exception]

    def value(self, data: Any) -> Any:
        """The result on *data*; null where the expression does not fit the data."""
        try:
            return self._search(data)
        except self._error:
            return None


@dataclass(frozen=True)
class ReleaseMatch:
    """A field of the answer that tells which release answers, and what it should be."""

    field: Expression
    equals: str

    def mismatch(self, data: Any) -> str:
        """Why *data* is not from the wanted release; empty when it is."""
        found = self.field.value(data)
        if same(found, self.equals):
            return ""
        return f"another release answers: {self.field.text} is {brief(found)}, expected {brief(self.equals)}"


def same(found: Any, wanted: Any) -> bool:
    """Equality of JSON values; a text also equals the number or boolean that it spells, as templates make texts."""
    if isinstance(wanted, str) and isinstance(found, bool | int | float):
        return wanted.lower() == json.dumps(found)
    return bool(found == wanted)


def brief(value: Any, limit: int = 80) -> str:
    """A JSON value on one short line, for messages."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


@dataclass(frozen=True)
class Masker:
    """Replaces secrets in texts, also as JSON and URLs spell them."""

    secrets: Iterable[str]
    _pattern: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        forms = {form for secret in self.secrets for form in _spellings(secret)}
        longest_first = sorted(filter(None, forms), key=len, reverse=True)
        object.__setattr__(
            self, "_pattern", re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        )

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text


def _spellings(secret: str) -> tuple[str, ...]:
    in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    return secret, *in_json, quote(secret, safe="")


def network_outcome(error: OSError, where: str, seconds: float, *, fail_fast: bool) -> Outcome:
    """The outcome of an attempt that the network ended; *where* names the peer."""
    unresolved = isinstance(error, socket.gaierror)
    return Outcome("down", _in_words(error, where, seconds), terminal=unresolved and fail_fast)


def _in_words(error: OSError, where: str, seconds: float) -> str:
    match error:
        case socket.gaierror():
            told = f"the name of {where} cannot be resolved ({error.strerror})"
        case ssl.SSLCertVerificationError():
            told = f"the certificate of {where} is not accepted: {error.verify_message}"
        case ssl.SSLError():
            told = f"no TLS with {where}: {error.reason or error}"
        case TimeoutError():
            told = f"no answer from {where} within {seconds:.3g} seconds"
        case ConnectionRefusedError():
            told = f"connection refused by {where}"
        case ConnectionError():
            told = f"{where} closed the connection without an answer"
        case _:
            told = f"no connection to {where}: {error.strerror or error}"
    return told
