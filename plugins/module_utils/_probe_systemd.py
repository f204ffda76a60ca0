# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Health check of kind systemd: a unit is active, and its restart counter does not move."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._errors import (
    CommandError,
    GroundworkError,
    StateError,
    last_lines,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe import (
    RELEASE,
    Asked,
    Outcome,
    Probe,
    ReleaseMatch,
)
from ansible_collections.groundwork.backend.plugins.module_utils._probe_workers import Workers, running_workers

OPTIONS: dict[str, dict[str, Any]] = {
    "unit": {"type": "str"},
    "one_shot": {"type": "bool"},
    "running_for": {"type": "float"},
    "max_restarts": {"type": "int"},
    "release": RELEASE,
}
PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Type", "Result", "NRestarts", "MainPID", "ExecMainCode", "ExecMainStatus",
    "ExecMainExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", "WorkingDirectory", "InvocationID",
)  # fmt: skip
_TELLS_READINESS = ("notify", "notify-reload", "dbus")
_ON_ITS_WAY = ("activating", "reloading", "refreshing")
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_LOG_SECONDS = 5.0
_SUCCESS = "7ad2d189f7e94e70a38c781354912448"  # SD_MESSAGE_UNIT_SUCCESS of systemd's sd-messages.h


@dataclass(frozen=True)
class Wanted:
    """When a unit counts as up. running_for is in seconds; None: 3, and 0 for types that tell when they are ready."""

    one_shot: bool = False
    running_for: float | None = None
    max_restarts: int = 3
    release: ReleaseMatch | None = None


@dataclass
class SystemdProbe(Probe):
    """Asks systemctl; remembers the restart counter of the first and of the last attempt."""

    unit: str
    wanted: Wanted
    pause: float = 0.2
    _first: int | None = None
    _last: int | None = None
    _workers: Workers = field(default_factory=Workers)

    def attempt(self, seconds: float) -> Outcome:
        """Up when the unit is active for long enough and did not restart since the last attempt."""
        argv = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", self.unit]
        try:
            done = _exec.run(argv, timeout=seconds, check=False)
        except CommandError as error:
            return Outcome("unknown", error.problem)
        if done.rc != 0:
            return Outcome("unknown", f"systemctl does not tell: {last_lines(done.stderr, 1)}")
        shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        if self.wanted.one_shot and _may_be_forgotten(shown) and succeeded(self.unit):
            shown["ExecMainExitTimestampMonotonic"] = "1"
        restarts = int(shown.get("NRestarts") or 0)
        first = restarts if self._first is None else min(self._first, restarts)  # a manual start sets it to 0
        moved = self._last is not None and restarts > self._last
        self._first, self._last = first, restarts
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        outcome = judge(self.unit, shown, self.wanted, new_restarts=restarts - first, moved=moved, now=now)
        main = shown.get("MainPID", "0")
        if shown["ActiveState"] == "active" and (told := self._workers.look(main, running_workers(main))):
            return Outcome("down", f"{self.unit} runs, and {told}", terminal=True, status=outcome.status)
        if outcome.state != "up" or not self.wanted.release:
            return outcome
        mismatch = self._mismatch(self.wanted.release, shown)
        return Outcome("down", mismatch, status=outcome.status) if mismatch else outcome

    def logs(self, lines: int) -> list[str]:
        """The last lines of the unit's journal."""
        return journal(self.unit, lines)

    @staticmethod
    def _mismatch(release: ReleaseMatch, shown: Mapping[str, str]) -> str:
        try:
            cwd = str(Path(f"/proc/{shown['MainPID']}/cwd").readlink())
        except OSError as error:
            return f"the working directory of process {shown['MainPID']} cannot be read: {error.strerror}"
        return release.mismatch({**shown, "cwd": cwd})


def judge(
    unit: str, shown: Mapping[str, str], wanted: Wanted, *, new_restarts: int, moved: bool, now: float
) -> Outcome:
    """The outcome for the properties of one unit, as `systemctl show` tells them; pure.

    new_restarts: by how much the counter grew during the wait; moved: it grew since the last attempt; now: seconds on
    the monotonic clock.
    """
    active, sub = shown["ActiveState"], shown["SubState"]
    if shown["LoadState"] not in ("loaded", "merged"):
        missing = shown["LoadState"] == "not-found"
        told = f"there is no unit {unit}" if missing else f"the unit {unit} cannot be used: it is {shown['LoadState']}"
        return Outcome("down", told, terminal=True, status=shown["LoadState"])
    ended = f"result {shown.get('Result')}, exit code {shown.get('ExecMainStatus')}"
    if active == "failed":
        return Outcome("down", f"{unit} failed: {ended}", terminal=True, status=active)
    if new_restarts >= wanted.max_restarts:
        told = f"{unit} is in a restart loop: restarted {new_restarts} times while it was waited for, {ended}"
        return Outcome("down", told, terminal=True, status=sub)
    if wanted.one_shot:
        return _judge_one_shot(unit, shown)
    if active != "active":
        told = f"{unit} is {active} ({sub})" + (f", {ended}" if sub == "auto-restart" else "")
        return Outcome("unknown" if active in _ON_ITS_WAY else "down", told, status=active)
    least = wanted.running_for
    if least is None:
        least = 0.0 if shown.get("Type", "") in ("", "oneshot", *_TELLS_READINESS) else 3.0
    told = ""
    if now - int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6 < least:
        told = f"{unit} runs for less than {least:g} seconds"
    if moved:
        told = f"{unit} restarted again, {ended}"
    return Outcome("unknown" if told else "up", told, status=sub)


def _judge_one_shot(unit: str, shown: Mapping[str, str]) -> Outcome:
    active = shown["ActiveState"]
    if active in ("inactive", "active") and shown.get("ExecMainExitTimestampMonotonic", "0") != "0":
        return Outcome("up", status=active)
    running = active in ("active", *_ON_ITS_WAY)
    told = f"{unit} is {active} ({shown['SubState']}), and is meant to end"
    return Outcome("unknown" if running else "down", told, status=active)


def _may_be_forgotten(shown: Mapping[str, str]) -> bool:
    """Systemd unloads an inactive unit that nothing refers to, and with it what it knew of the last run."""
    state = shown["LoadState"], shown["ActiveState"], shown.get("ExecMainExitTimestampMonotonic", "0")
    return state == ("loaded", "inactive", "0")


def succeeded(unit: str) -> bool:
    """Whether the journal of this boot says that the unit ended well."""
    argv = ["journalctl", "--quiet", "--boot", "--lines=1", "--output=cat", f"UNIT={unit}", f"MESSAGE_ID={_SUCCESS}"]
    try:
        return bool(_exec.run(argv, timeout=_LOG_SECONDS, check=False).stdout)
    except GroundworkError:
        return False


def journal(unit: str, lines: int, since: float = 0.0) -> list[str]:
    """The last lines of a unit's journal. since: seconds of the epoch."""
    argv = ["journalctl", "--quiet", "--no-pager", "--output=short-iso", f"--lines={lines}", f"--unit={unit}"]
    argv += [f"--since=@{int(since)}"] if since else []
    try:
        done = _exec.run(argv, timeout=_LOG_SECONDS, check=False)
    except GroundworkError as error:
        return [f"(the journal cannot be read: {error})"]
    if done.rc != 0 or (done.stderr and not done.stdout):
        return [f"(the journal cannot be read: {last_lines(done.stderr, 1)})"]
    return done.stdout.splitlines()


def require_systemd(seconds: float = 10.0) -> None:
    """Raises DependencyError or StateError when systemd cannot be asked."""
    done = _exec.run(["systemctl", "show", "--property=Version"], timeout=seconds, check=False)
    if done.rc != 0:
        told = last_lines(done.stderr, 1) or "systemctl printed nothing"
        raise StateError(f"systemd does not answer: {told}", fix="The kind systemd needs a host that systemd booted.")


def unit_name(asked: Asked, key: str, name: str) -> str:
    """A unit's name, with ".service" where it has no suffix. Raises InputError."""
    if not _NAME.fullmatch(name):
        raise asked.error(f"{key} {name!r} is not the name of a unit.")
    return name if re.search(r"\.[a-z]+$", name) else f"{name}.service"


def derive_name(given: Mapping[str, Any]) -> str:
    """The name of a check that was given none."""
    return str(given["unit"])


def build(asked: Asked) -> SystemdProbe:
    """The probe for the keys of one check. Raises InputError and DependencyError."""
    wanted = Wanted(
        asked.get("one_shot", False), asked.get("running_for"), asked.get("max_restarts", 3), asked.release()
    )
    if (wanted.running_for or 0) < 0 or wanted.max_restarts < 1:
        raise asked.error("running_for is at least 0, and max_restarts at least 1.")
    return SystemdProbe(unit_name(asked, "unit", asked.get("unit")), wanted)
