# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Certificates and keys as data: what they are for, how long they live, whether they belong together."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._probe_certificate import matches

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import NameOID

    CRYPTOGRAPHY = True
except ImportError:
    CRYPTOGRAPHY = False

PLACEHOLDER = "groundwork placeholder"
DAY = 86400.0
# What certbot 4 does by itself (RFC 9773 servers may ask for more): a third of the lifetime, and half of a short one.
SHORT_DAYS, SHORT_PART, PART = 10, 2, 3
# The last quarter of a lifetime is late for any renewal, also where certbot_fail_days is meant for longer ones.
_LATE_PART = 4


@dataclass(frozen=True)
class Certificate:
    """A leaf certificate. begins and ends: seconds since the epoch; serial: hex; key: "ecdsa", "rsa" or empty."""

    names: tuple[str, ...]
    issuer: str
    serial: str
    begins: float
    ends: float
    key: str

    @property
    def lifetime_days(self) -> float:
        """How long it lives from its beginning to its end."""
        return (self.ends - self.begins) / DAY

    @property
    def placeholder(self) -> bool:
        """Whether it is one that stands in until there is another."""
        return PLACEHOLDER in self.issuer

    def days_left(self, now: float) -> float:
        """Days until it ends; negative when it has."""
        return (self.ends - now) / DAY

    def renewed_days(self) -> float:
        """The days before its end at which it ought to be renewed."""
        return self.lifetime_days / (SHORT_PART if self.lifetime_days < SHORT_DAYS else PART)

    def late_days(self, fail_days: float) -> float:
        """The days before its end from which on it is too late, for a certificate of this lifetime."""
        return min(fail_days, self.lifetime_days / _LATE_PART)

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Those of the names that it does not cover."""
        return [name for name in names if not any(name == own or matches(name, own) for own in self.names)]


def need_cryptography() -> None:
    """Raises DependencyError where certificates cannot be read."""
    if not CRYPTOGRAPHY:
        raise DependencyError(
            "The Python library cryptography is needed to look at certificates.",
            fix="Run the role certbot, or install the Debian package python3-cryptography.",
        )


def read(pem: str, what: str) -> Certificate:
    """The first certificate of a PEM text. Raises InputError; *what* begins its sentence."""
    need_cryptography()
    try:
        return _told(x509.load_pem_x509_certificate(pem.encode()))
    except ValueError as error:
        raise InputError(
            f"{what} holds no certificate that can be read: {error}.",
            fix="It has to be PEM text that begins with the server's own certificate, and the chain behind it.",
        ) from error


def require_pair(pem: str, key: str, what: str) -> None:
    """Raises InputError when the key is not that of the first certificate. The message never shows the key."""
    need_cryptography()
    certificate = x509.load_pem_x509_certificate(pem.encode())
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):  # from None: what the library says may quote the text
        raise InputError(
            f"The key of {what} cannot be read.", fix="It has to be PEM text of a private key without a passphrase."
        ) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise InputError(
            f"The key of {what} is not that of its first certificate.",
            fix="Give the key that it was made for, and put the server's own certificate before its chain.",
        )


def self_signed(names: Sequence[str], days: float) -> tuple[str, str]:
    """A certificate of nobody for these names, and its key, as PEM texts."""
    need_cryptography()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PLACEHOLDER)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a client's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), private.decode()


def _told(certificate: x509.Certificate) -> Certificate:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: tuple[str, ...] = ()
    else:
        addresses = [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
        names = tuple(sorted([*alternative.get_values_for_type(x509.DNSName), *addresses]))
    public = certificate.public_key()
    kind = "ecdsa" if isinstance(public, ec.EllipticCurvePublicKey) else ""
    if isinstance(public, rsa.RSAPublicKey):
        kind = "rsa"
    with warnings.catch_warnings():  # the names that say UTC came with a version that Debian 12 does not have
        warnings.simplefilter("ignore")
        begins, ends = certificate.not_valid_before, certificate.not_valid_after
    return Certificate(
        names,
        certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:x}",
        begins.replace(tzinfo=datetime.UTC).timestamp(),
        ends.replace(tzinfo=datetime.UTC).timestamp(),
        kind,
    )
