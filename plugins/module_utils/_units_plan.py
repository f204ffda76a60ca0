# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""From the units that are there to those of a release. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _unit_files as files
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import Place
from ansible_collections.groundwork.backend.plugins.module_utils._units import EnvFile, Unit

_ENABLED = ("enabled", "alias", "enabled-runtime")


@dataclass(frozen=True)
class Release:
    """A release of a stack, with the text of its env files."""

    place: Place
    units: Sequence[Unit]
    env: str

    @property
    def texts(self) -> dict[str, str]:
        """What its units say, by their names."""
        found = {}
        for unit in self.units:
            if unit.socket:
                found[unit.socket_name] = files.socket(unit, self.place.app)
            found[unit.name] = files.service(unit, self.place)
        return found

    @property
    def env_files(self) -> dict[str, EnvFile]:
        """Where the variables go, by path."""
        return {unit.env_file.path: unit.env_file for unit in self.units}


@dataclass(frozen=True)
class Found:
    """What there is on the host.

    texts:   name of a unit's file -> what stands in it, for the names of the release that have one.
    states:  name of a unit -> what systemd tells of it.
    folders: name of a service -> working directory of its main process.
    env:     path of an env file -> content, uid, gid and mode; None when there is none.
    others:  units of the stack that the release does not have, name -> text.
    foreign: where systemd has a unit of the release's name from, when that is no file of ours.
    pending: units that a run wanted to restart, and env files that it wanted to remove, and was killed before.
    """

    texts: Mapping[str, str]
    states: Mapping[str, Mapping[str, str]]
    folders: Mapping[str, str]
    env: Mapping[str, tuple[str, int, int, int] | None]
    others: Mapping[str, str]
    foreign: Mapping[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """What has to be done. Services in *restart* are started when they do not run."""

    write: Mapping[str, str]
    env: Sequence[EnvFile]
    env_gone: Sequence[str]
    gone: Sequence[str]
    sockets: Sequence[str]
    restart: Sequence[Unit]
    enable: Sequence[str]

    def __bool__(self) -> bool:
        return any((self.write, self.env, self.env_gone, self.gone, self.sockets, self.restart, self.enable))


def plan(release: Release, found: Found, owners: Mapping[str, tuple[int, int]]) -> Plan:
    """How to get from *found* to *release*. owners: path of an env file -> the uid and gid that it shall have.

    Raises StateError when a unit's file is somebody else's.
    """
    require_own(release, found)
    texts = release.texts
    env = [
        one for path, one in release.env_files.items() if found.env.get(path) != (release.env, *owners[path], one.mode)
    ]
    told_anew = {one.path for one in env if (found.env.get(one.path) or ("",))[0] != release.env}
    write = {name: text for name, text in texts.items() if found.texts.get(name) != text}
    sockets = [
        unit.socket_name
        for unit in release.units
        if unit.socket and (unit.socket_name in {*write, *found.pending} or not _active(found, unit.socket_name))
    ]
    restart = [
        unit
        for unit in release.units
        if unit.name in {*write, *found.pending}
        or unit.socket_name in sockets
        or unit.env_file.path in told_anew
        or not _active(found, unit.name)
        or not within(found.folders.get(unit.name, ""), release.place.directory)
    ]
    gone = _in_the_way(release, found.others)
    return Plan(
        write=write,
        env=env,
        env_gone=_left_over(release, found, gone),
        gone=gone,
        sockets=sockets,
        restart=restart,
        enable=[name for name in texts if found.states.get(name, {}).get("UnitFileState") not in _ENABLED],
    )


def require_own(release: Release, found: Found) -> None:
    """Raises StateError when a unit of the release's name is somebody else's, or is masked."""
    app = release.place.app
    if others := [name for name, text in found.texts.items() if files.owner_of(text) != app]:
        raise StateError(
            f"There is a unit {', '.join(others)} on this host already, which no deploy of {app} has written.",
            fix="Stop and disable it and move its file away (systemctl unmask, where it is masked), or give "
            "app_units.<key>.name another name.",
        )
    for name, path in found.foreign.items():
        raise StateError(
            f"There is a unit {name} on this host already, from {path}, and a unit of {app} would take its place.",
            fix="Give app_units.<key>.name another name.",
        )


def _in_the_way(release: Release, others: Mapping[str, str]) -> list[str]:
    """Units that have an address of the release, with their services, and sockets of services that have none now."""
    listens = {unit.listen for unit in release.units if unit.listen}
    stems = {unit.stem for unit in release.units}
    found = []
    for name, text in others.items():
        stem, _, kind = name.rpartition(".")
        taken = not listens.isdisjoint(files.addresses_of(text))
        if kind == "socket" and (stem in stems or taken):
            found += [name] if stem in stems else [name, f"{stem}.service"]
        elif taken:
            found.append(name)
    return found


def _left_over(release: Release, found: Found, gone: Sequence[str]) -> list[str]:
    """Env files that units had until now, and none has any more."""
    kept = {path for name, text in found.others.items() if name not in gone for path in files.env_files_of(text)}
    had = [*found.texts.values(), *(found.others.get(name, "") for name in gone)]
    left = {path for text in had for path in files.env_files_of(text)}
    return sorted((left | {name for name in found.pending if name.startswith("/")}) - release.env_files.keys() - kept)


def is_paused(state: Mapping[str, str]) -> bool:
    """Whether a unit neither runs nor would be started with the host."""
    return state.get("ActiveState") in ("inactive", "failed") and state.get("UnitFileState") not in _ENABLED


def within(folder: str, release: str) -> bool:
    """Whether a working directory is a release's folder or one in it."""
    return f"{folder}/".startswith(f"{release}/")


def _active(found: Found, name: str) -> bool:
    return found.states.get(name, {}).get("ActiveState") in ("active", "reloading")


def checks(unit: Unit, release: str, *, name: str = "", listen: str = "") -> list[dict[str, Any]]:
    """The health_wait checks of a unit: it stays up, and its health path answers as the release *release*, if given.

    name and listen: those of a trial, where it is one.
    """
    name, listen = name or unit.name, listen or unit.listen
    found: list[dict[str, Any]] = [{"name": name, "kind": "systemd", "unit": name, "max_restarts": 1}]
    if not listen:
        return found
    found[0]["running_for"] = 1.0  # what answers tells more than time does
    path = unit.health["path"]
    at = "localhost" if listen.startswith("/") else listen
    check: dict[str, Any] = {"name": f"{unit.key}: http://{at}{path}", "kind": "http", "url": f"http://{at}{path}"}
    if listen.startswith("/"):
        check["unix_socket"] = listen
    if "expect" in unit.health:
        check["jmespath"] = unit.health["expect"]
    if release and "release" in unit.health:
        check["release"] = {"field": unit.health["release"], "equals": release}
    return [*found, check]


def endpoints(units: Sequence[Unit]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """service -> "new" -> where it answers, as compose_rollout tells it: {"host", "port"}, or {"socket"}."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for unit in units:
        if unit.listen:
            host, _, port = unit.listen.rpartition(":")
            at = (
                {"socket": unit.listen}
                if unit.listen.startswith("/")
                else {"host": host.strip("[]"), "port": int(port)}
            )
            found[unit.key] = {"new": [at]}
    return found


def picture(states: Mapping[str, Mapping[str, str]], texts: Mapping[str, str]) -> dict[str, Any]:
    """One side of a diff: the texts of units, which hold no secret, and whether they run."""
    return {
        name: {"state": states.get(name, {}).get("ActiveState", "absent"), "text": text.splitlines()}
        for name, text in texts.items()
    }
