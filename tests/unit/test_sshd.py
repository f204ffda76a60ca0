# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Settings of sshd as text, and what of `sshd -T` would lock a connection out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _sshd
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

WHO = _sshd.Connection(
    "ann", ("ann", "sudo"), "198.51.100.7", 40000, "192.0.2.1", 22, "publickey", "ED25519", "SHA256:x"
)
# The part of OpenSSH 9.2's `sshd -T` that counts here.
LIVE = _sshd.parse("""port 22
listenaddress [::]:22
listenaddress 0.0.0.0:22
usepam yes
permitrootlogin without-password
pubkeyauthentication yes
passwordauthentication yes
kbdinteractiveauthentication no
pubkeyacceptedalgorithms ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512
authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2
maxsessions 10""")


def objections(who: _sshd.Connection = WHO, ways: list[str] | None = None, **changes: list[str]) -> list[str]:
    return _sshd.objections({**LIVE, **changes}, LIVE, who, ways or [])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"Port": [22, "2222"]}, ["Port 22", "Port 2222"]),
        ({"PasswordAuthentication": False, "UsePAM": True}, ["PasswordAuthentication no", "UsePAM yes"]),
        ({"Ciphers": ["a", "b"]}, ["Ciphers a,b"]),
        ({"AuthenticationMethods": ["publickey", "password"]}, ["AuthenticationMethods publickey password"]),
        ({"LoginGraceTime": 30, "Banner": None, "AllowUsers": []}, ["LoginGraceTime 30"]),
    ],
)
def test_settings_become_lines(settings: dict[str, Any], expected: list[str]) -> None:
    assert _sshd.lines(settings) == expected


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"Match": "User x"}, "'Match' cannot be one of the settings"),
        ({"include": "/x"}, "'include' cannot be"),
        ({"Port": 65536}, "Port is 65536"),
        ({"Port": "ssh"}, "Port is ssh"),
        ({"Banner": "a\nPermitRootLogin yes"}, "Banner is"),
        ({"X Y": 1}, "'X Y' cannot be"),
        ({"Banner": {}}, "Banner is {}"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        _sshd.lines(settings)


def test_no_settings_are_no_file() -> None:
    assert _sshd.render({}) == ""
    assert _sshd.render({"Port": 2222}, [22]).endswith("Port 2222\nPort 22\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Accepted publickey for ann from ::1 port 4 ssh2: ED25519 SHA256:a+b", ("publickey", "ED25519", "SHA256:a+b")),
        ("Accepted password for ann from 192.0.2.1 port 4 ssh2", ("password", "", "")),
        ("Failed password for ann from 192.0.2.1 port 4 ssh2", ("", "", "")),
    ],
)
def test_how_somebody_came_in(line: str, expected: tuple[str, str, str]) -> None:
    assert _sshd.accepted(line) == expected


def test_where_sshd_listens() -> None:
    assert _sshd.ports(LIVE) == [22]
    assert _sshd.listens(LIVE, "192.0.2.1", 22)
    assert _sshd.listens(LIVE, "2001:db8::1", 22)
    assert not _sshd.listens(LIVE, "192.0.2.1", 2222)
    one = {"listenaddress": ["192.0.2.1:22", "[2001:db8::1]:22"]}
    assert _sshd.listens(one, "2001:db8::1", 22)
    assert not _sshd.listens(one, "192.0.2.2", 22)


def test_nothing_new_is_no_objection() -> None:
    assert objections() == []
    assert objections(passwordauthentication=["no"]) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"allowusers": ["bob", "a?b"]}, "AllowUsers would be bob a?b, and ann from 198.51.100.7 is not among them"),
        ({"allowusers": ["ann@10.0.0.0/8"]}, "AllowUsers would be"),
        ({"allowusers": ["ann@*.example.org"]}, "AllowUsers would be"),
        ({"denyusers": ["a*"]}, "DenyUsers would refuse ann"),
        ({"denyusers": ["ann@*.example.org"]}, "DenyUsers would refuse ann"),
        ({"allowgroups": ["wheel"]}, "AllowGroups would be wheel, and ann is only in ann, sudo"),
        ({"denygroups": ["su*"]}, "DenyGroups would refuse ann"),
        ({"pubkeyauthentication": ["no"]}, "came in with a key of the kind ED25519"),
        ({"pubkeyacceptedalgorithms": ["rsa-sha2-512"]}, "came in with a key of the kind ED25519"),
        ({"authorizedkeysfile": ["/etc/keys/%u"]}, "authorizedkeysfile would be /etc/keys/%u instead of .ssh/auth"),
        ({"forcecommand": ["/bin/false"]}, "forcecommand would be /bin/false instead of nothing"),
        ({"maxsessions": ["0"]}, "MaxSessions would be 0"),
    ],
)
def test_what_locks_out(changes: dict[str, list[str]], told: str) -> None:
    (refused,) = objections(**changes)
    assert told in refused


@pytest.mark.parametrize(
    "pattern", ["ann", "a*", "bob ann", "ann@198.51.100.*", "ann@198.51.100.0/24", "*@10.0.0.0/8,198.51.100.7"]
)
def test_who_is_among_the_allowed(pattern: str) -> None:
    assert objections(allowusers=[pattern]) == []


@pytest.mark.parametrize(
    ("login", "method", "refused"),
    [
        ("yes", "password", False),
        ("without-password", "password", True),
        ("without-password", "publickey", False),
        ("forced-commands-only", "publickey", True),
        ("no", "publickey", True),
        ("without-password", "", False),
        ("forced-commands-only", "", True),
        ("no", "", True),
    ],
)
def test_root(login: str, method: str, refused: bool) -> None:
    root = replace(WHO, user="root", groups=("root",), method=method)
    assert any("PermitRootLogin" in one for one in objections(root, permitrootlogin=[login])) == refused


def test_root_whose_way_in_is_unknown_has_a_key() -> None:
    root = replace(WHO, user="root", groups=("root",), method="", key_kind="")
    before = {**LIVE, "permitrootlogin": ["yes"]}
    (refused,) = _sshd.objections(LIVE, before, root)
    assert refused == "This run comes in as root, and PermitRootLogin would be without-password."
    assert _sshd.objections(LIVE, before, replace(root, has_key=True)) == []


def test_a_password_is_given_up_only_for_a_key() -> None:
    password = replace(WHO, method="password", has_key=True)
    (refused,) = objections(password, passwordauthentication=["no"])
    assert "ann came in with password, that would be switched off, and no key is known to work" in refused
    assert objections(password, passwordauthentication=["no"], ways=["bob"]) == []
    assert objections(password) == []


def test_a_log_that_does_not_tell() -> None:
    unknown = replace(WHO, method="", key_kind="", key="")
    assert objections(unknown) == []
    assert "in a way that sshd's log does not tell" in objections(unknown, passwordauthentication=["no"])[0]
    assert objections(replace(unknown, has_key=True), passwordauthentication=["no"]) == []
