# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""When a measurement has met its target."""

from __future__ import annotations

import pytest
from bench.figures import Figure, table


@pytest.mark.parametrize(
    ("ours", "more_is_better", "met"),
    [(9.0, False, True), (11.0, False, False), (9.0, True, False), (10.0, True, True)],
)
def test_a_target_is_the_highest_or_the_lowest_ratio(ours: float, more_is_better: bool, met: bool) -> None:
    assert Figure("dump", "MB/s", ours, "peer", 10.0, 1.0, more_is_better=more_is_better).met is met


def test_a_target_whose_peer_was_not_measured_is_not_met() -> None:
    figure = Figure("dump", "MB/s", 9.0, "mongodump (not on PATH)", None, 1.0, more_is_better=True)
    assert figure.met is None
    assert table([figure]).endswith("not measured")
