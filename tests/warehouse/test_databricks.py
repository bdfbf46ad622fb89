"""Databricks' types and errors, without its connector: its own classes are run in tests/stand_ins."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dinmo_dbt.rows.forms import type_name
from dinmo_dbt.warehouse.databricks import errors
from dinmo_dbt.warehouse.databricks.columns import column_of
from dinmo_dbt.warehouse.query import Cause


@pytest.mark.parametrize(
    ("written", "kind", "name"),
    [
        ("boolean", pa.bool_(), "boolean"),
        ("tinyint", pa.int64(), "whole number"),
        ("BIGINT", pa.int64(), "whole number"),
        ("float", pa.float32(), "float"),
        ("decimal(10,2)", pa.decimal128(10, 2), "decimal(2)"),
        ("decimal(38, 0)", pa.decimal128(38, 0), "decimal(0)"),
        ("string", pa.utf8(), "text"),
        ("varchar(20)", pa.utf8(), "text"),
        ("string collate UNICODE", pa.utf8(), "text"),
        ("timestamp", pa.timestamp("us", "UTC"), "timestamp with time zone"),
        ("timestamp_ntz", pa.timestamp("us"), "timestamp"),
        ("interval day to second", pa.utf8(), "interval"),
        ("void", pa.null(), "null"),
    ],
)
def test_a_described_column_has_one_type(written: str, kind: pa.DataType, name: str) -> None:
    column = column_of("c", written)
    assert (column.field.type, type_name(column.field), column.is_json) == (kind, name, False)


@pytest.mark.parametrize("written", ["array<string>", "map<string,int>", "struct<a:int,b:array<date>>", "variant"])
def test_what_is_nested_is_json(written: str) -> None:
    column = column_of("c", written)
    assert (column.field.type, column.is_json) == (pa.utf8(), True)


class ServerOperationError(Exception):
    __module__ = "databricks.sql.exc"


class RequestError(Exception):
    __module__ = "databricks.sql.exc"


@pytest.mark.parametrize(
    ("text", "cause", "code"),
    [
        ("[TABLE_OR_VIEW_NOT_FOUND] The table or view `a` cannot be found.", Cause.MISSING, "TABLE_OR_VIEW_NOT_FOUND"),
        ("[INSUFFICIENT_PERMISSIONS] Insufficient privileges", Cause.DENIED, "INSUFFICIENT_PERMISSIONS"),
        ("[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column", Cause.OTHER, "UNRESOLVED_COLUMN"),
        ("[SECRET_OF_A_ROW] x", Cause.OTHER, ""),
        ("a value [TABLE_OR_VIEW_NOT_FOUND] x", Cause.OTHER, ""),
    ],
)
def test_an_error_is_known_by_the_class_at_its_head(text: str, cause: Cause, code: str) -> None:
    known = errors.read(ServerOperationError(text))
    assert known is not None
    assert (known.cause, known.code) == (cause, code)


def test_a_connection_that_broke_is_lost_and_others_errors_are_not_known() -> None:
    assert errors.read(RequestError("in its words")) == errors.KnownError(Cause.LOST)
    assert errors.read(ValueError("[TABLE_OR_VIEW_NOT_FOUND] x")) is None
