# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""run_module(): the only place that knows AnsibleModule and that turns an error into fail_json."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError


@dataclass
class Context:
    """What a module's execute() gets instead of an AnsibleModule.

    params:  the checked options.
    cleanup: callbacks that run on every way out, also after SIGTERM.
    warn:    adds a warning to the result.
    """

    params: dict[str, Any]
    check_mode: bool
    diff_mode: bool
    warn: Callable[[str], None]
    cleanup: ExitStack = field(default_factory=ExitStack)


def run_module(
    execute: Callable[[Context], dict[str, Any]], *, unmasked: Sequence[str] = (), **module_arguments: Any
) -> None:
    """Build the AnsibleModule, call *execute*, exit with its result.

    execute returns the result dictionary ("changed" is required; "diff" is dropped unless asked for) or raises
    GroundworkError, whose details are returned beside msg. Every other exception is reported as a bug of the module,
    in one sentence; its traceback goes to the result key "exception", which Ansible shows from -vvv on.

    unmasked names no_log options whose values Ansible shall not search for in the result, because it replaces every
    occurrence, also inside of file names and versions. Such an option stays out of the log and of "invocation", and
    *execute* answers for keeping its values out of what it returns; the result of a bug is masked all the same.
    """
    module = AnsibleModule(**module_arguments)
    context = Context(
        params=dict(module.params), check_mode=module.check_mode, diff_mode=bool(module._diff), warn=module.warn
    )
    masked = _masked_values(module, unmasked)
    for name in unmasked:
        module.params[name] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with context.cleanup:
            result = execute(context)
    except GroundworkError as error:
        module.no_log_values = masked
        module.fail_json(msg=str(error), **{"changed": False, **error.details})
    except OSError as error:
        hint = " Free space on that file system, then run again." if error.errno == errno.ENOSPC else ""
        module.fail_json(msg=f"The operating system refused: {error}.{hint}", changed=False)
    except Exception as error:  # a bug: the user gets a sentence, the developer the traceback
        module.fail_json(
            msg=f"Unexpected {type(error).__name__}: {error}. This is a bug in the module; please report it.",
            exception=traceback.format_exc(),
            changed=False,
        )
    if not context.diff_mode:
        result.pop("diff", None)
    module.no_log_values = masked
    module.exit_json(**result)


def _masked_values(module: Any, unmasked: Sequence[str]) -> set[str]:
    """The values that Ansible masks, without those that only the options *unmasked* hold."""
    if not unmasked:
        return set(module.no_log_values)
    secret = {name for name, option in module.argument_spec.items() if option.get("no_log")}
    own = _texts([module.params[name] for name in unmasked])
    others = _texts([module.params[name] for name in secret - set(unmasked)])
    return set(module.no_log_values) - (own - others)


def _texts(value: Any) -> set[str]:
    """Every scalar inside of a value, as text."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {str(value)}
