# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a stack's compose files say, whether the settings fit them, and the production override that is layered on top.

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
RELEASE_VARIABLE = "APP_RELEASE"
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
    host_network: bool = False


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
    """

    web_services: Mapping[str, int] = field(default_factory=dict)
    public_ports: Mapping[str, Sequence[int]] = field(default_factory=dict)
    required_services: Mapping[str, str] = field(default_factory=dict)
    required_ports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def settings_options() -> dict[str, dict[str, Any]]:
    """The options that modules share to take Settings; documented in the fragment _compose_settings."""
    return {
        "argument_spec": {
            "web_services": {"type": "dict", "default": {}},
            "public_ports": {"type": "dict", "default": {}},
            "required_services": {"type": "dict", "default": {}},
            "required_ports": {"type": "dict", "default": {}},
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
                host_network=service.get("network_mode") == "host",
            )
            for name, service in (config.get("services") or {}).items()
        }
    )


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
            found += _port_problems(model.services[name], port, f"{variable}.port", fixed=True)
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


def image_name(project: str, service: str, release: str) -> str:
    """The image of a built service: one tag for each release, so that the previous one stays for the way back."""
    return f"{project}/{service.lower()}:{release}"


def production_override(
    model: Model, settings: Settings, *, project: str, release: str, logging: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """What production needs on top of the user's files: service -> keys; what replaces instead of merging is _Tagged.

    Published ports are bound to 127.0.0.1 unless the compose file binds them to an address itself or public_ports lists
    them; web services lose their fixed container_name, so that a second replica can start, and learn their release.
    Services that the inventory names are restarted unless the compose file says otherwise; others may be one-shots.
    """
    override: dict[str, dict[str, Any]] = {}
    stores = {needed["service"] for needed in settings.required_ports.values()}
    kept = {*settings.web_services, *settings.required_services.values(), *stores}
    for name, service in sorted(model.services.items()):
        keys: dict[str, Any] = {}
        if service.ports:
            public = set(settings.public_ports.get(name, ()))
            keys["ports"] = _Tagged("!override", [_bound(port, port.target in public) for port in service.ports])
        if service.built:
            keys["image"] = image_name(project, name, release)
        if service.built or name in settings.web_services:
            keys["environment"] = {RELEASE_VARIABLE: release}
            keys["labels"] = {RELEASE_LABEL: release}
        if name in settings.web_services and service.container_name:
            keys["container_name"] = _Tagged("!reset", None)
        if name in kept and not service.restart:
            keys["restart"] = "unless-stopped"
        if logging and not service.logging:
            keys["logging"] = dict(logging)
        if keys:
            override[name] = keys
    return override


def endpoints(model: Model) -> dict[str, dict[str, dict[str, Any]]]:
    """service -> container port (as text) -> {"host", "port"} to reach it from the host itself."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in model.services}
    for name, service in model.services.items():
        for port in service.ports:
            if port.published.isdigit():  # the first of several is as good as any
                at = {"host": reachable(port.host_ip), "port": int(port.published)}
                found[name].setdefault(str(port.target), at)
    return found


def render_override(override: Mapping[str, Mapping[str, Any]]) -> str:
    """The override as YAML: a line for each key, its value in JSON (which is YAML), with compose's merge tags."""
    lines = [
        "# Written by groundwork.backend from the compose files and the inventory; changes here are lost.",
        "services:",
    ]
    for name, keys in override.items():
        lines.append(f"  {json.dumps(name)}:")
        for key, value in keys.items():
            tag, plain = (f"{value.tag} ", value.value) if isinstance(value, _Tagged) else ("", value)
            lines.append(f"    {key}: {tag}{json.dumps(plain, sort_keys=True)}")
    if not override:
        lines[-1] = "services: {}"
    return "\n".join(lines) + "\n"


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


@dataclass(frozen=True)
class _Tagged:
    """A value with one of compose's merge tags: !override replaces a list, !reset removes a key."""

    tag: str
    value: Any


def reachable(host_ip: str) -> str:
    """Where the host itself reaches a port that is bound to *host_ip*."""
    return LOOPBACK if host_ip in _ANYWHERE else host_ip


def _bound(port: Port, public: bool) -> dict[str, Any]:
    bound: dict[str, Any] = {"target": port.target, "protocol": port.protocol, "mode": "ingress"}
    if port.published:
        bound["published"] = port.published
    host_ip = port.host_ip if public else reachable(port.host_ip)
    if host_ip:
        bound["host_ip"] = host_ip
    return bound
