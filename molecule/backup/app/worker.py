# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Writes all the time, and is soon back when its database is gone for a moment."""

from __future__ import annotations

import os
import signal
import sys
import time

import psycopg

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            while True:
                connection.execute("INSERT INTO beats DEFAULT VALUES")
                time.sleep(0.2)
    except psycopg.Error as error:
        print(error, flush=True)
        time.sleep(0.5)
