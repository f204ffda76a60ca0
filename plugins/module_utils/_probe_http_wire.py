# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""One HTTP request for health checks: address, Unix socket and TLS name apart from the URL, one deadline for all."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, urljoin, urlsplit

_READ_LIMIT = 1 << 20
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Route:
    """How to reach the server: address, socket and server name apart from the URL; context None means no TLS."""

    url: SplitResult
    context: ssl.SSLContext | None
    address: str | None = None
    unix_socket: str | None = None
    server_name: str | None = None

    @property
    def port(self) -> int:
        """The port of the URL, or its scheme's."""
        return self.url.port or _DEFAULT_PORTS[self.url.scheme]

    @property
    def where(self) -> str:
        """The peer, for messages."""
        return self.unix_socket or f"{self.address or self.url.hostname}:{self.port}"

    def connect(self, end: float) -> socket.socket:
        """An open connection, with TLS where the URL asks for it. *end* is on the monotonic clock."""
        if self.unix_socket:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            raw.settimeout(_left(end))
        else:
            raw = socket.create_connection((self.address or self.url.hostname, self.port), timeout=_left(end))
        try:
            if self.unix_socket:
                raw.connect(self.unix_socket)
            if self.context is None or self.url.scheme != "https":
                return raw
            raw.settimeout(_left(end))
            return self.context.wrap_socket(raw, server_hostname=self.server_name or self.url.hostname)
        except BaseException:
            raw.close()
            raise


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and text of an answer."""

    status: int
    headers: Mapping[str, str]
    text: str


def send(route: Route, method: str, body: bytes | None, headers: Mapping[str, str], end: float) -> Answer:
    """One request over a connection of its own.

    Raises OSError (TimeoutError at *end*), HTTPException and ValueError (what came is not HTTP, or not all of it).
    """
    target = (route.url.path or "/") + (f"?{route.url.query}" if route.url.query else "")
    with route.connect(end) as connection:
        connection.settimeout(_left(end))
        client = http.client.HTTPConnection("unused")  # what it would connect to; the socket is ours
        client.sock = connection
        client.request(method, target, body=body, headers=headers)
        with client.getresponse() as response:
            text = _decode(_read(response, connection, end), response.headers.get_content_charset("utf-8"))
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def redirected(route: Route, location: str) -> Route:
    """The route after a redirect; address, socket and server name are for the first server only."""
    url = urlsplit(urljoin(route.url.geturl(), location))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"redirected to {location}")
    return replace(route, url=url) if origin(url) == origin(route.url) else Route(url, route.context)


def origin(url: SplitResult) -> tuple[str, str | None, int]:
    """Scheme, host and port: what a secret may be sent to."""
    return url.scheme, url.hostname, url.port or _DEFAULT_PORTS[url.scheme]


def _read(response: http.client.HTTPResponse, connection: socket.socket, end: float) -> bytes:
    """The body up to a limit. Raises TimeoutError at *end*, HTTPException when it is cut off."""
    data = bytearray()
    # From Python 3.13 on, a response closes itself, and the socket with it, as soon as its last byte was read.
    while len(data) < _READ_LIMIT and not response.isclosed():
        connection.settimeout(_left(end))
        chunk = response.read1(1 << 16)
        if not chunk:
            if response.length:
                raise http.client.IncompleteRead(bytes(data), response.length)
            break
        data += chunk
    return bytes(data)


def _decode(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset, "replace")
    except LookupError:  # the server names a charset that does not exist
        return data.decode(errors="replace")


def _left(end: float) -> float:
    """Seconds until *end*. Raises TimeoutError when it has passed."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@functools.cache
def tls_context(ca_cert: str | None, validate: bool) -> ssl.SSLContext:
    """A client context; shared by all checks, as loading the CA certificates takes longer than a request.

    Raises OSError (ssl.SSLError among them) when *ca_cert* cannot be read.
    """
    context = ssl.create_default_context(cafile=ca_cert)
    if not validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
