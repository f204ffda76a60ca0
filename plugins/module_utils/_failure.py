# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a task that failed has to say, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.backend.plugins.module_utils._errors import last_lines

_COMMAND_FAILED = "non-zero return code"  # all that the module command says in msg


def failure(result: Mapping[str, Any]) -> str:
    """Why a task failed, from ansible_failed_result: of a loop its first failed item, of a command its last lines."""
    items = result.get("results")  # of a loop; some modules return something else under this name
    failed = [one for one in items if isinstance(one, Mapping) and one.get("failed")] if isinstance(items, list) else []
    one = failed[0] if failed else result
    message = str(one.get("msg") or "see the task above")
    if message != _COMMAND_FAILED:
        return message
    if one.get("_ansible_no_log") or result.get("_ansible_no_log"):
        return f"the command ended with {one.get('rc')}, and no_log hides what it printed."
    command = one.get("cmd")
    program = str(command[0]) if isinstance(command, list) and command else "the command"  # the rest may be secret
    printed = last_lines(str(one.get("stderr") or one.get("stdout") or "").strip())
    return f"{program.rpartition('/')[2]} ended with {one.get('rc')}: {printed or 'it printed nothing.'}"
