"""Whatever is written in the files a command reads: it succeeds or says a code, and changes nothing on disk.

Valid documents are mutated as values and as bytes and go through the real commands. `DEEP=n` takes n times as many
examples, at random.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator.deep import examples
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.cli.clock import SystemClock

from .lab import PEOPLE, Lab, Org
from .test_reach import url_of

pytestmark = pytest.mark.slow

DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 10}  # 7 and DB900 are defects of ours; 130 and 143 are signals

Mutation = Callable[[Any], Any]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


def deep(levels: int) -> Any:
    value: Any = "x"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", " ", "\0", "\ud800", "a\x1b]0;b\x07", "x" * 200_000, "{{ env_var('NOPE') }}", "{{ 1", "{%", "5%"]
    ),
    st.sampled_from([10**400, -1, 1e308, float("nan"), float("-inf"), "../../../etc/passwd", "00D000000000001EAA"]),
)
VALUES = st.one_of(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([0, 1, 40, 60, 300]).map(deep),
    st.builds(list) | st.builds(dict),
)


@st.composite
def mutated(draw: st.DrawFn, document: Any, within: tuple[Any, ...] = ()) -> Any:
    """The document with one to three changes below `within`: a value replaced, deleted or put where none was."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        known = [place for place in places(changed) if place[: len(within)] == within and len(place) > len(within)]
        if not known:
            break
        place = draw(st.sampled_from(known))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "delete", "insert", "rename"])):
            case "replace":
                holder[place[-1]] = draw(VALUES)
            case "delete":
                del holder[place[-1]]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=6))] = holder.pop(place[-1])
            case _ if isinstance(holder, dict):
                holder[draw(st.sampled_from([*known, ("x",)]))[-1]] = draw(VALUES)
            case _:
                holder.insert(0, draw(VALUES))
    return changed


@st.composite
def bent(draw: st.DrawFn, raw: bytes) -> bytes:
    """The file's bytes cut, flipped, overwritten, doubled, or in another encoding."""
    at = draw(st.integers(0, len(raw)))
    odd = draw(
        st.sampled_from([b"\0", b"\xff", b"\xed\xa0\x80", b"\t", b"\r", b"'", b'"', b"{", b"]", b"&a ", b"*a", b"!"])
    )
    match draw(st.sampled_from(["cut", "insert", "overwrite", "twice", "utf-16", "bom", "latin"])):
        case "cut":
            return raw[:at]
        case "insert":
            return raw[:at] + odd * draw(st.integers(1, 3)) + raw[at:]
        case "overwrite":
            return raw[:at] + draw(st.binary(min_size=1, max_size=8)) + raw[at + 8 :]
        case "twice":
            return raw + raw
        case "utf-16":
            return raw.decode().encode("utf-16")
        case "bom":
            return b"\xef\xbb\xbf" + raw
    return raw[:at] + "é".encode("latin-1") + raw[at:]


def token(lab: Lab) -> str:
    return str(json.loads((lab.data / "server.json").read_text())["access_token"])


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", errors="surrogatepass")


def on_disk(lab: Lab) -> dict[str, bytes]:
    """Every file of the project and its bytes; the served org's own files are not ours."""
    found = {}
    for path in lab.root.rglob("*"):
        if lab.data != path and lab.data not in path.parents:
            found[str(path.relative_to(lab.root))] = path.read_bytes() if path.is_file() else b"folder"
    return found


def tried(lab: Lab, path: Path, raw: bytes, *commands: tuple[str, ...]) -> None:
    """Each command on that file's new bytes; then the old ones again."""
    was = path.read_bytes()
    path.write_bytes(raw)
    try:
        before = on_disk(lab)
        for command in commands:
            ran = lab.run(*command, LAB_TOKEN=token(lab))  # which refuses a traceback and DB900
            assert ran.code in DOCUMENTED, (command, ran.code, ran.all)
            if ran.code not in (0, 10):
                assert re.search(r"\bDB\d{3}\b", ran.all), (command, ran.all)
            assert token(lab) not in ran.all
            assert all(line.isprintable() for line in ran.err.splitlines()), (command, ran.err)
            assert on_disk(lab) == before, command
    finally:
        path.write_bytes(was)


DINMO = {
    "destinations": {
        "crm": {
            "targets": {
                "dev": {
                    "login_url": "",
                    "auth": {"flow": "access_token", "instance_url": "", "access_token": "{{ env_var('LAB_TOKEN') }}"},
                    "organization_id": "00D000000000001EAA",
                    "api_share": "80%",
                    "allowed_hosts": ["*.example.com"],
                },
                "prod": {
                    "login_url": "https://acme.my.salesforce.com",
                    "auth": {"flow": "jwt", "client_id": "a", "username": "b", "private_key_path": "key.pem"},
                },
            }
        }
    },
    "defaults": {"guards": {"max_change": "50%"}, "api": "auto"},
    "state": {"location": ".dinmo"},
    "emulator": {"schema": "force-app", "records": "emulator_records"},
    "warnings": {"channels": []},
}
OFFLINE = (("validate", "--no-parse"), ("list", "--json"), ("state", "show"), ("status",))


@pytest.fixture(scope="module")
def synced(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Org]]:
    """A lab after a sync, its org standing: the state is a real one, and no command starts a server."""
    lab = Lab(Path(shutil.copytree(built, tmp_path_factory.mktemp("mutated") / "lab")))
    manifest = lab.root / "target" / "manifest.json"
    document = json.loads(manifest.read_text())
    document |= {"macros": {}, "docs": {}}  # dbt's own, a thousand of them: nothing is read there
    manifest.write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch, lab.serve() as org:
        patch.setattr(SystemClock, "sleep", lambda *_: None)
        lab.declare("people", {**PEOPLE, "guards": {"max_change": "50%"}, "constants": {"Nick__c": "x"}})
        assert lab.run("sync").code == 0
        yield lab, org


@pytest.fixture(scope="module")
def dinmo(synced: tuple[Lab, Org]) -> dict[str, Any]:
    written = copy.deepcopy(DINMO)
    dev: Any = written["destinations"]["crm"]["targets"]["dev"]  # type: ignore[index]
    dev["login_url"] = dev["auth"]["instance_url"] = url_of(synced[0])
    dev["organization_id"] = json.loads((synced[0].data / "server.json").read_text())["organization_id"]
    return written


@examples(40)
@given(st.data())
def test_any_values_in_dinmo_yml(synced: tuple[Lab, Org], dinmo: dict[str, Any], data: st.DataObject) -> None:
    # JSON is YAML, but for what no YAML can hold: a lone surrogate then goes in as its bytes.
    tried(synced[0], synced[0].root / "dinmo.yml", as_json(data.draw(mutated(dinmo))), *OFFLINE, ("plan", "--no-parse"))


@examples(40)
@given(st.data())
def test_any_bytes_in_dinmo_yml(synced: tuple[Lab, Org], dinmo: dict[str, Any], data: st.DataObject) -> None:
    raw = yaml.safe_dump(dinmo).encode()
    tried(synced[0], synced[0].root / "dinmo.yml", data.draw(bent(raw)), *OFFLINE, ("plan", "--no-parse"))


@examples(60)
@given(st.data())
def test_any_values_in_meta(synced: tuple[Lab, Org], data: st.DataObject) -> None:
    path = synced[0].root / "target" / "manifest.json"
    document = json.loads(path.read_bytes())
    within = ("nodes", "model.lab.people", "config", "meta")
    tried(synced[0], path, as_json(data.draw(mutated(document, within))), *OFFLINE, ("plan", "--no-parse"))


@examples(40)
@given(st.data())
def test_any_values_in_the_manifest(synced: tuple[Lab, Org], data: st.DataObject) -> None:
    path = synced[0].root / "target" / "manifest.json"
    tried(synced[0], path, as_json(data.draw(mutated(json.loads(path.read_bytes())))), *OFFLINE, ("plan", "--no-parse"))


@examples(30)
@given(st.data())
def test_any_values_in_the_run_results(synced: tuple[Lab, Org], data: st.DataObject) -> None:
    path = synced[0].root / "target" / "run_results.json"
    tried(synced[0], path, as_json(data.draw(mutated(json.loads(path.read_bytes())))), ("plan", "--no-parse"))


LOOKS = (("state", "show"), ("status",), ("history",), ("rejected",), ("plan", "--no-parse"))


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("target/manifest.json", (("list",), ("plan", "--no-parse"))),  # one that is cut is read twice, with a pause
        ("target/run_results.json", (("plan", "--no-parse"),)),
        ("dbt_project.yml", (*OFFLINE, ("plan", "--no-parse"))),
        ("profiles.yml", (*OFFLINE, ("plan", "--no-parse"))),
    ],
)
@examples(25)
@given(st.data())
def test_any_bytes_in_a_file_that_is_read(
    synced: tuple[Lab, Org], name: str, commands: tuple[tuple[str, ...], ...], data: st.DataObject
) -> None:
    path = synced[0].root / name
    tried(synced[0], path, data.draw(bent(path.read_bytes())), *commands)


@pytest.mark.parametrize("pattern", ["state.db", "history.db", "snapshots/**/*.parquet", "runs/*.parquet"])
@examples(12)
@given(st.data())
def test_any_bytes_in_the_state(synced: tuple[Lab, Org], pattern: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted((synced[0].root / ".dinmo").glob(pattern))))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    over = data.draw(st.binary(min_size=1, max_size=8))
    overwritten = raw[:at] + over + raw[at + len(over) :]
    new = data.draw(st.sampled_from([raw[:at], raw[:at] + raw[at + 1 :], raw + raw[at:], overwritten, overwritten]))
    tried(synced[0], path, new, *LOOKS)
