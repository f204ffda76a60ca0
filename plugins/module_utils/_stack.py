# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the playbooks derive from a stack's settings and containers; pure, behind the filters of the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._compose import LOOPBACK, RELEASE_LABEL, reachable

POSTGRES_PORT = 5432
_SERVICE_LABEL = "com.docker.compose.service"
_ONE_OFF_LABEL = "com.docker.compose.oneoff"
Endpoints = Mapping[str, Mapping[str, Mapping[str, Any]]]


def container_endpoints(containers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """service -> container port (as text) -> {"host", "port"}, of running containers.

    containers: entries of Docker's GET /containers/json, with Labels and Ports.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for container in containers:
        service = found.setdefault((container.get("Labels") or {}).get(_SERVICE_LABEL, ""), {})
        for port in container.get("Ports") or ():
            if "PublicPort" in port:
                service[str(port["PrivatePort"])] = {
                    "host": reachable(port.get("IP") or ""),
                    "port": port["PublicPort"],
                }
    return found


def writers(
    containers: Sequence[Mapping[str, Any]],
    stores: Sequence[str],
    one_shots: Sequence[str],
    release: str,
    services: Sequence[str],
) -> dict[str, list[str]]:
    """The containers that are no stores: names of those that run, and of the release's own that do not.

    Of these, "needed" has those of *services*, which a deploy starts.

    containers: entries of GET /containers/json. What compose ran once (compose run) may write as well, and so may
    replicas of an earlier release; both are among the running ones and never among those to start.
    """
    found: dict[str, list[str]] = {"running": [], "stopped": [], "needed": []}
    for container in containers:
        labels = container.get("Labels") or {}
        service, name = labels.get(_SERVICE_LABEL, ""), container["Names"][0].lstrip("/")
        if service in stores:
            continue
        if container["State"] in ("running", "restarting", "paused"):
            found["running"].append(name)
        elif (
            labels.get(_ONE_OFF_LABEL, "False") != "True"
            and service not in one_shots
            and labels.get(RELEASE_LABEL, release) == release
        ):
            found["stopped"].append(name)
            if service in services:
                found["needed"].append(name)
    return {kind: sorted(names) for kind, names in found.items()}


def orphans(containers: Sequence[Mapping[str, Any]], services: Sequence[str]) -> list[Mapping[str, Any]]:
    """The containers of a project whose service is none of *services*, without those that were run once.

    containers: entries of GET /containers/json, of one compose project. Without a service to go by, none is one.
    """
    found: list[Mapping[str, Any]] = []
    if not services:
        return found
    for container in containers:
        labels = container.get("Labels") or {}
        service = labels.get(_SERVICE_LABEL, "")
        if service and service not in services and labels.get(_ONE_OFF_LABEL, "False") != "True":
            found.append(container)
    return sorted(found, key=lambda container: str(container["Names"][0]))


def web_checks(
    services: Mapping[str, Mapping[str, Any]], endpoints: Endpoints, project: str, release: str = ""
) -> list[dict[str, Any]]:
    """The health_wait checks of app_web_services: each service's health path at its endpoint, and that it is *release*.

    A service that does not run is checked where nothing answers.
    """
    checks: list[dict[str, Any]] = []
    for name, service in services.items():
        health = service["health"]
        at = _endpoint(endpoints, name, str(service["port"]))
        check: dict[str, Any] = {
            "name": name,
            "kind": "http",
            "url": f"http://{at['host']}:{at['port']}{health['path']}",
            "log_container": {"project": project, "service": name},
        }
        if "expect" in health:
            check["jmespath"] = health["expect"]
        if release and "release" in health:
            check["release"] = {"field": health["release"], "equals": release}
        checks.append(check)
    return checks


def migration_ports(migrations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The ports that app_migrations needs published, under the names of its entries, for Settings.required_ports."""
    return {
        f"app_migrations[{index}]": {"service": migration["service"], "port": migration.get("port") or POSTGRES_PORT}
        for index, migration in enumerate(migrations)
    }


def store_checks(
    services: Sequence[str], migrations: Sequence[Mapping[str, Any]], endpoints: Endpoints, project: str
) -> list[dict[str, Any]]:
    """The health_wait checks of app_store_services: each container, and a real login for each database to migrate.

    A container's own check is not enough: pg_isready over the socket says ready while the image is still initialising.
    By the time the server listens on TCP, its image has made users and databases: a refused login stays refused.
    """
    checks: list[dict[str, Any]] = [{"kind": "container", "project": project, "service": name} for name in services]
    for migration in migrations:
        service, port = migration["service"], str(migration.get("port") or POSTGRES_PORT)
        at = _endpoint(endpoints, service, port)
        checks.append(
            {
                "name": f"database {migration['database']}",
                "kind": "postgres",
                "login_host": at["host"],
                "login_port": at["port"],
                "login_user": migration["user"],
                "login_password": migration["password"],
                "database": migration["database"],
                "fail_fast": True,
                "log_container": {"project": project, "service": service},
            }
        )
    return checks


def mongo_checks(stores: Sequence[Mapping[str, Any]], components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The health_wait checks of MongoDB servers: a real login for each of *stores*, entries without their passwords.

    The passwords are those that *components*, the entries of the inventory, have under the same names. A server that is
    not up yet refuses a login that it takes later: it is asked again.
    """
    passwords = {component["name"]: component.get("password") for component in components}
    keys = {"host": "login_host", "port": "login_port", "tls": "tls", "ca_cert": "ca_cert"}
    checks: list[dict[str, Any]] = []
    for store in stores:
        check: dict[str, Any] = {"name": f"database {store['database']}", "kind": "mongo"}
        check |= {option: store[key] for key, option in keys.items() if key in store}
        if "user" in store:
            check |= {
                "login_user": store["user"],
                "login_password": passwords.get(store["name"]),
                "database": store.get("auth_source", store["database"]),
            }
        checks.append(check)
    return checks


def _endpoint(endpoints: Endpoints, service: str, port: str) -> Mapping[str, Any]:
    """Where a port answers; for one that is not published, or does not run, a port where nothing answers."""
    return endpoints.get(service, {}).get(port, {"host": LOOPBACK, "port": 1})


def status_table(
    containers: Sequence[Mapping[str, Any]],
    checks: Mapping[str, Mapping[str, Any]],
    schemas: Sequence[Mapping[str, Any]],
    sets: Mapping[str, Any],
    release: str,
    *,
    lock: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    units: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """The lines of status.yml: release, services, health, schema versions, newest backup set, deploy lock, audit log.

    schemas: results of pgvector_migrate in check mode, each with its inventory entry under "item".
    sets:    result of backup_set with action=list.
    lock:    result of deploy_lock in check mode; log: entries of deploy_log; units: services of systemd_release.
    """
    rows = [("what", "name", "state"), ("release", "current", release)]
    for container in containers:
        rows.append(("service", container["Labels"][_SERVICE_LABEL], container["Status"]))
    for unit in units:
        of = f", release {_release_in(unit['directory'])}" if unit["directory"] else ""
        rows.append(("service", unit["name"], f"{unit['state']}{of}, since {unit['since']}"))
    for name, check in checks.items():
        error = f": {check['last_error']}" if check["state"] != "ok" and check.get("last_error") else ""
        rows.append(("health", name, f"{check['state']}{error}"))
    for schema in schemas:
        rows.append(("schema", schema["item"]["database"], _schema_state(schema)))
    rows += _backup_rows(sets)
    for damaged in sets.get("damaged") or ():
        rows.append(("backup", damaged["id"], f"damaged: {damaged['reason']}"))
    rows.append(("deploy", "lock", "free" if lock["verdict"] == "free" else lock["summary"]))
    for entry in log:
        told = " ".join(str(entry[key]) for key in ("step", "result", "release", "user") if entry.get(key))
        rows.append(("deploy", entry["time"], f"{told}: {entry['note']}" if entry.get("note") else told))
    return _table(rows)


def _release_in(folder: str) -> str:
    """The id of the release that a working directory belongs to."""
    _, _, below = folder.partition("/releases/")
    return below.partition("/")[0] or "unknown"


def _backup_rows(sets: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The newest set with its age, and the newest one of which a drill has proven that it restores."""
    usable = sets.get("sets") or ()
    if not usable:
        return [("backup", "newest", "none")]
    newest = next((one for one in usable if one["id"] == sets["latest"]), usable[0])
    told = f"{newest['id']} of {sets['count']}, {_size(newest['bytes'])}"
    if (age := newest.get("age_seconds")) is not None:
        told += f", {_age(age)} old"
    rows = [("backup", "newest", told), *_store_rows(sets.get("newest") or {})]
    proven = next((one for one in usable if one.get("proven")), None)
    if proven is None:
        return [*rows, ("backup", "proven to restore", "none: run drill.yml")]
    proof = proven["proven"]
    told = f"{proven['id']} at {proof['at']} in {float(proof['seconds']):.1f} s"
    return [*rows, ("backup", "proven to restore", told)]


def _store_rows(newest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the newest set holds of MongoDB, where it depends on the server whether that is of one moment."""
    rows = []
    for component in newest.get("components") or ():
        if component["engine"] == "mongo":
            counts = component.get("counts") or {}
            moment = "" if component.get("consistent") else ", not of one moment"
            told = f"{len(counts)} collections, {sum(counts.values())} documents{moment}"
            rows.append(("backup", component["name"], told))
    return rows


def _size(count: int) -> str:
    """Bytes in the unit in which they have at most four digits."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}" if units[0] != "bytes" else f"{count} bytes"


def _age(seconds: float) -> str:
    """Seconds as people say them; a set from the future has its clock to blame."""
    if seconds < 0:
        return "less than 0 s (the clock of the host goes wrong)"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def release_table(releases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of releases.yml, newest deploy first, from release_store with action=list."""
    rows = [("release", "deployed at", "by", "result", "schema", "")]
    for one in releases:
        schema = ", ".join(f"{name} {version}" for name, version in (one.get("schema_versions") or {}).items())
        notes = ["current"] if one["current"] else []
        if not one["complete"]:
            notes.append(f"incomplete: {', '.join(one['missing'])}")
        lossy = [m["version"] for m in one.get("migrations") or () if m["lossy"]]
        if lossy:
            notes.append(f"lost something: {', '.join(lossy)}")
        told = [one.get(key) or "-" for key in ("deployed_at", "by", "result")]
        rows.append((one["id"], *told, schema or "-", "; ".join(notes)))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns of equal width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _schema_state(schema: Mapping[str, Any]) -> str:
    if schema.get("failed") or "schema_version" not in schema:
        return str(schema.get("msg", "unknown"))
    pending = len(schema.get("pending") or ())
    return f"{schema['schema_version'] or 'none'}{f', {pending} pending' if pending else ''}"
