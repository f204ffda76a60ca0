# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""An own CA and certificates of it, for tests with TLS."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Own CA")])
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """Its certificate is in the file *path*."""

    path: Path
    key: Any

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """A new CA in *folder*."""
        authority = cls(folder / "ca.pem", ec.generate_private_key(ec.SECP256R1()))
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"], False,
        )  # fmt: skip
        builder = authority._builder("Own CA", authority.key, 30, ca=True).add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        authority.path.write_bytes(builder.sign(authority.key, hashes.SHA256()).public_bytes(_PEM))
        return authority

    def issue(self, name: str, *others: str, days: float = 1) -> Path:
        """A file with a certificate for the names and its key; days may be negative: it has ended then."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(one)) if one[-1].isdigit() else x509.DNSName(one)
            for one in (name, *others)
        ]
        builder = self._builder(name, key, days, ca=False).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = self.path.with_name(f"{name.replace('*', 'star')}-{days}.pem")
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM) + private)
        return path

    def _builder(self, name: str, key: Any, days: float, *, ca: bool) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(CA_NAME)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=5))
            .not_valid_after(now + datetime.timedelta(days=days, minutes=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
