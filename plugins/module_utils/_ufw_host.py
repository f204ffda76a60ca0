# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""UFW as it is on this host, and the steps that change it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    DependencyError,
    StateError,
    os_errors,
)
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._ufw import Rule, parse_rules
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_docker import (
    HOOK,
    RULES,
    SCRIPT,
    SCRIPT_TEXT,
    not_in_force,
    not_loaded,
    with_hook,
    without_hook,
)
from ansible_collections.groundwork.backend.plugins.module_utils._ufw_plan import Step

_CONF, _DEFAULTS, _DELIVERED = "/etc/ufw/ufw.conf", "/etc/default/ufw", "/usr/share/ufw/after.init"
_USER_RULES = {"ipv4": "/etc/ufw/user.rules", "ipv6": "/etc/ufw/user6.rules"}
# UFW asks the same before it takes a rule of IPv6.
_IPV6 = Path("/proc/sys/net/ipv6")
# Written before a change and removed after it: what a run that ended between them left is loaded by the next one.
_PENDING = Path("/run/groundwork-ufw-pending")
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_MODES = {SCRIPT: 0o750, HOOK: 0o750, **dict.fromkeys(RULES.values(), 0o640)}
# What Debian delivers, for a host that has no UFW yet.
_SETTINGS = {"IPV6": "yes", "DEFAULT_INPUT_POLICY": "DROP", "DEFAULT_OUTPUT_POLICY": "ACCEPT"}


@dataclass
class Firewall:
    """UFW as it was found: whether it is on, its settings, its rules, and our files with their modes.

    loaded: whether the kernel has UFW's own chains; in_force: whether it has all that these rules and files make.
    """

    enabled: bool
    settings: Mapping[str, str]
    rules: list[Rule]
    files: Mapping[str, str]
    modes: Mapping[str, int]
    loaded: bool
    in_force: bool

    @property
    def managed(self) -> bool:
        """Whether this host has something of ours."""
        ours = [name for name in (SCRIPT, *RULES.values()) if name in self.files]
        return bool(ours) or any(one.ours for one in self.rules) or SCRIPT in self.files.get(HOOK, "")


def look() -> Firewall:
    """What there is. A host without UFW has what Debian delivers, switched off."""
    conf, defaults = _read(_CONF) or "", _read(_DEFAULTS) or ""
    settings = {name: _setting(defaults, name, preset) for name, preset in _SETTINGS.items()}
    enabled = _setting(conf, "ENABLED", "no").lower() == "yes"
    texts = {path: _read(path) for path in _MODES}
    files = {path: text for path, text in texts.items() if text is not None}
    modes = {path: Path(path).stat().st_mode & 0o777 for path in files}
    loaded, in_force = _kernel(files) if enabled else (False, False)
    return Firewall(enabled, settings, _rules(), files, modes, loaded, in_force and not _PENDING.exists())


def families(ipv6: Path = _IPV6) -> list[str]:
    """Those of which UFW takes rules: a kernel that was started with ipv6.disable=1 has one only."""
    return [family for family in _USER_RULES if family == "ipv4" or ipv6.exists()]


def _rules() -> list[Rule]:
    return [rule for family in families() for rule in parse_rules(_read(_USER_RULES[family]) or "", family)]


def _read(path: str) -> str | None:
    with os_errors(f"read {path}"):
        try:
            return Path(path).read_text()
        except FileNotFoundError:
            return None


def _setting(text: str, name: str, preset: str) -> str:
    found = re.findall(rf"^{name}=[\"']?([^\"'\s]*)", text, re.MULTILINE)
    return found[-1] if found else preset


def _kernel(files: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether UFW's chains are loaded, and whether all is in force that these files say."""
    loaded = in_force = True
    for family, program in (("ipv4", "iptables-save"), ("ipv6", "ip6tables-save")):
        if family == "ipv6" and not _has_ipv6():
            continue
        try:
            saved = run([program], env=_PATH, check=False).stdout
        except DependencyError:
            return False, False
        loaded = loaded and not not_loaded(saved, family)
        in_force = in_force and not not_in_force(saved, family, files.get(RULES[family], ""))
    return loaded, in_force


def _has_ipv6() -> bool:
    tried = ["ip6tables", "-w", "-t", "mangle", "-S", "FORWARD"]
    return "ipv6" in families() and run(tried, env=_PATH, check=False).rc == 0


def wanted_files(found: Firewall, rules: Mapping[str, str]) -> dict[str, str]:
    """Our files, and UFW's script with the call of ours; *rules* are the texts by family. Raises StateError."""
    delivered = _read(_DELIVERED)
    hook = found.files.get(HOOK, delivered or "#!/bin/sh\n")
    if found.files.get(HOOK) not in (None, delivered) and not found.modes[HOOK] & 0o100:
        raise StateError(
            f"{HOOK} has been changed and cannot be executed, so that what it does would begin with this rule.",
            fix=f"Make it executable, or bring {_DELIVERED} back.",
        )
    return {SCRIPT: SCRIPT_TEXT, HOOK: with_hook(hook), **{RULES[family]: text for family, text in rules.items()}}


def changed_files(found: Firewall, wanted: Mapping[str, str]) -> list[str]:
    """The paths whose text or mode is another one."""
    return [path for path in wanted if (found.files.get(path), found.modes.get(path)) != (wanted[path], _MODES[path])]


def switch_on(found: Firewall, plan: Sequence[Step], files: Mapping[str, str], *, check: bool) -> list[str]:
    """Make it so; returns what is done, in words. What opens SSH is there before anything else is closed."""
    written = changed_files(found, files)
    other = [name for name, value in _SETTINGS.items() if found.settings[name] != value]
    # While it is on, UFW changes the kernel with each rule, and fails where its chains are not there.
    afresh = found.enabled and bool(plan) and not found.loaded
    again = found.enabled and (bool(other) or not found.in_force)
    steps = ["ufw disable"] if afresh else []
    steps += [" ".join(one.command) for one in plan] + [f"write {path}" for path in written]
    steps += [f"set {name}={_SETTINGS[name]} in {_DEFAULTS}" for name in other]
    steps += ["ufw enable"] if afresh or not found.enabled else ["ufw reload"] if again else []
    if check or not steps:
        return steps
    if not shutil.which("ufw", path=_PATH["PATH"]):
        raise DependencyError("The program 'ufw' is needed and was not found.", fix="Install the package ufw.")
    with os_errors(f"write {_PENDING}"):
        _PENDING.touch()
    if other:
        _write_settings(other)
    if afresh:
        _ufw(["ufw", "disable"])
    for step in plan:
        _take(step)
    for path in written:
        _write(path, files[path])
    if afresh or not found.enabled:
        _enable()
    elif again:
        _ufw(["ufw", "reload"])
    elif written:
        _ufw([SCRIPT, "start"])
    _PENDING.unlink(missing_ok=True)
    return steps


def _take(step: Step) -> None:
    """UFW ends well also when it skips a rule, and what opens SSH has to be there before another one goes."""
    told = _ufw(step.command).stdout.strip()
    if step.before != "delete" and step.rule not in _rules():
        raise StateError(
            f"The rule {str(step.rule)!r} was to be made, and UFW has not made it; it said: {told}",
            fix="Take the rule out of the list, or what is in its way; a limit needs xt_recent in the kernel.",
        )


def _enable() -> None:
    """Also what is loaded halfway goes again when UFW does not start."""
    try:
        _ufw(["ufw", "--force", "enable"])
    except CommandError:
        run(["ufw", "disable"], env=_PATH, check=False)
        raise


def switch_off(found: Firewall, *, check: bool) -> list[str]:
    """Take away what is ours and switch UFW off, if there is something of ours; returns what is done."""
    if not found.managed:
        return []
    mine = [one.command("delete") for one in found.rules if one.ours]
    ours = [path for path in (SCRIPT, *RULES.values()) if path in found.files]
    hooked = found.files.get(HOOK, "")
    steps = ["ufw disable"] if found.enabled else []
    steps += [" ".join(one) for one in mine] + [f"remove {path}" for path in ours]
    if check:
        return steps
    if found.enabled:
        _ufw(["ufw", "disable"])
    if SCRIPT in found.files:
        _ufw([SCRIPT, "stop"])
    for command in mine:
        _ufw(command)
    if SCRIPT in hooked:
        _write(HOOK, without_hook(hooked))
        if without_hook(hooked) == _read(_DELIVERED):
            Path(HOOK).chmod(0o640)
    for path in ours:
        Path(path).unlink()
    _PENDING.unlink(missing_ok=True)
    return steps


def _write(path: str, text: str) -> None:
    write_file(Path(path), text.encode())
    Path(path).chmod(_MODES[path])


def _write_settings(names: Sequence[str]) -> None:
    text = _read(_DEFAULTS) or ""
    for name in names:
        line = f'{name}="{_SETTINGS[name]}"'
        text, count = re.subn(rf"^{name}=.*$", line, text, flags=re.MULTILINE)
        text += "" if count else f"{line}\n"
    write_file(Path(_DEFAULTS), text.encode())
    Path(_DEFAULTS).chmod(0o644)


def _ufw(argv: Sequence[str]) -> Completed:
    return run(argv, env=_PATH, asked="change the firewall")


def diff(found: Firewall, after: Mapping[str, Any]) -> list[dict[str, str]]:
    """Before and after: the state of UFW with its rules, and each file that changes. after: enabled, rules, files."""
    settings = {True: _SETTINGS, False: found.settings}[after["enabled"]]
    parts = [
        ("ufw", _told(found.enabled, found.settings, found.rules), _told(after["enabled"], settings, after["rules"]))
    ]
    parts += [(path, found.files.get(path, ""), after["files"].get(path, "")) for path in _MODES]
    return [
        {"before_header": name, "after_header": name, "before": before, "after": now}
        for name, before, now in parts
        if before != now
    ]


def _told(enabled: bool, settings: Mapping[str, str], rules: Sequence[Rule]) -> str:
    lines = [f"ENABLED={'yes' if enabled else 'no'}", *(f"{name}={value}" for name, value in settings.items())]
    lines += [f"{one}{f'  # {one.comment}' if one.comment else ''}" for one in rules]
    return "\n".join([*lines, ""])
