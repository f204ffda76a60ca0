# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind http: one request, and conditions on its answer. Redirects are not followed unless asked."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._probe import (
    RELEASE,
    Asked,
    Expression,
    Outcome,
    Probe,
    ReleaseMatch,
    brief,
    network_outcome,
    same,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_http_wire import (
    Answer,
    Route,
    origin,
    redirected,
    send,
    tls_context,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "url": {"type": "str"},
    "method": {"type": "str"},
    "headers": {"type": "dict"},
    "secret_headers": {"type": "dict", "no_log": True},
    "body": {"type": "raw"},
    "status": {"type": "list", "elements": "int"},
    "jmespath": {"type": "str"},
    "expect_value": {"type": "raw"},
    "regex": {"type": "str"},
    "header_regex": {"type": "dict"},
    "release": RELEASE,
    "follow_redirects": {"type": "bool"},
    "validate_certs": {"type": "bool"},
    "ca_cert": {"type": "path"},
    "server_name": {"type": "str"},
    "address": {"type": "str"},
    "unix_socket": {"type": "path"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "bearer": {"type": "str", "no_log": True},
    "fail_fast": {"type": "bool"},
}
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Conditions:
    """What an answer has to fulfil."""

    status: tuple[int, ...]
    header_patterns: Mapping[str, re.Pattern[str]]
    pattern: re.Pattern[str] | None
    expression: Expression | None
    expect_value: Any
    release: ReleaseMatch | None

    def unmet(self, answer: Answer) -> str:
        """The first condition that the answer does not fulfil, in words; empty when there is none."""
        if answer.status not in self.status:
            target = f" (redirect to {answer.headers['location']})" if "location" in answer.headers else ""
            return f"status {answer.status}{target}, expected {' or '.join(map(str, self.status))}"
        for name, pattern in self.header_patterns.items():
            found = answer.headers.get(name.lower())
            if found is None or not pattern.search(found):
                told = "is missing" if found is None else f"is {brief(found)}"
                return f"the header {name} {told}, expected a match of {pattern.pattern!r}"
        if self.pattern and not self.pattern.search(answer.text):
            return f"the answer does not match {self.pattern.pattern!r}"
        return self._unmet_in_json(answer.text)

    def _unmet_in_json(self, text: str) -> str:
        if not self.expression and not self.release:
            return ""
        try:
            data = json.loads(text)
        except ValueError as error:
            return f"the answer is not JSON ({error})"
        if self.expression:
            value = self.expression.value(data)
            if self.expect_value is None and not value:
                return f"{self.expression.text} is {brief(value)} in the answer"
            if self.expect_value is not None and not same(value, self.expect_value):
                return f"{self.expression.text} is {brief(value)}, expected {brief(self.expect_value)}"
        return self.release.mismatch(data) if self.release else ""


@dataclass
class HttpProbe(Probe):
    """Sends one request for each attempt, over a connection of its own; proxies of the environment are not used."""

    route: Route
    method: str
    headers: Mapping[str, str]
    secret_headers: Mapping[str, str]
    body: bytes | None
    conditions: Conditions
    follow_redirects: bool
    fail_fast: bool
    secrets: tuple[str, ...]

    def attempt(self, seconds: float) -> Outcome:
        """Up when the answer fulfils every condition."""
        end = time.monotonic() + seconds
        route, method, body = self.route, self.method, self.body
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                answer = self._ask(route, method, body, end)
                if not (self.follow_redirects and answer.status in _REDIRECTS and "location" in answer.headers):
                    break
                route = redirected(route, answer.headers["location"])
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
        except OSError as error:
            return network_outcome(error, route.where, seconds, fail_fast=self.fail_fast)
        except (http.client.HTTPException, ValueError) as error:
            return Outcome("down", f"{route.where} did not answer with complete HTTP ({type(error).__name__}: {error})")
        unmet = self.conditions.unmet(answer)
        return Outcome("down" if unmet else "up", unmet, status=answer.status, body=answer.text)

    def _ask(self, route: Route, method: str, body: bytes | None, end: float) -> Answer:
        headers = {"Host": route.url.netloc, "Connection": "close", "User-Agent": "groundwork.backend.health_wait"}
        if origin(route.url) == origin(self.route.url):  # what is meant for one server goes to no other
            headers |= {**self.headers, **self.secret_headers}
        return send(route, method, body, headers, end)


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return str(given["url"])


def build(asked: Asked) -> HttpProbe:
    """The probe for the keys of one check. Raises InputError and DependencyError."""
    headers, secret_headers, secrets = _headers(asked)
    body = asked.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
        headers = {"Content-Type": "application/json", **headers}
    if "expect_value" in asked.given and "jmespath" not in asked.given:
        raise asked.error("expect_value needs jmespath, the expression whose result it is compared with.")
    method = asked.get("method", "GET").upper()
    if not re.fullmatch(r"[A-Z]+", method):
        raise asked.error(f"method {method!r} is no HTTP method.")
    expression, header_regex = asked.get("jmespath"), asked.get("header_regex", {})
    return HttpProbe(
        _route(asked),
        method,
        headers,
        secret_headers,
        body.encode() if body is not None else None,
        Conditions(
            tuple(asked.get("status") or [200]),
            {name: asked.pattern(f"header_regex.{name}", text) for name, text in header_regex.items()},
            asked.pattern("regex", asked.get("regex")) if asked.get("regex") else None,
            asked.expression("jmespath", expression) if expression else None,
            asked.get("expect_value"),
            asked.release(),
        ),
        asked.get("follow_redirects", False),
        asked.get("fail_fast", False),
        secrets,
    )


def _route(asked: Asked) -> Route:
    text = asked.get("url")
    url = _split(text)
    if url is None:
        raise asked.error(
            "url is not a URL that can be asked.", "Write http:// or https://, a host, and a path without spaces."
        )
    if "@" in url.netloc:
        raise asked.error("url holds a user name or a password.", "Put them into username and password.")
    if "address" in asked.given and "unix_socket" in asked.given:
        raise asked.error("address and unix_socket exclude each other.")
    context = None
    if url.scheme == "https" or asked.get("follow_redirects"):
        try:
            context = tls_context(asked.get("ca_cert"), asked.get("validate_certs", True))
        except OSError as error:
            told = error.strerror or str(error)
            raise asked.error(f"ca_cert {asked.get('ca_cert')} holds no usable certificate: {told}.") from error
    return Route(url, context, asked.get("address"), asked.get("unix_socket"), asked.get("server_name"))


def _split(text: str) -> SplitResult | None:
    """The parts of a URL that a request can be sent to, else None."""
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if good and text.isascii() and not re.search(r"[\x00-\x20\x7f]", text) else None


def _headers(asked: Asked) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Ordinary headers, secret headers, and every text that is a secret."""
    ordinary = {name: str(value) for name, value in asked.get("headers", {}).items()}
    secret = {name: str(value) for name, value in asked.get("secret_headers", {}).items()}
    username, password, bearer = (asked.get(key) for key in ("username", "password", "bearer"))
    if (username is None) != (password is None):
        raise asked.error("username and password belong together, and only one of them is set.")
    if username is not None and bearer is not None:
        raise asked.error("username with password, and bearer exclude each other.")
    secrets = [*secret.values()]
    if bearer is not None:
        secret["Authorization"] = f"Bearer {bearer}"
        secrets.append(bearer)
    if username is not None:
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        secret["Authorization"] = f"Basic {token}"
        secrets += [password, token]
    for name, value in {**ordinary, **secret}.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]|[^\x00-\xff]", value):
            raise asked.error(
                f"the header {name!r} cannot be sent: its name or value holds a character that HTTP does not allow.",
                "Look for a line break at the end of the value.",
            )
    return ordinary, secret, tuple(secrets)
