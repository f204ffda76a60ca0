# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What the role certbot says of settings before a host is changed, wired as the playbooks have it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.collection import ROOT
from support.scenario import Playbook, Run

TOLD = "certbot_webroot, certbot_directory, certbot_served_port"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "app_name": "shop"}


def site(*names: str) -> list[dict[str, Any]]:
    """The sites of a proxy."""
    return [{"certificate": "shop", "names": names}]


def preflight(folder: Path, hosts: dict[str, dict[str, Any]], **variables: Any) -> Run:
    """The checks of the role on proxies with these host variables; then the settings that nginx has, too."""
    check = {"name": "groundwork.backend.certbot", "tasks_from": "preflight"}
    play = {
        "hosts": "proxy",
        "gather_facts": False,
        "vars_files": [str(ROOT / "playbooks" / "vars" / "certificates.yml")],
        "vars": {"nginx_sites": []},
        "tasks": [
            {"name": "Check", "ansible.builtin.import_role": check},
            {"name": "Tell", "ansible.builtin.debug": {"msg": "told {{ [" + TOLD + "] | join(' ') }}"}},
        ],
    }
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps({"proxy": {"hosts": {name: {**LOCAL, **own} for name, own in hosts.items()}}}))
    (folder / "play.yml").write_text(json.dumps([play]))
    return Playbook(folder, inventory)(str(folder / "play.yml"), **variables)


def test_certbot_follows_the_settings_of_nginx_and_the_user_overrides_them(tmp_path: Path) -> None:
    nginx = {"nginx_acme_root": "/srv/acme", "nginx_tls_directory": "/srv/tls", "nginx_https_port": 8443}
    users = {"certbot_webroot": "/srv/mine", "certbot_directory": "/srv/links", "certbot_served_port": 9443}
    run = preflight(tmp_path, {"plain": {}, "follows": nginx, "own": {**nginx, **users}})
    assert run.rc == 0, run.output
    assert "told /var/lib/groundwork/acme /etc/groundwork/tls 443" in run.words, run.output
    assert "told /srv/acme /srv/tls 8443" in run.words
    assert "told /srv/mine /srv/links 9443" in run.words


@pytest.mark.parametrize("name", [".example.org", "www.example.*", "a_b", "-a.example.org", "a b"])
def test_names_that_no_certificate_is_for_are_refused(tmp_path: Path, name: str) -> None:
    run = preflight(tmp_path, {"one": {}}, certbot_sites=site("example.org", name))
    assert run.rc != 0
    assert f"would be for {name}," in run.words, run.output


def test_names_that_certificates_are_for_are_taken(tmp_path: Path) -> None:
    names = ["a", "A-b.Example.org", "x_y.example.org", "bücher.example.org", "xn--bcher-kva.example.org", "1.2.3"]
    dns = [{"name": "shop", "dns": {"plugin": "rfc2136"}}]
    run = preflight(tmp_path, {"one": {}}, certbot_sites=site("*.example.org", *names), certbot_certificates=dns)
    assert run.rc == 0, run.output


def test_a_name_that_two_proxies_serve_has_no_challenge_through_nginx(tmp_path: Path) -> None:
    """A name that one of them alone serves has."""
    one = {"certbot_names": ["one.example.org", "Both.example.org"]}
    two = {"certbot_names": ["both.example.org"]}
    sites = [{"certificate": "shop", "names": "{{ certbot_names }}"}]
    run = preflight(tmp_path, {"one": one, "two": two}, certbot_sites=sites)
    assert run.rc != 0
    assert "both.example.org is served by one and by two," in run.words, run.output


@pytest.mark.parametrize("way", [{"dns": {"plugin": "rfc2136"}}, {"own": {}}, {"shared": True}])
def test_two_proxies_may_serve_what_has_no_challenge_through_nginx(tmp_path: Path, way: dict[str, Any]) -> None:
    certificates = [{"name": "shop", **way}]
    run = preflight(tmp_path, {"one": {}, "two": {}}, certbot_sites=site("a.test"), certbot_certificates=certificates)
    assert run.rc == 0, run.output


def test_two_proxies_with_names_of_their_own_are_taken(tmp_path: Path) -> None:
    sites = [{"certificate": "shop", "names": ["{{ inventory_hostname }}.example.org"]}]
    run = preflight(tmp_path, {"one": {}, "two": {}}, certbot_sites=sites)
    assert run.rc == 0, run.output
