# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The states of a systemd stack. A run that was killed at any point is finished, or undone, by the next one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _units_host as host
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._probe_kinds import plan as probes
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import env_files_of
from ansible_collections.groundwork.backend.plugins.module_utils._units import Unit
from ansible_collections.groundwork.backend.plugins.module_utils._units_failure import Failure
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import (
    Found,
    Plan,
    Release,
    checks,
    endpoints,
    is_paused,
    picture,
    plan,
    require_own,
    within,
)
from ansible_collections.groundwork.backend.plugins.module_utils._units_trial import Trial, clean

_PAUSE_SECONDS = 3600.0  # units have a grace period of their own
_MARGIN = 15.0  # seconds that systemd may take beside those that a unit has to stop


def checked(release: Release, *, check_mode: bool) -> dict[str, Any]:
    """Have systemd read the units of the release, and tell how exposed they are; nothing is put in place.

    The folders that they may write to are made: a unit or a hook that names one that is missing does not start.
    """
    texts = release.texts
    probes(_checks(release))  # a check that cannot be tried is told before anything is started
    require_own(release, look(release))
    host.verify(texts)
    return {"changed": _make_folders(release, check_mode=check_mode), "exposure": host.exposures(texts)}


def started(release: Release, *, timeout: float, ports: range, trials: bool, check_mode: bool) -> dict[str, Any]:
    """Have the units of the release run and be well. timeout: seconds that they have to become well."""
    probes(_checks(release))
    found = look(release)
    planned = plan(release, found, _owners(release, check_mode=check_mode))
    tried = [unit for unit in planned.restart if unit.tried] if trials else []
    made = _make_folders(release, check_mode=check_mode)
    if planned and not check_mode:
        host.verify(release.texts)
        if tried:
            Trial(release, tried, ports).run(timeout)
        restarted = [*planned.sockets, *(unit.name for unit in planned.restart)]
        host.note_pending(release.place.app, [*restarted, *planned.env_gone])
        _install(release, planned)
        _start(release, planned, timeout)
        _forget(planned.env_gone)
        host.note_pending(release.place.app, ())
    if not check_mode:
        _require_well(release, timeout)
    return {
        "changed": bool(planned) or made,
        "units": sorted(release.texts),
        "restarted": [unit.name for unit in planned.restart],
        "tried": [unit.name for unit in tried],
        "endpoints": endpoints(release.units),
        "diff": {
            "before": picture(found.states, found.texts),
            "after": picture({name: {"ActiveState": "active"} for name in release.texts}, release.texts),
        },
    }


def _owners(release: Release, *, check_mode: bool) -> dict[str, tuple[int, int]]:
    """Path of an env file -> uid and gid that it shall have; in check mode its user may be one that is to be made."""
    found = {}
    for path, one in release.env_files.items():
        try:
            found[path] = host.ids(one.owner, one.group)
        except InputError:
            if not check_mode:
                raise
            found[path] = (-1, -1)
    return found


def look(release: Release) -> Found:
    """What there is on the host of the release, and of the stack beside it."""
    names = sorted(release.texts)
    states = host.shown(names)
    here = [name for name in names if os.path.lexists(host.ETC / name)]
    others = host.owned(release.place.app)
    return Found(
        texts={name: host.text_of(host.ETC / name) for name in here},
        states=states,
        folders={unit.name: _folder(states[unit.name], release) for unit in release.units},
        env={path: host.attributes_of(Path(path)) for path in release.env_files},
        others={name: text for name, text in others.items() if name not in names},
        foreign={
            name: path
            for name in names
            if name not in here and (path := states[name]["FragmentPath"]) and Path(path).parent != host.ETC
        },
        pending=host.pending(release.place.app),
    )


def _folder(state: Mapping[str, str], release: Release) -> str:
    """The working directory of a unit's main process, with the release's folder as it is named, links or not."""
    folder, directory = host.directory_of(state["MainPID"]), release.place.directory
    real = os.path.realpath(directory)
    return f"{directory}{folder.removeprefix(real)}" if within(folder, real) else folder


def _make_folders(release: Release, *, check_mode: bool) -> bool:
    """Whether there was one to make."""
    missing = {Path(folder): unit for unit in release.units for folder in unit.writable if not Path(folder).exists()}
    for path, unit in missing.items() if not check_mode else ():
        host.make_folder(path, unit.user, unit.group)
    return bool(missing)


def _install(release: Release, planned: Plan) -> None:
    for one in planned.env:
        host.put(Path(one.path), release.env, mode=one.mode, owner=one.owner, group=one.group)
    host.take_away(planned.gone, timeout=_stop_seconds(release.units))
    for name, text in planned.write.items():
        host.put(host.ETC / name, text)
    host.systemctl("daemon-reload")
    if planned.enable:
        host.systemctl("enable", "--", *planned.enable)


def _forget(paths: Iterable[str]) -> None:
    """Remove env files."""
    for path in paths:
        with os_errors(f"remove {path}"):
            Path(path).unlink(missing_ok=True)


def _start(release: Release, planned: Plan, timeout: float) -> None:
    failure = Failure(release)
    seconds = _stop_seconds(release.units) + timeout
    if planned.sockets:
        # systemd gives an address to no socket whose service runs.
        services = [unit.name for unit in release.units if unit.socket_name in planned.sockets]
        host.systemctl("stop", "--", *services, timeout=seconds)
        host.act("restart", planned.sockets, seconds, failure.explain)
    host.act("restart", [unit.name for unit in planned.restart], seconds, failure.explain)


def _require_well(release: Release, timeout: float) -> None:
    failure = Failure(release)
    failure.wait(_checks(release), [unit.name for unit in release.units], timeout)
    states = host.shown([unit.name for unit in release.units])
    for name, one in states.items():
        folder = _folder(one, release)
        if not within(folder, release.place.directory):
            raise StateError(
                f"{name} does not run release {release.place.release}: its main process works in "
                f"{folder or 'a folder that cannot be read'}, and not in {release.place.directory}.",
                fix="A program that changes its folder has to stay in its release; see app_units.<key>.directory.",
            )


def _checks(release: Release) -> list[dict[str, Any]]:
    return [check for unit in release.units for check in checks(unit, release.place.release)]


def _stop_seconds(units: Sequence[Unit]) -> float:
    return max((unit.stop_timeout for unit in units), default=0) + _MARGIN


def retired(app: str, release: Release, *, check_mode: bool) -> dict[str, Any]:
    """Remove the stack's units, and their env files, that the release does not have."""
    mine = host.owned(app)
    going = {name: text for name, text in mine.items() if name not in release.texts}
    kept = {path for name, text in mine.items() if name not in going for path in env_files_of(text)}
    return _take_away(app, going, kept, check_mode=check_mode)


def absent(app: str, *, check_mode: bool) -> dict[str, Any]:
    """Stop and remove all units of the stack."""
    if not check_mode:
        host.note_pending(app, ())
    return _take_away(app, host.owned(app), set(), check_mode=check_mode)


def _take_away(app: str, going: Mapping[str, str], kept: set[str], *, check_mode: bool) -> dict[str, Any]:
    left = clean(app, check_mode=check_mode)
    if going and not check_mode:
        # Their files go last: a run that was killed before finds by them what else there is.
        host.stop(going, timeout=_PAUSE_SECONDS)
        _forget({path for text in going.values() for path in env_files_of(text)} - kept)
        host.take_away(going, timeout=_PAUSE_SECONDS)
    return {
        "changed": bool(going or left),
        "removed": [*sorted(going), *left],
        "diff": {"before": picture({}, going), "after": {}},
    }


def paused(app: str, *, check_mode: bool) -> dict[str, Any]:
    """Stop all units of the stack and its trials; no restart of the host starts them, until started() does."""
    left = clean(app, check_mode=check_mode)
    states = host.shown(sorted(host.owned(app)))
    going = [name for name, one in states.items() if not is_paused(one)]
    if going and not check_mode:
        host.pause(going, timeout=_PAUSE_SECONDS)
    return {"changed": bool(going or left), "paused": [*going, *left]}


def listed(app: str) -> dict[str, Any]:
    """The stack's units as they are, with the release that each service runs."""
    texts = host.owned(app)
    states = host.shown(sorted(texts))
    return {
        "changed": False,
        "services": [
            {
                "name": name,
                "state": f"{one['ActiveState']} ({one['SubState']})",
                "active": one["ActiveState"] in ("active", "reloading", "activating"),
                "since": one["StateChangeTimestamp"],
                "directory": host.directory_of(one["MainPID"]) if one.get("MainPID", "0") != "0" else "",
            }
            for name, one in states.items()
        ],
    }
