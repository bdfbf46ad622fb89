"""Redshift's types and errors, without its driver: whole runs against a stand-in are in tests/stand_ins."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dinmo_dbt.rows.forms import type_name
from dinmo_dbt.warehouse.dbapi import WIDE_DECIMAL
from dinmo_dbt.warehouse.query import Cause
from dinmo_dbt.warehouse.redshift import errors
from dinmo_dbt.warehouse.redshift.columns import column_of


@pytest.mark.parametrize(
    ("oid", "modifier", "kind", "name"),
    [
        (16, -1, pa.bool_(), "boolean"),
        (23, -1, pa.int64(), "whole number"),
        (700, -1, pa.float32(), "float"),
        (1700, (18 << 16) + 4 + 4, pa.decimal128(18, 4), "decimal(4)"),
        (1700, (38 << 16) + 37 + 4, pa.decimal128(38, 37), "decimal(37)"),
        (1700, -1, WIDE_DECIMAL, "decimal(38)"),
        (1043, 24, pa.utf8(), "text"),
        (1042, 24, pa.utf8(), "text"),
        (1184, -1, pa.timestamp("us", "UTC"), "timestamp with time zone"),
        (1266, -1, pa.utf8(), "timetz"),
        (4000, -1, pa.utf8(), "text"),
        (6551, -1, pa.utf8(), "varbyte"),
        (99999, -1, pa.utf8(), "text"),
    ],
)
def test_a_described_column_has_one_type(oid: int, modifier: int, kind: pa.DataType, name: str) -> None:
    column = column_of({"label": "é".encode(), "type_oid": oid, "type_modifier": modifier})
    assert (column.field.name, column.field.type, type_name(column.field)) == ("é", kind, name)
    assert (column.is_json, column.is_padded) == (oid == 4000, oid == 1042)


class ProgrammingError(Exception):
    __module__ = "redshift_connector.error"


class InterfaceError(Exception):
    __module__ = "redshift_connector.error"


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("42P01", Cause.MISSING),
        ("42501", Cause.DENIED),
        ("57P01", Cause.LOST),
        ("22P02", Cause.OTHER),
        ("XX000", Cause.OTHER),
    ],
)
def test_a_server_s_error_is_known_by_its_sqlstate(state: str, cause: Cause) -> None:
    known = errors.read(ProgrammingError({"S": "ERROR", "C": state, "M": "in its words", "P": "9"}))
    assert known is not None
    assert (known.cause, known.code, known.text, known.position) == (cause, state, "in its words", 8)


def test_an_error_of_the_connection_has_no_fields() -> None:
    assert errors.read(InterfaceError("BrokenPipe: server socket closed")) == errors.KnownError(Cause.LOST)
    assert errors.read(ProgrammingError("attempting to use unexecuted cursor")) is None
    assert errors.read(ValueError({"C": "42P01"})) is None
