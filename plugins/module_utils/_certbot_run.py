# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run certbot, and find out why it failed."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils import _certbot
from ansible_collections.groundwork.backend.plugins.module_utils._certbot import Request
from ansible_collections.groundwork.backend.plugins.module_utils._certbot_failure import Failure, Known, explain
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run

SYSTEM_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
_SECONDS, _BUSY_SECONDS, _BUSY_PAUSE = 900.0, 300.0, 2.0
_BUSY = "Another instance of Certbot is already running"
_INNER = ("docker", "br-", "veth", "lo")
_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class Certbot:
    """certbot on this host. addresses: those that lead here beside its own; ca_file: CAs of the ACME server."""

    addresses: Sequence[str] = ()
    ca_file: Path | None = None

    @cached_property
    def version(self) -> tuple[int, int]:
        """Its version; that of a certbot that is not there yet is the newest."""
        try:
            return _certbot.version_of(importlib.metadata.version("certbot"))
        except importlib.metadata.PackageNotFoundError:
            if shutil.which("certbot") is None:
                return (99, 0)
            return _certbot.version_of(run(["certbot", "--version"], check=False).stdout)

    def able(self, request: Request, warnings: list[str]) -> Request:
        """The request that this certbot can make. Raises InputError when it lacks what is required."""
        if not request.profile or self.version >= _certbot.RELATIVE_SINCE:
            return request
        told = f"certbot {'.'.join(map(str, self.version))} cannot ask for the profile {request.profile}"
        if request.profile_required:
            raise InputError(
                f"{told}, which is required.", fix="Use Debian 13, whose certbot 4 can, or no profile here."
            )
        if (warning := f"{told}: certificates are those that the server gives out by default.") not in warnings:
            warnings.append(warning)
        return replace(request, profile="")

    def issue(self, request: Request) -> Failure | None:
        """Get the certificate; why not, when it fails."""
        return self._failure(self._run(_certbot.argv(request)), request)

    def renew(self, request: Request) -> Failure | None:
        """Renew as the timer does, with everybody's hooks; why not, when it fails."""
        return self._failure(self._run(_certbot.renewal_argv(request, trial=False)), request)

    def try_renewal(self, request: Request) -> Failure | None:
        """Try whether a renewal would work; why not, when it fails."""
        return self._failure(self._run(_certbot.renewal_argv(request, trial=True)), request)

    def delete(self, name: str) -> None:
        """Remove a certificate and its renewal. Raises CommandError."""
        run(
            ["certbot", "delete", "--non-interactive", "--cert-name", name],
            timeout=_SECONDS,
            asked=f"remove the certificate {name}",
        )

    def _run(self, argv: Sequence[str]) -> Completed:
        with tempfile.NamedTemporaryFile(prefix="groundwork-ca-") as bundle:
            env = {}
            if self.ca_file:
                # It replaces the usual bundle, which other servers still need.
                with os_errors(f"read {self.ca_file}"):
                    bundle.write(SYSTEM_CAS.read_bytes() + b"\n" + self.ca_file.read_bytes())
                bundle.flush()
                env["REQUESTS_CA_BUNDLE"] = bundle.name
            end = time.monotonic() + _BUSY_SECONDS
            while True:
                done = run(argv, env=env, check=False, timeout=_SECONDS, asked="run certbot")
                if done.rc == 0 or _BUSY not in done.stdout + done.stderr or time.monotonic() >= end:
                    return done
                time.sleep(_BUSY_PAUSE)  # the timer's run, most likely

    def _failure(self, done: Completed, request: Request) -> Failure | None:
        if done.rc == 0:
            return None
        return explain(
            f"{done.stdout}\n{done.stderr}",
            request.server,
            Known([*_own_addresses(), *self.addresses], {name: _resolved(name) for name in request.names}, _ufw()),
            dns=bool(request.plugin),
        )


def _own_addresses() -> list[str]:
    """The host's addresses, without those that nobody outside can reach."""
    done = run(["ip", "-json", "address"], check=False)
    links = json.loads(done.stdout) if done.rc == 0 else []
    outward = [link for link in links if not link.get("ifname", "").startswith(_INNER)]
    found = [one for link in outward for one in link.get("addr_info", ()) if one.get("scope") == "global"]
    return [one["local"] for one in found]


def _resolved(name: str) -> list[str]:
    try:
        return sorted({str(one[4][0]) for one in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):
        return []


def _ufw() -> str:
    program = shutil.which("ufw", path=_FOLDERS)
    return run([program, "status", "verbose"], check=False).stdout if program else ""
