# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait as a user who may not talk to the engine: one sentence, before any waiting."""

from __future__ import annotations

import time

from conftest import Fleet
from support.scenario import Playbook

PLAY = """
- name: Wait for a container as an ordinary user
  hosts: deploy-one
  gather_facts: false
  tasks:
    - name: Wait
      groundwork.backend.health_wait:
        timeout: 120
        checks:
          - {name: db, kind: container, project: relay, service: db}
"""


def test_a_user_without_access_to_the_engine_is_told_so_at_once(fleet: Fleet, playbook: Playbook) -> None:
    assert "docker" not in fleet.one.user().groups
    play = playbook.folder / "denied.yml"
    play.write_text(PLAY)
    begun = time.monotonic()
    run = playbook(str(play))
    assert run.rc != 0
    assert "group docker" in run.words
    assert time.monotonic() - begun < 60
