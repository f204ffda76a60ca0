# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Clients that keep asking while something happens: wrk on the proxy host's own loopback, and one WebSocket."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import threading
import time
import urllib.request
from dataclasses import dataclass
from types import TracebackType

from testinfra.host import Host
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

NAME = "relay.example.org"
SECONDS_AT_MOST = 300
# Answers take 50 to 200 ms, one in fifty 2 s; one request in four has a body and must not be sent twice.
SCRIPT = """
math.randomseed(os.time())
wrk.headers["Host"] = "%s"
request = function()
  local ms = math.random(50, 200)
  if math.random(50) == 1 then ms = 2000 end
  if math.random(4) == 1 then return wrk.format("POST", "/work?ms=" .. ms, nil, "some text") end
  return wrk.format("GET", "/work?ms=" .. ms)
end
"""


# Without a pause between requests the clients would take what they can of the machine that the hosts share.
PACED = "function delay() return 20 end\n"


@dataclass(frozen=True)
class Report:
    """What wrk counted. failed: answers that were no 2xx, and connections that were refused, reset or timed out."""

    requests: int
    failed: int
    text: str


class Load:
    """wrk for the length of a with block; its report afterwards. With a url, it GETs that, 20 ms after each answer."""

    def __init__(
        self, host: Host, connections: int = 8, port: int = 80, seconds: int = SECONDS_AT_MOST, url: str = ""
    ) -> None:
        self.host, self.connections, self.seconds = host, connections, seconds
        self.url = url or f"http://127.0.0.1:{port}/"
        self.script = PACED if url else SCRIPT % NAME
        self.report: Report

    def __enter__(self) -> Load:
        """Start it."""
        command = (
            f"printf %s {shlex.quote(self.script)} >/tmp/load.lua; rm -f /tmp/load.log; "
            f"nohup wrk --threads 1 --connections {self.connections} --duration {self.seconds}s --timeout 15s "
            f"--script /tmp/load.lua {self.url} >/tmp/load.log 2>&1 </dev/null &"
        )
        self.host.check_output("sh -c %s", command)
        time.sleep(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Stop it and read what it counted."""
        self.host.check_output("sh -c %s", "pkill -INT wrk; while pgrep -x wrk >/dev/null; do sleep 0.1; done; true")
        self.report = parse(self.host.check_output("cat /tmp/load.log"))


def parse(text: str) -> Report:
    """wrk's summary."""
    total = re.search(r"(\d+) requests in", text)
    assert total, text
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Report(int(total[1]), failed + (int(refused[1]) if refused else 0), text)


class WebSocket:
    """One WebSocket through the proxy, from before a deploy on; counts the answers of its release after the switch."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: list[tuple[float, str]] = []
        self.switched_at = float("inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> WebSocket:
        """Connect and begin to talk."""
        self._connection = connect(f"ws://{NAME}/echo", sock=socket.create_connection((self.address, 80), timeout=10))
        self._thread.start()
        return self

    def _talk(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not self._stop.wait(0.2):
                self._connection.send("hello")
                release = str(self._connection.recv(timeout=10)).split()[0]
                self.answers.append((time.monotonic(), release))
                if self.switched_at > time.monotonic() and self._served() != release:
                    self.switched_at = time.monotonic()

    def _served(self) -> str:
        request = urllib.request.Request(f"http://{self.address}/ready", headers={"Host": NAME})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["release"])

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(ConnectionClosed):
            self._connection.close()

    @property
    def answers_after_switch(self) -> int:
        """How many answers the old replica gave while the proxy sent new requests to the new release already."""
        return sum(at > self.switched_at for at, _release in self.answers)
