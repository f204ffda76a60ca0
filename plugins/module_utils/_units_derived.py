# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What playbooks derive from the settings of a systemd stack; pure, behind the filters of the same names.

A stack is {"app", "units", "web_services", "services", "user", "group", "bind_address", "requirements"}, from the
inventory or from the settings of a release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._deploy import upstream_servers
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import Place, once_lines
from ansible_collections.groundwork.backend.plugins.module_utils._units import Stack, Unit, read_units
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import checks


def _units(stack: Mapping[str, Any]) -> list[Unit]:
    """The units. Raises InputError."""
    of = Stack(stack["app"], stack["user"], stack["group"], stack["bind_address"])
    return read_units(of, stack["units"], stack["web_services"], stack["services"])


def unit_accounts(stack: Mapping[str, Any]) -> dict[str, Any]:
    """The groups (names) and users ({"name", "group"}) that the units need. Raises InputError."""
    users = {stack["user"]: stack["group"]}
    groups = [stack["group"]]
    for unit in _units(stack):
        users.setdefault(unit.user, unit.group)
        groups += [unit.group] if unit.group not in groups else []
    return {"groups": groups, "users": [{"name": name, "group": group} for name, group in users.items()]}


def unit_checks(stack: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The health_wait checks of the units that answer requests. Raises InputError."""
    return [check for unit in _units(stack) for check in checks(unit, "") if check["kind"] == "http"]


def unit_command(stack: Mapping[str, Any], service: str, command: Sequence[str], release: str, path: str) -> list[str]:
    """The argv that runs a command as a unit of a release would: with its user, variables, folder and limits.

    path: the folder of the stack. Raises InputError for a service that is no unit.
    """
    unit = next((one for one in _units(stack) if one.key == service), None)
    if unit is None:
        raise InputError(
            f"A hook names the service {service}, and app_units has {', '.join(stack['units'])}.",
            fix="Name one of them.",
        )
    directory = f"{path}/releases/{release}"
    venv = f"{directory}/.venv" if stack["requirements"] else ""
    place = Place(stack["app"], release, directory, venv, f"{path}/shared/{release}/.env")
    program = f"{venv}/bin/{command[0]}" if venv and "/" not in command[0] else command[0]
    options = [f"--property={line}" for line in once_lines(unit, place)]
    return ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, "--", program, *command[1:]]


def unit_servers(
    web_services: Mapping[str, Mapping[str, Any]], bind_address: str, tries: int = 1
) -> list[dict[str, Any]]:
    """What a proxy is given of the services: their addresses, which stay from release to release."""
    found = {
        name: {"new": [{"socket": one["socket"]} if one.get("socket") else {"host": bind_address, "port": one["port"]}]}
        for name, one in web_services.items()
    }  # as endpoints() has it
    return upstream_servers(list(web_services), found, "new", tries)


def exposure_lines(exposure: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each service, as systemd-analyze security judges it."""
    return [
        f"{name}: exposure {one['exposure']:g} of 10 ({one['rating']}), by systemd-analyze security"
        for name, one in exposure.items()
    ]
