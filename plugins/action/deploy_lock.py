# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The controller's half of deploy_lock: who we are, whether the holder is provably dead, and how long to wait."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.groundwork.backend.plugins.module_utils._lock_owner import (
    Verdict,
    identify,
    judge,
    main_process,
)
from ansible_collections.groundwork.backend.plugins.module_utils._lock_record import Owner, Record, held

_MODULE = "groundwork.backend.deploy_lock"
# The module waits on the managed host for this long at a time; in between, the holder is judged again.
_CHUNK_SECONDS = 5.0


class ActionModule(ActionBase):
    """Calls the module until the lock is ours or the wait is over."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result, with what the controller knows of the holder."""
        super().run(tmp, task_vars)
        me = identify(main_process())
        begun = time.monotonic()
        wait = _seconds(self._task.args.get("wait", 0))
        if wait is None:  # the module says what is wrong with it
            return self._call({"owner": asdict(me)}, task_vars)
        chunk, replaces, verdict = 0.0, "", None
        while True:
            given = {"owner": asdict(me), "replaces": replaces, "wait": chunk}
            reply = self._call(given, task_vars)
            waited = time.monotonic() - begun
            if not (reply.get("failed") and reply.get("holder")):
                return self._finish(reply, me, verdict, waited)
            holder = Record.from_dict(reply["holder"])
            verdict = judge(holder, me)
            replaces = holder.id if verdict.state == "dead" and self._may_take_over() else ""
            if judge(me, me).state == "dead":
                raise AnsibleActionFail("The run that waited for this lock has ended.")
            if not replaces and waited >= wait:
                told = held(
                    self._task.args["path"], holder, waited if wait else 0, verdict.reason, self._host(task_vars)
                )
                reply.pop("exception", None)  # ansible-core shows it in place of msg
                return {**reply, "msg": str(told), "verdict": verdict.state, "waited": round(waited, 1)}
            chunk = 0.0 if replaces else max(0.0, min(_CHUNK_SECONDS, wait - waited))

    def _call(self, given: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        reply: dict[str, Any] = self._execute_module(
            module_name=_MODULE, module_args={**self._task.args, **given}, task_vars=task_vars
        )
        return reply

    def _finish(self, reply: dict[str, Any], me: Owner, verdict: Verdict | None, waited: float) -> dict[str, Any]:
        if reply.get("failed"):
            return reply
        reply["waited"] = round(waited, 1)
        if (before := reply.get("taken_over_from")) and verdict and verdict.state == "dead":
            before["reason"] = verdict.reason
        if before:
            self._display.warning(f"Took over the lock of {Record.from_dict(before)}. {before['reason']}")
        if (holder := reply.get("holder")) and reply["verdict"] == "unknown":
            known = judge(Record.from_dict(holder), me)
            reply |= {"verdict": known.state, "summary": f"{reply['summary']}. {known.reason}"}
        return reply

    def _may_take_over(self) -> bool:
        return bool(boolean(self._task.args.get("takeover", True), strict=False))

    def _host(self, task_vars: dict[str, Any] | None) -> str:
        return str(self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "HOST"))


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None
