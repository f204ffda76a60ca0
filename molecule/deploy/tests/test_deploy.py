# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A deploy on two hosts behind a proxy: no request is dropped, and a release that fails never serves."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import ADDRESSES, ONE, Fleet
from support.load import Load, WebSocket
from support.scenario import Playbook, fingerprint


def edit(source: Path, before: str, after: str) -> None:
    """Change the application."""
    app = source / "app.py"
    text = app.read_text()
    assert before in text
    app.write_text(text.replace(before, after))


def test_the_proxy_serves_the_release_of_both_hosts(fleet: Fleet, release: str) -> None:
    fleet.clean(release)


def test_a_second_deploy_changes_nothing_and_touches_no_container(fleet: Fleet, own: str, playbook: Playbook) -> None:
    before = [fingerprint(host) for host in (fleet.one, fleet.two)]
    run = playbook("deploy", app_hooks={"before_migrate": ["touch /run/hook"], "after_switch": ["touch /run/hook"]})
    assert (run.rc, run.changed) == (0, 0), run.output
    assert fleet.one.run("sudo test -e /run/hook").rc != 0, "hooks are for new releases"
    assert [fingerprint(host) for host in (fleet.one, fleet.two)] == before
    fleet.clean(own)


def test_a_deploy_under_load_drops_no_request_and_lets_a_websocket_finish(
    fleet: Fleet, release: str, playbook: Playbook, greeting: str
) -> None:
    with WebSocket(ADDRESSES["deploy-proxy"]) as socket, Load(fleet.proxy) as load:
        run = playbook("deploy", relay_greeting=greeting, app_serial=1)
        assert run.rc == 0, run.output
    assert load.report.failed == 0, load.report
    assert load.report.requests > 1000, load.report
    assert socket.answers_after_switch > 0, "the WebSocket of the old replica answered after the switch"
    [new] = fleet.served()
    assert new != release
    assert fleet.ask()["greeting"] == greeting
    fleet.clean(new)


def test_check_mode_tells_what_would_roll_and_touches_nothing(fleet: Fleet, release: str, playbook: Playbook) -> None:
    before = [fingerprint(host) for host in (fleet.one, fleet.two)]
    run = playbook("deploy", "--check", "--diff", relay_greeting="would be new")
    assert run.rc == 0, run.output
    assert run.changed > 0
    assert "~ GREETING" in run.words, run.output
    assert "would be new" not in run.words
    assert "a new replica" in run.words, run.output
    assert "built from the source and would be recreated: worker" in run.words
    assert [fingerprint(host) for host in (fleet.one, fleet.two)] == before


MISTAKES = {
    "health never reached": ('{"ok": True,', '{"ok": False,', ["web", "ok"]),
    "crash loop": (
        "RELEASE = os",
        "raise SystemExit('a mistake in the code')\nRELEASE = os",
        ["web", "a mistake in the code"],
    ),
}


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, id=name, marks=[] if name == "crash loop" else pytest.mark.slow)
        for name, mistake in MISTAKES.items()
    ],
)
def test_a_release_that_is_not_healthy_never_serves(
    fleet: Fleet, release: str, playbook: Playbook, source: Path, mistake: tuple[str, str, list[str]]
) -> None:
    before, after, words = mistake
    edit(source, before, after)
    with Load(fleet.proxy) as load:
        run = playbook("deploy", *ONE, app_source={"path": str(source)}, app_health_timeout=8)
    assert run.rc != 0
    assert load.report.failed == 0, load.report
    for word in [*words, f"Release {release} keeps serving", "deploy-one"]:
        assert word in run.words, run.output
    fleet.clean(release)


@pytest.mark.slow
def test_a_disk_that_is_full_while_building_is_named(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    """The full disk is a small tmpfs of the build's own step: the host's disk is shared with the machine below."""
    dockerfile = source / "Dockerfile"
    full = "RUN --mount=type=tmpfs,target=/full,size=1048576 dd if=/dev/zero of=/full/file bs=1M count=2\n"
    dockerfile.write_text(dockerfile.read_text() + full)
    run = playbook("deploy", *ONE, app_source={"path": str(source)})
    assert run.rc != 0
    for word in ("No space left on device", f"Release {release} keeps serving"):
        assert word in run.words, run.output
    fleet.clean(release)


def test_a_host_that_is_lost_in_the_middle_brings_the_others_back(
    fleet: Fleet, unchanged: str, release: str, playbook: Playbook, source: Path
) -> None:
    lose = playbook.folder / "lose.yml"
    lose.write_text(
        "- name: Lose the connection\n"
        "  ansible.builtin.command: systemd-run sh -c 'sleep 1; systemctl stop ssh.socket ssh; pkill sshd'\n"
        "  when: inventory_hostname == 'deploy-two'\n"
        "- name: Wait until it is lost\n"
        "  ansible.builtin.pause: {seconds: 3}\n"
    )
    try:
        hooks = {"before_switch": [{"tasks": str(lose)}]}
        with Load(fleet.proxy) as load:
            run = playbook("deploy", app_source={"path": str(source)}, app_hooks=hooks, app_serial=1)
    finally:
        subprocess.run(["docker", "exec", "groundwork-testbed-deploy-two", "systemctl", "start", "ssh"], check=True)
    assert run.rc != 0
    assert "unreachable=1" in run.words, run.output
    assert f"release {release} was brought back" in run.words, run.output
    assert load.report.failed == 0, load.report
    assert fleet.releases() == [release, release]
    assert fleet.served() == {release}
    again = playbook("deploy")
    assert again.rc == 0, again.output
    fleet.clean(unchanged)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param((hook, number), id=f"{number.name} at {hook}", marks=marks)
        for hook, number, marks in (
            ("before_migrate", signal.SIGKILL, []),
            ("before_switch", signal.SIGINT, pytest.mark.slow),
        )
    ],
)
def test_a_controller_that_is_stopped_in_the_middle_is_cleaned_up_after_by_the_next_run(
    fleet: Fleet, own: str, playbook: Playbook, source: Path, stop: tuple[str, signal.Signals]
) -> None:
    with Load(fleet.proxy) as load:
        fleet.stop_at_hook(playbook, *stop, *ONE, app_source={"path": str(source)})
        run = playbook("deploy", *ONE)
    assert run.rc == 0, run.output
    assert "Took over the lock" in run.words, run.output
    assert load.report.failed == 0, load.report
    fleet.clean(own)


def test_a_hook_after_the_switch_that_was_killed_runs_in_the_next_run(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    """The release is current by then, and the next run brings nothing new but the end of what was begun."""
    given = {"path": str(source)}
    with Load(fleet.proxy) as load:
        fleet.stop_at_hook(playbook, "after_switch", signal.SIGKILL, app_source=given)
        [new] = set(fleet.releases())
        assert new != release
        again = playbook("deploy", app_source=given, app_hooks={"after_switch": ["touch /run/hook-ran"]})
    assert again.rc == 0, again.output
    assert load.report.failed == 0, load.report
    for host in (fleet.one, fleet.two):
        host.check_output("sudo rm /run/hook-ran")
        assert host.run("sudo test -e %s", f"/srv/relay/shared/{new}/unfinished").rc != 0
    fleet.clean(new)


def test_a_lock_that_is_held_names_its_holder(fleet: Fleet, release: str, playbook: Playbook, source: Path) -> None:
    hooks = {"before_migrate": ["sh -c 'until test -e /run/go; do sleep 0.1; done'"]}
    first = playbook.start("deploy", app_source={"path": str(source)}, app_hooks=hooks, app_lock_message="the long one")
    try:
        fleet.wait_for("/srv/relay/deploy.lock")
        second = playbook("deploy", app_lock_wait=0)
    finally:
        for host in (fleet.one, fleet.two):
            host.check_output("sudo touch /run/go")
        output, _ = first.communicate()
        for host in (fleet.one, fleet.two):
            host.check_output("sudo rm /run/go")
    assert first.returncode == 0, output
    assert second.rc != 0
    for word in ("the long one", "deploy.lock", "since"):
        assert word in second.words, second.output


def test_a_broken_file_of_the_user_in_nginx_keeps_the_old_release_serving(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    fleet.proxy.check_output("echo 'server { listen }' | sudo tee /etc/nginx/conf.d/mine.conf")
    try:
        run = playbook("deploy", *ONE, app_source={"path": str(source)})
    finally:
        fleet.proxy.check_output("sudo rm /etc/nginx/conf.d/mine.conf")
    assert run.rc != 0
    assert "nginx refuses its configuration, and did so before this change" in run.words, run.output
    assert "/etc/nginx/conf.d/mine.conf" in run.words
    fleet.clean(release)


def test_hooks_of_every_kind_run_for_a_new_release(
    fleet: Fleet, release: str, playbook: Playbook, source: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "hook.yml"
    tasks.write_text(
        "- name: Leave a mark\n"
        "  ansible.builtin.copy: {dest: /run/hook-tasks, content: '{{ app_name }}', mode: '0600'}\n"
    )
    hooks = {
        "before_migrate": ["sh -c 'echo $APP_RELEASE > /run/hook-command'"],
        "after_migrate": [
            {"service": "web", "command": ["python", "-c", "import os; print(os.environ['APP_RELEASE'])"]}
        ],
        "after_switch": [{"tasks": str(tasks)}],
    }
    run = playbook("deploy", app_source={"path": str(source)}, app_hooks=hooks)
    assert run.rc == 0, run.output
    [new] = fleet.served()
    for host in (fleet.one, fleet.two):
        assert host.check_output("sudo cat /run/hook-command") == new
        assert host.check_output("sudo cat /run/hook-tasks") == "relay"
        host.check_output("sudo rm /run/hook-command /run/hook-tasks")


def test_maintenance_answers_503_and_lets_health_checks_through(fleet: Fleet, release: str, playbook: Playbook) -> None:
    on = playbook("maintenance", app_maintenance=True)
    assert on.rc == 0, on.output
    status = fleet.headers("/")
    assert "503" in status.splitlines()[0]
    assert "retry-after" in status.lower()
    assert fleet.ask("/ready")["release"] == release
    off = playbook("maintenance", app_maintenance=False)
    assert off.rc == 0, off.output
    assert fleet.ask("/")["release"] == release


@pytest.mark.slow
def test_a_web_service_with_a_new_name_moves_together_with_its_site(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    """Forth and back under load, and back in the middle of it."""
    compose = source / "compose.yml"
    compose.write_text(compose.read_text().replace("  web:\n", "  site:\n"))
    site = {"port": 8000, "health": {"path": "/ready", "expect": "ok", "release": "release"}}
    names = {"server_names": ["relay.example.org", "site.example.org"]}
    renamed = {"app_source": {"path": str(source)}, "app_web_services": {"site": site | names}}
    before = fleet.managed("sites")
    with Load(fleet.proxy) as load:
        failed = playbook("deploy", app_hooks={"after_switch": ["false"]}, **renamed)
        assert failed.rc != 0
        fleet.clean(release)
        assert fleet.managed("sites") == before
        done = playbook("deploy", **renamed)
        assert done.rc == 0, done.output
        [new] = fleet.served()
        assert (fleet.releases(), fleet.replicas()) == ([new, new], [[], []])
        back = playbook("rollback")
        assert back.rc == 0, back.output
    assert load.report.failed == 0, load.report
    assert fleet.managed("sites") == before
    fleet.clean(release)


ADMIN = """
  admin:
    build: .
    command: %s
    ports: ["8100:8000"]
    environment: {GREETING: "of admin"}
"""
SERVE = '[uvicorn, "app:app", --host, 0.0.0.0, --port, "8000"]'


@pytest.mark.slow
def test_a_recreated_web_service_beside_a_rolled_one_fails_with_it_and_comes_back(
    fleet: Fleet, release: str, playbook: Playbook, source: Path
) -> None:
    health = {"path": "/ready", "expect": "ok", "release": "release"}
    settings = {
        "app_source": {"path": str(source)},
        "app_web_services": {
            "web": {"port": 8000, "health": health, "server_names": ["relay.example.org"]},
            "admin": {"port": 8000, "health": health},
        },
        "app_services": {"admin": {"rollout": "recreate"}},
        "app_health_timeout": 20,
    }
    compose = source / "compose.yml"
    text = compose.read_text()

    def admin() -> set[str]:
        hosts = (fleet.one, fleet.two)
        return {json.loads(host.check_output("curl -sSf http://127.0.0.1:8100/ready"))["release"] for host in hosts}

    with Load(fleet.proxy) as load:
        compose.write_text(text.replace("\nvolumes:", ADMIN % SERVE + "\nvolumes:"))
        both = playbook("deploy", **settings)
        assert both.rc == 0, both.output
        [first] = fleet.served()
        assert admin() == {first}
        compose.write_text(text.replace("\nvolumes:", ADMIN % "[python, -c, exit('no admin today')]" + "\nvolumes:"))
        broken = playbook("deploy", **settings)
    assert broken.rc != 0
    assert "no admin today" in broken.words, broken.output
    assert load.report.failed == 0, load.report
    assert admin() == {first}
    for host in (fleet.one, fleet.two):
        worker = host.check_output("sudo docker inspect --format '{{.Config.Image}} {{.State.Status}}' relay_worker")
        assert worker == f"relay/worker:{first} running"
    fleet.clean(first)


def test_two_proxies_switch_and_when_one_of_them_refuses_neither_does(
    fleet: Fleet, release: str, playbook: Playbook, greeting: str, second_proxy: str
) -> None:
    """The second one is new to it, and answers 503 until its first switch."""
    asked = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1/"
    hooks = {"before_switch": [f"sh -c '{asked} > /run/before-switch || true'"]}
    with Load(fleet.proxy) as load:
        run = playbook("deploy", "-i", second_proxy, relay_greeting=greeting, app_hooks=hooks)
        assert run.rc == 0, run.output
        [new] = fleet.served()
        assert fleet.two.check_output("sudo cat /run/before-switch") == "503"
        ask = "curl -sSf -H 'Host: relay.example.org' http://127.0.0.1/ready"
        assert {json.loads(fleet.two.check_output(ask))["release"] for _ in range(12)} == {new}
        breaks = {"before_switch": ["sh -c 'echo broken > /etc/nginx/conf.d/mine.conf'"]}
        refused = playbook("deploy", "-i", second_proxy, relay_greeting="never seen", app_hooks=breaks)
    assert refused.rc != 0
    assert "/etc/nginx/conf.d/mine.conf" in refused.words, refused.output
    assert f"Release {new} keeps serving" in refused.words, refused.output
    assert load.report.failed == 0, load.report
    fleet.clean(new)
    assert {json.loads(fleet.two.check_output(ask))["release"] for _ in range(12)} == {new}
