# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Shared fixtures: the checkout as the collection, and modules run the way Ansible runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / "build" / "collections"

_AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()
sys.path.insert(0, str(ROOT / "tests"))

from support.modules import ModuleRunner


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def module() -> ModuleRunner:
    """module("pg_backup", {...}, check=True) runs a module in its own process and returns its result."""
    return ModuleRunner(ROOT)
