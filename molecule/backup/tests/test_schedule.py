# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The host's own timers, as site.yml has set them up."""

from __future__ import annotations

import pytest
from conftest import Stack


@pytest.mark.parametrize("job", ["backup", "drill"])
def test_the_timer_waits_for_its_moment(stack: Stack, job: str) -> None:
    timer = f"groundwork-notes-{job}.timer"
    assert stack.host.check_output("systemctl is-enabled %s", timer) == "enabled"
    assert stack.host.check_output("systemctl is-active %s", timer) == "active"
