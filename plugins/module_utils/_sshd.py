# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What sshd would do with settings, and what of that would lock a connection out; pure.

Keywords and their rules are those of sshd_config(5), how names and addresses are matched that of OpenSSH's match.c.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

Effective = Mapping[str, Sequence[str]]

HEADER = "# By groundwork.backend (sshd_config). sshd takes the first value it finds, and adds up ports and users.\n"
# A Match or an Include would change what the settings below it, and those of the files after this one, mean.
_BLOCKS = {"match", "include"}
LINE_EACH = {
    "port", "listenaddress", "hostkey", "acceptenv", "setenv", "allowusers", "denyusers", "allowgroups", "denygroups",
}  # fmt: skip
_WITH_COMMAS = {
    "ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms", "casignaturealgorithms",
    "hostbasedacceptedalgorithms",
}  # fmt: skip
# What decides whether a login works, and whose outcome cannot be told from here.
_UNTELLABLE = (
    "authenticationmethods", "authorizedkeysfile", "authorizedkeyscommand", "authorizedkeyscommanduser",
    "authorizedprincipalsfile", "authorizedprincipalscommand", "chrootdirectory", "forcecommand", "hostkey",
    "pubkeyauthoptions", "requiredrsasize", "revokedkeys", "strictmodes", "trustedusercakeys", "usepam",
)  # fmt: skip
_ALGORITHMS = {
    "RSA": ("rsa-sha2-", "ssh-rsa"),
    "ED25519": ("ssh-ed25519",),
    "ECDSA": ("ecdsa-sha2-",),
    "ED25519-SK": ("sk-ssh-ed25519",),
    "ECDSA-SK": ("sk-ecdsa-",),
}
_ACCEPTED = re.compile(r"Accepted (\S+) for .* ssh2(?:: (\S+) (SHA256:\S+))?")


@dataclass(frozen=True)
class Connection:
    """How somebody came in. method and the key's kind and fingerprint are empty when the journal does not tell them.

    has_key: whether there is a key of this user on the host.
    """

    user: str
    groups: tuple[str, ...]
    address: str
    port: int
    local_address: str
    local_port: int
    method: str = ""
    key_kind: str = ""
    key: str = ""
    has_key: bool = False


def accepted(line: str) -> tuple[str, str, str]:
    """Method, kind of key and fingerprint of sshd's line "Accepted …"; all empty without one."""
    match = _ACCEPTED.search(line)
    return (match[1], match[2] or "", match[3] or "") if match else ("", "", "")


def lines(settings: Mapping[str, Any]) -> list[str]:
    """Settings as lines of sshd_config. Raises InputError."""
    found: list[str] = []
    for keyword, value in settings.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", keyword) or keyword.lower() in _BLOCKS:
            raise InputError(
                f"{keyword!r} cannot be one of the settings.",
                fix="Give keywords of sshd_config(5). Match and Include belong into a file of your own.",
            )
        if value is None:
            continue
        values = [_word(keyword, one) for one in (value if isinstance(value, list) else [value])]
        if keyword.lower() == "port" and not all(one.isdigit() and 0 < int(one) < 65536 for one in values):
            raise InputError(f"Port is {', '.join(values)}.", fix="A port is a number from 1 to 65535.")
        if not values:
            continue
        if keyword.lower() in LINE_EACH:
            found += [f"{keyword} {one}" for one in values]
        else:
            found.append(f"{keyword} {(',' if keyword.lower() in _WITH_COMMAS else ' ').join(values)}")
    return found


def _word(keyword: str, value: Any) -> str:
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).strip()
    if not text or "\n" in text or isinstance(value, Mapping):
        raise InputError(f"{keyword} is {value!r}.", fix="Give a word, a number, a truth value, or a list of those.")
    return text


def render(settings: Mapping[str, Any], ports: Iterable[int] = ()) -> str:
    """The text of the file; ports are kept beside those of the settings. Empty when there is nothing to say."""
    text = [*lines(settings), *(f"Port {port}" for port in ports)]
    return "\n".join([HEADER.rstrip(), *text, ""]) if text else ""


def parse(output: str) -> dict[str, list[str]]:
    """What `sshd -T` prints, by keyword in small letters."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword.lower(), []).append(value.strip())
    return found


def ports(effective: Effective) -> list[int]:
    """The ports of sshd."""
    return sorted({int(one.rpartition(":")[2]) for one in effective.get("listenaddress", [])})


def listens(effective: Effective, address: str, port: int) -> bool:
    """Whether a connection to this address and port reaches sshd."""
    wildcard = "[::]" if ":" in address else "0.0.0.0"  # noqa: S104 - compared, and nothing is bound
    own = f"[{address}]" if ":" in address else address
    return any(f"{one}:{port}" in effective.get("listenaddress", []) for one in (wildcard, own))


def objections(wanted: Effective, live: Effective, who: Connection, ways: Iterable[str] = ()) -> list[str]:
    """What would keep *who* from coming in again; each is a sentence.

    wanted and live are what sshd says for this connection. ways: who else can come in with a key, so that a
    password is not needed any more; () for nobody.
    """
    found = [
        f"{one} would be {' '.join(wanted.get(one, ['nothing']))} instead of {' '.join(live.get(one, ['nothing']))}, "
        f"and nobody can tell from here whether {who.user} still comes in then (make that change by hand)."
        for one in _UNTELLABLE
        if wanted.get(one) != live.get(one)
    ]
    found += _refused_name(wanted, who)
    if who.user == "root" and not _root_open(wanted, live, who):
        found.append(f"This run comes in as root, and PermitRootLogin would be {_root(wanted)}.")
    if not _open(wanted, live, who) and not list(ways):
        found.append(_closed(wanted, who))
    if int((wanted.get("maxsessions") or ["10"])[0]) < 1:
        found.append("MaxSessions would be 0, so that nobody gets a shell.")
    return found


def _root(effective: Effective) -> str:
    return (effective.get("permitrootlogin") or ["yes"])[0]


def _root_open(wanted: Effective, live: Effective, who: Connection) -> bool:
    """Whether root may still come in in the way in which it came."""
    by_key = who.method == "publickey" or (not who.method and who.has_key)
    return (
        _root(wanted) == "yes"
        or (by_key and _root(wanted) in ("without-password", "prohibit-password"))
        or (not who.method and _root(wanted) == _root(live))
    )


def _open(wanted: Effective, live: Effective, who: Connection) -> bool:
    """Whether the way in which somebody came stays open."""
    kinds_of_login = ("pubkeyauthentication", "passwordauthentication", "kbdinteractiveauthentication")
    if not who.method:
        same = all(wanted.get(one) == live.get(one) for one in kinds_of_login)
        return same or (who.has_key and _yes(wanted, "pubkeyauthentication"))
    if who.method == "publickey":
        kinds = _ALGORITHMS.get(who.key_kind.removesuffix("-CERT"), ("",))
        algorithms = (wanted.get("pubkeyacceptedalgorithms") or [""])[0].split(",")
        return _yes(wanted, "pubkeyauthentication") and any(one.startswith(kinds) for one in algorithms)
    if who.method == "password":
        return _yes(wanted, "passwordauthentication")
    if who.method.startswith("keyboard-interactive"):
        return _yes(wanted, "kbdinteractiveauthentication")
    return False


def _closed(wanted: Effective, who: Connection) -> str:
    if who.method == "publickey":
        return f"{who.user} came in with a key of the kind {who.key_kind}, which would not be accepted any more."
    came = f"came in with {who.method}" if who.method else "came in in a way that sshd's log does not tell (any more)"
    return (
        f"{who.user} {came}, that would be switched off, and no key is known to work. Put a key of {who.user} on the "
        "host and come in with it, or list an admin with a key and sudo in host_admins."
    )


def _yes(effective: Effective, keyword: str) -> bool:
    return list(effective.get(keyword, [])) == ["yes"]


def _refused_name(wanted: Effective, who: Connection) -> list[str]:
    """sshd asks in this order, and a name has to pass all four. What is not sure counts as refused."""

    def names(keyword: str) -> list[str]:
        return [word for line in wanted.get(keyword, []) for word in line.split()]

    found = []
    if any(matches(one, who, unsure=True) for one in names("denyusers")):
        found.append(f"DenyUsers would refuse {who.user} from {who.address}.")
    if (allowed := names("allowusers")) and not any(matches(one, who, unsure=False) for one in allowed):
        found.append(f"AllowUsers would be {' '.join(allowed)}, and {who.user} from {who.address} is not among them.")
    if any(_glob(one.lstrip("!"), group) for one in names("denygroups") for group in who.groups):
        found.append(f"DenyGroups would refuse {who.user}, who is in {', '.join(who.groups)}.")
    if (groups := names("allowgroups")) and not any(_glob(one, group) for one in groups for group in who.groups):
        found.append(f"AllowGroups would be {' '.join(groups)}, and {who.user} is only in {', '.join(who.groups)}.")
    return found


def matches(pattern: str, who: Connection, *, unsure: bool) -> bool:
    """Whether USER or USER@HOST of AllowUsers and DenyUsers is this connection.

    unsure is the answer where only the name of the client would tell.
    """
    if "!" in pattern:
        return unsure
    user, at, host = pattern.rpartition("@")
    if not at:
        return _glob(pattern, who.user)
    return _glob(user, who.user) and any(_from(one, who.address, unsure) for one in host.split(","))


def _from(pattern: str, address: str, unsure: bool) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        # A pattern of digits is about addresses; one with letters may be a name that sshd looks up.
        return _glob(pattern, address) or (unsure and re.fullmatch(r"[0-9.:*?]+", pattern) is None)


def _glob(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None
