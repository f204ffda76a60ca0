# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What certbot is asked for, what its renewal file and its failures say, and certificates as data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.certificates import Authority

from ansible_collections.groundwork.backend.plugins.module_utils import _certbot, _tls_wanted
from ansible_collections.groundwork.backend.plugins.module_utils._certbot_failure import (
    Known,
    addresses,
    explain,
    ufw_closes,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._tls_nginx import Verdict
from ansible_collections.groundwork.backend.plugins.module_utils._tls_x509 import (
    DAY,
    Certificate,
    read,
    require_pair,
    self_signed,
)

DIRECTORY = "https://acme.example.org/directory"
TLS = "/etc/groundwork/tls"
URL = "http://a.test/.well-known/acme-challenge/token"
ODD = "An unexpected error occurred:\n"
UFW = "Status: active\nDefault: {} (incoming), allow (outgoing), disabled (routed)\n\n"
REQUEST = _certbot.Request("shop", ("a.test", "b.test"), DIRECTORY, "ecdsa", "/var/lib/groundwork/acme")
# As certbot 2.1.0 of Debian 12 wrote it.
RENEWAL = f"""# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/shop
cert = /etc/letsencrypt/live/shop/cert.pem

# Options used in the renewal process
[renewalparams]
account = 0123456789abcdef0123456789abcdef
authenticator = webroot
webroot_path = /var/lib/groundwork/acme,
server = {DIRECTORY}
key_type = ecdsa
[[webroot_map]]
server = /not/this/one
"""


def living(
    days: float, *, left: float = 60, names: tuple[str, ...] = ("a.test", "b.test"), key: str = "ecdsa"
) -> Certificate:
    return Certificate(names, "CN=CA", "1f", (left - days) * DAY, left * DAY, key)


def said(domain: str, kind: str, detail: str) -> str:
    return (
        "Saving debug log to /var/log/letsencrypt/letsencrypt.log\nRequesting a certificate for a.test\n\n"
        "Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported "
        f"these problems:\n  Domain: {domain}\n  Type:   {kind}\n  Detail: {detail}\n\nHint: The Certificate Authority "
        "failed to download the files.\n\nSome challenges have failed.\nAsk for help or search for solutions.\n"
    )


def test_what_is_wanted_and_there_is_left_alone() -> None:
    assert _certbot.reasons(REQUEST, _certbot.settings(RENEWAL), living(90), "") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"names": ("a.test", "b.test", "c.test")}, "not for c.test"),
        ({"names": ("a.test",)}, "also for b.test"),
        ({"server": "https://other.example.org/dir"}, f"comes from {DIRECTORY}"),
        ({"key_type": "rsa"}, "key is ecdsa"),
        ({"profile": "shortlived"}, "no profile"),
        ({"webroot": "/srv/acme"}, "renewed by webroot"),
        ({"plugin": "rfc2136", "credentials": "/x.ini"}, "renewed by webroot"),
    ],
)
def test_what_differs_is_asked_for_anew(change: dict[str, object], word: str) -> None:
    request = replace(REQUEST, **change)  # type: ignore[arg-type]  # the keys are those of Request
    [reason] = _certbot.reasons(request, _certbot.settings(RENEWAL), living(90), "")
    assert word in reason


def test_a_certificate_without_its_renewal_file_is_none() -> None:
    assert _certbot.reasons(REQUEST, {}, living(90), "") == ["there is none"]


def test_the_command_asks_for_each_name_and_replaces_what_is_there() -> None:
    words = _certbot.argv(replace(REQUEST, email="me@example.org", profile="shortlived"))
    assert [words[at + 1] for at, word in enumerate(words) if word == "--domain"] == ["a.test", "b.test"]
    assert words[words.index("--preferred-profile") + 1] == "shortlived"
    assert words[words.index("--webroot-path") + 1] == "/var/lib/groundwork/acme"
    assert {"--force-renewal", "--renew-with-new-domains", "--non-interactive"} < set(words)
    assert "--register-unsafely-without-email" not in words


def test_a_trial_asks_the_server_of_the_certificate() -> None:
    trial = _certbot.renewal_argv(REQUEST, trial=True)
    assert trial[trial.index("--server") + 1] == DIRECTORY
    assert "--dry-run" in trial
    assert not {"--server", "--dry-run"} & set(_certbot.renewal_argv(REQUEST, trial=False))


def test_a_dns_challenge_goes_by_its_plugin() -> None:
    words = _certbot.argv(replace(REQUEST, plugin="rfc2136", credentials="/x.ini", propagation_seconds=5))
    assert "--webroot" not in words
    assert words[words.index("--dns-rfc2136-credentials") + 1] == "/x.ini"
    assert words[words.index("--dns-rfc2136-propagation-seconds") + 1] == "5"


@pytest.mark.parametrize(("days", "before"), [(90, 30), (45, 15), (10, 10 / 3), (6, 3)])
def test_a_renewal_is_due_in_proportion_to_the_lifetime(days: float, before: float) -> None:
    assert living(days).renewed_days() == pytest.approx(before)


@pytest.mark.parametrize(("days", "late"), [(90, 7), (45, 7), (6, 1.5)])
def test_a_short_lifetime_is_late_at_its_last_quarter(days: float, late: float) -> None:
    assert living(days).late_days(7) == late


def test_an_old_certbot_is_told_when_to_renew_once() -> None:
    text = _certbot.timed(RENEWAL, living(6), (2, 1))
    assert text.startswith("renew_before_expiry = 72 hours\nversion = 2.1.0\n")
    assert _certbot.timed(text, living(6), (2, 1)) == text
    assert _certbot.settings(text)["renew_before_expiry"] == "72 hours"
    assert "[[webroot_map]]\n" in text


def test_a_newer_certbot_forgets_what_an_older_one_was_told() -> None:
    """720 hours of a certificate of 90 days would make one of six days due at every run of the timer."""
    plain = RENEWAL.removeprefix("# renew_before_expiry = 30 days\n")
    told = _certbot.timed(RENEWAL, living(90), (2, 1))
    assert told.startswith("renew_before_expiry = 720 hours\n")
    assert _certbot.timed(told, living(6), (4, 0)) == plain
    for users in (RENEWAL, f"renew_before_expiry = 10 days\n{plain}"):
        assert _certbot.timed(users, living(6), (4, 0)) == users


@pytest.mark.parametrize(
    ("printed", "kind", "word"),
    [
        (said("a.test", "connection", f'Get "{URL}": dial tcp 198.18.0.9:80: refused'), "wrong_dns", "to 198.18.0.9"),
        (said("a.test", "connection", f"198.18.0.9: Fetching {URL}: Timeout"), "wrong_dns", "host has 198.18.0.1"),
        (said("a.test", "dns", "DNS problem: NXDOMAIN looking up A for a.test"), "wrong_dns", "leads to no address"),
        (said("a.test", "connection", f"198.18.0.1: Fetching {URL}: Connection refused"), "challenge", "come through"),
        (said("a.test", "unauthorized", f"198.18.0.1: Invalid response from {URL}: 404"), "challenge", "404"),
        (said("a.test", "caa", "CAA record for a.test prevents issuance"), "caa", "CAA record"),
        (said("a.test", "rateLimited", "too many failed authorizations"), "rate_limit", "a.test"),
        (f"{ODD}Error creating new order :: too many certificates (5) already issued", "rate_limit", "already"),
        (f"{ODD}There were too many requests of a given type :: retry after 2026-01-01", "rate_limit", "2026-01-01"),
        (f"{ODD}requests.exceptions.ConnectionError: Max retries exceeded", "unreachable", DIRECTORY),
        (f"{ODD}ValueError: Requesting acme/dir: Connection refused", "unreachable", DIRECTORY),
        (f"{ODD}requests.exceptions.SSLError: CERTIFICATE_VERIFY_FAILED", "untrusted", "certbot_ca"),
        (f"{ODD}The request message was malformed :: Domain name needs at least one dot", "refused", "one dot"),
    ],
)  # fmt: skip
def test_a_failure_says_which_it_was(printed: str, kind: str, word: str) -> None:
    failure = explain(printed, DIRECTORY, Known(["198.18.0.1", "fd00::1"]))
    assert failure.kind == kind, failure
    assert word in f"{failure.problem} {failure.fix}"
    assert not re.search(r"Saving debug log|Ask for help", failure.problem)


def test_a_name_that_the_server_does_not_place_is_looked_up() -> None:
    printed = said("a.test", "unauthorized", "Non-200 status code from HTTP: http://a.test:80/x returned 404")
    failure = explain(printed, DIRECTORY, Known(["198.18.0.1"], {"a.test": ["198.18.0.9"]}))
    assert failure.kind == "wrong_dns"


def test_the_firewall_of_the_host_is_named_when_the_name_leads_here() -> None:
    printed = said("a.test", "connection", "dial tcp 198.18.0.1:80: i/o timeout")
    closed = UFW.format("deny") + "22/tcp    ALLOW IN    Anywhere\n"
    assert explain(printed, DIRECTORY, Known(["198.18.0.1"], ufw=closed)).kind == "firewall"
    assert explain(printed, DIRECTORY, Known(["198.18.0.9"], ufw=closed)).kind == "wrong_dns"


@pytest.mark.parametrize(
    ("rules", "closed"),
    [
        ("", True),
        ("22/tcp                     ALLOW IN    Anywhere", True),
        ("80/tcp                     ALLOW IN    Anywhere                   # web", False),
        ("80,443/tcp                 ALLOW IN    Anywhere", False),
        ("1:1024/tcp                 LIMIT IN    Anywhere", False),
        ("80                         ALLOW IN    Anywhere", False),
        ("80 (v6)                    ALLOW IN    Anywhere (v6)", False),
        ("Nginx Full                 ALLOW IN    Anywhere", False),
        ("80/udp                     ALLOW IN    Anywhere", True),
        ("80/tcp                     ALLOW IN    198.18.0.0/24", True),
        ("80/tcp                     ALLOW OUT   Anywhere", True),
        ("80/tcp                     REJECT IN   Anywhere\nAnywhere                   ALLOW IN    Anywhere", True),
    ],
)
def test_what_ufw_lets_in(rules: str, closed: bool) -> None:
    assert ufw_closes(UFW.format("deny") + rules, 80) is closed
    assert ufw_closes("Status: inactive\n", 80) is False
    assert ufw_closes(UFW.format("allow") + "80/tcp   DENY IN   Anywhere\n", 80) is True
    assert ufw_closes(UFW.format("allow") + "22/tcp   DENY IN   Anywhere\n", 80) is False


def test_addresses_are_found_in_the_words_of_servers() -> None:
    assert addresses("dial tcp [2001:db8::1]:80: refused; 198.18.0.9: Fetching http://10.test/1.2.3.4x") == [
        "2001:db8::1",
        "198.18.0.9",
    ]
    assert addresses("2001:db8::1: Fetching http://a.test/: Timeout at 12:30:45") == ["2001:db8::1"]


def test_a_placeholder_is_for_its_names_and_known_as_one() -> None:
    chain, key = self_signed(["a.test", "*.b.test"], 90)
    found = read(chain, "it")
    assert found.names == ("*.b.test", "a.test")
    assert found.placeholder
    assert found.key == "ecdsa"
    assert found.lifetime_days == pytest.approx(90, abs=0.1)
    require_pair(chain, key, "it")


def test_what_a_user_brings_is_checked(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    good, other = authority.issue("a.test", "*.b.test").read_text(), authority.issue("c.test").read_text()
    ended = authority.issue("a.test", days=-2).read_text()

    def bring(chain: str, key: str, *names: str) -> None:
        _tls_wanted.require_usable(_tls_wanted.Wanted("shop", names, chain=chain, key=key))

    bring(good, good, "a.test", "x.b.test", "*.b.test")
    for chain, key, names, word in (
        (good, other, ("a.test",), "not that of its first certificate"),
        (good, good, ("a.test", "d.test"), "not for d.test"),
        (ended, ended, ("a.test",), "days ago"),
        ("nothing", good, ("a.test",), "no certificate that can be read"),
        (
            good,
            "-----BEGIN PRIVATE KEY-----\ncanary-key\n-----END PRIVATE KEY-----",
            ("a.test",),
            "key of shop cannot be read",
        ),
    ):
        with pytest.raises(InputError, match=word) as error:
            bring(chain, key, *names)
        assert "canary-key" not in str(error.value)


def test_the_certificates_that_nginx_names_are_found() -> None:
    dump = f'ssl_certificate {TLS}/shop/fullchain.pem;\nssl_certificate_key "{TLS}/two.test/privkey.pem";\n'
    assert Verdict("", dump).named(Path(TLS)) == {"shop", "two.test"}
