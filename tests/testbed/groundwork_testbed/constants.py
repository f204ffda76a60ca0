# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Names and numbers that the parts of the test bed share."""

from __future__ import annotations

from typing import Final

LABEL: Final = "org.groundwork.testbed"
"""Label on everything that the test bed makes; its value is "1"."""

LABEL_FILTER: Final = f"label={LABEL}=1"
RECIPE_LABEL: Final = f"{LABEL}.recipe"
STATE_LABEL: Final = f"{LABEL}.state"
OS_LABEL: Final = f"{LABEL}.os"
STANDIN_LABEL: Final = f"{LABEL}.stand-in"

NAMESPACE: Final = "groundwork-testbed"
NETWORK: Final = "groundwork-testbed"
SUBNET: Final = "198.18.0.0/24"
GATEWAY: Final = "198.18.0.1"
FIRST_HOST: Final = 10
LAST_HOST: Final = 250
REGISTRY_PORT: Final = 5000
REGISTRY: Final = f"{GATEWAY}:{REGISTRY_PORT}"

HOST_USER: Final = "debian"
SUITES: Final = {"debian12": "bookworm", "debian13": "trixie", "debian13-docker": "trixie"}
DEFAULT_OS: Final = "debian13"
