# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Pure parts of single kinds of checks, and the examples of the guide."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils import _probe_kinds
from ansible_collections.groundwork.backend.plugins.module_utils._probe_certificate import days_left, issuer_of, matches
from ansible_collections.groundwork.backend.plugins.module_utils._probe_compose import completed_first
from ansible_collections.groundwork.backend.plugins.module_utils._probe_redis import _NotRedis, encode, read_reply


@pytest.mark.parametrize(
    ("name", "pattern", "covered"),
    [
        ("app.example.org", "app.example.org", True), ("APP.example.org.", "app.EXAMPLE.org", True),
        ("a.example.org", "*.example.org", True), ("example.org", "*.example.org", False),
        ("a.b.example.org", "*.example.org", False), ("*.example.org", "*.example.org", False),
        ("127.0.0.1", "127.0.0.1", True), ("::1", "0:0:0:0:0:0:0:1", True), ("127.0.0.1", "127.0.0.2", False),
    ],
)  # fmt: skip
def test_names_of_certificates(name: str, pattern: str, covered: bool) -> None:
    """A star stands for one label; addresses compare by value."""
    assert matches(name, pattern) is covered


def test_certificate_facts() -> None:
    """As ssl.getpeercert() gives them."""
    issuer = ((("organizationName", "Let's Encrypt"),), (("commonName", "R11"),))
    certificate = {"issuer": issuer, "notAfter": "Jan  2 00:00:00 1970 GMT"}
    assert issuer_of(certificate) == "organizationName=Let's Encrypt, commonName=R11"
    assert days_left(certificate, 43200.0) == 0.5


def test_one_shots_by_the_label_of_compose() -> None:
    """The label as Compose 2.26 writes it; an empty one and none at all are fine."""
    labels: list[dict[str, str] | None] = [
        {"com.docker.compose.depends_on": "migrate:service_completed_successfully:false,db:service_healthy:true"},
        {"com.docker.compose.depends_on": ""},
        None,
    ]
    assert completed_first([{"Config": {"Labels": one}} for one in labels]) == {"migrate"}


def test_redis_protocol() -> None:
    """Commands count bytes, not characters; what is no reply is told from silence."""
    assert encode(["AUTH", "ü"]) == b"*2\r\n$4\r\nAUTH\r\n$2\r\n\xc3\xbc\r\n"
    assert read_reply(io.BytesIO(b"+PONG\r\n")) == "+PONG"
    assert read_reply(io.BytesIO(b"-NOAUTH Authentication required.\r\n")).startswith("-NOAUTH")
    assert "\nloading:0\n" in read_reply(io.BytesIO(b"$26\r\n# Persistence\r\nloading:0\r\n\r\n"))
    with pytest.raises(_NotRedis, match="HTTP"):
        read_reply(io.BytesIO(b"HTTP/1.1 400 Bad Request\r\n"))
    with pytest.raises(ConnectionResetError):
        read_reply(io.BytesIO(b""))


def test_the_examples_of_the_guide_are_accepted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check in it; what the host would have to have is not asked for."""
    for name, kind in _probe_kinds.KINDS.items():
        monkeypatch.setitem(_probe_kinds.KINDS, name, dataclasses.replace(kind, prepare=lambda: None))
    blocks = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "health-checks.md").read_text(), re.DOTALL)
    found: list[list[dict[str, Any]]] = []
    for block in map(yaml.safe_load, blocks):
        found.append(block[0]["groundwork.backend.health_wait"]["checks"] if "kind" not in block[0] else block)
    assert len(found) == 8
    for checks in found:
        options = _probe_kinds.check_options()
        _probe_kinds.plan([{**{key: spec.get("default") for key, spec in options.items()}, **one} for one in checks])
