# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind certificate: the certificate that a server shows, not the one in a file."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Outcome, Probe, network_outcome
from ansible_collections.groundwork.backend.plugins.module_utils._probe_http_wire import tls_context

OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "server_name": {"type": "str"},
    "ca_cert": {"type": "path"},
    "validate_certs": {"type": "bool"},
    "names": {"type": "list", "elements": "str"},
    "issuer": {"type": "str"},
    "min_days": {"type": "float"},
    "same_as": {"type": "path"},
    "fail_fast": {"type": "bool"},
}
_DAY = 86400.0
_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Conditions:
    """What the certificate has to fulfil. min_days is in days, same_as a file with the certificate first."""

    names: Sequence[str]
    issuer: re.Pattern[str] | None
    min_days: float
    same_as: Path | None

    def unmet(self, certificate: Mapping[str, Any], der: bytes, now: float) -> str:
        """The first condition that the certificate does not fulfil, in words; empty when there is none."""
        shown = names_of(certificate)
        for name in self.names:
            if not any(matches(name, pattern) for pattern in shown):
                return f"the certificate is not for {name}, but for {', '.join(shown) or 'no name'}"
        issuer = issuer_of(certificate)
        if self.issuer and not self.issuer.search(issuer):
            return f"the certificate's issuer is {issuer!r}, expected a match of {self.issuer.pattern!r}"
        left = days_left(certificate, now)
        if left < self.min_days:
            return f"the certificate is valid for {left:.1f} more days, expected at least {self.min_days:g}"
        return self._unlike(der)

    def _unlike(self, der: bytes) -> str:
        if self.same_as is None:
            return ""
        try:
            found = _PEM.search(self.same_as.read_text(errors="replace"))
        except OSError as error:
            return f"{self.same_as} cannot be read: {error.strerror}"
        if found and ssl.PEM_cert_to_DER_cert(found[0]) == der:
            return ""
        return f"another certificate than the one in {self.same_as} is served"


@dataclass
class CertificateProbe(Probe):
    """Shakes hands and looks. Without validation the certificate itself is trusted: a chain is not asked for."""

    host: str
    port: int
    server_name: str
    context: ssl.SSLContext | None
    conditions: Conditions
    fail_fast: bool
    pause: float = 0.1

    def attempt(self, seconds: float) -> Outcome:
        """Up when the served certificate fulfils every condition."""
        where = f"{self.host}:{self.port}"
        end = time.monotonic() + seconds
        try:
            context = self.context or self._trusting_what_is_served(end)
            certificate, der = self._shown(context, end)
        except OSError as error:
            return network_outcome(error, where, seconds, fail_fast=self.fail_fast)
        now = time.time()
        told = f"names: {', '.join(names_of(certificate))}\nissuer: {issuer_of(certificate)}\n"
        told += f"valid until: {certificate['notAfter']}\n"
        unmet = self.conditions.unmet(certificate, der, now)
        return Outcome("down" if unmet else "up", unmet, status=int(days_left(certificate, now)), body=told)

    def _trusting_what_is_served(self, end: float) -> ssl.SSLContext:
        """Only a verified certificate is decoded by the standard library, so this one becomes its own authority."""
        _, der = self._shown(tls_context(None, False), end)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=der)
        return context

    def _shown(self, context: ssl.SSLContext, end: float) -> tuple[dict[str, Any], bytes]:
        left = max(0.01, end - time.monotonic())
        with (
            socket.create_connection((self.host, self.port), timeout=left) as raw,
            context.wrap_socket(raw, server_hostname=self.server_name) as connection,
        ):
            return dict(connection.getpeercert() or {}), connection.getpeercert(binary_form=True) or b""


def names_of(certificate: Mapping[str, Any]) -> list[str]:
    """The DNS names and addresses of a certificate, as ssl.getpeercert() gives it."""
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]


def issuer_of(certificate: Mapping[str, Any]) -> str:
    """The issuer, such as "organizationName=Let's Encrypt, commonName=R11"."""
    return ", ".join(f"{key}={value}" for part in certificate.get("issuer", ()) for key, value in part)


def days_left(certificate: Mapping[str, Any], now: float) -> float:
    """Days until the certificate ends; *now* in seconds since 1970."""
    return (ssl.cert_time_to_seconds(certificate["notAfter"]) - now) / _DAY


def matches(name: str, pattern: str) -> bool:
    """Whether a name of a certificate covers *name*; a star stands for one label (RFC 6125, 6.4.3)."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(pattern)
    except ValueError:
        name, pattern = name.lower().rstrip("."), pattern.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and not name.startswith(("*.", "."))
    return name == pattern


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return f"certificate of {given.get('server_name', given['host'])}:{given.get('port', 443)}"


def build(asked: Asked) -> CertificateProbe:
    """The probe for the keys of one check. Raises InputError."""
    host, ca_cert = asked.get("host"), asked.get("ca_cert")
    server_name = asked.get("server_name", host)
    try:
        context = tls_context(ca_cert, True) if asked.get("validate_certs", True) else None
    except OSError as error:
        raise asked.error(f"ca_cert {ca_cert} holds no usable certificate: {error.strerror or error}.") from error
    issuer, same_as = asked.get("issuer"), asked.get("same_as")
    conditions = Conditions(
        asked.get("names") or [server_name],
        asked.pattern("issuer", issuer) if issuer else None,
        asked.get("min_days", 0.0),
        Path(same_as) if same_as else None,
    )
    return CertificateProbe(
        host, asked.port("port", 443), server_name, context, conditions, asked.get("fail_fast", False)
    )
