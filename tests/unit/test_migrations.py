# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Finding migrations, and comparing them with the ledger."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _limits, _migration_plan, _migrations
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError, StateError
from ansible_collections.groundwork.backend.plugins.module_utils._ledger import Ledger
from ansible_collections.groundwork.backend.plugins.module_utils._migration_plan import LedgerRow
from ansible_collections.groundwork.backend.plugins.module_utils._migrations import Migration


def migration(version: str, name: str = "x", content: bytes = b"SELECT 1") -> Migration:
    return Migration(version, name, Path(f"/m/{version}_{name}.sql"), _migrations.checksum(content), content.decode())


def row(of: Migration, state: str = "applied", statement: int | None = None) -> LedgerRow:
    return LedgerRow(of.version, of.name, of.checksum, datetime.now(UTC), state, statement, statement)


def test_accepted_names_in_numeric_order_and_others_left_alone(tmp_path: Path) -> None:
    names = ["0010_b.sql", "V2__second.sql", "0001_a-b c.sql", "20260101120000_later.sql", "V11__x.up.sql"]
    for name in [*names, "README.md", "V2__second.down.sql", ".0009_swap.sql", "0003_notes.txt"]:
        (tmp_path / name).write_text("SELECT 1")
    (tmp_path / "0004_folder.sql").mkdir()
    found = _migrations.discover(tmp_path)
    assert [(item.version, item.name) for item in found] == [
        ("0001", "a-b c"),
        ("2", "second"),
        ("0010", "b"),
        ("11", "x"),
        ("20260101120000", "later"),
    ]


@pytest.mark.parametrize(
    "name", ["init.sql", "0001.sql", "0001_.sql", "V1_x.sql", "R_view.sql", "0001_x.off.sql", "0001_x.SQL", "²_x.sql"]
)
def test_other_sql_names_are_refused_with_the_accepted_forms(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(InputError, match=r"0001_name.sql, V2__name.sql or 20260101120000_name.sql") as caught:
        _migrations.discover(tmp_path)
    assert name in str(caught.value)


def test_two_files_of_one_version_are_both_named(tmp_path: Path) -> None:
    (tmp_path / "0002_a.sql").write_text("SELECT 1")
    (tmp_path / "V2__b.sql").write_text("SELECT 1")
    with pytest.raises(InputError, match=r"0002_a.sql and V2__b.sql have the same version 2"):
        _migrations.discover(tmp_path)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"Could not read the directory .*nope"):
        _migrations.discover(tmp_path / "nope")


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    with pytest.raises(StateError, match=r"Could not read the directory .*: Not a directory"):
        _migrations.discover(tmp_path / "0001_a.sql")


def test_links_are_followed_and_one_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("SELECT 1")
    (tmp_path / "0001_a.sql").symlink_to("kept.txt")
    assert [item.text for item in _migrations.discover(tmp_path)] == ["SELECT 1"]
    (tmp_path / "0002_b.sql").symlink_to("nowhere")
    with pytest.raises(StateError, match=r"Could not read .*0002_b.sql: No such file"):
        _migrations.discover(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0001_a.sql in .* is empty"),
        (b"\xef\xbb\xbf\r\n ", "is empty"),
        (b"SELECT 1;\nSELECT '\xe4';\n", "not UTF-8: byte 0xe4 at offset 18, line 2"),
        (b"\xef\xbb\xbf\n\xff", "not UTF-8: byte 0xff at offset 4, line 2"),
        (b"SELECT 1;\n\nSELECT '\0'", "NUL byte in line 3"),
    ],
)
def test_bad_content_is_refused_with_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "0001_a.sql").write_bytes(content)
    with pytest.raises(InputError, match=words):
        _migrations.discover(tmp_path)


def test_checksum_ignores_what_git_may_change() -> None:
    assert _migrations.checksum(b"\xef\xbb\xbfa\r\nb\r\n") == _migrations.checksum(b"a\nb\n")
    assert _migrations.checksum(b"a\nb\n") != _migrations.checksum(b"a\nb")


def test_plan_is_what_is_not_applied_whatever_the_order_of_the_ledger() -> None:
    files = [migration(str(number)) for number in range(1, 12)]
    rows = [row(item) for item in files[:9]]
    random.Random(1).shuffle(rows)
    plan = _migration_plan.make_plan(files, rows, "public.l")
    assert [item.version for item in plan.pending] == ["10", "11"]
    assert plan.current == "9"
    assert _migration_plan.make_plan(files, [], "public.l").current is None


def test_version_is_compared_as_a_number() -> None:
    old = migration("0001")
    assert not _migration_plan.make_plan([migration("1")], [row(old)], "l").pending


def test_edited_file_is_named_with_both_checksums() -> None:
    before, after = migration("0001"), migration("0001", content=b"SELECT 2")
    with pytest.raises(StateError) as caught:
        _migration_plan.make_plan([after], [row(before)], "l")
    for words in ("0001_x.sql", before.checksum[:12], after.checksum[:12], "Restore"):
        assert words in str(caught.value)


def test_deleted_file_is_named() -> None:
    with pytest.raises(StateError, match=r"have no file any more: 0001 \(x\)"):
        _migration_plan.make_plan([migration("0002")], [row(migration("0001"))], "l")


def test_file_below_the_highest_applied_is_refused() -> None:
    with pytest.raises(StateError, match=r"0002_x.sql would run out of order: version 0003 is applied"):
        _migration_plan.make_plan(
            [migration("0002"), migration("0003"), migration("0004")], [row(migration("0003"))], "l"
        )


@pytest.mark.parametrize(("state", "words"), [("running", "was interrupted"), ("failed", "failed")])
def test_interrupted_migration_is_explained(state: str, words: str) -> None:
    file = migration("0002")
    with pytest.raises(StateError, match=words) as caught:
        _migration_plan.make_plan([file], [row(file, state, statement=3)], "public.l")
    assert "Statement 3 (line 3)" in str(caught.value)
    assert "delete the row of version 0002 from public.l" in str(caught.value)
    assert caught.value.details["failed_migration"]["statement"] == 3


def test_ledger_of_another_tool_is_refused() -> None:
    with pytest.raises(StateError, match=r"holds the version '1.2', which is no number"):
        _migration_plan.make_plan([], [row(migration("1.2"))], "public.l")


@pytest.mark.parametrize("name", ["", "a b", 'x"y', "a" * 51, "1a"])
def test_ledger_name_is_plain(name: str) -> None:
    with pytest.raises(InputError, match="cannot be the schema or the table of the ledger"):
        Ledger("public", name)


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5000), ("500ms", 500), ("2 min", 120_000), ("500", 500), ("0", 0), (None, 0)]
)
def test_durations(text: str | None, expected: int) -> None:
    assert _limits.milliseconds("lock_timeout", text) == expected


@pytest.mark.parametrize("text", ["", "-1", "5 hours", "1.5s"])
def test_bad_duration_names_its_option(text: str) -> None:
    with pytest.raises(InputError, match="lock_timeout is"):
        _limits.milliseconds("lock_timeout", text or "x")
