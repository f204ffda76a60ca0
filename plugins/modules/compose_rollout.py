# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start new replicas of compose services beside the old ones, retire the old ones, or take the new ones away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_rollout
short_description: Replace the replicas of compose services without a gap
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - The three steps of a deploy that drops no request. Between V(started) and V(retired) the proxy is switched from the
    old replicas to the new ones.
  - Replicas are told apart by the label C(org.groundwork.release) of their containers, and replicas of two releases run
    side by side because the override of M(groundwork.backend.compose_override) (its option C(rolled_services)) gives
    each release ports of its own.
  - A run that was killed at any point leaves nothing that the next run does not put right.
attributes:
  check_mode:
    support: full
    description:
      - Says which services would get replicas and which containers would go. V(started) does not look whether the
        images are there, and V(retired) warns where a real run would refuse, as a deploy in check mode starts nothing.
  diff_mode:
    support: full
    description: Shows the replicas before and after, each with its release and state.
  idempotent:
    support: full
    description: Replicas that are there are left alone; their health is checked each time.
options:
  project:
    description: The name of the compose project.
    type: str
    required: true
  release:
    description: The release's id.
    type: str
    required: true
  state:
    description:
      - V(started) has as many healthy replicas of O(release) as the compose files say (C(scale) or C(deploy.replicas)),
        beside whatever runs. It removes stopped containers of these services first, and when the new replicas do not
        become healthy, it removes them again. Running containers of other releases are never touched.
      - V(retired) stops and removes all replicas that are not of O(release), all at once, with their own
        C(stop_signal) and C(stop_grace_period). It refuses while a service has no healthy replica of O(release).
      - V(removed) stops and removes the replicas of O(release), even when no others are there.
    type: str
    choices: [started, retired, removed]
    default: started
  services:
    description:
      - The services, each with its C(port) in the container and C(health), as in C(app_web_services).
      - C(health) has C(path), and may have C(expect), a JMESPath expression that must hold on the JSON answer, and
        C(release), a JMESPath expression that gives the release which answers. Other keys are ignored.
    type: dict
    required: true
  project_directory:
    description: The folder that relative paths in the compose files start from. Needed for V(started).
    type: path
  files:
    description: The compose files with the release's override, in order. Needed for V(started).
    type: list
    elements: path
  env_files:
    description: The env files for interpolation.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds that new replicas have to become healthy. A replica that ends again and again is given up earlier.
      - V(retired) and V(removed) take as long as the grace periods.
    type: float
    default: 60
notes:
  - Containers of the same network reach the service by its name, and with that new replicas as soon as they run. What
    must not happen before they are healthy goes through the proxy.
  - Anonymous volumes go with the container that they belong to; a new replica has its own. What has to stay belongs
    into a named volume.
  - Services that a rolled one depends on are not started. A definition of a network that changed is applied by some
    versions of Compose by stopping all containers in it; give a changed network a new name.
seealso:
  - module: groundwork.backend.compose_override
  - module: groundwork.backend.health_wait
"""

EXAMPLES = r"""
- name: Start the new release beside the old one
  groundwork.backend.compose_rollout:
    project: verisphere
    release: 3f9c0d1e2a4b
    project_directory: /srv/verisphere/releases/3f9c0d1e2a4b/ops/compose
    files:
      - /srv/verisphere/releases/3f9c0d1e2a4b/ops/compose/docker-compose.yml
      - /srv/verisphere/shared/3f9c0d1e2a4b/override.yml
    env_files: [/srv/verisphere/shared/3f9c0d1e2a4b/.env]
    services:
      semantic-dedupe: {port: 8081, health: {path: /health, expect: ok, release: release}}
  register: rollout

- name: Show where the proxy shall send requests
  ansible.builtin.debug:
    msg: "{{ rollout.endpoints['semantic-dedupe'].new | map(attribute='port') }}"

- name: Retire the old release
  groundwork.backend.compose_rollout:
    state: retired
    project: verisphere
    release: 3f9c0d1e2a4b
    services:
      semantic-dedupe: {port: 8081, health: {path: /health}}
"""

RETURN = r"""
endpoints:
  description:
    - For each service C(new) and C(old), the running replicas of O(release) and of others, each with C(host), C(port)
      and C(container). After V(retired) and V(removed) what is left.
  type: dict
  returned: success
  sample:
    web:
      new: [{host: 127.0.0.1, port: 20001, container: shop-web-2}]
      old: [{host: 127.0.0.1, port: 20000, container: shop-web-1}]
services:
  description: The services that got replicas, or lost them. In check mode those that would.
  type: list
  elements: str
  returned: success
started:
  description: The containers that were started.
  type: list
  elements: str
  returned: success
removed:
  description: The containers that were removed, for V(started) stopped leftovers. In check mode those that would be.
  type: list
  elements: str
  returned: success
service:
  description: The service that did not become healthy.
  type: str
  returned: when replicas did not become healthy
checks:
  description: What M(groundwork.backend.health_wait) would return. The name of each check begins with the service.
  type: dict
  returned: when replicas did not become healthy
logs:
  description:
    - The last 200 lines of the logs of the containers that did not become healthy, by the names of the containers.
      Passwords in URLs and values of variables such as E(API_KEY) or E(DB_PASSWORD) of these containers are masked.
  type: dict
  returned: when replicas did not become healthy
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_plan import read_options
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_steps import Stack, removed, retired, started


def execute(context: Context) -> dict[str, Any]:
    """Bring the services into the state."""
    params = context.params
    if not 0 < params["timeout"] < float("inf"):
        raise InputError(f"timeout is {params['timeout']:g}.", fix="Give a number of seconds above 0.")
    for name, options in params["services"].items():
        read_options(name, options)
    stack = Stack(
        params["project"],
        params["release"],
        params["project_directory"],
        params["files"],
        params["env_files"],
        params["services"],
    )
    if params["state"] == "retired":
        return retired(stack, context.warn, check_mode=context.check_mode)
    if params["state"] == "removed":
        return removed(stack, check_mode=context.check_mode)
    return started(stack, params["timeout"], check_mode=context.check_mode)


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        argument_spec={
            "project": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "retired", "removed"], "default": "started"},
            "services": {"type": "dict", "required": True},
            "project_directory": {"type": "path"},
            "files": {"type": "list", "elements": "path"},
            "env_files": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "float", "default": 60},
        },
        required_if=[("state", "started", ["project_directory", "files"])],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
