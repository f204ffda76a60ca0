# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Read compose files where no Docker is at hand: on the controller, before anything is changed on a host.

This is a first look, not a second Compose: it knows services, ports, build and the variables that are used, and says
that it is incomplete when a file uses include or extends. The host's own ``docker compose config`` has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    UNKNOWN_PORT,
    Model,
    Port,
    Service,
    has_fixed_address,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import DependencyError, InputError, os_errors

# Compose's interpolation: $$ is a dollar sign; ${NAME}, ${NAME:?text} and $NAME need a value; - and + bring their own.
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-+?])([^}]*))?\}|([A-Za-z_]\w*))")

_UNKNOWN = "unknown"


def read_compose_files(root: Path, names: Iterable[str]) -> tuple[Model, set[str]]:
    """The model of the files below *root*, and the variables that they need (used without a default).

    Raises InputError that names the file when one is missing or is not a compose file.
    """
    services: dict[str, list[Mapping[str, Any]]] = {}
    needed: set[str] = set()
    complete = True
    for name in names:
        document = load_compose_file(root, name)
        complete = complete and "include" not in document
        for service, keys in (document.get("services") or {}).items():
            if not isinstance(keys, Mapping):
                raise InputError(
                    f"The service {service!r} in the compose file {name} is not a mapping.",
                    fix="Correct its indentation.",
                )
            complete = complete and "extends" not in keys
            services.setdefault(service, []).append(keys)
        needed |= set(_needed_variables(document))
    return Model({name: _service(name, parts) for name, parts in services.items()}, complete), needed


def load_compose_file(root: Path, name: str) -> Mapping[str, Any]:
    """A compose file with every scalar left as text. Raises InputError that names the file."""
    yaml = _yaml()
    path = root / name
    if not path.is_file():
        raise InputError(
            f"app_compose_files names {name}, and there is no such file in the source {root}.",
            fix="Give the path below the source's top folder, such as ops/compose/docker-compose.yml.",
        )
    with os_errors(f"read the compose file {path}"):
        text = path.read_text(encoding="utf-8-sig")
    try:
        document = yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise InputError(f"The compose file {name} is not valid YAML: {error}.", fix="Correct it.") from error
    if not isinstance(document, Mapping) or not isinstance(document.get("services") or {}, Mapping):
        raise InputError(
            f"The compose file {name} has no mapping at its top.", fix="It must look like services: {...}."
        )
    return document


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - not there on every managed host
    except ImportError as error:
        raise DependencyError("PyYAML is needed to read compose files.", fix="Install python3-yaml.") from error
    return yaml


def _loader(yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is imported lazily
        """SafeLoader that leaves every scalar a string and reads values behind compose's own tags as plain values.

        PyYAML speaks YAML 1.1, in which the port 2222:22 is a number with base 60.
        """

        yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012 - as in PyYAML

    def plain(loader: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", plain)
    return Loader


def _service(name: str, parts: list[Mapping[str, Any]]) -> Service:
    ports = [port for keys in parts for entry in _list(keys.get("ports")) for port in parse_port(name, entry)]
    if any("extends" in keys for keys in parts):  # whatever ports the other service has
        ports.append(Port(UNKNOWN_PORT, _UNKNOWN))
    modes = [str(keys["network_mode"]) for keys in parts if keys.get("network_mode")]
    return Service(
        name=name,
        ports=tuple(ports),
        built=any("build" in keys for keys in parts),
        network_mode=modes[-1] if modes and "$" not in modes[-1] else "",
        fixed_address=any(has_fixed_address(keys.get("networks")) for keys in parts),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def parse_port(service: str, entry: Any) -> list[Port]:
    """The ports of one entry under ports:, long form or [IP:][HOST:]CONTAINER[/PROTOCOL], also as ranges.

    A variable stands for its default. Without one on the container's side, the port is UNKNOWN_PORT. Raises InputError.
    """
    if isinstance(entry, Mapping):
        text = _VARIABLE.sub(_default_or_name, str(entry.get("target", "")))
        published, host_ip, protocol = str(entry.get("published") or ""), "", str(entry.get("protocol") or "tcp")
    else:
        text, _, protocol = _VARIABLE.sub(_default_or_name, str(entry)).partition("/")
        head, _, text = text.rpartition(":")
        host_ip, _, published = head.rpartition(":")
    if text == _UNKNOWN:
        return [Port(UNKNOWN_PORT, published)]
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise InputError(
            f"The port {entry!r} of the service {service!r} is not of the form [IP:][HOST:]CONTAINER[/PROTOCOL].",
            fix="Correct it in the compose file.",
        )
    return [Port(number, published, host_ip, protocol or "tcp") for number in range(int(first), int(last or first) + 1)]


def _default_or_name(match: re.Match[str]) -> str:
    _dollar, _braced, operator, default, _bare = match.groups()
    return default if operator in ("-", ":-") and default else _UNKNOWN


def texts(node: Any) -> Iterator[str]:
    """Every scalar in a document that is not a key."""
    if isinstance(node, Mapping):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def _needed_variables(node: Any) -> Iterator[str]:
    for text in texts(node):
        for match in _VARIABLE.finditer(text):
            dollar, braced, operator, _default, bare = match.groups()
            if dollar is None and operator not in ("-", ":-", "+", ":+"):
                yield braced or bare
