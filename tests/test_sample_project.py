"""The sample project builds offline, changes on day 2 by exactly what its README says, and fits its org's fields."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

SAMPLE = Path(__file__).parent.parent / "sample_dbt_project"
OBJECTS = SAMPLE / "force-app" / "main" / "default" / "objects"
SOAP = {"m": "http://soap.sforce.com/2006/04/metadata"}
KEYS = {
    "dim_customers": "customer_id",
    "fct_subscriptions": "subscription_id",
    "dim_accounts": "domain",
    "fct_product_events": "event_id",
}
BUILT = shutil.ignore_patterns("target", "logs", ".dinmo", "*.duckdb", "*.duckdb.wal")


@dataclass(frozen=True, slots=True)
class Build:
    """What one `dbt build` left: its marts, its schema and its output."""

    marts: dict[str, pa.Table]
    types: dict[str, dict[str, str]]
    output: str


@dataclass(frozen=True, slots=True)
class Field:
    type: str
    length: int | None = None
    precision: int = 0
    scale: int = 0
    unique: bool = False
    values: tuple[str, ...] = ()


STANDARD = {  # the fields that are not in force-app
    ("Account", "Website"): Field("Url"),
    ("Account", "NumberOfEmployees"): Field("Int"),
    ("Customer__c", "Name"): Field("Text", length=80),
}
LENGTHS = {"Email": 80, "Phone": 40, "Url": 255, "TextArea": 255}
EXPECTED_TYPES = {  # in DuckDB's words; what each column's field can take without losing anything
    "Text": {"VARCHAR"},
    "Email": {"VARCHAR"},
    "Phone": {"VARCHAR"},
    "Url": {"VARCHAR"},
    "LongTextArea": {"VARCHAR"},
    "Picklist": {"VARCHAR"},
    "MultiselectPicklist": {"VARCHAR"},
    "Checkbox": {"BOOLEAN"},
    "Int": {"INTEGER"},
    "Number": {"INTEGER", "DOUBLE"},
    "Currency": {"DECIMAL(12,2)"},
    "Percent": {"DECIMAL(5,2)"},
    "Date": {"DATE"},
    "DateTime": {"TIMESTAMP"},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path_factory.mktemp("sample") / "project", ignore=BUILT))


@pytest.fixture(scope="module")
def day_1(project: Path) -> Build:
    return build(project, day=1)


@pytest.fixture(scope="module")
def day_2(project: Path, day_1: Build) -> Build:
    return build(project, day=2)


def build(project: Path, *, day: int) -> Build:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DBT_")}
    ran = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", "build", "--no-use-colors", "--show-all-deprecations"]
        + ([] if day == 1 else ["--vars", f"{{day: {day}}}"]),
        cwd=project,
        env=environment | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with duckdb.connect(str(project / "warehouse.duckdb"), read_only=True) as connection:
        marts = {
            name: connection.sql(f"select * from {name} order by {key}").to_arrow_table() for name, key in KEYS.items()
        }
        types = {name: {row[0]: row[1] for row in connection.sql(f"describe {name}").fetchall()} for name in KEYS}
    return Build(marts, types, ran.stdout)


def declared() -> list[tuple[dict, dict]]:
    """Each activation with the model that declares it."""
    models = yaml.safe_load((SAMPLE / "models" / "marts" / "marts.yml").read_text())["models"]
    return [(model, activation) for model in models for activation in model["config"]["meta"]["dinmo"]["activations"]]


def mapped(activation: dict) -> dict[str, str]:
    """Column to field, the match included."""
    fields = {c: f if isinstance(f, str) else f["field"] for c, f in activation["fields"].items()}
    return activation.get("match", {}) | fields


def field(object_name: str, name: str) -> Field:
    """The field as force-app describes it; for a parent's external id, that field of the parent."""
    if "." in name:
        relationship, name = name.split(".")
        lookup = xml(object_name, relationship.replace("__r", "__c"))
        assert lookup.findtext("m:type", namespaces=SOAP) == "Lookup"
        object_name = str(lookup.findtext("m:referenceTo", namespaces=SOAP))
        assert xml(object_name, name).findtext("m:externalId", namespaces=SOAP) == "true"
    if (object_name, name) in STANDARD:
        return STANDARD[object_name, name]
    described = xml(object_name, name)
    kind = str(described.findtext("m:type", namespaces=SOAP))
    length = described.findtext("m:length", namespaces=SOAP)
    return Field(
        kind,
        length=int(length) if length else LENGTHS.get(kind),
        precision=int(described.findtext("m:precision", "0", SOAP)),
        scale=int(described.findtext("m:scale", "0", SOAP)),
        unique=described.findtext("m:unique", namespaces=SOAP) == "true",
        values=tuple(
            str(value.findtext("m:fullName", namespaces=SOAP)) for value in described.iterfind(".//m:value", SOAP)
        ),
    )


def xml(object_name: str, name: str) -> ET.Element:
    described = ET.parse(OBJECTS / object_name / "fields" / f"{name}.field-meta.xml").getroot()
    assert described.tag == f"{{{SOAP['m']}}}CustomField"
    assert described.findtext("m:fullName", namespaces=SOAP) == name
    return described


def problem(value: object, target: Field) -> str | None:
    """Why Salesforce would refuse or alter the value, if it would."""
    match value:
        case None:
            return None
        case str():
            if target.length and len(value.encode("utf-16-le")) // 2 > target.length:
                return "too long"
            if value != value.strip() or "\r" in value or value == "":
                return "would be trimmed"
            given = value.split(";") if target.type == "MultiselectPicklist" else [value]
            if target.values and not set(given) <= set(target.values):
                return "not in the picklist"
            if target.type == "Email" and not re.fullmatch(r"[a-z0-9.-]+@[a-z0-9-]+\.example", value):
                return "not a lower-case address"
        case bool() | date() | datetime():
            return None
        case int() | float() | Decimal():
            whole, _, part = str(abs(value)).partition(".")
            limit = target.precision - target.scale if target.precision else 8
            if len(whole) > limit or (isinstance(value, Decimal) and len(part) > target.scale):
                return "out of range"
    return None


def test_both_days_build_without_a_warning(day_1: Build, day_2: Build) -> None:
    for output in (day_1.output, day_2.output):
        assert re.search(r"PASS=\d+ WARN=0 ERROR=0 SKIP=0", output)
        assert "deprecat" not in output.lower() and "[WARNING]" not in output


def test_day_1_has_the_documented_row_counts(day_1: Build) -> None:
    assert {name: mart.num_rows for name, mart in day_1.marts.items()} == {
        "dim_customers": 1200,
        "fct_subscriptions": 1500,
        "dim_accounts": 120,
        "fct_product_events": 2300,
    }


@pytest.mark.parametrize(
    ("mart", "new", "changed"),
    [
        ("dim_customers", 25, 40),
        ("fct_subscriptions", 15, 30),
        ("dim_accounts", 0, 10),
        ("fct_product_events", 48, 10),
    ],
)
def test_day_2_differs_by_exactly_the_documented_rows(
    day_1: Build, day_2: Build, mart: str, new: int, changed: int
) -> None:
    before, after = (by_key(day.marts[mart], KEYS[mart]) for day in (day_1, day_2))
    assert before.keys() <= after.keys()
    assert len(after.keys() - before.keys()) == new
    assert sum(before[key] != after[key] for key in before) == changed


def test_the_active_segment_on_day_2_gains_10_changes_26_and_loses_4(day_1: Build, day_2: Build) -> None:
    before, after = (
        by_key(mart.filter(pc.equal(mart["status"], "active")), "subscription_id")
        for mart in (day_1.marts["fct_subscriptions"], day_2.marts["fct_subscriptions"])
    )
    assert len(after.keys() - before.keys()) == 10
    assert len(before.keys() - after.keys()) == 4
    assert sum(before[key] != after[key] for key in before.keys() & after.keys()) == 26


@pytest.mark.slow
def test_a_second_build_of_a_day_gives_the_same_rows(project: Path, day_1: Build, day_2: Build) -> None:
    assert build(project, day=1).marts == day_1.marts


@pytest.mark.parametrize(("model", "activation"), declared(), ids=lambda it: it["name"])
def test_mapped_columns_are_documented_and_have_their_fields_type(day_1: Build, model: dict, activation: dict) -> None:
    documented = {column["name"] for column in model["columns"]}
    assert documented == set(day_1.types[model["name"]])
    assert all(column.get("description") for column in model["columns"])
    for column, name in mapped(activation).items():
        target = field(activation["object"], name)
        assert day_1.types[model["name"]][column] in EXPECTED_TYPES[target.type], (column, name)


@pytest.mark.parametrize(("model", "activation"), declared(), ids=lambda it: it["name"])
def test_every_value_is_one_that_its_field_takes(day_1: Build, day_2: Build, model: dict, activation: dict) -> None:
    for day in (day_1, day_2):
        for column, name in mapped(activation).items():
            target = field(activation["object"], name)
            values = day.marts[model["name"]][column].unique().to_pylist()
            assert [(value, why) for value in values if (why := problem(value, target))] == []


def test_constants_fit_their_fields() -> None:
    for _, activation in declared():
        for name, value in activation.get("constants", {}).items():
            assert problem(value, field(activation["object"], name)) is None


@pytest.mark.parametrize("day", ["day_1", "day_2"])
@pytest.mark.parametrize(("model", "activation"), declared(), ids=lambda it: it["name"])
def test_keys_and_match_values_are_unique(
    request: pytest.FixtureRequest, day: str, model: dict, activation: dict
) -> None:
    mart = request.getfixturevalue(day).marts[model["name"]]
    for column in {model["config"]["meta"]["dinmo"]["key"], *activation.get("match", {})}:
        folded = [value.strip().lower() for value in mart[column].to_pylist()]
        assert len(set(folded)) == len(folded) and all(folded)


def test_inserts_map_no_unique_field() -> None:
    activation = next(activation for _, activation in declared() if activation["mode"] == "insert")
    own_fields = [name for name in mapped(activation).values() if "." not in name]
    assert not any(field(activation["object"], name).unique for name in own_fields)


def test_children_name_customers_that_are_synced(day_1: Build, day_2: Build) -> None:
    for day in (day_1, day_2):
        customers = set(day.marts["dim_customers"]["customer_id"].to_pylist())
        for mart in ("fct_subscriptions", "fct_product_events"):
            assert set(day.marts[mart]["customer_id"].to_pylist()) <= customers


def test_salesforce_starts_with_105_of_the_120_accounts_and_5_others(day_1: Build, day_2: Build) -> None:
    with (SAMPLE / "emulator_records" / "Account.csv").open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    websites = {record["Website"] for record in records}
    domains = set(day_1.marts["dim_accounts"]["domain"].to_pylist())
    assert len(records) == len(websites) == 110
    assert len(domains & websites) == 105 and len(domains - websites) == 15
    before, after = (by_key(day.marts["dim_accounts"], "domain") for day in (day_1, day_2))
    assert {domain for domain in domains if before[domain] != after[domain]} <= websites


def test_some_customers_carry_values_that_are_easily_broken(day_1: Build) -> None:
    text = "".join(
        value or ""
        for column in ("workspace_name", "contact_name", "notes")
        for value in day_1.marts["dim_customers"][column].to_pylist()
    )
    assert all(sign in text for sign in ('"', "'", ",", "\n", "é", "Ł", "🌿"))


def test_the_permission_set_opens_every_mapped_custom_field() -> None:
    path = SAMPLE / "force-app/main/default/permissionsets/Dinmo_Dbt_Sync.permissionset-meta.xml"
    opened = {element.text for element in ET.parse(path).iterfind("m:fieldPermissions/m:field", SOAP)}
    in_tree = {f"{file.parts[-3]}.{file.name.split('.')[0]}" for file in OBJECTS.glob("*/fields/*.xml")}
    assert opened == in_tree


def test_custom_objects_have_what_a_deployment_requires() -> None:
    for path in OBJECTS.glob("*/*.object-meta.xml"):
        described = ET.parse(path).getroot()
        assert described.tag == f"{{{SOAP['m']}}}CustomObject"
        for name in ("label", "pluralLabel", "deploymentStatus", "sharingModel", "nameField/m:type"):
            assert described.findtext(f"m:{name}", namespaces=SOAP), (path.name, name)
    assert len(list(OBJECTS.glob("*/*.object-meta.xml"))) == 3


def test_the_project_is_small_and_has_no_links(tmp_path: Path) -> None:
    copied = shutil.copytree(SAMPLE, tmp_path / "copy", ignore=BUILT, symlinks=True)
    files = list(Path(copied).rglob("*"))
    assert not any(file.is_symlink() for file in files)
    assert sum(file.stat().st_size for file in files if file.is_file()) < 300_000


def by_key(mart: pa.Table, key: str) -> dict[str, dict]:
    return {row[key]: row for row in mart.to_pylist()}
