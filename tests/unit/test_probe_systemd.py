# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the properties that systemctl shows mean for a systemd check."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._probe_systemd import Wanted, judge

NOW = 1000.0


def _shown(active: str, sub: str, *, age: float = 60, **changes: str) -> dict[str, str]:
    """The part of systemctl show that matters, as systemd 257 tells it."""
    return {
        "LoadState": "loaded", "ActiveState": active, "SubState": sub, "Type": "simple", "Result": "success",
        "ExecMainStatus": "0", "ExecMainExitTimestampMonotonic": "0",
        "ActiveEnterTimestampMonotonic": str(int((NOW - age) * 1e6)), **changes,
    }  # fmt: skip


_CRASHED = {"Result": "exit-code", "ExecMainStatus": "3"}
_ENDED = {"ExecMainExitTimestampMonotonic": "5"}


@pytest.mark.parametrize(
    ("shown", "wanted", "facts", "state", "terminal", "reason"),
    [
        (_shown("active", "running"), Wanted(), {}, "up", False, ""),
        (_shown("active", "running", age=1), Wanted(), {}, "unknown", False, "runs for less than 3 seconds"),
        (_shown("active", "running", age=1), Wanted(running_for=0.5), {}, "up", False, ""),
        (_shown("active", "running", age=0, Type="notify"), Wanted(), {}, "up", False, ""),
        (_shown("active", "running", Type="notify"), Wanted(), {"moved": True}, "unknown", False, "restarted again"),
        (_shown("active", "listening", Type=""), Wanted(), {}, "up", False, ""),
        (_shown("active", "exited", age=0, Type="oneshot", **_ENDED), Wanted(), {}, "up", False, ""),
        (_shown("activating", "start"), Wanted(), {}, "unknown", False, "is activating (start)"),
        (_shown("activating", "auto-restart", **_CRASHED), Wanted(), {}, "unknown", False, "exit code 3"),
        (_shown("activating", "auto-restart"), Wanted(), {"new_restarts": 3}, "down", True, "restart loop"),
        (_shown("failed", "failed", **_CRASHED), Wanted(), {}, "down", True, "failed: result exit-code, exit code 3"),
        (_shown("inactive", "dead"), Wanted(), {}, "down", False, "is inactive (dead)"),
        (_shown("inactive", "dead", LoadState="not-found"), Wanted(), {}, "down", True, "there is no unit app"),
        (_shown("inactive", "dead", LoadState="masked"), Wanted(), {}, "down", True, "it is masked"),
        (_shown("inactive", "dead", **_ENDED), Wanted(one_shot=True), {}, "up", False, ""),
        (_shown("inactive", "dead"), Wanted(one_shot=True), {}, "down", False, "is inactive"),
        (_shown("activating", "start", Type="oneshot"), Wanted(one_shot=True), {}, "unknown", False, "activating"),
        (_shown("active", "running"), Wanted(one_shot=True), {}, "unknown", False, "is active (running)"),
    ],
)  # fmt: skip
def test_judge(
    *, shown: dict[str, str], wanted: Wanted, facts: dict[str, Any], state: str, terminal: bool, reason: str
) -> None:
    """Each state has its outcome."""
    outcome = judge("app", shown, wanted, **{"new_restarts": 0, "moved": False, "now": NOW, **facts})
    assert (outcome.state, outcome.terminal) == (state, terminal), outcome
    assert reason in outcome.reason
