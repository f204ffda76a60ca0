# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The controller's half of a module that tells how far it is: lines at a terminal, and nothing else anywhere else."""

from __future__ import annotations

import copy
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction

from ansible_collections.groundwork.backend.plugins.module_utils._progress import parse
from ansible_collections.groundwork.backend.plugins.module_utils._progress_told import Teller, pause

# Asked when this file is imported, which the strategy does in the main process: the process of a task has its standard
# output on /dev/null since ansible-core 2.19.
_TERMINAL = sys.stdout.isatty()
_LAST_LOOK_SECONDS = 5.0


class ProgressAction(NormalAction):
    """Runs the module of the task's name as Ansible does without an action plugin; at a terminal, tells how far it is.

    The module runs as ever and only gets the option progress_file. Beside it a thread reads that file over a connection
    of its own, so that no failure to read can change the result, and an interrupted run ends as without it.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        if not _TERMINAL or self._task.async_val or self._task.no_log:
            result: dict[str, Any] = super().run(tmp, task_vars)
            return result
        given = self._task.args
        folder = self.get_shell_option("remote_tmp", default="~/.ansible/tmp")
        name = f"groundwork-progress-{uuid.uuid4().hex}.json"
        self._task.args = {**given, "progress_file": f"{folder}/{name}"}
        try:
            # The shell and Python expand ~ alike: both run as the user that the module runs as.
            with self._telling(f'cat "`echo {folder}`/{name}"', (task_vars or {}).get("inventory_hostname", "")):
                result = super().run(tmp, task_vars)
        finally:
            self._task.args = given
        return result

    @contextmanager
    def _telling(self, command: str, host: str) -> Iterator[None]:
        """Tell in a thread until the block ends."""
        ended = threading.Event()
        thread = threading.Thread(target=self._tell, args=(command, host, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_LAST_LOOK_SECONDS)

    def _tell(self, command: str, host: str, ended: threading.Event) -> None:
        reader, teller, begun = self._reader(), Teller(), time.monotonic()
        while not ended.wait(pause(time.monotonic() - begun)):
            try:
                answer = reader._low_level_execute_command(command)
            except Exception as error:  # whatever it is, the module goes on, and its own connection says what is wrong
                self._display.vvv(f"Progress cannot be read any more: {error}", host=host)
                return
            reading = parse(answer["stdout"])
            if reading and not ended.is_set() and (line := teller.line(reading)):
                self._display.display(f"[{host}]: {line}", screen_only=True)

    def _reader(self) -> ProgressAction:
        """Ourselves, with a connection whose state of the command in progress is not that of the module's."""
        reader = copy.copy(self)
        reader._connection = copy.copy(self._connection)
        reader._connection.become = copy.copy(self._connection.become)
        return reader
