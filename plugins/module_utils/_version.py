# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The version of the collection: a module runs on a host where galaxy.yml is not. A unit test compares the two."""

from __future__ import annotations

COLLECTION_VERSION = "0.1.0"
