# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What init.yml finds in a source, what it guesses, and the files that come of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils._compose_files import load_compose_file
from ansible_collections.groundwork.backend.plugins.module_utils._errors import GroundworkError, InputError
from ansible_collections.groundwork.backend.plugins.module_utils._init_compose import (
    Use,
    interpolate,
    merge_services,
    uses,
)
from ansible_collections.groundwork.backend.plugins.module_utils._init_files import make_secret, survey
from ansible_collections.groundwork.backend.plugins.module_utils._init_guess import (
    find_compose_files,
    health_path,
    is_foreign,
    is_secret,
    login_in,
    migration_folders,
    read_env,
)
from ansible_collections.groundwork.backend.plugins.module_utils._init_model import Plan
from ansible_collections.groundwork.backend.plugins.module_utils._init_plan import make_plan
from ansible_collections.groundwork.backend.plugins.module_utils._init_render import hosts, main_yml, scalar, vault_yml
from ansible_collections.groundwork.backend.plugins.module_utils._secrets_services import services_using


class Loader(yaml.SafeLoader):
    """Reads !unsafe as Ansible does."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def load(text: str) -> Any:
    return yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader with one more tag


def source(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def planned(folder: Path, compose: str, example: str = "", **files: str) -> Plan:
    """The plan for one compose file, with secrets s1, s2, …"""
    source(folder, {"compose.yml": compose, **({".env.example": example} if example else {}), **files})
    numbers = itertools.count(1)
    return make_plan(survey(folder, ["compose.yml"]), lambda: f"s{next(numbers)}")


def env(plan: Plan) -> dict[str, str]:
    return {line.name: line.value for line in plan.env if line.active}


def vault(plan: Plan) -> dict[str, str]:
    return {name: secret.value for name, secret in plan.vault.items()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("plain $$A $${B}", []),
        ("$A", [Use("A")]),
        ("${A}-${B:?no B}", [Use("A"), Use("B")]),
        ("${A:-}", [Use("A", "", False)]),
        ("${A-x y}", [Use("A", "x y", False)]),
        ("${A:+${B}}", [Use("A", None, False), Use("B")]),
        ("${A:-${B:-c}}d", [Use("A", "${B:-c}", False), Use("B", "c", False)]),
        ("http://${H:-h}:${P}/", [Use("H", "h", False), Use("P")]),
        ("${A", [Use("A")]),
    ],
)
def test_variables_are_found_with_their_defaults(text: str, found: list[Use]) -> None:
    assert list(uses(text)) == found


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$$A ${A}", "$A 1"),
        ("${B:-x}${A:-x}", "x1"),
        ("${A:+set}${B:+set}", "set"),
        ("${B:-${C:-${A}}}", "1"),
        ("$B|$A", "|1"),
    ],
)
def test_texts_are_interpolated_as_compose_does(text: str, result: str) -> None:
    assert interpolate(text, {"A": "1"}) == result


@given(st.text(alphabet="${}:-?+ABab_ ", max_size=40))
def test_no_text_confuses_the_search_for_variables(text: str) -> None:
    assert all(use.name for use in uses(text))
    interpolate(text, {})


@pytest.mark.parametrize(
    ("image", "store"),
    [
        ("postgres", "postgres"),
        ("pgvector/pgvector:pg16", "postgres"),
        ("registry.example.org:5000/library/postgres:16-alpine@sha256:0", "postgres"),
        ("timescale/timescaledb-ha:pg16", "postgres"),
        ("mongo:7", "mongo"),
        ("redis/redis-stack-server:latest", "redis"),
        ("${REDIS_IMAGE:-redis:7}", "redis"),
        ("qdrant/qdrant", "qdrant"),
        ("mongo-express", ""),
        ("postgrest/postgrest", ""),
        ("myorg/web:1", ""),
    ],
)
def test_stores_are_known_by_their_image(tmp_path: Path, image: str, store: str) -> None:
    source(tmp_path, {"compose.yml": f"services: {{a: {{image: '{image}'}}}}"})
    services = merge_services([("compose.yml", load_compose_file(tmp_path, "compose.yml"))])
    assert services["a"].store == store


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_PASSWORD", "DB_PASS", "SUPERPASS", "JWT_SECRET_KEY", "SECRET_KEY", "SECRET_KEY_BASE",
        "OPENAI_API_KEY", "X_TOKEN",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_USER", "ACCESS_TOKEN_EXPIRE_MINUTES", "MAX_TOKENS", "TOKENIZERS_PARALLELISM", "PASSWORD_FILE",
        "SECRET_NAME", "COMPASS", "BYPASS_CACHE", "KEY_PREFIX", "TOKEN_URL", "MONKEY", "PRIMARY_KEYS", "KEYCLOAK_URL",
    ],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_what_somebody_else_gives_out_is_not_made_up() -> None:
    assert all(map(is_foreign, ["OPENAI_API_KEY", "HF_TOKEN", "SMTP_PASSWORD", "AWS_SECRET_ACCESS_KEY", "FERNET_KEY"]))
    assert not any(map(is_foreign, ["POSTGRES_PASSWORD", "JWT_SECRET_KEY", "SESSION_SECRET", "REDIS_PASSWORD"]))


def test_a_url_is_taken_apart() -> None:
    login = login_in("postgresql+asyncpg://us%20er:p%40ss@db:5432/app?x=1")
    assert login is not None
    assert (login.user, login.password, login.host) == ("us er", "p@ss", "db")
    assert (login.before, login.after) == ("postgresql+asyncpg://", "@db:5432/app?x=1")


@pytest.mark.parametrize("text", ["", "redis://redis:6379/0", "https://example.org/a:b@c", "user:pass@host", "a://b@c"])
def test_a_url_without_a_password_is_none(text: str) -> None:
    assert login_in(text) is None


def test_an_env_file_is_read() -> None:
    text = '# a\nA=1\nexport B = two words # why\nC=\'x # y\'\nD="say \\"hi\\""\nE=\nF=a#b\nnot a line\n'
    assert read_env(text) == {"A": "1", "B": "two words", "C": "x # y", "D": 'say "hi"', "E": "", "F": "a#b"}


def test_the_health_path_comes_from_the_check_of_the_service_first(tmp_path: Path) -> None:
    source(tmp_path, {"web/app.py": '@app.get("/ready")\n@app.get("/health")\n', "other/x.py": "'/healthz'"})
    check = "CMD-SHELL curl -f http://localhost:8000/api/alive || exit 1"
    assert health_path(check, tmp_path, "web") == ("/api/alive", "the service's healthcheck")
    assert health_path("CMD true", tmp_path, "web") == ("/ready", "web/app.py")
    assert health_path("", tmp_path, "nothing") == ("/health", "")


def test_folders_of_migrations_are_found(tmp_path: Path) -> None:
    source(
        tmp_path,
        {
            "db/migrations/0001_a.sql": "ALTER ROLE x PASSWORD :'app_password'; SELECT '12:30'::time, b::\"O\";",
            "db/migrations/0002_b.sql": 'GRANT :"owner" TO x',
            "db/init/00_roles.sql": "",
            "db/first/01.sql": "",
            "reports/2024_sales.sql": "",
            "node_modules/x/migrations/1.sql": "",
            "api/alembic.ini": "",
        },
    )
    assert migration_folders(tmp_path, ["db/first"]) == ({"db/migrations": {"app_password", "owner"}}, ["api"])


def test_the_compose_file_nearest_to_the_top_is_taken(tmp_path: Path) -> None:
    source(tmp_path, {"ops/compose/docker-compose.yml": "", "ops/compose/dev/compose.yml": ""})
    assert find_compose_files(tmp_path) == ["ops/compose/docker-compose.yml"]


def test_a_choice_of_compose_files_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no compose file"):
        find_compose_files(tmp_path)
    source(tmp_path, {"a/compose.yml": "", "b/compose.yml": ""})
    with pytest.raises(InputError, match=r"several compose files: a/compose\.yml, b/compose\.yml"):
        find_compose_files(tmp_path)


DATABASE = """
  db:
    image: postgres:16
    environment: {POSTGRES_USER: "${DB_SUPERUSER:-root}", POSTGRES_PASSWORD: "${DB_SUPERPASS}", POSTGRES_DB: shop}
    ports: ["5432:5432"]
"""


def test_the_password_of_a_url_is_taken_from_where_else_it_stands(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        f"services:{DATABASE}  web: {{image: x, environment: {{DATABASE_URL: '${{DATABASE_URL}}'}}}}",
        "DB_SUPERPASS=change_me\nAPP_USER=shop_app\nAPP_PASS=change_me\nDATABASE_URL=postgresql://shop_app:change_me@db/shop",
    )
    assert vault(plan).keys() == {"vault_db_superpass", "vault_app_pass", "vault_app_user"}
    assert vault(plan)["vault_app_user"] == "shop_app"
    assert vault(plan)["vault_db_superpass"] != vault(plan)["vault_app_pass"]
    assert env(plan)["DATABASE_URL"] == (
        "postgresql://{{ vault_app_user | urlencode }}:{{ vault_app_pass | urlencode | replace('/', '%2F') }}@db/shop"
    )
    assert plan.logins["shop_app"] == {
        "service": "db", "database": "shop", "role": "shop_app", "user_variable": "vault_app_user",
        "password_variable": "vault_app_pass", "admin_user": "root", "admin_password": "{{ vault_db_superpass }}",
    }  # fmt: skip


def test_a_url_of_the_superuser_takes_the_password_of_the_store(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        f"services:{DATABASE}  web: {{image: x, environment: "
        "{DATABASE_URL: '${DATABASE_URL:-postgresql://root:x@db/shop}'}}",
    )
    assert env(plan)["DATABASE_URL"].startswith("postgresql://root:{{ vault_db_superpass | urlencode")
    assert list(vault(plan)) == ["vault_db_superpass"]
    assert plan.logins == {}


def test_a_url_that_the_compose_file_puts_together_gets_two_logins(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        f"services:{DATABASE}  web: {{image: x, environment: "
        "{U: 'postgresql://${APP_USER:-shop}:${APP_PASSWORD}@db:5432/shop'}}",
    )
    assert env(plan)["APP_USER"] == "{{ vault_app_user }}"
    assert vault(plan)["vault_app_user"] == "shop"
    assert plan.logins["shop"]["user_variable"] == "vault_app_user"


def test_a_user_that_is_written_in_the_compose_file_has_one_login(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, f"services:{DATABASE}  web: {{image: x, environment: ['U=postgresql://shop:$APP_PASSWORD@db/shop']}}"
    )
    assert "user_variable" not in plan.logins["shop"]
    assert plan.logins["shop"]["password_variable"] == "vault_app_password"


def test_a_url_of_another_server_is_left_to_the_user(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "services: {web: {image: x, environment: [DATABASE_URL]}}",
        "DATABASE_URL=postgres://a:b@db.example.org/x",
    )
    assert plan.empty == ["vault_database_url_password"]
    assert any("names db.example.org, which is no store" in check for check in plan.checks)


def test_a_password_that_a_store_is_given_is_made_up_whatever_its_name(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "services: {q: {image: qdrant/qdrant, environment: {QDRANT__SERVICE__API_KEY: '${QDRANT_API_KEY}'}},"
        " r: {image: redis, command: 'redis-server --requirepass ${REDIS_TOKEN}'},"
        " web: {image: x, environment: {K: '${OPENAI_API_KEY}', J: '${JWT_SECRET}'}}}",
    )
    assert set(plan.empty) == {"vault_openai_api_key"}
    assert {"vault_qdrant_api_key", "vault_redis_token", "vault_jwt_secret"} < vault(plan).keys()
    assert len(set(vault(plan).values())) == 4


def test_a_default_password_of_the_compose_file_is_not_kept(tmp_path: Path) -> None:
    plan = planned(tmp_path, "services: {web: {image: x, environment: {P: '${APP_PASSWORD:-secret}'}}}")
    assert env(plan) == {"APP_PASSWORD": "{{ vault_app_password }}"}
    assert vault(plan) == {"vault_app_password": "s1"}


def test_a_password_written_into_the_compose_file_is_named(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, "services: {db: {image: postgres, environment: {POSTGRES_PASSWORD: hello}, ports: ['5432']}}"
    )
    assert vault(plan) == {"vault_db_password": "hello"}
    assert any("has its password in the compose file" in check for check in plan.checks)


def test_settings_come_from_the_example_and_defaults_stay_comments(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "services: {web: {image: x, environment: "
        "{A: '${LEVEL:-info}', B: '${WORKERS:-2}', C: '${DOMAIN}', D: '${NEEDED}'}}}",
        "WORKERS=4\nDOMAIN=your-domain.com\nUNUSED=1\n",
    )
    assert [(line.name, line.value, line.active) for line in plan.env] == [
        ("WORKERS", "4", True), ("DOMAIN", "your-domain.com", True), ("LEVEL", "info", False), ("NEEDED", "", True),
    ]  # fmt: skip
    assert any("DOMAIN" in check and "placeholder" in check for check in plan.checks)
    assert any("NEEDED has no value" in check for check in plan.checks)


def test_with_an_env_file_every_variable_of_the_example_is_taken(tmp_path: Path) -> None:
    plan = planned(tmp_path, "services: {web: {image: x, env_file: [.env]}}", "A=1\nB_SECRET=x\n")
    assert env(plan) == {"A": "1", "B_SECRET": "{{ vault_b_secret }}"}


def test_web_services_are_those_that_publish_and_store_nothing(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        f"services:{DATABASE}  web:\n    image: x\n    ports: ['${{PORT:-80}}:8000']\n"
        "    healthcheck: {test: [CMD, curl, 'http://localhost:8000/up']}\n  worker: {image: x}\n"
        "  proxy: {image: 'nginx:1', ports: ['80:80']}\n  debug: {image: x, ports: ['9:9'], profiles: [dev]}",
    )
    assert plan.web == {"web": {"port": 8000, "path": "/up", "seen": "the service's healthcheck"}}
    assert any("proxy looks like a reverse proxy" in check for check in plan.checks)


def test_a_database_without_a_published_port_keeps_its_migrations_as_a_comment(tmp_path: Path) -> None:
    compose = f"services:{DATABASE}".replace('    ports: ["5432:5432"]\n', "")
    plan = planned(tmp_path, compose, **{"migrations/1_a.sql": ""})
    assert (plan.migrations, len(plan.unreachable)) == ([], 1)
    text = main_yml("a", "/a", ["compose.yml"], plan)
    assert "# app_migrations:" in text
    assert "app_migrations" not in load(text)


def test_other_stores_are_named_as_not_backed_up(tmp_path: Path) -> None:
    plan = planned(tmp_path, "services: {m: {image: mongo}}")
    assert plan.backups == []
    assert any("m (mongo) is a store that backup_components does not cover" in check for check in plan.checks)


def test_layers_of_compose_files_are_put_together(tmp_path: Path) -> None:
    source(
        tmp_path,
        {
            "ops/a.yml": "services: {web: {build: ../api, environment: [A=$A, B=1], ports: ['1:1']}}",
            "ops/b.yml": "services: {web: {environment: {B: '${B}', C: }, ports: ['2:2']}}",
        },
    )
    found = survey(tmp_path, ["ops/a.yml", "ops/b.yml"])
    service = found.services["web"]
    assert (service.context, dict(service.environment)) == ("api", {"A": "$A", "B": "${B}"})
    assert (service.pass_through, [port.target for port in service.ports]) == (("C",), [1, 2])
    assert {use.name: use.required for use in found.variables} == {"A": True, "B": True, "C": False}


@given(st.text(max_size=30))
def test_every_text_survives_yaml(text: str) -> None:
    assert str(load(f"a: {scalar(text)}\n")["a"]) == text
    assert str(load(f"{{a: [{scalar(text)}]}}")["a"][0]) == text


@pytest.mark.parametrize(
    "text", ["yes", "No", "null", "~", "0123", "1e3", "2001-01-01", "a: b", "- a", "#", "1:20", "=", ""]
)
def test_what_yaml_would_take_for_something_else_is_quoted(text: str) -> None:
    assert load(f"a: {scalar(text)}")["a"] == text


@pytest.mark.parametrize("text", ["{{ lookup('pipe', 'id') }}", "{% raw %}", "a {# b", "{{ vault_a }}{{ x }}"])
def test_a_template_in_the_users_files_stays_text(text: str) -> None:
    assert scalar(text).startswith("!unsafe ")


def test_our_own_templates_are_templates() -> None:
    for text in ("{{ vault_a }}", "x://{{ vault_u | urlencode }}:{{ vault_a | urlencode | replace('/', '%2F') }}@b"):
        assert scalar(text).startswith('"')


def test_secrets_are_long_different_and_need_no_quoting() -> None:
    made = {make_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 40 and secret.isascii() and secret.isalnum() and secret[0].isalpha() for secret in made)


def test_the_example_has_the_settings_of_the_inventory_made_by_hand(root: Path) -> None:
    example = root / "examples" / "verisphere"
    numbers = itertools.count(1)
    plan = make_plan(survey(example, find_compose_files(example)), lambda: f"s{next(numbers)}")
    made = load(main_yml("verisphere", "x", find_compose_files(example), plan))
    by_hand = load((root / "inventories" / "verisphere" / "group_vars" / "all" / "main.yml").read_text())
    for variable in ("app_name", "app_compose_files", "backup_components"):
        assert made[variable] == by_hand[variable]
    differs = {"DATABASE_URL", "EMBEDDINGS_PROVIDER"}
    assert list(made["app_env"]) == list(by_hand["app_env"])
    for name in made["app_env"].keys() - differs:
        assert made["app_env"][name] == by_hand["app_env"][name], name
    [web], [hand] = made["app_web_services"].items(), by_hand["app_web_services"].items()
    assert (web[0], web[1]["port"], web[1]["health"]["path"]) == (hand[0], hand[1]["port"], hand[1]["health"]["path"])
    [migration], [migration_by_hand] = made["app_migrations"], by_hand["app_migrations"]
    assert migration == migration_by_hand | {"variables": migration["variables"]}
    assert migration["variables"].items() <= migration_by_hand["variables"].items()
    secrets = load(vault_yml(plan))
    assert secrets["vault_openai_api_key"] == ""
    assert secrets["vault_postgres_superpass"] != secrets["vault_postgres_app_pass"]
    assert load(hosts("verisphere", ""))["all"]["children"]["app"]["hosts"] == {"verisphere.example.org": {}}


def test_services_are_found_by_the_variables_that_they_take(tmp_path: Path) -> None:
    source(
        tmp_path,
        {
            "a.yml": "services: {db: {image: x, environment: {P: '${PASS}'}}, web: {environment: [A=$URL, B=$$PASS]}}",
            "b.yml": "services: {web: {command: 'run ${PASS:-x}'}, worker: {image: x}, all: {env_file: [./.env]}}",
        },
    )
    assert services_using(["PASS", "URL"], str(tmp_path), ["a.yml", "b.yml"]) == {
        "all": ["PASS", "URL"],
        "db": ["PASS"],
        "web": ["PASS", "URL"],
    }
    assert services_using([], str(tmp_path), ["a.yml"]) == {}
    with pytest.raises(GroundworkError, match="there is no such file"):
        services_using(["PASS"], str(tmp_path), ["c.yml"])
