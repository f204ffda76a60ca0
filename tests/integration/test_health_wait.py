# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait against real HTTP, TLS, Unix socket and TCP servers on the loopback interface."""

from __future__ import annotations

import base64
import itertools
import json
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import fastapi
import pytest
import uvicorn
from support.certificates import Authority
from support.modules import ModuleRunner
from support.postgres import free_port

CANARY = 'canary"ü/+42'


class _Handler(BaseHTTPRequestHandler):
    """Answers by path; /echo repeats what it was sent."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(length).decode()
        seen = {**dict(self.headers), "method": self.command, "body": sent}
        answers: dict[str, tuple[int, dict[str, str], str]] = {
            "/health": (200, {}, json.dumps({"ok": True, "release": "abc", "n": 0, "deep": {"mongo": "ok"}})),
            "/degraded": (200, {}, json.dumps({"ok": False})),
            "/text": (200, {"X-Version": "7.2"}, "all systems\nnominal"),
            "/html": (200, {}, "<html>"),
            "/charset": (200, {"Content-Type": "text/plain; charset=klingon"}, "fine"),
            "/moved": (301, {"Location": "/health"}, ""),
            "/loop": (302, {"Location": "/loop"}, ""),
            "/busy": (503, {}, "warming up"),
            "/echo": (200, {}, json.dumps(seen, ensure_ascii=False) + str(dict(self.headers))),
            "/padded": (503, {}, "x" * 2040 + str(self.headers.get("X-Api-Key"))),
        }
        if self.path == "/hang":
            time.sleep(30)
        if self.path == "/elsewhere":
            answers["/elsewhere"] = (302, {"Location": str(getattr(self.server, "elsewhere", ""))}, "")
        status, headers, text = answers.get(self.path.split("?", maxsplit=1)[0], (404, {}, "no such page"))
        data = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + (100 if self.path.endswith("cut") else 0)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET
    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "client"


class _Server(ThreadingHTTPServer):
    request_queue_size = 500
    elsewhere = ""


class _TlsServer(_Server):
    def handle_error(self, *arguments: object) -> None:
        """Refused handshakes are what is tested."""


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    pass


_AnyServer = TypeVar("_AnyServer", bound=socketserver.BaseServer)


@contextmanager
def _serve(server: _AnyServer) -> Iterator[_AnyServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def web() -> Iterator[_Server]:
    """A web server."""
    server = _Server(("127.0.0.1", 0), _Handler)
    with _serve(server):
        yield server


@pytest.fixture(scope="module")
def url(web: _Server) -> str:
    """Its address."""
    return f"http://127.0.0.1:{web.server_address[1]}"


@pytest.fixture
def wait(module: ModuleRunner) -> Callable[..., dict[str, Any]]:
    """wait({"url": …}, …, timeout=2) runs the module; the kind is http unless told."""

    def run(*checks: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        filled = [{"kind": "http", "name": f"c{position}", **given} for position, given in enumerate(checks, 1)]
        result = module("health_wait", {"timeout": 3, "checks": filled, **options}, check=check)
        assert result["changed"] is False
        return result

    return run


Wait = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Certificates:
    """An own CA and a certificate for app.example.org and 127.0.0.1."""

    ca: Path
    chain: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Written once."""
    authority = Authority.create(tmp_path_factory.mktemp("tls"))
    return Certificates(authority.path, authority.issue("app.example.org", "127.0.0.1"))


@pytest.fixture(scope="module")
def tls_port(certificates: Certificates) -> Iterator[int]:
    """The port of a server with a certificate of the own CA."""
    server = _TlsServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.chain)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with _serve(server):
        yield server.server_address[1]


def test_all_conditions_hold(wait: Wait, url: str) -> None:
    """JSON, text, headers, status and release, in a real run and in check mode."""
    checks = [
        {"url": f"{url}/health", "jmespath": "ok", "release": {"field": "release", "equals": "abc"}},
        {"url": f"{url}/health", "jmespath": "deep.mongo", "expect_value": "ok"},
        {"url": f"{url}/health", "jmespath": "n", "expect_value": 0},
        {"url": f"{url}/health", "jmespath": "n == `0` && ok"},
        {"url": f"{url}/text", "regex": "systems\\s+nominal", "header_regex": {"x-version": "^7\\."}},
        {"url": f"{url}/busy", "status": [200, 503]},
        {"url": f"{url}/moved", "follow_redirects": True, "jmespath": "ok"},
        {"url": f"{url}/charset", "regex": "fine"},
        {"url": f"{url}/health", "method": "HEAD"},
        {"url": f"{url}/echo?x=1", "body": {"a": 1}, "method": "post", "regex": r'"body": "{\\"a\\": 1}"'},
    ]
    for check_mode in (False, True):
        result = wait(*checks, check=check_mode)
        assert not result.get("failed"), result["msg"]
        assert result["unmet"] == []
        assert result["elapsed"] < 15
        assert {one["state"] for one in result["checks"].values()} == {"ok"}
        assert result["checks"]["c1"]["status"] == 200
        assert '"release": "abc"' in result["checks"]["c1"]["body"]


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"path": "/moved"}, "status 301 (redirect to /health), expected 200"),
        ({"path": "/loop", "follow_redirects": True}, "status 302"),
        ({"path": "/busy", "status": [200, 204]}, "status 503, expected 200 or 204"),
        ({"path": "/degraded", "jmespath": "ok"}, "ok is false in the answer"),
        ({"path": "/health", "jmespath": "n"}, "n is 0 in the answer"),
        ({"path": "/health", "jmespath": "deep.mongo", "expect_value": "up"}, 'deep.mongo is "ok", expected "up"'),
        ({"path": "/health", "jmespath": "length(n)"}, "length(n) is null"),
        ({"path": "/html", "jmespath": "ok"}, "the answer is not JSON"),
        ({"path": "/text", "regex": "degraded"}, "the answer does not match 'degraded'"),
        ({"path": "/text", "header_regex": {"X-Version": "^8"}}, 'the header X-Version is "7.2"'),
        ({"path": "/text", "header_regex": {"X-Other": "."}}, "the header X-Other is missing"),
        ({"path": "/health?cut"}, "did not answer with complete HTTP (IncompleteRead"),
        (
            {"path": "/health", "release": {"field": "release", "equals": "new"}},
            'another release answers: release is "abc", expected "new"',
        ),
    ],
)  # fmt: skip
def test_unmet_condition_is_told(wait: Wait, url: str, check: dict[str, Any], told: str) -> None:
    """The first line of the message names the check and the reason."""
    given = {key: value for key, value in check.items() if key != "path"}
    result = wait({"name": "web", "url": url + check["path"], **given}, timeout=0.3)
    assert result["failed"]
    first = result["msg"].splitlines()[0]
    assert re.match(r"1 of 1 check failed after \d\.\d seconds: web: ", first)
    assert told in first
    assert result["checks"]["web"]["state"] == "timeout"
    assert result["checks"]["web"]["last_error"] in first
    assert result["unmet"] == ["web"]


def test_a_service_that_is_not_ready_yet_is_asked_again(wait: Wait) -> None:
    """A FastAPI app that answers 503 at first; it may listen later than the module looks, or earlier."""
    port, asked = free_port(), itertools.count(1)
    app = fastapi.FastAPI()

    @app.get("/ready")
    def ready(response: fastapi.Response) -> dict[str, bool]:
        is_ready = next(asked) > 3
        response.status_code = 200 if is_ready else 503
        return {"ready": is_ready}

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    result = wait({"url": f"http://127.0.0.1:{port}/ready", "jmespath": "ready"}, timeout=60)
    server.should_exit = True
    thread.join()
    assert not result.get("failed"), result["msg"]
    assert result["checks"]["c1"]["attempts"] > 3
    assert "503" in result["checks"]["c1"]["last_error"]


def test_a_server_that_hangs_does_not_break_the_deadline(wait: Wait, url: str) -> None:
    """Neither without an answer nor with one that drips; the attempt has an end of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b"X")
                    except OSError:
                        return

        threading.Thread(target=drip, daemon=True).start()
        dripping = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"}
        began = time.monotonic()
        result = wait({"url": f"{url}/hang", "attempt_timeout": 0.4}, {"attempt_timeout": 30, **dripping}, timeout=1.5)
        stop.set()
    assert result["failed"]
    assert 1.5 <= result["elapsed"] < 15
    assert time.monotonic() - began < 20  # with the start of the interpreter
    assert "c1: no answer from 127.0.0.1:" in result["msg"]
    assert result["checks"]["c1"]["attempts"] >= 2
    assert "c2: no attempt came to an end" in result["msg"]


def test_tcp_up_is_not_http_up(wait: Wait) -> None:
    """A port that accepts and closes, as Docker's proxy does before the app listens."""

    class Closes(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """Say nothing, and close."""

    with _serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Closes)) as server:
        port = server.server_address[1]
        result = wait(
            {"name": "port", "kind": "tcp", "port": port},
            {"name": "greeting", "kind": "tcp", "port": port, "regex": "ready"},
            {"name": "web", "url": f"http://127.0.0.1:{port}/"},
            timeout=0.5,
        )
    assert result["unmet"] == ["greeting", "web"]
    assert result["checks"]["port"]["state"] == "ok"
    assert "closed the connection without an answer" in result["checks"]["web"]["last_error"]
    assert "'ready' did not come before the connection was closed" in result["checks"]["greeting"]["last_error"]


def test_tcp_send_and_expect(wait: Wait, url: str) -> None:
    """What is sent arrives, and the answer is matched; silence is told from a wrong answer."""

    class Ping(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline() == b"PING\r\n":
                self.wfile.write(b"+PONG\r\n")
            time.sleep(0.5)

    with _serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ping)) as server:
        port = server.server_address[1]
        ping = {"kind": "tcp", "host": "localhost", "port": port, "attempt_timeout": 0.3}
        result = wait(
            {**ping, "send": "PING\r\n", "regex": "^.PONG"}, {**ping, "send": "HO\n", "regex": "x"}, timeout=1
        )
    assert result["unmet"] == ["c2"]
    assert result["checks"]["c1"]["body"] == "+PONG\r\n"
    assert "did not come in time" in result["checks"]["c2"]["last_error"]


def test_an_old_process_that_still_owns_the_port(wait: Wait, tmp_path: Path) -> None:
    """It answers as the new one would; its working directory tells that it is another release."""
    old, new, port = tmp_path / "old", tmp_path / "new", free_port()
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    web = {"url": f"http://127.0.0.1:{port}/"}
    owner = {"kind": "tcp", "port": port, "release": {"field": "cwd", "equals": str(new)}}
    for folder in (old, new):
        folder.mkdir()
        with subprocess.Popen(argv, cwd=folder, stderr=subprocess.DEVNULL) as process:
            assert not wait(web, timeout=30).get("failed")
            result = wait(web, owner, timeout=1)
            process.kill()
        told = "" if folder == new else f'c2: another release answers: cwd is "{old}", expected "{new}"'
        assert told in result.get("msg", "")
        assert result["unmet"] == (["c2"] if told else [])


def test_refused_and_unresolvable(wait: Wait) -> None:
    """Both are waited for; with fail_fast a name that cannot be resolved ends the wait."""
    refused = {"kind": "tcp", "port": free_port()}
    unknown = {"url": "http://no-such-host.invalid/"}
    result = wait(refused, unknown, timeout=0.5)
    assert "c1: connection refused by 127.0.0.1:" in result["msg"]
    assert "c2: the name of no-such-host.invalid:80 cannot be resolved" in result["msg"]
    result = wait(refused, {**unknown, "fail_fast": True}, timeout=30)
    assert result["elapsed"] < 10
    assert result["checks"]["c2"]["state"] == "failed"
    assert result["checks"]["c1"]["state"] == "waiting"


def test_expect_down_and_optional(wait: Wait, url: str) -> None:
    """A stopped service passes as down; a running one does not; an optional check fails nothing."""
    port = free_port()
    result = wait(
        {"kind": "tcp", "port": port, "expect": "down"},
        {"url": f"{url}/busy", "optional": True},
        {"url": f"{url}/health"},
    )
    assert not result.get("failed")
    assert result["unmet"] == ["c2"]
    result = wait({"url": f"{url}/health", "expect": "down"}, timeout=0.3)
    assert "c1: expected to be down: it is still up" in result["msg"]


def test_stable_for(wait: Wait, url: str) -> None:
    """The wait takes as long as the check has to be stable."""
    result = wait({"url": f"{url}/health", "stable_for": 0.6}, {"url": f"{url}/health", "consecutive": 3})
    assert not result.get("failed")
    assert result["elapsed"] >= 0.6
    assert result["checks"]["c2"]["attempts"] >= 3
    assert result["checks"]["c1"]["seconds"] < result["elapsed"]


def test_tls_with_an_own_ca(wait: Wait, tls_port: int, certificates: Certificates) -> None:
    """Trusted only with the CA; the name counts; address and server name are apart from the URL."""
    ca = {"ca_cert": str(certificates.ca)}
    by_address = f"https://127.0.0.1:{tls_port}/health"
    by_name = f"https://app.example.org:{tls_port}/health"
    good = wait(
        {"url": by_address, **ca},
        {"url": by_name, "address": "127.0.0.1", **ca},
        {"url": f"https://localhost:{tls_port}/echo", "server_name": "app.example.org", "regex": "localhost", **ca},
        {"url": by_address, "validate_certs": False},
    )
    assert not good.get("failed"), good["msg"]
    bad = wait(
        {"url": by_address},
        {"url": f"https://localhost:{tls_port}/", **ca},
        {"url": f"http://127.0.0.1:{tls_port}/"},
        timeout=0.5,
    )
    errors = {name: one["last_error"] for name, one in bad["checks"].items()}
    assert "is not accepted: unable to get local issuer certificate" in errors["c1"]
    assert "Hostname mismatch" in errors["c2"]
    assert errors["c3"]
    assert bad["unmet"] == ["c1", "c2", "c3"]


def test_https_to_a_plain_port(wait: Wait, url: str) -> None:
    """A sentence, not an OpenSSL code alone."""
    result = wait({"url": url.replace("http", "https")}, timeout=0.3)
    assert "c1: no TLS with 127.0.0.1:" in result["msg"]


def test_unix_socket(wait: Wait, tmp_path: Path) -> None:
    """A server on a Unix socket; without one the path is named."""
    path = tmp_path / "web.sock"
    with _serve(_UnixServer(str(path), _Handler)):
        result = wait({"url": "http://app/health", "unix_socket": str(path), "jmespath": "ok"})
        assert not result.get("failed"), result["msg"]
    missing = tmp_path / "missing.sock"
    result = wait({"url": "http://app/health", "unix_socket": str(missing)}, timeout=0.3)
    assert f"no connection to {missing}: No such file or directory" in result["msg"]


def test_secrets_are_masked_everywhere(wait: Wait, url: str) -> None:
    """The server echoes all headers, as JSON and as text; no spelling of a secret comes through."""
    token = base64.b64encode(f"admin:{CANARY}".encode()).decode()
    latin = CANARY.encode().decode("latin-1")
    ascii_canary = "canary-token-17"
    checks = [
        {"url": f"{url}/echo", "username": "admin", "password": CANARY, "regex": "never"},
        {"url": f"{url}/echo", "bearer": ascii_canary, "regex": "never"},
        {
            "url": f"{url}/echo",
            "secret_headers": {"X-Api-Key": ascii_canary},
            "jmespath": '"X-Api-Key"',
            "expect_value": 1,
        },
        {"url": f"{url}/padded", "secret_headers": {"X-Api-Key": ascii_canary}},
        {"url": f"{url}/echo", "secret_headers": {"X-Api-Key": ascii_canary}, "regex": "X-Api-Key"},
    ]
    result = wait(*checks, timeout=0.4)
    assert result["failed"]
    assert "Basic ********" in result["checks"]["c1"]["body"]
    assert "Bearer ********" in result["checks"]["c2"]["body"]
    assert result["checks"]["c4"]["body"].endswith("x********")
    assert result["checks"]["c5"]["state"] == "ok"
    for secret in (CANARY, json.dumps(CANARY)[1:-1], token, latin, ascii_canary, ascii_canary[:8]):
        assert secret not in result["_printed"]


def test_secrets_do_not_follow_a_redirect_to_another_server(wait: Wait, web: _Server, url: str) -> None:
    """The other server sees neither headers nor credentials."""
    with _serve(_Server(("127.0.0.1", 0), _Handler)) as other:
        web.elsewhere = f"http://127.0.0.1:{other.server_address[1]}/echo"
        result = wait(
            {
                "url": f"{url}/elsewhere",
                "follow_redirects": True,
                "bearer": "canary-token",
                "headers": {"X-Own": "1"},
                "regex": "Host",
            }
        )
    assert not result.get("failed"), result["msg"]
    body = result["checks"]["c1"]["body"]
    assert "Authorization" not in body
    assert "X-Own" not in body


def test_200_checks_at_once(wait: Wait, url: str) -> None:
    """All of them in about the time of one; one that fails is found among them."""
    many = [{"url": f"{url}/health?{number}", "jmespath": "ok"} for number in range(200)]
    result = wait(*many, timeout=30)
    assert not result.get("failed"), result["msg"]
    assert len(result["checks"]) == 200
    assert result["elapsed"] < 10
    result = wait(*many, {"name": "odd", "url": f"{url}/busy", "timeout": 2}, timeout=30)
    assert result["msg"].startswith("1 of 201 checks failed after ")
    assert "seconds: odd: status 503" in result["msg"]


def test_the_invocation_shows_only_what_was_given(wait: Wait, url: str) -> None:
    """And the defaults, but not the keys of all other kinds; also on failure, and with secrets masked."""
    common = {"expect", "optional", "interval", "attempt_timeout", "stable_for", "consecutive"}
    for path in ("health", "busy"):
        result = wait({"url": f"{url}/{path}", "bearer": "canary-token"}, timeout=0.3)
        (shown,) = result["invocation"]["module_args"]["checks"]
        assert set(shown) == common | {"kind", "name", "url", "bearer"}
        assert "canary-token" not in result["_printed"]


def test_sigterm_ends_it(module: ModuleRunner) -> None:
    """No thread keeps the process, while one waits for an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check = {"kind": "tcp", "port": listener.getsockname()[1], "regex": "never"}
        listener.settimeout(60)
        process = module.start("health_wait", {"timeout": 600, "checks": [check]})
        connection, _ = listener.accept()
        process.terminate()
        assert process.wait(timeout=60) == 143
        connection.close()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_bad_input_ends_before_any_waiting(module: ModuleRunner, tmp_path: Path) -> None:
    """One sentence each, at once: an unknown key, a missing library, no Docker Engine."""
    result = module("health_wait", {"checks": [{"name": "web", "kind": "tcp", "port": 1, "jmespath": "ok"}]})
    assert result["msg"].startswith("Check 'web': the kind tcp has no key 'jmespath'.")
    result = module("health_wait", {"checks": [{"kind": "smtp"}]})
    assert "value of kind must be one of: http, tcp, container, " in result["msg"]
    result = module("health_wait", {"checks": [{"kind": "tcp", "port": 1, "interval": "30s"}]})
    assert "'interval'" in result["msg"]
    assert "float" in result["msg"]
    result = module("health_wait", {"checks": [{"kind": "tcp", "port": 1}], "timeout": 0})
    assert result["msg"].startswith("timeout is 0.")
    (tmp_path / "jmespath.py").write_text("raise ImportError")
    check = {"name": "web", "kind": "http", "url": "http://127.0.0.1:1/", "jmespath": "ok"}
    result = module("health_wait", {"checks": [check]}, env={"PYTHONPATH": str(tmp_path)})
    assert result["msg"].startswith("Check 'web': jmespath needs the Python library jmespath")
    assert "python3-jmespath" in result["msg"]
    arguments = {"checks": [{"kind": "container", "container": "web"}]}
    result = module("health_wait", arguments, env={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
    assert result["msg"].startswith(("The Docker Engine does not answer", "The program 'docker' is needed"))
    result = module("health_wait", arguments, env={"PATH": str(tmp_path)})
    assert result["msg"].startswith("The program 'docker' is needed")
