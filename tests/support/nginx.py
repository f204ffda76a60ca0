# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""An nginx of a test's own: its folder, its sockets, its files, started and stopped by the test."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.modules import ModuleRunner

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
# Workers read the folder of a test, which nobody else may enter.
_MAIN = """
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/etc/conf.d/*.conf;
    include groundwork/live/http/*.conf;
}}
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, so that no test needs a port."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class OwnNginx:
    """nginx with its files below *folder*."""

    folder: Path
    module: ModuleRunner

    @property
    def directory(self) -> Path:
        """The folder of the generations."""
        return self.folder / "etc" / "groundwork"

    @property
    def config(self) -> Path:
        """The main configuration file."""
        return self.folder / "etc" / "nginx.conf"

    @property
    def socket(self) -> Path:
        """Where the server listens that server() describes."""
        return self.folder / "s"

    def server(self, text: str, *more: str) -> str:
        """A server that answers with *text*."""
        lines = "".join(f"    {line}\n" for line in more)
        return f"server {{\n    listen unix:{self.socket};\n{lines}    location / {{ return 200 '{text}'; }}\n}}\n"

    def arguments(self, files: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """What the module is called with."""
        places = {"config": str(self.config), "directory": str(self.directory), "binary": PROGRAM, "settle": 0}
        return {**places, "files": dict(files or {}), **more}

    def call(self, files: Mapping[str, Any] | None = None, *, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run the module."""
        return self.module("nginx_config", self.arguments(files, **more), check=check)

    def change(self, files: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Run the module; it has to change something."""
        result = self.call(files, **more)
        assert result["changed"] is True, result
        return result

    def start(self) -> int:
        """Start nginx and return the master's process id."""
        subprocess.run([PROGRAM, "-c", self.config], check=True, timeout=60)
        return self.master

    @property
    def master(self) -> int:
        """The master's process id."""
        return int((self.folder / "nginx.pid").read_text())

    def stop(self) -> None:
        """Stop nginx if it runs."""
        pid = self.folder / "nginx.pid"
        if pid.exists() and (text := pid.read_text().strip()):
            os.kill(int(text), signal.SIGTERM)
            while pid.exists() or self.socket.exists():
                time.sleep(0.02)

    def get(self, path: str = "/") -> str:
        """What the server answers."""
        connection = UnixConnection(self.socket)
        connection.request("GET", path)
        return connection.getresponse().read().decode()


@contextmanager
def own_nginx(module: ModuleRunner) -> Iterator[OwnNginx]:
    """An nginx that is not started yet; its folder goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="gw-nginx-", dir="/tmp"))
    (folder / "etc" / "conf.d").mkdir(parents=True)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "etc" / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
    nginx = OwnNginx(folder, module)
    try:
        yield nginx
    finally:
        nginx.stop()
        shutil.rmtree(folder)
