# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""pg_login on real servers: two logins of one role that take turns, and what must not happen on the way."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support.modules import ModuleRunner
from support.postgres import PostgresServer

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Stack:
    """A database with a role that owns a table, as an application finds it. first is the role's own password."""

    module: ModuleRunner
    server: PostgresServer
    database: str
    role: str
    first: str

    @property
    def second_login(self) -> str:
        return f"{self.role}_alt"

    def run(self, state: str, login: str | None = None, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {**self.server.login(self.database), "role": self.role, "state": state, "drain": 0, **options}
        return self.module("pg_login", given if login is None else {**given, "login": login}, check=check)

    def connect(self, login: str, password: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.server.host, port=self.server.port, dbname=self.database, user=login, password=password,
            autocommit=True,
        )  # fmt: skip

    def ask(self, login: str, password: str, query: str) -> Any:
        """The first value of a query asked by a login."""
        with self.connect(login, password) as connection:
            return (connection.execute(query.encode()).fetchone() or (None,))[0]

    def do(self, login: str, password: str, statement: str) -> None:
        """A statement of a login."""
        with self.connect(login, password) as connection:
            connection.execute(statement.encode())

    def gets_in(self, login: str, password: str) -> bool:
        try:
            self.connect(login, password).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error) and "not permitted" not in str(error):
                raise
            return False
        return True

    def execute(self, statement: str, *names: str) -> None:
        """As superuser."""
        with self.connect(self.server.superuser, self.server.superpass) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def made(module: ModuleRunner, server: PostgresServer, database: str, role: str) -> Stack:
    stack = Stack(module, server, database, role, secrets.token_hex(8))
    stack.execute(f"CREATE ROLE {{}} LOGIN PASSWORD '{stack.first}'", role)
    stack.execute("GRANT CREATE, USAGE ON SCHEMA public TO {}", role)
    stack.execute("SET ROLE {}; CREATE TABLE notes (body text); INSERT INTO notes VALUES ('one')", role)
    return stack


@pytest.fixture
def stack(module: ModuleRunner, postgres: PostgresServer, database: str) -> Stack:
    return made(module, postgres, database, f"app_{next(_numbers)}")


@pytest.fixture
def stack18(module: ModuleRunner, postgres18: PostgresServer) -> Stack:
    """For what does not depend on the server's version."""
    number = next(_numbers)
    postgres18.create_database(f"logins_{number}")
    return made(module, postgres18, f"logins_{number}", f"one_{number}")


def test_check_do_check_again_do_again(stack: Stack) -> None:
    planned = stack.run("open", stack.second_login, password="second", check=True)
    assert (planned["changed"], planned["exists"]) == (True, False), planned
    assert stack.run("unchanged", stack.second_login)["exists"] is False
    done = stack.run("open", stack.second_login, password="second")
    assert (done["changed"], done["actions"]) == (True, planned["actions"]), done
    for check in (True, False):
        again = stack.run("open", stack.second_login, password="second", check=check)
        assert (again["changed"], again["actions"], again["open"]) == (False, [], True), again


def test_the_old_login_works_until_it_is_closed(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    assert stack.gets_in(stack.role, stack.first)
    assert stack.gets_in(stack.second_login, "second")
    closed = stack.run("closed", replacement=stack.second_login, replacement_password="second")
    assert closed["changed"] is True, closed
    assert not stack.gets_in(stack.role, stack.first)
    assert stack.gets_in(stack.second_login, "second")
    assert stack.run("unchanged")["open"] is False


def test_closing_again_changes_nothing(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    options = {"replacement": stack.second_login, "replacement_password": "second"}
    planned = stack.run("closed", check=True, **options)
    assert planned["changed"] is True
    assert stack.gets_in(stack.role, stack.first)
    assert stack.run("closed", **options)["actions"] == planned["actions"]
    again = stack.run("closed", **options)
    assert (again["changed"], again["actions"]) == (False, [])


def test_the_two_logins_take_turns(stack: Stack) -> None:
    passwords = [stack.first, "second", "third", "fourth"]
    logins = [stack.role, stack.second_login, stack.role, stack.second_login]
    for turn in (1, 2, 3):
        opened = stack.run("open", logins[turn], password=passwords[turn])
        assert opened.get("failed") is None, opened
        closed = stack.run("closed", logins[turn - 1], replacement=logins[turn], replacement_password=passwords[turn])
        assert closed.get("failed") is None, closed
        assert [stack.gets_in(*pair) for pair in zip(logins, passwords, strict=True)] == [
            number == turn for number in range(4)
        ]


def test_the_second_login_owns_what_the_role_owns(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    with stack.connect(stack.second_login, "second") as second:
        second.execute("ALTER TABLE notes ADD COLUMN more int")
        second.execute("INSERT INTO notes VALUES ('two', 2)")
    assert stack.ask(stack.role, stack.first, "SELECT count(*) FROM notes") == 2


def test_what_either_login_makes_both_can_change_and_the_role_owns(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    both = {stack.role: stack.first, stack.second_login: "second"}
    for number, (login, password) in enumerate(both.items()):
        stack.do(login, password, f"CREATE TABLE made_{number} ()")
    for number, (login, password) in enumerate(reversed(both.items())):
        stack.do(login, password, f"ALTER TABLE made_{number} ADD COLUMN a int")
    owners = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE tablename LIKE 'made%'"
    assert stack.ask(stack.second_login, "second", owners) == stack.role


def test_a_pool_that_resets_its_sessions_still_acts_as_the_role(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    with stack.connect(stack.second_login, "second") as second:
        second.execute("DISCARD ALL")
        second.execute("CREATE TABLE after_reset ()")
        found = second.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'after_reset'").fetchone()
    assert found == (stack.role,)


def test_what_the_login_itself_owns_goes_to_the_role_when_it_is_closed(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    stack.execute("GRANT CREATE ON SCHEMA public TO {}", stack.second_login)
    with stack.connect(stack.second_login, "second") as second:
        second.execute("SET ROLE NONE")
        second.execute("CREATE TABLE strayed ()")
    stack.run("open", password="third", while_used=True)
    closed = stack.run("closed", stack.second_login, replacement=stack.role, replacement_password="third")
    assert f"give what {stack.second_login} owns to {stack.role}" in closed["actions"], closed
    assert stack.ask(stack.role, "third", "SELECT tableowner FROM pg_tables WHERE tablename = 'strayed'") == stack.role


def test_the_settings_of_the_role_hold_for_the_second_login(stack: Stack) -> None:
    stack.execute('ALTER ROLE {} SET search_path TO "$user", "odd, schema", public', stack.role)
    stack.execute("ALTER ROLE {} SET app.tenant TO 'it''s \"one\"'", stack.role)
    stack.execute("ALTER ROLE {} IN DATABASE {} SET statement_timeout TO '7s'", stack.role, stack.database)
    stack.execute("ALTER ROLE {} CONNECTION LIMIT 7", stack.role)
    stack.run("open", stack.second_login, password="second")
    for setting in ("search_path", "app.tenant", "statement_timeout"):
        values = {
            stack.ask(login, password, f"SHOW {setting}")
            for login, password in ((stack.role, stack.first), (stack.second_login, "second"))
        }
        assert len(values) == 1, values
    assert stack.run("open", stack.second_login, password="second")["changed"] is False
    stack.execute("ALTER ROLE {} RESET app.tenant", stack.role)
    assert stack.run("open", stack.second_login, password="second")["actions"] == [
        f"give {stack.second_login} the settings of {stack.role}"
    ]
    assert stack.ask(stack.second_login, "second", "SELECT current_setting('app.tenant', true)") in (None, "")
    assert stack.ask(stack.second_login, "second", "SHOW search_path") == '"$user", "odd, schema", public'


def test_a_role_that_already_acts_as_an_owner_keeps_doing_so(stack18: Stack) -> None:
    owner = f"{stack18.role}_owner"
    stack18.execute("CREATE ROLE {}", owner)
    stack18.execute("GRANT {} TO {}", owner, stack18.role)
    stack18.execute("ALTER ROLE {} SET role TO {}", stack18.role, owner)
    opened = stack18.run("open", stack18.second_login, password="second")
    assert opened.get("failed") is None, opened
    assert stack18.ask(stack18.second_login, "second", "SELECT current_user") == owner


def test_a_superuser_that_is_the_role_keeps_its_socket_and_loses_its_password(stack: Stack) -> None:
    stack.execute("ALTER ROLE {} SUPERUSER", stack.role)
    stack.run("open", stack.second_login, password="second")
    assert stack.ask(stack.second_login, "second", "SHOW is_superuser") == "on"
    assert (
        stack.ask(stack.second_login, "second", "SELECT rolsuper FROM pg_roles WHERE rolname = session_user") is False
    )
    options = {
        "login_user": stack.second_login, "login_password": "second",
        "replacement": stack.second_login, "replacement_password": "second",
    }  # fmt: skip
    closed = stack.run("closed", **options)
    assert closed["actions"] == [f"remove the password of {stack.role}"], closed
    assert not stack.gets_in(stack.role, stack.first)
    assert stack.ask(stack.second_login, "second", f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{stack.role}'")
    assert stack.run("closed", **options)["changed"] is False


@pytest.mark.parametrize("replacement_password", ["wrong", "second"])
def test_closing_is_refused_when_the_new_login_does_not_work(stack: Stack, replacement_password: str) -> None:
    stack.run("open", stack.second_login, password="second")
    if replacement_password == "second":
        stack.execute("ALTER ROLE {} RESET role", stack.second_login)
    result = stack.run("closed", replacement=stack.second_login, replacement_password=replacement_password)
    assert result["failed"] is True
    assert f"{stack.role!r} was not closed, because {stack.second_login!r} cannot take its place" in result["msg"]
    expected = "rejected the password" if replacement_password == "wrong" else f"acts as {stack.second_login!r} instead"
    assert expected in result["msg"]
    assert stack.gets_in(stack.role, stack.first)


def test_a_login_cannot_replace_itself(stack18: Stack) -> None:
    result = stack18.run("closed", replacement=stack18.role, replacement_password=stack18.first)
    assert result["failed"] is True
    assert "would be closed and replace itself" in result["msg"]
    assert stack18.gets_in(stack18.role, stack18.first)


def test_a_wrong_admin_password_is_a_sentence(stack18: Stack) -> None:
    result = stack18.run("open", stack18.second_login, password="second", login_password="wrong")
    assert result["failed"] is True
    assert "rejected the password of user 'postgres'. Check login_user and login_password." in result["msg"]


def test_a_user_without_the_right_changes_nothing(stack18: Stack) -> None:
    result = stack18.run(
        "open", stack18.second_login, password="second", login_user=stack18.role, login_password=stack18.first
    )
    assert result["failed"] is True
    assert "permission denied to create role" in result["msg"]
    assert "Grant the missing right to login_user" in result["msg"]
    assert stack18.run("unchanged", stack18.second_login)["exists"] is False


def test_a_user_with_createrole_and_the_admin_option_is_enough(stack: Stack) -> None:
    admin = f"{stack.role}_admin"
    stack.execute("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'admin'", admin)
    stack.execute("GRANT {} TO {} WITH ADMIN OPTION", stack.role, admin)
    as_admin = {"login_user": admin, "login_password": "admin"}
    assert stack.run("open", stack.second_login, password="second", **as_admin).get("failed") is None
    assert stack.run("open", stack.second_login, password="second", **as_admin)["changed"] is False
    closed = stack.run("closed", replacement=stack.second_login, replacement_password="second", **as_admin)
    assert closed.get("failed") is None, closed
    assert not stack.gets_in(stack.role, stack.first)
    again = stack.run("closed", replacement=stack.second_login, replacement_password="second", **as_admin)
    assert again["changed"] is False, again


def test_runs_at_the_same_time_leave_one_login_that_works(stack: Stack) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: stack.run("open", stack.second_login, password="second"), range(4)))
    assert [result["msg"] for result in results if result.get("failed")] == []
    assert sorted(result["changed"] for result in results) == [False, False, False, True]
    assert stack.gets_in(stack.second_login, "second")


def test_another_password_is_refused_while_programs_use_the_login(stack18: Stack) -> None:
    with stack18.connect(stack18.role, stack18.first):
        result = stack18.run("open", password="second")
        assert result["failed"] is True
        assert "has 1 open sessions and another password, so programs use it" in result["msg"]
        assert [session["database"] for session in result["sessions"]] == [stack18.database]
        assert stack18.gets_in(stack18.role, stack18.first)
        assert stack18.run("open", password="second", while_used=True)["changed"] is True
    assert stack18.gets_in(stack18.role, "second")


def test_sessions_of_a_closed_login_are_ended_after_the_drain(stack: Stack) -> None:
    stack.run("open", stack.second_login, password="second")
    options = {"replacement": stack.second_login, "replacement_password": "second"}
    with contextlib.closing(stack.connect(stack.role, stack.first)) as old:
        left = stack.run("closed", terminate=False, **options)
        assert (len(left["sessions"]), left["ended"]) == (1, 0)
        assert old.execute("SELECT 1").fetchone() == (1,)
        closed = stack.run("closed", drain=0.5, **options)
        assert (closed["ended"], closed["changed"]) == (1, True)
        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT 1")
    assert stack.run("unchanged")["sessions"] == []


def test_a_session_that_ends_by_itself_is_waited_for(stack18: Stack) -> None:
    stack18.run("open", stack18.second_login, password="second")
    old = stack18.connect(stack18.role, stack18.first)
    given = {
        **stack18.server.login(stack18.database), "role": stack18.role, "state": "closed", "drain": 200,
        "replacement": stack18.second_login, "replacement_password": "second",
    }  # fmt: skip
    process = stack18.module.start("pg_login", given)
    while stack18.gets_in(stack18.role, stack18.first):
        assert process.poll() is None
    old.close()
    result = json.loads(process.communicate(timeout=300)[0])
    assert (result["ended"], result["sessions"]) == (0, [])


@pytest.fixture
def odd(module: ModuleRunner, postgres: PostgresServer) -> Stack:
    """Names with quotes, spaces and percent signs."""
    number = next(_numbers)
    postgres.create_database(f"od'd \"{number}")
    return made(module, postgres, f"od'd \"{number}", f"Ap'p \"%s {{{number}}}; DROP")


def test_names_and_passwords_with_quotes(odd: Stack) -> None:
    password = "pa'ss \"%s\\ {0} ünïcode $1"
    odd.execute("ALTER ROLE {} IN DATABASE {} SET work_mem TO '5MB'", odd.role, odd.database)
    assert odd.run("open", odd.second_login, password=password).get("failed") is None
    assert odd.run("open", odd.second_login, password=password)["changed"] is False
    assert odd.ask(odd.second_login, password, "SELECT current_user") == odd.role
    closed = odd.run("closed", replacement=odd.second_login, replacement_password=password)
    assert closed.get("failed") is None, closed
    assert not odd.gets_in(odd.role, odd.first)


def test_a_role_of_somebody_else_is_not_taken_over(stack18: Stack) -> None:
    stack18.execute("CREATE ROLE {} LOGIN PASSWORD 'theirs'", stack18.second_login)
    opened = stack18.run("open", stack18.second_login, password="second")
    assert f"and it is not a login of {stack18.role!r}" in opened["msg"]
    closed = stack18.run("closed", stack18.second_login, replacement=stack18.role, replacement_password=stack18.first)
    assert f"is not a login of {stack18.role!r}" in closed["msg"]
    assert stack18.gets_in(stack18.second_login, "theirs")


def test_a_role_that_is_not_there_is_named(stack18: Stack) -> None:
    result = stack18.run("open", password="second", role="nobody_here")
    assert "The server has no role 'nobody_here'." in result["msg"]


@pytest.mark.parametrize("password", ["", "a\0b"])
def test_a_password_that_cannot_be_is_refused(stack18: Stack, password: str) -> None:
    assert "is empty or has a NUL byte" in stack18.run("open", password=password)["msg"]


def test_a_password_stored_as_md5_is_stored_anew(stack18: Stack) -> None:
    stack18.execute(f"SET password_encryption = md5; ALTER ROLE {{}} PASSWORD '{stack18.first}'", stack18.role)
    assert stack18.run("open", password=stack18.first)["actions"] == [f"set the password of {stack18.role}"]
    with stack18.server.connect() as connection:
        stored = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [stack18.role]).fetchone()
    assert stored is not None
    assert stored[0].startswith("SCRAM-SHA-256$")


def test_the_password_reaches_neither_output_nor_the_servers_log(stack: Stack) -> None:
    canary = f"canary{secrets.token_hex(12)}"
    stack.execute("ALTER DATABASE {} SET log_statement TO 'all'", stack.database)
    printed = [
        stack.run("open", stack.second_login, password=canary)["_printed"],
        stack.run("open", stack.second_login, password=canary, login_password="wrong")["_printed"],
        stack.run("closed", replacement=stack.second_login, replacement_password=canary)["_printed"],
        stack.run("closed", stack.second_login, replacement=stack.role, replacement_password=canary)["_printed"],
    ]
    log = (stack.server.socket_dir / "log").read_text(errors="replace")
    assert "pg_advisory_xact_lock" in log, "the log has the module's statements"
    assert stack.gets_in(stack.second_login, canary)
    assert [text for text in [*printed, log] if canary in text] == []
