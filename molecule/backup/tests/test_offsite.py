# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Sets go into a restic repository and come back as they were: in a folder, over SFTP and over REST."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import SETS, Stack
from support.scenario import Run
from testinfra.host import Host

PARTS = "molecule/backup/offsite.yml"
RESTIC = "/usr/local/lib/groundwork/notes/restic"
PASSWORD = "s3cret 'of' the $repository"


@pytest.fixture(scope="module")
def vault(host: Host) -> Iterator[dict[str, dict[str, str]]]:
    """Places for repositories on the host itself: a folder, an account for SFTP, and rclone's REST server."""
    host.check_output("sudo apt-get install --yes --quiet --no-install-recommends rclone restic")
    script = (
        "useradd --create-home vault && cd /home/vault && mkdir -m 0700 .ssh rest "
        "&& ssh-keygen -q -t ed25519 -N '' -f /root/vault_key && cp /root/vault_key.pub .ssh/authorized_keys "
        "&& chown -R vault: . && mkdir -m 0700 /srv/vault "
        "&& systemd-run --quiet --unit vault-rest --uid vault --setenv=HOME=/home/vault "
        "rclone serve restic --addr 127.0.0.1:8098 --user me --pass canary-rest /home/vault/rest"
    )
    host.check_output("sudo sh -e -c %s", script)
    host.check_output("timeout 30 sh -c %s", "until curl --silent http://127.0.0.1:8098/; do sleep 0.1; done")
    host_key = host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub").split()
    yield {
        "folder": {"repository": "/srv/vault/notes"},
        "sftp": {
            "repository": "sftp:vault@127.0.0.1:/home/vault/notes",
            "ssh_key": host.check_output("sudo cat /root/vault_key"),
            "known_hosts": f"127.0.0.1 {host_key[0]} {host_key[1]}",
        },
        "rest": {"repository": "rest:http://me:canary-rest@127.0.0.1:8098/notes/"},
    }
    host.check_output(
        "sudo sh -c %s",
        "systemctl stop vault-rest; rm -rf /srv/vault /root/vault_key* /etc/groundwork/notes/offsite; "
        "userdel --remove vault 2>&1",
    )


def use(stack: Stack, offsite: dict[str, str], *parts: str, **variables: object) -> Run:
    """Run parts of the role with a repository."""
    settings = {"password": PASSWORD, "check_parts": 1, **offsite}
    return stack.playbook(PARTS, backup_offsite=settings, offsite=list(parts), **variables)


def copies(host: Host) -> list[str]:
    """Ids of the sets in the repository."""
    told = json.loads(host.check_output("sudo %s snapshots --json", RESTIC))
    return sorted(tag[4:] for snapshot in told for tag in snapshot["tags"] if tag.startswith("set="))


def picture(host: Host, set_id: str) -> str:
    """Every file of a set with its mode and checksum."""
    script = f"cd {SETS}/{set_id} && find . -printf '%p %m\\n' | sort && find . -type f | sort | xargs sha256sum"
    return str(host.check_output("sudo sh -c %s", script))


@pytest.mark.parametrize("kind", ["folder", "sftp", "rest"])
def test_a_set_goes_and_comes_back(
    host: Host, stack: Stack, good_set: str, vault: dict[str, dict[str, str]], kind: str
) -> None:
    before = picture(host, good_set)
    run = use(stack, vault[kind], "folders", "offsite_setup", "offsite", "offsite")
    assert run.rc == 0, run.output
    assert copies(host) == stack.sets(), "each set once"
    assert PASSWORD not in run.output
    host.check_output("sudo mv %s /var/backups/away", f"{SETS}/{good_set}")
    try:
        run = use(stack, vault[kind], "offsite_fetch", "offsite_fetch", backup_set=good_set)
        assert run.rc == 0, run.output
        assert picture(host, good_set) == before
        assert host.run("sudo test -e %s", f"{SETS}/.offsite").rc != 0
    finally:
        host.check_output("sudo sh -c %s", f"rm -rf {SETS}/{good_set} && mv /var/backups/away {SETS}/{good_set}")


def test_settings_are_roots_alone_and_not_on_command_lines(host: Host) -> None:
    assert host.check_output("sudo find /etc/groundwork -type f ! -perm 0600 -o -type d ! -perm 0700") == ""
    program = host.check_output("cat %s", RESTIC)
    assert "canary-rest" not in program
    assert PASSWORD not in program


def test_a_wrong_password_makes_no_new_repository(host: Host, stack: Stack, vault: dict[str, dict[str, str]]) -> None:
    before = host.check_output("sudo ls -R /srv/vault/notes/config /srv/vault/notes/keys")
    run = use(stack, {**vault["folder"], "password": "another"}, "folders", "offsite_setup")
    assert run.rc != 0
    assert "The repository of backup_offsite cannot be read" in run.words, run.output
    assert host.check_output("sudo ls -R /srv/vault/notes/config /srv/vault/notes/keys") == before


def test_a_repository_that_is_not_mounted_is_an_error_and_no_new_one(
    host: Host, stack: Stack, vault: dict[str, dict[str, str]]
) -> None:
    away = {"repository": "/srv/vault/away", "init": False}
    run = use(stack, away, "folders", "offsite_setup", "offsite")
    assert run.rc != 0
    assert "The sets on the host are as they were" in run.words, run.output
    assert host.run("sudo test -e /srv/vault/away").rc != 0


def test_a_flipped_bit_in_the_repository_is_found(
    host: Host, stack: Stack, good_set: str, vault: dict[str, dict[str, str]]
) -> None:
    pack = host.check_output("sudo find /srv/vault/notes/data -type f -size +20k").split()[0]
    flip = (
        "import os, sys; p = sys.argv[1]; os.chmod(p, 0o600); f = open(p, 'r+b'); f.seek(1000); b = f.read(1)[0]; "
        "f.seek(1000); f.write(bytes([b ^ 1]))"
    )
    host.check_output("sudo python3 -c %s %s", flip, pack)
    try:
        run = use(stack, vault["folder"], "folders", "offsite_setup", "offsite")
        assert run.rc != 0
        assert "failed (Check the repository)" in run.words, run.output
    finally:
        host.check_output("sudo python3 -c %s %s", flip, pack)


def test_what_no_rule_keeps_is_forgotten_and_not_copied_again(
    host: Host, stack: Stack, good_set: str, vault: dict[str, dict[str, str]]
) -> None:
    old = stack.forge(good_set, "20200101T000000Z")
    older = {**vault["folder"], "repository": "/srv/vault/forgetting", "keep": {"last": 1}}
    try:
        run = use(stack, older, "folders", "offsite_setup", "offsite", "offsite")
        assert run.rc == 0, run.output
        assert copies(host) == [stack.sets()[-1]]
    finally:
        host.check_output("sudo rm -r %s", f"{SETS}/{old}")


def test_restore_takes_a_set_from_the_repository(
    host: Host, stack: Stack, good_set: str, vault: dict[str, dict[str, str]]
) -> None:
    run = use(stack, vault["folder"], "folders", "offsite_setup")
    assert run.rc == 0, run.output
    notes = stack.notes()
    host.check_output("sudo mv %s /var/backups/away", f"{SETS}/{good_set}")
    try:
        stack.sql("DELETE FROM notes")
        settings = {"password": PASSWORD, **vault["folder"]}
        run = stack.restore(good_set, backup_from="offsite", backup_offsite=settings)
        assert run.rc == 0, run.output
        assert stack.notes() == notes
    finally:
        host.check_output("sudo sh -c %s", f"rm -rf {SETS}/{good_set} && mv /var/backups/away {SETS}/{good_set}")
