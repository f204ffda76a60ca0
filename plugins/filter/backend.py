# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Filters of the collection."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.groundwork.backend.plugins.module_utils import (
    _deploy,
    _dotenv,
    _failure,
    _mongo_version,
    _nginx_sites,
    _secrets_services,
    _stack,
    _ufw_stack,
    _unit_env,
    _units_derived,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError

_ROUNDS = 200_000


def dotenv(values: Mapping[str, Any]) -> str:
    """The text of an env file for Docker Compose."""
    if not isinstance(values, Mapping):
        raise AnsibleFilterError(f"dotenv needs a mapping of variables, and was given {type(values).__name__}.")
    try:
        return _dotenv.render(values)
    except GroundworkError as error:
        raise AnsibleFilterError(str(error)) from error


def settings_digest(settings: Any, salt: str = "") -> str:
    """A hex digest of any settings, secrets included, that is too slow to search for a secret by trying (PBKDF2)."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt.encode(), _ROUNDS).hex()


def _sentence(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the errors of the library as Ansible's."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except GroundworkError as error:
            raise AnsibleFilterError(str(error)) from error

    return wrapped


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "batches": _sentence(_deploy.batches),
            "container_endpoints": _stack.container_endpoints,
            "dotenv": dotenv,
            "env_changes": _deploy.env_changes,
            "exposure_lines": _units_derived.exposure_lines,
            "failure": _failure.failure,
            "hooks": _sentence(_deploy.hooks),
            "may_answer": _ufw_stack.may_answer,
            "migration_ports": _stack.migration_ports,
            "mongo_checks": _stack.mongo_checks,
            "mongo_upgrade_fault": _sentence(_mongo_version.upgrade_fault),
            "other_checks": _deploy.other_checks,
            "own_addresses": _ufw_stack.own_addresses,
            "proxy_checks": _deploy.proxy_checks,
            "proxy_sites": _sentence(_deploy.proxy_sites),
            "recorded_migrations": _deploy.recorded_migrations,
            "release_servers": _deploy.release_servers,
            "release_table": _stack.release_table,
            "rolled_services": _sentence(_deploy.rolled_services),
            "services_using": _sentence(_secrets_services.services_using),
            "settings_digest": settings_digest,
            "status_table": _stack.status_table,
            "store_checks": _stack.store_checks,
            "unit_accounts": _sentence(_units_derived.unit_accounts),
            "unit_checks": _sentence(_units_derived.unit_checks),
            "unit_command": _sentence(_units_derived.unit_command),
            "unit_env": _sentence(_unit_env.render),
            "unit_servers": _units_derived.unit_servers,
            "upstream_servers": _deploy.upstream_servers,
            "web_checks": _stack.web_checks,
            "writers": _stack.writers,
            "nginx_problems": _nginx_sites.problems,
            "orphans": _stack.orphans,
            "rate_seconds": _sentence(_nginx_sites.rate_seconds),
        }
