"""A guessed activation: what is paired by name, what is left out and why, and that what is proposed is valid."""

from __future__ import annotations

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.config import meta
from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.errors import ConfigError
from dinmo_dbt.model import Model
from dinmo_dbt.rows.resolve import resolve
from dinmo_dbt.scaffold.proposal import ModelColumns, new_object_for, object_for, propose
from dinmo_dbt.scaffold.stub import api_name, stub

MODEL = Model("model.shop.dim_customers", "dim_customers", '"s"."dim"', "model", ("shop",), (), "m.sql")
PLACE = "m.yml: dim"


def schema(name: str, *fields: Field) -> ObjectSchema:
    return ObjectSchema(name, name.removesuffix("__c"), None, True, True, True, True, {f.name: f for f in fields})


ACCOUNT = schema(
    "Account",
    Field("Id", "Account ID", "id", length=18, createable=False, updateable=False),
    Field("Name", "Account Name", "string", length=255, nillable=False),
    Field("Number__c", "Number", "string", length=20, external_id=True, unique=True),
)
CUSTOMER = schema(
    "Customer__c",
    Field("Id", "Record ID", "id", length=18, createable=False, updateable=False),
    Field("Name", "Customer Name", "string", length=80),
    Field("Customer_Id__c", "Customer Id", "string", length=20, external_id=True, unique=True),
    Field("MRR__c", "Monthly Revenue", "currency", precision=18, scale=2),
    Field("acme__Plan__c", "Plan", "picklist", picklist=("Free",)),
    Field("Account__c", "Account", "reference", reference_to=("Account",), relationship_name="Account__r"),
    Field("Total__c", "Total", "double", precision=18, createable=False, updateable=False, calculated=True),
    Field("Since__c", "Since", "date"),
    Field("Region__c", "Region", "string", length=20, nillable=False),
)


def parent(name: str) -> ObjectSchema:
    return {"Account": ACCOUNT}[name]


TYPES = pa.schema(
    {
        "customer_id": pa.string(), "customer_name": pa.string(), "monthly_revenue": pa.decimal128(12, 2),
        "plan": pa.string(), "number": pa.string(), "total": pa.float64(), "since": pa.binary(),
        "loaded_at": pa.timestamp("us"),
    }
)  # fmt: skip


def test_columns_are_paired_by_name_label_object_and_parent() -> None:
    made = propose(
        MODEL, PLACE, ModelColumns(tuple(TYPES.names), TYPES), CUSTOMER, parent, key=("customer_id",), destination="crm"
    )
    assert made.block == {
        "key": ["customer_id"],
        "activation": {
            "destination": "crm", "object": "Customer__c", "mode": "upsert", "match": {"customer_id": "Customer_Id__c"},
            "fields": {
                "customer_name": "Name", "monthly_revenue": "MRR__c", "plan": "acme__Plan__c",
                "number": "Account__r.Number__c",
            },
        },
    }  # fmt: skip
    left = dict(made.unmapped)
    assert left.keys() == {"total", "since", "loaded_at"}
    assert left["loaded_at"] == "no field of Customer__c has its name"
    assert left["since"].startswith("Since__c: "), "the reason of `plan`: bytes are no date"
    assert made.required == ("Customer__c.Region__c",)


def test_the_lines_are_the_block() -> None:
    made = propose(
        MODEL, PLACE, ModelColumns(tuple(TYPES.names), TYPES), CUSTOMER, parent, key=("customer_id",), destination="crm"
    )
    read = yaml.safe_load("\n".join(made.lines()))["dinmo"]
    assert {**read, "key": [read["key"]]} == made.block
    assert [line for line in made.lines() if len(line) > 112] == [], "inside a file it stands 8 deeper"


def test_without_an_external_id_of_that_name_the_choices_are_named() -> None:
    with pytest.raises(ConfigError) as refused:
        propose(MODEL, PLACE, ModelColumns(("id", "name")), CUSTOMER, parent, key=("id",), destination="crm")
    (problem,) = refused.value.problems
    assert problem.code == "DB819"
    assert "--match COLUMN=Customer_Id__c" in problem.hint and "--mode insert" in problem.hint


def test_what_the_user_chose_is_taken_or_refused_as_validate_would() -> None:
    chosen = propose(
        MODEL,
        PLACE,
        ModelColumns(("id", "name")),
        CUSTOMER,
        parent,
        key=("id",),
        destination="crm",
        match={"id": "Customer_Id__c"},
    )
    assert chosen.block["activation"]["match"] == {"id": "Customer_Id__c"}  # type: ignore[index]
    with pytest.raises(ConfigError) as refused:
        propose(
            MODEL,
            PLACE,
            ModelColumns(("id", "name")),
            CUSTOMER,
            parent,
            key=("id",),
            destination="crm",
            match={"id": "Nope__c"},
        )
    assert refused.value.problems[0].code == "DB302"


def test_a_field_that_is_read_only_is_the_reason_and_a_model_of_its_key_alone_has_no_fields() -> None:
    made = propose(
        MODEL, PLACE, ModelColumns(("customer_id", "total")), CUSTOMER, parent, key=("customer_id",), destination="crm"
    )
    assert dict(made.unmapped)["total"].startswith("Total__c: ")
    assert "fields" not in yaml.safe_load("\n".join(made.lines()))["dinmo"]["activation"]
    with pytest.raises(ConfigError) as refused:
        propose(MODEL, PLACE, ModelColumns(("id",)), CUSTOMER, parent, key=("id",), destination="crm", mode="insert")
    assert "org fields Customer__c" in refused.value.problems[0].hint


def test_one_of_several_key_columns_identifies_no_record() -> None:
    names = ModelColumns(("customer_id", "region"))
    with pytest.raises(ConfigError) as refused:
        propose(MODEL, PLACE, names, CUSTOMER, parent, key=names.names, destination="crm")
    assert "join them to one column" in refused.value.problems[0].hint
    joined = ModelColumns(("customer", "region", "customer_id"))
    made = propose(MODEL, PLACE, joined, CUSTOMER, parent, key=("customer", "region"), destination="crm")
    assert made.block["activation"]["match"] == {"customer_id": "Customer_Id__c"}  # type: ignore[index]


def test_of_a_snapshot_the_current_rows_are_sent() -> None:
    made = propose(
        MODEL, PLACE, ModelColumns(("customer_id", "region")), CUSTOMER, parent, key=("customer_id",),
        destination="crm", where="dbt_valid_to is null",
    )  # fmt: skip
    written = yaml.safe_load("\n".join(made.lines()))["dinmo"]
    assert {**written, "key": [written["key"]]} == made.block
    assert written["activation"]["where"] == "dbt_valid_to is null"


def test_a_stub_takes_the_field_that_the_match_names() -> None:
    made = stub("Customer__c", pa.schema([("mail", pa.string())]), {"mail": "E_Mail__c"}, "the command")
    assert made.schema.fields["E_Mail__c"].external_id
    assert "the command --object Customer__c" in made.text


def test_an_insert_needs_no_match() -> None:
    made = propose(
        MODEL, PLACE, ModelColumns(("id", "name")), CUSTOMER, parent, key=("id",), destination="crm", mode="insert"
    )
    assert made.block["activation"] == {
        "destination": "crm", "object": "Customer__c", "mode": "insert", "fields": {"name": "Name"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "named"),
    [("dim_customers", "Customer__c"), ("customer", "Customer__c"), ("fct_product_entries", "Product_Entry__c"),
     ("mart_accounts", "Account"), ("orders", None)],
)  # fmt: skip
def test_an_object_is_found_by_the_models_name(model: str, named: str | None) -> None:
    assert object_for(model, ["Account", "Customer__c", "Product_Entry__c", "Contact"]) == named


def test_of_two_objects_of_one_name_none_is_guessed() -> None:
    assert object_for("accounts", ["Account", "Account__c"]) is None


def test_names_of_new_objects_and_fields_are_salesforces() -> None:
    assert new_object_for("dim_customers") == "Customer__c"
    assert api_name("customer_id") == "Customer_Id__c"
    assert api_name("2nd order %") == "X2nd_Order__c"
    assert len(api_name("very_" * 20)) <= 43


_COLUMN = st.tuples(
    st.from_regex(r"[A-Za-z0-9_ %é]{1,12}", fullmatch=True),
    st.sampled_from(
        [pa.string(), pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 10), pa.bool_(), pa.date32(),
         pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.time64("us"), pa.binary(), pa.list_(pa.string())]
    ),
)  # fmt: skip


@given(st.lists(_COLUMN, min_size=1, max_size=6, unique_by=lambda c: c[0]))
def test_a_stub_of_any_model_gives_a_valid_activation(columns: list[tuple[str, pa.DataType]]) -> None:
    relation = pa.schema(
        [("customer_id", pa.string()), ("customer_name", pa.string()), *((f"c {n}", t) for n, t in columns)]
    )
    made = stub("Customer__c", relation, {"customer_id": "Customer_Id__c"}, "dinmo-dbt emulator import")
    proposal = propose(
        MODEL,
        PLACE,
        ModelColumns(tuple(relation.names), relation),
        made.schema,
        parent,
        key=("customer_id",),
        destination="crm",
    )
    (activation,) = meta.resolve(yaml.safe_load("\n".join(proposal.lines()))["dinmo"], MODEL, PLACE, {}).activations
    assert resolve(activation, made.schema, parent, relation)[1] == ()
    assert set(yaml.safe_load(made.text)["objects"]["Customer__c"]["fields"]) == made.schema.fields.keys() - {"Name"}
