# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The role nginx on a Debian host: what its sites say, to whom, over TLS and plain HTTP, and what a change keeps."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.docker_host import DockerHost
from support.scenario import Playbook, Run

PASSWORD = "canary-7c2e$1%"
ECHO = """
import http.server, json, os, socketserver
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0
    def do_GET(self):
        Echo.count += 1
        if self.path == "/slow/":
            open("/run/echo/waits", "w").close()
            os.open("/run/echo/go", os.O_RDONLY)
        text = json.dumps({"count": Echo.count, "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(429 if self.path == "/busy" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.path == "/framed":
            self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_GET
    def address_string(self):
        return "socket"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
os.makedirs("/run/echo")
os.mkfifo("/run/echo/go")
server = Server("/run/echo/socket", Echo)
os.chmod("/run/echo/socket", 0o666)
server.serve_forever()
"""
ECHOED = {"upstream": {"name": "echo"}}
APP = {
    "name": "app",
    "server_names": ["app.test"],
    "tls": {"certificate": "app.test"},
    "health_paths": ["/health"],
    "rate_limits": ["general"],
    "locations": [
        ECHOED,
        {"path": "/keyed/", **ECHOED, "rate_limits": ["keyed"]},
        {"path": "/strict/", **ECHOED, "rate_limits": ["strict"]},
        {"path": "/slow/", **ECHOED, "rate_limits": [], "connection_limit": "1"},
        {"path": "/inside/", **ECHOED, "access": {"allow": ["127.0.0.0/8"]}},
        {"path": "/private/", **ECHOED, "basic_auth": {"users": "team"}},
        {"path": "/status", "stub_status": True, "access": {"allow": ["127.0.0.1"]}},
        {"path": "/static/", "static": {"directory": "/srv/web", "cache_seconds": 600, "immutable": True}},
    ],
}
MODERN = {
    "name": "modern",
    "server_names": ["modern.test"],
    "tls": {"certificate": "modern.test", "profile": "modern", "hsts": {"max_age": 300, "include_subdomains": True}},
    "locations": [{"path": "/", "static": {"directory": "/srv/web", "fallback": "index.html"}}],
}
PLAIN = {
    "name": "plain",
    "server_names": ["plain.test"],
    "security_headers": True,
    "gzip": True,
    "snippet": "location = /snippet {\n    return 204;\n}\n",
    "basic_auth": {"users": "team"},
    "health_paths": ["/health"],
    "locations": [ECHOED, {"path": "/open/", **ECHOED, "basic_auth": {}}],
}
SETTINGS: dict[str, Any] = {
    "nginx_app": "edge",
    "nginx_settle_seconds": 0,
    "nginx_upstreams": {"echo": ["unix:/run/echo/socket"]},
    "nginx_rate_limits": {
        "general": {"rate": "1000r/s", "burst": 1000},
        "keyed": {"rate": "2r/m", "burst": 1, "key": "header:X-API-Key", "methods": ["POST"]},
        "strict": {"rate": "1r/m"},
    },
    "nginx_users": {"team": [{"name": "ada", "password": PASSWORD}]},
}
# What sites/unknown_.conf was before there were certificates.
EARLIER = """
# Names that no site has: the connection is closed without an answer.
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    server_name _;
    server_tokens off;
    set $groundwork_site "";
    access_log /var/log/nginx/groundwork.access.log groundwork;
    return 444;
}
"""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Edge:
    """The host with the role on it."""

    host: DockerHost
    folder: Path
    authority: Authority

    def play(self, *sites: Mapping[str, Any], entry: str = "main", **settings: Any) -> Run:
        """Run the role."""
        role = {"name": "groundwork.backend.nginx", "tasks_from": entry}
        task = {"name": "Bring nginx", "ansible.builtin.import_role": role}
        return self.run(entry, [task], **{**SETTINGS, "nginx_sites": list(sites), **settings})

    def run(self, name: str, tasks: list[dict[str, Any]], **settings: Any) -> Run:
        """Run these tasks."""
        playbook = self.folder / f"{name}.yml"
        playbook.write_text(
            json.dumps([{"hosts": self.host.name, "become": True, "gather_facts": False, "tasks": tasks}])
        )
        run = Playbook(self.folder, self.host.inventory)(str(playbook), "-vv", "--diff", **settings)
        assert PASSWORD not in run.output
        return run

    def good(self, *sites: Mapping[str, Any], entry: str = "main", **settings: Any) -> int:
        """Run the role, which has to succeed; how much was changed."""
        run = self.play(*sites, entry=entry, **settings)
        assert run.rc == 0, run.output
        return run.changed

    def connect(self, name: str, tls: bool) -> http.client.HTTPConnection:
        """A connection to the host for a site, which is verified with TLS."""
        connection = http.client.HTTPConnection(self.host.address, timeout=60)
        raw = socket.create_connection((self.host.address, 443 if tls else 80), timeout=60)
        context = ssl.create_default_context(cafile=str(self.authority.path))
        connection.sock = context.wrap_socket(raw, server_hostname=name) if tls else raw
        return connection

    def ask(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """An answer of the host, asked from this machine: "https://app.test/path"."""
        scheme, _, rest = url.partition("://")
        name, _, path = rest.partition("/")
        connection = self.connect(name, scheme == "https")
        connection.request(
            method, f"/{path}", headers={"Host": name, **{k.replace("_", "-"): v for k, v in headers.items()}}
        )
        response = connection.getresponse()
        found = {key.lower(): value for key, value in response.getheaders()}
        answer = Answer(response.status, found, response.read())
        connection.close()
        return answer

    def handshake(self, *options: str, name: str = "app.test") -> str:
        """What openssl s_client tells of a handshake, "New, TLSv1.3, Cipher is ..." and ALPN, or of its failure."""
        return self.host.sh(
            f"openssl s_client -connect 127.0.0.1:443 -servername {name} {' '.join(options)} </dev/null 2>&1 "
            "| grep -aE '^New, |^ALPN|error' || true"
        )

    def told(self, name: str, option: str) -> str:
        """What a site answers over a version of TLS; nothing when it closes the connection."""
        request = f"printf 'GET / HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1"
        return self.host.sh(
            f"({request}) | openssl s_client -quiet -connect 127.0.0.1:443 -servername {name} {option} "
            "2>/dev/null || true"
        )


@pytest.fixture(scope="module")
def edge(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The role's sites on the host, before a small service on a socket."""
    folder = tmp_path_factory.mktemp("edge")
    edge = Edge(docker_host, folder, Authority.create(folder))
    for name in ("app.test", "modern.test"):
        pem = edge.authority.issue(name).read_text()
        for file in ("fullchain", "privkey"):
            docker_host.write(f"/etc/groundwork/tls/{name}/{file}.pem", pem)
    docker_host.write("/srv/echo.py", ECHO)
    docker_host.write("/srv/web/index.html", "start")
    docker_host.write("/srv/web/style.css", "body {}")
    docker_host.write("/srv/web/.env", "SECRET=1")
    docker_host.sh(
        "systemd-run --unit echo --quiet python3 /srv/echo.py; until test -S /run/echo/socket; do sleep 0.1; done"
    )
    assert edge.good(APP, MODERN, PLAIN) > 0
    yield edge
    docker_host.sh(
        "systemctl disable --now --quiet nginx; systemctl stop echo; rm -rf /run/echo /srv/echo.py /srv/web "
        "/etc/nginx/groundwork* /etc/nginx/conf.d/groundwork.conf /etc/nginx/modules-enabled/90-groundwork.conf "
        "/etc/groundwork/tls /var/lib/groundwork/acme"
    )


def test_a_second_run_changes_nothing(edge: Edge) -> None:
    assert edge.good(APP, MODERN, PLAIN) == 0


def test_protocols_ciphers_and_http2(edge: Edge) -> None:
    for old in ("-tls1", "-tls1_1"):
        assert "alert protocol version" in edge.handshake(old, "-cipher DEFAULT@SECLEVEL=0")
    assert "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES" in edge.handshake("-tls1_2")
    assert "New, TLSv1.3" in edge.handshake("-tls1_3")
    assert "alert handshake failure" in edge.handshake("-tls1_2", "-cipher ECDHE-ECDSA-AES128-SHA256"), "no CBC"
    assert "ALPN protocol: h2" in edge.handshake("-alpn h2,http/1.1")


def test_a_modern_site_beside_others_does_not_answer_over_tls_12(edge: Edge) -> None:
    assert edge.told("modern.test", "-tls1_3").startswith("HTTP/1.1 200 OK")
    assert edge.told("modern.test", "-tls1_2") == ""


def test_plain_http_is_sent_on_with_method_and_query_except_for_the_challenge(edge: Edge) -> None:
    answer = edge.ask("http://app.test/a?b=c", "POST")
    assert (answer.status, answer.headers["location"]) == (308, "https://app.test/a?b=c")
    edge.host.write("/var/lib/groundwork/acme/.well-known/acme-challenge/token", "proof")
    for name in ("app.test", "plain.test", "nobody.test"):
        assert edge.ask(f"http://{name}/.well-known/acme-challenge/token").body == b"proof"
        assert edge.ask(f"http://{name}/.well-known/acme-challenge/other").status == 404


def test_unknown_names_get_nothing(edge: Edge) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        edge.ask("http://nobody.test/")
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        edge.connect("nobody.test", tls=True)


def test_browsers_are_told_to_stay_with_https_only_where_that_is_asked(edge: Edge) -> None:
    assert edge.ask("https://modern.test/").headers["strict-transport-security"] == "max-age=300; includeSubDomains"
    assert "strict-transport-security" not in edge.ask("https://app.test/").headers


def test_too_many_requests_with_one_key_are_refused_and_do_not_reach_the_service(edge: Edge) -> None:
    ask = [edge.ask("https://app.test/keyed/", "POST", X_API_Key="one") for _ in range(4)]
    assert [one.status for one in ask] == [200, 200, 429, 429]
    assert (ask[3].headers["retry-after"], ask[3].json["status"]) == ("30", 429)
    assert ask[3].json["error"] == "There were too many requests."
    assert edge.ask("https://app.test/keyed/", X_API_Key="one").json["count"] == ask[1].json["count"] + 1
    assert edge.ask("https://app.test/keyed/", "POST", X_API_Key="two").status == 200
    html = edge.ask("https://app.test/keyed/", "POST", X_API_Key="one", Accept="text/html")
    assert (html.status, html.headers["content-type"]) == (429, "text/html")
    assert b"There were too many requests." in html.body


def test_a_limit_without_burst_lets_one_request_through_at_once(edge: Edge) -> None:
    assert [edge.ask("https://app.test/strict/").status for _ in range(2)] == [200, 429]


def test_a_refusal_of_the_service_is_passed_on_as_it_is(edge: Edge) -> None:
    answer = edge.ask("https://app.test/busy")
    assert (answer.status, "retry-after" in answer.headers, "count" in answer.json) == (429, False, True)


def test_a_client_has_as_many_requests_under_way_as_it_may(edge: Edge) -> None:
    first = edge.connect("app.test", tls=True)
    first.request("GET", "/slow/", headers={"Host": "app.test"})
    edge.host.sh("until test -e /run/echo/waits; do sleep 0.05; done")
    assert edge.ask("https://app.test/slow/").status == 429
    edge.host.sh("echo >/run/echo/go")
    assert first.getresponse().status == 200


def test_only_named_networks_see_what_is_for_them(edge: Edge) -> None:
    for path in ("inside/", "status"):
        assert edge.ask(f"https://app.test/{path}").status == 403
        local = edge.host.sh(f"curl -sk --resolve app.test:443:127.0.0.1 https://app.test/{path}")
        assert ("Active connections" if path == "status" else "count") in local


def test_a_password_is_asked_for_where_it_is_wanted_and_goes_no_further(edge: Edge) -> None:
    known = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    wrong = base64.b64encode(b"ada:wrong").decode()
    for url in ("https://app.test/private/", "http://plain.test/"):
        assert edge.ask(url).status == 401
        assert edge.ask(url, Authorization=f"Basic {wrong}").status == 401
        answer = edge.ask(url, Authorization=f"Basic {known}")
        assert (answer.status, "authorization" in answer.json["headers"]) == (200, False)
    assert edge.ask("http://plain.test/open/").status == 200
    assert edge.ask("http://plain.test/health").status == 401
    gate = "curl -s -o /dev/null -w '%{http_code}' -H 'Host: plain.test' http://127.0.0.1/health"
    assert edge.host.sh(gate) == "200"


def test_passwords_are_kept_as_hashes_for_nginx_alone(edge: Edge) -> None:
    file = "/etc/nginx/groundwork-users/edge/team"
    assert edge.host.sh(f"stat -c '%a %U:%G' {file}").split() == ["640", "root:www-data"]
    assert edge.host.sh(f"cat {file}").startswith("ada:$6$")


def test_static_files_are_cached_and_hidden_ones_are_not_given_out(edge: Edge) -> None:
    answer = edge.ask("https://app.test/static/style.css")
    assert (answer.body, answer.headers["content-type"]) == (b"body {}", "text/css")
    assert answer.headers["cache-control"] == "public, max-age=600, immutable"
    assert answer.headers.get("connection") != "close"
    for path in (".env", "nothing"):
        answer = edge.ask(f"https://app.test/static/{path}")
        assert (answer.status, "cache-control" in answer.headers) == (404, False), path
    for path in ("static../echo.py", "static/%2e%2e/echo.py"):
        assert b"socketserver" not in edge.ask(f"https://app.test/{path}").body
    assert edge.ask("https://modern.test/some/view").body == b"start"


def test_headers_of_the_service_come_before_ours(edge: Edge) -> None:
    ours, its = (
        edge.ask("http://plain.test/open/"),
        edge.ask(
            "http://plain.test/framed", Authorization="Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
        ),
    )
    assert (ours.headers["x-frame-options"], its.headers["x-frame-options"]) == ("SAMEORIGIN", "DENY")
    assert ours.headers["x-content-type-options"] == "nosniff"
    assert (
        edge.ask("http://plain.test/open/", Accept_Encoding="gzip", X_Long="x" * 2000).headers["content-encoding"]
        == "gzip"
    )
    assert "x-frame-options" not in edge.ask("https://app.test/").headers
    assert edge.ask("http://plain.test/snippet").status == 204


def test_a_broken_snippet_keeps_what_runs_and_is_named(edge: Edge) -> None:
    run = edge.play(APP, MODERN, PLAIN | {"snippet": "# first\nretrun 204;\n"})
    assert run.rc != 0
    assert 'line 2 of the managed file snippets/edge/plain.conf: unknown directive "retrun"' in run.words
    assert edge.ask("http://plain.test/snippet").status == 204


def test_a_release_whose_upstream_is_not_listed_any_more_is_gone_back_to(edge: Edge) -> None:
    switch = {"host": edge.host.name, "app": "edge", "member": "app1"}
    steps: list[tuple[str, list[Mapping[str, Any]]]] = [
        ("preflight", [MODERN]),
        ("switch", [MODERN]),
        ("switch", [APP, MODERN, PLAIN]),
    ]
    tasks = [
        {
            "name": f"Bring {len(sites)}",
            "ansible.builtin.include_role": {"name": "groundwork.backend.nginx", "tasks_from": entry},
            "vars": {"nginx_sites": sites, "nginx_switch": switch},
        }
        for entry, sites in steps
    ]
    run = edge.run("back", tasks, **{**SETTINGS, "nginx_upstreams": {}})
    assert run.rc == 0, run.output
    assert edge.ask("https://app.test/").status == 200


def test_a_list_of_users_stays_as_long_as_a_site_that_is_served_names_it(edge: Edge) -> None:
    assert edge.good(entry="prepare", nginx_users={"staff": SETTINGS["nginx_users"]["team"]}) > 0
    assert edge.host.sh("ls /etc/nginx/groundwork-users/edge").split() == ["staff", "team"]
    assert edge.good(entry="prepare", nginx_users={}) == 1
    assert edge.host.sh("ls /etc/nginx/groundwork-users/edge").split() == ["team"]


@pytest.mark.slow
def test_a_modern_site_of_another_stack_leaves_tls_12_to_the_rest(edge: Edge) -> None:
    aside = MODERN | {"server_names": ["modern.test"], "default": True}
    edge.good(APP)
    edge.good(aside, nginx_app="a")
    assert edge.told("app.test", "-tls1_2").startswith("HTTP/1.1 200 OK")
    assert edge.told("modern.test", "-tls1_3").startswith("HTTP/1.1 200 OK")
    assert "New, TLSv1.2" in edge.handshake("-tls1_2", name="modern.test")
    assert edge.told("modern.test", "-tls1_2") == ""
    edge.good(nginx_app="a")


def test_what_is_not_asked_for_any_more_goes_and_a_modern_host_refuses_tls_12(edge: Edge) -> None:
    assert edge.good(MODERN, nginx_users={}, nginx_tls_profile="modern") > 0
    assert "alert protocol version" in edge.handshake("-tls1_2", name="modern.test")
    assert "New, TLSv1.3" in edge.handshake("-tls1_3", name="modern.test")
    assert "unrecognized name" in edge.handshake(name="app.test")
    with pytest.raises(http.client.RemoteDisconnected):
        edge.ask("http://plain.test/open/")
    left = edge.host.sh("cd /etc/nginx/groundwork/live/ && find . -mindepth 2 -name '*.conf'")
    shared = {"./http/groundwork.conf", "./main/groundwork.conf", "./sites/unknown_.conf"}
    assert set(left.split()) == {*shared, "./sites/edge/modern.conf", "./tls/edge.conf"}
    assert edge.host.sh("ls /etc/nginx/groundwork-users/edge") == ""


def test_a_host_of_an_earlier_version_answers_challenges_after_the_next_preparation(edge: Edge) -> None:
    strip = (
        "import pathlib, re; [f.write_text(re.sub(r'(?ms)^    # Who issues.*?^    }\\n', '', f.read_text())) "
        "for f in pathlib.Path('/etc/nginx/groundwork/live/sites/edge').glob('*.conf')]"
    )
    edge.host.write("/etc/nginx/groundwork/live/sites/unknown_.conf", EARLIER)
    edge.host.sh(f'python3 -c "{strip}"; systemctl reload nginx')
    edge.host.write("/var/lib/groundwork/acme/.well-known/acme-challenge/later", "proof")
    assert edge.good(entry="prepare") > 0
    for name in ("modern.test", "nobody.test"):
        assert edge.ask(f"http://{name}/.well-known/acme-challenge/later").body == b"proof"
    with pytest.raises(http.client.RemoteDisconnected):
        edge.ask("http://nobody.test/")
