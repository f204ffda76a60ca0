# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The compose model, its checks and the production override."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    Model,
    Port,
    Service,
    Settings,
    from_config,
    problems,
    settings_from,
)
from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import parse_port, read_compose_files
from ansible_collections.groundwork.backend.plugins.module_utils._compose_mounts import digest, mounted_paths
from ansible_collections.groundwork.backend.plugins.module_utils._compose_override import (
    endpoints,
    production_override,
    recorded_mounts,
    released_with,
    render_override,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

# Recorded from docker compose config --format json (2.26.1), shortened.
CONFIG: dict[str, Any] = {
    "name": "verisphere",
    "services": {
        "postgres": {
            "image": "pgvector/pgvector:pg16",
            "container_name": "verisphere_postgres",
            "restart": "unless-stopped",
            "ports": [{"mode": "ingress", "target": 5432, "published": "5432", "protocol": "tcp"}],
        },
        "web": {
            "build": {"context": "/srv/x", "dockerfile": "Dockerfile"},
            "container_name": "verisphere_web",
            "ports": [
                {"mode": "ingress", "target": 8081, "published": "8081", "protocol": "tcp"},
                {"mode": "ingress", "host_ip": "127.0.0.1", "target": 9000, "published": "9000", "protocol": "tcp"},
            ],
        },
        "worker": {"image": "x", "logging": {"driver": "journald"}},
    },
}
SETTINGS = Settings(web_services={"web": 8081})


class Loader(yaml.SafeLoader):
    """Reads compose's merge tags as (tag, value)."""


def _tagged(loader: Loader, suffix: str, node: yaml.Node) -> tuple[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return suffix, loader.construct_sequence(node, deep=True)
    return suffix, None


Loader.add_multi_constructor("!", _tagged)


def override_of(settings: Settings, **arguments: Any) -> dict[str, Any]:
    override = production_override(from_config(CONFIG), settings, project="v", release="abc", **arguments)
    services: dict[str, Any] = yaml.load(render_override(override), Loader=Loader)["services"]  # noqa: S506
    return services


def test_every_published_port_is_bound_to_loopback() -> None:
    services = override_of(SETTINGS)
    for name in ("postgres", "web"):
        tag, ports = services[name]["ports"]
        assert tag == "override"
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert services["postgres"]["ports"][1][0]["published"] == "5432"


def test_a_public_port_stays_public_and_the_others_do_not() -> None:
    services = override_of(Settings(web_services={"web": 8081}, public_ports={"web": [8081]}))
    public, private = services["web"]["ports"][1]
    assert "host_ip" not in public
    assert private["host_ip"] == "127.0.0.1"


def test_an_address_that_the_user_chose_is_kept() -> None:
    model = Model({"a": Service("a", (Port(80, "80", "10.0.0.5"),))})
    override = production_override(model, Settings(), project="v", release="r")
    assert override["a"]["ports"].value[0]["host_ip"] == "10.0.0.5"
    assert endpoints(model) == {"a": {"80": {"host": "10.0.0.5", "port": 80}}}


def test_web_services_can_have_a_second_replica_and_know_their_release() -> None:
    web = override_of(SETTINGS)["web"]
    assert web["container_name"] == ("reset", None)
    assert web["environment"] == {"APP_RELEASE": "abc"}
    assert web["labels"] == {"org.groundwork.release": "abc"}
    assert web["image"] == "v/web:abc"
    assert web["restart"] == "unless-stopped"


ROLLED = {"web": {"8081": [20000, 20001], "9000": [20002, 20003]}}


def test_the_ports_of_a_rolled_service_are_those_that_it_was_given() -> None:
    settings = Settings(web_services={"web": 8081}, rolled_services=["web"])
    services = override_of(settings, rolled=ROLLED, bind_address="10.0.0.5")
    _tag, ports = services["web"]["ports"]
    told = [(port["target"], port["published"], port["host_ip"]) for port in ports]
    assert told == [(8081, "20000-20001", "10.0.0.5"), (9000, "20002-20003", "10.0.0.5")]
    at = endpoints(from_config(CONFIG), ROLLED, "10.0.0.5")
    assert at["web"] == {"8081": {"host": "10.0.0.5", "port": 20000}, "9000": {"host": "10.0.0.5", "port": 20002}}
    assert at["postgres"] == {"5432": {"host": "127.0.0.1", "port": 5432}}


def test_a_rolled_service_may_leave_its_port_to_the_engine() -> None:
    model = Model({"web": Service("web", (Port(80),))})
    assert problems(model, Settings(web_services={"web": 80}, rolled_services=["web"])) == []


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (Service("web", network_mode="host"), "it has network_mode: host"),
        (Service("web"), "it publishes no port"),
        (Service("web", (Port(80, "80"),), fixed_address=True), "an address of its own"),
        (Service("web", (Port(80, "80"),), replicas=0), "its number of replicas is 0"),
    ],
)
def test_services_that_cannot_be_rolled(service: Service, words: str) -> None:
    [sentence] = problems(Model({"web": service}), Settings(rolled_services=["web"]))
    assert words in sentence
    assert "app_services.web.rollout" in sentence


def test_a_rolled_service_has_no_public_port() -> None:
    settings = Settings(public_ports={"web": [80]}, rolled_services=["web"])
    [sentence] = problems(Model({"web": Service("web", (Port(80, "80"),))}), settings)
    assert "app_public_ports lists it" in sentence


def test_networks_of_compose_files_that_keep_a_service_from_rolling(tmp_path: Path) -> None:
    text = """
        services:
          a: {network_mode: "service:b"}
          b: {networks: {inner: {ipv4_address: 10.9.0.2}}}
          c: {networks: [inner]}
          d: {networks: {inner: }}
          e: {network_mode: "${MODE:-host}"}
        """
    model, _needed = read_compose_files(tmp_path, [write(tmp_path, text)])
    assert model.services["a"].network_mode == "service:b"
    assert model.services["e"].network_mode == ""
    assert [name for name, service in model.services.items() if service.fixed_address] == ["b"]


def test_stores_are_left_alone_so_that_a_release_does_not_restart_them() -> None:
    assert set(override_of(SETTINGS)["postgres"]) == {"ports"}


def test_logging_is_set_only_where_nothing_is_set() -> None:
    services = override_of(SETTINGS, logging={"driver": "local"})
    assert services["postgres"]["logging"] == {"driver": "local"}
    assert "worker" not in services


def test_no_services_is_valid_yaml() -> None:
    assert yaml.safe_load(render_override({})) == {"services": {}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(web_services={"wep": 8081}), ["app_web_services.wep", "postgres, web, worker"]),
        (Settings(web_services={"web": 80}), ["app_web_services.web.port is 80", "8081, 9000"]),
        (Settings(public_ports={"web": [1]}), ["app_public_ports.web is 1", "8081"]),
        (Settings(required_services={"app_store_services: db": "db"}), ["app_store_services: db", "app_compose_files"]),
        (
            Settings(required_ports={"app_migrations[0]": {"service": "db", "port": 5432}}),
            ["app_migrations[0].service names the service 'db'"],
        ),
        (
            Settings(required_ports={"app_migrations[0]": {"service": "postgres", "port": 5433}}),
            ["app_migrations[0].port is 5433", "container ports: 5432"],
        ),
    ],
)
def test_problems_name_the_variable_what_was_found_and_the_fix(settings: Settings, words: list[str]) -> None:
    [sentence] = problems(from_config(CONFIG), settings)
    assert all(word in sentence for word in words)


def test_a_web_service_on_a_random_port_is_refused() -> None:
    model = Model({"web": Service("web", (Port(80),))})
    assert "80:80" in problems(model, SETTINGS.__class__(web_services={"web": 80}))[0]


def test_an_incomplete_model_does_not_complain_of_services_it_cannot_see() -> None:
    assert problems(Model({}, complete=False), SETTINGS) == []


@pytest.mark.parametrize("port", ["x", 0, 70000, None])
def test_a_port_that_is_none_is_named(port: object) -> None:
    with pytest.raises(InputError, match=r"app_web_services\.web\.port"):
        settings_from(
            {"web_services": {"web": port}, "public_ports": {}, "required_services": {}, "required_ports": {}}
        )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("8081", [Port(8081)]),
        (8081, [Port(8081)]),
        ("80:8081", [Port(8081, "80")]),
        ("127.0.0.1:80:8081/udp", [Port(8081, "80", "127.0.0.1", "udp")]),
        ("${P:-80}:8081", [Port(8081, "80")]),
        ("${P}:8081", [Port(8081, "unknown")]),
        ("${P}:${P}", [Port(0, "unknown")]),
        ({"target": "${P}", "published": "1"}, [Port(0, "1")]),
        ("3000-3001:3000-3001", [Port(3000, "3000-3001"), Port(3001, "3000-3001")]),
        ({"target": 80, "published": "8080"}, [Port(80, "8080")]),
    ],
)
def test_ports_of_compose_files(entry: object, expected: list[Port]) -> None:
    assert parse_port("web", entry) == expected


def test_a_port_in_a_variable_is_left_to_the_hosts_compose() -> None:
    model = Model({"web": Service("web", (Port(0, "unknown"),))})
    assert problems(model, Settings(web_services={"web": 80})) == []


def test_a_single_public_port_needs_no_list() -> None:
    asked = {"web_services": {}, "public_ports": {"web": 443}, "required_services": {}, "required_ports": {}}
    assert settings_from({**asked, "rolled_services": []}).public_ports == {"web": [443]}


def test_what_the_inventory_names_is_restarted_and_one_shots_are_not() -> None:
    model = Model({name: Service(name) for name in ("db", "direct", "seed")})
    settings = Settings(required_services={"app_store_services: db": "db"}, public_ports={"direct": [8000]})
    override = production_override(model, settings, project="v", release="r")
    assert override == {name: {"restart": "unless-stopped"} for name in ("db", "direct")}


def test_a_bad_port_is_named() -> None:
    with pytest.raises(InputError, match="'web'"):
        parse_port("web", "80:http")


def write(folder: Path, text: str, name: str = "compose.yml") -> str:
    (folder / name).write_text(text)
    return name


def test_files_are_layered_and_needed_variables_found(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        """
        services:
          web:
            build: .
            ports: ["${WEB_PORT:-80}:80"]
            environment: {A: "${NEEDED}", B: "${WITH_DEFAULT:-x}", C: "$$NOT_ONE", D: "$BARE", E: "${MUST:?text}"}
            # ${COMMENTED}
        """,
    )
    second = write(
        tmp_path,
        """
        x-common: &common {image: x, ports: [2222:22]}
        services: {web: {ports: !override ["81:81"]}, db: {<<: *common}, none: {ports: !reset null}}
        """,
        "second.yml",
    )
    model, needed = read_compose_files(tmp_path, [first, second])
    assert set(model.services) == {"web", "db", "none"}
    assert model.services["db"].ports == (Port(22, "2222"),)
    assert {port.target for port in model.services["web"].ports} == {80, 81}
    assert model.services["web"].built
    assert needed == {"NEEDED", "BARE", "MUST"}


@pytest.mark.parametrize("text", ["include: [other.yml]", "services: {a: {extends: {file: x, service: a}}}"])
def test_include_and_extends_make_the_model_incomplete(tmp_path: Path, text: str) -> None:
    model, _needed = read_compose_files(tmp_path, [write(tmp_path, text)])
    assert not model.complete
    assert not [one for one in problems(model, Settings(web_services={"a": 80})) if "'a' publishes" in one]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "not valid YAML"), ("- a", "no mapping"), ("services: {a: 5}", "'a'")],
)
def test_files_that_are_not_compose_files(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_compose_files(tmp_path, [write(tmp_path, text)])


def test_a_missing_file_is_named_with_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"app_compose_files names nope\.yml"):
        read_compose_files(tmp_path, ["nope.yml"])


def test_what_a_service_mounts_of_the_release(tmp_path: Path) -> None:
    config = {
        "services": {
            "a": {
                "volumes": [
                    {"type": "bind", "source": f"{tmp_path}/a.conf", "target": "/a.conf"},
                    {"type": "bind", "source": f"{tmp_path}/init", "target": "/docker-entrypoint-initdb.d"},
                    {"type": "bind", "source": "/var/run/docker.sock", "target": "/sock"},
                    {"type": "volume", "source": "data", "target": "/data"},
                ],
                "configs": [{"source": "c", "target": "/c"}, {"source": "inline"}],
                "secrets": [{"source": "s"}],
            },
            "b": {},
        },
        "configs": {"c": {"file": f"{tmp_path}/c"}, "inline": {"content": "x"}},
        "secrets": {"s": {"file": f"{tmp_path}/s"}},
    }
    found = {"/a.conf": tmp_path / "a.conf", "configs//c": tmp_path / "c", "secrets/s": tmp_path / "s"}
    assert mounted_paths(config, "a", tmp_path) == found
    assert digest(mounted_paths(config, "b", tmp_path), "v") == ""


@pytest.mark.parametrize("change", ["content", "name", "link", "target", "gone"])
def test_the_digest_of_mounts_changes_with_what_the_service_sees(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "conf"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.conf").write_text("a")
    (folder / "link").symlink_to("deep")
    before = digest({"/conf": folder}, "v")
    assert digest({"/conf": folder}, "v") == before
    assert len(before) == 12
    match change:
        case "content":
            (folder / "deep" / "a.conf").write_text("b")
        case "name":
            (folder / "deep" / "a.conf").rename(folder / "deep" / "b.conf")
        case "link":
            (folder / "link").unlink()
            (folder / "link").symlink_to("..")
        case "gone":
            (folder / "deep" / "a.conf").unlink()
    assert digest({"/other" if change == "target" else "/conf": folder}, "v") != before


def test_the_digest_of_mounts_is_a_label_that_is_read_again() -> None:
    """Not of what is built, which every release recreates, and not of stores, which no mounted file interrupts."""
    model = from_config(CONFIG)
    settings = Settings(web_services={"web": 8081}, required_services={"app_store_services": "postgres"})
    assert released_with(model, settings) == ["worker"]
    override = production_override(
        model, settings, project="v", release="abc", mounts={"worker": "0123", "web": "4567", "postgres": ""}
    )
    text = render_override(override)
    assert recorded_mounts(text) == {"worker": "0123"}
    assert "4567" not in text
    assert recorded_mounts("") == {}
