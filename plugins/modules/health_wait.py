#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wait until health checks hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_wait
short_description: Wait until health checks hold, all at once, with one deadline
version_added: 0.1.0
description:
  - Runs all checks at the same time and returns as soon as every one of them holds.
  - Ends early when a check cannot hold any more, for example because its container exited or is in a restart loop.
  - A failure says in its first line which checks failed and why, and returns the logs behind them.
  - Attempts follow each other quickly at first, and up to O(checks[].interval) apart later.
author:
  - groundwork.backend contributors (@groundwork-backend)
attributes:
  check_mode:
    description: Can run in check mode and return what a real run would return.
    support: full
    details: The module only reads, so that check mode waits as a real run does.
  diff_mode:
    description: Returns what changed when in diff mode.
    support: full
    details: Nothing is ever changed.
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  timeout:
    description: Seconds after which the wait fails.
    type: float
    default: 60.0
  log_lines:
    description: How many of the last log lines of a failed check's container or unit are returned.
    type: int
    default: 200
  checks:
    description:
      - What to wait for. Each kind has keys of its own, and a key that its kind does not have is an error.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Names the check in messages and in RV(checks). By default made of its URL, port or container.
        type: str
      kind:
        description: What is checked.
        type: str
        required: true
        choices: [http, tcp, container, compose, systemd, postgres, mongo, redis, command, file, certificate]
      expect:
        description:
          - With V(down), the check holds when it does not pass, for example after something was stopped.
          - A container that is still starting is neither up nor down.
        type: str
        choices: [up, down]
        default: up
      optional:
        description:
          - An optional check never fails the wait.
          - It is waited for only while other checks are waited for, or for its own O(checks[].timeout) if that is set.
        type: bool
        default: false
      timeout:
        description: Seconds from the start of the wait after which this check fails. By default O(timeout).
        type: float
      interval:
        description: The longest pause between two attempts, in seconds.
        type: float
        default: 1.0
      attempt_timeout:
        description: Seconds that one attempt may take.
        type: float
        default: 5.0
      stable_for:
        description: The check has to pass without a break for this many seconds.
        type: float
        default: 0.0
      consecutive:
        description: The check has to pass this many times without a break.
        type: int
        default: 1
      log_container:
        description:
          - The container whose log is returned when the check fails.
          - Not for V(container), V(compose) and V(systemd), which show their own.
        type: dict
        suboptions:
          container:
            description: Its name or id.
            type: str
          project:
            description: Its compose project, together with O(checks[].log_container.service).
            type: str
          service:
            description: Its compose service.
            type: str
      log_unit:
        description: The systemd unit whose journal is returned instead when the check fails.
        type: str
      fail_fast:
        description:
          - Ends the wait at once when a name cannot be resolved, there is no such container, or a login is refused.
          - By default V(false), and the wait goes on, as both may appear.
        type: bool
      release:
        description:
          - Tells the new release from an old process that still answers. For O(checks[].kind=http),
            O(checks[].kind=tcp), O(checks[].kind=container) and O(checks[].kind=systemd).
        type: dict
        suboptions:
          field:
            description:
              - JMESPath expression on the JSON answer, or on what C(docker container inspect) tells.
              - For V(systemd) on what C(systemctl show) tells, and V(cwd), the working directory of the main process.
              - For V(tcp) on V(cwd), V(exe) and V(pid) of each process of the host that listens on the port. It needs
                root, unless the process is the user's own.
            type: str
            required: true
          equals:
            description: What the field has to be.
            type: str
            required: true
      url:
        description: V(http) - The URL. Required for this kind.
        type: str
      method:
        description: V(http) - The request method. By default V(GET).
        type: str
      headers:
        description: V(http) - Request headers.
        type: dict
      secret_headers:
        description: V(http) - Request headers whose values are secrets, such as API keys.
        type: dict
      body:
        description: V(http) - Request body. What is not a string is sent as JSON. Not a place for secrets.
        type: raw
      status:
        description: V(http) - Accepted status codes. By default only 200; a redirect is not healthy.
        type: list
        elements: int
      jmespath:
        description:
          - V(http) - JMESPath expression on the JSON answer that may not give false, null, 0 or something empty.
          - Needs the Debian package C(python3-jmespath) on the host.
        type: str
      expect_value:
        description: V(http) - What O(checks[].jmespath) has to give instead.
        type: raw
      regex:
        description:
          - Python regular expression that has to match somewhere in the answer.
          - For V(http) it looks at the body, for V(tcp) at what the server sends, for V(command) at what it prints, for
            V(file) at its content (at most 64 KiB).
        type: str
      header_regex:
        description: V(http) - Names of response headers with the regular expressions that they have to match.
        type: dict
      follow_redirects:
        description:
          - V(http) - Follows up to 5 redirects, with V(GET). Headers and credentials are sent to the first server only.
          - By default V(false).
        type: bool
      validate_certs:
        description:
          - V(http), V(certificate) - Whether the certificate is verified. By default V(true).
          - For V(certificate) it still has to be valid at this time when this is V(false).
        type: bool
      ca_cert:
        description:
          - V(http), V(postgres), V(mongo), V(certificate) - File on the host with the CA certificates to trust.
          - By default those of the system, and for V(postgres) none.
        type: path
      server_name:
        description: V(http), V(certificate) - Name to ask for and to expect in the certificate, instead of the host.
        type: str
      address:
        description: V(http) - Name or address to connect to, instead of the URL's host. The port is the URL's.
        type: str
      unix_socket:
        description: V(http) - Unix socket to connect to.
        type: path
      username:
        description:
          - V(http) - User for basic authentication, together with O(checks[].password).
          - V(redis) - User of the access control list, together with O(checks[].password).
        type: str
      password:
        description: V(http), V(redis) - Password.
        type: str
      bearer:
        description: V(http) - Token for bearer authentication.
        type: str
      host:
        description:
          - V(tcp), V(redis) - Name or address. By default V(127.0.0.1).
          - V(certificate) - Name or address of the server. Required for this kind.
        type: str
      port:
        description:
          - V(tcp) - Port. Required for this kind.
          - V(redis), V(certificate) - Port. By default V(6379) and V(443).
        type: int
      send:
        description: V(tcp) - Text to send once connected. Not a place for secrets.
        type: str
      container:
        description:
          - V(container) - Name or id of the container.
          - It has to be healthy by its own health check or, without one, run for O(checks[].running_for) seconds.
        type: str
      project:
        description:
          - V(container) - Compose project, with O(checks[].service), instead of O(checks[].container).
          - V(compose) - Compose project, each of whose services has to be up, or finished with exit code 0 when it is a
            one-shot. Required for this kind.
        type: str
      service:
        description: V(container) - Compose service, all of whose containers are checked.
        type: str
      one_shot:
        description: V(container), V(systemd) - It is meant to end with exit code 0. By default V(false).
        type: bool
      running_for:
        description:
          - V(container), V(compose) - Seconds that a container without a health check has to run. By default V(3).
          - V(systemd) - Seconds that the unit has to be active. By default V(3), and V(0) for a unit that tells
            systemd when it is ready.
        type: float
      max_restarts:
        description:
          - V(container), V(compose), V(systemd) - Restarts after which it is in a restart loop. By default V(3).
        type: int
      unit:
        description:
          - V(systemd) - The unit that has to be active, and that may not restart meanwhile. Required for this kind.
          - A unit that failed or that does not exist ends the wait, and so does one that runs, and whose gunicorn loses
            its workers again and again, or all of them.
        type: str
      services:
        description: V(compose) - Services that need a container. By default those that have one.
        type: list
        elements: str
      one_shots:
        description:
          - V(compose) - Services that are meant to end with exit code 0.
          - Those that another service waits for with C(service_completed_successfully) need not be named.
        type: list
        elements: str
      images:
        description:
          - V(container), V(compose) - Images that have to be on the host; one that is missing ends the wait.
          - Docker does not tell why there is no container, nor whether an image is on its way.
        type: list
        elements: str
      login_host:
        description:
          - V(postgres), V(mongo) - Name or address of the server. By default V(127.0.0.1).
          - For V(postgres) never a Unix socket, where an image that is still initialising answers already.
        type: str
      login_port:
        description: V(postgres), V(mongo) - Port of the server. By default V(5432) and V(27017).
        type: int
      login_user:
        description: V(postgres), V(mongo) - User to log in as. By default V(postgres), and for V(mongo) none.
        type: str
      login_password:
        description: V(postgres), V(mongo) - Its password.
        type: str
      database:
        description:
          - V(postgres) - Database to ask a query. Required for this kind.
          - A wrong password, a missing role and a missing database are waited for, as an image may still make them.
            With O(checks[].fail_fast) they end the wait.
          - V(mongo) - Database that the user belongs to. By default V(admin).
        type: str
      ssl_mode:
        description: V(postgres) - How TLS is used, in libpq's words. By default V(prefer).
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      minimum_schema_version:
        description: V(postgres) - The lowest version that M(groundwork.backend.pgvector_migrate) has to have recorded.
        type: str
      ledger_schema:
        description: V(postgres) - Schema of the table with these records. By default V(public).
        type: str
      ledger_table:
        description: V(postgres) - Name of that table. By default V(schema_migrations).
        type: str
      extension:
        description: V(postgres) - An extension that has to be in the database, such as V(vector).
        type: str
      tls:
        description: V(mongo) - Whether the connection uses TLS. By default V(false).
        type: bool
      replica_set:
        description: V(mongo) - Name of the replica set that the member has to belong to.
        type: str
      member_state:
        description: V(mongo) - What the member has to be in its replica set.
        type: str
        choices: [primary, secondary]
      argv:
        description:
          - V(command) - Program and arguments, run without a shell. Required for this kind. Not a place for secrets.
          - It should only read, as it runs again and again, and in check mode, too.
        type: list
        elements: str
      chdir:
        description: V(command) - Folder to run it in.
        type: path
      secret_env:
        description: V(command) - Environment variables whose values are secrets.
        type: dict
      exit_codes:
        description: V(command) - Accepted exit codes. By default only 0.
        type: list
        elements: int
      path:
        description: V(file) - Absolute path of what has to be there. Required for this kind.
        type: path
      min_bytes:
        description: V(file) - Its smallest size in bytes.
        type: int
      max_age:
        description: V(file) - Seconds since it was changed last, at most.
        type: float
      names:
        description: V(certificate) - Names that the certificate has to be for. By default the name that was asked for.
        type: list
        elements: str
      issuer:
        description: V(certificate) - Python regular expression that the issuer has to match, such as V(Let's Encrypt).
        type: str
      min_days:
        description: V(certificate) - Days for which the certificate is valid, at least. By default V(0).
        type: float
      same_as:
        description: V(certificate) - File on the host whose first certificate has to be the one that is served.
        type: path
notes:
  - The checks run on the host, with the standard library of Python and the C(docker) and C(systemctl) command lines.
seealso:
  - module: ansible.builtin.uri
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: Wait for the whole stack
  groundwork.backend.health_wait:
    timeout: 60
    checks:
      - name: web
        kind: http
        url: http://127.0.0.1:8081/health
        jmespath: ok
        release: {field: release, equals: "{{ app_release }}"}
        log_container: {project: verisphere, service: semantic-dedupe}
      - name: database
        kind: postgres
        login_password: "{{ postgres_password }}"
        database: verisphere
        minimum_schema_version: "0003"
        extension: vector
      - {name: postgres, kind: container, project: verisphere, service: postgres}
      - {name: migrations, kind: container, project: verisphere, service: migrate, one_shot: true}
  register: health

- name: Show how long the web service took
  ansible.builtin.debug:
    msg: "Up after {{ health.checks.web.seconds }} seconds"

- name: The public name, as the world sees it, before DNS points to this host
  groundwork.backend.health_wait:
    checks:
      - {name: public, kind: http, url: "https://app.example.org/ready", address: 127.0.0.1, stable_for: 5}
"""

RETURN = r"""
checks:
  description: What was found, by the names of the checks. Also returned on failure.
  returned: after a wait
  type: dict
  contains:
    kind:
      description: The kind of the check.
      type: str
    state:
      description:
        - V(ok) when it holds, V(failed) when it cannot hold any more, V(timeout) when its time was over,
          V(waiting) when the wait ended before.
      type: str
    optional:
      description: Whether the check was optional.
      type: bool
    attempts:
      description: How often it was tried.
      type: int
    seconds:
      description: Seconds until it passed for the first time, null when it never did.
      type: float
    last_error:
      description: Why it did not pass the last time that it did not; empty when it always passed.
      type: str
    status:
      description:
        - HTTP status, exit code, the state that Docker or systemd tells, the server's version, or the days that a
          certificate is valid; null when there was no answer.
      type: raw
    body:
      description: The first 2048 characters of the last answer.
      type: str
  sample:
    web: {kind: http, state: ok, optional: false, attempts: 9, seconds: 1.2, last_error: "", status: 200, body: "{}"}
elapsed:
  description: Seconds that the wait took.
  returned: after a wait
  type: float
unmet:
  description: Names of the checks that did not hold. After a success they are optional ones.
  returned: after a wait
  type: list
  elements: str
logs:
  description: The last O(log_lines) lines of the logs behind the failed checks, by the names of the checks.
  returned: on failure
  type: dict
"""

from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._module import Context, run_module
from ansible_collections.groundwork.backend.plugins.module_utils._probe_kinds import check_options
from ansible_collections.groundwork.backend.plugins.module_utils._probe_wait import wait_for


def execute(context: Context) -> dict[str, Any]:
    """Wait, and return or raise what was found."""
    params = context.params
    for check in params["checks"]:  # Ansible shows them as the invocation, with every key of every kind
        for key in [key for key, value in check.items() if value is None]:
            del check[key]
    return {"changed": False, **wait_for(params["checks"], params["timeout"], log_lines=params["log_lines"])}


def main() -> None:
    """Entry point of the module."""
    run_module(
        execute,
        argument_spec={
            "timeout": {"type": "float", "default": 60.0},
            "log_lines": {"type": "int", "default": 200},
            "checks": {"type": "list", "elements": "dict", "required": True, "options": check_options()},
        },
        supports_check_mode=True,
    )


if __name__ == "__main__":
    main()
