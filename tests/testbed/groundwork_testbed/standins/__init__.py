# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Stand-ins for images of the public registry. One file each; a new one is a file and an entry in STANDINS."""

from __future__ import annotations

from . import mongo, pgvector, pgvector17, python, redis
from .model import StandIn

STANDINS: dict[str, StandIn] = {
    standin.name: standin
    for standin in (mongo.MONGO_82, pgvector.PG16, pgvector17.PG17, python.PYTHON_311, python.PYTHON_313, redis.REDIS_7)
}
