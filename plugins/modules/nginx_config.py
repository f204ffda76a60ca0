# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change files of nginx's configuration all at once, tested, reloaded without a dropped request, and proven."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_config
short_description: Change nginx's configuration in one step, tested, reloaded, proven
version_added: 0.1.0
author: groundwork.backend contributors (@groundwork-backend)
description:
  - Keeps a tree of configuration files in generations below O(directory), of which the link C(live) names the one that
    counts. Files that a call does not name stay as they are.
  - A change is written as a new generation and tested as part of nginx's B(complete) configuration, with the user's own
    files. Only then C(live) turns to it, in one step. A configuration that nginx refuses changes nothing; the error
    names file and line, and says whether the file is a managed one.
  - A running nginx is reloaded, and the reload is proven by new workers. When nginx keeps its old configuration, as it
    does when a port is taken, C(live) turns back, and the error has nginx's words. A stopped nginx is left alone.
  - Killed at any point, either the old or the new generation is live, and complete. The next call reloads an nginx that
    has not loaded what is on disk.
  - Calls that run at once, as from several hosts that delegate to one proxy, wait for each other.
  - The main configuration file has to read the files through a relative path such as
    C(include groundwork/live/http/*.conf;).
attributes:
  check_mode:
    support: full
    description: Tests what would go live and changes nothing.
    details: The complete configuration is tested; on a host without nginx RV(tested) is false. As nginx's own test
      does, it may create log files that the configuration names.
  diff_mode:
    support: full
    description: Shows each file before and after.
  idempotent:
    support: full
    description: A second call writes and reloads nothing.
options:
  state:
    description:
      - V(present) brings the files to what is asked.
      - V(drained) waits until the old O(workers) have finished their connections.
    type: str
    choices: [present, drained]
    default: present
  files:
    description: Contents of files, by their path below C(live).
    type: dict
    default: {}
  initial:
    description: Files of the very first generation. Once there is one, they are left as they are.
    type: dict
    default: {}
  absent:
    description: Paths of files to remove.
    type: list
    elements: str
    default: []
  purge:
    description: Patterns of files to remove when they are not in O(files). C(*) stays within one folder.
    type: list
    elements: str
    default: []
  keep:
    description: Patterns of files that O(purge) leaves alone.
    type: list
    elements: str
    default: []
  directory:
    description: The folder of the generations, beside the main configuration file.
    type: path
    default: /etc/nginx/groundwork
  config:
    description: nginx's main configuration file.
    type: path
    default: /etc/nginx/nginx.conf
  binary:
    description: The program.
    type: str
    default: nginx
  settle:
    description:
      - Seconds between the switch to the new files and the reload of a running nginx. An nginx that is reloaded closes
        connections after the answer that it is giving, without having said so, and a request that the client sends at
        that moment is lost. Every generation holds C(generation.conf), which defines C($groundwork_stale); it is V(1)
        in the old workers from the switch on, so that they can say so in the header C(Connection).
      - Enough is what it takes a busy client to get one more answer.
    type: float
    default: 1
  reload_timeout:
    description: Seconds in which new workers have to serve after a reload.
    type: int
    default: 30
  lock_timeout:
    description: Seconds to wait for another call that changes the same files.
    type: int
    default: 300
  workers:
    description: The old workers' process ids, from RV(draining), for O(state=drained).
    type: list
    elements: int
  timeout:
    description: Seconds that the O(workers) have, for O(state=drained).
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Send requests to the new replicas
  groundwork.backend.nginx_config:
    files:
      upstreams/shop/web/app1.servers: |
        server 127.0.0.1:20002 max_fails=0;
        server 127.0.0.1:20003 max_fails=0;
  register: proxy

- name: Wait for requests to the old ones to end
  groundwork.backend.nginx_config:
    state: drained
    workers: "{{ proxy.draining }}"
"""

RETURN = r"""
generation:
  description: The live generation after the call; empty when there is none.
  type: str
  returned: O(state=present)
  sample: "000007"
written:
  description: Files that were added or changed.
  type: list
  elements: str
  returned: O(state=present)
removed:
  description: Files that were removed.
  type: list
  elements: str
  returned: O(state=present)
tested:
  description: Whether nginx accepted the complete configuration in this call.
  type: bool
  returned: O(state=present)
reloaded:
  description: Whether new workers took over.
  type: bool
  returned: O(state=present)
running:
  description: Whether nginx runs.
  type: bool
  returned: O(state=present)
draining:
  description: Process ids of old workers that only finish their connections.
  type: list
  elements: int
  returned: success
file:
  description: The file that nginx names, relative to C(live) when it is a managed one.
  type: str
  returned: when nginx refuses the configuration and names a file
line:
  description: The line in it.
  type: int
  returned: when nginx refuses the configuration and names a file
managed:
  description: Whether the file is a managed one.
  type: bool
  returned: when nginx refuses the configuration and names a file
restored:
  description: Whether the generation from before was brought back.
  type: bool
  returned: when nginx did not take a configuration over
"""

from pathlib import Path
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._flock import directory_lock
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._nginx import differences, make_plan
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_apply import apply, foresee, read_live
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_check import Nginx, require
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_generation import Generations
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_process import wait_drained


def _drained(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    left = wait_drained(params["workers"], 0 if check_mode else params["timeout"])
    if left and not check_mode:
        raise StateError(
            f"Old workers of nginx (process {', '.join(map(str, left))}) still have connections after "
            f"{params['timeout']} seconds.",
            fix="Set nginx's worker_shutdown_timeout (nginx_drain_seconds in the role) below that, or wait longer.",
            draining=left,
        )
    return {"changed": False, "draining": left}


def _changed(context: Context, nginx: Nginx, generations: Generations) -> dict[str, Any]:
    params = context.params
    live, current = read_live(generations, nginx.directory)
    files = params["files"] if live else {**params["initial"], **params["files"]}
    plan = make_plan(current, files, absent=params["absent"], purge=params["purge"], keep=params["keep"])
    if context.check_mode:
        outcome = foresee(nginx, generations, plan, live)
    else:
        outcome = apply(
            nginx, generations, plan, live, settle=params["settle"], reload_timeout=params["reload_timeout"]
        )
    for warning in outcome.warnings:
        context.warn(f"nginx: {warning}")
    return {
        "changed": plan.changes or outcome.reloaded,
        "generation": outcome.generation,
        "written": plan.written,
        "removed": plan.removed,
        "tested": outcome.tested,
        "reloaded": outcome.reloaded,
        "running": outcome.running,
        "draining": outcome.draining,
        "diff": differences(current, plan),
    }


def execute(context: Context) -> dict[str, Any]:
    """Wait for old workers, or change files under the lock."""
    params = context.params
    if params["state"] == "drained":
        return _drained(params, context.check_mode)
    nginx = Nginx(params["binary"], Path(params["config"]), Path(params["directory"]))
    generations = Generations(nginx.directory)
    if context.check_mode and not nginx.directory.is_dir():
        return _changed(context, nginx, generations)
    if not context.check_mode:
        require(nginx)
        with os_errors(f"make the folder {nginx.directory}"):
            nginx.directory.mkdir(mode=0o755, exist_ok=True)
    busy = StateError(
        f"Another call has been changing the files in {nginx.directory} for {params['lock_timeout']} seconds.",
        fix="Wait for it to end, or raise lock_timeout.",
    )
    with directory_lock(nginx.directory, lambda: busy, wait_seconds=params["lock_timeout"]):
        return _changed(context, nginx, generations)


def main() -> None:
    """Entry point."""
    run_module(
        execute,
        argument_spec={
            "state": {"type": "str", "choices": ["present", "drained"], "default": "present"},
            "files": {"type": "dict", "default": {}},
            "initial": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "/etc/nginx/groundwork"},
            "config": {"type": "path", "default": "/etc/nginx/nginx.conf"},
            "binary": {"type": "str", "default": "nginx"},
            "settle": {"type": "float", "default": 1},
            "reload_timeout": {"type": "int", "default": 30},
            "lock_timeout": {"type": "int", "default": 300},
            "workers": {"type": "list", "elements": "int"},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "drained", ["workers"])],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
