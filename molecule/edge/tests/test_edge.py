# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a host outside sees of the server: ports, certificates, protocols, limits."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import LOCAL, NAME, SERVER, SERVER_SIX, UNLISTED, Edge
from support.scenario import Playbook

ASKED = [22, 80, 443, 8000, 9001, UNLISTED, LOCAL, 20000]
LIVE = "/etc/groundwork/tls/edge/fullchain.pem"
OPEN = {(address, port) for address in (SERVER, SERVER_SIX) for port in (22, 80, 443, 9001)}


def test_the_stack_answers_over_tls_with_a_certificate_of_the_acme_server(edge: Edge) -> None:
    told: dict[str, Any] = json.loads(edge.curl(f"https://{NAME}/health"))
    assert told["ok"] is True
    assert told["X-Forwarded-Proto"] == "https"
    assert told["X-Forwarded-For"] == "198.18.0.124"
    assert json.loads(edge.curl(f"https://www.{NAME}/health"))["Host"] == f"www.{NAME}"


def test_http_is_sent_on_to_https(edge: Edge) -> None:
    answer = edge.curl(f"http://{NAME}/some/path?x=1", "--include")
    assert answer.startswith("HTTP/1.1 308 "), answer
    assert f"location: https://{NAME}/some/path?x=1" in answer.replace("Location", "location").replace("\r", "")


def test_headers_and_http_2(edge: Edge) -> None:
    answer = edge.curl(f"https://{NAME}/health", "--include", "--http2").lower()
    assert answer.startswith("http/2 200"), answer
    for header in ("strict-transport-security: max-age=300", "x-content-type-options: nosniff", "x-request-id: "):
        assert header in answer


@pytest.mark.parametrize(
    ("options", "works"),
    [
        (("-tls1_3",), True),
        (("-tls1_2",), True),
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), False),
        (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), False),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), False),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0"), False),
        (("-tls1_2", "-cipher", "aRSA:@SECLEVEL=0"), False),
    ],
)
def test_protocols_and_ciphers(edge: Edge, options: tuple[str, ...], works: bool) -> None:
    rc, told = edge.tls(*options)
    assert (rc == 0) is works, told
    assert ("BEGIN CERTIFICATE" in told) is works, told


def test_unknown_names_get_nothing(edge: Edge) -> None:
    rc, told = edge.tls(name="unknown.example.org")
    assert rc != 0
    assert "BEGIN CERTIFICATE" not in told
    assert "Empty reply from server" in edge.curl(f"http://{SERVER}/")


def test_who_asks_too_often_gets_429(edge: Edge) -> None:
    told = edge.curl(f"https://{NAME}/often?[1-40]", "--include", "--parallel-max", "1")
    statuses = re.findall(r"^HTTP/\S+ (\d+)", told, re.MULTILINE)
    assert statuses[0] == "200"
    assert statuses[-1] == "429"
    assert set(statuses) == {"200", "429"}
    assert statuses.count("429") >= 15
    assert re.search(r"^retry-after: \d+", told, re.MULTILINE | re.IGNORECASE)
    assert json.loads(edge.curl(f"https://{NAME}/health"))["ok"] is True, "the health path has no limit"


def test_figures_are_for_named_networks_only(edge: Edge) -> None:
    for path in ("/nginx-status", "/metrics"):
        status = edge.curl(f"https://{NAME}{path}", "--output", "/dev/null", "--write-out", "%{http_code}")
        assert status == "403"
    command = f"curl --silent --insecure --resolve {NAME}:443:127.0.0.1 https://{NAME}/nginx-status"
    assert "Active connections" in edge.server.check_output(command)


def test_a_short_lived_certificate_is_renewed_by_debians_timer_and_served(edge: Edge, playbook: Playbook) -> None:
    first = edge.serial()
    run = playbook("site", "--tags", "certbot", certbot_server=edge.start_short_lived(90), certbot_dry_run=False)
    assert run.rc == 0, run.output
    short = edge.serial()
    assert short != first, "another server was asked at once"
    edge.server.check_output(
        "sudo timeout 60 sh -c %s", f"while openssl x509 -checkend 45 -noout -in {LIVE}; do sleep 1; done"
    )
    assert edge.server.check_output("systemctl is-enabled certbot.timer") == "enabled"
    edge.server.check_output("sudo systemctl start certbot.service")  # what the timer starts
    renewed = edge.server.check_output("sudo openssl x509 -noout -serial -in %s", LIVE)
    assert renewed not in (first, short)
    edge.wait_until_served(renewed)
    run = playbook("site", "--tags", "certbot", certbot_dry_run=False)
    assert run.rc == 0, run.output
    assert edge.serial() not in (first, short, renewed)


@pytest.mark.usefixtures("containers")
class TestPorts:
    """With two containers on the server that no list has."""

    def test_only_what_is_listed_is_open(self, edge: Edge) -> None:
        assert edge.open_ports(ASKED) == OPEN

    @pytest.mark.parametrize("event", ["sudo ufw reload", "sudo systemctl restart docker"])
    def test_it_stays_so_after(self, edge: Edge, event: str) -> None:
        edge.server.check_output(event)
        edge.wait()
        assert edge.open_ports(ASKED) == OPEN

    def test_it_stays_so_after_a_restart_of_the_host(self, edge: Edge) -> None:
        edge.reboot()
        edge.connect()
        edge.wait()
        assert edge.open_ports(ASKED) == OPEN

    def test_the_proof_names_what_is_not_listed(self, edge: Edge, playbook: Playbook) -> None:
        run = playbook("site", "--tags", "exposure")
        assert run.rc != 0
        assert f"tcp {UNLISTED}" in run.words
        assert "by container unlisted" in run.words
        assert str(LOCAL) not in run.words.split("not in allowed:")[1].split("Publish")[0]
