# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a stack's compose files say, and whether the settings fit them.

The model is built from ``docker compose config --format json`` (from_config) or, where no engine is there yet, from
the files themselves (_compose_files.py). Everything here but compose_config() is pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._exec import run

LOOPBACK = "127.0.0.1"
UNKNOWN_PORT = 0  # a container port that stands in a variable
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
RELEASE_LABEL = "org.groundwork.release"


@dataclass(frozen=True)
class Port:
    """One published port: *target* in the container, *published* on the host ("" when the engine chooses)."""

    target: int
    published: str = ""
    host_ip: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True)
class Service:
    """What the production override needs to know of a compose service."""

    name: str
    ports: tuple[Port, ...] = ()
    built: bool = False
    container_name: str = ""
    restart: str = ""
    logging: bool = False
    network_mode: str = ""
    fixed_address: bool = False
    replicas: int = 1

    @property
    def host_network(self) -> bool:
        """Whether it shares the host's network, where nothing is published."""
        return self.network_mode == "host"


@dataclass(frozen=True)
class Model:
    """The services of a stack. complete is False when files that were not read may add more (include, extends)."""

    services: Mapping[str, Service]
    complete: bool = True


@dataclass(frozen=True)
class Settings:
    """The part of the inventory that speaks of compose services.

    web_services:      service -> container port
    public_ports:      service -> container ports that stay reachable from outside
    required_services: the variable that names a service -> that service
    required_ports:    the variable that needs a published port -> {"service", "port"}
    rolled_services:   the web services whose new replicas run beside the old ones for a while
    """

    web_services: Mapping[str, int] = field(default_factory=dict)
    public_ports: Mapping[str, Sequence[int]] = field(default_factory=dict)
    required_services: Mapping[str, str] = field(default_factory=dict)
    required_ports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rolled_services: Sequence[str] = ()


def settings_options() -> dict[str, dict[str, Any]]:
    """The options that modules share to take Settings; documented in the fragment _compose_settings."""
    return {
        "argument_spec": {
            "web_services": {"type": "dict", "default": {}},
            "public_ports": {"type": "dict", "default": {}},
            "required_services": {"type": "dict", "default": {}},
            "required_ports": {"type": "dict", "default": {}},
            "rolled_services": {"type": "list", "elements": "str", "default": []},
        }
    }


def settings_from(params: Mapping[str, Any]) -> Settings:
    """Settings from checked options. Raises InputError when a port is not a number."""
    return Settings(
        {name: _port_number(f"app_web_services.{name}.port", port) for name, port in params["web_services"].items()},
        {
            name: [
                _port_number(f"app_public_ports.{name}", port)
                for port in (ports if isinstance(ports, list) else [ports])
            ]
            for name, ports in params["public_ports"].items()
        },
        params["required_services"],
        {
            variable: {"service": needed["service"], "port": _port_number(f"{variable}.port", needed["port"])}
            for variable, needed in params["required_ports"].items()
        },
        params["rolled_services"],
    )


def _port_number(variable: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 0 < number < 1 << 16:
        raise InputError(f"{variable} is {value!r}.", fix="Give a port number from 1 to 65535.")
    return number


def from_config(config: Mapping[str, Any]) -> Model:
    """The model of a parsed ``docker compose config --format json``."""
    return Model(
        {
            name: Service(
                name=name,
                ports=tuple(
                    Port(
                        int(port["target"]),
                        str(port.get("published") or ""),
                        port.get("host_ip") or "",
                        port["protocol"],
                    )
                    for port in service.get("ports") or ()
                ),
                built="build" in service,
                container_name=service.get("container_name") or "",
                restart=service.get("restart") or "",
                logging=bool(service.get("logging")),
                network_mode=service.get("network_mode") or "",
                fixed_address=has_fixed_address(service.get("networks")),
                replicas=replicas(service),
            )
            for name, service in (config.get("services") or {}).items()
        }
    )


def replicas(service: Mapping[str, Any]) -> int:
    """How many containers the service has: ``scale`` or ``deploy.replicas`` of the parsed configuration, else 1."""
    for found in (service.get("scale"), (service.get("deploy") or {}).get("replicas")):
        if found is not None:
            return int(found)
    return 1


def has_fixed_address(networks: Any) -> bool:
    """Whether the service's networks: give its container an address of its own, which only one container can have."""
    entries = networks.values() if isinstance(networks, Mapping) else ()
    return any(entry.get(key) for entry in entries if entry for key in ("ipv4_address", "ipv6_address", "mac_address"))


def problems(model: Model, settings: Settings) -> list[str]:
    """A sentence for each setting that does not fit the compose files; empty when all fit."""
    known = ", ".join(sorted(model.services)) or "none"
    found: list[str] = []

    def missing(variable: str, service: str) -> bool:
        if service in model.services:
            return False
        if model.complete:
            found.append(
                f"{variable} names the service {service!r}, and the compose files have: {known}. "
                "Correct the name, or add the compose file that defines it to app_compose_files."
            )
        return True

    for variable, service in settings.required_services.items():
        missing(variable, service)
    for variable, needed in settings.required_ports.items():
        if not missing(f"{variable}.service", needed["service"]):
            found += _port_problems(model.services[needed["service"]], needed["port"], f"{variable}.port", fixed=True)
    for name, port in settings.web_services.items():
        variable = f"app_web_services.{name}"
        if not missing(variable, name):
            rolled = name in settings.rolled_services
            found += _port_problems(model.services[name], port, f"{variable}.port", fixed=not rolled)
    for name in settings.rolled_services:
        if not missing(f"app_web_services.{name}", name):
            found += rolling_problems(model.services[name], bool(settings.public_ports.get(name)))
    for name, ports in settings.public_ports.items():
        variable = f"app_public_ports.{name}"
        if not missing(variable, name):
            for port in ports:
                found += _port_problems(model.services[name], port, variable, fixed=False)
    return found


def require_fit(model: Model, settings: Settings) -> None:
    """Raise InputError with all problems() in one message."""
    if found := problems(model, settings):
        raise InputError(" ".join(found))


def rolling_problems(service: Service, public: bool = False) -> list[str]:
    """Why two sets of replicas of the service cannot run side by side behind a proxy; empty when they can."""
    found = []
    if service.network_mode and service.network_mode != "bridge":
        found.append(f"it has network_mode: {service.network_mode}, with which no port of its own can be published")
    elif not service.ports:
        found.append("it publishes no port, so that a proxy could not reach it")
    if service.fixed_address:
        found.append("its networks: give it an address of its own, which only one container can have")
    if service.replicas < 1:
        found.append(f"its number of replicas is {service.replicas}")
    if public:
        found.append("app_public_ports lists it, and its ports change with each release")
    if not found:
        return []
    told = f"The service {service.name!r} cannot be rolled: {' and '.join(found)}."
    return [f"{told} Correct that, or set app_services.{service.name}.rollout to recreate."]


def _port_problems(service: Service, port: int, variable: str, *, fixed: bool) -> Iterable[str]:
    if any(candidate.target == UNKNOWN_PORT for candidate in service.ports):
        return
    published = [candidate for candidate in service.ports if candidate.target == port]
    if not published:
        targets = ", ".join(str(candidate.target) for candidate in service.ports) or "none"
        yield (
            f"{variable} is {port}, and the service {service.name!r} publishes these container ports: {targets}. "
            f"Use one of them, or publish {port} under ports: in the compose file."
        )
    elif fixed and not published[0].published:
        yield (
            f"{variable} is {port}, and the service {service.name!r} publishes it on a port that the engine chooses. "
            f'Give it a fixed one in the compose file, such as "{port}:{port}".'
        )


def compose_argv(project: str, directory: str, files: Sequence[str], env_files: Sequence[str]) -> list[str]:
    """The beginning of every compose command of a stack."""
    argv = ["docker", "compose", "--project-name", project, "--project-directory", directory]
    for path in files:
        argv += ["--file", path]
    for path in env_files:
        argv += ["--env-file", path]
    return argv


def compose_config(project: str, directory: str, files: Sequence[str], env_files: Sequence[str]) -> Mapping[str, Any]:
    """What compose makes of the files. The result holds secrets: never return or log it whole.

    Raises CommandError with compose's own words, DependencyError without docker.
    """
    done = run(
        [*compose_argv(project, directory, files, env_files), "config", "--format", "json"],
        asked="read the compose files",
    )
    try:
        config: Mapping[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise StateError(
            "docker compose config printed something that is not JSON.",
            fix="Run the docker role: Compose 2.24 or newer is needed.",
        ) from error
    return config


def reachable(host_ip: str) -> str:
    """Where the host itself reaches a port that is bound to *host_ip*."""
    return LOOPBACK if host_ip in _ANYWHERE else host_ip
