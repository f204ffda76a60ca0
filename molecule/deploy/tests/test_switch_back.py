# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a proxy has after a failure: what the release before had there, and all that belongs to other stacks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from conftest import Fleet
from support.load import Load
from support.scenario import Playbook

HEALTH = {"path": "/ready", "expect": "ok", "release": "release"}
OTHER = """
- name: Another stack behind the same proxy, whose name begins as that of the first
  hosts: proxy
  become: true
  gather_facts: false
  vars:
    nginx_app: relay-admin
    nginx_switch: {host: deploy-proxy, app: relay-admin, member: elsewhere, upstreams: "{{ other_upstreams }}"}
    nginx_sites: "{{ other_sites }}"
  tasks:
    - name: Check its settings
      ansible.builtin.import_role: {name: groundwork.backend.nginx, tasks_from: preflight}

    - name: Switch to it
      ansible.builtin.import_role: {name: groundwork.backend.nginx, tasks_from: switch}

    - name: Put its site into maintenance
      ansible.builtin.include_role: {name: groundwork.backend.nginx, tasks_from: maintenance}
      when: other_sites | length > 0
      vars:
        nginx_maintenance: {site: relay-admin-web, enabled: true}
"""
OTHER_SITE = {
    "name": "relay-admin-web",
    "server_names": ["admin.example.org"],
    "locations": [{"path": "/", "upstream": {"app": "relay-admin", "service": "web"}}],
}


def change(path: Path, before: str, after: str) -> None:
    """Replace a text in a file that has it."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_failure_after_the_switch_goes_back_to_a_container_port_that_the_new_release_does_not_have(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    change(source / "Dockerfile", '"8000"', '"8001"')
    change(source / "compose.yml", "8000:8000", "8000:8001")
    moved = {"port": 8001, "health": HEALTH, "server_names": ["relay.example.org"]}
    before = fleet.managed("sites")
    with Load(fleet.proxy) as load:
        run = playbook(
            "deploy",
            app_source={"path": str(source)},
            app_web_services={"web": moved},
            app_hooks={"after_switch": ["false"]},
        )
    assert run.rc != 0
    assert f"Release {release} keeps serving" in run.words, run.output
    assert "could not be switched back" not in run.words, run.output
    assert load.report.failed == 0, load.report
    assert fleet.managed("sites") == before
    fleet.clean(release)


SECOND_TRIES = {
    "fails before its own switch": {"app_hooks": {"before_switch": ["false"]}},
    "fails after a switch that changes nothing": {"app_health_timeout": 20},
}


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(second, id=name, marks=[] if "app_hooks" in second else pytest.mark.slow)
        for name, second in SECOND_TRIES.items()
    ],
)
def test_after_a_run_that_was_killed_between_switch_and_gate_a_second_one_that_fails_goes_back(
    fleet: Fleet, release: str, playbook: Playbook, source: Path, second: dict[str, object]
) -> None:
    """The release is well at its own address, and not through the proxy, so that the gate waits."""
    change(source / "app.py", '{"ok": True,', '{"ok": b"x-real-ip" not in dict(scope["headers"]),')
    web = {"port": 8000, "health": HEALTH, "server_names": ["relay.example.org", "news.example.org"]}
    given = {"app_source": {"path": str(source)}, "app_web_services": {"web": web}}
    before = fleet.managed("sites", "upstreams")
    with Load(fleet.proxy) as load:
        first = playbook.start("deploy", **given)
        try:
            fleet.wait_until_only_others_serve(release)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
            output, _ = first.communicate(timeout=60)
        assert fleet.releases() == [release, release], output
        run = playbook("deploy", **given, **second)
    assert run.rc != 0
    assert f"Release {release} keeps serving" in run.words, run.output
    assert load.report.failed == 0, load.report
    assert fleet.managed("sites", "upstreams") == before
    fleet.clean(release)


@pytest.mark.slow
def test_what_belongs_to_another_stack_on_the_proxy_stays(
    fleet: Fleet, release: str, playbook: Playbook, greeting: str, tmp_path: Path
) -> None:
    play = tmp_path / "other.yml"
    play.write_text(OTHER)
    servers = [{"service": "web", "servers": ["127.0.0.1:9"]}]
    made = playbook(str(play), other_sites=[OTHER_SITE], other_upstreams=servers)
    assert made.rc == 0, made.output
    files = "cd /etc/nginx/groundwork/live/ && find . -type f -path '*/relay-admin/*' -exec sha256sum {} + | sort -k 2"
    before = fleet.proxy.check_output("sudo sh -c %s", files)
    assert len(before.splitlines()) == 4, before
    deployed = playbook("deploy", relay_greeting=greeting)
    assert deployed.rc == 0, deployed.output
    off = playbook("maintenance", app_maintenance=False)
    assert off.rc == 0, off.output
    assert fleet.proxy.check_output("sudo sh -c %s", files) == before
    assert "503" in fleet.headers("/", "admin.example.org").splitlines()[0]
    assert fleet.ask()["greeting"] == greeting
    gone = playbook(str(play), other_sites=[], other_upstreams=[])
    assert gone.rc == 0, gone.output
    assert fleet.proxy.check_output("sudo sh -c %s", files) == ""
    assert fleet.ask()["greeting"] == greeting


def test_a_limit_without_the_proxies_is_refused_at_once(fleet: Fleet, release: str, playbook: Playbook) -> None:
    run = playbook("deploy", "--limit", "app", relay_greeting="never seen")
    assert run.rc != 0
    assert "add the proxies to --limit" in run.words, run.output
    fleet.clean(release)
