# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Which services of a stack take which variables, so that a rotation knows whom Compose would recreate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import load_compose_file, texts
from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import names_env, uses


def services_using(names: Sequence[str], root: str, compose_files: Sequence[str]) -> dict[str, list[str]]:
    """service -> those of *names* that its part of the compose files uses; services that use none are left out.

    root is the source's folder on the controller. A service that has the .env as its env_file uses all of them.
    """
    wanted, found = set(names), dict[str, set[str]]()
    for file in compose_files:
        services: Mapping[str, Mapping[str, object]] = load_compose_file(Path(root), file).get("services") or {}
        for service, keys in services.items():
            every = names_env(keys.get("env_file"))
            used = wanted if every else {use.name for text in texts(keys) for use in uses(text)} & wanted
            if used:
                found.setdefault(service, set()).update(used)
    return {service: sorted(used) for service, used in sorted(found.items())}
