#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run Alembic's migrations in the project's image or venv, one runner at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: alembic_migrate
short_description: Run Alembic's migrations of a PostgreSQL database
version_added: 0.1.0
description:
  - Upgrades, downgrades or stamps a database with the Alembic of the project itself, which runs in a one-shot container
    of its image or compose service, or in a venv on the managed host.
  - The project's C(env.py) connects, so its version table, its schema and its driver (also an asynchronous one) are
    what counts. The login options are for the lock of migrations, which M(groundwork.backend.pgvector_migrate) takes,
    too. Both must reach the same database, and that is checked.
  - Alembic gets everything through a pipe. No address or password of a database is in a process list, in the settings
    of a container or in a log of the engine, and what Alembic prints is returned with secrets masked.
  - When the module is stopped or killed, Alembic ends, too, and the server rolls back what was not committed.
  - Needs Alembic 1.5 or newer, and Debian's package C(python3-psycopg) on the managed host.
author:
  - groundwork.backend contributors (@groundwork-backend)
extends_documentation_fragment:
  - groundwork.backend._postgres
  - groundwork.backend._attributes
options:
  action:
    description:
      - V(upgrade) applies revisions, V(downgrade) undoes them, V(stamp) records O(target) and runs nothing.
    type: str
    choices: [upgrade, downgrade, stamp]
    default: upgrade
  target:
    description:
      - The revision to go to, in Alembic's words, such as V(head), V(heads), V(base), V(1975ea83b712), V(+1) or V(-1).
      - Required for O(action=downgrade) and O(action=stamp); without it, O(action=upgrade) goes to V(head).
      - V(head) is refused when the project has several heads.
    type: str
  purge:
    description:
      - With O(action=stamp), remove what is recorded first. This repairs a database that is at a revision which the
        scripts do not have.
    type: bool
    default: false
  venv:
    description: Virtual environment on the managed host that has Alembic and the project's libraries.
    type: path
  image:
    description:
      - Image, on the managed host already, to run a one-shot container of. Its entry point is not used, and nothing is
        pulled.
    type: str
  compose:
    description:
      - Compose service to run a one-shot container of. It has the image, environment, networks, volumes and secrets
        that the compose files give the service, publishes no port, and starts no other service. Nothing is built or
        pulled.
    type: dict
    suboptions:
      project:
        description: The name of the compose project.
        type: str
        required: true
      directory:
        description: The folder that relative paths in the compose files start from.
        type: path
        required: true
      files:
        description: The compose files, in order.
        type: list
        elements: path
        required: true
      env_files:
        description: The env files for interpolation.
        type: list
        elements: path
        default: []
      service:
        description: The service.
        type: str
        required: true
  directory:
    description:
      - Folder with Alembic's configuration. With O(venv) it is on the managed host and required, otherwise in the
        container, where the image's working directory is the default.
    type: str
  config:
    description: Alembic's configuration, below O(directory). A name that ends in C(.toml) needs Alembic 1.16.
    type: str
    default: alembic.ini
  section:
    description: Section of O(config).
    type: str
    default: alembic
  python:
    description: Name or path of the Python in the container. With O(venv) it is the venv's own.
    type: str
    default: python
  network:
    description:
      - Docker network for O(image) on which C(env.py) reaches the server, such as V(verisphere_default). V(host) is the
        network of the managed host.
    type: str
  volumes:
    description: Volumes for O(image), written as C(docker run --volume) takes them.
    type: list
    elements: str
    default: []
  env:
    description:
      - Environment variables for C(env.py) and the revisions, such as E(DATABASE_URL). Values are never printed.
      - They are set after Python has started, so of the variables for Python itself only E(PYTHONPATH) has an effect.
    type: dict
    default: {}
  url:
    description:
      - Replaces C(sqlalchemy.url) of O(config), for an C(env.py) that reads the address only there.
      - A server on the managed host is V(127.0.0.1) in O(venv) and with O(network=host), but not in another network.
    type: str
  x_arguments:
    description: What C(context.get_x_argument()) of C(env.py) returns, as C(alembic -x NAME=VALUE) gives it.
    type: dict
    default: {}
  lock_wait:
    description: How long to wait, in seconds, for another run of migrations on the same database.
    type: float
    default: 60
  timeout:
    description:
      - How long, in seconds, Alembic may take to read the state, and again to run, before it is stopped. There is no
        limit when it is not set.
    type: float
attributes:
  check_mode:
    support: full
    details:
      - Runs C(env.py) up to the migrations, in a transaction that may only read. C(CREATE SCHEMA IF NOT EXISTS) and
        C(CREATE EXTENSION IF NOT EXISTS) are left out there; another change that C(env.py) itself makes is an error.
  diff_mode:
    support: full
    details:
      - Shows the revisions. With check mode also their SQL, where Alembic can write it without a connection
        (C(alembic upgrade --sql)); that runs the Python code of the revisions, with nothing but reading allowed in the
        database.
  idempotent:
    support: full
    details: A O(target) that is relative, such as V(+1) or V(-1), moves each time.
"""

EXAMPLES = r"""
- name: Bring the database up to date with the image of the release
  groundwork.backend.alembic_migrate:
    image: "phiacta/backend:{{ release_id }}"
    network: phiacta_default
    env:
      DATABASE_URL: "postgresql+asyncpg://phiacta:{{ postgres_password | urlencode }}@db:5432/phiacta"
    login_host: 127.0.0.1
    login_user: phiacta
    login_password: "{{ postgres_password }}"
    database: phiacta
  register: migrations

- name: Say what was done
  ansible.builtin.debug:
    msg: "{{ migrations.applied | map(attribute='message') | join(', ') }}"
  when: migrations is changed

- name: The same with a service of the compose file, which has the address in its environment
  groundwork.backend.alembic_migrate:
    compose:
      project: semantik
      directory: /srv/semantik/current
      files: [/srv/semantik/current/docker-compose.yml]
      env_files: [/srv/semantik/shared/.env]
      service: webui
    login_host: 127.0.0.1
    login_password: "{{ postgres_password }}"
    database: semantik

- name: Go back by one revision, in a venv
  groundwork.backend.alembic_migrate:
    venv: /srv/phiacta/venv
    directory: /srv/phiacta/current
    url: "postgresql+psycopg://phiacta:{{ postgres_password | urlencode }}@127.0.0.1/phiacta"
    login_host: 127.0.0.1
    login_password: "{{ postgres_password }}"
    database: phiacta
    action: downgrade
    target: "-1"
"""

RETURN = r"""
applied:
  description:
    - The revisions that were applied, in order. On failure those that stay applied, because revisions that run in one
      transaction are taken back together.
  returned: unless it failed before Alembic ran
  type: list
  elements: dict
  contains:
    revision:
      description: The revision's id.
      type: str
    message:
      description: The first line of the revision's text.
      type: str
  sample: [{revision: 1975ea83b712, message: create account table}]
pending:
  description:
    - The revisions that are still to be applied, in order, like RV(applied). With O(action=upgrade) they are those up
      to O(target), otherwise those up to all heads.
  returned: unless it failed before Alembic ran
  type: list
  elements: dict
  sample: []
undone:
  description: The revisions that were undone, or would be, in order, like RV(applied).
  returned: with O(action=downgrade), unless it failed before Alembic ran
  type: list
  elements: dict
  sample: [{revision: 1975ea83b712, message: create account table}]
stamped:
  description: The revisions that were recorded, or would be, like RV(applied).
  returned: with O(action=stamp), unless it failed before Alembic ran
  type: list
  elements: dict
  sample: [{revision: 1975ea83b712, message: create account table}]
revisions:
  description: The revisions that the database is at, several when branches are not merged.
  returned: unless it failed before Alembic ran
  type: list
  elements: str
  sample: [1975ea83b712]
previous_revisions:
  description: RV(revisions) before the run.
  returned: unless it failed before Alembic ran
  type: list
  elements: str
  sample: []
heads:
  description: The last revisions of the scripts.
  returned: unless it failed before Alembic ran
  type: list
  elements: str
  sample: [1975ea83b712]
schema_version:
  description: RV(revisions) in one text, V(none) when there is no one.
  returned: unless it failed before Alembic ran
  type: str
  sample: 1975ea83b712
previous_version:
  description: RV(previous_revisions) in one text, V(none) when there was no one.
  returned: unless it failed before Alembic ran
  type: str
version_table:
  description: The table that remembers the revisions, as C(env.py) names it.
  returned: unless it failed before Alembic ran
  type: str
  sample: alembic_version
alembic_version:
  description: The version of Alembic.
  returned: unless it failed before Alembic ran
  type: str
  sample: 1.20.1
output:
  description: The last 64 KiB that Alembic, C(env.py) and the revisions printed, with secrets masked.
  returned: when Alembic ran or failed
  type: str
  sample: "INFO  [alembic.runtime.migration] Running upgrade  -> 1975ea83b712, create account table"
failed_revision:
  description: The revision that failed, like an element of RV(applied).
  returned: when a revision failed
  type: dict
  sample: {revision: 1975ea83b712, message: create account table}
"""

import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils import _postgres
from ansible_collections.groundwork.backend.plugins.module_utils._alembic import Run
from ansible_collections.groundwork.backend.plugins.module_utils._alembic_process import (
    Place,
    in_image,
    in_service,
    in_venv,
    require_image,
    require_service,
    texts,
)
from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module


def place_of(params: Mapping[str, Any]) -> Place:
    """Where Alembic runs."""
    if params["venv"]:
        return in_venv(params["venv"], params["directory"])
    where = {"python": params["python"], "directory": params["directory"]}
    if params["compose"]:
        require_service(params["compose"])
        return in_service(params["compose"], **where)
    require_image(params["image"], params["network"])
    return in_image(params["image"], network=params["network"], volumes=params["volumes"], **where)


def execute(context: Context) -> dict[str, Any]:
    """Check the options, then run."""
    params = context.params
    job = {
        "action": params["action"],
        "target": params["target"] or "head",
        "purge": params["purge"] and params["action"] == "stamp",
        "config": params["config"],
        "section": params["section"],
        "url": params["url"],
        "env": texts("env", params["env"]),
        "x": [f"{name}={value}" for name, value in texts("x_arguments", params["x_arguments"]).items()],
        "sql": context.check_mode and context.diff_mode,
        "read_only": context.check_mode,
    }

    def connect() -> Any:
        name = f"groundwork.backend alembic_migrate on {socket.gethostname()}"
        connection = _postgres.connect(params, application_name=name[:63])
        context.cleanup.callback(connection.close)
        return connection

    return Run(
        connect=connect,
        warn=context.warn,
        place=partial(place_of, params),
        job=job,
        lock_wait=params["lock_wait"],
        timeout=params["timeout"],
    ).execute()


def main() -> None:
    """Run the module."""
    login = _postgres.login_options()
    run_module(
        execute,
        unmasked=("env", "x_arguments"),
        argument_spec={
            **login["argument_spec"],
            "action": {"type": "str", "default": "upgrade", "choices": ["upgrade", "downgrade", "stamp"]},
            "target": {"type": "str"},
            "purge": {"type": "bool", "default": False},
            "venv": {"type": "path"},
            "image": {"type": "str"},
            "compose": {
                "type": "dict",
                "options": {
                    "project": {"type": "str", "required": True},
                    "directory": {"type": "path", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                    "env_files": {"type": "list", "elements": "path", "default": []},
                    "service": {"type": "str", "required": True},
                },
            },
            "directory": {"type": "str"},
            "config": {"type": "str", "default": "alembic.ini"},
            "section": {"type": "str", "default": "alembic"},
            "python": {"type": "str", "default": "python"},
            "network": {"type": "str"},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "env": {"type": "dict", "default": {}, "no_log": True},
            "url": {"type": "str", "no_log": True},
            "x_arguments": {"type": "dict", "default": {}, "no_log": True},
            "lock_wait": {"type": "float", "default": 60},
            "timeout": {"type": "float"},
        },
        required_one_of=[("venv", "image", "compose")],
        mutually_exclusive=[("venv", "image", "compose")],
        required_by={"venv": ["directory"], "network": ["image"]},
        required_if=[("action", "downgrade", ["target"]), ("action", "stamp", ["target"])],
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
