# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the production override of a stack's compose files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_override
short_description: Write the production override of a stack's compose files
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Reads the user's compose files with C(docker compose config), checks the settings against them, and writes a file
    that is layered on top of them with C(--file). The user's files stay as they are.
  - The override binds every published port to 127.0.0.1 unless the compose file names an address or O(public_ports)
    lists the port, gives built services an image tag for the release, tells them the release (variable
    E(APP_RELEASE), label C(org.groundwork.release)), limits logs where nothing else is set, takes a fixed
    C(container_name) off web services, and restarts the services that the settings name unless the compose file says
    otherwise.
  - A service of a ready-made image that mounts files of the release gets a digest of them as the label
    C(org.groundwork.mounts), so that compose recreates it when they changed. Stores and what lies below
    C(/docker-entrypoint-initdb.d) are left out. The digest is that of the first time, as services may write there.
  - Each container port of the O(rolled_services) is published at O(bind_address) on as many ports of O(port_range) as
    the service has replicas. Those that containers of this release already have are kept, else the lowest ones are
    taken that follow each other, that nothing listens on, and that no container of the host is configured with.
extends_documentation_fragment:
  - groundwork.backend._compose_settings
attributes:
  check_mode:
    support: full
    description: Needs the compose files and the env file on the host.
  diff_mode:
    support: full
    description: Shows the override before and after. It holds no value of the env file.
  idempotent:
    support: full
    description:
      - The same files and settings give the same override. The ports of O(rolled_services) stay the same as long as
        there are containers of the release.
options:
  project:
    description: The name of the compose project.
    type: str
    required: true
  release:
    description: The release's id.
    type: str
    required: true
  project_directory:
    description: The folder that relative paths in the compose files start from.
    type: path
    required: true
  files:
    description: The user's compose files, in order.
    type: list
    elements: path
    required: true
  env_files:
    description: The env files for interpolation.
    type: list
    elements: path
    default: []
  release_directory:
    description: The release's folder, with the files that may be mounted. The default is O(project_directory).
    type: path
  dest:
    description: The override file to write. Its folder must exist.
    type: path
    required: true
  bind_address:
    description: The address of the host at which the O(rolled_services) are reached by the proxy.
    type: str
    default: 127.0.0.1
  port_range:
    description: The ports of the host from which the O(rolled_services) get theirs, first and last.
    type: str
    default: 20000-20999
  logging:
    description: The C(logging) of services that set none. An empty mapping leaves it to the engine.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Write the override
  groundwork.backend.compose_override:
    project: verisphere
    release: 3f9c0d1e2a4b
    project_directory: /srv/verisphere/current/ops/compose
    files: [/srv/verisphere/releases/3f9c0d1e2a4b/ops/compose/docker-compose.yml]
    env_files: [/srv/verisphere/shared/3f9c0d1e2a4b/.env]
    dest: /srv/verisphere/shared/3f9c0d1e2a4b/override.yml
    web_services: {semantic-dedupe: 8081}
    rolled_services: [semantic-dedupe]
  register: override

- name: Show where the service answers
  ansible.builtin.debug:
    msg: "{{ override.endpoints['semantic-dedupe']['8081'] }}"
"""

RETURN = r"""
dest:
  description: The override file.
  type: str
  returned: success
services:
  description: The names of all services of the compose files.
  type: list
  elements: str
  returned: success
images:
  description: The image of each service that is built, with the release as its tag.
  type: dict
  returned: success
  sample: {semantic-dedupe: "verisphere/semantic-dedupe:3f9c0d1e2a4b"}
endpoints:
  description:
    - For each service and container port (as text), the C(host) and C(port) to reach it from the host itself.
    - For a rolled service the first of its ports.
  type: dict
  returned: success
  sample: {postgres: {"5432": {host: 127.0.0.1, port: 5432}}}
rolled:
  description:
    - For each rolled service the number of its C(replicas), and C(ports) with the ports of the host for each container
      port (as text, with C(/udp) behind it when it is not TCP).
  type: dict
  returned: success
  sample: {semantic-dedupe: {replicas: 2, ports: {"8081": [20000, 20001]}}}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import write_file
from ansible_collections.groundwork.backend.plugins.module_utils._compose import (
    Model,
    compose_config,
    from_config,
    require_fit,
    settings_from,
    settings_options,
)
from ansible_collections.groundwork.backend.plugins.module_utils._compose_mounts import digest, mounted_paths
from ansible_collections.groundwork.backend.plugins.module_utils._compose_override import (
    endpoints,
    image_name,
    production_override,
    recorded_mounts,
    released_with,
    render_override,
)
from ansible_collections.groundwork.backend.plugins.module_utils._errors import os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._ports import (
    assign_ports,
    check_address,
    held_ports,
    listening_ports,
    parse_range,
    taken_ports,
)
from ansible_collections.groundwork.backend.plugins.module_utils._rollout import read_replica
from ansible_collections.groundwork.backend.plugins.module_utils._rollout_engine import inspect_all


def execute(context: Context) -> dict[str, Any]:
    """Read the compose files, check, write the override when it differs."""
    params = context.params
    settings = settings_from(params)
    config = compose_config(params["project"], params["project_directory"], params["files"], params["env_files"])
    model = from_config(config)
    require_fit(model, settings)
    for name, service in model.services.items():
        if service.host_network:
            context.warn(f"The service {name} uses network_mode: host; what it listens on is not bound to 127.0.0.1.")
    address, rolled = params["bind_address"], {}
    if settings.rolled_services:
        address = check_address(address)
        rolled = _assigned(model, settings.rolled_services, params)
    dest = Path(params["dest"])
    with os_errors(f"read {dest}"):
        before = dest.read_text(errors="replace") if dest.exists() else ""
    override = production_override(
        model,
        settings,
        project=params["project"],
        release=params["release"],
        logging=params["logging"],
        rolled=rolled,
        bind_address=address,
        mounts=_mounts(config, released_with(model, settings), params, recorded_mounts(before)),
    )
    after = render_override(override)
    if after != before and not context.check_mode:
        write_file(dest, after.encode())
    built = [name for name, service in model.services.items() if service.built]
    return {
        "changed": after != before,
        "dest": str(dest),
        "services": sorted(model.services),
        "images": {name: image_name(params["project"], name, params["release"]) for name in built},
        "endpoints": endpoints(model, rolled, address),
        "rolled": {name: {"replicas": model.services[name].replicas, "ports": rolled[name]} for name in rolled},
        "diff": {"before": before, "after": after, "before_header": str(dest), "after_header": str(dest)},
    }


def _mounts(
    config: Mapping[str, Any], services: Sequence[str], params: Mapping[str, Any], recorded: Mapping[str, str]
) -> dict[str, str]:
    """The digest of what each of these services mounts of the release."""
    root = Path(params["release_directory"] or params["project_directory"])
    return {
        name: recorded.get(name) or digest(mounted_paths(config, name, root), params["project"]) for name in services
    }


def _assigned(model: Model, services: Sequence[str], params: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """The ports of the rolled services."""
    ports = parse_range(params["port_range"])
    containers = inspect_all()
    listening = listening_ports()
    own = [one for one in map(read_replica, containers) if one.project == params["project"]]
    held = held_ports(own, params["release"], listening)
    return assign_ports(model, services, held, taken_ports(containers, listening), ports)


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        argument_spec={
            "project": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "project_directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "env_files": {"type": "list", "elements": "path", "default": []},
            "release_directory": {"type": "path"},
            "dest": {"type": "path", "required": True},
            "bind_address": {"type": "str", "default": "127.0.0.1"},
            "port_range": {"type": "str", "default": "20000-20999"},
            "logging": {"type": "dict", "default": {}},
            **settings_options()["argument_spec"],
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
