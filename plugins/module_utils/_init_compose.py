# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a new inventory needs to know of compose files: variables, images, environment, mounts; pure.

Parsed documents come from _compose_files.py, with every scalar as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import Port
from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import parse_port, texts

_OPEN = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)|([A-Za-z_]\w*))")
_OPERATOR = re.compile(r":?[-+?]")
# what an image holds, by the last words of its name
_STORES = {
    "postgres": r"postgres|postgresql|pgvector|timescaledb(-ha)?|postgis|pgvecto-rs",
    "mongo": r"mongo|mongodb(-community-server|-atlas-local)?|percona-server-mongodb",
    "redis": r"redis|redis-stack(-server)?|valkey|keydb|dragonfly",
    "qdrant": r"qdrant",
    "mysql": r"mysql|mariadb|percona",
    "other": (
        r"minio|rabbitmq|elasticsearch|opensearch|chroma|weaviate|milvus|neo4j|clickhouse(-server)?|influxdb|memcached|nats|"
        r"kafka|zookeeper|etcd|cassandra|cockroach|couchdb|seaweedfs|meilisearch|typesense"
    ),
}
_PROXY = re.compile(r"nginx(-proxy)?|traefik|caddy|haproxy|envoy|certbot")


@dataclass(frozen=True)
class Use:
    """One use of a variable: its default, or None; required when Compose complains without a value."""

    name: str
    default: str | None = None
    required: bool = True


@dataclass(frozen=True)
class ServiceFile:
    """A service as its files have it.

    environment and command hold uninterpolated text; pass_through names variables without a value of their own.
    """

    name: str
    image: str = ""
    context: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    pass_through: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    health: str = ""
    command: str = ""
    init_folders: tuple[str, ...] = ()
    whole_env: bool = False
    in_profile: bool = False

    @property
    def store(self) -> str:
        """The kind of store that its image is, or ""."""
        name = self.image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
        return next((kind for kind, pattern in _STORES.items() if re.fullmatch(pattern, name)), "")

    @property
    def proxy(self) -> bool:
        """Whether its image is a reverse proxy."""
        return bool(_PROXY.fullmatch(self.image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()))


def uses(text: str) -> Iterator[Use]:
    """The variables in a text, in Compose's interpolation; a default may hold more of them."""
    position = 0
    while match := _OPEN.search(text, position):
        dollar, braced, bare = match.groups()
        position = match.end()
        if dollar:
            continue
        if bare:
            yield Use(bare)
            continue
        end = _closing(text, position)
        operator = _OPERATOR.match(text, position)
        rest = text[operator.end() : end] if operator else ""
        kind = operator[0][-1] if operator else ""
        yield Use(braced, rest if kind == "-" else None, kind not in ("-", "+"))
        if kind in ("-", "+"):
            yield from uses(rest)
        position = end + 1


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables replaced; one without value and default is empty, as in Compose."""
    parts, position = [], 0
    while match := _OPEN.search(text, position):
        dollar, braced, bare = match.groups()
        parts.append(text[position : match.start()])
        position = match.end()
        if dollar or bare:
            parts.append("$" if dollar else values.get(bare, ""))
            continue
        end = _closing(text, position)
        operator = _OPERATOR.match(text, position)
        rest = text[operator.end() : end] if operator else ""
        value = values.get(braced, "")
        kind = operator[0][-1] if operator else ""
        if kind == "+":
            value = interpolate(rest, values) if value else ""
        elif kind == "-" and not value:
            value = interpolate(rest, values)
        parts.append(value)
        position = end + 1
    return "".join(parts) + text[position:]


def _closing(text: str, position: int) -> int:
    """Where the brace closes that was open before *position*; the end of the text when it does not."""
    depth = 1
    while position < len(text):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
        position += 1
    return position


def merge_services(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, ServiceFile]:
    """The services of several documents, layered as Compose does; each comes with the path of its file.

    Relative paths are below the source's top folder; as in Compose, they are seen from the first file.
    """
    merged: dict[str, dict[str, Any]] = {}
    folder = PurePosixPath()
    for number, (path, document) in enumerate(documents):
        if number == 0:
            folder = PurePosixPath(path).parent
        for name, keys in (document.get("services") or {}).items():
            service = merged.setdefault(name, {"environment": {}, "ports": [], "volumes": []})
            for key, value in keys.items():
                if key == "environment":
                    service["environment"] |= _environment(value)
                elif key in ("ports", "volumes") and isinstance(value, list):
                    service[key] += value
                else:
                    service[key] = value
    return {name: _service(name, keys, folder) for name, keys in merged.items()}


def _service(name: str, keys: Mapping[str, Any], folder: PurePosixPath) -> ServiceFile:
    build = keys.get("build")
    context = build.get("context", ".") if isinstance(build, Mapping) else build
    test = (keys.get("healthcheck") or {}).get("test", "")
    environment = keys["environment"]
    return ServiceFile(
        name=name,
        image="" if build else interpolate(str(keys.get("image") or ""), {}),
        context=_below(folder, interpolate(context, {})) if isinstance(context, str) else "",
        environment={key: value for key, value in environment.items() if value is not None},
        pass_through=tuple(key for key, value in environment.items() if value is None),
        ports=tuple(port for entry in keys["ports"] for port in parse_port(name, entry)),
        health=" ".join(test) if isinstance(test, list) else str(test),
        command=" ".join(texts([keys.get("command"), keys.get("entrypoint")])),
        init_folders=tuple(_below(folder, source) for source in _init_sources(keys["volumes"])),
        whole_env=names_env(keys.get("env_file")),
        in_profile=bool(keys.get("profiles")),
    )


def _environment(value: Any) -> dict[str, str | None]:
    if isinstance(value, Mapping):
        return {name: None if text is None or text == "" else str(text) for name, text in value.items()}
    pairs = (str(entry).partition("=") for entry in value or ())
    return {name: text if equals else None for name, equals, text in pairs}


def _init_sources(volumes: Iterable[Any]) -> Iterator[str]:
    """What is mounted where an image looks for scripts of its first start."""
    for volume in volumes:
        if isinstance(volume, Mapping):
            source, target = str(volume.get("source", "")), str(volume.get("target", ""))
        else:
            source, _, target = str(volume).partition(":")
        if "docker-entrypoint-initdb.d" in target:
            yield source


def names_env(value: Any) -> bool:
    """Whether a service's env_file: has the .env itself, and with it every variable."""
    entries = value if isinstance(value, list) else [value]
    names = [entry.get("path", "") if isinstance(entry, Mapping) else str(entry or "") for entry in entries]
    return any(PurePosixPath(name).name == ".env" for name in names)


def _below(folder: PurePosixPath, path: str) -> str:
    """A path of a compose file, seen from the source's top folder; "" when it leads out of it."""
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == "/" or (part == ".." and not parts):
            return ""
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts) or "."
