# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The one error that a user of the test bed sees."""

from __future__ import annotations


class TestbedError(Exception):
    """Says what was asked, what was found, and what to do."""

    __test__ = False
