# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""health_wait with commands, files and served certificates."""

from __future__ import annotations

import os
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.modules import ModuleRunner

CANARY = "canary-9f-password"
Wait = Callable[..., dict[str, Any]]


@pytest.fixture
def wait(module: ModuleRunner) -> Wait:
    """wait({"kind": "file", …}, …) runs the module; what the checks do not say is in options."""

    def run(*checks: dict[str, Any], timeout: float = 0.5, check: bool = False, **common: Any) -> dict[str, Any]:
        filled = [{"name": f"c{position}", **common, **given} for position, given in enumerate(checks, 1)]
        return module("health_wait", {"timeout": timeout, "checks": filled}, check=check)

    return run


def _errors(result: dict[str, Any]) -> list[str]:
    return [one["last_error"] for one in result["checks"].values()]


def test_command(wait: Wait, tmp_path: Path) -> None:
    """Exit code, output, folder and secret environment; each failure in words."""

    def sh(script: str, **more: Any) -> dict[str, Any]:
        return {"kind": "command", "argv": ["sh", "-c", script], **more}

    in_folder = sh("pwd", chdir=str(tmp_path), regex=str(tmp_path))
    good = [sh("echo ready >&2", regex="^ready"), sh("exit 3", exit_codes=[0, 3]), in_folder]
    for check in (False, True):
        result = wait(*good, timeout=20, check=check)
        assert not result.get("failed"), result["msg"]
        assert [one["status"] for one in result["checks"].values()] == [0, 3, 0]
    secret = {"secret_env": {"TOKEN": CANARY}}
    result = wait(sh("echo no route; exit 2"), sh("echo half", regex="whole"), sh('echo "$TOKEN"; exit 1', **secret))
    told = _errors(result)
    assert told[0] == "sh ended with 2, expected 0: no route"
    assert told[1] == "the output of sh does not match 'whole'"
    assert told[2] == "sh ended with 1, expected 0: ********"
    assert CANARY not in result["_printed"]
    result = wait({"kind": "command", "argv": ["/nosuchprogram"]}, timeout=60)
    assert result["checks"]["c1"]["state"] == "failed"
    assert "the command cannot be run: /nosuchprogram: No such file or directory" in result["msg"]


def test_a_command_that_hangs_is_ended_with_all_that_it_started(wait: Wait, tmp_path: Path) -> None:
    """Nothing stays behind."""
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! >>{pids}; wait"
    result = wait({"kind": "command", "argv": ["sh", "-c", script], "attempt_timeout": 0.4}, timeout=1.5)
    assert "sh did not end within 0.4 seconds" in result["msg"]
    ended = [int(line) for line in pids.read_text().split()]
    first = Path(f"/proc/{ended[0]}/cmdline")
    assert not first.exists() or first.read_bytes() == b""


def test_file(wait: Wait, tmp_path: Path) -> None:
    """There, large and young enough, with the right content."""
    path = tmp_path / "marker"
    file = {"kind": "file", "path": str(path)}
    assert "there is no" in _errors(wait(file))[0]
    ready = tmp_path / "ready"
    ready.write_text("release abc\n")
    threading.Timer(0.8, ready.rename, [path]).start()  # it appears with its content
    result = wait({**file, "regex": "^release abc$", "min_bytes": 5, "max_age": 60}, timeout=20)
    assert not result.get("failed"), result["msg"]
    os.utime(path, (time.time() - 500, time.time() - 500))
    result = wait(
        {**file, "regex": "xyz"}, {**file, "min_bytes": 50}, {**file, "max_age": 60}, {**file, "expect": "down"}
    )
    told = _errors(result)
    assert told[0] == f"{path} does not match 'xyz'"
    assert told[1] == f"{path} has 12 bytes, expected at least 50"
    assert f"{path} was changed 50" in told[2]
    assert told[3] == "it is still up"
    result = wait({"kind": "file", "path": f"{path}/below"}, {"kind": "file", "path": str(tmp_path), "regex": "x"})
    assert "cannot be read: Not a directory" in _errors(result)[0]


@contextmanager
def _served(chain: Path) -> Iterator[int]:
    """The port of a TLS server that shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)

    class Shakes(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                with context.wrap_socket(self.request, server_side=True) as connection:
                    connection.recv(1)
            except OSError:
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Shakes) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_certificate(wait: Wait, tmp_path: Path) -> None:
    """Names, issuer, days and the file that was renewed; verified by the own CA, or taken as it is."""
    authority = Authority.create(tmp_path)
    chain = authority.issue("app.example.org", "*.app.example.org", "127.0.0.1", days=20)
    other = authority.issue("app.example.org", days=90)
    with _served(chain) as port:
        served = {"kind": "certificate", "host": "127.0.0.1", "port": port, "ca_cert": str(authority.path)}
        app = {**served, "server_name": "app.example.org"}
        good = [served, {**app, "names": ["app.example.org", "a.app.example.org"], "issuer": "Own CA", "min_days": 19},
                {**app, "same_as": str(chain)}, {**app, "validate_certs": False}]  # fmt: skip
        for check in (False, True):
            result = wait(*good, timeout=20, check=check)
            assert not result.get("failed"), result["msg"]
            assert result["checks"]["c1"]["status"] == 20
            assert "issuer: commonName=Own CA" in result["checks"]["c4"]["body"]
        wrong = [
            ({**app, "names": ["www.example.org"]}, "not for www.example.org, but for app.example.org, *"),
            ({**app, "names": ["a.b.app.example.org"]}, "is not for a.b.app.example.org"),
            ({**app, "issuer": "Let's Encrypt"}, "issuer is 'commonName=Own CA', expected a match"),
            ({**app, "min_days": 30}, "is valid for 20.0 more days, expected at least 30"),
            ({**app, "same_as": str(other)}, "another certificate than the one in"),
            ({**app, "server_name": "evil.example"}, "Hostname mismatch"),
            ({**served, "ca_cert": None}, "is not accepted: unable to get local issuer certificate"),
        ]  # fmt: skip
        result = wait(*[check for check, _ in wrong], timeout=2)
        for (_, told), found in zip(wrong, _errors(result), strict=True):
            assert told in found
    with _served(authority.issue("app.example.org", days=-1)) as port:
        ended = {"kind": "certificate", "host": "127.0.0.1", "port": port, "server_name": "app.example.org"}
        result = wait({**ended, "ca_cert": str(authority.path)}, {**ended, "validate_certs": False}, timeout=2)
        assert all("certificate has expired" in told for told in _errors(result))
