# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Entry point of ``python3 tests/testbed``."""

from __future__ import annotations

import sys

from groundwork_testbed.cli import main

sys.exit(main(sys.argv[1:]))
