"""run_results.json: verdicts per command as dbt writes them, refused builds, and the target check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from config_cases import document, golden, manifest, node, told
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.artifacts.gate import (
    ConnectedTarget,
    RunResults,
    fold,
    gate,
    load_run_results,
    parse_run_results,
    target_check,
)
from dinmo_dbt.artifacts.manifest import Manifest, parse_manifest
from dinmo_dbt.errors import ConfigError, DinmoError, Problem, Refused

A, B = "model.lab.a", "model.lab.b"


def lab() -> Manifest:
    read = document(
        node("a"),
        node("b"),
        unit_tests={"unit_test.lab.b.sums": {"name": "sums", "depends_on": {"nodes": [B]}}},
        exposures={"exposure.lab.e": {}},
    )
    read["nodes"] |= {
        "test.lab.not_null_a.1": {"name": "not_null_a", "attached_node": A, "depends_on": {"nodes": [A]}},
        "test.lab.a_and_b.2": {"name": "a_and_b", "depends_on": {"nodes": [A, B]}},
        "test.lab.relationships.3": {"name": "relationships", "attached_node": B, "depends_on": {"nodes": [A, B]}},
        "operation.lab.hook": {},
    }
    return parse_manifest(read, "manifest.json")


def results(which: str, *, invocation: str = "one", args: dict[str, Any] | None = None, **statuses: str) -> RunResults:
    written = {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
            "invocation_id": invocation,
        },
        "args": {"which": which} | (args or {}),
        "results": [{"unique_id": IDS.get(key, key), "status": status} for key, status in statuses.items()],
    }
    return parse_run_results(written, "run_results.json")


IDS = {
    "a": A,
    "b": B,
    "not_null": "test.lab.not_null_a.1",
    "both": "test.lab.a_and_b.2",
    "relationships": "test.lab.relationships.3",
    "unit": "unit_test.lab.b.sums",
    "hook": "operation.lab.hook",
    "exposure": "exposure.lab.e",
    "gone": "model.lab.gone",
    "gone_test": "test.lab.gone.9",
}


def verdicts(which: str, **kwargs: Any) -> tuple[str, str]:
    found = gate(lab(), results(which, **kwargs))
    return tuple(f"{v.standing} {v.reason}".strip() for v in map(found.verdict, (A, B)))  # type: ignore[return-value]


def test_without_run_results_everything_may_sync() -> None:
    assert gate(lab(), None).verdict(A).standing == "ok"


ABSENT = "unbuilt not in the last `dbt build`"
COMMANDS: list[tuple[str, dict[str, str], str, str]] = [
    ("build", {"a": "success", "b": "success"}, "ok", "ok"),
    ("build", {"a": "success"}, "ok", ABSENT),
    ("build", {"a": "no-op", "b": "success"}, ABSENT, "ok"),
    ("run", {"a": "error", "b": "skipped"}, "blocked build failed", "blocked skipped by dbt"),
    ("build", {"a": "reused", "b": "partial success"}, "ok", "blocked build ended as partial success"),
    ("build", {"a": "success", "b": "mystery"}, "ok", "blocked build ended as mystery"),
    ("build", {"a": "success", "b": "success", "not_null": "fail"}, "blocked test failed: not_null_a", "ok"),
    ("build", {"a": "error", "b": "success", "not_null": "fail"}, "blocked build failed", "ok"),
    ("build", {"a": "success", "b": "success", "not_null": "warn"}, "ok", "ok"),
    ("build", {"a": "success", "b": "success", "not_null": "skipped"}, "ok", "ok"),
    ("build", {"a": "success", "b": "success", "relationships": "fail"}, "ok", "blocked test failed: relationships"),
    ("build", {"a": "success", "b": "success", "unit": "fail"}, "ok", "blocked test failed: sums"),
    ("build", {"a": "success", "b": "success", "hook": "error", "exposure": "no-op"}, "ok", "ok"),
    ("test", {"both": "fail"}, "blocked test failed: a_and_b", "blocked test failed: a_and_b"),
    (
        "test",
        {"not_null": "error"},
        "blocked test could not run: not_null_a",
        "unbuilt the last `dbt test` built nothing",
    ),
    ("compile", {"a": "success", "b": "error"}, *["unbuilt the last `dbt compile` built nothing"] * 2),
    ("generate", {"a": "success"}, *["unbuilt the last `dbt docs generate` built nothing"] * 2),
    ("show", {"a": "success"}, *["unbuilt the last `dbt show` built nothing"] * 2),
    ("retry", {"a": "success"}, "ok", "unbuilt not in the last `dbt retry`"),
]


@pytest.mark.parametrize("which, statuses, a, b", COMMANDS)
def test_the_last_command_decides(which: str, statuses: dict[str, str], a: str, b: str) -> None:
    assert verdicts(which, **statuses) == (a, b)


FLAGS = {"indirect_selection": "eager", "exclude": [], "resource_types": [], "exclude_resource_types": [], "select": []}
STOPPED = "blocked test did not run, since dbt was stopped before: {}"


@pytest.mark.parametrize(
    ("which", "changed", "a"),
    [
        ("build", {}, STOPPED.format("not_null_a")),
        ("build", {"select": ["a", "+tag:x"]}, STOPPED.format("not_null_a")),
        ("run", {}, "ok"),
        ("build", {"select": ["a,test_type:singular"]}, "ok"),
        ("build", {"exclude": ["test_type:generic"]}, "ok"),
        ("build", {"resource_types": ["model"]}, "ok"),
        ("build", {"exclude_resource_types": ["test"]}, "ok"),
        ("build", {"indirect_selection": "empty"}, "ok"),
        ("build", {"selector": "models_alone"}, "ok"),
    ],
)
def test_a_build_that_was_stopped_before_a_test_leaves_its_model_unfit(which: str, changed: Any, a: str) -> None:
    args = FLAGS | changed
    assert verdicts(which, args=args, a="success")[0] == a
    assert verdicts(which, args=args, a="success", b="success", not_null="pass", both="pass")[0] == "ok"
    assert verdicts(which, args=args, invocation="earlier", a="success")[0] == "ok", "the test may be new"
    assert verdicts(which, args=args, a="error")[0] == "blocked build failed"


def test_a_default_selector_may_leave_out_tests() -> None:
    read = results("build", args=FLAGS, a="success")
    assert gate(replace(lab(), has_selectors=True), read).verdict(A).standing == "ok"
    read = results("build", args=FLAGS | {"select": ["a"]}, a="success")
    assert gate(replace(lab(), has_selectors=True), read).verdict(A).standing == "blocked"


def test_a_test_that_fail_fast_left_out_is_no_pass() -> None:
    read = results("build", a="success", b="success", not_null="skipped", relationships="fail")
    read = replace(read, results=tuple(replace(each, message="Skipping due to fail_fast") for each in read.results))
    told = gate(lab(), read).verdict(A)
    assert told.is_blocked and told.reason == "test did not run, since --fail-fast ended dbt before: not_null_a"


@pytest.mark.parametrize("args", [{"empty": True}, {"sample": "3 days"}, {"sample": {"start": "2026-01-01"}}])
def test_empty_and_sample_builds_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(Refused) as raised:
        gate(lab(), results("build", args=args, a="success"))
    golden(f"gate_{'_'.join(args)}", told(raised.value))
    assert gate(lab(), results("compile", args=args)).verdict(A).standing == "unbuilt"
    assert gate(lab(), results("build", args={"empty": False, "sample": None}, a="success")).verdict(A).standing == "ok"


def test_a_manifest_that_was_only_written_again_is_nobodys_concern() -> None:
    found = gate(lab(), results("build", invocation="two", a="success", b="error"))
    assert (found.verdict(A).standing, found.verdict(B).standing) == ("ok", "blocked")
    assert found.notes == ()


def test_results_of_another_project_open_nothing_and_still_block() -> None:
    found = gate(lab(), results("build", invocation="two", a="success", b="error", gone="success", gone_test="fail"))
    assert (found.verdict(A).standing, found.verdict(B).standing) == ("unbuilt", "blocked")
    golden("gate_unknown_nodes", "".join(f"{note}\n" for note in found.notes))


def test_run_results_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run_results.json"
    assert load_run_results(path) is None
    said = ""
    for raw in ("{", "[]", json.dumps(document()), json.dumps(written({"status": "success"}))):
        path.write_text(raw)
        with pytest.raises(ConfigError) as raised:
            load_run_results(path)
        said += told(raised.value)
    golden("gate_files", said.replace(str(tmp_path), "<target>"))


def written(*found: Any) -> dict[str, Any]:
    return {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"},
        "args": {"which": "build"},
        "results": list(found),
    }


def placed(*places: tuple[str, str | None, str, str | None]) -> Manifest:
    """Models given as (schema, custom schema, database, custom database)."""
    return manifest(
        *(
            node(f"m{i}", schema=schema, database=database, config={"schema": custom, "database": custom_database})
            for i, (schema, custom, database, custom_database) in enumerate(places)
        )
    )


DEV = ConnectedTarget(database="dev", schema="main", target_name="dev", type="duckdb")


@pytest.mark.parametrize(
    "places, stops",
    [
        ([("main", None, "dev", None)], False),
        ([("MAIN", None, "DEV", None)], False),
        ([("main_marts", "marts", "dev", None)], False),
        ([("ada_marts", "marts", "dev", None)], True),
        ([("ada", None, "dev", None)], True),
        ([("main", None, "prod", None)], True),
        ([("main", None, "lake", "lake")], False),  # +database: says nothing about the target
        ([("marts", "marts", "dev", None)], False),  # generate_schema_name overridden: the custom name alone
        (
            [("x_marts", "marts", "dev", None), ("main", None, "dev", None)],
            False,
        ),  # one plain model that agrees is enough
        ([("x_marts", "marts", "dev", None), ("ada", None, "dev", None)], True),
        ([("ada_marts", "MARTS", "dev", None)], True),
        ([("main", None, "", None)], False),  # Spark: no database
        ([], False),
    ],
)
def test_relations_of_another_target_stop(places: list[Any], stops: bool) -> None:
    assert (target_check(placed(*places), None, DEV) is not None) == stops


def test_the_recorded_target_of_the_same_run_decides() -> None:
    elsewhere = placed(("ada", None, "other", None))
    assert target_check(elsewhere, results("build", args={"target": "dev"}), DEV) is None
    told_of: list[Problem | None] = [
        target_check(placed(("main", None, "dev", None)), results("build", args={"target": "prod"}), DEV),
        target_check(elsewhere, results("build", invocation="two", args={"target": "dev"}), DEV),
        target_check(placed(("ada", None, "dev", None)), results("build"), DEV),
        target_check(placed(), None, ConnectedTarget("dev", "main", "dev", "snowflake")),
    ]
    golden("target_check", "".join(f"{problem}\n" for problem in told_of))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from([*IDS.values(), "success", "fail"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["unique_id", "status", "which", "empty", "target"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, st.lists(VALUES, max_size=3))
def test_any_run_results_give_a_gate_or_an_error_of_ours(root: Any, args: Any, found: list[Any]) -> None:
    for value in (root, written(*found) | {"args": args}):
        try:
            gate(lab(), parse_run_results(value, "run_results.json"))
        except DinmoError as error:
            assert error.problems


# dbt 2 and several run results: written by hand after what is known of their files, not recorded


def reported(
    which: str, moment: str, *, version: str = "1.11.0", args: dict[str, Any] | None = None, **found: Any
) -> RunResults:
    """`found`: a status for each id, or the whole result."""
    rows = [
        {"unique_id": IDS.get(key, key), **(value if isinstance(value, dict) else {"status": value})}
        for key, value in found.items()
    ]
    metadata = {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
        "generated_at": moment,
        "invocation_id": "one",
        "dbt_version": version,
    }
    return parse_run_results({"metadata": metadata, "args": {"which": which} | (args or {}), "results": rows}, "r.json")


@pytest.mark.parametrize(
    ("status", "standing"),
    [("warn", "ok"), ("reused", "ok"), ("no-op", "unbuilt"), ("partial success", "blocked"), ("glorious", "blocked")],
)
def test_each_status_of_a_model_is_one_thing(status: str, standing: str) -> None:
    found = gate(lab(), reported("build", "2026-11-29T10:00:00Z", version="2.0.9", a=status)).verdict(A)
    assert found.standing == standing
    assert standing != "blocked" or status in found.reason


def test_a_test_that_ended_as_nobody_knows_is_no_pass() -> None:
    for status, standing in (
        ("glorious", "blocked"),
        ("pass", "ok"),
        ("warn", "ok"),
        ("reused", "ok"),
        ("no-op", "ok"),
    ):
        found = gate(lab(), reported("build", "2026-11-29T10:00:00Z", a="success", b="success", both=status)).verdict(A)
        assert found.standing == standing, status
        assert standing == "ok" or found.reason == "test ended as glorious: a_and_b"


def test_what_failed_in_a_command_that_nobody_knows_stays_blocked() -> None:
    told = {"a": "error", "b": "success", "both": "fail"}
    for args, standing in (
        ({"which": ""}, "blocked"),
        ({"which": "new"}, "blocked"),
        ({"which": "compile"}, "unbuilt"),
    ):
        found = gate(lab(), reported("", "2026-11-29T10:00:00Z", args=args, **told))
        assert (found.verdict(A).standing, found.verdict(B).standing) == (standing, standing)
    for args in ({"which": "", "command": "dbt build -s a"}, {"which": "", "command": "build"}):
        found = gate(lab(), reported("", "2026-11-29T10:00:00Z", args=args, a="success"))
        assert found.verdict(A).standing == "ok"
    found = gate(lab(), reported("", "2026-11-29T10:00:00Z", args={"which": ""}, a="success"))
    assert found.verdict(A).standing == "unbuilt"


PART = """select * from (select * from "dev"."main"."src" where at >= '2026-11-26 00:00:00+00:00' and
    at < '2026-11-29 00:00:00+00:00') _dbt_et_filter_subq_src"""
EMPTY = 'select * from (select * from "dev"."main"."src" where false limit 0) as src'


@pytest.mark.parametrize(
    ("args", "sql", "code"),
    [
        ({}, EMPTY, "DB451"),
        ({"command": "build --empty"}, "select 1", "DB451"),
        ({"command": "build --sample=3d"}, "select 1", "DB452"),
        ({}, PART, "DB452"),
        ({}, PART.replace("where at >=", "where cast(at as timestamp) >="), "DB452"),
        ({}, PART.replace(" 00:00:00+00:00", ""), ""),
        ({"empty": False}, EMPTY, ""),
        ({"sample": None}, PART, ""),
        ({}, "select * from src where false limit 0", ""),
    ],
)
def test_a_build_of_no_rows_is_known_by_its_sql_where_its_flags_are_not_noted(
    args: dict[str, Any], sql: str, code: str
) -> None:
    found = reported("build", "2026-11-29T10:00:00Z", args=args, a={"status": "success", "compiled_code": sql})
    if not code:
        assert gate(lab(), found).verdict(A).standing == "ok"
        return
    with pytest.raises(Refused) as raised:
        gate(lab(), found)
    assert raised.value.problems[0].code == code


def test_a_microbatch_model_is_no_sample() -> None:
    one = {"status": "success", "compiled_code": PART, "batch_results": {"successful": [], "failed": []}}
    assert gate(lab(), reported("build", "2026-11-29T10:00:00Z", a=one)).verdict(A).standing == "ok"


def test_a_table_without_rows_is_its_own_trouble_among_several_results() -> None:
    empty = reported("build", "2026-11-29T10:00:00Z", args={"empty": True}, a="success")
    other = reported("build", "2026-11-29T11:00:00Z", b="success")
    again = reported("build", "2026-11-29T12:00:00Z", a="success")
    found = gate(lab(), fold([empty, other]))
    assert (found.verdict(A).reason, found.verdict(B).standing) == ("built with --empty", "ok")
    assert gate(lab(), fold([again, empty, other])).verdict(A).standing == "ok"


def test_a_model_that_a_preview_leaves_out_may_have_failed() -> None:
    for version, standing in (("2.0.0-preview.45", "blocked"), ("2.0.0-beta.12", "unbuilt"), ("1.11.0", "unbuilt")):
        found = gate(lab(), reported("build", "2026-11-29T10:00:00Z", version=version, a="success"))
        assert (found.verdict(A).standing, found.verdict(B).standing) == ("ok", standing)


def test_several_results_are_folded_by_time() -> None:
    first = reported("run", "2026-11-29T10:00:00Z", a="error", b="success")
    tests = reported("test", "2026-11-29T10:05:00Z", both="fail")
    second = reported("run", "2026-11-29T10:10:00Z", a="success")
    shown = reported("show", "2026-11-29T10:20:00Z", a="success", b="error")
    for order in ([first, tests, second, shown], [shown, second, tests, first]):
        found = gate(lab(), fold(order))
        assert (found.verdict(A).standing, found.verdict(B).standing) == ("blocked", "blocked")
        assert found.verdict(A).reason == "test failed: a_and_b"
        found = gate(lab(), fold([each for each in order if each is not tests]))
        assert (found.verdict(A).standing, found.verdict(B).standing) == ("ok", "ok")
    assert fold([]) is None and fold([first]) is first


def named_by_a_macro(target: str, args: dict[str, Any], **macros: Any) -> Problem | None:
    read = document(node("a", schema="main_marts", relation_name='"dev"."main_marts"."a"'), macros=macros)
    results = reported("build", "2026-11-29T10:00:00Z", args={"log_path": "logs"} | args, a="success")
    connected = ConnectedTarget("dev", "main", target, "duckdb", default_target="dev")
    return target_check(parse_manifest(read, "manifest.json"), results, connected)


OWN = {"macro.lab.generate_schema_name": {}}


def test_where_the_project_names_schemas_itself_the_default_target_is_evidence() -> None:
    assert named_by_a_macro("dev", {}, **OWN) is None
    assert named_by_a_macro("dev", {}, **{"macro.util.default__generate_schema_name": {}}) is None
    assert named_by_a_macro("dev", {"target": "dev"}, **OWN) is None
    assert named_by_a_macro("dev", {"invocation_command": "dbt build -t dev"}) is None
    for target, args, macros in (
        ("prod", {}, OWN),
        ("dev", {"target": "prod"}, OWN),
        ("dev", {"invocation_command": "dbt build --target=prod"}, OWN),
        ("dev", {}, {"macro.dbt.generate_schema_name": {}}),
    ):
        problem = named_by_a_macro(target, args, **macros)
        assert problem is not None and f"--target {target}" in problem.hint
