"""manifest.json: real ones made by dbt, every mistake once, order by lookups, and mangled files."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_cases import activation, block, document, golden, insert, manifest, node, right, told
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.activation import Activation
from dinmo_dbt.artifacts.declared import activations
from dinmo_dbt.artifacts.gate import ConnectedTarget, gate, load_run_results, target_check
from dinmo_dbt.artifacts.manifest import load_manifest, parse_manifest
from dinmo_dbt.artifacts.order import cycles, order
from dinmo_dbt.errors import ConfigError, DinmoError

FILES = {
    "dbt_project.yml": """\
name: lab
version: "1.0"
profile: lab
models: {lab: {+materialized: table, marts: {+schema: marts, +tags: [nightly]}}}
""",
    "profiles.yml": "lab: {target: dev, outputs: {dev: {type: duckdb, path: dev.duckdb}}}\n",
    "models/staging/base.sql": "select 1 as customer_id, 'pro' as plan\n",
    "models/marts/dim_customers.sql": "select * from {{ ref('base') }}\n",
    "models/marts/dim_bad.sql": "select * from {{ ref('base') }}\n",
    "models/marts/people_v1.sql": "select 1 as id\n",
    "models/marts/people_v2.sql": "select 2 as id\n",
    "models/marts/_marts.yml": """\
models:
  - name: dim_customers
    config:
      meta:
        dinmo:
          activation:
            {destination: crm, object: Customer__c, mode: insert, fields: {plan: Plan__c}, mute_until: 2030-01-01}
    columns:
      - {name: customer_id, data_tests: [unique, not_null]}
  - name: dim_bad
    config: {meta: {dinmo: {activation: {destination: crm, object: Bad__c, mode: insert, fields: {plan: Plan__c}}}}}
    columns:
      - {name: customer_id, data_tests: [unique, not_null]}
      - {name: plan, data_tests: [{accepted_values: {arguments: {values: [free]}}}]}
  - name: people
    latest_version: 2
    config: {meta: {dinmo: {key: id, activation: {destination: crm, object: P__c, mode: insert, fields: {id: N__c}}}}}
    versions: [{v: 1}, {v: 2}]
""",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that real dbt built, one of its tests failing."""
    root = tmp_path_factory.mktemp("lab")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    dbt = Path(sys.executable).with_name("dbt")
    done = subprocess.run([dbt, "--quiet", "build", "--profiles-dir", "."], cwd=root, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout
    return root / "target"


def column_test(node_id: str, column: str, name: str, **config: Any) -> dict[str, Any]:
    of_it = {"attached_node": node_id, "column_name": column, "test_metadata": {"name": name, "kwargs": {}}}
    return {"unique_id": f"test.lab.{name}_{column}", "package_name": "lab", "config": config, **of_it}


@pytest.mark.parametrize(
    ("column", "names", "config", "found"),
    [
        ("id", ("unique", "not_null"), {}, ("id",)),
        ("id", ("unique",), {}, ()),
        ("id", ("unique", "not_null"), {"where": "id > 1"}, ()),
        ("id", ("not_null", "accepted_values"), {}, ()),
    ],
)
def test_the_key_of_a_seed_is_what_its_tests_say_as_dbt_says_of_a_model(
    column: str, names: tuple[str, ...], config: dict[str, Any], found: tuple[str, ...]
) -> None:
    seed = node("sd", unique_id="seed.lab.sd", resource_type="seed", primary_key=None)
    read = manifest(seed, *(column_test("seed.lab.sd", column, name, **config) for name in names))
    assert read.nodes["seed.lab.sd"].primary_key == found


def test_two_columns_that_are_unique_are_no_key_of_a_seed() -> None:
    seed = node("sd", unique_id="seed.lab.sd", resource_type="seed", primary_key=None)
    tests = [column_test("seed.lab.sd", column, name) for column in ("a", "b") for name in ("unique", "not_null")]
    assert manifest(seed, *tests).nodes["seed.lab.sd"].primary_key == ()


@pytest.mark.parametrize(
    ("given", "found"), [("id", ("id",)), (["a", "b"], ("a", "b")), ("a || b", ()), (["a", "b||c"], ()), (None, ())]
)
def test_the_key_of_a_snapshot_is_that_of_its_config(given: object, found: tuple[str, ...]) -> None:
    snapshot = node("sn", unique_id="snapshot.lab.sn", resource_type="snapshot", primary_key=None)
    snapshot["config"]["unique_key"] = given
    assert manifest(snapshot).nodes["snapshot.lab.sn"].primary_key == found


def test_real_artifacts_give_activations_a_gate_and_a_target(built: Path) -> None:
    read = load_manifest(built / "manifest.json")
    assert (read.project_name, read.adapter_type) == ("lab", "duckdb")
    loaded = activations(read, {})
    assert [a.name for a in loaded.activations] == ["dim_bad__Bad__c", "dim_customers__Customer__c", "people__P__c"]
    bad, customers, people = loaded.activations
    assert customers.model.relation_name == '"dev"."main_marts"."dim_customers"'
    assert customers.key == ("customer_id",)  # from unique + not_null
    assert customers.model.file == "models/marts/dim_customers.sql"
    assert customers.meta_path == "models/marts/_marts.yml: dim_customers.config.meta.dinmo.activation"
    assert customers.model.tags == ("nightly",)
    assert people.model.unique_id == "model.lab.people.v2"
    assert loaded.notes == ()

    results = load_run_results(built / "run_results.json")
    found = gate(read, results)
    assert found.verdict(customers.model.unique_id).standing == "ok"
    assert found.verdict(bad.model.unique_id).reason == "test failed: accepted_values_dim_bad_plan__free"
    assert found.notes == ()
    assert target_check(read, results, ConnectedTarget("dev", "main", "dev", "duckdb")) is None
    assert target_check(read, results, ConnectedTarget("prod", "main", "prod", "duckdb")) is not None


DIM = node(dinmo=block())
VERSIONS = [
    node(dinmo=block(), unique_id=f"model.lab.people.v{v}", version=v, latest_version=2, relation_name=f"people_v{v}")
    for v in (1, 2)
]
TWO = [activation(name="Same"), activation(name="same")]

WRONG: dict[str, dict[str, Any]] = {
    "same_name": document(node(dinmo=block(*TWO))),
    "same_default_name_in_two_models": document(
        node("a", dinmo=block(activation(name="x"))), node("b", dinmo=block(activation(name="x", mode="update")))
    ),
    "inherited": document(*(node(name, dinmo=block(activation("name"))) for name in ("a", "b", "c"))),
    "ephemeral": document(node(dinmo=block(), relation_name=None, config={"materialized": "ephemeral"})),
    "no_relation": document(node(dinmo=block(), relation_name=None)),
    "contract": document(node(dinmo=block(), columns={"customer_id": {}, "plann": {}}, contract={"enforced": True})),
    "source": document(
        sources={
            "source.lab.raw.t": {
                "package_name": "lab",
                "name": "t",
                "original_file_path": "models/raw.yml",
                "config": {"meta": {"dinmo": {}}},
            }
        }
    ),
    "block_null": document(node(config={"meta": {"dinmo": None}})),
    "all_at_once": document(
        node("a", dinmo=block(activation(mode="no"))),
        node("b", dinmo=block(*TWO)),
        node("c", dinmo=block(activation(name="c")), relation_name="", config={"materialized": "ephemeral"}),
        node("d", dinmo=block(activation(fields={"plan": "Plan Name"}))),
        disabled={"model.lab.off": [node("off", dinmo=block())]},
    ),
    "more_than_fifty": document(node(dinmo=block(*(activation(**{f"key_{i}": 1}) for i in range(60))))),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_mistake_has_its_message(case: str) -> None:
    with pytest.raises(ConfigError) as raised:
        right(activations(parse_manifest(WRONG[case], "manifest.json"), {}))
    golden(f"manifest_{case}", told(raised.value))


def names(*nodes: dict[str, Any], **sections: Any) -> list[str]:
    return [a.name for a in activations(manifest(*nodes, **sections), {}).activations]


def test_only_the_root_project_and_the_latest_version_count() -> None:
    foreign = node("foreign", dinmo=block(), package_name="other", unique_id="model.other.foreign")
    assert names(foreign) == []
    found = activations(manifest(*VERSIONS), {}).activations
    assert [a.model.unique_id for a in found] == ["model.lab.people.v2"]


def test_a_generated_exposure_is_no_declaration() -> None:
    exposure = {"package_name": "lab", "name": "e", "config": {"meta": {"dinmo": {"generated": True}}}}
    assert names(exposures={"exposure.lab.e": exposure}) == []


def test_meta_of_an_old_manifest_is_read_and_column_meta_never() -> None:
    old = node()
    old["meta"] = {"dinmo": block()}
    del old["config"]
    assert names(old) == ["customers_to_crm"]
    column = node(columns={"a": {"name": "a", "meta": {"dinmo": block()}, "config": {}}})
    assert names(column) == []


def test_models_that_mean_equal_activations_tell_them_apart_by_name() -> None:
    assert names(node("a", dinmo=block(activation(name="a"))), node("b", dinmo=block(activation(name="b")))) == [
        "a",
        "b",
    ]


def test_a_snapshot_without_a_condition_is_a_note() -> None:
    snapshot = node("s", dinmo=block(), unique_id="snapshot.lab.s")
    notes = activations(manifest(snapshot), {}).notes
    golden("note_snapshot", "".join(f"{note}\n" for note in notes))
    current = node("s", dinmo=block(activation(where="dbt_valid_to is null")), unique_id="snapshot.lab.s")
    assert activations(manifest(current), {}).notes == ()


def test_a_column_that_is_not_documented_is_a_note() -> None:
    notes = activations(manifest(node(dinmo=block(), columns={"CUSTOMER_ID": {}, "plans": {}})), {}).notes
    golden("note_columns", "".join(f"{note}\n" for note in notes))


def test_manifest_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    texts = {
        "absent": None,
        "truncated": b'{"metadata": {"dbt_schema',
        "not_utf8": b'{"a": "\xff"}',
        "deep": b"[" * 100_000,
        "long_number": b"9" * 5000,
        "list": b"[]",
        "other_artifact": b'{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/catalog/v1.json"}}',
        "too_new": json.dumps(document()).replace("v12", "v14").encode(),
        "too_old": json.dumps(document()).replace("v12", "v8").encode(),
    }
    told_of = ""
    for case, raw in texts.items():
        path.unlink(missing_ok=True)
        if raw is not None:
            path.write_bytes(raw)
        pauses: list[float] = []
        with pytest.raises(ConfigError) as raised:
            load_manifest(path, pause=pauses.append)
        assert len(pauses) == (case in ("truncated", "not_utf8", "deep", "long_number"))
        told_of += f"# {case}\n{told(raised.value)}"
    golden("manifest_files", told_of.replace(str(tmp_path), "<target>"))


def test_a_manifest_that_dbt_is_writing_is_read_once_more(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"metadata"')

    def dbt_finishes(_: float) -> None:
        path.write_text(json.dumps(document(DIM)))

    assert load_manifest(path, pause=dbt_finishes).nodes


def test_versions_9_to_13_with_keys_missing_are_read() -> None:
    for version in range(9, 14):
        read = document(copy.deepcopy(DIM))
        read["metadata"]["dbt_schema_version"] = f"https://schemas.getdbt.com/dbt/manifest/v{version}.json"
        bare = read["nodes"]["model.lab.dim_customers"]
        for key in ("patch_path", "version", "latest_version", "primary_key", "tags", "columns", "database", "schema"):
            del bare[key]
        assert len(activations(parse_manifest(read, "m"), {}).activations) == 1


def looks_up(**objects: str) -> Callable[[Activation], set[str]]:
    return lambda activation: set(objects.get(activation.name, "").split())


def writers(**objects: str) -> tuple[Activation, ...]:
    written = [insert(name=name, object=target) for name, target in objects.items()]
    return activations(manifest(node(dinmo=block(*written))), {}).activations


def ordered(found: tuple[Activation, ...], references: Callable[[Activation], set[str]]) -> list[str]:
    return [a.name for a in order(reversed(found), references)]


def test_parents_come_first_and_else_names_decide() -> None:
    found = writers(a="Order__c", b="Customer__c", c="Region__c", d="Note__c")
    references = looks_up(a="customer__C", b="Region__c User")
    assert ordered(found, references) == ["c", "b", "a", "d"]
    assert cycles(found, references) == ()


def test_an_object_that_refers_to_itself_orders_nothing() -> None:
    found = writers(a="Account", b="Account")
    assert ordered(found, looks_up(a="Account", b="Account")) == ["a", "b"]


def test_a_cycle_is_broken_at_its_first_name_and_said() -> None:
    found = writers(a="Leaf__c", b="Left__c", c="Right__c")
    references = looks_up(a="Right__c", b="Right__c", c="Left__c")
    assert ordered(found, references) == ["b", "c", "a"]
    golden("note_cycle", "".join(f"{note}\n" for note in cycles(found, references)))


def mutations(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(place for key, below in inner for place in mutations(below, (*path, key)))]


MANGLED = document(
    node(dinmo=block(segments={"a": "true"})), disabled={"model.lab.x": [node("x")]}, unit_tests={"u": {}}
)
PLACES = mutations(MANGLED)[1:]


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PLACES),
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}) | st.just([1]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_mangled_manifest_gives_activations_or_an_error_of_ours(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    mangled = copy.deepcopy(MANGLED)
    for place, value in changes:
        holder: Any = mangled
        for key in place[:-1]:
            holder = holder[key] if isinstance(holder, dict) and key in holder else None
        if isinstance(holder, dict):
            holder[place[-1]] = copy.deepcopy(value)
    try:
        read = parse_manifest(mangled, "manifest.json")
        activations(read, {})
        target_check(read, None, ConnectedTarget("dev", "main", "dev", "duckdb"))
    except DinmoError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("config", "where", "hint"),
    [
        ({}, None, "dbt_valid_to is null"),
        ({}, "dbt_valid_to is null", ""),
        ({"hard_deletes": "new_record"}, None, "dbt_valid_to is null and dbt_is_deleted = 'False'"),
        ({"hard_deletes": "new_record"}, "dbt_valid_to is null", "dbt_is_deleted = 'False'"),
        ({"hard_deletes": "new_record"}, "dbt_valid_to is null and dbt_is_deleted = 'False'", ""),
        ({"hard_deletes": "invalidate"}, "dbt_valid_to is null", ""),
        ({"dbt_valid_to_current": "date '9999-12-31'"}, None, "dbt_valid_to = date '9999-12-31'"),
        ({"dbt_valid_to_current": "date '9999-12-31'"}, "dbt_valid_to IS NULL", "dbt_valid_to = date '9999-12-31'"),
        ({"dbt_valid_to_current": "date '9999-12-31'"}, "dbt_valid_to = date '9999-12-31'", ""),
        ({"snapshot_meta_column_names": {"dbt_valid_to": "ends"}}, None, "ends is null"),
        (
            {"snapshot_meta_column_names": {"dbt_is_deleted": "gone"}, "hard_deletes": "new_record"},
            "dbt_valid_to is null",
            "gone = 'False'",
        ),
        ({"hard_deletes": "new_record"}, "plan = 'pro'", ""),
    ],
)
def test_what_is_said_of_a_snapshot_fits_its_own_settings(config: dict[str, Any], where: str | None, hint: str) -> None:
    written = activation(**({"where": where} if where else {}))
    snapshot = node("s", unique_id="snapshot.lab.s", config={**config, "meta": {"dinmo": block(written)}})
    notes = activations(manifest(snapshot), {}).notes
    assert [note.code for note in notes] == (["DB137"] if hint else [])
    assert not hint or hint in notes[0].hint
