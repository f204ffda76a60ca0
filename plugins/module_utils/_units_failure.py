# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What is said of units that are not well: which check failed, and the end of their journals, without secrets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _units_host as host
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError
from ansible_collections.groundwork.backend.plugins.module_utils._probe import Masker
from ansible_collections.groundwork.backend.plugins.module_utils._probe_systemd import journal
from ansible_collections.groundwork.backend.plugins.module_utils._probe_wait import wait_for
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_health import LOG_LINES, secret_values
from ansible_collections.groundwork.backend.plugins.module_utils._unit_env import values
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import Release

_SHOWN_LINES = 5
_BY_SYSTEMD = " systemd[1]: "  # what it says of a program is in the message already


@dataclass(frozen=True)
class Failure:
    """The words for units of a release.

    what:  how the release is called in the message.
    since: from when on what units write counts; what they wrote before may be of another release.
    """

    release: Release
    what: str = ""
    since: float = field(default_factory=time.time)

    def wait(self, checks: Sequence[Mapping[str, Any]], names: Sequence[str], timeout: float) -> None:
        """Wait until all *checks* hold. Raises StateError with the journals of *names*."""
        try:
            wait_for(checks, timeout, log_lines=0)
        except StateError as error:
            if "checks" not in error.details:
                raise
            mask = self._masker()
            told = {
                name: {**one, "body": mask(one["body"]), "last_error": mask(one["last_error"])}
                for name, one in error.details["checks"].items()
            }
            raise self._error(error.problem, names, checks=told) from error

    def explain(self, names: Sequence[str], told: str) -> StateError:
        """The error for units that systemd could not start; *told* is what it printed."""
        bad = {
            name: one for name, one in host.shown(names).items() if one["ActiveState"] not in ("active", "reloading")
        }
        ended = ", ".join(
            f"{name} is {one['ActiveState']} (result {one['Result']}, exit code {one.get('ExecMainStatus') or 'none'})"
            for name, one in bad.items()
        )
        return self._error(f"{ended or told}.", list(bad) or names)

    def _error(self, problem: str, names: Sequence[str], **details: Any) -> StateError:
        mask = self._masker()
        logs = {
            name: [mask(line) for line in journal(name, LOG_LINES, self.since) or journal(name, LOG_LINES)]
            for name in names
        }
        ends = " ".join(
            f"The journal of {name} ends: {' / '.join(own[-_SHOWN_LINES:])}."
            for name, lines in logs.items()
            if (own := [line for line in lines if _BY_SYSTEMD not in line])
        )
        place = self.release.place
        what = self.what or f"Release {place.release} of {place.app} is not well"
        return StateError(f"{what}: {mask(problem)}", fix=ends, logs=logs, **details)

    def _masker(self) -> Masker:
        return Masker(secret_values(f"{name}={value}" for name, value in values(self.release.env).items()))
