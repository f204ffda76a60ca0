# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Shared fixtures: the checkout as the collection, and modules run the way Ansible runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "testbed")]

from support import collection
from support.modules import ModuleRunner

collection.install()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return collection.ROOT


@pytest.fixture(scope="session")
def module() -> ModuleRunner:
    """module("pg_backup", {...}, check=True) runs a module in its own process and returns its result."""
    return ModuleRunner(collection.ROOT)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: what CI is meant to have must be there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("Tests were skipped, and CI must have what they need.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
