# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The converged stack, by effect."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ADDRESS, ROOT, Playbook, ask, current_release, fingerprint, in_postgres
from testinfra.host import Host

COMPOSE_FILE = "ops/compose/docker-compose.yml"


def test_the_service_is_healthy_ready_and_knows_its_release(host: Host) -> None:
    release = current_release(host)
    assert re.fullmatch(r"[0-9a-f]{12}", release)
    assert ask(host, "/health") == (200, {"ok": True, "release": release})
    status, ready = ask(host, "/ready")
    assert status == 200
    assert ready["schema_version"] == "0002"


def test_claims_are_deduplicated(host: Host) -> None:
    status, first = ask(host, "/claims", {"text": "The Great Wall is visible from orbit."})
    assert (status, first["created"]) == (201, True)
    status, again = ask(host, "/claims", {"text": "the great wall is visible from orbit"})
    assert again["duplicate"] is True
    assert again["nearest"]["claim_id"] == first["claim_id"] or again["claim_id"] == first["claim_id"]
    _status, other = ask(host, "/claims", {"text": "Copper conducts electricity well."})
    assert other["duplicate"] is False
    assert other["claim_id"] != first["claim_id"]


def test_the_users_compose_file_is_used_unmodified(host: Host) -> None:
    installed = host.run("sudo cat /srv/verisphere/current/%s", COMPOSE_FILE)
    assert installed.stdout == (ROOT / "examples" / "verisphere" / COMPOSE_FILE).read_text()


@pytest.mark.parametrize("port", [5432, 8081])
def test_published_ports_answer_on_loopback_only(host: Host, port: int) -> None:
    assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening
    with socket.socket() as outside:
        outside.settimeout(5)
        assert outside.connect_ex((ADDRESS, port)) != 0, "the port answers from another host"


def test_a_public_port_answers_from_outside_and_then_no_more(host: Host, playbook: Playbook) -> None:
    opened = playbook("deploy", app_public_ports={"semantic-dedupe": [8081]})
    assert opened.rc == 0, opened.output
    with socket.create_connection((ADDRESS, 8081), timeout=5):
        pass
    assert playbook("deploy").rc == 0
    with socket.socket() as outside:
        outside.settimeout(5)
        assert outside.connect_ex((ADDRESS, 8081)) != 0
    assert ask(host, "/ready")[0] == 200


def test_the_env_file_is_for_root_only(host: Host) -> None:
    release = current_release(host)
    with host.sudo():
        file = host.file(f"/srv/verisphere/shared/{release}/.env")
        assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


def test_migrations_are_in_the_ledger_and_the_vector_index_is_valid(host: Host) -> None:
    assert in_postgres(host, "SELECT string_agg(version || state, ',' ORDER BY version) FROM schema_migrations") == (
        "0001applied,0002applied"
    )
    assert (
        in_postgres(
            host,
            "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid::regclass::text LIKE 'claim_embeddings%'",
        )
        == "t"
    )


def test_docker_rotates_logs_and_keeps_containers_running(host: Host) -> None:
    with host.sudo():
        info = json.loads(host.check_output("docker info --format '{{json .}}'"))
        options = json.loads(
            host.check_output("docker inspect --format '{{json .HostConfig.LogConfig}}' verisphere_postgres")
        )
    assert info["LiveRestoreEnabled"] is True
    assert options["Config"]["max-size"] == "10m"


def test_check_mode_on_the_converged_host_reports_no_change(host: Host, playbook: Playbook) -> None:
    before = fingerprint(host)
    run = playbook("site", "--check", "--diff")
    assert (run.rc, run.changed) == (0, 0), run.output
    assert fingerprint(host) == before


def test_check_mode_tells_of_a_new_release_and_makes_none(host: Host, playbook: Playbook, source: Path) -> None:
    (source / "services" / "semantic_dedupe" / "NEWS").write_text("new\n")
    before = fingerprint(host)
    run = playbook("deploy", "--check", app_source={"path": str(source)})
    assert run.rc == 0, run.output
    assert run.changed > 0
    assert fingerprint(host) == before


def test_a_new_release_is_deployed_and_the_store_is_left_alone(host: Host, playbook: Playbook, source: Path) -> None:
    (source / "services" / "semantic_dedupe" / "NEWS").write_text("new\n")
    postgres = "sudo docker inspect --format '{{.Id}} {{.State.StartedAt}}' verisphere_postgres"
    before, claims = host.check_output(postgres), in_postgres(host, "SELECT count(*) FROM claims")
    run = playbook("deploy", app_source={"path": str(source)})
    assert run.rc == 0, run.output
    release = current_release(host)
    assert ask(host, "/health")[1]["release"] == release
    assert host.check_output(postgres) == before
    assert in_postgres(host, "SELECT count(*) FROM claims") == claims
    assert playbook("deploy").rc == 0, "the way back to the release of the example"


def test_a_backup_set_is_complete_private_and_restores(host: Host, playbook: Playbook) -> None:
    run = playbook("backup")
    assert run.rc == 0, run.output
    with host.sudo():
        base = "/var/backups/verisphere"
        assert host.file(base).mode == 0o700
        [*_, newest] = sorted(name for name in host.file(base).listdir() if not name.startswith("."))
        manifest = json.loads(host.file(f"{base}/{newest}/manifest.json").content_string)
        files = host.check_output("find %s -type f -printf '%%m\\n'", f"{base}/{newest}").split()
        assert set(files) == {"600"}
        assert not [name for name in host.file(base).listdir() if name.startswith(".partial")]
    [component] = manifest["components"]
    assert component["schema_version"] == "0002"
    folder = f"{base}/{newest}/components/verisphere"
    for entry in component["files"]:
        with host.sudo():
            assert host.file(f"{folder}/{entry['name']}").sha256sum == entry["sha256"]
    in_postgres(host, "DROP DATABASE IF EXISTS scratch WITH (FORCE)", "postgres")
    in_postgres(host, "CREATE DATABASE scratch", "postgres")
    [dump] = [entry["name"] for entry in component["files"] if entry["name"].endswith(".dump")]
    restored = host.run(
        "sudo sh -c %s",
        f"docker exec -i verisphere_postgres pg_restore -U postgres -d scratch --exit-on-error < {folder}/{dump}",
    )
    assert restored.rc == 0, restored.stderr
    assert component["counts"]["public.claims"] > 0
    for table, rows in component["counts"].items():
        assert in_postgres(host, f"SELECT count(*) FROM {table}", "scratch") == str(rows)
    in_postgres(host, "DROP DATABASE scratch WITH (FORCE)", "postgres")


def test_a_backup_in_check_mode_writes_nothing(host: Host, playbook: Playbook) -> None:
    before = fingerprint(host)
    run = playbook("backup", "--check", "--diff")
    assert run.rc == 0, run.output
    assert run.changed > 0
    assert fingerprint(host) == before


@pytest.mark.slow
def test_a_failed_backup_leaves_no_set(host: Host, playbook: Playbook) -> None:
    with host.sudo():
        before = sorted(host.file("/var/backups/verisphere").listdir())
    run = playbook(
        "backup",
        backup_components=[{"engine": "postgres", "name": "x", "service": "postgres", "database": "nosuchdb"}],
    )
    assert run.rc != 0
    assert "nosuchdb" in run.words
    assert "No backup set of verisphere was written" in run.words
    with host.sudo():
        assert sorted(host.file("/var/backups/verisphere").listdir()) == before


def test_status_shows_services_health_schema_and_backup(host: Host, playbook: Playbook) -> None:
    before = fingerprint(host)
    run = playbook("status")
    assert (run.rc, run.changed) == (0, 0), run.output
    lines = run.words
    assert re.search(r"service \| postgres *\| Up .*\(healthy\)", lines), run.output
    assert re.search(r"health *\| semantic-dedupe *\| ok", lines), run.output
    assert re.search(r"schema *\| verisphere *\| 0002", lines), run.output
    assert re.search(r"backup *\| newest *\| \d{8}T\d{6}Z", lines), run.output
    assert fingerprint(host) == before


@pytest.mark.slow
def test_two_deploys_at_once_with_nothing_new_do_not_harm_each_other(host: Host, playbook: Playbook) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: playbook("deploy"), range(2)))
    assert [run.rc for run in runs] == [0, 0], runs[0].output + runs[1].output
    assert ask(host, "/ready")[0] == 200
