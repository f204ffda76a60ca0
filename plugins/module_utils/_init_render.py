# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The text of a new inventory's files; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._init_model import Plan

# what YAML 1.1 and 1.2 both read as text, as it stands
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@%+-]*\Z")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
# what JSON leaves as it is and YAML does not take
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# the only templates that these files have; any other curly brackets come from the user's files and mean themselves
_TEMPLATE = re.compile(r"\{\{ vault_[a-z0-9_]+( \| urlencode)?( \| replace\('/', '%2F'\))? \}\}")


def scalar(value: Any) -> str:
    """A value as YAML, readable by every YAML parser."""
    text = str(value)
    if _NUMBER.match(text) or (_PLAIN.match(text) and text.lower() not in _WORDS):
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """A text in double quotes, which is no template unless it is one of ours."""
    foreign = _TEMPLATE.sub("", text)
    tag = "!unsafe " if any(mark in foreign for mark in ("{{", "{%", "{#")) else ""
    return tag + _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def flow(value: Any) -> str:
    """A mapping or list on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(name)}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def hosts(name: str, host: str) -> str:
    """hosts.yml: one machine that carries the whole stack."""
    comment = "" if host else "# CHECK: put your server's name or address here.\n"
    entry = host or f"{name}.example.org"
    mapping = f"{{hosts: {{{scalar(entry)}: {{}}}}}}"
    return (
        f"# One machine that carries the whole stack of {name}.\n{comment}"
        f"all:\n  hosts:\n    {scalar(entry)}:\n      ansible_user: debian\n"
        f"  children:\n    app: {mapping}\n    database: {mapping}\n"
    )


def main_yml(name: str, source: str, compose_files: Sequence[str], plan: Plan) -> str:
    """group_vars/all/main.yml. source is a path, which may hold a template."""
    lines = [
        *(f"# {sentence}" for sentence in (["What to check before the first run:"] if plan.checks else [])),
        *(f"# - {sentence}" for sentence in plan.checks),
        *([""] if plan.checks else []),
        f"app_name: {scalar(name)}",
        f"app_source: {{path: {json.dumps(source)}}} # or {{git: URL, version: REF}}",
        f"app_compose_files: {flow(compose_files)}",
        "",
        "# Rendered to the .env beside the compose file, mode 0600. What begins with vault_ stands in vault.yml.",
        *_env(plan),
        "",
        "# port is the container's. expect and release (the field that repeats APP_RELEASE) are JMESPath on the JSON",
        "# answer: health: {path: /ready, expect: ok, release: release}",
        *_web(plan),
        *_block("app_migrations", plan.migrations),
        *_commented(_block("app_migrations", plan.unreachable)),
        *_block("backup_components", plan.backups),
        *_logins(plan),
        *(line for hint in plan.hints for line in ("", *(f"# {line}" for line in hint.splitlines()))),
    ]
    return "\n".join(lines) + "\n"


def _env(plan: Plan) -> list[str]:
    lines = ["app_env:" if any(line.active for line in plan.env) else "app_env: {}"]
    for line in plan.env:
        comment = f" # {line.comment}" if line.comment else ""
        lines.append(f"  {'' if line.active else '# '}{line.name}: {scalar(line.value)}{comment}")
    return lines


def _web(plan: Plan) -> list[str]:
    if not plan.web:
        return ["app_web_services: {} # CHECK: no service publishes a port"]
    lines = ["app_web_services:"]
    for name, service in plan.web.items():
        comment = f"seen in {service['seen']}" if service["seen"] else "CHECK: a guess"
        health = flow({"port": service["port"], "health": {"path": service["path"]}})
        lines.append(f"  {scalar(name)}: {health} # {comment}")
    return lines


def _block(variable: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return []
    lines = ["", f"{variable}:"]
    for entry in entries:
        for number, (name, value) in enumerate(entry.items()):
            lines.append(f"  {'-' if number == 0 else ' '} {name}: {flow(value)}")
    return lines


def _logins(plan: Plan) -> list[str]:
    if not plan.logins:
        return []
    lines = ["", "# For rotate_secret.yml: the role that the application logs in as."]
    lines.append("app_logins:")
    for name, entry in plan.logins.items():
        lines.append(f"  {scalar(name)}:")
        lines += [f"    {key}: {flow(value)}" for key, value in entry.items()]
    return lines


def _commented(lines: Sequence[str]) -> list[str]:
    return [f"# {line}" if line else "" for line in lines]


def vault_yml(plan: Plan) -> str:
    """The clear text of group_vars/all/vault.yml."""
    lines = ["# The secrets of the stack. To change one by hand: ansible-vault edit."]
    for name, secret in plan.vault.items():
        if secret.comment:
            lines.append(f"# {secret.comment}")
        lines.append(f"{name}: {quoted(secret.value)}")
    return "\n".join(lines) + "\n"
