# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The production override that is layered on top of a stack's compose files. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    LOOPBACK,
    RELEASE_LABEL,
    Model,
    Port,
    Settings,
    reachable,
)
from ansible_collections.groundwork.backend.plugins.module_utils._compose_mounts import MOUNTS_LABEL

RELEASE_VARIABLE = "APP_RELEASE"

# service -> container port ("8081", "53/udp") -> consecutive ports of the host, one for each replica
Blocks = Mapping[str, Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class _Tagged:
    """A value with one of compose's merge tags: !override replaces a list, !reset removes a key."""

    tag: str
    value: Any


def image_name(project: str, service: str, release: str) -> str:
    """The image of a built service: one tag for each release, so that the previous one stays for the way back."""
    return f"{project}/{service.lower()}:{release}"


def production_override(
    model: Model,
    settings: Settings,
    *,
    project: str,
    release: str,
    logging: Mapping[str, Any] | None = None,
    rolled: Blocks | None = None,
    bind_address: str = LOOPBACK,
    mounts: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """What production needs on top of the user's files: service -> keys; what replaces instead of merging is _Tagged.

    Published ports are bound to 127.0.0.1 unless the compose file binds them to an address itself or public_ports lists
    them; those of a service in *rolled* get the ports that stand there, at bind_address. Web services lose their fixed
    container_name, so that a second replica can start, and learn their release.
    mounts has a digest of what a service mounts of the repository; as a label, it makes compose recreate the service.
    Services that the inventory names are restarted unless the compose file says otherwise; others may be one-shots.
    """
    override: dict[str, dict[str, Any]] = {}
    stores = {needed["service"] for needed in settings.required_ports.values()}
    web = {*settings.web_services, *(rolled or ())}
    kept = {*web, *settings.required_services.values(), *stores, *settings.public_ports}
    for name, service in sorted(model.services.items()):
        keys: dict[str, Any] = {}
        if rolled and name in rolled:
            keys["ports"] = _Tagged("!override", [_shared(key, at, bind_address) for key, at in rolled[name].items()])
        elif service.ports:
            public = set(settings.public_ports.get(name, ()))
            keys["ports"] = _Tagged("!override", [_bound(port, port.target in public) for port in service.ports])
        if service.built:
            keys["image"] = image_name(project, name, release)
        if service.built or name in web:
            keys["environment"] = {RELEASE_VARIABLE: release}
            keys["labels"] = {RELEASE_LABEL: release}
        elif mounts and mounts.get(name):
            keys["labels"] = {MOUNTS_LABEL: mounts[name]}
        if name in web and service.container_name:
            keys["container_name"] = _Tagged("!reset", None)
        if name in kept and not service.restart:
            keys["restart"] = "unless-stopped"
        if logging and not service.logging:
            keys["logging"] = dict(logging)
        if keys:
            override[name] = keys
    return override


def endpoints(
    model: Model, rolled: Blocks | None = None, bind_address: str = LOOPBACK
) -> dict[str, dict[str, dict[str, Any]]]:
    """service -> container port (as text) -> {"host", "port"} to reach it from the host itself."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in model.services}
    for name, service in model.services.items():
        for port in service.ports:
            if port.published.isdigit():  # the first of several is as good as any
                at = {"host": reachable(port.host_ip), "port": int(port.published)}
                found[name].setdefault(str(port.target), at)
    for name, blocks in (rolled or {}).items():
        found[name] = {
            key: {"host": reachable(bind_address), "port": ports[0]} for key, ports in blocks.items() if key.isdigit()
        }
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


def released_with(model: Model, settings: Settings) -> list[str]:
    """The services that a release does not recreate by itself, and that are no stores: ready-made images."""
    stores = {*settings.required_services.values(), *(needed["service"] for needed in settings.required_ports.values())}
    web = {*settings.web_services, *settings.rolled_services}
    return [name for name, service in model.services.items() if not service.built and name not in web | stores]


def recorded_mounts(override: str) -> dict[str, str]:
    """service -> the digest of its mounts, of an override that render_override() wrote."""
    found, name = {}, ""
    for line in override.splitlines():
        if line.startswith('  "'):
            name = json.loads(line.strip().removesuffix(":"))
        elif line.startswith("    labels: {"):
            labels = json.loads(line.partition(": ")[2])
            if MOUNTS_LABEL in labels:
                found[name] = labels[MOUNTS_LABEL]
    return found


def _shared(key: str, ports: Sequence[int], host_ip: str) -> dict[str, Any]:
    """A container port that all replicas of a release publish, each on one port of the range."""
    target, _, protocol = key.partition("/")
    published = str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
    return {
        "target": int(target),
        "protocol": protocol or "tcp",
        "mode": "ingress",
        "published": published,
        "host_ip": host_ip,
    }


def _bound(port: Port, public: bool) -> dict[str, Any]:
    bound: dict[str, Any] = {"target": port.target, "protocol": port.protocol, "mode": "ingress"}
    if port.published:
        bound["published"] = port.published
    host_ip = port.host_ip if public else reachable(port.host_ip)
    if host_ip:
        bound["host_ip"] = host_ip
    return bound
