# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Why certbot got no certificate, told from what it printed and from what is known of the host. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.groundwork.backend.plugins.module_utils._errors import last_lines

_PROBLEM = re.compile(
    r"^\s*Domain:\s*(\S+)\s*\n\s*Type:\s*(\S+)\s*\n\s*Detail:\s*(.*(?:\n(?!\s*(?:Domain:|Hint:|\n)).+)*)", re.M
)
_PORT = re.compile(r"^\[(?P<six>.*)\](?::\d+)?$|^(?P<four>[\d.]+):\d+$")
_RATE = re.compile(
    r"rateLimited|rate ?limit|too many requests of a given type|"
    r"too many (?:certificates|new orders|requests|failed|registrations|currently)",
    re.I,
)
_UNTRUSTED = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED")
_UNREACHABLE = re.compile(
    r"requests\.exceptions\.|Max retries exceeded|NewConnectionError|Connection (?:refused|reset)|timed out|"
    r"Requesting acme|serverInternal|internal server error|Service (?:Temporarily )?Unavailable|Network is unreachable",
    re.I,
)
_NOISE = re.compile(
    r"^(?:Saving debug log to|Ask for help|Some challenges have failed|See the logfile|Account registered|"
    r"Processing /|[- ]+$|Requesting a certificate|Renewing an existing|"
    r"An unexpected error occurred:$|Plugins selected|Hint:)"
)
_UFW = re.compile(
    r"^(?P<to>.+?)\s{2,}(?P<action>ALLOW|LIMIT|DENY|REJECT)(?: (?P<way>IN|OUT|FWD))?\s{2,}(?P<source>.+?)\s*(?:#.*)?$",
    re.M,
)
_HTTP_PROFILES = {"nginx full", "nginx http", "www", "www full", "http", "apache", "apache full"}


@dataclass(frozen=True)
class Failure:
    """kind is rate_limit, wrong_dns, firewall, challenge, unreachable, untrusted, caa or refused."""

    kind: str
    problem: str
    fix: str


@dataclass(frozen=True)
class Known:
    """What is known of the host.

    own: its addresses; resolved: where names lead as it sees them; ufw: what ``ufw status verbose`` prints.
    """

    own: Collection[str] = ()
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ufw: str = ""


def explain(printed: str, server: str, known: Known, *, dns: bool = False) -> Failure:
    """What went wrong. dns: the challenge was one of the DNS."""
    if problems := _PROBLEM.findall(printed):
        name, kind, detail = problems[0]
        told = f"The ACME server says: {' '.join(detail.split()).rstrip('.')}."
        failure = _forbidden(name, kind, told, dns=dns) or _not_through(name, kind, told, known)
        others = sorted({other for other, _, _ in problems} - {name})
        if not others:
            return failure
        return Failure(failure.kind, f"{failure.problem} The same run failed for {', '.join(others)}.", failure.fix)
    said = words(printed)
    if _RATE.search(printed):
        return Failure(
            "rate_limit",
            f"{server} has given out as many certificates as its rate limit allows: {said}",
            "Wait for the time that it names. Try with certbot_staging, which has higher limits and whose certificates "
            "no browser trusts.",
        )
    if _UNTRUSTED.search(printed):
        return Failure(
            "untrusted",
            f"The certificate of the ACME server {server} itself is not trusted: {said}",
            "Give the certificate of its CA in certbot_ca, or in host_ca_certificates for the whole host.",
        )
    if _UNREACHABLE.search(printed):
        return Failure(
            "unreachable",
            f"The ACME server {server} cannot be reached, or cannot answer now: {said}",
            "Look whether it is up, and whether this host may connect to it.",
        )
    return Failure(
        "refused",
        f"certbot got no certificate from {server}: {said}",
        "The whole story is in /var/log/letsencrypt/letsencrypt.log.",
    )


def _forbidden(name: str, kind: str, told: str, *, dns: bool) -> Failure | None:
    """What has nothing to do with how the host is reached."""
    if kind == "rateLimited":
        return Failure(
            "rate_limit", f"The rate limit for {name} is reached. {told}", "Wait for the time that it names."
        )
    if kind == "caa":
        return Failure(
            "caa",
            f"A CAA record of {name} keeps this ACME server from giving it a certificate. {told}",
            "Change the record in the DNS, or certbot_server.",
        )
    if dns:
        return Failure(
            "challenge",
            f"The DNS challenge for {name} failed. {told}",
            "Look whether the credentials may change that zone; raise dns.propagation_seconds if its servers are slow.",
        )
    return None


def _not_through(name: str, kind: str, told: str, known: Known) -> Failure:
    """Why the challenge did not come through to nginx."""
    tried = addresses(told) or list(known.resolved.get(name, ()))
    others = [one for one in tried if not _among(one, known.own)]
    if kind == "dns" and not tried:
        return Failure(
            "wrong_dns",
            f"The name {name} leads to no address. {told}",
            "Give it an A or AAAA record in the DNS that leads to this host.",
        )
    if others and known.own:
        return Failure(
            "wrong_dns",
            f"The name {name} leads to {', '.join(others)}, and this host has {', '.join(sorted(known.own))}. {told}",
            "Correct its A and AAAA records in the DNS. Where that address is a router or load balancer before this "
            "host, have it pass port 80 on to here, or add it to certbot_addresses.",
        )
    if ufw_closes(known.ufw, 80):
        return Failure(
            "firewall",
            f"The challenge for {name} was kept out by the firewall of this host: UFW does not let port 80 in. {told}",
            "Open port 80 (ufw_rules), which the challenge needs for each renewal, too, or use a DNS challenge.",
        )
    return Failure(
        "challenge",
        f"The challenge for {name} did not come through to nginx on this host. {told}",
        "Look whether port 80 is open on the way here (a firewall of the provider), and whether nginx answers "
        "/.well-known/acme-challenge/ for this name.",
    )


def words(printed: str) -> str:
    """What certbot printed without what it always prints, as one line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    said = " ".join(last_lines("\n".join(lines), 6).split())[:600] or "it printed nothing"
    return said if said.endswith(".") else f"{said}."


def addresses(detail: str) -> list[str]:
    """The addresses that a server names in its words, without doubles."""
    found = []
    for word in re.split(r"[\s,;\"']+", detail):
        text = word.rstrip(":.")
        if match := _PORT.match(text):
            text = match["six"] or match["four"]
        try:
            one = str(ipaddress.ip_address(text))
        except ValueError:
            continue
        if one not in found:
            found.append(one)
    return found


def _among(address: str, own: Collection[str]) -> bool:
    wanted = ipaddress.ip_address(address)
    return any(wanted == ipaddress.ip_address(one) for one in own)


def ufw_closes(status: str, port: int) -> bool:
    """Whether UFW is on and no rule lets everybody in at a TCP port; *status* is what ``ufw status verbose`` prints."""
    if "Status: active" not in status or re.search(r"^Default: allow \(incoming\)", status, re.M):
        return bool("Status: active" in status and _first(status, port) in ("DENY", "REJECT"))
    return _first(status, port) not in ("ALLOW", "LIMIT")


def _first(status: str, port: int) -> str:
    """What the first rule for a port and everybody does; empty without one."""
    for match in _UFW.finditer(status):
        if match["way"] in ("OUT", "FWD") or not match["source"].startswith("Anywhere"):
            continue
        if _covers(match["to"].replace("(v6)", "").strip(), port):
            return match["action"]
    return ""


def _covers(to: str, port: int) -> bool:
    if to.lower() in _HTTP_PROFILES or to == "Anywhere":
        return True
    ports, _, proto = to.rsplit(maxsplit=1)[-1].partition("/")
    if proto not in ("", "tcp"):
        return False
    for part in ports.split(","):
        low, _, high = part.partition(":")
        if low.isdigit() and int(low) <= port <= int(high if high.isdigit() else low):
            return True
    return False
