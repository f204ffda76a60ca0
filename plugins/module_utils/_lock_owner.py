# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Who a run of Ansible is, and whether the run that holds a lock is provably over. Runs on the controller.

Only what the kernel says is proof, never a clock. A wrong proof lets two deploys run at once, and a missing one only
costs a question: whatever is not known is "unknown".
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import pwd
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ansible_collections.groundwork.backend.plugins.module_utils import _exec
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError
from ansible_collections.groundwork.backend.plugins.module_utils._lock_record import Owner

_PROC = Path("/proc")
# PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h: the pid namespace of the machine itself.
_PID_NAMESPACE_OF_THE_MACHINE = 0xEFFFFFFC
_GONE = ("Z", "X")  # states in proc(5): a zombie has ended, whoever has not waited for it


@dataclass(frozen=True)
class Verdict:
    """What is known of a holder; reason is a sentence."""

    state: Literal["alive", "dead", "unknown"]
    reason: str


def main_process() -> int:
    """The process id of ansible-playbook itself; tasks run in workers that it forked."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getpid()


def identify(pid: int) -> Owner:
    """The run whose main process is *pid*, on this controller."""
    stat = _stat(pid)
    ticks = stat.start_ticks if stat else 0
    me = Owner(
        id="-",
        controller=platform.node(),
        user=_user(),
        pid=pid,
        process_started_at=_started_at(ticks) if ticks else _told_by_ps(pid),
        start_ticks=ticks,
        machine=_machine(),
        boot_id=_read("sys/kernel/random/boot_id"),
        pid_namespace=_pid_namespace(),
    )
    # Not of process_started_at where ticks are known: it is computed from a clock, which may be set in between.
    parts = (me.controller, me.machine, me.boot_id, me.pid_namespace, pid, ticks or me.process_started_at)
    return replace(me, id=hashlib.sha256(repr(parts).encode()).hexdigest()[:32])


def judge(holder: Owner, me: Owner) -> Verdict:
    """Whether the run *holder* is over, as far as *me*, a run on this controller, can prove it."""
    if not (me.machine and me.boot_id and me.pid_namespace):
        return Verdict(
            "unknown", "This controller is no Linux, or hides /proc: whether that run lives cannot be known."
        )
    if not (holder.machine and holder.boot_id and holder.pid_namespace and holder.start_ticks):
        return Verdict("unknown", "That run did not say enough of itself to know whether it lives.")
    if holder.machine != me.machine:
        return Verdict("unknown", f"It is a run on another machine than this controller ({me.controller}).")
    if holder.boot_id != me.boot_id:
        return _judge_other_boot(holder, me)
    if holder.pid_namespace != me.pid_namespace:
        return Verdict("unknown", "It is a run in another container of this controller, whose processes are not seen.")
    return _judge_process(holder)


def _judge_other_boot(holder: Owner, me: Owner) -> Verdict:
    # Images of containers and virtual machines often carry one machine id for all: another boot may be another machine.
    namespaces = {holder.pid_namespace, me.pid_namespace}
    if holder.controller == me.controller and namespaces == {_PID_NAMESPACE_OF_THE_MACHINE}:
        return Verdict("dead", f"{me.controller} was booted again since.")
    return Verdict("unknown", "It is a run of another boot, or of another machine with the same machine id.")


def _judge_process(holder: Owner) -> Verdict:
    try:
        os.kill(holder.pid, 0)  # unlike /proc it also knows of processes that the mount option hidepid hides
    except ProcessLookupError:
        return Verdict("dead", f"Its process {holder.pid} has ended.")
    except (PermissionError, OverflowError):
        pass
    stat = _stat(holder.pid)
    if stat is None:
        return Verdict("unknown", f"There is a process {holder.pid}, of which this user may know nothing.")
    if stat.start_ticks != holder.start_ticks:
        return Verdict("dead", f"Its process {holder.pid} has ended: another one has that number now.")
    if stat.state in _GONE:
        return Verdict("dead", f"Its process {holder.pid} has ended.")
    return Verdict("alive", f"Its process {holder.pid} runs on this controller.")


@dataclass(frozen=True)
class _Stat:
    state: str
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    """State and start of a process, of proc_pid_stat(5); its name may hold spaces and brackets."""
    _before, _bracket, after = _read(f"{pid}/stat").rpartition(")")
    found = after.split()
    return _Stat(found[0], int(found[19])) if len(found) > 19 else None


def _started_at(ticks: int) -> str:
    seconds_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(time.time() - seconds_ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _told_by_ps(pid: int) -> str:
    """The start of a process where there is no /proc."""
    with suppress(GroundworkError):
        return " ".join(_exec.run(["ps", "-o", "lstart=", "-p", str(pid)], check=False).stdout.split()) or "-"
    return "-"


def _machine() -> str:
    """A hash, because machine-id(5) wants the id itself kept on its machine."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            if text := Path(path).read_text().strip():
                return hashlib.sha256(f"groundwork.backend deploy_lock {text}".encode()).hexdigest()[:32]
    return ""


def _pid_namespace() -> int:
    try:
        return (_PROC / "self" / "ns" / "pid").stat().st_ino
    except OSError:
        return 0


def _user() -> str:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers often run under an id without a name
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {name}" if behind and behind != name else name


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text(errors="replace").strip()
    except OSError:
        return ""
