# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What is said at the end of a deploy that failed on one host, when a proxy cannot be reached either."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.collection import ROOT
from support.scenario import Playbook

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1}  # nobody listens there
STATE = {"deploy_mode": "deploy", "__app_release": "r2", "__app_was": "r1", "__app_news": True, "__app_started": {}}
BEFORE = {"sites": [], "upstreams": []}


def told(tmp_path: Path, facts: dict[str, dict[str, Any]], *, lost: bool, **variables: Any) -> str:
    """Run the end of a deploy on the hosts one and two; what it printed."""
    inventory, play = tmp_path / "hosts.json", tmp_path / "play.yml"
    hosts = {name: {**LOCAL, **STATE, **own} for name, own in facts.items()}
    inventory.write_text(json.dumps({"app": {"hosts": hosts}, "proxy": {"hosts": {"edge": GONE}}}))
    tasks = [
        {"name": "Lose it", "ansible.builtin.ping": {}, "when": "lost and inventory_hostname == 'two'",
         "vars": {**GONE, "ansible_connection": "ssh"}},
        {"name": "End", "ansible.builtin.include_tasks": str(ROOT / "playbooks" / "tasks" / "ended.yml")},
    ]  # fmt: skip
    role = {"name": "groundwork.backend.nginx", "tasks_from": "preflight"}
    settings = [{"name": "Keep the proxy's settings", "ansible.builtin.import_role": role}]
    plays = [("proxy", settings), ("app", tasks)]
    play.write_text(json.dumps([{"hosts": name, "gather_facts": False, "tasks": those} for name, those in plays]))
    run = Playbook(tmp_path, inventory)(str(play), lost=lost, app_name="shop", nginx_app="shop", **variables)
    assert run.rc != 0, run.output
    return run.words


@pytest.mark.parametrize("outcome", ["failed", "none"])
def test_a_proxy_that_still_serves_a_lost_host_is_named(tmp_path: Path, outcome: str) -> None:
    words = told(
        tmp_path,
        {
            "one": {"deploy_outcome": outcome, "deploy_message": "Release r2 was refused.", "__app_stage": "waiting"},
            "two": {"__app_stage": "switched", "__app_before": BEFORE},
        },
        lost=True,
    )
    first = "Release r2 was refused." if outcome == "failed" else "failed on two. On this host nothing was changed."
    assert f"{first} For two, which was lost: The proxy edge could not be switched back: The proxy edge cannot" in words


def test_a_proxy_that_does_not_serve_what_stays_hides_nothing(tmp_path: Path) -> None:
    words = told(
        tmp_path,
        {
            "one": {"deploy_outcome": "deployed", "deploy_was": "r1", "__app_stage": "done", "__app_draining": {}},
            "two": {"deploy_outcome": "failed", "deploy_message": "Release r2 was refused.", "__app_stage": "begun"},
        },
        lost=False,
        app_rollback_fleet=False,
        **{"__app_release": "r2", "__app_sites": [], "__app_rolled": []},  # what the tasks of the role app take from it
    )
    assert "Release r2 was refused." in words
    second = "The proxies may not serve what runs on this host: The proxy edge cannot be reached"
    assert f"failed on two. On this host release r2 runs. {second}" in words
