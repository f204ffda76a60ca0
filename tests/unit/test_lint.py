# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The dangerous statements."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils import _lint, _script


def rules(*texts: str) -> list[str]:
    scripts = [_script.prepare(text, {}, f"{number:04}_x.sql") for number, text in enumerate(texts, 1)]
    return [finding.rule for finding in _lint.findings(scripts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP TABLE IF EXISTS a", ["ban-drop-table"]),
        ("DROP DATABASE a", ["ban-drop-database"]),
        ("TRUNCATE a CASCADE", ["ban-truncate-cascade"]),
        ("TRUNCATE a", []),
        ("DROP INDEX i", ["require-concurrent-index-deletion"]),
        ("DROP INDEX CONCURRENTLY i", []),
        ("CREATE UNIQUE INDEX i ON public.a (x)", ["require-concurrent-index-creation"]),
        ("CREATE INDEX CONCURRENTLY i ON a (x)", []),
        ("ALTER TABLE a DROP COLUMN b, DROP c", ["ban-drop-column", "ban-drop-column"]),
        ("ALTER TABLE a DROP CONSTRAINT c", []),
        ("ALTER TABLE ONLY s.a RENAME TO b", ["renaming-table"]),
        ("ALTER TABLE a RENAME COLUMN b TO c", ["renaming-column"]),
        ("ALTER TABLE a RENAME b TO c", ["renaming-column"]),
        ("ALTER TABLE a RENAME CONSTRAINT b TO c", []),
        ("ALTER TABLE IF EXISTS a ALTER COLUMN b SET DATA TYPE text", ["changing-column-type"]),
        ("ALTER TABLE a ALTER b TYPE numeric(3, 2), ADD c int", ["changing-column-type"]),
        ("ALTER TABLE a ALTER b SET NOT NULL", ["adding-not-nullable-field"]),
        ("ALTER TABLE a ALTER b DROP NOT NULL", ["ban-drop-not-null"]),
        ("ALTER TABLE a ADD b int NOT NULL", ["adding-required-field"]),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 1", []),
        ("ALTER TABLE a ADD b int", []),
        ("ALTER TABLE a ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES b", ["constraint-missing-not-valid"]),
        ("ALTER TABLE a ADD CONSTRAINT c CHECK (x > 0) NOT VALID", []),
        ("ALTER TABLE a ADD CONSTRAINT c UNIQUE (x)", ["disallowed-unique-constraint"]),
        ("ALTER TABLE a ADD CONSTRAINT c UNIQUE USING INDEX i", []),
        ("INSERT INTO a VALUES ('DROP TABLE b')", []),
    ],
)
def test_rules(text: str, expected: list[str]) -> None:
    assert rules(text) == expected


def test_a_new_table_is_not_in_use() -> None:
    assert (
        rules('CREATE TABLE s."A" (x int); CREATE INDEX ON s."A" (x)', 'ALTER TABLE "A" DROP x; DROP TABLE "A"') == []
    )
    assert rules("CREATE TABLE b (x int); CREATE INDEX ON a (x)") == ["require-concurrent-index-creation"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["DROP TABLE a, b"], [["ban-drop-table"]]),
        (["ALTER TABLE a DROP b, ALTER c TYPE int"], [["ban-drop-column", "changing-column-type"]]),
        (["ALTER TABLE a DROP b; ALTER TABLE a DROP c"], [["ban-drop-column"]]),
        (["TRUNCATE a"], [["truncate"]]),
        (["TRUNCATE TABLE ONLY a, b RESTART IDENTITY"], [["truncate"]]),
        (["TRUNCATE a CASCADE"], [["ban-truncate-cascade"]]),
        (["DROP SCHEMA s CASCADE"], [["drop-cascade"]]),
        (["DROP TYPE t CASCADE"], [["drop-cascade"]]),
        (["DROP TYPE t"], [[]]),
        (["DROP OWNED BY r"], [["drop-owned"]]),
        (["-- squawk-ignore ban-drop-table\nDROP TABLE a"], [["ban-drop-table"]]),
        (["ALTER TABLE a RENAME TO b", "DROP VIEW v", "DELETE FROM a"], [[], [], []]),
        (["CREATE TABLE a (x int)", "DROP TABLE public.a"], [[], []]),
        (["CREATE TABLE a (x int); DROP TABLE a, b"], [["ban-drop-table"]]),
        (["CREATE TABLE IF NOT EXISTS a (x int)", "DROP TABLE a"], [[], ["ban-drop-table"]]),
        (["CREATE TABLE s.a (x int)", "DROP TABLE a"], [[], ["ban-drop-table"]]),
        (["CREATE TEMP TABLE a (x int); TRUNCATE a", "TRUNCATE a"], [[], ["truncate"]]),
        (["CREATE UNLOGGED TABLE a (x int)", "ALTER TABLE a DROP x"], [[], []]),
    ],
)
def test_what_loses_data(texts: list[str], expected: list[list[str]]) -> None:
    scripts = [_script.prepare(text, {}, f"{number:04}_x.sql") for number, text in enumerate(texts, 1)]
    assert _lint.losses(scripts) == expected


def test_comments_allow_what_they_name() -> None:
    text = "SELECT 1;\n-- squawk-ignore ban-drop-table, renaming-table\nDROP TABLE a;\nDROP TABLE b"
    assert rules(text) == ["ban-drop-table"]
    assert rules(f"{text};-- squawk-ignore-file ban-drop-table") == []


def test_the_finding_says_where_and_why() -> None:
    script = _script.prepare("\n\nDROP TABLE a", {}, "0007_x.sql")
    assert str(_lint.findings([script])[0]).startswith("0007_x.sql, line 3: ban-drop-table (the release before")
