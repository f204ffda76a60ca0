# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""run_module(): the only place that knows AnsibleModule and that turns an error into fail_json."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Callable
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


def run_module(execute: Callable[[Context], dict[str, Any]], **module_arguments: Any) -> None:
    """Build the AnsibleModule, call *execute*, exit with its result.

    execute returns the result dictionary ("changed" is required; "diff" is dropped unless asked for) or raises
    GroundworkError, whose details are returned beside msg. Every other exception is reported as a bug of the module,
    in one sentence; its traceback goes to the result key "exception", which Ansible shows from -vvv on.
    """
    module = AnsibleModule(**module_arguments)
    context = Context(
        params=module.params, check_mode=module.check_mode, diff_mode=bool(module._diff), warn=module.warn
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with context.cleanup:
            result = execute(context)
    except GroundworkError as error:
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
    module.exit_json(**result)
