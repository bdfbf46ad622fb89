"""An error that quotes a row's value, as a user meets it: in no sink but the terminal of who asked for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from test_channels import Receiver
from test_redaction import CANARY, HARD

from .lab import DINMO, PEOPLE, Lab, Org
from .test_security import written

pytestmark = pytest.mark.slow

CHANNELS = "warnings:\n  channels:\n    - \"{{ env_var('HOOK') }}\"\n"
STATE = {"folder": ("", HARD[::3]), "warehouse": ("state: {warehouse: {schema: dinmo_state}}\n", HARD[1::6])}
COMMANDS = [
    ("plan",),
    ("plan", "--json"),
    ("sync",),
    ("sync", "--json", "--log-format", "json"),
    ("sync", "--quiet"),
    ("sync", "--due"),
    ("verify",),
    ("verify", "--json"),
    ("status",),
    ("history", "--json"),
    ("rejected", "--json"),
    ("state", "show", "--json"),
    ("debug", "--json"),
]
FAILING = ("cast(name as integer) > 1", "error(name)", "strptime(name, '%Y') is not null", "name::json is not null")


def sinks(lab: Lab, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    yield "the log", caplog.text
    for number, (_, _, _, body) in enumerate(receiver.asked):
        yield f"notice {number}", body.decode()
    for path, content in written(lab):
        yield str(path), content


@pytest.mark.parametrize("place", STATE)
def test_no_sink_holds_a_value_that_an_error_of_the_warehouse_quotes(
    place: str, lab: Lab, org: Org, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    (lab.root / "dinmo.yml").write_text(DINMO + STATE[place][0] + CHANNELS)
    variables = {"HOOK": f"http://127.0.0.1:{receiver.port}/"}
    caplog.set_level(logging.DEBUG)
    lab.only("people", PEOPLE)
    assert lab.run("sync", **variables).code == 0
    lab.sql("alter table people alter name type varchar", "delete from people where person_id <> 'P1'")
    for turn, value in enumerate(value.replace("\x00", "") for value in STATE[place][1]):
        quoted = value.replace("'", "''")
        lab.sql(f"update people set name = '{quoted}'")
        lab.only("people", {**PEOPLE, "where": FAILING[turn % len(FAILING)]})
        commands = COMMANDS if turn == 0 else [("sync",)]
        for command in commands:
            ran = lab.run(*command, **variables)
            assert CANARY.lower() not in ran.all.lower(), (command, value)
            assert "DB900" not in ran.all
            if command[0] in ("sync", "plan", "verify") and "--due" not in command:
                assert ran.code == 1 and "DB710" in ran.all, ran.all
        lab.sql("checkpoint")
    assert receiver.asked, "a notice was sent"
    for sink, content in sinks(lab, receiver, caplog):
        assert CANARY.lower() not in content.lower(), sink
    if place == "warehouse":
        import duckdb

        with duckdb.connect(str(lab.root / "lab.duckdb")) as connection:
            for (table,) in connection.sql(
                "select table_name from duckdb_tables() where schema_name = 'dinmo_state'"
            ).fetchall():
                rows = str(connection.sql(f"select * from dinmo_state.{table}").fetchall())
                assert CANARY.lower() not in rows.lower(), table


def test_what_the_database_said_is_shown_to_who_asks_and_kept_nowhere(
    lab: Lab, org: Org, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    lab.only("people", {**PEOPLE, "where": "cast(name as integer) > 1"})
    lab.sql(f"update people set name = 'O''Hara {CANARY}'")
    for command in (("plan",), ("sync",), ("sync", "--json"), ("verify",)):
        ran = lab.run(*command)
        assert "--show-values shows the database's own words" in ran.all, command
        ran = lab.run(*command, "--show-values")
        assert f"Could not convert string 'O'Hara {CANARY}' to INT32" in ran.err, command
        assert CANARY not in ran.out, command
        assert "--show-values shows" not in ran.all, command
    ran = lab.run("run", "--show-values", "--", "true")
    assert CANARY not in ran.all, "dbt wrote nothing: nothing is read"
    for sink, content in sinks(lab, receiver, caplog):
        assert CANARY not in content, sink
    assert json.loads(lab.run("history", "--json").out)
