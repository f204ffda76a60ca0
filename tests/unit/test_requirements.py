# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a requirements file brings, and what makes its environment unique."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError
from ansible_collections.groundwork.backend.plugins.module_utils._requirements import Requirements, read_requirements


def read(**files: str) -> Requirements:
    """requirements.txt, with other files beside it."""
    texts = {f"{name}.txt": text for name, text in files.items()}
    return read_requirements("requirements.txt", texts.__getitem__)


def test_files_that_are_included_count() -> None:
    found = read(requirements="-r base.txt\nfastapi==1\n", base="--constraint=pins.txt\n", pins="h11==1\n")
    assert sorted(found.files) == ["base.txt", "pins.txt", "requirements.txt"]
    other = read(requirements="-r base.txt\nfastapi==1\n", base="--constraint=pins.txt\n", pins="h11==2\n")
    assert found.digest() != other.digest()


@pytest.mark.parametrize("line", ["-rbase.txt", "-cbase.txt", "-r\tbase.txt", "--requirement base.txt"])
def test_an_include_is_seen_in_every_spelling(line: str) -> None:
    assert sorted(read(requirements=line, base="h11==1").files) == ["base.txt", "requirements.txt"]


def test_files_that_include_each_other_are_read_once() -> None:
    assert sorted(read(requirements="-r base.txt", base="-r requirements.txt").files) == [
        "base.txt",
        "requirements.txt",
    ]


def test_a_file_outside_of_the_release_is_refused() -> None:
    with pytest.raises(InputError, match=r"include \.\./pins\.txt, which is outside of the release"):
        read(requirements="-c ../pins.txt\n")


@pytest.mark.parametrize(
    ("line", "hashed"),
    [("a==1 --hash=sha256:00", True), ("a==1 \\\n    --hash=sha256:00", True), ("a==1 # --hash=sha256:00", False)],
    ids=["same-line", "next-line", "comment"],
)
def test_hashes_are_seen(line: str, hashed: bool) -> None:
    assert read(requirements=line).hashed is hashed


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("-e .", True),
        ("-e.", True),
        ("./lib", True),
        (".[extra]", True),
        ("../lib", True),
        ("wheels/lib-1-py3-none-any.whl", True),
        ("lib @ file:///srv/lib", True),
        ("--find-links wheels", True),
        ("lib==1", False),
        ("lib @ https://example.org/lib.whl", False),
        ("git+https://example.org/lib.git@v1", False),
        ("--extra-index-url https://example.org/simple", False),
    ],
)
def test_what_comes_from_the_release_itself_is_seen(line: str, local: bool) -> None:
    assert read(requirements=line).local is local


def test_the_digest_depends_on_the_interpreter_and_the_installer() -> None:
    found = read(requirements="a==1")
    assert len({found.digest("pip", "3.11"), found.digest("pip", "3.13"), found.digest("uv", "3.11")}) == 3
