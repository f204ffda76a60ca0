# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What certbot is asked for, and what its renewal file says of a certificate. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import Certificate

# Before, certificates were renewed 30 days before their end whatever their lifetime, and there were no profiles.
RELATIVE_SINCE = (4, 0)
_LINE = re.compile(r"^(?P<key>[A-Za-z0-9_]+)\s*=\s*(?P<value>.*?)\s*$")
# What timed() writes; certbot itself suggests days.
_OURS = re.compile(r"^renew_before_expiry\s*=\s*\d+ hours[ \t]*\n", re.MULTILINE)
_BEFORE = re.compile(r"^#?\s*renew_before_expiry\s*=.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """One certificate of an ACME server. plugin is that of a DNS challenge; without one it is answered from webroot."""

    name: str
    names: tuple[str, ...]
    server: str
    key_type: str
    webroot: str
    email: str = ""
    profile: str = ""
    profile_required: bool = False
    plugin: str = ""
    credentials: str = ""
    propagation_seconds: int | None = None

    @property
    def authenticator(self) -> str:
        """What certbot calls the way in which the challenge is answered."""
        return f"dns-{self.plugin}" if self.plugin else "webroot"


def argv(request: Request) -> list[str]:
    """The command that gets the certificate, whatever is there already."""
    account = ["--email", request.email] if request.email else ["--register-unsafely-without-email"]
    profile = ["--required-profile" if request.profile_required else "--preferred-profile", request.profile]
    return [
        "certbot", "certonly", "--non-interactive", "--agree-tos", *account,
        "--server", request.server, "--cert-name", request.name, "--key-type", request.key_type,
        "--force-renewal", "--renew-with-new-domains", *_challenge(request), *(profile if request.profile else []),
        *(word for name in request.names for word in ("--domain", name)),
    ]  # fmt: skip


def renewal_argv(request: Request, *, trial: bool) -> list[str]:
    """The command that renews a certificate if it is time, as the timer does, or tries whether it could.

    A trial is at the test server of Let's Encrypt, also for certificates of other servers, unless they are named.
    """
    words = ["certbot", "renew", "--non-interactive", "--cert-name", request.name, "--no-random-sleep-on-renew"]
    return [*words, "--dry-run", "--server", request.server] if trial else words


def _challenge(request: Request) -> list[str]:
    if not request.plugin:
        return ["--webroot", "--webroot-path", request.webroot]
    option = f"--{request.authenticator}"
    words = ["--authenticator", request.authenticator]
    if request.credentials:
        words += [f"{option}-credentials", request.credentials]
    if request.propagation_seconds is not None:
        words += [f"{option}-propagation-seconds", str(request.propagation_seconds)]
    return words


def settings(renewal: str) -> dict[str, str]:
    """The values of a renewal file, without those of sections in sections."""
    found: dict[str, str] = {}
    for line in renewal.splitlines():
        if line.startswith("[["):
            break
        if match := _LINE.match(line):
            found[match["key"]] = match["value"]
    return found


def reasons(request: Request, renewal: Mapping[str, str], certificate: Certificate | None, profile: str) -> list[str]:
    """Why the certificate has to be asked for anew, in words; empty when what is there is what is wanted.

    renewal: what settings() gave, empty without a file. profile: the one that the certificate was asked for with.
    """
    if certificate is None or not renewal:
        return ["there is none"]
    found = []
    if lacking := sorted(set(request.names) - set(certificate.names)):
        found.append(f"it is not for {', '.join(lacking)}")
    if surplus := sorted(set(certificate.names) - set(request.names)):
        found.append(f"it is also for {', '.join(surplus)}")
    if certificate.key != request.key_type:
        found.append(f"its key is {certificate.key}")
    if renewal.get("server") != request.server:
        found.append(f"it comes from {renewal.get('server')}")
    if profile != request.profile:
        found.append(f"it was asked for with {f'the profile {profile}' if profile else 'no profile'}")
    if _way(renewal) != _wanted_way(request):
        found.append(f"it is renewed by {renewal.get('authenticator')} with other settings")
    return found


def _wanted_way(request: Request) -> tuple[str, str]:
    return request.authenticator, request.credentials if request.plugin else request.webroot


def _way(renewal: Mapping[str, str]) -> tuple[str, str]:
    name = renewal.get("authenticator", "")
    if name == "webroot":
        return name, renewal.get("webroot_path", "").rstrip(",")
    return name, renewal.get(f"{name.replace('-', '_')}_credentials", "")


def timed(renewal: str, certificate: Certificate, version: tuple[int, int]) -> str:
    """The renewal file, so that this certbot renews at a time that suits the certificate's lifetime.

    An old one has to be told the time before the end. A newer one knows it, and what an older one was told would count.
    """
    if version >= RELATIVE_SINCE:
        return _OURS.sub("", renewal)
    line = f"renew_before_expiry = {round(certificate.renewed_days() * 24)} hours\n"
    return line + _BEFORE.sub("", renewal)


def version_of(text: str) -> tuple[int, int]:
    """The first two numbers of certbot's version, such as of "certbot 2.1.0"; zeros when there are none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
