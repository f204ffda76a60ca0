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
    failed = [item for item in result.get("results") or () if item.get("failed")]
    one = failed[0] if failed else result
    message = str(one.get("msg") or "see the task above")
    if message != _COMMAND_FAILED:
        return message
    command = one.get("cmd") or ["the command"]
    program = (command.split() if isinstance(command, str) else list(map(str, command)))[0]  # arguments may be secrets
    printed = last_lines(str(one.get("stderr") or one.get("stdout") or "").strip())
    return f"{program.rpartition('/')[2]} ended with {one.get('rc')}: {printed or 'it printed nothing.'}"
