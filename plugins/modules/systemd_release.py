# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a release of a stack as systemd units: tried beside the one that serves, then put in its place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_release
short_description: Run a release of a stack as hardened systemd units
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Renders a service for each long-running program of a stack, and a socket for each that answers requests, and brings
    a host to them. The service names the folder of its release; the socket stays as it is from one release to the next,
    so that systemd holds the address, and connections wait in it, while a service is restarted.
  - A program with a socket is tried first - the new release runs beside the old one, as the unit C(<name>-trial) with
    an address of its own, until it is well. What fails there has stopped nothing.
  - A run that was killed at any point leaves nothing that the next run does not put right. One whose Ansible was killed
    may go on for a while; the next one waits for it, up to O(timeout) seconds.
  - Each change of units ends with C(systemctl daemon-reload), which takes GPUs away from running containers that have
    them without CDI.
attributes:
  check_mode:
    support: full
    description: Says which units would be written and restarted. Nothing is tried, and nobody is asked for health.
  diff_mode:
    support: full
    description: Shows the texts of the units, which hold no secret, and whether they run.
  idempotent:
    support: full
    description: Units that run the release already are left alone; their health is checked each time.
options:
  app:
    description: The name of the stack.
    type: str
    required: true
  state:
    description:
      - V(checked) has systemd read the units (C(systemd-analyze verify)) without putting them in place, and tells how
        exposed they are (C(systemd-analyze security)). Folders in C(writable) that are missing are made.
      - V(started) has the units of the release run and be well. When it fails after the trial, the units of the release
        are in place, and the caller starts the release before in the same way.
      - V(retired) stops and removes the units of the stack that the release does not have.
      - V(absent) stops and removes all units of the stack.
      - V(paused) stops all units of the stack, and disables them, so that a restart of the host does not start them.
        What the trial of a killed run has left is removed. V(started) undoes it.
      - V(listed) tells which units of the stack there are.
    type: str
    choices: [checked, started, retired, absent, paused, listed]
    default: started
  path:
    description:
      - The folder of the stack, with C(releases/<release>) in it. Needed for V(checked), V(started) and V(retired).
    type: path
  release:
    description: The release's id. Needed for V(checked), V(started) and V(retired).
    type: str
  env_file:
    description:
      - The release's own copy of its variables, in the syntax of systemd, readable by root only. Each unit gets a copy
        with the owner and the mode that it asks for. Needed for V(checked), V(started) and V(retired).
    type: path
  venv:
    description: Whether the release has a folder C(.venv), from which programs without a folder in their names come.
    type: bool
    default: false
  units:
    description:
      - The programs by name, as in C(app_units) of the role app. Needed for V(checked), V(started) and V(retired).
    type: dict
    default: {}
  web_services:
    description: Those that answer requests, as in C(app_web_services) of the role app.
    type: dict
    default: {}
  services:
    description: What else is said of them, as in C(app_services) of the role app.
    type: dict
    default: {}
  user:
    description: The user of units that name none. The default is the name of the stack.
    type: str
    default: ""
  group:
    description: The group that may read releases, and the one of units that name none. The default is O(user).
    type: str
    default: ""
  bind_address:
    description: The address of ports.
    type: str
    default: 127.0.0.1
  port_range:
    description: From where a trial gets its port.
    type: str
    default: 20000-20999
  trials:
    description: Whether programs with a socket are tried before they are restarted.
    type: bool
    default: true
  timeout:
    description: Seconds that units have to become well, in a trial and in place.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Have systemd read the units
  groundwork.backend.systemd_release: &release
    state: checked
    app: innovaplus
    path: /srv/innovaplus
    release: 3f9c0d1e2a4b
    env_file: /srv/innovaplus/shared/3f9c0d1e2a4b/.env
    venv: true
    user: innova
    units:
      backend: {exec: gunicorn app.main:app --worker-class uvicorn.workers.UvicornWorker, type: notify}
    web_services:
      backend: {port: 8000, health: {path: /health}}
  register: checked

- name: Show how exposed they are
  ansible.builtin.debug:
    msg: "{{ checked.exposure }}"

- name: Run them
  groundwork.backend.systemd_release:
    <<: *release
    state: started
  register: running

- name: Tell what was restarted
  ansible.builtin.debug:
    msg: "{{ running.restarted }}"
"""

RETURN = r"""
exposure:
  description: Of each service its C(exposure), from 0 (none) to 10, and the C(rating) that systemd gives it.
  type: dict
  returned: when state is checked
  sample: {innovaplus-backend.service: {exposure: 1.4, rating: OK}}
units:
  description: The names of the release's units.
  type: list
  elements: str
  returned: when state is started
restarted:
  description: The services that were, or would be, started again.
  type: list
  elements: str
  returned: when state is started
tried:
  description: Those of them that were, or would be, tried before.
  type: list
  elements: str
  returned: when state is started
endpoints:
  description:
    - Where each of O(web_services) answers, as a list under C(new), with C(host) and C(port), or with C(socket).
  type: dict
  returned: when state is started
  sample: {backend: {new: [{host: 127.0.0.1, port: 8000}]}}
removed:
  description: The names of the units that were, or would be, removed.
  type: list
  elements: str
  returned: when state is retired or absent
paused:
  description: The names of the units that were, or would be, stopped and disabled, or removed as parts of a trial.
  type: list
  elements: str
  returned: when state is paused
services:
  description:
    - The stack's units, each with C(name), C(state), C(active), C(since), and the working C(directory) of its main
      process.
  type: list
  elements: dict
  returned: when state is listed
checks:
  description: Of a release that is not well, the state of each check, as M(groundwork.backend.health_wait) has it.
  type: dict
  returned: when units are not well
logs:
  description:
    - The last 200 lines of the journals of units that are not well, by their names. Values of variables such as
      E(API_KEY) or E(DB_PASSWORD), and passwords in URLs, are masked.
  type: dict
  returned: when units are not well
"""

import os
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _units_steps as steps
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._ports import check_address, parse_range
from ansible_collections.groundwork.backend.plugins.module_utils._releases import check_id
from ansible_collections.groundwork.backend.plugins.module_utils._unit_files import Place
from ansible_collections.groundwork.backend.plugins.module_utils._units import Stack, read_units
from ansible_collections.groundwork.backend.plugins.module_utils._units_host import alone
from ansible_collections.groundwork.backend.plugins.module_utils._units_plan import Release


def execute(context: Context) -> dict[str, Any]:
    """Bring the host into the state."""
    params = context.params
    if not 0 < params["timeout"] < float("inf"):
        raise InputError(f"timeout is {params['timeout']:g}.", fix="Give a number of seconds above 0.")
    if params["state"] not in ("listed", "checked") and not context.check_mode:
        context.cleanup.enter_context(alone(params["app"], params["timeout"]))
    match params["state"]:
        case "listed":
            return steps.listed(params["app"])
        case "absent":
            return steps.absent(params["app"], check_mode=context.check_mode)
        case "paused":
            return steps.paused(params["app"], check_mode=context.check_mode)
        case "retired":
            return steps.retired(params["app"], _release(params), check_mode=context.check_mode)
        case "checked":
            return steps.checked(_release(params), check_mode=context.check_mode)
    check_address(params["bind_address"])
    return steps.started(
        _release(params),
        timeout=params["timeout"],
        ports=parse_range(params["port_range"]),
        trials=params["trials"],
        check_mode=context.check_mode,
    )


def _release(params: dict[str, Any]) -> Release:
    directory = f"{params['path']}/releases/{check_id(params['release'])}"
    stack = Stack(params["app"], params["user"], params["group"], params["bind_address"])
    units = read_units(stack, params["units"], params["web_services"], params["services"])
    with os_errors(f"read the variables of the release in {params['env_file']}"):
        env = Path(params["env_file"]).read_text()
    # Where the link leads, so that a service is restarted when its release gets another environment.
    venv = os.path.realpath(f"{directory}/.venv") if params["venv"] else ""
    return Release(Place(params["app"], params["release"], directory, venv, params["env_file"]), units, env)


def main() -> None:
    """Entry point."""
    needed = ["path", "release", "env_file"]
    run_module(
        execute,
        argument_spec={
            "app": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["checked", "started", "retired", "absent", "paused", "listed"],
                "default": "started",
            },
            "path": {"type": "path"},
            "release": {"type": "str"},
            "env_file": {"type": "path"},
            "venv": {"type": "bool", "default": False},
            "units": {"type": "dict", "default": {}},
            "web_services": {"type": "dict", "default": {}},
            "services": {"type": "dict", "default": {}},
            "user": {"type": "str", "default": ""},
            "group": {"type": "str", "default": ""},
            "bind_address": {"type": "str", "default": "127.0.0.1"},
            "port_range": {"type": "str", "default": "20000-20999"},
            "trials": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 60},
        },
        required_if=[("state", state, needed) for state in ("checked", "started", "retired")],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
