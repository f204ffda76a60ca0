# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Env files: the cases by hand. tests/integration/test_dotenv_compose.py asks Compose itself."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._dotenv import quote, render
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain-1.2:3/4", "plain-1.2:3/4"),
        ("", ""),
        ("two words", "'two words'"),
        ("a#b", "'a#b'"),
        ("$HOME", "'$HOME'"),
        ("it's", '"it\'s"'),
        ("back\\slash", '"back\\\\slash"'),
        ("it's $5", '"it\'s \\$5"'),
    ],
)
def test_quote(value: str, quoted: str) -> None:
    assert quote(value) == quoted


def test_types_of_yaml() -> None:
    assert render({"A": 5432, "B": True, "C": None, "D": 1.5}) == "A=5432\nB=true\nC=\nD=1.5\n"


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "", "A=B"])
def test_bad_names_are_named(name: str) -> None:
    with pytest.raises(InputError, match="app_env has a variable named"):
        render({name: "x"})


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_value_that_is_no_text_is_named(value: object) -> None:
    with pytest.raises(InputError, match=r"app_env\.LIST"):
        render({"LIST": value})


def test_nul_is_refused_without_showing_the_value() -> None:
    with pytest.raises(InputError, match=r"app_env\.SECRET has a NUL byte") as raised:
        render({"SECRET": "hunter2\0"})
    assert "hunter2" not in str(raised.value)
