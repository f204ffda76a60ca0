# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The operations page of INNOVAPLUS, from its first line to its last."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import BACKEND, DOCUMENTS, ENV_FILE, EXAMPLE, NAME, ROOT, SCENARIO, SERVER, SETS, UNIT, Innova
from support.load import Load
from support.outside import six
from support.scenario import KEYS, Playbook, current_release, environment

JOURNAL = "/srv/innovaplus/restore.json"
# A migration of the release that runs, in the data that a restore has brought.
MIGRATION = """
import os, pymongo
database = pymongo.MongoClient(os.environ["MONGO_URI"])[os.environ["DB_NAME"]]
database.migrations.insert_one({"release": os.environ["APP_RELEASE"]})
"""
TEST_VARS = SCENARIO / "inventory" / "group_vars" / "all" / "20-test.yml"

# --- service, settings --------------------------------------------------------------------------------------------


def test_the_unit_has_the_exact_name_and_runs_gunicorn_as_its_own_user(innova: Innova) -> None:
    service = innova.server.service("innovaplus-backend")
    assert (service.is_running, service.is_enabled) == (True, True)
    pid = innova.server.check_output("systemctl show --property MainPID --value %s", UNIT)
    assert innova.server.check_output("ps -o user= -p %s", pid) == "innova"
    assert "gunicorn" in innova.server.check_output("ps -o args= -p %s", pid)
    workers = innova.server.check_output("ps -o pid= --ppid %s", pid).split()
    assert len(workers) == 2
    assert "\nserver: uvicorn" in innova.server.check_output("curl --silent --include http://127.0.0.1:8000/health")


def test_the_backend_listens_on_loopback_alone(innova: Innova) -> None:
    told = innova.server.check_output("ss -Hlnt sport = :8000").splitlines()
    assert [line.split()[3] for line in told] == ["127.0.0.1:8000"]


def test_the_settings_are_for_root_and_the_group_of_the_backend(innova: Innova) -> None:
    assert innova.server.check_output("stat -c '%%U:%%G %%a' %s", ENV_FILE) == "root:innova 640"
    lines = innova.server.check_output("sudo cat %s", ENV_FILE).splitlines()
    told = {name: value.strip("\"'") for name, value in (line.split("=", 1) for line in lines)}
    assert told.pop("MONGO_URI").startswith("mongodb://appuser:")
    assert told == {
        "ENV": "production",
        "PORT": "8000",
        "DB_NAME": "innova_db",
        "ALLOWED_ORIGINS": "https://innovaplus.africa,https://www.innovaplus.africa",
    }
    assert innova.server.run("cat %s", ENV_FILE).rc != 0


def test_secrets_are_in_no_process_list_and_no_journal(innova: Innova) -> None:
    assert "canary" not in innova.server.check_output("sudo ps -eo args")
    # sudo writes this command into the journal, too; the brackets keep it from finding itself.
    assert innova.server.run("sudo sh -c 'journalctl --no-pager | grep -q [c]anary-mongo'").rc == 1


# --- MongoDB ------------------------------------------------------------------------------------------------------


def test_mongodb_is_on_loopback_and_wants_a_login(innova: Innova) -> None:
    told = innova.server.check_output("ss -Hlnt sport = :27017").splitlines()
    assert [line.split()[3] for line in told] == ["127.0.0.1:27017"]
    ask = "import pymongo; pymongo.MongoClient('127.0.0.1', 27017).innova_db.list_collection_names()"
    refused = innova.server.run("python3 -c %s", ask)
    assert refused.rc != 0
    assert "OperationFailure" in refused.stderr


def test_the_user_of_the_backend_owns_its_database_and_no_other(innova: Innova) -> None:
    innova.in_database("assert database.command('ping')['ok'] == 1; database.list_collection_names()")
    innova.in_database(
        "try:\n    database.client['other']['x'].insert_one({})\n"
        "except pymongo.errors.OperationFailure as error:\n    assert error.code == 13, error\n"
        "else:\n    raise AssertionError('written')"
    )
    innova.in_database(
        "[user] = database.command('usersInfo', 'appuser')['users']\n"
        "assert user['db'] == 'innova_db', user\n"
        "assert user['roles'] == [{'role': 'dbOwner', 'db': 'innova_db'}], user"
    )


# --- proxy, TLS, firewall -----------------------------------------------------------------------------------------


def test_health_over_https_from_outside(innova: Innova) -> None:
    assert innova.health() == {
        "status": "ok",
        "mongo": "ok",
        "db": "innova_db",
        "vector_index": "none",
        "version": "1.0.0",
        "release": current_release(innova.server, "innovaplus"),
    }


def test_http_is_sent_on_to_https(innova: Innova) -> None:
    answer = innova.curl(f"http://{NAME}/health", "--include")
    assert answer.startswith("HTTP/1.1 308 "), answer
    assert f"https://{NAME}/health" in answer


def test_nginx_has_read_the_virtual_host_of_that_name(innova: Innova) -> None:
    text = innova.server.check_output("sudo nginx -T 2>/dev/null").split("# configuration file ")
    [site] = [part for part in text if part.partition(":")[0].endswith("/sites/innovaplus/innovaplus-api.conf")]
    assert f"server_name {NAME};" in site


def test_certbots_timer_is_active_and_a_renewal_would_work(innova: Innova) -> None:
    assert innova.server.check_output("systemctl is-active certbot.timer") == "active"
    bundle = "cat /etc/groundwork/acme-ca.d/*.pem >/run/acme-ca.pem; export REQUESTS_CA_BUNDLE=/run/acme-ca.pem"
    # A trial asks the public staging server unless another one is named.
    server = "$(sed -n 's/^server = //p' /etc/letsencrypt/renewal/innovaplus-api.conf)"
    renew = f"certbot renew --dry-run --no-random-sleep-on-renew --server {server}"
    assert "succeeded" in innova.server.check_output("sudo sh -c %s", f"{bundle}; {renew}")


def test_only_ssh_and_the_proxy_answer_outside(innova: Innova) -> None:
    assert innova.server.check_output("sudo ufw status").startswith("Status: active")
    listening = {
        int(line.split()[3].rpartition(":")[2]) for line in innova.server.check_output("ss -Hlnt").splitlines()
    }
    assert listening >= {22, 80, 443, 8000, 27017}
    asked = sorted({*listening, 20000})
    assert innova.open_ports(asked) == {(address, port) for address in (SERVER, six(SERVER)) for port in (22, 80, 443)}


def test_figures_are_for_named_networks_only(innova: Innova) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics", "/x/../metrics", "/nginx-status"):
        assert innova.status(path, "--path-as-is") == "403", path
    own = f"curl --silent --fail --insecure --resolve {NAME}:443:127.0.0.1 https://{NAME}"
    assert "innova_requests_total{" in innova.server.check_output(f"{own}/metrics")
    assert "Active connections" in innova.server.check_output(f"{own}/nginx-status")


# --- deploys ------------------------------------------------------------------------------------------------------


def load(innova: Innova) -> Load:
    """Requests to the health path from the server itself, through its proxy."""
    innova.server.check_output(f"grep -q {NAME} /etc/hosts || echo 127.0.0.1 {NAME} | sudo tee -a /etc/hosts")
    return Load(innova.server, 4, url=f"https://{NAME}/health")


class Runner:
    """Runs steps of the workflow as GitHub's runner does: a shell for each, with what those before it have exported."""

    def __init__(self, checkout: Path, folder: Path, innova: Innova) -> None:
        workflow = yaml.safe_load((checkout / ".github" / "workflows" / "deploy-backend.yml").read_text())
        self.steps = {step["name"]: step["run"] for step in workflow["jobs"]["deploy"]["steps"] if "run" in step}
        self.exported = folder / "exported"
        self.exported.write_text("")
        # In the user's inventory there is neither a key nor an option of SSH.
        inventory = Path(_copy_inventory(folder / "inventory"))
        (folder / ".curlrc").write_text(f"resolve = {NAME}:443:{SERVER}\ncacert = {folder}/root.pem\n")
        (folder / "root.pem").write_text(innova.outside.check_output("cat /tmp/acme-root.pem"))
        self.environment = {
            **environment(),
            **workflow["env"],
            "INVENTORY": str(inventory),
            "HEALTH_URL": f"https://{NAME}/health",
            "CURL_HOME": str(folder),
            "NO_PROXY": "*",
            "RUNNER_TEMP": str(folder),
            "GITHUB_ENV": str(self.exported),
            "GITHUB_WORKSPACE": str(checkout),
            "GITHUB_SHA": "0123456789abcdef",
            "SSH_PRIVATE_KEY": (KEYS / "id_ed25519").read_text(),
            "SSH_KNOWN_HOSTS": (KEYS / "known_hosts").read_text(),
            "DEPLOY_TARGET": f"debian@{SERVER}",
            "GROUNDWORK_COLLECTION": "this checkout, which is not installed",
            "MONGO_APP_PASS": yaml.safe_load(TEST_VARS.read_text())["vault_mongo_app_pass"],
        }

    def run(self, step: str) -> subprocess.CompletedProcess[str]:
        env = {**self.environment, **dict(line.split("=", 1) for line in self.exported.read_text().splitlines())}
        return subprocess.run(
            ["bash", "-e", "-c", self.steps[step]],
            cwd=self.environment["GITHUB_WORKSPACE"],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def end(self) -> None:
        """End the agent with the key, as a runner ends what a job has left."""
        exported = dict(line.split("=", 1) for line in self.exported.read_text().splitlines())
        if "SSH_AGENT_PID" in exported:
            subprocess.run(["ssh-agent", "-k"], env={**os.environ, **exported}, capture_output=True, check=True)


def _copy_inventory(folder: Path) -> Path:
    """The scenario's inventory as a user's: its address, nothing of SSH, of the vault what README says."""
    (folder / "group_vars" / "all").mkdir(parents=True)
    for path in (SCENARIO / "inventory" / "group_vars" / "all").iterdir():
        text = path.read_text().replace("inventory_dir ~ '/../../..", f"'{ROOT}")
        text = re.sub("^vault_.*\n", "", text, flags=re.MULTILINE)
        (folder / "group_vars" / "all" / path.name).write_text(text)
    [line] = re.findall("^    (vault_mongo_app_pass: .*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    (folder / "group_vars" / "all" / "vault.yml").write_text(line)
    host = {"innovaplus-server": {"ansible_host": SERVER, "ansible_user": "debian"}}
    groups = {name: {"hosts": {"innovaplus-server": {}}} for name in ("app", "database", "proxy")}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": host, "children": groups}}))
    return folder


@pytest.fixture
def runner(innova: Innova, checkout: Path, tmp_path: Path) -> Iterator[Runner]:
    """A runner that has checked the repository out."""
    made = Runner(checkout, tmp_path, innova)
    yield made
    made.end()


def test_a_push_is_deployed_by_the_workflow_and_no_request_fails(
    innova: Innova, checkout: Path, runner: Runner
) -> None:
    before = innova.health()["release"]
    (checkout / BACKEND / "NEWS").write_text("A new release.\n")
    with load(innova) as clients:
        for step in ("Require the secrets", "Provide the SSH key", "Deploy", "Wait for the public health answer"):
            done = runner.run(step)
            assert done.returncode == 0, done.stdout + done.stderr
    told = innova.health()
    assert (told["status"], told["mongo"]) == ("ok", "ok")
    assert told["release"] == current_release(innova.server, "innovaplus") != before
    assert clients.report.failed == 0, clients.report.text
    assert clients.report.requests > 100


def test_a_push_that_crashes_at_its_start_never_serves_and_its_journal_is_shown(
    innova: Innova, checkout: Path, runner: Runner
) -> None:
    before = innova.health()["release"]
    pid = innova.server.check_output("systemctl show --property MainPID --value %s", UNIT)
    app = checkout / BACKEND / "innova" / "app.py"
    app.write_text(app.read_text() + '\nraise RuntimeError("a mistake of this release")\n')
    assert runner.run("Provide the SSH key").returncode == 0
    deploy = runner.run("Deploy")
    assert deploy.returncode != 0
    assert "a mistake of this release" in " ".join(deploy.stdout.split()), deploy.stdout + deploy.stderr
    journal = runner.run("Show the last lines of the journal")
    assert journal.returncode == 0, journal.stderr
    assert "RuntimeError: a mistake of this release" in journal.stdout
    assert innova.server.check_output("systemctl show --property MainPID --value %s", UNIT) == pid
    assert (innova.health()["release"], innova.health()["status"]) == (before, "ok")


def test_the_way_back(innova: Innova, playbook: Playbook) -> None:
    new = innova.health()["release"]
    run = playbook("rollback")
    assert run.rc == 0, run.output
    old = innova.health()
    assert (old["status"], old["mongo"]) == ("ok", "ok")
    assert old["release"] == current_release(innova.server, "innovaplus") != new


def test_a_restart_by_hand_refuses_no_request(innova: Innova) -> None:
    with load(innova) as clients:
        innova.server.check_output("sudo systemctl restart %s", UNIT)
        assert innova.health()["mongo"] == "ok"
    assert clients.report.failed == 0, clients.report.text
    assert clients.report.requests > 0


# --- backups ------------------------------------------------------------------------------------------------------


def test_the_nightly_backup_writes_a_set_and_keeps_seven(innova: Innova, playbook: Playbook) -> None:
    [timer] = json.loads(
        innova.server.check_output("systemctl list-timers --output=json groundwork-innovaplus-backup.timer")
    )
    assert timer["next"], timer
    assert "02:00:00" in innova.server.check_output("systemctl cat groundwork-innovaplus-backup.timer")
    run = playbook("backup")
    assert run.rc == 0, run.output
    first = innova.sets()[-1]
    for day in range(1, 10):
        innova.age(first, f"2026010{day}T020000Z")
    innova.server.check_output("sudo systemctl start groundwork-innovaplus-backup.service")
    kept = innova.sets()
    assert len(kept) == 7
    assert first == kept[-2]
    assert "20260109T020000Z" in kept
    assert "20260101T020000Z" not in kept


def test_the_monthly_drill_proves_the_newest_set_in_a_server_of_its_own(innova: Innova) -> None:
    timer = innova.server.check_output("systemctl cat groundwork-innovaplus-drill.timer")
    assert "OnCalendar=*-*-01 04:00:00 UTC" in timer
    before = innova.picture()
    innova.server.check_output("sudo systemctl start groundwork-innovaplus-drill.service")
    manifest = json.loads(innova.server.check_output("sudo cat %s", f"{SETS}/{innova.sets()[-1]}/manifest.json"))
    assert manifest["proven"]["seconds"] > 0
    assert manifest["components"][0]["counts"] == {name: told[0] for name, told in before.items()}
    assert innova.picture() == before
    marked = "--quiet --filter label=org.groundwork.drill"
    for left in (f"ps --all {marked}", f"network ls {marked}", "volume ls --quiet --filter dangling=true"):
        assert innova.server.check_output(f"sudo docker {left}") == "", left


def test_what_was_destroyed_comes_back_with_counts_and_indexes(innova: Innova, playbook: Playbook) -> None:
    before = innova.picture()
    assert before["ideas"][0] + before["samples"][0] == DOCUMENTS
    assert set(before["samples"][2]) == {"_id_", "type_number", "late"}
    innova.in_database("database.ideas.drop(); database.samples.delete_many({'number': {'$gt': 100}})")
    assert innova.picture() != before
    migrate = [{"service": "backend", "command": ["python", "-c", MIGRATION]}]
    options = {"confirm": "innovaplus", "backup_set": innova.sets()[-1], "app_hooks": {"before_migrate": migrate}}
    run = playbook("restore", **options)
    assert run.rc == 0, run.output
    restored = innova.picture()
    assert restored.pop("migrations")[0] == 1
    assert restored == before
    innova.in_database("database.migrations.drop()")
    assert (innova.health()["status"], innova.health()["mongo"]) == ("ok", "ok")


def test_a_restart_of_the_host_within_a_restore_starts_nothing_that_writes(innova: Innova, playbook: Playbook) -> None:
    before, units = innova.picture(), (UNIT, UNIT.replace(".service", ".socket"))
    restore = playbook.start("restore", confirm="innovaplus", backup_set=innova.sets()[-1])
    try:
        stopped = f"sudo test -e {JOURNAL} && ! systemctl is-active --quiet {' '.join(units)}"
        innova.server.check_output("timeout 120 sh -c %s", f"until {stopped}; do sleep 0.1; done")
    finally:
        os.killpg(restore.pid, signal.SIGKILL)
        restore.communicate()
    innova.reboot()
    innova.connect()
    innova.server.run("sudo systemctl is-system-running --wait")  # until nothing is left to be started
    assert innova.picture() == before
    states = innova.server.run("systemctl is-active %s %s", *units).stdout.split()
    assert states == ["inactive", "inactive"]
    undone = playbook("restore", restore_action="undo")
    assert undone.rc == 0, undone.output
    assert (innova.health()["status"], innova.picture()) == ("ok", before)
    assert innova.server.check_output("systemctl is-enabled %s %s", *units).split() == ["enabled", "enabled"]


# --- the host -----------------------------------------------------------------------------------------------------


def test_everything_is_back_after_a_restart_of_the_host(innova: Innova) -> None:
    innova.reboot()
    innova.connect()
    ask = f"curl --silent --fail --insecure --max-time 5 --resolve {NAME}:443:127.0.0.1 https://{NAME}/health"
    innova.server.check_output(
        "timeout 120 sh -c %s", f"until {shlex.join(shlex.split(ask))} >/dev/null; do sleep 0.5; done"
    )
    assert innova.health()["mongo"] == "ok"
    assert innova.open_ports([8000, 27017]) == set()
