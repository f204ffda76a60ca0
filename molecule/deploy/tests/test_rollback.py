# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The way back to an earlier release, what stands in it, and what is kept for it."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Fleet
from support.load import Load
from support.scenario import Playbook


def test_a_rollback_under_load_drops_no_request(fleet: Fleet, release: str, playbook: Playbook) -> None:
    assert playbook("deploy", relay_greeting="not for long").rc == 0
    assert fleet.served() != {release}
    with Load(fleet.proxy) as load:
        run = playbook("rollback")
    assert run.rc == 0, run.output
    assert load.report.failed == 0, load.report
    assert f"Release {release} of relay serves" in run.words
    assert fleet.ask()["greeting"] == "hello"
    fleet.clean(release)


def test_a_release_that_was_left_is_not_gone_back_to(fleet: Fleet, release: str, playbook: Playbook) -> None:
    assert playbook("deploy", relay_greeting="left").rc == 0
    [left] = fleet.served()
    assert playbook("rollback").rc == 0
    playbook("rollback")
    assert fleet.served() != {left}
    assert playbook("deploy").rc == 0
    fleet.clean(release)


def test_a_named_release_that_is_not_there_is_refused(fleet: Fleet, release: str, playbook: Playbook) -> None:
    run = playbook("rollback", release="ffffffffffff")
    assert run.rc != 0
    assert "'ffffffffffff' is no release on this host" in run.words, run.output
    fleet.clean(release)


def test_a_migration_that_lost_something_is_crossed_by_force_only(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    (source / "migrations" / "0002_drop_drafts.sql").write_text("ALTER TABLE messages DROP COLUMN draft;\n")
    deployed = playbook("deploy", app_source={"path": str(source)}, app_checkpoint=True)
    assert deployed.rc == 0, deployed.output
    [lossy] = fleet.served()
    refused = playbook("rollback")
    assert refused.rc != 0
    for word in ("0002", "drop_drafts", "ban-drop-column", lossy):
        assert word in refused.words, refused.output
    fleet.clean(lossy)
    forced = playbook("rollback", force=True)
    assert forced.rc == 0, forced.output
    fleet.clean(release)
    # The ledger knows a file that this release has not, and its next deploy would say so: bring the databases back.
    undo = "DELETE FROM schema_migrations WHERE version = '0002'; ALTER TABLE messages ADD COLUMN draft text"
    for host in (fleet.one, fleet.two):
        host.check_output("sudo docker exec relay_db psql -X -U relay -d relay -v ON_ERROR_STOP=1 -c %s", undo)
    assert playbook("deploy").changed == 0


def test_the_checkpoint_of_a_release_is_a_backup_set(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    (source / "NEWS").write_text("with a checkpoint\n")
    run = playbook("deploy", app_source={"path": str(source)}, app_checkpoint=True)
    assert run.rc == 0, run.output
    [new] = fleet.served()
    for host in (fleet.one, fleet.two):
        record = json.loads(host.check_output("sudo cat %s", f"/srv/relay/shared/{new}/release.json"))
        checkpoint = record["deploys"][-1]["checkpoint"]
        manifest = json.loads(host.check_output("sudo cat %s", f"/var/backups/relay/{checkpoint}/manifest.json"))
        assert manifest["release"] == release
        assert manifest["components"][0]["counts"]["public.messages"] == 0


def test_releases_and_status_show_who_deployed_what(fleet: Fleet, release: str, playbook: Playbook) -> None:
    releases = playbook("releases")
    assert releases.rc == 0, releases.output
    assert f"{release} |" in releases.words
    assert "current" in releases.words
    status = playbook("status")
    assert status.rc == 0, status.output
    assert "deploy | lock" in status.words, status.output
    assert f"deploy ok {release}" in status.words


def test_old_releases_go_with_their_images_and_the_rest_stays(fleet: Fleet, release: str, playbook: Playbook) -> None:
    fleet.one.check_output("sudo docker tag pgvector/pgvector:pg16 relay-other/web:kept")
    for number in range(3):
        run = playbook("deploy", relay_greeting=f"generation {number}", app_keep_releases=2)
        assert run.rc == 0, run.output
    kept = fleet.one.check_output("sudo ls /srv/relay/releases").split()
    images = fleet.one.check_output("sudo docker images --format '{{.Repository}}:{{.Tag}}'").split()
    tags = {image.split(":")[1] for image in images if image.startswith("relay/web:")}
    assert len(kept) == 2, kept
    assert tags == set(kept)
    assert "relay-other/web:kept" in images
    fleet.one.check_output("sudo docker rmi relay-other/web:kept")
    assert playbook("deploy").rc == 0
