# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What is found in a source, and what a new inventory will say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import ServiceFile, Use


@dataclass(frozen=True)
class Secret:
    """One variable of the vault file. A value "" has to be filled in by the user."""

    value: str
    comment: str = ""


@dataclass(frozen=True)
class Line:
    """One variable of app_env; active is False for one that the compose files give a default that may stay."""

    name: str
    value: str
    comment: str = ""
    active: bool = True


@dataclass(frozen=True)
class Found:
    """What was read of a source. variables holds every use; example the env example's values, in its order."""

    services: Mapping[str, ServiceFile]
    variables: Sequence[Use]
    example: Mapping[str, str] = field(default_factory=dict)
    migrations: Mapping[str, set[str]] = field(default_factory=dict)
    alembic: Sequence[str] = ()
    health: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Plan:
    """What the files of the inventory will say. checks are sentences for the user."""

    env: list[Line] = field(default_factory=list)
    web: dict[str, dict[str, Any]] = field(default_factory=dict)
    migrations: list[dict[str, Any]] = field(default_factory=list)
    unreachable: list[dict[str, Any]] = field(default_factory=list)
    backups: list[dict[str, Any]] = field(default_factory=list)
    logins: dict[str, dict[str, Any]] = field(default_factory=dict)
    vault: dict[str, Secret] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)

    @property
    def empty(self) -> list[str]:
        """Variables of the vault file that the user has to fill in."""
        return [name for name, secret in self.vault.items() if not secret.value]


@dataclass(frozen=True)
class Database:
    """A database that an image makes, with its superuser; password is a variable of the vault."""

    service: ServiceFile
    name: str
    user: str
    password: str
    published: bool
