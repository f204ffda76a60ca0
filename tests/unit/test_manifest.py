# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Manifests: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._manifest import (
    Component,
    Manifest,
    _checksum,
    check_name,
    read_manifest,
    write_manifest,
)
from ansible_collections.groundwork.backend.plugins.module_utils._sets import new_id, parse_id
from ansible_collections.groundwork.backend.plugins.module_utils._version import COLLECTION_VERSION

COMPONENT: dict[str, Any] = {
    "engine": "postgres",
    "name": "claims",
    "database": "claims",
    "files": [
        {"name": "database.dump", "bytes": 10, "sha256": "a" * 64},
        {"name": "parts/é 1", "bytes": 0, "sha256": "b" * 64},
    ],
    "started_at": "2026-11-21T06:12:00Z",
    "seconds": 1.25,
    "counts": {"public.claims": 3},
}


PROVEN = {"at": "2026-12-01T04:00:00Z", "seconds": 71.5, "host": "db1", "components": {"claims": {"rows": 3}}}


def manifest() -> Manifest:
    return Manifest(
        id="20261121T061200Z",
        stack="verisphere",
        created_at="2026-11-21T06:12:00Z",
        seconds=3,
        release=None,
        hosts=("db1",),
        schema_versions={"claims": 7},
        components=(Component.from_dict(COMPONENT),),
    )


def changed(**fields: Any) -> dict[str, Any]:
    """A manifest with other fields whose checksum is right."""
    value = {**manifest().to_dict(), **fields}
    del value["checksum"]
    return {**value, "checksum": _checksum(value)}


def test_the_version_is_that_of_galaxy_yml(root: Path) -> None:
    assert yaml.safe_load((root / "galaxy.yml").read_text())["version"] == COLLECTION_VERSION


def test_round_trip_through_a_private_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()
    assert read_manifest(tmp_path).total_bytes == 10
    assert stat.S_IMODE((tmp_path / "manifest.json").stat().st_mode) == 0o600


def test_a_proof_belongs_to_the_manifest_and_to_its_checksum(tmp_path: Path) -> None:
    assert "proven" not in manifest().to_dict()
    proven = replace(manifest(), proven=PROVEN)
    write_manifest(tmp_path, proven)
    assert read_manifest(tmp_path) == proven
    assert proven.to_dict() == changed(proven=PROVEN)
    assert proven.to_dict()["checksum"] != manifest().to_dict()["checksum"]


def test_a_component_keeps_what_only_its_engine_knows() -> None:
    component = Component.from_dict(COMPONENT)
    assert component.to_dict() == COMPONENT
    assert component.facts == {"database": "claims", "counts": {"public.claims": 3}}
    assert [path for path, _ in component.paths()] == [
        "components/claims/database.dump",
        "components/claims/parts/é 1",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": ""}, "cannot name a folder"),
        ({"name": "a/b"}, "cannot name a folder"),
        ({"name": 3}, "the field 'name' has the unusable value 3"),
        ({"files": []}, "lists no file"),
        ({"files": COMPONENT["files"][:1] * 2}, "lists a file twice"),
        ({"files": ["x"]}, "A file of Component 'claims' is a dictionary, found str"),
        ({"files": [{"name": "a", "bytes": 1}]}, "has no field 'sha256'"),
        ({"files": [{"name": "a", "bytes": None, "sha256": None}]}, "the field 'bytes' has the unusable value None"),
        ({"files": [{"name": "a", "bytes": True, "sha256": "a" * 64}]}, "the unusable value True"),
        ({"files": [{"name": "a", "bytes": -1, "sha256": "a" * 64}]}, "something else than name, bytes and sha256"),
        ({"files": [{"name": "a", "bytes": 1, "sha256": "A" * 64}]}, "something else than name, bytes and sha256"),
        ({"files": [{"name": "../a", "bytes": 1, "sha256": "a" * 64}]}, "no path inside its folder"),
        ({"files": [{"name": "/a", "bytes": 1, "sha256": "a" * 64}]}, "no path inside its folder"),
        ({"seconds": "1"}, "the field 'seconds' has the unusable value '1'"),
    ],
)
def test_components_that_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Component.from_dict({**COMPONENT, **change})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "A manifest is a dictionary, found list"),
        ({}, "has no field 'schema_version'"),
        ({"schema_version": 2}, f"has format 2; collection {COLLECTION_VERSION} reads 1. Use the version of the"),
        ({**manifest().to_dict(), "seconds": 4}, "its checksum does not match"),
        ({**manifest().to_dict(), "extra": 4}, "its checksum does not match"),
        (changed(total_bytes=11), "do not belong to format 1"),
        (changed(extra=1), "do not belong to format 1"),
        (changed(release=5), "the field 'release' has the unusable value 5"),
        (changed(components=[{}]), "A component has no field 'name'"),
        (changed(proven=None), "The manifest's proof is a dictionary, found NoneType"),
        (changed(proven={}), "The manifest's proof has no field 'at'"),
        (changed(proven={**PROVEN, "seconds": "1"}), "the field 'seconds' has the unusable value '1'"),
        (changed(proven={**PROVEN, "by": "me"}), "The manifest's proof does not belong to its components"),
        (changed(proven={**PROVEN, "components": {}}), "The manifest's proof does not belong to its components"),
        ({**changed(proven=PROVEN), "proven": {**PROVEN, "seconds": 1}}, "its checksum does not match"),
    ],
)
def test_manifests_that_are_refused(value: Any, sentence: str) -> None:
    with pytest.raises(StateError) as caught:
        Manifest.from_dict(value)
    assert sentence in str(caught.value)


def test_every_changed_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    """Whatever one digit or letter becomes: refused, or the same manifest."""
    write_manifest(tmp_path, manifest())
    path = tmp_path / "manifest.json"
    original = path.read_bytes()
    for position, byte in enumerate(original):
        if chr(byte).isalnum():
            path.write_bytes(original[:position] + (b"7" if byte != ord("7") else b"8") + original[position + 1 :])
            with pytest.raises(StateError):
                read_manifest(tmp_path)


def test_an_absent_manifest_and_one_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        read_manifest(tmp_path)
    for text in (b"{", b"\xff", json.dumps([]).encode()):
        (tmp_path / "manifest.json").write_bytes(text)
        with pytest.raises(StateError):
            read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["app", "app-test", "_x", "a.b", "0"])
def test_names(name: str) -> None:
    assert check_name(name, "It") == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a b", "a/b", "a\n", "é", "a" * 129])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name, "It")


def test_ids() -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert new_id([], now) == "20261231T235959Z"
    assert new_id(["20261231T235959Z", "20270101T000000Z"], now) == "20270101T000001Z"
    assert parse_id("20261231T235959Z") == now


@pytest.mark.parametrize("text", ["", "20261231", "20261331T000000Z", "2026123T0235959Z", "20261231T235959Z\n", "x"])
def test_ids_that_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_id(text)
