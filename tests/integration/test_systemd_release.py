# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""systemd_release on a Debian host with a real systemd, through Ansible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.docker_host import DockerHost, fresh_host
from support.processes import wait_for

from ansible_collections.groundwork.backend.plugins.module_utils._unit_env import render

HOSTS = {"integration-units": "198.18.0.129"}
CANARY = "canary-5e1f"
# It takes the socket from systemd, answers what it was asked when it is told to end, and ends then. SIGHUP changes what
# it answers as "settings".
APP = """
import json, os, signal, socket, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

settings = ["first"]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        told = {"status": os.environ.get("STATUS", "ok"), "release": os.environ["APP_RELEASE"], "settings": settings[0]}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

if os.environ.get("MODE") == "crash":
    sys.exit("cannot reach postgres://shop:" + os.environ["DB_PASSWORD"] + "@db")
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.daemon_threads = False
server.socket = socket.socket(fileno=3)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
signal.signal(signal.SIGHUP, lambda *_: settings.insert(0, "second"))
server.serve_forever()
server.server_close()
"""
# Asks without a pause until it is told to end, and says how many answers of which release there were.
CLIENT = """
import collections, json, pathlib, urllib.request
found = collections.Counter()
while not pathlib.Path("/tmp/enough").exists():
    try:
        found[json.load(urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=20))["release"]] += 1
    except Exception as error:
        found[repr(error)] += 1
pathlib.Path("/tmp/told").write_text(json.dumps(found))
"""
WEB = {"web": {"port": 8000, "health": {"path": "/health", "expect": "status == 'ok'", "release": "release"}}}
UNITS: dict[str, Any] = {
    "web": {"exec": "/usr/bin/python3 app.py", "reload": "/bin/kill -HUP $MAINPID", "service": {"RestartSec": "200ms"}}
}
WORKER = {"exec": "/usr/bin/python3 -c 'import time; time.sleep(3600)'"}


@dataclass(frozen=True)
class Shop:
    """A stack on a host."""

    host: DockerHost

    def release(self, name: str, env: str = "") -> None:
        """Put a release there, with the variables DB_PASSWORD and *env*."""
        self.host.write(f"/srv/shop/releases/{name}/app.py", APP)
        self.host.write(f"/srv/shop/shared/{name}/.env", f"DB_PASSWORD={CANARY}\n{env}")

    def run(self, name: str, *, state: str = "started", check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's result."""
        arguments = {
            "app": "shop",
            "state": state,
            "path": "/srv/shop",
            "release": name,
            "env_file": f"/srv/shop/shared/{name}/.env",
            "units": UNITS,
            "web_services": WEB,
            "timeout": 20,
            **options,
        }
        return self.host.module("systemd_release", arguments, check=check)

    def good(self, name: str, **options: Any) -> dict[str, Any]:
        """The result of a run that has to succeed."""
        result = self.run(name, **options)
        assert not result.get("failed"), (result["msg"], result.get("logs"))
        return result

    def serves(self, field: str = "release") -> str:
        """The release that answers, or another field of its answer."""
        told = self.host.sh(
            "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000\").read())'"
        )
        return str(json.loads(told[2:-2])[field])

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.host.sh(f"systemctl show --value -p {name} {unit}").strip()

    def trials(self) -> str:
        """What is there of trials."""
        return self.host.sh("ls /run/systemd/system /run | grep trial || true")


@pytest.fixture(scope="module")
def host(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    """A host with what the role installs."""
    with fresh_host(root, HOSTS, tmp_path_factory.mktemp("units")) as started:
        started.sh("adduser --system --group --no-create-home shop")
        stack = Shop(started)
        stack.release("r1")
        stack.good("r1")
        yield started


@pytest.fixture
def shop(host: DockerHost) -> Shop:
    """A stack whose release r1 serves."""
    stack = Shop(host)
    if stack.serves() != "r1":
        stack.good("r1", trials=False)
        stack.good("r1", state="retired")
    return stack


def test_check_do_check_again(shop: Shop) -> None:
    shop.release("r2")
    planned = shop.good("r2", check=True)
    assert (planned["changed"], shop.serves()) == (True, "r1")
    done = shop.good("r2")
    assert (done["changed"], done["restarted"], done["tried"], shop.serves()) == (
        True, ["shop-web.service"], ["shop-web.service"], "r2",
    )  # fmt: skip
    assert not shop.good("r2", check=True)["changed"]
    assert not shop.good("r2")["changed"]
    assert shop.trials() == ""


def test_the_process_is_the_release_and_its_user(shop: Shop) -> None:
    pid = shop.show("shop-web", "MainPID")
    told = shop.host.sh(f"readlink /proc/{pid}/cwd; stat -c %U /proc/{pid}; stat -c '%U:%G %a' /etc/shop/web.env")
    assert told.split("\n")[:3] == ["/srv/shop/releases/r1", "shop", "root:shop 640"]


def test_a_restart_refuses_nobody(shop: Shop) -> None:
    shop.release("r2")
    shop.host.write("/tmp/client.py", CLIENT)
    shop.host.sh("systemd-run --quiet --unit=client python3 /tmp/client.py")
    for name in ("r2", "r1"):
        shop.good(name)
    shop.host.sh("touch /tmp/enough; until [ -s /tmp/told ]; do sleep 0.1; done")
    told = json.loads(shop.host.sh("cat /tmp/told"))
    assert set(told) == {"r1", "r2"}, told


def test_a_release_that_crashes_at_its_start_stops_nothing(shop: Shop) -> None:
    pid = shop.show("shop-web", "MainPID")
    shop.release("bad", "MODE=crash\n")
    result = shop.run("bad")
    assert result["failed"]
    assert "Release bad of shop failed its trial, and what ran before still runs" in result["msg"]
    assert any("cannot reach postgres://shop:********@db" in line for line in result["logs"]["shop-web-trial.service"])
    assert CANARY not in result["_printed"]
    assert (shop.show("shop-web", "MainPID"), shop.trials()) == (pid, "")


def test_a_journal_is_that_of_this_trial(shop: Shop) -> None:
    shop.release("bad", "MODE=crash\n")
    shop.run("bad")
    shop.host.sh("sleep 1")  # journalctl --since takes whole seconds
    logs = shop.run("bad")["logs"]["shop-web-trial.service"]
    assert len([line for line in logs if "cannot reach" in line]) == 1


def test_a_release_that_is_not_healthy_stops_nothing(shop: Shop) -> None:
    pid = shop.show("shop-web", "MainPID")
    shop.release("sick", "STATUS=sick\n")
    result = shop.run("sick", timeout=3)
    assert "status == 'ok'" in result["msg"]
    assert (shop.show("shop-web", "MainPID"), shop.trials()) == (pid, "")


def test_units_that_systemd_does_not_take_replace_nothing(shop: Shop) -> None:
    shop.release("r2")
    units = {"web": {**UNITS["web"], "service": {"MemoryMaximum": "1G"}}}
    for state in ("checked", "started"):
        result = shop.run("r2", state=state, units=units)
        assert "'MemoryMaximum'" in result["msg"]
    assert shop.serves() == "r1"


def test_services_are_hardened(shop: Shop) -> None:
    found = shop.good("r1", state="checked")["exposure"]
    assert list(found) == ["shop-web.service"]
    assert found["shop-web.service"]["exposure"] < 2


def test_a_worker_that_crashes_is_refused_and_the_release_before_is_brought_back(shop: Shop) -> None:
    shop.good("r1", units={**UNITS, "worker": WORKER})
    shop.release("bad")
    broken = {"exec": "/usr/bin/python3 -c 'raise SystemExit(\"no queue\")'"}
    result = shop.run("bad", units={**UNITS, "worker": broken})
    assert "shop-worker.service" in result["msg"]
    assert any("no queue" in line for line in result["logs"]["shop-worker.service"])
    assert shop.good("r1", units={**UNITS, "worker": WORKER}, trials=False)["changed"]
    assert (shop.serves(), shop.show("shop-worker", "ActiveState")) == ("r1", "active")


def test_a_reload_is_not_a_restart(shop: Shop) -> None:
    pid = shop.show("shop-web", "MainPID")
    assert shop.serves("settings") == "first"
    shop.host.sh("systemctl reload shop-web")
    wait_for(lambda: shop.serves("settings") == "second", "the program was not told to read its settings again")
    assert shop.show("shop-web", "MainPID") == pid


def test_a_unit_of_somebody_else_is_left_alone(shop: Shop) -> None:
    text = "[Service]\nExecStart=sleep infinity\n"
    shop.host.write("/etc/systemd/system/shop-worker.service", text)
    result = shop.run("r1", units={**UNITS, "worker": WORKER})
    assert "which no deploy of shop has written" in result["msg"]
    assert (
        shop.host.sh("cat /etc/systemd/system/shop-worker.service; rm /etc/systemd/system/shop-worker.service") == text
    )


def test_a_unit_of_the_distribution_is_left_alone(shop: Shop) -> None:
    result = shop.run("r1", state="checked", units={**UNITS, "worker": {**WORKER, "name": "systemd-journald.service"}})
    assert "/systemd/system/systemd-journald.service, and a unit of shop would take its place" in result["msg"]


def test_a_folder_to_write_to_is_there_for_the_trial(shop: Shop) -> None:
    shop.release("r2")
    units = {"web": {**UNITS["web"], "writable": ["/var/lib/shop/data"]}}
    assert shop.good("r2", state="checked", units=units, check=True)["changed"]
    assert shop.good("r2", units=units)["tried"] == ["shop-web.service"]
    assert shop.host.sh("stat -c '%U %a' /var/lib/shop/data") == "shop 750\n"
    assert not shop.good("r2", state="checked", units=units)["changed"]


def test_a_trial_leaves_the_folder_in_run_of_what_serves(shop: Shop) -> None:
    units = {"web": {**UNITS["web"], "service": {"RestartSec": "200ms", "RuntimeDirectory": "shop-web"}}}
    shop.good("r1", units=units)
    shop.host.sh("touch /run/shop-web/mine")
    shop.release("bad", "MODE=crash\n")
    assert shop.run("bad", units=units)["failed"]
    assert shop.host.sh("ls /run/shop-web") == "mine\n"


def test_a_stack_behind_a_link_is_told_from_other_releases(shop: Shop) -> None:
    shop.host.sh("ln -sfn /srv /opt/link")
    shop.good("r1", path="/opt/link/shop")
    assert not shop.good("r1", path="/opt/link/shop")["changed"]


def test_another_environment_of_the_same_release_restarts_it(shop: Shop) -> None:
    shop.release("r2")
    units = {"web": {**UNITS["web"], "exec": "python3 app.py"}}
    for name in ("a", "b"):
        bin_ = f"/srv/shop/venvs/{name}/bin"
        shop.host.sh(f"mkdir -p {bin_}; ln -sf /usr/bin/python3 {bin_}/python3")
        shop.host.sh(f"ln -sfn /srv/shop/venvs/{name} /srv/shop/releases/r2/.venv")
        assert shop.good("r2", units=units, venv=True)["restarted"] == ["shop-web.service"]
        assert f"PATH={bin_}:" in shop.show("shop-web", "Environment")


def test_what_a_release_does_not_have_is_removed_with_its_variables(shop: Shop) -> None:
    shop.good("r1", units={**UNITS, "worker": WORKER})
    shop.release("r2")
    shop.good("r2")
    assert shop.show("shop-worker", "ActiveState") == "active"
    assert shop.good("r2", state="retired", check=True)["removed"] == ["shop-worker.service"]
    assert shop.good("r2", state="retired")["removed"] == ["shop-worker.service"]
    assert shop.host.sh("ls /etc/shop; systemctl list-units --all 'shop-worker*' --no-legend") == "web.env\n"
    assert not shop.good("r2", state="retired")["changed"]


def test_a_run_that_was_killed_in_a_trial_is_finished_by_the_next(shop: Shop) -> None:
    shop.release("r2", "STATUS=sick\n")
    options = {
        "app": "shop", "path": "/srv/shop", "release": "r2", "env_file": "/srv/shop/shared/r2/.env", "units": UNITS,
        "web_services": WEB,
    }  # fmt: skip
    process = shop.host.start_module("systemd_release", options)
    kill = "kill -9 $(pgrep -u root -x python3)"  # Ansible's; the program has another user
    shop.host.sh(f"until systemctl is-active --quiet shop-web-trial; do sleep 0.05; done; {kill}")
    process.communicate(timeout=120)
    assert (shop.serves(), shop.trials() != "") == ("r1", True)
    shop.release("r2")
    assert shop.good("r2")["changed"]
    assert (shop.serves(), shop.trials()) == ("r2", "")


def test_a_run_that_was_killed_before_the_restart_is_finished_by_the_next(shop: Shop) -> None:
    units = {"web": {**UNITS["web"], "stop_timeout": 31}}
    options = {
        "app": "shop", "path": "/srv/shop", "release": "r1", "env_file": "/srv/shop/shared/r1/.env", "units": units,
        "web_services": WEB, "trials": False,
    }  # fmt: skip
    started = shop.show("shop-web", "ExecMainPID")
    generator = "/run/systemd/system-generators/slow"  # systemd reads its units anew when it has ended
    shop.host.write(generator, "#!/bin/sh\nsleep 3\n")
    shop.host.sh(f"chmod 755 {generator}")
    process = shop.host.start_module("systemd_release", options)
    written = "grep -q TimeoutStopSec=31s /etc/systemd/system/shop-web.service"
    shop.host.sh(f"until {written}; do sleep 0.05; done; kill -9 $(pgrep -u root -x python3)")
    process.communicate(timeout=120)
    shop.host.sh(f"rm {generator}; systemctl daemon-reload")
    assert shop.show("shop-web", "ExecMainPID") == started
    assert shop.good("r1", units=units, check=True)["restarted"] == ["shop-web.service"]
    assert shop.good("r1", units=units)["restarted"] == ["shop-web.service"]
    assert shop.show("shop-web", "ExecMainPID") != started
    assert not shop.good("r1", units=units)["changed"]
    shop.good("r1")


def test_a_stack_that_is_paused_runs_nothing_and_is_not_started_with_the_host(shop: Shop) -> None:
    units = {**UNITS, "worker": WORKER}
    shop.good("r1", units=units)
    shop.host.sh("systemctl stop shop-worker")  # by hand: it would come back with the host
    text = shop.host.sh("cat /etc/systemd/system/shop-worker.service")
    shop.host.write("/run/systemd/system/shop-worker-trial.service", text)  # as a killed run leaves one
    shop.host.sh("systemctl daemon-reload; systemctl start shop-worker-trial")
    names = ["shop-web.service", "shop-web.socket", "shop-worker.service"]
    for check in (True, False):
        assert shop.good("r1", state="paused", check=check)["paused"] == [*names, "shop-worker-trial.service"]
    assert [shop.show(name, "ActiveState") for name in names] == ["inactive"] * 3
    assert [shop.show(name, "UnitFileState") for name in names] == ["disabled"] * 3
    assert shop.trials() == ""
    assert not shop.good("r1", state="paused")["changed"]
    shop.good("r1", units=units, trials=False)
    assert [shop.show(name, "UnitFileState") for name in names] == ["enabled"] * 3
    assert [shop.show(name, "ActiveState") for name in names] == ["active"] * 3
    shop.good("r1", state="retired")


def test_variables_go_with_the_place_where_they_were(shop: Shop) -> None:
    moved = {"web": {**UNITS["web"], "env_file": {"path": "/etc/shop/other.env"}}}
    shop.good("r1", units=moved)
    assert shop.host.sh("ls /etc/shop") == "other.env\n"
    shop.good("r1")
    assert shop.host.sh("ls /etc/shop") == "web.env\n"
    # Under another name, with the same address.
    shop.good("r1", units={"site": UNITS["web"]}, web_services={"site": WEB["web"]})
    assert shop.host.sh("ls /etc/shop") == "site.env\n"
    shop.good("r1", trials=False)
    assert shop.host.sh("ls /etc/shop") == "web.env\n"


def test_files_that_are_not_utf_8_are_other_files(shop: Shop) -> None:
    shop.host.sh("printf '# caf\\351\\n[Service]\\nExecStart=true\\n' >/etc/systemd/system/latin.service")
    shop.host.sh("printf 'A=caf\\351\\n' >/etc/shop/web.env; touch /etc/shop/.web.env.abcd1234")
    assert shop.good("r1")["restarted"] == ["shop-web.service"]
    assert shop.host.sh("ls -A /etc/shop; grep -c DB_PASSWORD /etc/shop/web.env") == "web.env\n1\n"
    shop.host.sh("rm /etc/systemd/system/latin.service")
    assert not shop.good("r1")["changed"]


def test_a_run_that_is_still_at_work_is_waited_for(shop: Shop) -> None:
    folder = "/run/groundwork-units/shop"
    shop.host.sh(f"systemd-run --quiet --unit holder flock {folder} sleep 600")
    shop.host.sh(f"until ! flock --nonblock {folder} true; do sleep 0.1; done")
    result = shop.run("r1", timeout=1)
    assert "Another run has been working on the units of shop for 1 s." in result["msg"]
    assert not shop.run("r1", check=True)["changed"]
    shop.host.sh("systemctl stop holder")
    assert not shop.good("r1")["changed"]


def test_another_address_is_taken_over(shop: Shop) -> None:
    path = "/run/shop/web.sock"
    moved = {"web": {"socket": path, "health": {"path": "/health", "release": "release"}}}
    shop.release("r2")
    assert shop.good("r2", web_services=moved)["endpoints"]["web"]["new"][0] == {"socket": path}
    assert ("127.0.0.1:8000" in shop.host.sh("ss -Hltn"), shop.trials()) == (False, "")
    shop.good("r1", trials=False)
    assert shop.serves() == "r1"


def test_units_come_back_with_the_host(shop: Shop) -> None:
    assert [shop.show(unit, "UnitFileState") for unit in ("shop-web.service", "shop-web.socket")] == ["enabled"] * 2


def test_values_of_variables_arrive_as_they_were(shop: Shop) -> None:
    """What the filter unit_env writes, systemd reads."""
    values = {"QUOTES": "a \"b\" 'c'", "SIGNS": "$HOME `id` \\n %i #x", "LINES": "one\n  two\\\nthree", "EDGES": " a "}
    shop.release("r2", render(values))
    shop.good("r2")
    pid = shop.show("shop-web", "MainPID")
    told = dict(one.split("=", 1) for one in shop.host.sh(f"cat /proc/{pid}/environ").split("\0") if one)
    assert {name: told[name] for name in values} == values


def test_a_stack_can_be_taken_away(shop: Shop) -> None:
    assert shop.good("r1", state="absent")["removed"] == ["shop-web.service", "shop-web.socket"]
    assert shop.host.sh("ls /etc/shop; ss -Hltn 'sport = :8000'") == ""
    assert not shop.good("r1", state="absent")["changed"]
