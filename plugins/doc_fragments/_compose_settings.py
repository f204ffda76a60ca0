# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Options shared by the modules that compare the inventory with the compose files."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents settings_options() of module_utils/_compose.py."""

    DOCUMENTATION = r"""
options:
  web_services:
    description:
      - The services that answer requests through the proxy, each with the container port that it answers on.
      - The port must be published by the compose file, on a fixed port of the host.
    type: dict
    default: {}
  public_ports:
    description:
      - Services with the list of their container ports that stay reachable from outside. All other published ports are
        bound to 127.0.0.1.
    type: dict
    default: {}
  required_services:
    description:
      - Other services that the inventory names, each under the name of the variable that names it. Only used to say
        early, and with the variable's name, that the compose files do not have such a service.
    type: dict
    default: {}
  required_ports:
    description:
      - Container ports that the inventory needs published on a fixed port of the host, each under the name of the
        variable that needs it, with the keys C(service) and C(port).
    type: dict
    default: {}
  rolled_services:
    description:
      - The web services whose new replicas run beside the old ones for a while, behind a proxy. Their ports on the host
        are chosen for them, so that the compose file may leave these to the engine.
      - They cannot share another network (C(network_mode)), have an address of their own in it, or be in
        O(public_ports).
    type: list
    elements: str
    default: []
"""
