# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""nginx_config reloads a real nginx: no request is lost, and a kill leaves a whole generation."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.modules import ModuleRunner
from support.nginx import PROGRAM, OwnNginx, UnixConnection, own_nginx

SITE = "http/site.conf"
# Ends the module with SIGKILL at its STEP-th change of a file, signal or process; "steps" has how far it came.
_KILLER = """
import os, signal, sys
count = 0
def hook(event, arguments):
    global count
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    changes = event in ("os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.kill")
    place = os.environ["PLACE"]
    if changes and event != "os.kill" or writes:
        first = arguments[0] if isinstance(arguments[0], (str, os.PathLike)) else ""
        last = arguments[1] if event == "os.symlink" else first
        changes = str(os.fspath(last)).startswith(place)
    if changes or event == "os.kill" and arguments[1] == signal.SIGHUP:
        count += 1
        if count == int(os.environ["STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


class _Gate(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A service whose answers to /slow wait until the gate is open."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path) -> None:
        self.open, self.came = threading.Event(), threading.Semaphore(0)
        super().__init__(str(path), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Gate

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.came.release()
            self.server.open.wait(120)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def nginx(module: ModuleRunner) -> Iterator[OwnNginx]:
    """An nginx that is not started."""
    with own_nginx(module) as server:
        yield server


@pytest.fixture
def gate(nginx: OwnNginx) -> Iterator[_Gate]:
    """A service behind nginx, which runs and tells clients to close when it is about to be replaced."""
    with _Gate(nginx.folder / "service") as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        nginx.change({SITE: proxy(nginx)})
        nginx.start()
        yield service
        service.open.set()
        service.shutdown()


def proxy(nginx: OwnNginx) -> str:
    """Passes everything on to the service."""
    return f"""include groundwork/live/generation.conf;
map "$groundwork_stale" $closing {{
    1 close;
    default "";
}}
server {{
    listen unix:{nginx.socket};
    root {nginx.directory}/live/root;
    add_header Connection $closing always;
    location / {{
        proxy_pass http://unix:{nginx.folder}/service:;
    }}
}}
"""


def slow_request(nginx: OwnNginx, gate: _Gate) -> UnixConnection:
    """A request that the service has and does not answer yet."""
    connection = UnixConnection(nginx.socket)
    connection.request("GET", "/slow")
    assert gate.came.acquire(timeout=60)
    return connection


def test_a_request_outlives_a_reload_and_is_told_of_as_draining(nginx: OwnNginx, gate: _Gate) -> None:
    connection = slow_request(nginx, gate)
    result = nginx.change({"http/more.conf": "# more\n"})
    assert len(result["draining"]) == 1
    assert nginx.get() == "ok"
    gate.open.set()
    assert connection.getresponse().read() == b"ok"
    drained = nginx.call(state="drained", workers=result["draining"], timeout=60)
    assert (drained["changed"], drained["draining"]) == (False, [])


def test_waiting_for_a_request_that_does_not_end_gives_up_with_a_sentence(nginx: OwnNginx, gate: _Gate) -> None:
    connection = slow_request(nginx, gate)
    old = nginx.change({"http/more.conf": "# more\n"})["draining"]
    assert nginx.call(check=True, state="drained", workers=old)["draining"] == old
    result = nginx.call(state="drained", workers=old, timeout=0)
    assert f"Old workers of nginx (process {old[0]}) still have connections after 0 seconds." in result["msg"]
    gate.open.set()
    assert connection.getresponse().status == 200


def test_a_worker_that_serves_is_not_waited_for(nginx: OwnNginx, gate: _Gate) -> None:
    assert nginx.call(state="drained", workers=[nginx.master, os.getpid()], timeout=0)["draining"] == []


def test_an_answer_given_after_a_reload_says_that_the_connection_ends(nginx: OwnNginx, gate: _Gate) -> None:
    connection = slow_request(nginx, gate)
    nginx.change({"http/more.conf": "# more\n"})
    gate.open.set()
    assert "close" in connection.getresponse().headers.get_all("Connection", [])
    fresh = UnixConnection(nginx.socket)
    fresh.request("GET", "/")
    assert fresh.getresponse().headers.get_all("Connection") == ["keep-alive"]


def test_busy_clients_lose_no_request(nginx: OwnNginx, gate: _Gate) -> None:
    stop, failed, answered = threading.Event(), [], []

    def ask() -> None:
        connection = UnixConnection(nginx.socket)
        while not stop.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answered.append(answer.read())
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))
                connection.close()
                continue
            if "close" in answer.headers.get_all("Connection", []):
                connection.close()

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for number in range(8):
        assert nginx.change({"http/more.conf": f"# {number}\n"}, settle=0.5)["reloaded"] is True
    stop.set()
    for client in clients:
        client.join()
    assert failed == []
    assert set(answered) == {b"ok"}


def test_killed_at_any_step_either_generation_is_live_and_the_next_call_ends_it(nginx: OwnNginx) -> None:
    killer = nginx.folder / "killer"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text(_KILLER)
    nginx.change({SITE: nginx.server("old")})
    nginx.start()
    killed, step = 0, 0
    while True:
        step += 1
        wanted = {SITE: nginx.server(f"new{step}"), "http/more.conf": f"# {step}\n"}
        before = nginx.get()
        env = {"PYTHONPATH": str(killer), "PLACE": str(nginx.directory), "STEP": str(step)}
        process = nginx.module.start("nginx_config", nginx.arguments(wanted), env=env)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), out + err
        text = (nginx.directory / "live" / SITE).read_text()
        assert text in (nginx.server(before), wanted[SITE])
        if text == wanted[SITE]:
            assert (nginx.directory / "live" / "http/more.conf").read_text() == f"# {step}\n"
        subprocess.run([PROGRAM, "-t", "-q", "-c", nginx.config], check=True)
        assert nginx.get() in (before, f"new{step}")
        if process.returncode == 0:
            break
        killed += 1
        again = nginx.call(wanted)
        assert not again.get("failed"), again
        assert nginx.get() == f"new{step}"
        assert len(list(nginx.directory.glob("generations/*"))) == 2
        assert not list(nginx.directory.glob("generations/.partial*"))
    assert killed > 10
