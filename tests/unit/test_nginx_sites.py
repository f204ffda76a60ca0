# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the settings of the role nginx may not say, each with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_sites import problems, rate_seconds

UPSTREAM = {"upstream": {"name": "echo"}}
KNOWN: dict[str, Any] = {
    "upstreams": {"echo": ["127.0.0.1:9000", "unix:/run/echo.sock", "[::1]:9000"]},
    "rate_limits": {
        "api": {"rate": "60r/m", "burst": 20, "key": "header:X-API-Key", "methods": ["POST"], "exempt": ["10.0.0.0/8"]}
    },
    "users": {"team": [{"name": "ada", "password": "canary"}, {"name": "bob", "hash": "$6$salt$text"}]},
}
COMPLETE = {
    "name": "web",
    "tls": {"certificate": "example.org", "hsts": {"max_age": 31536000, "include_subdomains": True, "preload": True}},
    "access": {"allow": ["192.0.2.0/24", "2001:db8::1"], "deny": ["192.0.2.7"]},
    "basic_auth": {"users": "team", "realm": "Team"},
    "rate_limits": ["api"],
    "connection_limit": 10,
    "client_timeouts": {"body": 30},
    "health_paths": ["/health"],
    "locations": [
        UPSTREAM,
        {"path": "/api/", "upstream": {"app": "shop", "service": "api"}},
        {"path": "/static/", "static": {"directory": "/srv/static", "cache_seconds": 60, "fallback": "index.html"}},
        {"path": "/status", "stub_status": True, "access": {"allow": ["127.0.0.1"]}},
    ],
}


def told(site: dict[str, Any] | None = None, profile: str = "", **settings: Any) -> str:
    """The problems of a site and of settings, as the role shows them."""
    known = {**KNOWN, **settings}
    return " ".join(
        problems([{"name": "web", **(site or {})}], known["upstreams"], known["rate_limits"], known["users"], profile)
    )


def test_nothing_is_said_of_what_fits() -> None:
    assert told(COMPLETE) == ""


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"tls": {"profile": "modern"}}, "The site web has tls without the name of a certificate"),
        ({"tls": {"certificate": "a;b"}}, "The site web has tls without the name of a certificate"),
        ({"tls": {"certificate": "a", "profile": "old"}}, "'old', and can have intermediate or modern"),
        ({"tls": {"certificate": "a", "hsts": {"preload": True}}}, "tls.hsts without max_age"),
        ({"tls": {"certificate": "a", "redirect": False, "hsts": {"max_age": 1}}}, "redirect: false. Choose one"),
        ({"tls": {"certificate": "a", "hsts": {"max_age": 60, "preload": True}}}, "at least 31536000 seconds"),
        ({"access": {"allow": ["10.0.0.1/8"]}}, "The site web has a bad entry in access: 10.0.0.1/8 has host bits set"),
        ({"access": {"deny": ["everybody"]}}, "'everybody' does not appear to be an IPv4 or IPv6 network"),
        ({"basic_auth": {"users": "others"}}, "asks for the users others, and nginx_users has team"),
        ({"basic_auth": {"users": "team", "realm": 'a"b'}}, "has a realm with a quote"),
        ({"rate_limits": ["other"]}, "has the rate limit other, and nginx_rate_limits has api"),
        ({"connection_limit": -1}, "connection_limit -1"),
        ({"client_timeouts": {"bodi": 3}}, "bodi: 3. Known are body, header, keepalive, send"),
        ({"health_paths": ["/h"], "locations": [{"path": "/h/", **UPSTREAM}]}, "health path /h, which lies in none"),
        ({"locations": [{"path": "/x"}]}, "The location /x of the site web has nothing that answers"),
        ({"locations": [{**UPSTREAM, "stub_status": True}]}, "has upstream and stub_status"),
        ({"locations": [{"stub_status": True}]}, "everybody could read them"),
        ({"access": {"allow": ["10.0.0.1"]}, "locations": [{"stub_status": True, "access": {}}]}, "everybody could"),
        ({"access": {"allow": ["10.0.0.1"]}, "locations": [{"stub_status": True, "access": None}]}, "everybody could"),
        ({"locations": [{"upstream": {"name": "nobody"}}]}, "to the upstream nobody, and nginx_upstreams has echo"),
        ({"locations": [{"upstream": {"name": "echo", "app": "shop"}}]}, "or the name of one of nginx_upstreams"),
        ({"locations": [{"upstream": {"app": "shop"}}]}, "app and service belong together"),
        ({"locations": [{"path": "/.well-known/acme-challenge/x", **UPSTREAM}]}, "is where certificates are proven"),
        ({"locations": [{"path": "/s", "static": {"directory": "/srv/s"}}]}, "its path has to end in /"),
        ({"locations": [{"static": {"directory": "/srv/../etc"}}]}, "has the static.directory '/srv/../etc'"),
        ({"locations": [{"static": {"directory": "/srv", "fallback": "a b"}}]}, "has the static.fallback 'a b'"),
        ({"locations": [{"static": {"directory": "/srv", "cache_seconds": "1h"}}]}, "which is no number of seconds"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_site_is_named(site: dict[str, Any], words: str) -> None:
    assert words in told(site)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"upstreams": {"echo": ["app.example.org:80"]}}, "nginx_upstreams.echo is ['app.example.org:80']"),
        ({"upstreams": {"echo": []}}, "nginx_upstreams.echo is []"),
        ({"upstreams": {"a b": ["127.0.0.1:1"]}}, "nginx_upstreams has the name 'a b'"),
        ({"rate_limits": {"api": {"rate": "fast"}}}, "nginx_rate_limits.api.rate is 'fast'"),
        ({"rate_limits": {"api": {"rate": "0r/s"}}}, "nginx_rate_limits.api.rate is '0r/s'"),
        ({"rate_limits": {"api": {"rate": "1r/s", "brust": 1}}}, "nginx_rate_limits.api has brust, and can have burst"),
        ({"rate_limits": {"api": {"rate": "1r/s", "burst": -1}}}, "nginx_rate_limits.api.burst is -1"),
        ({"rate_limits": {"api": {"rate": "1r/s", "key": "cookie"}}}, "nginx_rate_limits.api.key is 'cookie'"),
        ({"rate_limits": {"api": {"rate": "1r/s", "size": "big"}}}, "nginx_rate_limits.api.size is 'big'"),
        ({"rate_limits": {"api": {"rate": "1r/s", "methods": ["a|b"]}}}, "methods in capitals"),
        ({"rate_limits": {"api": {"rate": "1r/s", "methods": "POST"}}}, "api.methods is POST: give a list"),
        ({"rate_limits": {"api": {"rate": "1r/s", "exempt": ["10.0.0.300"]}}}, "api.exempt: '10.0.0.300'"),
        ({"rate_limits": {"api": {"rate": "1r/s", "exempt": "10.0.0.0/8"}}}, "api.exempt is 10.0.0.0/8: give a list"),
        ({"rate_limits": {"a-b": {"rate": "1r/s"}}}, "nginx_rate_limits has the name 'a-b'"),
        ({"rate_limits": {"api": "60r/m"}}, "nginx_rate_limits.api is '60r/m': give rate"),
        ({"users": {"team": "ada"}}, "nginx_users.team is no list of users"),
        ({"users": {"../x": []}}, "nginx_users has the name '../x'"),
        ({"users": {"team": [{"name": "a:b", "password": "canary"}]}}, "a user without a name, or with a colon"),
        ({"users": {"team": [{"name": "ada"}]}}, "has the user ada, who needs either password or hash"),
        ({"users": {"team": [{"name": "ada", "hash": "canary"}]}}, "the hash of ada is none that crypt() knows"),
        ({"users": {"team": [{"name": "ada", "password": "canary\n"}]}}, "the password of ada is empty, too long, or"),
        ({"users": {"team": [{"name": "ada", "hash": "$6$a$canary"}] * 2}}, "nginx_users.team has a user twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_named_without_a_password(settings: dict[str, Any], words: str) -> None:
    assert words in told(**settings)
    assert "canary" not in told(**settings)


def test_a_site_cannot_have_older_protocols_than_the_port() -> None:
    site = {"tls": {"certificate": "a", "profile": "intermediate"}}
    assert told(site, "intermediate") == ""
    assert "nginx_tls_profile is modern, which holds for the whole port" in told(site, "modern")
    assert "nginx_tls_profile is 'old'" in told(None, "old")


@pytest.mark.parametrize(("rate", "seconds"), [("60r/m", 1), ("10r/s", 1), ("1r/m", 60), ("7r/m", 9)])
def test_seconds_until_one_more_request_is_let_through(rate: str, seconds: int) -> None:
    assert rate_seconds(rate) == seconds


def test_a_rate_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="'often' is no rate"):
        rate_seconds("often")
