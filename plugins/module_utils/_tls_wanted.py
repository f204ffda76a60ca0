# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a user wants of certificates, checked."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._certbot import Request
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import read, require_pair

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DNS = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Wanted:
    """A certificate for these names, from an ACME server or, with a chain and its key, from the user."""

    name: str
    names: tuple[str, ...]
    request: Request | None = None
    chain: str = ""
    key: str = field(default="", repr=False)


def wanted(params: Mapping[str, Any], entry: Mapping[str, Any]) -> Wanted:
    """An entry of the list as the engine takes it. Raises InputError."""
    name, names = entry["name"], tuple(_ascii(entry["name"], one) for one in dict.fromkeys(entry["names"]))
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a certificate.", fix="Use letters, digits, dots, dashes and underscores."
        )
    chain, key = (_text(name, entry, what) for what in ("certificate", "key"))
    if bool(chain) != bool(key):
        raise InputError(f"The certificate {name} has only one of certificate and key.", fix="Give both, or none.")
    if chain:
        return Wanted(name, names, chain=chain, key=key)
    if not names:
        raise InputError(f"The certificate {name} has no names.", fix="List the names that it shall be for.")
    if not entry["dns_plugin"] and (stars := [one for one in names if one.startswith("*.")]):
        raise InputError(
            f"The certificate {name} asks for {', '.join(stars)}, which an ACME server gives for a DNS challenge only.",
            fix="Set dns.plugin and its credentials, or list the names one by one.",
        )
    request = Request(
        name,
        names,
        params["server"],
        params["key_type"],
        params["webroot"],
        email=params["email"] or "",
        profile=params["profile"] or "",
        profile_required=params["profile_required"],
        plugin=entry["dns_plugin"] or "",
        credentials=entry["dns_file"] or "",
        propagation_seconds=entry["dns_propagation_seconds"],
    )
    return Wanted(name, names, request)


def _ascii(certificate: str, name: str) -> str:
    try:
        text = name.lower() if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        text = ""
    if len(text) > 253 or not _DNS.fullmatch(text):
        raise InputError(
            f"The certificate {certificate} asks for {name!r}, which is no DNS name.", fix="Correct its names."
        )
    return text


def _text(name: str, entry: Mapping[str, Any], what: str) -> str:
    text, path = entry[what], entry[f"{what}_file"]
    if text and path:
        raise InputError(f"The certificate {name} has {what} and {what}_file.", fix="Choose one of them.")
    if path:
        with os_errors(f"read {path} for the certificate {name}"):
            text = Path(path).read_text(errors="replace")
    return f"{text.strip()}\n" if text else ""


def require_usable(one: Wanted) -> None:
    """Raises InputError when a certificate of the user cannot be served under its names."""
    found = read(one.chain, f"The certificate {one.name}")
    require_pair(one.chain, one.key, one.name)
    if lacking := found.lacking(one.names):
        raise InputError(
            f"The certificate {one.name} is not for {', '.join(lacking)}, but for "
            f"{', '.join(found.names) or 'no name'}.",
            fix="Bring one for all names that sites serve with it.",
        )
    if found.ends <= time.time():
        raise InputError(
            f"The certificate {one.name} ended {-found.days_left(time.time()):.1f} days ago.",
            fix="Bring one that is valid. What was served before stays.",
        )
