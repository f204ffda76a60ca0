# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What UFW does not do for ports that Docker publishes: rules for packets to containers, and a script for them. Pure.

The rules stand in a chain of ours that DOCKER-USER jumps to, and once more in the table mangle: an engine that finds
DOCKER-USER when it starts may put its own rules above it (moby#48560), and one that uses nftables has none. They match
the port that the client asked for, as the port of the packet is the container's by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import Network, Rule

SCRIPT = "/etc/ufw/groundwork-docker"
RULES = {"ipv4": f"{SCRIPT}.rules", "ipv6": f"{SCRIPT}6.rules"}
HOOK = "/etc/ufw/after.init"
_CHAIN = "groundwork-docker"
_ASKED = f"{_CHAIN}-asked"
_UFW = {"ipv4": "ufw", "ipv6": "ufw6"}
_HEAD = "# Written by the Ansible role groundwork.backend.ufw.\n"
_BEGIN, _END = "# BEGIN groundwork.backend.ufw", "# END groundwork.backend.ufw"
_BLOCK = f'{_BEGIN}\n{SCRIPT} "$1" || exit\n{_END}\n'

SCRIPT_TEXT = f"""\
#!/bin/sh
{_HEAD}# UFW calls it by {HOOK} when it starts and stops.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

jump() {{ # the command, its table, and the rule, which is made the first of its chain
    if ! "$1" -w -t "$2" -S "$3" 1 2>/dev/null | grep -qxFe "-A $3 $4"; then
        while "$1" -w -t "$2" -D "$3" $4 2>/dev/null; do :; done
        "$1" -w -t "$2" -I "$3" $4
    fi
}}

leave() {{
    while "$1" -w -t "$2" -D "$3" $4 2>/dev/null; do :; done
}}

each() {{ # of both families that the kernel has
    "$1" iptables /etc/ufw/groundwork-docker.rules
    if ip6tables -w -t mangle -S FORWARD >/dev/null 2>&1; then
        "$1" ip6tables /etc/ufw/groundwork-docker6.rules
    fi
}}

begin() {{
    "$1-restore" -w -n <"$2"
    "$1" -w -N DOCKER-USER 2>/dev/null || "$1" -w -n -L DOCKER-USER >/dev/null
    jump "$1" filter DOCKER-USER "-j {_CHAIN}"
    jump "$1" filter FORWARD "-j DOCKER-USER"
    jump "$1" mangle FORWARD "-j {_CHAIN}"
}}

end() {{
    leave "$1" filter DOCKER-USER "-j {_CHAIN}"
    leave "$1" mangle FORWARD "-j {_CHAIN}"
    for table in filter mangle; do
        for action in -F -X; do
            for chain in {_CHAIN} {_ASKED}; do "$1" -w -t "$table" "$action" "$chain" 2>/dev/null || :; done
        done
    done
}}

reloads() {{ # whether "ufw reload" called, which starts again at once
    pid=$PPID
    while [ "${{pid:-0}}" -gt 1 ]; do
        if tr '\\0' ' ' <"/proc/$pid/cmdline" | grep -q '/ufw reload $'; then return 0; fi
        pid=$(sed 's/.*) . //; s/ .*//' "/proc/$pid/stat")
    done
    return 1
}}

# Rules that send a port of 127.0.0.1 on do so before the kernel looks where the packet came from.
loopback="-d 127.0.0.0/8 ! -i lo -j DROP"
case "$1" in
start)
    each begin
    jump iptables raw PREROUTING "$loopback"
    ;;
stop | flush-all)
    if ! reloads; then
        each end
        leave iptables raw PREROUTING "$loopback"
    fi
    ;;
esac
"""


def read_bridges(bridges: Sequence[str], interfaces: Iterable[str]) -> list[str]:
    """The interfaces of this host that br-+ means and that are not Docker's by their names. Raises InputError."""
    for one in bridges:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,14}[a-zA-Z0-9_.+-]", one):
            raise InputError(
                f"docker_interfaces has {one!r}.", fix="Give names of bridges, with + at the end for all that begin so."
            )
    if "br-+" not in bridges:
        return []
    begun = [one for one in interfaces if one.startswith("br-") and one not in bridges]
    return [one for one in begun if not re.fullmatch(r"br-[0-9a-f]{12}", one)]


def rules_text(
    rules: Iterable[Rule], family: str, trusted: Iterable[Network], bridges: Sequence[str], other: Sequence[str]
) -> str:
    """What iptables-restore takes, of one family.

    trusted: networks that may send everything to containers. bridges: interfaces of Docker, with + at the end for all
    that begin so; other: those that begin so and are not Docker's.
    """
    mine = [one for one in rules if one.family == family]
    free = [f"-A {_CHAIN} -s {one} -j RETURN" for one in trusted if family == f"ipv{one.version}"]
    lines = [_HEAD.rstrip()]
    for table in ("filter", "mangle"):
        lines += [f"*{table}", f":{_CHAIN} - [0:0]", f":{_ASKED} - [0:0]"]
        lines += [f"-A {_CHAIN} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", *free]
        # Which ports were asked for is only known of connections that a rule sends on. Others go to a container itself.
        # What is let in there goes on where this chain was left, which is what -g is for.
        published = f"-m conntrack --ctstate DNAT -g {_ASKED}"
        lines += [f"-A {_CHAIN} -i {name} {published}" for name in other]
        # What stays in one network comes by here where bridges are filtered, and may be a network of Docker.
        lines += [f"-A {_CHAIN} -i {name} -o {name} -j RETURN" for name in other]
        lines += [f"-A {_CHAIN} -i {name} -o {bridge} -j DROP" for name in other for bridge in bridges]
        lines += [f"-A {_CHAIN} -i {name} -j RETURN" for name in bridges]
        lines += [f"-A {_CHAIN} {published}"]
        lines += [f"-A {_CHAIN} -o {name} -j DROP" for name in bridges]
        lines += [line for one in mine for line in _asked(one, counts=table == "filter")]
        lines += [f"-A {_ASKED} -j DROP", "COMMIT"]
    return "\n".join([*lines, ""])


def _asked(rule: Rule, *, counts: bool) -> list[str]:
    """One rule for what a client asked for; counts: whether a limit counts here, as it may do only once."""
    words = ["-A", _ASKED]
    words += [] if rule.source.endswith("/0") else ["-s", rule.source]
    words += ["-i", rule.interface] if rule.interface else []
    words += [] if rule.proto == "any" else ["-p", rule.proto]
    words += [] if rule.ports == "any" else ["-m conntrack --ctdir ORIGINAL --ctorigdstport", rule.ports]
    line = " ".join(words)
    if rule.action == "deny":
        return [f"{line} -j DROP"]
    if rule.action == "limit" and counts:  # as UFW's own: six connections in 30 seconds
        recent = f"-m recent --name gw{rule.proto}{rule.ports.replace(':', '-')}"
        return [
            f"{line} {recent} --set",
            f"{line} {recent} --update --seconds 30 --hitcount 6 -j DROP",
            f"{line} -j RETURN",
        ]
    return [f"{line} -j RETURN"]


def not_loaded(saved: str, family: str) -> bool:
    """Whether what iptables-save told lacks UFW's chain for rules."""
    return f":{_UFW[family]}-user-input " not in saved


def not_in_force(saved: str, family: str, text: str) -> bool:
    """Whether what iptables-save told lacks a rule that UFW or the script makes; text is what the script loads."""
    wanted = {f"-A DOCKER-USER -j {_CHAIN}", f"-A FORWARD -j {_CHAIN}", "-A FORWARD -j DOCKER-USER"}
    wanted |= {"-A PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP"} if family == "ipv4" else set()
    chain = _UFW[family]
    wanted |= {f"-A {chain}-before-input -j {chain}-user-input", f"-A INPUT -j {chain}-before-input"}
    there = wanted <= set(saved.splitlines()) and ":INPUT DROP " in saved
    return not there or _verdicts(saved) != _verdicts(text)


def _verdicts(text: str) -> dict[tuple[str, str], list[str]]:
    """What each rule of our chains does, in order. The kernel writes the rest of a rule in another way than we do."""
    table, found = "", dict[tuple[str, str], list[str]]()
    for line in text.splitlines():
        table = line if line.startswith("*") else table
        if match := re.match(rf"-A ({_CHAIN}(?:-asked)?) (?:(?:.* )?-[jg] (\S+))?", line):
            found.setdefault((table, match[1]), []).append(match[2] or "")
    return found


def with_hook(text: str) -> str:
    """UFW's script after.init with the call of ours, as the first thing that it does."""
    first, _, rest = without_hook(text).partition("\n")
    return f"{first}\n{_BLOCK}{rest}"


def without_hook(text: str) -> str:
    """The same as it was before."""
    return text.replace(_BLOCK, "")
