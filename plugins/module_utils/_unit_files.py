# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The texts of systemd's units for one release of a stack. Pure.

A service names the folder of its release, so that it goes with its release through restarts and reboots. A socket does
not: it stays as it is from one release to the next, and with it the connections that wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._units import Unit

BACKLOG = 4096
TRIAL_STOP_SECONDS = 2
# systemd.exec(5). A unit gets every line of it that app_units.<key>.service does not name.
HARDENING: Mapping[str, Any] = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0027",
}
_HEADER = "# Written by groundwork.backend, as the next deploy writes it again."
_OWNER = re.compile(r"^# app (\S+)$", re.MULTILINE)
_ENV_FILE = re.compile(r"^EnvironmentFile=(.+)$", re.MULTILINE)
_ADDRESS = re.compile(r"^(?:ListenStream=|# at )(.+)$", re.MULTILINE)
_SPECIAL = frozenset("@-:+!|")  # prefixes of a command, systemd.service(5)


@dataclass(frozen=True)
class Place:
    """Where a release is. venv is empty when it has none; env_file is the release's own copy of the variables."""

    app: str
    release: str
    directory: str
    venv: str
    env_file: str


def service(unit: Unit, place: Place) -> str:
    """The text of the unit."""
    head = {"Description": f"{place.app} {unit.key}", "After": ["network.target"], "StartLimitIntervalSec": "0"}
    if unit.socket:
        head |= {"Requires": [unit.socket_name], "After": ["network.target", unit.socket_name]}
    own = {"Restart": "always", "RestartSec": "1s"}
    body = _service_lines(unit, place, unit.env_file.path, own)
    text = _text(place.app, _unit_lines(head, unit.more_unit), body, {"WantedBy": "multi-user.target"}, kind="Service")
    return f"{text}# at {unit.listen}\n" if unit.listen and not unit.socket else text


def socket(unit: Unit, app: str) -> str:
    """The text of the unit that holds the address."""
    return _socket(app, f"{app} {unit.key}, its address", unit.listen, {"WantedBy": "sockets.target"})


def trial_service(unit: Unit, place: Place, seconds: int) -> str:
    """A release that is tried beside the one that serves. A connection does not start it again when it has failed.

    seconds: after which it ends by itself, when nobody is left who would end it.
    """
    socket_name = trial_socket_name(unit)
    head = {
        "Description": f"{place.app} {unit.key}, release {place.release} on trial",
        "After": ["network.target", socket_name],
        "Requires": [socket_name],
        "StartLimitIntervalSec": "1h",
        "StartLimitBurst": "1",
    }
    lines = {
        **unit.more_service,
        **_shared_folder(unit),
        "Restart": "no",
        "RuntimeMaxSec": f"{seconds}s",
        # Nobody waits for an answer of it.
        "TimeoutStopSec": f"{min(unit.stop_timeout, TRIAL_STOP_SECONDS)}s",
    }
    body = _service_lines(unit, place, place.env_file, {}, lines)
    return _text(place.app, _unit_lines(head, unit.more_unit), body, {}, kind="Service")


def trial_socket(unit: Unit, app: str, listen: str) -> str:
    """The text of the unit that holds the address of a trial."""
    return _socket(app, f"{app} {unit.key}, on trial", listen, {}, RemoveOnStop="yes")


def trial_socket_name(unit: Unit) -> str:
    """Its name."""
    return f"{unit.stem}-trial.socket"


def once_lines(unit: Unit, place: Place) -> list[str]:
    """What holds for a command that runs once as the unit does, as properties for systemd-run."""
    lines = _service_lines(unit, place, place.env_file, {}) | _shared_folder(unit)
    kept = {
        name: value
        for name, value in lines.items()
        if name not in ("Type", "TimeoutStopSec") and not name.startswith(("Exec", "Restart"))
    }
    return [line.replace("%%", "%") for line in _lines(kept)]  # systemd-run knows no specifiers


def _shared_folder(unit: Unit) -> dict[str, str]:
    """systemd removes a RuntimeDirectory with the first of the units that name it, from under the one that serves."""
    return {"RuntimeDirectoryPreserve": "yes"} if unit.more_service.get("RuntimeDirectory") else {}


def owner_of(text: str) -> str:
    """The stack that a unit's text belongs to; empty for one that is not ours."""
    match = _OWNER.search(text) if text.startswith(_HEADER) else None
    return match[1] if match else ""


def env_files_of(text: str) -> list[str]:
    """The env files that a unit's text names."""
    return [path.lstrip("-").replace("%%", "%") for path in _ENV_FILE.findall(text)]


def addresses_of(text: str) -> list[str]:
    """The addresses that a unit's text names."""
    return [address.replace("%%", "%") for address in _ADDRESS.findall(text)]


def _service_lines(
    unit: Unit, place: Place, env_file: str, own: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    path = f"{place.venv}/bin:/usr/local/bin:/usr/bin:/bin" if place.venv else "/usr/local/bin:/usr/bin:/bin"
    variables = {
        "APP_NAME": place.app,
        "APP_RELEASE": place.release,
        "PATH": path,
        **({"VIRTUAL_ENV": place.venv} if place.venv else {}),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the release is read-only to its program
        **unit.env,
    }
    lines: dict[str, Any] = {
        "Type": unit.type,
        "User": unit.user,
        "Group": unit.group,
        "SupplementaryGroups": unit.stack_group if unit.stack_group != unit.group else None,
        "WorkingDirectory": _plain(f"{place.directory}/{unit.directory}".rstrip("/")),
        "Environment": [_assignment(name, value) for name, value in variables.items()],
        "EnvironmentFile": _plain(env_file),
        "ExecStart": _plain(_absolute(unit.command, place.venv)),
        "ExecReload": _plain(unit.reload) or None,
        "KillMode": "mixed",
        "TimeoutStopSec": f"{unit.stop_timeout}s",
        **own,
        **HARDENING,
        "ReadWritePaths": [_plain(one) for one in unit.writable] or None,
    }
    return {**lines, **(unit.more_service if more is None else more)}


def _absolute(command: str, venv: str) -> str:
    """With the program from the release's venv, when it is named without a folder."""
    word, blank, rest = command.partition(" ")
    if not venv or "/" in word or word[:1] in _SPECIAL or word.startswith('"'):
        return command
    return f"{venv}/bin/{word}{blank}{rest}"


def _plain(text: str) -> str:
    """Text in which % is an ordinary character."""
    return text.replace("%", "%%")


def _assignment(name: str, value: str) -> str:
    escaped = _plain(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={escaped}"'


def _unit_lines(head: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the user beside ours; what is a list adds up, as systemd itself has it."""
    lines = dict(head)
    for name, value in more.items():
        ours = lines.get(name)
        lines[name] = [*ours, *(value if isinstance(value, list) else [value])] if isinstance(ours, list) else value
    return lines


def _socket(app: str, description: str, listen: str, install: Mapping[str, Any], **more: str) -> str:
    # As a port on loopback, a socket in the file system is open to every program of the host.
    # At boot sockets come before the network, and an address of a card is not there yet.
    kind = {"SocketMode": "0666"} if listen.startswith("/") else {"NoDelay": "yes", "FreeBind": "yes"}
    body = {"ListenStream": _plain(listen), "Backlog": str(BACKLOG), **kind, "TriggerLimitIntervalSec": "0", **more}
    return _text(app, {"Description": description}, body, install, kind="Socket")


def _text(app: str, head: Mapping[str, Any], body: Mapping[str, Any], install: Mapping[str, Any], *, kind: str) -> str:
    sections = [("Unit", head), (kind, body), ("Install", install)]
    told = ["\n".join([f"[{name}]", *_lines(lines)]) for name, lines in sections if lines]
    return f"{_HEADER}\n# app {app}\n" + "\n\n".join(told) + "\n"


def _lines(lines: Mapping[str, Any]) -> Iterable[str]:
    for name, value in lines.items():
        if value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            yield f"{name}={_value(one)}"


def _value(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
