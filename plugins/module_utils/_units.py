# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The units of a systemd stack, as app_units and app_web_services describe them. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import to_text
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._unit_env import OWN_VARIABLES

TYPES = ("exec", "notify", "notify-reload", "simple")
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "exec": ((str, list), "a command, as text or as a list of words"),
    "name": (str, "the name of a service"),
    "directory": (str, "a folder below the source's top"),
    "user": (str, "the name of a user"),
    "group": (str, "the name of a group"),
    "env_file": (Mapping, "a mapping with path, owner, group and mode"),
    "env": (Mapping, "a mapping of variables"),
    "type": (str, f"one of {', '.join(TYPES)}"),
    "socket_activation": (bool, "true or false"),
    "reload": ((str, list), "a command, as text or as a list of words"),
    "stop_timeout": (int, "a number of seconds"),
    "writable": (list, "a list of folders"),
    "unit": (Mapping, "a mapping of lines, such as {After: docker.service}"),
    "service": (Mapping, "a mapping of lines, such as {MemoryMax: 512M}"),
}
_ENV_FILE_KEYS = {"path", "owner", "group", "mode"}
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,190}\.service")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PATH = re.compile(r"/[A-Za-z0-9._/@:+-]+")
_BELOW = re.compile(r"[A-Za-z0-9._/@:+-]*")
_DIRECTIVE = re.compile(r"[A-Z][A-Za-z0-9]*")
_MODE = re.compile(r"0?[0-7]{3}")
_HOMES = ("/home/", "/root/", "/run/user/")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# They follow from the other keys.
_DERIVED = {
    "Type", "User", "Group", "WorkingDirectory", "Environment", "EnvironmentFile", "ExecStart", "ExecReload",
    "TimeoutStopSec", "ReadWritePaths", "Sockets",
}  # fmt: skip


@dataclass(frozen=True)
class EnvFile:
    """Where the variables of a unit stand. mode is a number."""

    path: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class Unit:
    """One long-running program.

    key:       its name in app_units; name: that of the systemd unit, with .service.
    command, reload: as systemd takes them, but for %, which is an ordinary character.
    directory: below the release, or empty.
    listen:    what a client connects to ("127.0.0.1:8000", "/run/app.sock"); empty for a program that answers nobody.
    socket:    whether systemd holds that address.
    tried:     whether a new release is tried beside the running one.
    more_unit, more_service: lines that the user gives; None takes a line of the role away.
    """

    key: str
    name: str
    command: str
    directory: str
    user: str
    group: str
    stack_group: str
    env_file: EnvFile
    env: Mapping[str, str]
    type: str
    reload: str
    stop_timeout: int
    writable: Sequence[str]
    more_unit: Mapping[str, Any]
    more_service: Mapping[str, Any]
    listen: str = ""
    socket: bool = False
    tried: bool = False
    health: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.removesuffix(".service")

    @property
    def socket_name(self) -> str:
        """The name of the socket unit."""
        return f"{self.stem}.socket"

    @property
    def trial_name(self) -> str:
        """The name of the service in which a new release is tried."""
        return f"{self.stem}-trial.service"


@dataclass(frozen=True)
class Stack:
    """What holds for all units of a stack."""

    app: str
    user: str = ""
    group: str = ""
    bind_address: str = "127.0.0.1"


def read_units(
    stack: Stack,
    units: Mapping[str, Any],
    web_services: Mapping[str, Mapping[str, Any]],
    services: Mapping[str, Mapping[str, Any]],
) -> list[Unit]:
    """The units, in the order given. services: app_services.

    Raises InputError with a sentence for everything that cannot be used.
    """
    problems: list[str] = []
    if not units:
        problems.append("app_units is empty, and a stack with app_runtime systemd needs at least one unit.")
    for variable, names in (("app_web_services", web_services), ("app_services", services)):
        if unknown := sorted(set(names) - set(units)):
            problems.append(f"{variable} has {', '.join(unknown)}, and app_units has {', '.join(units) or 'none'}.")
    if once := sorted(name for name, one in services.items() if one.get("one_shot")):
        problems.append(
            f"app_services says that {', '.join(once)} ends by itself, and a unit runs on. Let app_hooks run it, such "
            "as after_migrate: [{service: <unit>, command: [...]}]."
        )
    found = []
    for key, given in units.items():
        wrong = list(_problems(key, given))
        if not wrong:
            unit = _unit(stack, key, given, web_services.get(key), services.get(key) or {})
            wrong = list(_misfits(unit))
            found.append(unit)
        problems += wrong
    problems += _shared(found)
    if problems:
        raise InputError(" ".join(problems))
    return found


def _unit(
    stack: Stack, key: str, given: Mapping[str, Any], web: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Unit:
    user = given.get("user") or stack.user or stack.app
    group = given.get("group") or (user if given.get("user") else stack.group or user)
    env_file = given.get("env_file") or {}
    listen = ""
    if web:
        host = f"[{stack.bind_address}]" if ":" in stack.bind_address else stack.bind_address
        listen = str(web.get("socket") or f"{host}:{web.get('port')}")
    socket = bool(listen) and given.get("socket_activation", True)
    return Unit(
        key=key,
        name=given.get("name") or f"{stack.app}-{key}.service",
        command=_command(given["exec"]),
        directory=_below(given.get("directory") or ""),
        user=user,
        group=group,
        stack_group=stack.group or stack.user or stack.app,
        env_file=EnvFile(
            env_file.get("path") or f"/etc/{stack.app}/{key}.env",
            env_file.get("owner") or "root",
            env_file.get("group") or group,
            int(str(env_file.get("mode") or "0640"), 8),
        ),
        env={name: to_text(value) for name, value in (given.get("env") or {}).items()},
        type=given.get("type") or TYPES[0],
        reload=_command(given.get("reload") or ""),
        stop_timeout=int(given.get("stop_timeout", 30)),
        writable=list(given.get("writable") or ()),
        more_unit=given.get("unit") or {},
        more_service=given.get("service") or {},
        listen=listen,
        socket=socket,
        tried=socket and options.get("rollout", "rolling") != "recreate",
        health=(web or {}).get("health") or {},
    )


def _below(folder: str) -> str:
    path = posixpath.normpath(folder) if folder else ""
    return "" if path == "." else path


def _command(given: Any) -> str:
    """A command line of systemd.service(5): a list is quoted word by word, a text is taken as it is."""
    if isinstance(given, str):
        return given.strip()
    return " ".join(map(_word, given))


def _word(word: Any) -> str:
    text = str(word).replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:=@%+,$-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _problems(key: str, given: Any) -> Iterator[str]:
    """What of one entry of app_units cannot be read."""
    where = f"app_units.{key}"
    if not _KEY.fullmatch(str(key)):
        yield f"app_units has the key {key!r}: use lower-case letters, digits, - and _."
    if not isinstance(given, Mapping) or not given.get("exec"):
        yield f"{where} has no exec, the command that runs."
        return
    for name, value in given.items():
        if name not in _KINDS:
            yield f"{where} has {name}, and can have {', '.join(sorted(_KINDS))}."
        elif value is not None and (
            not isinstance(value, _KINDS[name][0]) or (_KINDS[name][0] is int and isinstance(value, bool))
        ):
            yield f"{where}.{name} is {value!r}: give {_KINDS[name][1]}."
        elif name in ("exec", "reload") and isinstance(value, str) and "\n" in value.strip():
            yield f"{where}.{name} has a line break: write it on one line, or as a list of words."
        elif name in ("unit", "service") and isinstance(value, Mapping):
            yield from _lines(f"{where}.{name}", value)
        elif name == "env_file" and isinstance(value, Mapping):
            yield from _env_file(f"{where}.{name}", value)


def _lines(where: str, lines: Mapping[str, Any]) -> Iterator[str]:
    for directive, value in lines.items():
        values = value if isinstance(value, list) else [value]
        if not _DIRECTIVE.fullmatch(str(directive)) or any("\n" in str(one) for one in values):
            yield f"{where} has {directive!r}, which is no line of systemd: give names such as MemoryMax, with a value."
        if directive in _DERIVED:
            yield f"{where} has {directive}, which follows from the other keys of the unit."


def _env_file(where: str, given: Mapping[str, Any]) -> Iterator[str]:
    if unknown := sorted(set(given) - _ENV_FILE_KEYS):
        yield f"{where} has {', '.join(unknown)}, and can have {', '.join(sorted(_ENV_FILE_KEYS))}."
    mode = given.get("mode", "0640")
    if not isinstance(mode, str) or not _MODE.fullmatch(mode):
        yield f'{where}.mode is {mode!r}: give it as text in quotes, such as "0640".'


def _misfits(unit: Unit) -> Iterator[str]:
    """What of a unit that could be read cannot be."""
    where = f"app_units.{unit.key}"
    if not _NAME.fullmatch(unit.name) or unit.name.endswith("-trial.service"):
        yield f"{where}.name is {unit.name!r}: give the name of a service, such as shop-web.service."
    for what, name in (("user", unit.user), ("group", unit.group)):
        if not _USER.fullmatch(name):
            yield f"{where}.{what} is {name!r}, which is no name of a {what} that Debian takes."
    if not _BELOW.fullmatch(unit.directory) or unit.directory.startswith(("/", "..")):
        yield f"{where}.directory is {unit.directory!r}: give a folder below the source's top."
    for what, path in (("env_file.path", unit.env_file.path), *(("writable", path) for path in unit.writable)):
        if not _PATH.fullmatch(str(path)) or ".." in str(path).split("/"):
            yield f"{where}.{what} is {path!r}: give an absolute path of letters, digits, ., _, - and /."
    yield from _hidden(where, unit)
    if unit.stop_timeout < 1:  # systemd takes 0 for any time
        yield f"{where}.stop_timeout is {unit.stop_timeout}: give a number of seconds from 1 on."
    if unit.type not in TYPES:
        yield f"{where}.type is {unit.type!r}, and can be {', '.join(TYPES)}."
    for name in unit.env:
        if not _VARIABLE.fullmatch(str(name)) or any(ord(letter) < 32 for letter in unit.env[name]):
            yield f"{where}.env has {name!r}: give names of letters, digits and underscores, and values of one line."
        if name in OWN_VARIABLES:
            yield f"{where}.env sets {name}, which each unit gets from its release: leave it out."
    if unit.listen.startswith("/") and not _PATH.fullmatch(unit.listen):
        yield f"app_web_services.{unit.key}.socket is {unit.listen!r}: give an absolute path."


def _hidden(where: str, unit: Unit) -> Iterator[str]:
    """Folders to write to that a unit cannot see."""
    if unit.more_service.get("ProtectHome", True) in (False, "no", None):
        return
    for path in unit.writable:
        if f"{path}/".startswith(_HOMES):
            yield (
                f"{where}.writable has {path}, which ProtectHome hides from the unit: give a folder elsewhere, or "
                "service: {ProtectHome: false}."
            )


def _shared(units: Sequence[Unit]) -> Iterator[str]:
    """What two units cannot both have."""
    names: dict[str, str] = {}
    files: dict[str, Unit] = {}
    for unit in units:
        for what in filter(None, (unit.name, unit.listen)):
            if what in names:
                yield f"app_units.{unit.key} and app_units.{names[what]} both have {what}: give each its own."
            names[what] = unit.key
        other = files.setdefault(unit.env_file.path, unit)
        if other.env_file != unit.env_file:
            yield (
                f"app_units.{unit.key} and app_units.{other.key} share {unit.env_file.path}, and do not agree on its "
                "owner, group and mode."
            )
