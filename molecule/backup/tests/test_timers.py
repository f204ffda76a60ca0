# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The host backs itself up: timers, heartbeat, metrics, one job at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from conftest import SCENARIO, Stack
from support.scenario import Playbook
from testinfra.host import Host

CANARY = "7f3c9a-canary"
METRICS = "/var/lib/groundwork-metrics"
LIB = "/usr/local/lib/groundwork/notes"
RUN = f"{LIB}/run"
HEARD = "/run/heartbeats"
SILENT = "/run/heartbeats-unanswered"
SERVER = f"""
import http.server, os, time
class Heart(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with open("{HEARD}", "a") as log:
            print(self.path, body.replace("\\n", " "), file=log)
        while os.path.exists("{SILENT}"):
            time.sleep(0.1)
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Heart).serve_forever()
"""
NOW = "[Timer]\nOnActiveSec=1\nRandomizedDelaySec=0\nAccuracySec=1\n"


def settings() -> dict[str, object]:
    """Daily backups that are told about."""
    url = f"http://127.0.0.1:8099/{CANARY}"
    return {
        "backup_schedule": {"backup": "*-*-* 02:00:00 UTC", "prune": "*-*-* 05:00:00 UTC"},
        "backup_heartbeat_urls": {"backup": f"{url}/backup", "prune": f"{url}/prune"},
        "backup_metrics_dir": METRICS,
        "backup_keep": {"last": 100},
    }


@pytest.fixture(scope="module")
def scheduled(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playbook]:
    """The host with timers, and something that hears heartbeats."""
    host.run("sudo systemctl stop heartbeats")
    host.check_output("sudo systemd-run --quiet --collect --unit heartbeats python3 -c %s", SERVER)
    playbook = Playbook(tmp_path_factory.mktemp("schedule"), SCENARIO / "inventory")
    run = playbook("molecule/backup/backups.yml", **settings())
    assert run.rc == 0, run.output
    yield playbook
    host.check_output("sudo systemctl stop heartbeats")


@pytest.fixture(autouse=True)
def nothing_heard(host: Host, scheduled: Playbook) -> None:
    """Every test begins with silence."""
    host.check_output("sudo rm -f %s", HEARD)


def heard(host: Host) -> list[tuple[str, str]]:
    """Path and body of each heartbeat."""
    lines = host.check_output("sudo cat %s", HEARD).splitlines()
    return [(path.removeprefix(f"/{CANARY}"), body) for path, _, body in (line.partition(" ") for line in lines)]


def metrics(host: Host, name: str) -> dict[str, float]:
    """The figures of a file, by name."""
    text = host.check_output("cat %s", f"{METRICS}/groundwork_notes_{name}.prom")
    return {name: float(value) for name, value in re.findall(r"^groundwork_backup_(\w+)\{[^}]*\} (\S+)$", text, re.M)}


def finish(host: Host, job: str, before: str, command: str) -> None:
    """Run a command, and wait for the end of the run of the job's service that follows from it."""
    unit = f"groundwork-notes-{job}.service"
    host.check_output("sudo sh -c %s", command)
    host.check_output(
        "timeout 180 sh -c %s",
        f"until [ $(systemctl show -P InvocationID {unit}). != {before}. ] && "
        f"! systemctl show -P ActiveState {unit} | grep -q activating; do sleep 0.2; done",
    )


def invocation(host: Host, job: str) -> str:
    """Which run of the service was the last one; empty before the first."""
    return str(host.check_output("systemctl show -P InvocationID %s", f"groundwork-notes-{job}.service"))


def test_the_timer_writes_a_set_and_tells_about_it(host: Host, stack: Stack) -> None:
    before = stack.sets()
    drop_in = "/run/systemd/system/groundwork-notes-backup.timer.d"
    finish(
        host,
        "backup",
        invocation(host, "backup"),
        f"mkdir -p {drop_in}; printf %s '{NOW}' > {drop_in}/now.conf; systemctl daemon-reload; "
        "systemctl restart groundwork-notes-backup.timer",
    )
    host.check_output("sudo sh -c %s", f"rm -r {drop_in}; systemctl daemon-reload")
    assert host.check_output("systemctl show -P Result groundwork-notes-backup.service") == "success"
    assert host.check_output("systemctl show -P TriggeredBy groundwork-notes-backup.service").endswith(".timer")
    [new] = set(stack.sets()) - set(before)
    told = heard(host)
    assert [path for path, _ in told] == ["/backup/start", "/backup"]
    assert new in told[-1][1]
    figures = {**metrics(host, "sets"), **metrics(host, "backup")}
    manifest = stack.manifest(new)
    begun = datetime.strptime(manifest["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert figures["newest_timestamp_seconds"] == begun.timestamp()
    assert figures["newest_bytes"] == manifest["total_bytes"]
    assert (figures["job_success"], figures["job_running"]) == (1, 0)


def test_a_time_that_passed_while_the_host_was_off_is_caught_up_with(host: Host) -> None:
    drop_in = "/run/systemd/system/groundwork-notes-prune.timer.d"
    finish(
        host,
        "prune",
        invocation(host, "prune"),
        f"mkdir -p {drop_in}; printf '[Timer]\\nRandomizedDelaySec=0\\n' > {drop_in}/now.conf; "
        "systemctl daemon-reload; systemctl stop groundwork-notes-prune.timer; "
        "touch --date='3 days ago' /var/lib/systemd/timers/stamp-groundwork-notes-prune.timer; "
        "systemctl start groundwork-notes-prune.timer",
    )
    host.check_output("sudo sh -c %s", f"rm -r {drop_in}; systemctl daemon-reload")
    assert [path for path, _ in heard(host)] == ["/prune/start", "/prune"]


def test_a_backup_that_fails_is_told_with_its_reason(host: Host, stack: Stack) -> None:
    before = stack.sets()
    bad = [{"engine": "postgres", "name": "notes", "service": "db", "database": "nosuchdb", "user": "notes"}]
    run = host.run("sudo %s backup -e %s", RUN, json.dumps({"backup_components": bad}))
    assert run.rc != 0
    assert stack.sets() == before
    told = heard(host)
    assert [path for path, _ in told] == ["/backup/start", "/backup/fail"]
    assert "nosuchdb" in told[-1][1]
    assert metrics(host, "backup")["job_success"] == 0


def test_a_job_that_is_killed_is_told_without_ansible(host: Host) -> None:
    """It is killed while it waits for the answer to its first heartbeat."""
    unit = "groundwork-notes-prune.service"
    host.check_output("sudo touch %s", SILENT)
    host.check_output("sudo systemctl start --no-block %s", unit)
    host.check_output("timeout 60 sh -c %s", f"until grep -q prune/start {HEARD} 2>/dev/null; do sleep 0.1; done")
    host.check_output("sudo systemctl kill --signal KILL %s && sudo rm %s", unit, SILENT)
    host.check_output("timeout 60 sh -c %s", f"until grep -q prune/fail {HEARD} 2>/dev/null; do sleep 0.1; done")
    assert "The prune of notes failed on" in heard(host)[-1][1]
    log = host.check_output("sudo journalctl --quiet --priority err --unit groundwork-notes-prune-failed.service")
    assert "The prune of notes failed on" in log
    assert metrics(host, "prune")["job_running"] == 1


def test_one_job_runs_at_a_time(host: Host) -> None:
    hold = "flock /etc/groundwork sh -c 'touch /run/held; until test -e /run/go; do sleep 0.1; done'"
    host.check_output("sudo rm -f /run/go /run/held; sudo systemd-run --quiet --unit holder sh -c %s", hold)
    host.check_output("timeout 30 sh -c %s", "until test -e /run/held; do sleep 0.1; done")
    host.check_output("sudo systemctl start --no-block groundwork-notes-prune.service")
    host.check_output("timeout 30 sh -c %s", "until grep -q -e '-> FLOCK' /proc/locks; do sleep 0.1; done")
    assert host.run("sudo test -e %s", HEARD).rc != 0, "the job began beside another one"
    finish(host, "prune", "", "touch /run/go")
    assert [path for path, _ in heard(host)] == ["/prune/start", "/prune"]


def test_a_monitor_that_is_away_stops_no_job(host: Host) -> None:
    url = {"prune": "http://127.0.0.1:9/away"}
    run = host.run("sudo %s prune -e %s", RUN, json.dumps({"backup_heartbeat_urls": url}))
    assert run.rc == 0, run.stdout
    assert "The heartbeat of the prune could not be called" in run.stdout


def test_nobody_but_root_reads_the_address(host: Host) -> None:
    assert host.check_output("sudo find /etc/groundwork -type f ! -perm 0600 -o -type d ! -perm 0700") == ""
    places = "/etc/systemd /usr/local/lib/groundwork /var/lib/groundwork-metrics"
    assert host.run(f"sudo grep --recursive --files-with-matches {CANARY} {places}").stdout == ""
    assert host.check_output(f"sudo grep --recursive --files-with-matches {CANARY} /etc/groundwork") != ""
    journal = host.check_output("sudo journalctl --quiet --unit 'groundwork-notes-*'")
    assert "prune" in journal
    assert CANARY not in journal


def test_the_second_run_changes_nothing(scheduled: Playbook) -> None:
    run = scheduled("molecule/backup/backups.yml", **settings())
    assert (run.rc, run.changed) == (0, 0), run.output


def test_check_mode_foresees_a_new_version_of_the_collection(host: Host, scheduled: Playbook) -> None:
    """Here an old one: a file of the host's copy is another one."""
    version, path = (f"{LIB}/{name}/ansible_collections/groundwork/backend/galaxy.yml" for name in ("current", "next"))
    host.check_output("sudo sh -c %s", f"echo '# old' >{path}.old && mv {path}.old {path}")
    foretold = scheduled("molecule/backup/backups.yml", "--check", **settings())
    assert (foretold.rc, foretold.changed) == (0, 1), foretold.output
    run = scheduled("molecule/backup/backups.yml", **settings())
    assert (run.rc, run.changed) == (0, 1), run.output
    assert host.run("sudo cmp %s %s", version, path).rc == 0


def test_a_time_that_is_none_is_refused(scheduled: Playbook) -> None:
    run = scheduled("molecule/backup/backups.yml", **{**settings(), "backup_schedule": {"backup": "every night"}})
    assert run.rc != 0
    assert "backup_schedule.backup is no time for a timer" in run.words, run.output


def test_an_empty_schedule_takes_everything_away(host: Host, scheduled: Playbook) -> None:
    run = scheduled("molecule/backup/backups.yml", backup_schedule={})
    assert run.rc == 0, run.output
    assert host.check_output("systemctl list-units --all --no-legend 'groundwork-notes-*.timer'") == ""
    assert host.run("ls /etc/systemd/system/groundwork-*").rc != 0
    assert host.check_output("sudo find /etc/groundwork /usr/local/lib/groundwork/notes -type f") == ""
