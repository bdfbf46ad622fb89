"""docs/emulator-conformance.md claims what these tests do, and nothing else: versions, tests, what is left out.

Which calls each client made is compared after its tests have run (`exercised`).
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from emulator.pages import text_of

from dinmo_dbt.emulator.web.names import every_name
from dinmo_dbt.emulator.web.routes import route_map

from . import sf, test_jsforce_live, test_simple_salesforce
from .exercised import PAGE, told

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
MODULES = {
    "jsforce": "test_jsforce.py", "jsforce 1": "test_jsforce_live.py", "simple-salesforce": "test_simple_salesforce.py",
    "aiosalesforce": "test_aiosalesforce.py", "salesforce-api": "test_salesforce_api.py", "sf": "sf.py",
}  # fmt: skip


def table(name: str) -> list[list[str]]:
    """The rows of the page's table that stands between `<!-- name -->` and `<!-- end -->`."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text_of(PAGE), re.DOTALL)
    assert found
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]


def from_npm(folder: str) -> str:
    lock = json.loads((HERE / folder / "package-lock.json").read_text())
    version: str = lock["packages"]["node_modules/jsforce"]["version"]
    return version


def from_pip(name: str) -> str:
    found = re.search(rf"^{name}==(.*)$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_page_names_each_client_with_its_version_and_module() -> None:
    versions = {name: from_pip(name) for name in ("simple-salesforce", "aiosalesforce", "salesforce-api")}
    versions |= {"jsforce": from_npm("jsforce"), "jsforce 1": from_npm("jsforce1")}
    versions["sf"] = sf.PACKAGES[0].rpartition("@")[2]
    assert {row[0]: (row[1], row[2].strip("`")) for row in table("clients")} == {
        name: (version, MODULES[name]) for name, version in versions.items()
    }
    for name, file in MODULES.items():
        assert f'\nCLIENT = "{name}"\n' in (HERE / file).read_text()


def test_the_table_of_calls_has_a_row_for_each_call() -> None:
    assert [row[0].strip("`") for row in table("calls")] == [n for n in every_name(route_map()) if n != "ingest.rows"]
    for client in MODULES:
        assert set(told(client).values()) <= {"x", "refused"}


@pytest.mark.parametrize("client", [name for name in MODULES if name != "jsforce 1"])
def test_the_page_lists_each_test_of_a_client_and_no_other(client: str) -> None:
    found = re.search(rf"^### {client}\n(.*?)(?=^##|\Z)", text_of(PAGE), re.MULTILINE | re.DOTALL)
    assert found
    listed = re.findall(r"^- (.*)$", found[1], re.MULTILINE)
    assert sorted(listed) == sorted(titles_in_node() if client == "jsforce" else titles_in_python(MODULES[client]))


def titles_in_node() -> list[str]:
    sources = [path.read_text() for path in (HERE / "jsforce").glob("*.test.js") if path.name != "leftout.test.js"]
    return [title for source in sources for title in re.findall(r"^test\('([^']*)'", source, re.MULTILINE)]


def titles_in_python(file: str) -> list[str]:
    tree = ast.parse((HERE / file).read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [name.removeprefix("test_").replace("_", " ") for name in names]


def test_the_page_tells_how_the_suite_that_jsforce_shipped_fares() -> None:
    needs = {name: Counter(what.values()) for name, what in test_jsforce_live.NEEDS.items()}
    assert table("suite") == [
        [
            f"`{name}`",
            str(test_jsforce_live.PASSED[name]),
            str(sum(counts.values())),
            ", ".join(f"{what} {count}" for what, count in counts.items()),
        ]
        for name, counts in needs.items()
    ]


def test_the_page_lists_what_is_left_out_and_each_is_tried() -> None:
    block = re.search(
        r"LEFT_OUT = \{\n(.*?)^\};", (HERE / "jsforce/leftout.test.js").read_text(), re.DOTALL | re.MULTILINE
    )
    assert block
    tried = {(what, "jsforce") for what in re.findall(r"^  '([^']+)':", block[1], re.MULTILINE)}
    tried |= {(what, "simple-salesforce") for what in test_simple_salesforce.LEFT_OUT}
    tried |= {(what, "sf") for what in sf.LEFT_OUT}
    listed = {(row[0], client.strip()) for row in table("left out") for client in row[1].split(",")}
    assert listed == tried
    assert all(len(row) == 3 and row[2] for row in table("left out"))
