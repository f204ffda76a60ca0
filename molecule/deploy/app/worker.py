# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A worker that finishes what it has begun when it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import time

stopping = False


def stop(*_: object) -> None:
    """SIGTERM: no new job."""
    global stopping  # noqa: PLW0603 - a signal handler has nowhere else to say it
    stopping = True


signal.signal(signal.SIGTERM, stop)
print(f"worker of release {os.environ.get('APP_RELEASE', '')}", flush=True)
while not stopping:
    time.sleep(0.2)
print("the last job is done", flush=True)
sys.exit(0)
