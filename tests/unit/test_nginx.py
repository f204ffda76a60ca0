# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""nginx's managed files as data, and what the role lets into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.backend.plugins.module_utils import _nginx
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._nginx_check import Nginx

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nginx"
CURRENT = {"sites/a.conf": "a", "sites/b.conf": "b", "upstreams/shop/web/app1.servers": "1"}


def test_a_plan_puts_files_over_what_is_there() -> None:
    plan = _nginx.make_plan(CURRENT, {"sites/a.conf": "a", "sites/b.conf": "B", "sites/c.conf": "c"})
    assert (plan.written, plan.removed, plan.changes) == (["sites/b.conf", "sites/c.conf"], [], True)
    assert plan.tree == CURRENT | {"sites/b.conf": "B", "sites/c.conf": "c"}


def test_a_plan_that_changes_nothing() -> None:
    plan = _nginx.make_plan(CURRENT, {"sites/a.conf": "a"}, absent=["sites/gone.conf"], purge=["other/*"])
    assert (plan.changes, plan.tree) == (False, CURRENT)


@pytest.mark.parametrize(
    ("purge", "keep", "removed"),
    [
        (["sites/*"], [], ["sites/b.conf"]),
        (["sites/*"], ["sites/b.*"], []),
        (["*"], [], []),
        (["*/*"], [], ["sites/b.conf"]),
        (["upstreams/*/*/*.servers"], [], ["upstreams/shop/web/app1.servers"]),
        (["upstreams/*/*/*.servers"], ["upstreams/*/*/app1.servers"], []),
    ],
)
def test_a_pattern_stays_within_one_folder(purge: list[str], keep: list[str], removed: list[str]) -> None:
    assert _nginx.make_plan(CURRENT, {"sites/a.conf": "a"}, purge=purge, keep=keep).removed == removed


@pytest.mark.parametrize(
    ("files", "absent", "said"),
    [
        ({"sites/a.conf": "a"}, ["sites/a.conf"], "sites/a.conf is in files and in absent"),
        ({"sites": "a"}, [], "sites would be a file and, for sites/a.conf, a folder"),
        ({"sites/a.conf/x": "a"}, [], "sites/a.conf would be a file and, for sites/a.conf/x, a folder"),
        ({"x": None}, [], "The content of x is no text"),
        ({"x": "a\0b"}, [], "The content of x is no text"),
        ({"x\n": "a"}, [], r"'x\\n' cannot be the path"),
        ({}, ["../x"], "'../x' cannot be the path"),
        ({"-x": "a"}, [], "'-x' cannot be the path"),
    ],
)
def test_plans_that_are_refused(files: dict[str, Any], absent: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _nginx.make_plan(CURRENT, files, absent=absent)


def test_what_nginx_says_in_both_of_its_forms() -> None:
    stderr = (
        "nginx: [warn] conflicting server name\n"
        '2026/11/21 10:01:30 [emerg] 32272#32272: unknown directive "x" in /m/groundwork/live/http/a.conf:2\n'
        'nginx: [emerg] unknown directive "x" in /m/groundwork/live/http/a.conf:2\n'
        "nginx: configuration file /m/nginx.conf test failed\n"
    )
    assert _nginx.told(stderr, "warn") == ["conflicting server name"]
    assert _nginx.told(stderr, "emerg") == ['unknown directive "x" in /m/groundwork/live/http/a.conf:2']


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unknown directive in /m/groundwork/live/http/a.conf:2", _nginx.Place("http/a.conf", 2, managed=True)),
        ("unknown directive in /m/snippets/own.conf:7", _nginx.Place("/etc/nginx/snippets/own.conf", 7, managed=False)),
        ("unknown directive in /srv/my files/x.conf:7", _nginx.Place("/srv/my files/x.conf", 7, managed=False)),
        ("bind() to 0.0.0.0:80 failed (13: Permission denied)", None),
    ],
)
def test_where_nginx_found_a_mistake(text: str, found: _nginx.Place | None) -> None:
    assert _nginx.place(text, Path("/m"), Path("/etc/nginx"), Path("/m/groundwork/live")) == found


def test_directives_and_compiled_paths() -> None:
    dump = "# configuration file /etc/nginx/nginx.conf:\n  pid /run/x.pid;\n# pid /not/this;\nerror_log /a.log warn;\n"
    assert _nginx.directive(dump, "pid") == ["/run/x.pid"]
    assert _nginx.directive(dump, "error_log") == ["/a.log warn"]
    assert _nginx.files_read(dump) == [Path("/etc/nginx/nginx.conf")]
    assert _nginx.compiled("configure arguments: --prefix=/usr --pid-path=/run/n.pid", "pid-path") == "/run/n.pid"
    assert _nginx.compiled("configure arguments:", "pid-path") == ""


def test_the_folder_is_beside_the_main_file() -> None:
    with pytest.raises(InputError, match="has to be beside the file"):
        Nginx("nginx", Path("/etc/nginx/nginx.conf"), Path("/srv/groundwork"))


HOSTILE = ["a;b", "a b", "a{", "}", 'a"', "a'", "a\n", "a\nb", "$a", "a\\", "a#", "", "\ta"]
ACCEPTED = {
    "__nginx_word": ["web", "semantic-dedupe", "app1.example.org", "A_b.c"],
    "__nginx_app_word": ["shop", "shop-2"],
    "__nginx_path": ["/", "/api/v1", "/~x/%20,@:+"],
    "__nginx_size": ["10m", "1", "2G"],
    "__nginx_server_name": [
        "example.org",
        "*.example.org",
        ".example.org",
        "www.example.*",
        "bücher.example",
        "xn--x.org",
    ],
    "__nginx_header": ["X-Frame-Options"],
    "__nginx_address": ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"],
    "__nginx_server": ["127.0.0.1:20000", "[fd00::1]:20000", "unix:/run/app.sock"],
}
REFUSED = {
    "__nginx_word": ["-a", ".a", "a/b", "../a"],
    "__nginx_app_word": ["a.b"],
    "__nginx_path": ["api", "= /", "~ ^/", "/a;b"],
    "__nginx_size": ["10 m", "10mb", "-1"],
    "__nginx_server_name": ["~^www", "a..b", "*", "a.*.b", "*a.org", "a/b"],
    "__nginx_header": ["X Y", "X:"],
    "__nginx_address": ["host", "10.0.0.0/"],
    "__nginx_server": ["app:80", "localhost:80", "127.0.0.1", "127.0.0.1:80 weight=2", "fd00::1:80"],
}


def pattern(name: str) -> re.Pattern[str]:
    """A pattern of the role's preflight. Jinja's test "match" uses re.match."""
    return re.compile(yaml.safe_load((ROLE / "vars" / "main.yml").read_text())[name])


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_written_into_the_configuration(name: str) -> None:
    assert [text for text in ACCEPTED[name] if not pattern(name).match(text)] == []
    assert [text for text in REFUSED[name] + HOSTILE if pattern(name).match(text)] == []
