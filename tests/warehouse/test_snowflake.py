"""Snowflake's types and errors, without its connector: whole runs against a stand-in are in tests/stand_ins."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dinmo_dbt.rows.forms import type_name
from dinmo_dbt.warehouse.query import Cause
from dinmo_dbt.warehouse.snowflake import errors
from dinmo_dbt.warehouse.snowflake.columns import column_of


@pytest.mark.parametrize(
    ("code", "precision", "scale", "kind", "asked"),
    [
        (0, 38, 0, pa.decimal128(38, 0), '"C"'),
        (0, 18, 0, pa.int64(), '"C"'),
        (0, 38, 38, pa.decimal128(38, 38), '"C"'),
        (0, None, None, pa.utf8(), 'cast("C" as varchar)'),
        (1, None, None, pa.float64(), '"C"'),
        (2, None, None, pa.utf8(), '"C"'),
        (3, None, None, pa.date32(), '"C"'),
        (5, None, None, pa.utf8(), '"C"'),
        (6, 0, 9, pa.timestamp("us", "UTC"), 'cast("C" as timestamp_ltz(6))'),
        (7, 0, 7, pa.timestamp("us", "UTC"), 'cast("C" as timestamp_tz(6))'),
        (8, 0, 9, pa.timestamp("us"), 'cast("C" as timestamp_ntz(6))'),
        (8, 0, 3, pa.timestamp("us"), '"C"'),
        (11, None, None, pa.binary(), '"C"'),
        (12, 0, 9, pa.time64("us"), '"C"'),
        (13, None, None, pa.bool_(), '"C"'),
        (14, None, None, pa.utf8(), '"C"'),
        (20, None, None, pa.utf8(), 'cast("C" as varchar)'),
        (99, None, None, pa.utf8(), '"C"'),
    ],
)
def test_a_described_column_has_one_type(
    code: int, precision: int | None, scale: int | None, kind: pa.DataType, asked: str
) -> None:
    column = column_of(("C", code, None, None, precision, scale, True))
    assert (column.field.type, column.asked) == (kind, asked)
    assert column.is_json == (code == 5)


def test_a_name_is_quoted_and_an_interval_is_no_plain_text() -> None:
    column = column_of(('a"b', 19, None, None, None, None, True))
    assert column.asked == 'cast("a""b" as varchar)'
    assert type_name(column.field) == "interval"


class Refused(Exception):
    def __init__(self, errno: object) -> None:
        super().__init__("in the driver's words")
        self.errno = errno


@pytest.mark.parametrize(
    ("errno", "cause", "said"),
    [
        (2003, Cause.MISSING, ""),
        (3001, Cause.DENIED, ""),
        (606, Cause.OTHER, "no virtual warehouse"),
        (90073, Cause.OTHER, "no virtual warehouse"),
        (390114, Cause.LOST, "expired"),
        (252010, Cause.LOST, ""),
        (100038, Cause.OTHER, ""),
    ],
)
def test_an_error_is_known_by_its_number(errno: int, cause: Cause, said: str) -> None:
    known = errors.read(Refused(errno))
    assert known is not None
    assert (known.cause, known.code) == (cause, f"{errno:06}")
    assert said in known.message


@pytest.mark.parametrize("errno", [None, -1, "2003"])
def test_an_error_without_a_number_is_not_known(errno: object) -> None:
    assert errors.read(Refused(errno)) is None
