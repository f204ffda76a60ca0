# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What has to be known before a setting of sshd goes live: that sshd takes it, reads it, and locks nobody out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _sshd
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._sshd_connection import (
    find_connection,
    groups_of,
    has_key,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sshd_host import ETC, Candidate

FILE = ETC / "sshd_config.d" / "00-groundwork.conf"
NOBODY = _sshd.Connection("root", ("root",), "127.0.0.1", 0, "127.0.0.1", 22)


def who_came(required: bool) -> _sshd.Connection | None:
    """The SSH connection of this run. Raises StateError when it is required and there is none."""
    who = find_connection()
    if who is None and required:
        raise StateError(
            "The SSH connection of this run could not be found, so that nobody can tell whether it would be cut off.",
            fix="Come in over SSH, or set require_connection to false where the host is reached in another way.",
        )
    return who


def attempt(candidate: Candidate, text: str) -> None:
    """Try the complete configuration with this text as our file. Raises StateError."""
    candidate.put(text)
    if told := candidate.test():
        raise StateError(
            f"sshd refuses the complete configuration, so that nothing was changed: {told}",
            fix="Correct the file that sshd names; 00-groundwork.conf holds the settings.",
        )


def require_read(candidate: Candidate, text: str) -> None:
    """Require that sshd reads our file at all, by a word that it would refuse. Raises StateError."""
    candidate.put(f"{text}GroundworkProbe yes\n")
    if text and not candidate.test():
        raise StateError(
            f"{ETC}/sshd_config does not read {FILE.parent}, so that the settings would do nothing.",
            fix=f"Put this line at the top of it: Include {FILE.parent}/*.conf",
        )
    candidate.put(text)


def keep_port(candidate: Candidate, settings: dict[str, Any], who: _sshd.Connection, socket: bool) -> tuple[str, int]:
    """The text of the file, with the connection's port where the settings would close it, and that port or 0."""
    text = _sshd.render(settings)
    attempt(candidate, text)
    wanted = candidate.effective(who)
    if socket or _sshd.listens(wanted, who.local_address, who.local_port):
        return text, 0
    if who.local_port in _sshd.ports(wanted):
        raise StateError(
            f"This run comes in at {who.local_address}, on which sshd would not listen any more.",
            fix="Add that address to ListenAddress.",
        )
    named = any(keyword.lower() == "port" for keyword in settings)
    text = _sshd.render(settings, [*([] if named else _sshd.ports(wanted)), who.local_port])
    attempt(candidate, text)
    if not _sshd.listens(candidate.effective(who), who.local_address, who.local_port):
        raise StateError(
            f"This run came in on port {who.local_port} of {who.local_address}, which ListenAddress would close.",
            fix="Add it there.",
        )
    return text, who.local_port


def require_way_in(candidate: Candidate, live: dict[str, list[str]], who: _sshd.Connection, admins: list[str]) -> None:
    """Require that who came in can do so again; *candidate* holds the new file. Raises StateError."""
    who = replace(who, has_key=has_key(who.user, live.get("authorizedkeysfile", [])))
    ways = []
    for name in admins:
        admin = replace(who, user=name, groups=groups_of(name), port=0, method="publickey", key_kind="", key="")
        wanted = candidate.effective(admin)
        if wanted.get("pubkeyauthentication") == ["yes"] and not _sshd.objections(wanted, wanted, admin):
            ways.append(name)
    refused = _sshd.objections(candidate.effective(who), live, who, ways)
    if refused:
        raise StateError(
            f"These settings of sshd would lock out who sets them, so that nothing was changed: {' '.join(refused)}",
            refused=refused,
        )


def overruled(candidate: Candidate, settings: dict[str, Any], who: _sshd.Connection) -> list[str]:
    """Settings that another file changes for this connection."""
    alone = candidate.effective(who, f"{FILE.parent.name}/{FILE.name}")
    wanted = candidate.effective(who)
    return [
        f"{keyword} is {' '.join(wanted.get(keyword.lower(), []))} for {who.user} from {who.address}, by a Match of "
        "another file."
        for keyword in settings
        if keyword.lower() not in _sshd.LINE_EACH and alone.get(keyword.lower()) != wanted.get(keyword.lower())
    ]
