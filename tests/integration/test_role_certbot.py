# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Role certbot with a real certbot, a real nginx, and Pebble as the ACME server outside of the host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.docker_host import DockerHost
from support.scenario import Playbook, Run

HERE, OUTSIDE = "198.18.98.1", "198.18.98.2"
SERVER = f"https://{OUTSIDE}:14000/dir"
TLS = "/etc/groundwork/tls"
SITES = [{"certificate": "shop", "names": ["shop.test"]}]

_LINK = f"""
ip netns add acme
ip link add gwacme0 type veth peer name eth0 netns acme
ip addr add {HERE}/30 dev gwacme0
ip link set gwacme0 up
ip -n acme addr add {OUTSIDE}/30 dev eth0
ip -n acme link set eth0 up
ip -n acme link set lo up
"""
_HTTP = """
server {
    listen 80 default_server;
    location ^~ /.well-known/acme-challenge/ { root /var/lib/groundwork/acme; }
    location / { return 444; }
}
"""
_CUT = f"-d {OUTSIDE} -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
_CLEAN = f"""
systemctl stop nginx.service pebble.service pebble-dns.service certbot.timer 2>/dev/null || true
rm -f /etc/nginx/conf.d/certbot-test*.conf
ip netns del acme 2>/dev/null || true
iptables -D OUTPUT {_CUT} 2>/dev/null || true
"""


@dataclass(frozen=True)
class Edge:
    """The host, with an ACME server that believes what its own DNS says."""

    host: DockerHost
    folder: Path
    ca: str

    def site(self, certificate: str, *names: str) -> None:
        """Have nginx serve a certificate."""
        self.host.write(
            f"/etc/nginx/conf.d/certbot-test-{certificate}.conf",
            f"server {{ listen 443 ssl; server_name {' '.join(names)}; return 200 ok;\n"
            f"ssl_certificate {TLS}/{certificate}/fullchain.pem;\n"
            f"ssl_certificate_key {TLS}/{certificate}/privkey.pem; }}\n",
        )
        self.host.sh("nginx -t -q && systemctl reload nginx")
        self.settle(names[0], certificate)

    def settle(self, name: str, certificate: str) -> None:
        """Wait until a reload is over: systemd does not."""
        shown = (
            f"openssl s_client -connect 127.0.0.1:443 -servername {name} </dev/null 2>/dev/null | openssl x509 -serial"
        )
        wait = f'until [ "$({shown})" = "$1" ]; do sleep 0.1; done'
        want = f"$(openssl x509 -serial -in {TLS}/{certificate}/fullchain.pem)"
        self.host.sh(f"timeout 30 bash -c '{wait}' - \"{want}\"")

    def play(self, *arguments: str, entries: Sequence[str] = ("main", "served", "clean"), **variables: Any) -> Run:
        """The role as site.yml has it: certificates, what is served, what goes."""
        path = self.folder / "certificates.yml"
        roles = [{"name": "groundwork.backend.certbot", "tasks_from": entry} for entry in entries]
        tasks = [{"name": "Import", "ansible.builtin.import_role": role} for role in roles]
        path.write_text(json.dumps([{"hosts": self.host.name, "become": True, "tasks": tasks}]))
        settings = {
            "certbot_app": "shop",
            "certbot_server": SERVER,
            "certbot_ca": self.ca,
            "certbot_profile": "shortlived",
            "certbot_verify_chain": False,
        }
        return Playbook(self.folder, self.host.inventory)(str(path), *arguments, **{**settings, **variables})

    def bring(self, *certificates: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        """Run the module."""
        arguments = {
            "certificates": list(certificates),
            "server": SERVER,
            "ca_file": "/etc/groundwork/acme-ca.d/shop.pem",
            **options,
        }
        return self.host.module("tls_certificates", arguments, check=check)

    def served(self, name: str) -> dict[str, str]:
        """The certificate that nginx serves for a name: issuer, serial and names."""
        told = self.host.sh(
            f"openssl s_client -connect 127.0.0.1:443 -servername {name} </dev/null 2>/dev/null "
            "| openssl x509 -noout -issuer -serial -ext subjectAltName -text"
        )
        lines = [line.strip() for line in told.splitlines()]
        return {
            "issuer": next(line for line in lines if line.startswith("issuer=")),
            "serial": next(line for line in lines if line.startswith("serial=")),
            "names": next(line for line in lines if line.startswith("DNS:")),
            "key": next(line for line in lines if line.startswith("Public Key Algorithm")),
        }

    def leads(self, name: str, *addresses: str) -> None:
        """What the DNS of the ACME server says of a name."""
        body = json.dumps({"host": name, "addresses": addresses})
        self.host.sh(f"ip netns exec acme curl --fail --silent --data '{body}' http://127.0.0.1:8055/add-a")

    def age(self, certificate: str, authority: Authority, *, name: str, days_left: float) -> None:
        """Put one in the place of certbot's that began five days ago and ends in so many days."""
        text = authority.issue(name, days=days_left).read_text()
        end = "-----END CERTIFICATE-----\n"
        chain, _, key = text.partition(end)
        for file, content in (("cert", chain + end), ("fullchain", chain + end), ("privkey", key)):
            self.host.write(f"/etc/letsencrypt/live/{certificate}/{file}.pem", content)


@pytest.fixture(scope="module")
def edge(docker_host: DockerHost, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """nginx that answers challenges and nothing else, and Pebble in a network namespace."""
    docker_host.sh(_CLEAN)
    docker_host.sh(_LINK)
    docker_host.write("/root/install-pebble", (root / "tests" / "support" / "install-pebble").read_text())
    docker_host.sh(f"sh /root/install-pebble {OUTSIDE} {HERE} {6 * 86400} acme")
    docker_host.write("/etc/nginx/conf.d/certbot-test.conf", _HTTP)
    docker_host.sh("rm -f /etc/nginx/sites-enabled/default; mkdir -p /var/lib/groundwork/acme; systemctl restart nginx")
    yield Edge(docker_host, tmp_path_factory.mktemp("certbot"), docker_host.sh("cat /etc/pebble/ca.pem"))
    docker_host.sh(_CLEAN)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA whose certificates began five days ago."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shop(edge: Edge) -> Edge:
    """The certificate "shop", brought by the role on a host that had none, and served."""
    run = edge.play(entries=["main"], certbot_sites=SITES)
    assert run.rc == 0, run.output
    assert "trial of a renewal failed" not in run.words
    edge.site("shop", "shop.test")
    return edge


def entry(name: str, *names: str, **more: Any) -> dict[str, Any]:
    """What the module is asked for."""
    return {"name": name, "names": names or [name], **more}


def failure(result: dict[str, Any]) -> dict[str, str]:
    """The one failure that a result tells of."""
    assert result.get("failed"), result
    [found] = result["failures"]
    return dict(found)


def test_check_mode_changes_nothing_on_a_bare_host(edge: Edge) -> None:
    folders = "/etc/groundwork /etc/letsencrypt /etc/systemd/system"
    look = f"find {folders} -printf '%p %l %s %m %T@\\n' 2>/dev/null | sort"
    before = edge.host.sh(look)
    run = edge.play("--check", certbot_sites=SITES)
    assert run.rc == 0, run.output
    assert run.changed > 0
    assert "/etc/systemd/system/" in before
    assert edge.host.sh(look) == before


def test_the_role_brings_a_certificate_and_a_second_run_changes_nothing(shop: Edge) -> None:
    served = shop.served("shop.test")
    assert "Pebble" in served["issuer"]
    assert served["key"].endswith("id-ecPublicKey")
    again = shop.play(certbot_sites=SITES)
    assert again.rc == 0, again.output
    assert again.changed == 0, again.output
    assert shop.host.sh("systemctl is-enabled certbot.timer; systemctl is-active certbot.timer").split() == [
        "enabled",
        "active",
    ]


def test_a_server_can_name_a_certificate_that_is_not_there_yet(shop: Edge) -> None:
    assert shop.bring(entry("early.test"), issue=False)["actions"] == {"early.test": ["placeholder"]}
    shop.site("early.test", "early.test")
    assert "groundwork placeholder" in shop.served("early.test")["issuer"]
    assert shop.bring(entry("early.test"), check=True)["actions"] == {"early.test": ["issued"]}
    assert shop.bring(entry("early.test"))["reloaded"] is True
    assert "Pebble" in shop.served("early.test")["issuer"]


def test_names_come_and_go(shop: Edge) -> None:
    shop.bring(entry("names", "one.test"))
    shop.site("names", "one.test", "two.test")
    assert shop.bring(entry("names", "one.test", "two.test"))["actions"] == {"names": ["issued"]}
    assert shop.served("two.test")["names"] == "DNS:one.test, DNS:two.test"
    assert shop.bring(entry("names", "two.test"))["certificates"]["names"]["names"] == ["two.test"]
    assert shop.served("two.test")["names"] == "DNS:two.test"


def test_the_timer_renews_and_the_renewed_one_is_served(shop: Edge, authority: Authority) -> None:
    shop.age("shop", authority, days_left=2, name="shop.test")
    shop.host.sh("systemctl reload nginx")
    shop.settle("shop.test", "shop")
    assert "Own CA" in shop.served("shop.test")["issuer"]
    shop.host.sh("systemctl start certbot.service")
    shop.settle("shop.test", "shop")
    assert "Pebble" in shop.served("shop.test")["issuer"]


def test_a_second_stack_takes_no_trust_and_no_profile_from_the_first(shop: Edge, authority: Authority) -> None:
    """It trusts what the system trusts, so that it gets nothing from this server."""
    sites = [{"certificate": "second.test", "names": ["second.test"]}]
    run = shop.play(entries=["main"], certbot_app="second", certbot_ca="", certbot_profile="", certbot_sites=sites)
    assert "is not trusted" in run.words, run.output
    assert "preferred-profile = shortlived" in shop.host.sh("cat /etc/letsencrypt/cli.ini")
    shop.age("shop", authority, days_left=2, name="shop.test")
    shop.host.sh("systemctl start certbot.service; systemctl reload nginx")
    shop.settle("shop.test", "shop")
    assert "Pebble" in shop.served("shop.test")["issuer"]


def test_two_profiles_on_a_host_are_refused(shop: Edge) -> None:
    sites = [{"certificate": "second.test", "names": ["second.test"]}]
    run = shop.play(entries=["main"], certbot_app="second", certbot_profile="classic", certbot_sites=sites)
    assert run.rc != 0
    assert "shop asks for preferred-profile = shortlived" in run.words


def test_certbot_may_have_no_settings(shop: Edge) -> None:
    shop.host.sh("mv /etc/letsencrypt/cli.ini /root/cli.ini")
    sites = [{"certificate": "second.test", "names": ["second.test"]}]
    try:
        run = shop.play(entries=["main"], certbot_app="second", certbot_ca="", certbot_profile="", certbot_sites=sites)
        assert "is not trusted" in run.words, run.output
        assert shop.host.sh("ls /etc/letsencrypt/cli.ini 2>/dev/null || true") == ""
    finally:
        shop.host.sh("mv /root/cli.ini /etc/letsencrypt/cli.ini")


def test_without_the_server_the_old_one_stays(shop: Edge, authority: Authority) -> None:
    shop.host.sh(f"iptables -I OUTPUT {_CUT}")
    shop.age("shop", authority, days_left=2, name="shop.test")
    shop.host.sh("systemctl reload nginx")
    shop.settle("shop.test", "shop")
    asked, options = entry("shop", "shop.test"), {"app": "shop", "profile": "shortlived"}
    kept = shop.bring(asked, **options)
    assert not kept.get("failed"), kept["msg"]
    assert any("ends in 2.0 days" in one and "cannot be reached" in one for one in kept["warnings"]), kept
    shop.age("shop", authority, days_left=1, name="shop.test")
    assert failure(shop.bring(asked, **options))["kind"] == "unreachable"
    assert "Own CA" in shop.served("shop.test")["issuer"]


def test_when_the_server_is_back_the_certificate_is_renewed(shop: Edge) -> None:
    shop.host.sh(f"iptables -D OUTPUT {_CUT}")
    assert shop.bring(entry("shop", "shop.test"), app="shop", profile="shortlived")["actions"] == {"shop": ["renewed"]}
    assert "Pebble" in shop.served("shop.test")["issuer"]


def test_a_name_that_leads_elsewhere_is_named_and_others_are_brought(shop: Edge) -> None:
    shop.leads("lost.test", OUTSIDE)
    done = shop.bring(entry("lost.test"), entry("fine.test"))
    told = failure(done)
    assert told["kind"] == "wrong_dns"
    assert f"lost.test leads to {OUTSIDE}, and this host has " in told["problem"]
    assert done["actions"]["fine.test"] == ["placeholder", "issued"]
    assert done["msg"].endswith("What else was asked for works: fine.test.")


def test_a_challenge_that_our_firewall_keeps_out_is_named(shop: Edge) -> None:
    shop.host.sh("apt-get install --yes --quiet ufw >/dev/null; ufw allow 22; ufw reject 80; ufw --force enable")
    try:
        told = failure(shop.bring(entry("walled.test")))
    finally:
        shop.host.sh("ufw --force reset; ufw disable")
    assert told["kind"] == "firewall", told
    assert "UFW does not let port 80 in" in told["problem"]


def test_a_certificate_that_the_user_brings_is_served_and_its_key_never_shown(shop: Edge, authority: Authority) -> None:
    text = authority.issue("own.test", days=60).read_text()
    chain, mark, key = text.partition("-----BEGIN PRIVATE KEY-----")
    own = {"certificate": chain, "key": f"{mark}{key}"}
    secret = key.split()[0]
    done = shop.bring(entry("own.test", **own))
    assert done["actions"] == {"own.test": ["installed"]}
    assert secret not in done["_printed"]
    shop.site("own.test", "own.test")
    assert "Own CA" in shop.served("own.test")["issuer"]
    other = authority.issue("other.test", days=60).read_text().partition("-----BEGIN PRIVATE KEY-----")
    wrong = shop.bring(entry("own.test", certificate=chain, key=f"{other[1]}{other[2]}"))
    assert "is not that of its first certificate" in wrong["msg"]
    run = shop.play("-vvv", certbot_sites=[{"certificate": "own.test", "names": ["own.test"]}],
                    certbot_certificates=[{"name": "own.test", "own": own}], certbot_app="main")  # fmt: skip
    assert run.rc == 0, run.output
    assert secret not in run.output
    assert shop.bring(entry("own.test", **own))["changed"] is False


def test_what_is_not_listed_goes_unless_nginx_names_it(shop: Edge) -> None:
    """The run with the brought certificate listed nothing else of the stack main."""
    left = shop.host.sh(f"ls {TLS}; ls /etc/letsencrypt/renewal").split()
    assert {"early.test", "names", "shop", "own.test"} <= set(left)
    assert not {"fine.test", "fine.test.conf", "lost.test"} & set(left)


def test_a_certificate_of_another_stack_is_served_and_not_asked_for(shop: Edge) -> None:
    refused = shop.play(entries=["main"], certbot_app="second", certbot_ca="", certbot_sites=SITES)
    assert "Set shared: true for it in certbot_certificates" in refused.words
    shared = [{"name": "shop", "shared": True}]
    run = shop.play(certbot_app="second", certbot_sites=SITES, certbot_certificates=shared)
    assert run.rc == 0, run.output


def test_what_an_older_certbot_was_told_is_taken_back(shop: Edge) -> None:
    shop.host.sh("sed -i '1i renew_before_expiry = 720 hours' /etc/letsencrypt/renewal/shop.conf")
    asked, options = entry("shop", "shop.test"), {"app": "shop", "profile": "shortlived"}
    assert shop.bring(asked, **options, check=True)["actions"] == {"shop": ["renewal"]}
    assert shop.bring(asked, **options)["actions"] == {"shop": ["renewal"]}
    assert shop.bring(asked, **options)["changed"] is False


def test_the_last_stack_takes_its_trust_away(shop: Edge) -> None:
    """Nothing is asked for: what is there is what is wanted."""
    run = shop.play(entries=["main"], certbot_sites=SITES, certbot_ca="")
    assert run.rc == 0, run.output
    assert "REQUESTS_CA_BUNDLE" not in shop.host.sh("systemctl show --property Environment certbot.service")
    again = shop.play(entries=["main"], certbot_sites=SITES, certbot_ca="")
    assert again.changed == 0, again.output
