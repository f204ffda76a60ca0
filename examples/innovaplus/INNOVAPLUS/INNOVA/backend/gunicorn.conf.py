# SPDX-License-Identifier: GPL-3.0-or-later
"""How gunicorn runs the backend. With a socket of systemd (LISTEN_FDS) it takes that one, and binds none of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
import tempfile
from typing import Any

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

#: Seconds in which a worker that is to end has each answer end its connection: longer than the proxy keeps an idle
#: one (4), so that none is left on which the proxy could send the next request while it is being closed.
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS") or 4.5)
#: Seconds after them in which it reads what has come on connections that it has taken.
READ_SECONDS = 0.3


class DrainingServer(Server):
    """uvicorn closes its connections when it is to end, also one with a request in it that nobody has read yet.

    Whoever has sent that is told "connection reset", and a proxy does not send a POST twice. So it goes on for a
    while. The next process takes the connections that come after that.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").info("Answering what is on its way")
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        await asyncio.sleep(READ_SECONDS)
        await super().shutdown(sockets)


class DrainingWorker(UvicornWorker):
    """The worker of uvicorn-worker, with that server."""

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


wsgi_app = "innova.app:create_app()"
bind = f"127.0.0.1:{os.environ.get('PORT') or 8000}"
worker_class = DrainingWorker
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
# What is under way has this long to end, and a worker that says nothing that long is ended.
graceful_timeout = 25
timeout = 60
# Longer than the proxy keeps an idle connection (4 seconds): a POST on one that is being closed fails with 502.
keepalive = 15
# Requests are in the proxy's log; it is the only one whose word about the client counts.
accesslog = None
forwarded_allow_ips = "127.0.0.1,::1"
# Its folder would be the home of a user that has none.
control_socket_disable = True

# Each worker counts for itself, in files that any of them can sum up.
_FIGURES = "PROMETHEUS_MULTIPROC_DIR"
if _FIGURES not in os.environ:
    os.environ[_FIGURES] = tempfile.mkdtemp(prefix="innova-metrics-")


def child_exit(server: Any, worker: Any) -> None:
    """A worker has ended: what it counted stays, and what it alone could tell goes."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - it looks for the folder when it is imported

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """All have ended: the next start counts from nothing."""
    shutil.rmtree(os.environ[_FIGURES], ignore_errors=True)
