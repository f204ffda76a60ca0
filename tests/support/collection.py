# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The checkout as the collection that Python imports."""

from __future__ import annotations

from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "build" / "collections"


def install() -> None:
    """Make ansible_collections.groundwork.backend importable from this checkout."""
    _AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()
