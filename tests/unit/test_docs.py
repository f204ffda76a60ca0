# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The generated reference is what make docs writes now, and its converter of markup does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def generate(root: Path) -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_docs", root / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_reference_is_fresh(generate: ModuleType, root: Path) -> None:
    pages = generate.pages()
    stale = [
        str(path.relative_to(root)) for path, text in pages.items() if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run make docs"
    assert {*root.glob("docs/reference/*"), *root.glob("roles/*/README.md")} == pages.keys()
    assert not [path for path, text in pages.items() if str(root) in text]


@pytest.mark.parametrize(
    ("markup", "markdown"),
    [
        ("Set O(checks[].kind=http), see V(a\\)b) and E(X).", "Set `checks[].kind=http`, see `a)b` and `X`."),
        (
            "M(groundwork.backend.pg_backup), M(ansible.builtin.uri)",
            "[pg_backup](modules.md#pg_backup), `ansible.builtin.uri`",
        ),
        (
            "B(not) I(so) L(fast,https://example.org), U(https://example.org)",
            "**not** *so* [fast](https://example.org), <https://example.org>",
        ),
        ("PBKDF2(x) is no markup", "PBKDF2(x) is no markup"),
    ],
)
def test_markup(generate: ModuleType, markup: str, markdown: str) -> None:
    assert generate.text(markup, "modules.md") == markdown


def test_nested_options_and_pipes(generate: ModuleType) -> None:
    options = {
        "checks": {
            "type": "list",
            "elements": "dict",
            "description": "What to do.",
            "options": {"kind": {"description": ["a|b"], "choices": ["a", "b"], "required": True, "type": "str"}},
        }
    }
    assert generate.option_table(options, "options", "", "variable")[2:] == [
        "| `checks` | list of dict |  | What to do. |",
        r"| `checks[].kind` | str | *required* | a\|b One of `a`, `b`. |",
    ]
