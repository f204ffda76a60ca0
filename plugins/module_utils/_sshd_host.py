# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""sshd on this host: a configuration that is tried before it is there, and the change itself."""

from __future__ import annotations

import errno
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.groundwork.backend.plugins.module_utils._artifact import sync_directory, write_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import StateError, last_lines, os_errors
from ansible_collections.groundwork.backend.plugins.module_utils._exec import Completed, run
from ansible_collections.groundwork.backend.plugins.module_utils._sshd import Connection, parse

ETC = Path("/etc/ssh")
UNIT = "ssh.service"
# Written before a change and removed after the reload: a run that was killed between them is finished by the next one.
PENDING = Path("/run/groundwork-sshd-pending")
_RELOAD_SECONDS = 10.0
_REEXEC_SECONDS = 0.5


@dataclass(frozen=True)
class Candidate:
    """A copy of sshd's configuration in *folder*, in which one file can be another. live is that file's true place."""

    binary: str
    folder: Path
    live: Path

    @classmethod
    def copy(cls, binary: str, folder: Path, live: Path) -> Candidate:
        """Copy what is there now. Raises StateError."""
        with os_errors(f"copy the configuration of sshd to {folder}"):
            shutil.copy2(ETC / "sshd_config", folder / "sshd_config")
            (folder / live.parent.name).mkdir()
            for path in live.parent.glob("*"):
                if path.is_file():
                    shutil.copy2(path, folder / live.parent.name / path.name)
            for path in folder.rglob("*"):
                if path.is_file():
                    path.write_bytes(cls._moved(path.read_bytes(), folder, live.parent.name))
        return cls(binary, folder, live)

    @staticmethod
    def _moved(content: bytes, folder: Path, name: str) -> bytes:
        """Includes of the folder of drop-ins lead to its copy; sshd takes relative ones from /etc/ssh."""
        result = []
        for line in content.splitlines(keepends=True):
            if line.strip().lower().startswith(b"include"):
                new = f"{folder}/{name}/".encode()
                own = line.replace(f"{ETC}/{name}/".encode(), b"\0").replace(f"{name}/".encode(), b"\0")
                result.append(own.replace(b"\0", new))
            else:
                result.append(line)
        return b"".join(result)

    def put(self, text: str) -> None:
        """Have this text as our file; "" for no file."""
        path = self.folder / self.live.parent.name / self.live.name
        path.write_text(text) if text else path.unlink(missing_ok=True)

    def test(self) -> str:
        """What sshd has against the complete configuration, with the true paths; "" for nothing."""
        done = self._sshd("-t")
        return "" if done.rc == 0 else last_lines(done.stderr or done.stdout, 5).replace(str(self.folder), str(ETC))

    def effective(self, who: Connection, file: str = "sshd_config") -> dict[str, list[str]]:
        """What sshd would do for a connection. Raises StateError."""
        address = who.local_address
        about = f"user={who.user},host={who.address},addr={who.address},laddr={address},lport={who.local_port}"
        done = self._sshd("-T", "-C", about, file=file)
        if done.rc != 0:
            raise StateError(f"sshd -T could not tell what holds for {who.user}: {last_lines(done.stderr, 5)}.")
        return parse(done.stdout)

    def _sshd(self, *arguments: str, file: str = "sshd_config") -> Completed:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, and only the running service makes it
        return run([self.binary, *arguments, "-f", str(self.folder / file)], check=False)


def is_active(unit: str) -> bool:
    """Whether a unit of systemd is active (or reloading)."""
    state = run(["systemctl", "show", "--property=ActiveState", "--value", unit], check=False).stdout.strip()
    return state in ("active", "reloading")


def greets(address: str, port: int) -> bool:
    """Whether an SSH server answers there."""
    host = address.strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, and nothing is bound
    try:
        with socket.create_connection((host, port), timeout=3) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def taken(address: str, port: int) -> bool:
    """Whether another program has this address and port."""
    host = address.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((host, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE and not greets(address, port)
    return False


def apply(path: Path, before: str | None, text: str, listening: Sequence[str]) -> bool:
    """Write the file and have a running sshd take it over; whether it was reloaded.

    Sessions stay. When sshd does not answer afterwards, everything is as before, and StateError says so.
    """
    ran = is_active(UNIT)
    with os_errors(f"write {PENDING}"):
        PENDING.touch()
    _write(path, text)
    try:
        done = run(["/usr/sbin/sshd", "-t"], check=False)
        if done.rc != 0:
            raise StateError(f"sshd refuses its configuration: {last_lines(done.stderr, 5)}")
        reloaded = reload(listening)
    except BaseException:
        _write(path, before or "")
        if ran:  # a restart where it died: sessions are processes of their own, and stay
            run(["systemctl", "reload" if is_active(UNIT) else "restart", UNIT], check=False)
        PENDING.unlink(missing_ok=True)
        raise
    PENDING.unlink(missing_ok=True)
    return reloaded


def _write(path: Path, text: str) -> None:
    with os_errors(f"write {path}"):
        if text:
            write_file(path, text.encode())
            path.chmod(0o644)
        else:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)


def reload(listening: Sequence[str]) -> bool:
    """Have a running sshd read its configuration; False when it does not run. Raises StateError.

    listening: ADDRESS:PORT of each socket that it shall have afterwards.
    """
    if not is_active(UNIT):
        return False
    run(["systemctl", "reload", UNIT], asked="reload sshd")
    time.sleep(_REEXEC_SECONDS)  # until then the process from before would answer
    wanted: dict[int, list[str]] = {}
    for one in listening:
        address, _, port = one.rpartition(":")
        wanted.setdefault(int(port), []).append(address)
    end = time.monotonic() + _RELOAD_SECONDS
    while silent := [port for port, where in wanted.items() if not any(greets(one, port) for one in where)]:
        if time.monotonic() > end or not is_active(UNIT):
            raise StateError(
                f"After its reload sshd does not answer on port {', '.join(map(str, silent))}, and the settings from "
                "before are back.",
                fix=f"Look at: journalctl --unit {UNIT}",
            )
        time.sleep(0.2)
    return True
