"""The emulator's pages say what its code does: routes, faults, refusals; and their examples run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.routing import Map
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from dinmo_dbt.emulator import Fault, limits
from dinmo_dbt.emulator.bulk import job, queryjobs, uploads
from dinmo_dbt.emulator.faults.fault import KINDS, from_json
from dinmo_dbt.emulator.faults.presets import PRESETS
from dinmo_dbt.emulator.records import collections, replication
from dinmo_dbt.emulator.soql import compiler, run
from dinmo_dbt.emulator.web import call, control, routes, server
from dinmo_dbt.emulator.web.app import URI_BYTES_MAX
from dinmo_dbt.emulator.web.calls import CALLS_KEPT
from dinmo_dbt.emulator.web.names import call_name

from .conftest import Org
from .pages import Terminal, blocks, rows, text_of

API, FAULTS, USE = "emulator-api.md", "emulator-faults.md", "emulator.md"
STATES = ("exact", "approximate", "refused")
_ENDPOINT = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) ([^`]+)`")


def endpoints(cell: str) -> list[tuple[str, str]]:
    """The methods and paths of a cell, placeholders without their names."""
    found = _ENDPOINT.findall(cell)
    assert found, cell
    return [(method, re.sub(r"\{\w+\}|(?<=/v)XX\.X", "{}", path)) for method, path in found]


def served(served_routes: Map) -> dict[tuple[str, str], object]:
    """Every method and path of the code as the pages write it, with its handler."""
    found = {}
    for rule in served_routes.iter_rules():
        choice = re.search(r"<any\(([\w,]+)\):\w+>", rule.rule)
        for chosen in choice[1].split(",") if choice else [""]:
            path = rule.rule.replace(choice[0], chosen) if choice else rule.rule
            path = re.sub(r"<[^>]+>", "{}", path).removeprefix("/services/data/v{}/")
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                found[method, path] = rule.endpoint
    return found


def named(method: str, handler: object) -> set[str]:
    name = call_name(handler, Request(EnvironBuilder(method=method).get_environ()))  # type: ignore[arg-type]
    return {name, "ingest.abort"} if name == "ingest.close" else {name}


def test_each_route_of_the_api_has_a_row_and_each_row_a_route() -> None:
    known = served(routes.route_map())
    told = {(*endpoint, row[0].strip("`")) for row in rows(API, 4) for endpoint in endpoints(row[1])}
    assert told == {(*place, name) for place, handler in known.items() for name in named(place[0], handler)}


def test_each_row_says_exact_approximate_or_refused_and_how() -> None:
    listed = rows(API, 4)
    assert [row for row in listed if row[2] not in STATES or len(row[3]) < 3] == []
    assert {row[2] for row in listed} == set(STATES)


def test_each_route_of_the_control_endpoint_has_a_row_and_each_row_a_route() -> None:
    table = re.search(r"## The control endpoint\n(.*?)(?=\n## |\Z)", text_of(USE), re.DOTALL)
    assert table
    told = {endpoint for line in re.findall(r"^\| (`.*?) \|", table[1], re.MULTILINE) for endpoint in endpoints(line)}
    assert told == set(served(control._ROUTES))


def test_each_refused_path_is_listed_and_refused_as_the_page_says(org: Org) -> None:
    table = re.search(r"<!-- not emulated -->\n(.*?)<!-- end -->", text_of(API), re.DOTALL)
    assert table
    told = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\|(.*?)\|", table[1], re.MULTILINE)))
    assert sorted(told) == sorted([*routes._NOT_EMULATED, *(f"/{page}" for page in routes._PAGES)])
    for path in told:
        reply = org.http.get(f"{org.url}{path}/x" if path.startswith("/") else f"{org.base}/{path}/x")
        (error,) = reply.json()
        assert (reply.status_code, error["errorCode"]) == (501, "NOT_EMULATED")
        assert error["message"] == f"The dinmo-dbt emulator does not emulate GET {path}/x"


def test_the_tables_of_the_page_name_what_soql_refuses(org: Org) -> None:
    for clause in ("GROUP BY ROLLUP(Name)", "GROUP BY CUBE(Name)", "WITH SECURITY_ENFORCED", "USING SCOPE team"):
        soql = f"SELECT COUNT(Id) FROM Account {clause}"
        reply = org.get("/query", params={"q": soql})
        assert reply.json()[0]["errorCode"] == "MALFORMED_QUERY"
        assert "The dinmo-dbt emulator does not emulate" in reply.json()[0]["message"], soql
    for function in ("FORMAT", "convertCurrency", "DISTANCE", "GEOLOCATION", "GROUPING"):
        assert f"`{function}`" in text_of(API)
        reply = org.get("/query", params={"q": f"SELECT {function}(Name) FROM Account"})
        assert f"emulate the function {function.upper()}() in SOQL" in reply.json()[0]["message"]


def test_the_numbers_of_the_pages_are_those_of_the_code(org: Org) -> None:
    described = org.get("/sobjects/Account/describe").json()
    brief = org.get("/sobjects").json()["sobjects"][0]
    in_api = (
        f"{call.FIRST_VERSION}.0 to {call.LAST_VERSION}.0",
        f"an address over {URI_BYTES_MAX:,} bytes 414",
        f"| {len(brief)} keys an object",
        f"all {len(described)} keys of the object and {len(described['fields'][0])} of each field",
        f"up to {collections.RECORDS_MAX} records of up to {collections.CHUNKS_MAX} runs",
        f"at most {replication.IDS_MAX:,} ids",
        f"pages of {run.PAGE_ROWS:,} or of `batchSize=200` to {run.PAGE_ROWS:,}",
        f"lives {run._CURSOR_LIFE.days} days on the org's clock; the last {run._CURSORS_MAX} are kept",
        f"a page has {queryjobs._RESULT_ROWS:,} rows",
        f"{job.LIST_ROWS:,} a page, newest first",
        f"batches of {uploads.BATCH_ROWS:,}",
        f"kept for\n{job.KEPT.days} days of the org's clock, an open job's data for {job.OPEN_MAX.days * 24} hours",
        f"`OFFSET` up to {compiler._OFFSET_MAX:,}",
        f"{_in_words(len(org.get('/limits').json()))} limits",
    )
    assert [text for text in in_api if text not in text_of(API)] == []
    in_use = (
        f"another one waits {server._LOCK_WAIT_S:.0f} seconds",
        f"at most the last {limits._SAVED_EVERY - 1} counted API calls",
        f"the last {CALLS_KEPT} calls of the API",
    )
    assert [text for text in in_use if text not in text_of(USE)] == []


def _in_words(count: int) -> str:
    return ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")[count]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without("the examples of the pages need bash and curl")
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", [USE, FAULTS])
def test_the_examples_of_a_page_run_and_print_what_it_says(terminal: Terminal, page: str) -> None:
    for block in blocks(page):
        if block.language != "json":
            terminal.run(block)


def test_each_kind_of_fault_has_a_row_and_each_row_a_kind() -> None:
    told = {}
    for kind, hits, settings, chance, _ in rows(FAULTS, 5):
        needs = set(re.findall(r"\*\*`(\w+)`\*\*", settings))
        told[kind.strip("`")] = hits.strip("`"), set(re.findall(r"`(\w+)`", settings)), needs, chance == "yes"
    assert told == {name: (k.calls, set(k.takes), set(k.needs), k.by_chance) for name, k in KINDS.items()}


def test_each_preset_is_listed_with_its_code() -> None:
    told = {preset.strip("`"): code.strip("`") for preset, code in rows(FAULTS, 2)}
    assert told == {name: error.code for name, error in PRESETS.items()}


def test_each_kind_of_fault_has_an_example_in_json_and_the_same_in_python(org: Org) -> None:
    by_json = [json.loads(line) for b in blocks(FAULTS) if b.language == "json" for line in b.text.splitlines()]
    in_python = [fault for b in blocks(FAULTS) if b.language == "python" for fault in faults_of(b.text)]
    assert [from_json(each) for each in by_json] == in_python
    assert {fault.kind for fault in in_python} == set(KINDS)
    for each in by_json:
        assert org.http.post(f"{org.url}/emulator/faults", json=each).status_code == 200, each
        assert org.http.delete(f"{org.url}/emulator/faults").json() == {"faults": []}


def faults_of(code: str) -> list[Fault]:
    """The faults that stand alone in a block."""
    scope: dict[str, Any] = {"Fault": Fault}
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            scope[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.Expr) and ast.unparse(node).startswith("Fault("):
            found.append(eval(ast.unparse(node), scope))
    return found
