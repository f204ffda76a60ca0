# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What nginx itself would not say of the role's settings, or say too late: problems as sentences. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ZONE = re.compile(r"[A-Za-z0-9_]+")
_RATE = re.compile(r"([1-9][0-9]*)r/([sm])")
_SIZE = re.compile(r"[1-9][0-9]*[kKmM]")
_KEY = re.compile(r"address|header:[A-Za-z0-9-]+")
_SERVER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}|unix:/[A-Za-z0-9._/-]+")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")
_FILE = re.compile(r"[A-Za-z0-9._/-]+")
_HASH = re.compile(r"\$(2[aby]|5|6|y|apr1)\$[^\s:]+")
_LIMIT_KEYS = {"rate", "burst", "key", "methods", "exempt", "size"}
_TIMEOUTS = {"header", "body", "send", "keepalive"}
_PROFILES = ("intermediate", "modern")
_PRELOAD_SECONDS = 31536000
_CHALLENGE = "/.well-known/acme-challenge"

Entries = Mapping[str, Any]


def rate_seconds(rate: str) -> int:
    """Seconds until one more request is let through at this rate ("60r/m", "10r/s"); at least one.

    Raises InputError for what is no rate.
    """
    match = _RATE.fullmatch(str(rate))
    if match is None:
        raise InputError(f"{rate!r} is no rate.", fix="Use requests in a second or a minute, such as 10r/s or 60r/m.")
    return math.ceil((60 if match[2] == "m" else 1) / int(match[1]))


def problems(
    sites: Sequence[Entries], upstreams: Entries, rate_limits: Entries, users: Entries, profile: str = ""
) -> list[str]:
    """What does not fit together in nginx_sites and in the settings that its sites name; empty when all is well.

    profile: nginx_tls_profile, or nothing.
    """
    known = {"upstreams": upstreams, "rate_limits": rate_limits, "users": users}
    found = [*_upstreams(upstreams), *_rate_limits(rate_limits), *_users(users)]
    if profile and profile not in _PROFILES:
        found.append(f"nginx_tls_profile is {profile!r}, and can be {' or '.join(_PROFILES)}.")
    for site in sites:
        name = f"The site {site['name']}"
        found += _tls(name, site.get("tls") or {}, profile)
        found += _rules(name, site, known)
        for key, seconds in (site.get("client_timeouts") or {}).items():
            if key not in _TIMEOUTS or not _positive(seconds):
                told = f"{key}: {seconds}"
                found.append(f"{name} has client_timeouts with {told}. Known are {_list(_TIMEOUTS)}, in whole seconds.")
        for location in site.get("locations") or ():
            path = location.get("path") or "/"
            found += _location(f"The location {path} of the site {site['name']}", path, location, known)
            found += _rules(f"The location {path} of the site {site['name']}", location, known)
            access = location["access"] if "access" in location else site.get("access")
            if location.get("stub_status") and not (access or {}).get("allow"):
                found.append(
                    f"The location {path} of the site {site['name']} shows nginx's own figures, and everybody could "
                    "read them. Name the networks that may in access.allow."
                )
        found += _health(name, site)
    return found


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _positive(value: Any) -> bool:
    return bool(re.fullmatch(r"[1-9][0-9]*", str(value)))


def _networks(where: str, networks: Iterable[Any]) -> Iterator[str]:
    for network in networks:
        try:
            ipaddress.ip_network(str(network))
        except ValueError as error:
            yield f"{where}: {error}. Give addresses or networks, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32."


def _tls(name: str, tls: Entries, profile: str) -> Iterator[str]:
    if not tls:
        return
    if not _NAME.fullmatch(str(tls.get("certificate", ""))):
        yield f"{name} has tls without the name of a certificate: set tls.certificate, in letters, digits, dots and -."
    if tls.get("profile", _PROFILES[0]) not in _PROFILES:
        yield f"{name} has the TLS profile {tls['profile']!r}, and can have {' or '.join(_PROFILES)}."
    if profile == "modern" and tls.get("profile") == "intermediate":
        yield (
            f"{name} has the TLS profile intermediate, and nginx_tls_profile is modern, which holds for the whole "
            "port. Set nginx_tls_profile to intermediate; sites with the profile modern stay as they are."
        )
    hsts = tls.get("hsts") or {}
    if hsts and not str(hsts.get("max_age", "")).isdigit():
        yield f"{name} has tls.hsts without max_age, in seconds."
    elif hsts and not tls.get("redirect", True):
        yield f"{name} has tls.hsts, which keeps browsers from plain HTTP for good, and redirect: false. Choose one."
    elif hsts.get("preload") and not (hsts.get("include_subdomains") and int(hsts["max_age"]) >= _PRELOAD_SECONDS):
        yield (
            f"{name} has tls.hsts.preload, for which browsers ask for include_subdomains and a max_age of at least "
            f"{_PRELOAD_SECONDS} seconds."
        )


def _rules(where: str, entry: Entries, known: Mapping[str, Entries]) -> Iterator[str]:
    """access, basic_auth, rate_limits and connection_limit of a site or of a location."""
    access = entry.get("access") or {}
    yield from _networks(f"{where} has a bad entry in access", [*access.get("allow", ()), *access.get("deny", ())])
    auth = entry.get("basic_auth") or {}
    if auth and auth.get("users") not in known["users"]:
        yield f"{where} asks for the users {auth.get('users')}, and nginx_users has {_list(known['users'])}."
    if not re.fullmatch(r"[^\"\\$\x00-\x1f]*", str(auth.get("realm", ""))):
        yield f"{where} has a realm with a quote, a backslash, a dollar sign or a line break: leave it out."
    for limit in entry.get("rate_limits") or ():
        if limit not in known["rate_limits"]:
            yield f"{where} has the rate limit {limit}, and nginx_rate_limits has {_list(known['rate_limits'])}."
    if (count := entry.get("connection_limit") or 0) and not _positive(count):
        yield f"{where} has the connection_limit {count}, which is no number of connections."


def _location(where: str, path: str, location: Entries, known: Mapping[str, Entries]) -> Iterator[str]:
    kinds = [kind for kind in ("upstream", "static", "stub_status") if location.get(kind)]
    if len(kinds) != 1:
        yield f"{where} has {' and '.join(kinds) or 'nothing that answers'}: give it upstream, static or stub_status."
    if path.startswith(_CHALLENGE):
        yield f"{where} is where certificates are proven. Choose another path."
    upstream, static = location.get("upstream") or {}, location.get("static") or {}
    if upstream and ("name" in upstream) == bool({"app", "service"} & set(upstream)):
        yield f"{where} has the upstream {dict(upstream)}: give app and service, or the name of one of nginx_upstreams."
    elif upstream and "name" not in upstream and not {"app", "service"} <= set(upstream):
        yield f"{where} has the upstream {dict(upstream)}: app and service belong together."
    elif "name" in upstream and upstream["name"] not in known["upstreams"]:
        yield f"{where} goes to the upstream {upstream['name']}, and nginx_upstreams has {_list(known['upstreams'])}."
    if static:
        folder = str(static.get("directory", ""))
        if not _FOLDER.fullmatch(folder) or ".." in folder.split("/"):
            yield f"{where} has the static.directory {folder!r}: give an absolute path of letters, digits, ., _ and -."
        if not path.endswith("/"):
            yield f"{where} has static files: its path has to end in /, or files beside the folder could be read."
        if static.get("fallback") and not _FILE.fullmatch(str(static["fallback"])):
            yield f"{where} has the static.fallback {static['fallback']!r}: give a file in the folder."
        if "cache_seconds" in static and not str(static["cache_seconds"]).isdigit():
            yield f"{where} has the static.cache_seconds {static['cache_seconds']!r}, which is no number of seconds."


def _health(name: str, site: Entries) -> Iterator[str]:
    paths = [str(one.get("path") or "/") for one in site.get("locations") or () if one.get("upstream")]
    for path in site.get("health_paths") or ():
        if not any(path.startswith(one) for one in paths):
            yield f"{name} has the health path {path}, which lies in none of its locations with an upstream."


def _upstreams(upstreams: Entries) -> Iterator[str]:
    for name, servers in upstreams.items():
        if not _NAME.fullmatch(name):
            yield f"nginx_upstreams has the name {name!r}: use letters, digits, dots, dashes and underscores."
        bad = servers if isinstance(servers, str) else [one for one in servers if not _SERVER.fullmatch(str(one))]
        if bad or not servers:
            yield (
                f"nginx_upstreams.{name} is {servers}: give a list of addresses with ports, such as 10.0.0.5:8000 or "
                "[fd00::5]:8000, or sockets, such as unix:/run/app.sock. A name without an address keeps nginx from "
                "starting."
            )


def _rate_limits(limits: Mapping[str, Entries]) -> Iterator[str]:
    for name, limit in limits.items():
        where = f"nginx_rate_limits.{name}"
        if not isinstance(limit, Mapping):
            yield f"{where} is {limit!r}: give rate, and if need be {_list(_LIMIT_KEYS - {'rate'})}."
            continue
        if not _ZONE.fullmatch(name):
            yield f"nginx_rate_limits has the name {name!r}: use letters, digits and underscores."
        if unknown := set(limit) - _LIMIT_KEYS:
            yield f"{where} has {_list(unknown)}, and can have {_list(_LIMIT_KEYS)}."
        if not _RATE.fullmatch(str(limit.get("rate", ""))):
            yield f"{where}.rate is {limit.get('rate')!r}: give requests per second or minute, such as 10r/s or 60r/m."
        if not str(limit.get("burst", 0)).isdigit():
            yield f"{where}.burst is {limit['burst']!r}: give how many requests may come at once."
        if not _KEY.fullmatch(str(limit.get("key", "address"))):
            yield f"{where}.key is {limit['key']!r}: give address, or a header such as header:X-API-Key."
        if not _SIZE.fullmatch(str(limit.get("size", "10m"))):
            yield f"{where}.size is {limit['size']!r}: give a number with k or m."
        methods, exempt = limit.get("methods", []), limit.get("exempt", [])
        if not isinstance(methods, list) or [one for one in methods if not re.fullmatch(r"[A-Z]+", str(one))]:
            yield f"{where}.methods is {methods}: give a list of methods in capitals, such as [POST]."
        if not isinstance(exempt, list):
            yield f"{where}.exempt is {exempt}: give a list of networks, such as [10.0.0.0/8]."
        else:
            yield from _networks(f"{where}.exempt", exempt)


def _users(lists: Mapping[str, Any]) -> Iterator[str]:
    """Never with a password or a hash in it."""
    for name, users in lists.items():
        if not _NAME.fullmatch(name):
            yield f"nginx_users has the name {name!r}: use letters, digits, dots, dashes and underscores."
        if not isinstance(users, list) or not all(isinstance(user, Mapping) for user in users):
            yield f"nginx_users.{name} is no list of users with name and password."
            continue
        for user in users:
            if not re.fullmatch(r"[^:\s\x00-\x1f]+", str(user.get("name", ""))):
                yield f"nginx_users.{name} has a user without a name, or with a colon or white space in it."
            elif ("password" in user) == ("hash" in user):
                yield f"nginx_users.{name} has the user {user['name']}, who needs either password or hash."
            elif "hash" in user and not _HASH.fullmatch(str(user["hash"])):
                yield f"nginx_users.{name}: the hash of {user['name']} is none that crypt() knows, such as $6$ or $2b$."
            elif "password" in user and not re.fullmatch(r"[^\r\n\x00]{1,250}", str(user["password"])):
                yield f"nginx_users.{name}: the password of {user['name']} is empty, too long, or has a line break."
        names = [str(user.get("name")) for user in users]
        if len(set(names)) != len(names):
            yield f"nginx_users.{name} has a user twice."
