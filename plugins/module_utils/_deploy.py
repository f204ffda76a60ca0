# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a deploy derives from a stack's settings; pure, behind the filters of the same names."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import RELEASE_LABEL, reachable
from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import raw_values
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

ROLLOUTS = ("rolling", "recreate")
_SERVICE_KEYS = {"rollout", "one_shot"}
_HOOK_KINDS = {"command": {"command"}, "service": {"service", "command"}, "tasks": {"tasks"}}
KEEP = "keep"
_DERIVED = ("server_names", "default", "health_paths", "maintenance")
_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
HOOKS = ("before_migrate", "after_migrate", "before_switch", "after_switch", "after_rollback")

Settings = Mapping[str, Mapping[str, Any]]


def rolled_services(
    web_services: Settings, services: Settings, proxies: Sequence[str], runtime: str = "compose"
) -> dict[str, Any]:
    """The web services that are replaced without a gap: none without a proxy host, else all that can run twice.

    services: app_services. Of systemd units all are, as systemd holds their addresses.
    Raises InputError for a key or a rollout that is not known.
    """
    for name, service in services.items():
        if unknown := set(service) - _SERVICE_KEYS:
            raise InputError(
                f"app_services.{name} has the keys {sorted(unknown)}.", fix=f"Known are {sorted(_SERVICE_KEYS)}."
            )
        if service.get("rollout", ROLLOUTS[0]) not in ROLLOUTS:
            raise InputError(
                f"app_services.{name}.rollout is {service['rollout']!r}.", fix=f"Use one of {', '.join(ROLLOUTS)}."
            )
    if not proxies:
        return {}
    return {
        name: dict(service)
        for name, service in web_services.items()
        if runtime == "systemd" or services.get(name, {}).get("rollout", ROLLOUTS[0]) == ROLLOUTS[0]
    }


def other_checks(names: Sequence[str], services: Settings, project: str) -> list[dict[str, Any]]:
    """The health_wait checks of compose services, which are not rolled. app_services has the one-shots."""
    if not names:
        return []
    one_shots = [name for name in names if services.get(name, {}).get("one_shot")]
    return [
        {"name": "services", "kind": "compose", "project": project, "services": list(names), "one_shots": one_shots}
    ]


def proxy_sites(web_services: Settings, app: str, rolled: Iterable[str], maintenance: Any) -> list[dict[str, Any]]:
    """The nginx_sites of the rolled web services: one for each set of server_names, with a location for each service.

    Services without server_names share the default site. What a service has as site belongs to its site (with more
    locations, whose upstream may name a service of the stack), and what it has as location to its own location there.
    A site is called by its own name, or by the stack and the first of its services.
    maintenance is on, off, or "keep" for as it is.
    Raises InputError when two services want one path of one site or do not agree on it, and for an unknown upstream.
    """
    switched = {} if maintenance == KEEP else {"maintenance": _switch(maintenance)}
    sites: dict[tuple[str, ...], dict[str, Any]] = {}
    first: dict[tuple[str, ...], str] = {}
    for name in (rolled := list(rolled)):
        service = web_services[name]
        server_names = _names(service)
        first.setdefault(server_names, name)
        site = sites.setdefault(
            server_names,
            {
                "server_names": list(server_names),
                "default": not server_names,
                "locations": [],
                "health_paths": [],
                **switched,
            },
        )
        own = {"path": service.get("path") or "/", "upstream": {"app": app, "service": name}}
        if "read_timeout" in service:
            own["read_timeout"] = service["read_timeout"]
        asked = dict(service.get("site") or {})
        more = [_within(name, one, app, rolled) for one in asked.pop("locations", None) or ()]
        for location in [{**own, **_free(name, "location", service.get("location"), own)}, *more]:
            path = location.setdefault("path", "/")
            if any(other["path"] == path for other in site["locations"]):
                raise InputError(
                    f"app_web_services.{name} wants the path {path} of a site that another service has there.",
                    fix="Give each service its own server_names or path.",
                )
            site["locations"].append(location)
        if service["health"]["path"] not in site["health_paths"]:
            site["health_paths"].append(service["health"]["path"])
        for key, value in _free(name, "site", asked, _DERIVED).items():
            if site.setdefault(key, value) != value:
                raise InputError(
                    f"app_web_services.{name}.site.{key} is not what another service says of the same site.",
                    fix="Say it once, or the same.",
                )
    return [{"name": f"{app}-{first[names]}", **site} for names, site in sites.items()]


def _free(name: str, kind: str, given: Mapping[str, Any] | None, taken: Iterable[str]) -> Mapping[str, Any]:
    """What a service says of its site or location, without the keys that follow from the rest of it."""
    if both := sorted(set(given or {}) & set(taken)):
        raise InputError(
            f"app_web_services.{name}.{kind} has {', '.join(both)}.",
            fix="That follows from server_names, path, read_timeout and health of the service; app_maintenance "
            "switches the maintenance page.",
        )
    return given or {}


def _within(name: str, location: Mapping[str, Any], app: str, rolled: Sequence[str]) -> dict[str, Any]:
    """A further location of a site; an upstream that names a service belongs to the stack."""
    upstream = location.get("upstream") or {}
    if "service" not in upstream or "app" in upstream:
        return dict(location)
    if upstream["service"] not in rolled:
        raise InputError(
            f"app_web_services.{name}.site has the location {location.get('path', '/')} with the upstream "
            f"{upstream['service']}, which is none of the services that the proxy knows: {', '.join(rolled)}.",
            fix="Name one of them, or use name for one of nginx_upstreams.",
        )
    return {**location, "upstream": {**upstream, "app": app}}


def _switch(value: Any) -> bool:
    text = str(value).lower()
    if text not in {*_ON, *_OFF}:
        raise InputError(f"app_maintenance is {value!r}.", fix=f"Use on, off, or {KEEP} for as it is.")
    return text in _ON


def _names(service: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(service.get("server_names") or ())


def proxy_checks(rolled: Settings, release: str, http_port: Any = 80, https_port: Any = 443) -> list[dict[str, Any]]:
    """The health_wait checks of a proxy host: each rolled service by its public name, as the proxy itself reaches it.

    With several app hosts the proxy asks them in turn, so that the old release answers now and then; the wait goes on
    until the new one does. Over TLS where the site has it, and then without a look at the certificate: this is about
    the release, may come before the first certificate, and never leaves the host.
    """
    encrypted = {_names(service) for service in rolled.values() if (service.get("site") or {}).get("tls")}
    checks = []
    for name, service in rolled.items():
        server_name = next(iter(service.get("server_names") or ()), "127.0.0.1").replace("*", "any")
        check: dict[str, Any] = {
            "name": f"{name} through the proxy",
            "kind": "http",
            "url": f"http://{server_name}{_port(http_port, 80)}{service['health']['path']}",
            "address": "127.0.0.1",
        }
        if _names(service) in encrypted:
            check |= {
                "url": f"https://{server_name}{_port(https_port, 443)}{service['health']['path']}",
                "validate_certs": False,
            }
        if "expect" in service["health"]:
            check["jmespath"] = service["health"]["expect"]
        if "release" in service["health"]:
            check["release"] = {"field": service["health"]["release"], "equals": release}
        checks.append(check)
    return checks


def _port(port: Any, usual: int) -> str:
    return "" if int(port) == usual else f":{port}"


def upstream_servers(rolled: Sequence[str], endpoints: Settings, which: str, tries: int = 1) -> list[dict[str, Any]]:
    """For each rolled service the addresses of its new or old (*which*) replicas, each *tries* times.

    endpoints: those of compose_rollout or of systemd_release. A process of a unit that ends closes connections that it
    has accepted and not read yet. A proxy then asks the next server, if there is one, and that may be the same socket,
    which systemd holds; each process can do so once.
    """
    return [
        {
            "service": name,
            "servers": tries * [_server(at) for at in endpoints.get(name, {}).get(which, ())],
        }
        for name in rolled
    ]


def _server(at: Mapping[str, Any]) -> str:
    return f"unix:{at['socket']}" if "socket" in at else f"{_bracketed(at['host'])}:{at['port']}"


def release_servers(containers: Sequence[Mapping[str, Any]], rolled: Settings, release: str) -> list[dict[str, Any]]:
    """For each rolled service the addresses of the replicas of *release* that run.

    containers: entries of Docker's GET /containers/json, with Labels and Ports.
    """
    found: dict[str, list[str]] = {name: [] for name in rolled}
    for container in containers:
        labels = container.get("Labels") or {}
        name = labels.get("com.docker.compose.service", "")
        if name not in rolled or labels.get(RELEASE_LABEL) != release:
            continue
        # One that is bound to every address is listed for each family of addresses.
        at = [
            f"{_bracketed(reachable(one.get('IP') or ''))}:{one['PublicPort']}"
            for one in container.get("Ports") or ()
            if "PublicPort" in one and str(one["PrivatePort"]) == str(rolled[name]["port"])
        ]
        found[name] += at[:1]
    return [{"service": name, "servers": sorted(servers)} for name, servers in found.items()]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def hooks(entries: Sequence[Any], when: str) -> list[dict[str, Any]]:
    """app_hooks.<when>, each with its kind (command, service, tasks), command as a list, and a label.

    A plain text is a command on the host. Raises InputError for one that is none of the kinds.
    """
    found = []
    for entry in entries:
        given = {"command": entry} if isinstance(entry, str) else entry
        keys = set(given) if isinstance(given, Mapping) else set()
        kind = next((kind for kind, wanted in _HOOK_KINDS.items() if keys == wanted), None)
        if when not in HOOKS or kind is None:
            raise InputError(
                f"app_hooks.{when} has the entry {entry!r}.",
                fix=f"Give a command, a service with a command, or tasks; and the hooks are {', '.join(HOOKS)}.",
            )
        command = given.get("command", [])
        command = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        found.append({**given, "kind": kind, "command": command, "label": given.get("tasks") or shlex.join(command)})
    return found


def recorded_migrations(databases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What release_store records of the migrations that ran: {"database", "version", "name", "lossy"} for each."""
    return [
        {
            "database": entry["database"],
            "version": str(applied.get("version") or applied.get("revision") or ""),
            "name": str(applied.get("name") or applied.get("message") or ""),
            "lossy": list(applied.get("lossy") or ()),
        }
        for entry in databases
        for applied in entry["applied"]
    ]


def batches(hosts: Sequence[str], serial: Any) -> list[list[str]]:
    """The hosts in the order in which they are deployed: *serial* is a count, a percentage ("50%"), or a list of these.

    The last entry of a list goes for the rest, as with a play's serial. Raises InputError.
    """
    steps = list(serial) if isinstance(serial, list) else [serial]
    left, found = list(hosts), []
    while left:
        step = str(steps.pop(0) if len(steps) > 1 else steps[0])
        try:
            share = float(step.removesuffix("%"))
            size = math.floor(len(hosts) * share / 100) if step.endswith("%") else int(step)
        except ValueError as error:
            raise InputError(
                f"app_serial is {serial!r}.", fix="Give a count such as 1, or a share such as 50%."
            ) from error
        if share <= 0:
            raise InputError(f"app_serial is {serial!r}.", fix="Give a number above 0.")
        found.append(left[: max(size, 1)])
        left = left[max(size, 1) :]
    return found


def env_changes(before: str, after: str) -> list[str]:
    """What differs between two env files, by name; values are never shown, as any of them may be a secret."""
    old, new = raw_values(before), raw_values(after)
    changed = [f"~ {name}" for name in sorted(set(old) & set(new)) if old[name] != new[name]]
    return [
        *(f"+ {name}" for name in sorted(set(new) - set(old))),
        *(f"- {name}" for name in sorted(set(old) - set(new))),
        *changed,
    ]
