# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The test bed: content hashes of recipes and what they depend on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from groundwork_testbed.machine import extra_certificates, portable_pip_settings
from groundwork_testbed.recipe import HASH_LENGTH, content_hash
from groundwork_testbed.registry import repository
from groundwork_testbed.rootfs import Settings, base_rootfs, host_rootfs
from groundwork_testbed.standins import STANDINS


def settings(pip: str = "", certificates: dict[str, bytes] | None = None) -> Settings:
    made = Settings()
    made.__dict__.update(certificates=certificates or {}, apt=[], pip_conf=pip)
    return made


def test_hash_is_hex_of_fixed_length_and_ignores_order() -> None:
    one = content_hash({"a": "1", "b": b"2"})
    assert re.fullmatch(rf"[0-9a-f]{{{HASH_LENGTH}}}", one)
    assert one == content_hash({"b": "2", "a": b"1"})


@pytest.mark.parametrize(
    "other",
    [{"a": "1"}, {"a": "1", "b": "3"}, {"a": "12", "b": ""}, {"a": "", "b": "12"}, {"ab": "12"}, {"b": "1", "a": "2"}],
)
def test_hash_tells_parts_apart(other: dict[str, str | bytes]) -> None:
    assert content_hash({"a": "1", "b": "2"}) != content_hash(other)


@pytest.mark.parametrize("make", [base_rootfs, host_rootfs])
def test_images_depend_on_the_suite_and_the_machine(make: object) -> None:
    assert callable(make)
    plain = make("debian13").recipe(settings())
    assert plain == make("debian13").recipe(settings())
    assert plain != make("debian12").recipe(settings())
    assert plain != make("debian13").recipe(settings(pip="[global]\n"))
    assert plain != make("debian13").recipe(settings(certificates={"a.crt": b"x"}))


@pytest.mark.parametrize("name", sorted(STANDINS))
def test_standin_depends_on_its_recipe_and_its_base(name: str) -> None:
    standin = STANDINS[name]
    plain = standin.recipe(settings())
    assert standin.name == name
    assert plain == replace(standin).recipe(settings())
    assert plain != replace(standin, dockerfile=standin.dockerfile + "USER nobody\n").recipe(settings())
    assert plain != replace(standin, inputs="other").recipe(settings())
    assert plain != standin.recipe(settings(certificates={"a.crt": b"x"}))
    assert standin.tag(settings()).endswith(f":{plain}")


@pytest.mark.parametrize("name", sorted(STANDINS))
def test_standins_say_in_name_and_label_that_they_are_one(name: str) -> None:
    standin = STANDINS[name]
    assert standin.tag(settings()).startswith("groundwork-testbed/standin-")
    label = f'LABEL org.groundwork.testbed.stand-in="In place of {name}, and NOT the official image.'
    assert standin.lines.startswith(standin.dockerfile)
    assert standin.lines.removeprefix(standin.dockerfile).startswith(label)


def test_hosts_have_nothing_that_a_bare_debian_does_not_have() -> None:
    for os_name in ("debian12", "debian13"):
        assert not {"docker.io", "rsync", "iptables", "curl", "git"} & set(host_rootfs(os_name).packages)


def test_a_ready_host_is_the_bare_one_and_what_the_roles_install() -> None:
    bare, ready = host_rootfs("debian13"), host_rootfs("debian13-docker")
    assert set(bare.packages) < set(ready.packages)
    assert {"docker.io", "docker-compose", "docker-buildx", "rsync", "python3-psycopg"} <= set(ready.packages)
    assert ready.customize.startswith(bare.customize)
    assert ready.recipe(settings()) != bare.recipe(settings())
    assert ready.tag(settings()).startswith("groundwork-testbed/host-debian13-docker:")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python:3.11-slim", ("library/python", "3.11-slim")),
        ("pgvector/pgvector:pg16", ("pgvector/pgvector", "pg16")),
        ("redis", ("library/redis", "latest")),
    ],
)
def test_repository(name: str, expected: tuple[str, str]) -> None:
    assert repository(name) == expected


@pytest.mark.parametrize(
    ("listing", "certificates", "expected"),
    [
        ("", False, ""),
        ("", True, "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"),
        (":env:.find-links='/opt/wheels'\nglobal.cert='/some/where.pem'\n", False, ""),
        (":env:.default-timeout='180'\n", False, "[global]\ntimeout = 180\n"),
        (
            "global.index-url='https://mirror.example/simple'\nglobal.extra-index-url='file:///srv/wheels'\n",
            False,
            "[global]\nindex-url = https://mirror.example/simple\n",
        ),
        ("global.timeout='5'\n:env:.timeout='9'\n", False, "[global]\ntimeout = 9\n"),
        (
            "global.trusted-host='a.example\\nb.example'\n",
            False,
            "[global]\ntrusted-host = a.example\n    b.example\n",
        ),
    ],
)
def test_pip_settings_that_travel(listing: str, certificates: bool, expected: str) -> None:
    assert portable_pip_settings(listing, with_certificates=certificates) == expected


def test_certificates_are_found_in_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "one.crt").write_bytes(b"1")
    (tmp_path / "sub dir" / "two.crt").write_bytes(b"2")
    (tmp_path / "readme.txt").write_bytes(b"3")
    assert extra_certificates(tmp_path) == {"one.crt": b"1", "sub_dir_two.crt": b"2"}
    assert extra_certificates(tmp_path / "none") == {}
