# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Guesses for a new inventory: which variables are secrets and who makes them, which path tells of health, where
migrations are. Guesses stand in the inventory with a comment on what to check; nothing is decided for good here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, os_errors

_SECRET = re.compile(
    r"(^|_)(PASS|PASSWD|PASSWORD|PASSPHRASE|SUPERPASS|PWD|SECRET|TOKEN|CREDENTIALS?|SALT|PEPPER)(_|$)"
    r"|(^|_)(API|SECRET|SIGNING|SESSION|ENCRYPTION|PRIVATE|ACCESS|MASTER|AUTH|JWT|FERNET|APP|COOKIE|WEBHOOK)_?KEY(_BASE)?$"
    r"|PASSWORD$|SECRET$"
)
# about a secret, and none itself
_NO_SECRET = re.compile(
    r"(_FILE|_EXPIRES?|_EXPIRY|_MINUTES|_SECONDS|_HOURS|_DAYS|_TTL|_LIMIT|_LENGTH|_ALGORITHM|_NAME|_URL|_ID|_COUNT)$|^MAX_"
)
# given out by somebody else, or of a form that only a program makes
_FOREIGN = re.compile(
    r"OPENAI|ANTHROPIC|CLAUDE|COHERE|MISTRAL|GEMINI|GOOGLE|GCP|AZURE|AWS|GROQ|HF_|HUGGING|REPLICATE|VOYAGE|JINA|TAVILY|SERP|"
    r"STRIPE|PAYPAL|GITHUB|GITLAB|SLACK|DISCORD|TELEGRAM|TWILIO|SENDGRID|MAILGUN|POSTMARK|RESEND|SMTP|MAIL|SENTRY|DATADOG|"
    r"CLOUDFLARE|DOCKERHUB|REGISTRY|OAUTH|OIDC|LDAP|SAML|CLIENT_SECRET|WEBHOOK|LICEN[CS]E|FERNET|PRIVATE_KEY|ACCESS_KEY|"
    r"API_?KEY|API_?TOKEN|BOT_TOKEN|ACCESS_TOKEN|REFRESH_TOKEN|CREDENTIALS?"
)
_PLACEHOLDER = re.compile(r"change.?me|replace.?me|your[-_. ]|todo|xxx|<.*>|example\.(com|org|net)", re.IGNORECASE)
_HEALTH_PATHS = (
    "/ready", "/readyz", "/health/ready", "/api/ready", "/healthz", "/health", "/api/health", "/api/v1/health", "/ping",
)  # fmt: skip
_CHECKED_URL = re.compile(r"https?://[^/\s'\"]+(/[^\s'\"|;)&>]*)")
_SOURCE_SUFFIXES = {".py", ".js", ".ts", ".mjs", ".go", ".rb", ".rs", ".java", ".kt", ".php"}
_NOT_SOURCE = {
    "node_modules",
    "venv",
    "__pycache__",
    "site-packages",
    "dist",
    "build",
    "vendor",
    "target",
    "tests",
    "test",
}
_NUMBERED = re.compile(r"V?\d+([._-].*)?\.sql$", re.IGNORECASE)
_NO_MIGRATIONS = {"init", "initdb", "init-db", "seed", "seeds", "fixtures", "docker-entrypoint-initdb.d", "versions"}
_QUOTED_VARIABLE = re.compile(r"""(?<!:):(['"])([A-Za-z_]\w*)\1""")
_FILES, _BYTES = 2000, 200_000


@dataclass(frozen=True)
class Login:
    """The parts of a URL that holds a password, decoded."""

    scheme: str
    user: str
    password: str
    host: str
    before: str
    after: str


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_SECRET.search(name.upper())) and not _NO_SECRET.search(name.upper())


def is_foreign(name: str) -> bool:
    """Whether a secret of this name comes from somebody else, so that none can be made up."""
    return bool(_FOREIGN.search(name.upper()))


def is_placeholder(value: str) -> bool:
    """Whether a value asks to be replaced."""
    return bool(_PLACEHOLDER.search(value))


def login_in(value: str) -> Login | None:
    """The user and password inside a URL, and the text before and after them; None when it has none."""
    match = re.match(r"(([a-z][a-z0-9+.-]*)://)([^:/@\s]*):([^@/\s]+)@([^\s]*)$", value)
    if not match:
        return None
    try:
        host = urlsplit(f"//{match[5]}").hostname or ""
    except ValueError:
        return None
    return Login(match[2], unquote(match[3]), unquote(match[4]), host, match[1], f"@{match[5]}")


def env_example(root: Path, compose_file: str) -> tuple[str, dict[str, str]]:
    """The example of an env file beside the first compose file or at the top: its path, and its values in order."""
    names = (".env.example", "env.example", ".env.sample", ".env.template", ".env.dist", ".env.docker.example")
    for folder in dict.fromkeys((Path(compose_file).parent, Path())):
        for name in names:
            path = root / folder / name
            if path.is_file():
                with os_errors(f"read {path}"):
                    text = path.read_text(encoding="utf-8-sig", errors="replace")
                return (folder / name).as_posix(), read_env(text)
    return "", {}


def read_env(text: str) -> dict[str, str]:
    """The values of an env file, quotes and comments behind values removed."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", line)
        if not match:
            continue
        value = match[2]
        quoted = re.match(r"'([^']*)'|\"((?:\\.|[^\"\\])*)\"", value)
        if quoted:
            value = quoted[1] if quoted[1] is not None else re.sub(r"\\(.)", r"\1", quoted[2])
        else:
            value = re.sub(r"(^|\s+)#.*$", "", value)
        values[match[1]] = value
    return values


def health_path(check: str, root: Path, context: str) -> tuple[str, str]:
    """The path that tells of a service's health, and where that was seen ("" for a mere guess)."""
    if match := _CHECKED_URL.search(check):
        return match[1], "the service's healthcheck"
    if context:
        found: dict[str, str] = {}
        for path, text in _sources(root / context):
            for route in _HEALTH_PATHS:
                if route not in found and re.search(rf"""["'`]{re.escape(route)}["'`]""", text):
                    found[route] = path.relative_to(root).as_posix()
        for route in _HEALTH_PATHS:
            if route in found:
                return route, found[route]
    return "/health", ""


def _sources(folder: Path) -> Iterator[tuple[Path, str]]:
    for number, path in enumerate(_walk(folder)):
        if number >= _FILES:
            return
        if path.suffix in _SOURCE_SUFFIXES and path.stat().st_size <= _BYTES:
            yield path, path.read_text(encoding="utf-8", errors="replace")


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SOURCE and not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if path.is_file():
                yield path


def migration_folders(root: Path, init_folders: Iterable[str]) -> tuple[dict[str, set[str]], list[str]]:
    """Folders of numbered SQL files, with the quoted psql variables that they use; and the folders of an alembic.ini.

    Scripts of an image's first start (init_folders) are none.
    """
    left_out = set(init_folders)
    folders: dict[str, set[str]] = {}
    alembic: list[str] = []
    for path in _walk(root):
        folder = path.parent.relative_to(root).as_posix()
        if path.name == "alembic.ini":
            alembic.append(folder)
        elif (
            _NUMBERED.match(path.name)
            and folder not in left_out
            and path.parent.name not in _NO_MIGRATIONS
            and folder != "."
        ):
            text = path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= _BYTES else ""
            folders.setdefault(folder, set()).update(match[2] for match in _QUOTED_VARIABLE.finditer(text))
    named = {folder: names for folder, names in folders.items() if "migrat" in folder.lower()}
    return named or folders, alembic


def find_compose_files(root: Path) -> list[str]:
    """The compose file of a source. Raises InputError when there is none, or more than one that could be meant."""
    names = {"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
    found = sorted(
        (path.relative_to(root).as_posix() for path in _walk(root) if path.name in names),
        key=lambda name: (name.count("/"), name),
    )
    top = [name for name in found if name.count("/") == found[0].count("/")] if found else []
    if len(top) == 1:
        return top
    if not found:
        raise InputError(
            f"There is no compose file in {root}.", fix='Name it: -e \'{"compose_files": ["path/below/source.yml"]}\'.'
        )
    raise InputError(
        f"{root} has several compose files: {', '.join(top)}.",
        fix='Name those that make the stack, in order: -e \'{"compose_files": ["' + top[0] + "\"]}'.",
    )


def same_owner(name: str, others: Mapping[str, str], user: str) -> bool:
    """Whether a variable that stands beside *name* (POSTGRES_APP_USER beside POSTGRES_APP_PASS) holds *user*."""
    stem = re.sub(r"(SUPERPASS|PASSWORD|PASSWD|PASS|PWD|SECRET)$", "", name)
    return any(
        others.get(f"{stem}{word}", others.get(f"{stem}SUPER{word}")) == user for word in ("USER", "USERNAME", "LOGIN")
    )
