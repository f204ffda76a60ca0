# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The role host on bare Debian: what it sets, what it refuses, and that nobody is locked out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.certificates import Authority
from support.collection import ROOT
from support.docker_host import DockerHost, fresh_host
from support.scenario import Playbook, Run

SECRET = "canary-4d1f"
HASH = "$6$groundwork$" + 86 * "x"
SWAP = "/var/lib/docker/swapfile"  # Debian's root is an overlay here, which cannot hold one
DROP_IN = "/etc/ssh/sshd_config.d/00-groundwork.conf"
QUEUE = "/sys/class/net/eth0/tx_queue_len"
ROLE = """
- hosts: all
  become: true
  gather_facts: true
  gather_subset: [min]
  roles: [groundwork.backend.host]
"""
# Each case is a dictionary of variables; the sentences of those that fail are written to "told".
CASES = """
- hosts: all
  become: true
  gather_facts: true
  gather_subset: [min]
  tasks:
    - ansible.builtin.include_tasks: case.yml
      loop: "{{ cases }}"
      loop_control: {loop_var: case, label: one}
    - ansible.builtin.copy: {content: "{{ told | to_json }}", dest: "{{ told_file }}", mode: "0600"}
      delegate_to: localhost
      become: false
"""
CASE = """
- ansible.builtin.set_fact:
  args: "{{ defaults | combine(case) }}"
- block:
    - ansible.builtin.include_role: {name: groundwork.backend.host, tasks_from: preflight}
    - ansible.builtin.set_fact: {told: "{{ told | default([]) + ['taken'] }}"}
  rescue:
    - ansible.builtin.set_fact: {told: "{{ told | default([]) + [ansible_failed_result.msg] }}"}
"""
OPTIONS: dict[str, Any] = {
    "host_packages": [],
    "host_time_sync": False,
    "host_hostname": "app1.example.org",
    "host_locale": "C.UTF-8",
    "host_reboot_time": "04:30",
    "host_journald": {"SystemMaxUse": "64M", "MaxRetentionSec": "1month"},
    "host_swap_size": "1M",
    "host_swap_file": SWAP,
    "host_sysctl_profiles": ["proxy"],
    "host_sysctl": {"net.ipv4.tcp_keepalive_time": 700, "net.ipv4.tcp_slow_start_after_idle": ""},
    "host_kernel_files": {QUEUE: 1002},
    "host_ssh_hardening": True,
    "host_ssh_settings": {"Port": 2222, "AllowUsers": ["debian", "ann.a"]},
    "host_fail2ban": True,
    "host_fail2ban_settings": {"bantime": "1h"},
    "host_proxy": {"https": f"http://reader:{SECRET}@198.18.0.1:1", "no_proxy": ["example.org"]},
}


@dataclass(frozen=True)
class Bare:
    """A bare host, and runs of the role on it."""

    host: DockerHost
    public_key: str

    @property
    def playbook(self) -> Playbook:
        inventory = yaml.safe_load(self.host.inventory.read_text())
        inventory["all"]["hosts"] = {self.host.name: inventory["all"]["hosts"][self.host.name]}
        path = self.host.folder / "one.json"
        path.write_text(json.dumps(inventory))
        return Playbook(self.host.folder, path)

    def role(self, *arguments: str, **variables: Any) -> Run:
        play = self.host.folder / "role.yml"
        play.write_text(ROLE)
        return self.playbook(str(play), *arguments, **variables)

    def admin(self, name: str = "ann.a", **settings: Any) -> Mapping[str, Any]:
        return {"name": name, "keys": [self.public_key], **settings}

    def login(self, user: str = "debian", port: int = 22, command: str = "id -un") -> str:
        """What a fresh connection prints; empty when there is none."""
        done = subprocess.run(
            [
                "ssh", "-F", "none", "-i", self.host.private_key, "-p", str(port), "-o", "IdentitiesOnly=yes",
                "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5",
                f"{user}@{self.host.address}", command,
            ],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()


def swap_off(name: str) -> None:
    """Swap is the machine's, not the host's: it would outlive the host, and keep its volume from being removed."""
    subprocess.run(["docker", "exec", f"groundwork-testbed-{name}", "swapoff", SWAP], capture_output=True, check=False)


def bare(root: Path, name: str, address: str, os_name: str, folder: Path) -> Iterator[Bare]:
    swap_off(name)  # of a run that was killed
    with fresh_host(root, {name: address}, folder, os_name) as host:
        # The engine below mounts files into the host that a real one could replace, and closes /sys.
        host.sh("umount /etc/hostname /etc/hosts; mount -o remount,rw /sys")
        try:
            yield Bare(host, Path(f"{host.private_key}.pub").read_text().strip())
        finally:
            swap_off(name)


@pytest.fixture(scope="module")
def debian12(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """Bare Debian 12."""
    yield from bare(root, "role-host12", "198.18.0.116", "debian12", tmp_path_factory.mktemp("debian12"))


@pytest.fixture(scope="module")
def debian13(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """Bare Debian 13."""
    yield from bare(root, "role-host13", "198.18.0.115", "debian13", tmp_path_factory.mktemp("debian13"))


@pytest.fixture(scope="module")
def runs(debian12: Bare) -> tuple[Run, str, Run, Run]:
    """A run in check mode on the bare host, the files that it wrote (none), a run, and one more."""
    admins = [debian12.admin(), {"name": "gone", "state": "absent"}]
    listing = "find /etc -newer /root/before -type f | sort"
    debian12.host.sh("useradd --create-home gone; touch /root/before; sleep 0.01")
    authority = Authority.create(debian12.host.folder).path.read_text()
    options = {**OPTIONS, "host_admins": admins, "host_ca_certificates": {"own": authority}}
    checked = debian12.role("--check", **options)
    left = debian12.host.sh(listing)
    run = debian12.role("--diff", **options)
    again = debian12.role(**options)
    return checked, left, run, again


def test_check_mode_on_a_bare_host_foresees_and_changes_nothing(runs: tuple[Run, str, Run, Run]) -> None:
    checked, left, run, _again = runs
    assert checked.rc == 0, checked.output
    assert left == ""
    assert run.rc == 0, run.output
    assert 0 < checked.changed <= run.changed


def test_the_second_run_changes_nothing(runs: tuple[Run, str, Run, Run]) -> None:
    again = runs[3]
    assert (again.rc, again.changed) == (0, 0), again.output


def test_what_the_run_set_holds(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    assert runs[2].rc == 0
    told = debian12.host.sh(f"""
        hostname --fqdn
        . /etc/default/locale; echo $LANG
        apt-config dump Unattended-Upgrade::Automatic-Reboot-Time
        journalctl --unit systemd-journald --output cat | grep -o 'max 64.0M' | tail -n 1
        swapon --show=NAME --noheadings
        grep -c '^{SWAP} none swap sw 0 0' /etc/fstab
        sysctl net.ipv4.tcp_keepalive_time net.ipv4.tcp_tw_reuse
        cat {QUEUE}
        systemctl is-system-running
    """)
    assert told.split("\n")[:-1] == [
        "app1.example.org", "C.UTF-8", 'Unattended-Upgrade::Automatic-Reboot-Time "04:30";', "max 64.0M", SWAP, "1",
        "net.ipv4.tcp_keepalive_time = 700", "net.ipv4.tcp_tw_reuse = 1", "1002", "running",
    ]  # fmt: skip


def test_a_certificate_is_trusted_before_anything_is_fetched(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    """A mirror of packages may have one of its authority."""
    output = runs[2].output
    assert output.index("Have every program of the host trust them") < output.index("Read the package lists")
    pem = (debian12.host.folder / "ca.pem").read_text().split("-----")[2]
    assert pem in debian12.host.sh("cat /etc/ssl/certs/ca-certificates.crt")


def test_settings_survive_a_boot(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    """What systemd does at boot brings back what the kernel forgot."""
    assert runs[2].rc == 0
    told = debian12.host.sh(f"""
        sysctl --quiet --write net.ipv4.tcp_keepalive_time=7200; echo 1000 >{QUEUE}
        systemctl restart systemd-sysctl.service; systemd-tmpfiles --create --boot --exclude-prefix=/run
        sysctl --values net.ipv4.tcp_keepalive_time; cat {QUEUE}
    """)
    assert told.split() == ["700", "1002"]


def test_admins_come_in_and_become_root(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    assert runs[2].rc == 0
    assert debian12.login("ann.a", command="sudo -n id -un") == "root"
    assert debian12.host.sh("id gone 2>&1 || true").strip() == "id: ‘gone’: no such user"


def test_a_new_port_opens_and_that_of_the_connection_stays(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    assert "keeps port 22, over which this run came in" in runs[2].words
    assert [debian12.login(port=port) for port in (22, 2222)] == ["debian", "debian"]


def test_services_logins_and_apt_have_the_proxy_and_nobody_else_sees_its_password(
    runs: tuple[Run, str, Run, Run], debian12: Bare
) -> None:
    assert [run for run in (runs[0], runs[2], runs[3]) if SECRET in run.output] == []
    told = debian12.host.sh("systemd-run --wait --pipe --quiet env; apt-config dump Acquire::https::Proxy")
    assert f"https_proxy=http://reader:{SECRET}@198.18.0.1:1\n" in told
    assert "no_proxy=localhost,127.0.0.1,::1,example.org\n" in told
    assert f'Acquire::https::Proxy "http://reader:{SECRET}@198.18.0.1:1";' in told
    assert debian12.login(command="sudo -n sh -c 'echo $HTTPS_PROXY'") == f"http://reader:{SECRET}@198.18.0.1:1"
    readable = debian12.host.sh(f"su nobody -s /bin/sh -c 'grep -rlsF {SECRET} /etc /run /var/log' || true")
    assert readable == ""


def test_fail2ban_sees_failed_logins_and_shuts_out(runs: tuple[Run, str, Run, Run], debian12: Bare) -> None:
    assert runs[2].rc == 0
    assert debian12.login("intruder") == ""
    debian12.host.sh("until fail2ban-client status sshd | grep -q 'Total failed:[^0-9]*[1-9]'; do sleep 0.2; done")
    debian12.host.sh("fail2ban-client set sshd banip 192.0.2.9")
    debian12.host.sh("until nft list ruleset 2>/dev/null | grep -q 192.0.2.9; do sleep 0.2; done")


def test_bad_settings_are_sentences(debian13: Bare) -> None:
    by_password = debian13.admin("debian", sudo="password", password=HASH)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"host_hostname": "a_b"}, 'host_hostname is "a_b". Give letters'),
        ({"host_reboot_time": "270"}, 'host_reboot_time is "270". Give a time of day in quotes'),
        ({"host_journald": {"SystemMaxUsage": "1G", "MaxFileSec": "soon"}}, 'SystemMaxUsage is not one of'),
        ({"host_proxy": {"http": f"proxy:{SECRET}@x"}}, "host_proxy has an address that is none"),
        ({"host_swap_size": "1M"}, "/ on role-host13 is overlay, which cannot hold a swap file"),
        ({"host_sysctl": {"net.ipv4.nope": 1, "net.ipv4.ip_forward": 1}}, "has no net.ipv4.nope. Correct the name"),
        ({"host_kernel_files": {"/sys/kernel/nope": 1}}, "has no /sys/kernel/nope. Correct the path"),
        ({"host_admins": [{"name": "x y", "keys": ["ssh-rsa x"], "sudo": "password"}]}, "x y needs a password"),
        ({"host_admins": [{"name": "debian", "state": "absent"}]}, "host_admins removes debian, and this run"),
        ({"host_admins": [debian13.admin("debian", sudo="none")]}, "host_admins takes sudo from debian, and this run"),
        ({"host_admins": [by_password]}, "has sudo ask debian for a password, and that account"),
        (
            {"host_admins": [{"name": "debian", "exclusive": True, "keys": [other_key()]}]},
            "the key with which this run came in on role-host13 (SHA256:",
        ),
        ({"host_admins": [debian13.admin("debian", exclusive=True)], "host_ssh_hardening": True}, "taken"),
        ({"host_ssh_settings": {"Match": "all"}}, "'Match' cannot be one of the settings"),
        ({"host_ssh_settings": {"AllowUsers": "ann"}}, "AllowUsers would be ann, and debian from 198.18.0.1"),
        ({"host_admins": [by_password], "ansible_become_password": "x"}, "on role-host13, has none that works"),
        ({"host_admins": [debian13.admin("debian", sudo="none")]}, "host_admins takes sudo from debian, and this run"),
    ]  # fmt: skip
    debian13.host.sh("touch /root/before; sleep 0.01")
    output = require_sentences(debian13, cases)
    assert SECRET not in output
    assert debian13.host.sh("find /etc -newer /root/before -type f") == ""


def test_sudo_may_ask_who_came_in_for_a_password_that_works(debian13: Bare) -> None:
    by_password = debian13.admin("debian", sudo="password", password=HASH)
    before = debian13.host.sh("getent shadow debian | cut -d: -f2").strip()
    debian13.host.sh(f"usermod -p '{HASH}' debian")
    require_sentences(debian13, [({"host_admins": [by_password]}, "taken")])
    debian13.host.sh(f"usermod -p '!{HASH}' debian")
    require_sentences(debian13, [({"host_admins": [by_password]}, "on role-host13, has none that works")])
    debian13.host.sh(f"usermod -p '{before}' debian")


def require_sentences(on: Bare, cases: list[tuple[dict[str, Any], str]]) -> str:
    """Run the preflight with each case's variables, require its sentence or "taken", and return the output."""
    folder = on.host.folder
    (folder / "cases.yml").write_text(CASES)
    (folder / "case.yml").write_text(CASE)
    defaults = yaml.safe_load((ROOT / "roles" / "host" / "defaults" / "main.yml").read_text())
    run = on.playbook(
        str(folder / "cases.yml"), cases=[case for case, _told in cases], defaults=defaults,
        told_file=str(folder / "told.json"),
    )  # fmt: skip
    assert run.rc == 0, run.output
    told = json.loads((folder / "told.json").read_text())
    assert [
        (want, got) for (_case, want), got in zip(cases, told, strict=True) if want not in " ".join(got.split())
    ] == []
    return run.output


def other_key() -> str:
    """A public key whose private one nobody has."""
    return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIEQ5p8bU9QjO0mJf0s1yq9yG3xYvO0mKf1f0Yb0wP4r other"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"PubkeyAuthentication": False}, "came in with a key of the kind ED25519, which would not"),
        ({"DenyUsers": "deb*"}, "DenyUsers would refuse debian from 198.18.0.1"),
        ({"AllowGroups": ["wheel"]}, "AllowGroups would be wheel, and debian is only in debian, sudo"),
        ({"AuthorizedKeysFile": "/etc/keys/%u"}, "authorizedkeysfile would be /etc/keys/%u"),
        ({"ListenAddress": "127.0.0.1"}, "This run comes in at 198.18.0.115, on which sshd would not listen any more"),
        ({"PermitRotLogin": True}, "00-groundwork.conf: line 2: Bad configuration option: PermitRotLogin"),
    ],
)  # fmt: skip
def test_what_would_lock_out_is_refused(debian13: Bare, settings: dict[str, Any], told: str) -> None:
    refused = debian13.host.module("sshd_config", {"settings": settings})
    assert refused.get("failed"), refused
    assert told in refused["msg"]
    assert debian13.login() == "debian"
    assert debian13.host.sh(f"ls {DROP_IN} 2>/dev/null || true") == ""


def test_a_broken_file_of_the_user_keeps_ours_away_and_sshd_serving(debian13: Bare) -> None:
    broken = "/etc/ssh/sshd_config.d/50-mine.conf"
    debian13.host.write(broken, "\nPermitRootLogin perhaps\n")
    refused = debian13.host.module("sshd_config", {"settings": {"X11Forwarding": False}})
    assert refused.get("failed"), refused
    assert f"{broken} line 2: unsupported option" in refused["msg"]
    assert debian13.host.sh(f"ls {DROP_IN} 2>/dev/null || true; rm {broken}") == ""
    assert debian13.login() == "debian"


def test_a_port_that_another_program_has_is_refused(debian13: Bare) -> None:
    debian13.host.sh(
        "systemd-run --quiet --unit other python3 -m http.server 2223\n"
        "until ss -Htln 'sport = 2223' | grep -q .; do sleep 0.1; done"
    )
    refused = debian13.host.module("sshd_config", {"settings": {"Port": [22, 2223]}})
    assert "sshd shall listen on 0.0.0.0:2223, which another program has" in refused["msg"]
    assert debian13.login() == "debian"


def test_sessions_stay_and_the_old_port_closes_once_nobody_comes_over_it(debian13: Bare) -> None:
    host = debian13.host
    session = subprocess.Popen(
        ["ssh", "-F", "none", "-i", host.private_key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
         "-o", f"UserKnownHostsFile={host.folder / 'known_hosts'}", "-o", "StrictHostKeyChecking=accept-new",
         f"debian@{host.address}", "echo begun; read word; echo $word"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    settings = {"Port": 2222, "PasswordAuthentication": False}
    foreseen = host.module("sshd_config", {"settings": settings}, check=True)
    assert (foreseen["changed"], foreseen["kept_port"]) == (True, 22)
    assert debian13.login(port=2222) == ""
    opened = host.module("sshd_config", {"settings": settings})
    assert (opened["changed"], opened["reloaded"], opened["kept_port"], opened["ports"]) == (True, True, 22, [22, 2222])
    assert not host.module("sshd_config", {"settings": settings})["changed"]
    assert [debian13.login(port=port) for port in (22, 2222)] == ["debian", "debian"]
    host.inventory.write_text(
        host.inventory.read_text().replace(
            f'ansible_host: "{host.address}"', f'ansible_host: "{host.address}"\n      ansible_port: 2222'
        )
    )
    closed = host.module("sshd_config", {"settings": settings})
    assert (closed["changed"], closed["kept_port"], closed["ports"]) == (True, 0, [2222])
    assert [debian13.login(port=port) for port in (22, 2222)] == ["", "debian"]
    back = host.module("sshd_config", {"settings": {}})
    assert (back["changed"], back["kept_port"], back["ports"]) == (True, 2222, [22, 2222])
    assert [debian13.login(port=port) for port in (22, 2222)] == ["debian", "debian"]
    assert session.communicate("still here\n", timeout=30)[0] == "still here\n"
