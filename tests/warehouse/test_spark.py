"""Spark's types and errors, without Spark: whole runs in a session are in tests/stand_ins."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pytest

from dinmo_dbt.rows.forms import type_name
from dinmo_dbt.warehouse.query import Cause
from dinmo_dbt.warehouse.spark import errors
from dinmo_dbt.warehouse.spark.columns import column_of


@dataclass(frozen=True)
class DataType:
    name: str
    elementType: DataType | None = None
    precision: int = 0
    scale: int = 0

    def typeName(self) -> str:
        return self.name


@dataclass(frozen=True)
class StructField:
    dataType: DataType
    name: str = "c"


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        (DataType("string"), pa.utf8()),
        (DataType("byte"), pa.int64()),
        (DataType("long"), pa.int64()),
        (DataType("float"), pa.float32()),
        (DataType("double"), pa.float64()),
        (DataType("decimal", precision=38, scale=9), pa.decimal128(38, 9)),
        (DataType("boolean"), pa.bool_()),
        (DataType("date"), pa.date32()),
        (DataType("timestamp"), pa.timestamp("us", "UTC")),
        (DataType("timestamp_ntz"), pa.timestamp("us")),
        (DataType("binary"), pa.binary()),
        (DataType("array", DataType("string")), pa.list_(pa.utf8())),
        (DataType("array", DataType("array", DataType("long"))), pa.list_(pa.list_(pa.int64()))),
    ],
)
def test_a_type_of_arrow_is_asked_for_as_it_is(kind: DataType, arrives: pa.DataType) -> None:
    column = column_of(StructField(kind))
    assert (column.field.type, column.asked, column.is_json) == (arrives, "`c`", False)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (DataType("variant"), "to_json(`c`) as `c`"),
        (DataType("array", DataType("variant")), "cast(`c` as string) as `c`"),
        (DataType("interval day to second"), "cast(`c` as string) as `c`"),
        (DataType("newest"), "cast(`c` as string) as `c`"),
        (DataType("void"), "cast(`c` as string) as `c`"),
    ],
)
def test_what_arrow_has_no_type_for_is_asked_for_as_text(kind: DataType, asked: str) -> None:
    column = column_of(StructField(kind))
    assert (column.field.type, type_name(column.field)) == (pa.utf8(), kind.name)
    assert (column.asked, column.is_json) == (asked, kind.name == "variant")


class SparkError(Exception):
    def __init__(self, condition: str | None) -> None:
        super().__init__("in Spark's words")
        self._condition = condition

    def getCondition(self) -> str | None:
        return self._condition


class Py4JJavaError(Exception):
    pass


class Py4JNetworkError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        (SparkError("TABLE_OR_VIEW_NOT_FOUND"), Cause.MISSING, "TABLE_OR_VIEW_NOT_FOUND"),
        (SparkError("INSUFFICIENT_PERMISSIONS.OF_ANY"), Cause.DENIED, "INSUFFICIENT_PERMISSIONS.OF_ANY"),
        (SparkError("DIVIDE_BY_ZERO"), Cause.OTHER, "DIVIDE_BY_ZERO"),
        (SparkError(None), Cause.OTHER, ""),
        (Py4JJavaError("not found"), Cause.OTHER, ""),
        (Py4JNetworkError("x"), Cause.LOST, ""),
    ],
)
def test_an_error_is_known_by_its_condition(error: Exception, cause: Cause, code: str) -> None:
    known = errors.read(error)
    assert known is not None
    assert (known.cause, known.code) == (cause, code)
    assert errors.read(ValueError("x")) is None
