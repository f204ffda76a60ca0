# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The table of kinds of health checks, and what makes checks out of options. A new kind is a line in KINDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import (
    _probe_certificate,
    _probe_command,
    _probe_compose,
    _probe_container,
    _probe_file,
    _probe_http,
    _probe_mongo,
    _probe_postgres,
    _probe_redis,
    _probe_systemd,
    _probe_tcp,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Asked, Probe
from ansible_collections.groundwork.backend.plugins.module_utils._probe_progress import Check


@dataclass(frozen=True)
class Kind:
    """One kind of check.

    options:     the argument spec of its keys, without defaults, as several kinds share the flat list.
    required:    keys that must be there.
    build:       makes the probe; raises InputError and DependencyError.
    derive_name: the name of a check that was given none.
    own_log:     the probe shows the log of what it checks, so that log_container has no place.
    prepare:     run once before any waiting when a check of the kind is asked for; raises what makes it hopeless.
    """

    options: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]
    build: Callable[[Asked], Probe]
    derive_name: Callable[[Mapping[str, Any]], str]
    own_log: bool = False
    prepare: Callable[[], None] = lambda: None


KINDS: dict[str, Kind] = {
    "http": Kind(_probe_http.OPTIONS, ("url",), _probe_http.build, _probe_http.derive_name),
    "tcp": Kind(_probe_tcp.OPTIONS, ("port",), _probe_tcp.build, _probe_tcp.derive_name),
    "container": Kind(
        _probe_container.OPTIONS,
        (),
        _probe_container.build,
        _probe_container.derive_name,
        own_log=True,
        prepare=_probe_container.require_docker,
    ),
    "compose": Kind(
        _probe_compose.OPTIONS,
        ("project",),
        _probe_compose.build,
        _probe_compose.derive_name,
        own_log=True,
        prepare=_probe_container.require_docker,
    ),
    "systemd": Kind(
        _probe_systemd.OPTIONS,
        ("unit",),
        _probe_systemd.build,
        _probe_systemd.derive_name,
        own_log=True,
        prepare=_probe_systemd.require_systemd,
    ),
    "postgres": Kind(
        _probe_postgres.OPTIONS,
        ("database",),
        _probe_postgres.build,
        _probe_postgres.derive_name,
        prepare=_probe_postgres.require_psycopg,
    ),
    "mongo": Kind(
        _probe_mongo.OPTIONS, (), _probe_mongo.build, _probe_mongo.derive_name, prepare=_probe_mongo.require_pymongo
    ),
    "redis": Kind(_probe_redis.OPTIONS, (), _probe_redis.build, _probe_redis.derive_name),
    "command": Kind(_probe_command.OPTIONS, ("argv",), _probe_command.build, _probe_command.derive_name),
    "file": Kind(_probe_file.OPTIONS, ("path",), _probe_file.build, _probe_file.derive_name),
    "certificate": Kind(
        _probe_certificate.OPTIONS, ("host",), _probe_certificate.build, _probe_certificate.derive_name
    ),
}

COMMON: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "expect": {"type": "str", "choices": ["up", "down"], "default": "up"},
    "optional": {"type": "bool", "default": False},
    "timeout": {"type": "float"},
    "interval": {"type": "float", "default": 1.0},
    "attempt_timeout": {"type": "float", "default": 5.0},
    "stable_for": {"type": "float", "default": 0.0},
    "consecutive": {"type": "int", "default": 1},
    "log_container": {"type": "dict", "options": _probe_container.TARGET},
    "log_unit": {"type": "str"},
}
_DEFAULTS = {key: spec["default"] for key, spec in COMMON.items() if "default" in spec}


def check_options() -> dict[str, Any]:
    """The argument spec of one check: the common keys and those of every kind."""
    merged: dict[str, Any] = dict(COMMON)
    for kind in KINDS.values():
        merged.update(kind.options)
    return merged


def plan(checks: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Checks that can be run, from dictionaries with the keys of check_options(); what is left out has its default.

    Raises what _probe_wait.wait_for() raises before any waiting.
    """
    if not checks:
        raise InputError("No checks are given.", fix="Name at least one check.")
    planned = [_one(position, given) for position, given in enumerate(checks, 1)]
    names = [check.name for check in planned]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Several checks have the name {twice[0]!r}.", fix="Give each check its own name.")
    for name in dict.fromkeys(check.kind for check in planned):
        KINDS[name].prepare()
    return planned


def _one(position: int, options: Mapping[str, Any]) -> Check:
    given = {**_DEFAULTS, **{key: value for key, value in options.items() if value is not None}}
    kind = KINDS.get(given.get("kind", ""))
    if kind is None:
        raise InputError(f"Check number {position} has the kind {given.get('kind')!r}.", fix=f"Use {', '.join(KINDS)}.")
    own = {key: value for key, value in given.items() if key not in COMMON}
    missing = [key for key in kind.required if key not in own]
    name = given.get("name") or (f"number {position}" if missing else kind.derive_name(own))
    asked = Asked(name, own)
    foreign = sorted(set(own) - set(kind.options))
    if foreign:
        raise asked.error(
            f"the kind {options['kind']} has no key {foreign[0]!r}.", f"It knows {', '.join(sorted(kind.options))}."
        )
    if missing:
        raise asked.error(f"the kind {options['kind']} needs the key {missing[0]!r}.")
    _check_numbers(asked, given)
    probe = kind.build(asked)
    logs = _logs(asked, given["kind"], given) or probe.logs
    fields = ("expect", "optional", "timeout", "interval", "attempt_timeout", "stable_for", "consecutive")
    common: dict[str, Any] = {key: given[key] for key in fields if key in given}
    return Check(name, given["kind"], probe, logs, **common)


def _logs(asked: Asked, kind: str, given: Mapping[str, Any]) -> Callable[[int], list[str]] | None:
    """What log_container or log_unit names; None without them."""
    keys = [key for key in ("log_container", "log_unit") if key in given]
    if keys and KINDS[kind].own_log:
        raise asked.error(f"the kind {kind} shows its own log, and has no key {keys[0]!r}.")
    match keys:
        case ["log_container"]:
            return _probe_container.target(asked, "log_container ", given["log_container"]).logs
        case ["log_unit"]:
            return partial(_probe_systemd.journal, _probe_systemd.unit_name(asked, "log_unit", given["log_unit"]))
        case [_, _]:
            raise asked.error("log_container and log_unit exclude each other.")
    return None


def _check_numbers(asked: Asked, given: Mapping[str, Any]) -> None:
    for key in ("timeout", "interval", "attempt_timeout"):
        if key in given and not 0 < given[key] < float("inf"):
            raise asked.error(f"{key} is {given[key]:g}; it is a number of seconds above 0.")
    if not 0 <= given["stable_for"] < float("inf"):
        raise asked.error(f"stable_for is {given['stable_for']:g}; it is a number of seconds, 0 or more.")
    if given["consecutive"] < 1:
        raise asked.error(f"consecutive is {given['consecutive']}; it is at least 1.")
