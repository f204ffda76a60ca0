# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The way back to an earlier release, what stands in it, and what is kept for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Fleet
from support.load import Load
from support.scenario import Playbook


def test_a_rollback_under_load_drops_no_request_also_when_a_later_batch_fails(
    fleet: Fleet, own: str, playbook: Playbook, greeting: str
) -> None:
    assert playbook("deploy", relay_greeting=greeting).rc == 0
    [left] = fleet.served()
    assert left != own
    with Load(fleet.proxy) as load:
        run = playbook("rollback", app_serial=1)
        assert run.rc == 0, run.output
        assert f"Release {own} of relay serves" in run.words
        assert fleet.ask()["greeting"] == "hello"
        fleet.clean(own)
        hooks = {"before_switch": ["sh -c 'test $(hostname) != deploy-two'"]}
        failed = playbook("rollback", release=left, app_serial=1, app_hooks=hooks)
    assert failed.rc != 0
    assert "The rollback of relay failed on deploy-two" in failed.words, failed.output
    assert f"release {own} was brought back" in failed.words, failed.output
    assert load.report.failed == 0, load.report
    fleet.clean(own)
    record = json.loads(fleet.one.check_output("sudo cat %s", f"/srv/relay/shared/{left}/release.json"))
    assert "rolled_back" in {deploy["result"] for deploy in record["deploys"]}, "it is not gone back to by itself"


def test_a_migration_that_lost_something_is_crossed_by_force_only_and_has_a_checkpoint(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    (source / "migrations" / "0002_drop_drafts.sql").write_text("ALTER TABLE messages DROP COLUMN draft;\n")
    deployed = playbook("deploy", app_source={"path": str(source)}, app_checkpoint=True)
    assert deployed.rc == 0, deployed.output
    [lossy] = fleet.served()
    for host in (fleet.one, fleet.two):
        record = json.loads(host.check_output("sudo cat %s", f"/srv/relay/shared/{lossy}/release.json"))
        checkpoint = record["deploys"][-1]["checkpoint"]
        manifest = json.loads(host.check_output("sudo cat %s", f"/var/backups/relay/{checkpoint}/manifest.json"))
        assert manifest["release"] == release
        assert manifest["components"][0]["counts"]["public.messages"] == 0
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


def test_releases_and_status_show_who_deployed_what(fleet: Fleet, release: str, playbook: Playbook) -> None:
    releases = playbook("releases")
    assert releases.rc == 0, releases.output
    assert f"{release} |" in releases.words
    assert "current" in releases.words
    status = playbook("status")
    assert status.rc == 0, status.output
    assert "deploy | lock" in status.words, status.output
    last = json.loads(fleet.one.check_output("sudo tail -n 1 /srv/relay/deploy.jsonl"))
    assert (last["result"], last["release"]) == ("ok", release), last
    assert f"{last['step']} ok {release}" in status.words, status.output


def test_old_releases_go_with_their_images_and_the_rest_stays(
    fleet: Fleet, release: str, playbook: Playbook, greeting: str
) -> None:
    fleet.one.check_output("sudo docker tag pgvector/pgvector:pg16 relay-other/web:kept")
    listed = "sudo ls /srv/relay/releases"
    if len(fleet.one.check_output(listed).split()) < 2:
        assert playbook("deploy", relay_greeting=f"{greeting} again").rc == 0
    before = fleet.one.check_output(listed).split()
    run = playbook("deploy", relay_greeting=greeting, app_keep_releases=2)
    assert run.rc == 0, run.output
    kept = fleet.one.check_output(listed).split()
    images = fleet.one.check_output("sudo docker images --format '{{.Repository}}:{{.Tag}}'").split()
    tags = {image.split(":")[1] for image in images if image.startswith("relay/web:")}
    assert len(kept) == 2, kept
    assert set(before) - set(kept), "something was removed"
    assert tags == set(kept)
    assert "relay-other/web:kept" in images
    fleet.one.check_output("sudo docker rmi relay-other/web:kept")


@pytest.mark.slow
def test_a_rollback_that_one_host_has_made_already_is_ended_by_name_and_one_that_was_cut_off_without(
    fleet: Fleet, release: str, playbook: Playbook, greeting: str
) -> None:
    assert playbook("deploy", relay_greeting=greeting).rc == 0
    [left] = fleet.served()
    half = playbook("rollback", "--limit", "deploy-one,deploy-proxy")
    assert half.rc == 0, half.output
    assert fleet.releases() == [release, left]
    looked = playbook("rollback", "--check", release=release)
    assert looked.rc == 0, looked.output
    assert f"Release {release} of relay would serve" in looked.words, looked.output
    assert fleet.releases() == [release, left]
    word = f"/srv/relay/shared/{release}/going_back"
    assert fleet.one.run("sudo test -e %s", word).rc != 0
    fleet.one.check_output("sudo touch %s", word)  # as if it had been killed when the release was current
    done = playbook("rollback")
    assert done.rc == 0, done.output
    assert fleet.one.run("sudo test -e %s", word).rc != 0
    fleet.clean(release)
    again = playbook("rollback", release=release)
    assert again.rc != 0
    assert f"release {release} is the current one on deploy-one, deploy-two already" in again.words, again.output
