"""Canonical values: exact, repeatable, and never a value that Salesforce would read as another."""

import datetime as dt
import math
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt import values
from dinmo_dbt.destination import Field
from dinmo_dbt.values import Reason


def field(kind, **more):
    return Field(name="F__c", label="F", type=kind, **more)


def one(array, kind, **more):
    result, reasons = values.canonical(array, field(kind, **more))
    return result.to_pylist(), [] if reasons is None else reasons.tolist()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-9.9e19, max_value=9.9e19), min_size=1))
def test_doubles_become_the_nearest_decimal_of_fifteen_digits(numbers):
    result, reasons = values.canonical(pa.array(numbers, pa.float64()), field("double"))
    assert reasons is None
    for number, decimal in zip(numbers, result.to_pylist(), strict=True):
        expected = Decimal(f"{number:.14e}") if abs(number) >= 1e-3 else None
        if expected is not None:
            assert decimal == expected, (number, decimal, expected)
        else:
            assert abs(decimal - Decimal(number)) <= max(Decimal("1e-18"), abs(Decimal(number)) * Decimal("1e-14"))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (19.99, "19.99"),
        (0.1 + 0.2, "0.3"),
        (1e16, "10000000000000000"),
        (9.99999999999999e15, "9999999999999990"),
        (123456789012.5, "123456789012.5"),
        (-0.0, "0"),
        (0.0, "0"),
        (1e-7, "0.0000001"),
        (-2.5e-9, "-0.0000000025"),
        (1e-18, "0.000000000000000001"),
        (99999999999999900000.0, "99999999999999900000"),
        (999999999999999.9, "1000000000000000"),
        (0.000012345, "0.000012345"),
    ],
)
def test_doubles_are_written_plainly(number, text):
    result, reasons = values.canonical(pa.array([number]), field("double"))
    assert reasons is None
    assert values.text(result, field("double")).to_pylist() == [text]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**19), max_value=10**19), min_size=1
    )
)
def test_decimals_stay_exact_and_are_written_without_exponent(numbers):
    result, reasons = values.canonical(pa.array(numbers, pa.decimal128(38, 18)), field("currency"))
    assert reasons is None
    for number, text in zip(numbers, values.text(result, field("currency")).to_pylist(), strict=True):
        assert "E" not in text
        assert "e" not in text
        assert Decimal(text) == number
        assert text == "0" or not text.endswith("0") or "." not in text


def test_numbers_that_cannot_be_sent_carry_their_reason():
    assert one(pa.array([1.0, math.nan, math.inf, 1e20, None]), "double")[1] == [
        0,
        Reason.NOT_FINITE,
        Reason.NOT_FINITE,
        Reason.NUMBER_RANGE,
        0,
    ]
    assert one(pa.array([1.5, 2.0, 3e9]), "int")[1] == [Reason.NOT_WHOLE, 0, Reason.NUMBER_RANGE]
    assert one(pa.array([999, 1000, -1000]), "double", precision=5, scale=2)[1] == [
        0,
        Reason.NUMBER_RANGE,
        Reason.NUMBER_RANGE,
    ]
    wide = pa.array([Decimal(10) ** 20, Decimal(7)], pa.decimal128(38, 0))
    assert one(wide, "double") == ([None, Decimal(7)], [Reason.NUMBER_RANGE, 0])
    fine = pa.array([Decimal("0.1234567890123456789"), Decimal("0.5")], pa.decimal128(38, 19))
    assert one(fine, "double")[1] == [Reason.NUMBER_SCALE, 0]


def test_integers_of_every_width_are_exact():
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()):
        assert one(pa.array([0, 1, 100, None], kind), "double") == ([0, 1, 100, None], [])
    assert one(pa.array([2**63 - 1, -(2**63)], pa.int64()), "double")[0] == [2**63 - 1, -(2**63)]


def test_empty_text_is_null_and_newlines_are_unix():
    assert one(pa.array(["", None, "a", "a\r\nb\rc\nd\te"]), "textarea") == ([None, None, "a", "a\nb\nc\nd\te"], [])


def test_text_that_cannot_be_sent_carries_its_reason():
    assert one(pa.array(["abc", "abcd", "éé", "😀😀😀"]), "string", length=3)[1] == [0, Reason.LENGTH, 0, 0]
    assert one(pa.array(["ok", "no\x00", "bell\x07"]), "string")[1] == [0, Reason.CONTROL, Reason.CONTROL]
    listed = {"restricted_picklist": True, "picklist": ("A", "B")}
    assert one(pa.array(["A", "b", None, "C"]), "picklist", **listed)[1] == [0, Reason.PICKLIST, 0, Reason.PICKLIST]
    several = pa.array(["A;B", "A;C", None, "B"])
    assert one(several, "multipicklist", **listed)[1] == [0, Reason.PICKLIST, 0, 0]
    assert one(pa.array([["A", "B"], None, []]), "multipicklist", **listed)[0] == ["A;B", None, None]


def test_ids_are_expanded_and_their_checksum_is_verified():
    good = "a00B000000FSjVUIA1"
    given_ids = pa.array([good, good[:15], good[:17] + "2", good[:15] + "ia1", "short", None, " " + good])
    result, reasons = one(given_ids, "reference")
    assert result == [good, good, None, good, None, None, good]
    assert reasons == [0, 0, Reason.ID_CHECKSUM, 0, Reason.ID_FORM, 0, 0]


def test_datetimes_floor_to_the_millisecond_and_naive_is_utc():
    before = dt.datetime(1969, 12, 31, 23, 59, 59, 999600)
    result, reasons = values.canonical(pa.array([before, None], pa.timestamp("us")), field("datetime"))
    assert reasons is None
    assert values.text(result, field("datetime")).to_pylist() == ["1969-12-31T23:59:59.999Z", None]
    paris = pa.array(
        [dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))], pa.timestamp("us", "Europe/Paris")
    )
    assert values.text(values.canonical(paris, field("datetime"))[0], field("datetime")).to_pylist() == [
        "2024-07-01T10:00:00.000Z"
    ]
    dates = pa.array([dt.date(2024, 2, 29)])
    assert values.text(values.canonical(dates, field("datetime"))[0], field("datetime")).to_pylist() == [
        "2024-02-29T00:00:00.000Z"
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.datetimes(min_value=dt.datetime(1700, 1, 1), max_value=dt.datetime(4000, 12, 31)), min_size=1))
def test_datetime_text_agrees_with_the_calendar(moments):
    result, reasons = values.canonical(pa.array(moments, pa.timestamp("us")), field("datetime"))
    assert reasons is None
    expected = [moment.isoformat(timespec="milliseconds") + "Z" for moment in moments]
    written = values.text(result, field("datetime"))
    assert written.to_pylist() == expected
    assert values.from_text(written, field("datetime")).equals(result)


def test_the_range_of_years_is_salesforces_own():
    edge = [dt.date(1699, 12, 31), dt.date(1700, 1, 1), dt.date(4000, 12, 31), dt.date(4001, 1, 1)]
    assert one(pa.array(edge), "date")[1] == [Reason.DATE_RANGE, 0, 0, Reason.DATE_RANGE]
    moments = [
        dt.datetime(1699, 12, 31, 23),
        dt.datetime(1700, 1, 1),
        dt.datetime(4000, 12, 31, 23),
        dt.datetime(4001, 1, 1),
    ]
    for unit in ("s", "ms", "us"):
        assert one(pa.array(moments, pa.timestamp(unit)), "datetime")[1] == [Reason.DATE_RANGE, 0, 0, Reason.DATE_RANGE]


def test_a_checkbox_has_no_null():
    assert one(pa.array([True, None, False]), "boolean")[0] == [True, False, False]
    kept, _ = values.canonical(pa.array([True, None]), field("boolean"), keep_nulls=True)
    assert kept.to_pylist() == [True, None]


def test_times_are_written_with_milliseconds():
    result, _ = values.canonical(pa.array([dt.time(23, 59, 59, 999999), None], pa.time64("us")), field("time"))
    assert values.text(result, field("time")).to_pylist() == ["23:59:59.999Z", None]


def test_salesforces_own_time_forms_are_read():
    given = pa.array(["08:00:00.000Z", "23:59:59.999Z", "07:08:09", "", None, "24:00:00.000Z", "noon"])
    read = values.from_text(given, Field("T__c", "T", "time"))
    assert read.cast(pa.int32()).to_pylist() == [28_800_000, 86_399_999, 25_689_000, None, None, None, None]


def test_salesforces_own_number_forms_are_read():
    text = pa.array(["9.12260031E8", "20.0", "#N/A", "", None, " 5 ", "x", "-1e-3"])
    expected = [Decimal(912260031), Decimal(20), None, None, None, Decimal(5), None, Decimal("-0.001")]
    assert values.from_text(text, field("double")).to_pylist() == expected


def test_salesforces_own_datetime_forms_are_read():
    text = pa.array(["2024-11-21T08:31:31.000+0000", "2024-11-21T08:31:31.000Z", "2024-11-21T10:31:31+02:00", "soon"])
    moment = dt.datetime(2024, 11, 21, 8, 31, 31, tzinfo=dt.UTC)
    assert values.from_text(text, field("datetime")).to_pylist() == [moment, moment, moment, None]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1),
    st.lists(st.one_of(st.none(), st.integers()), min_size=1),
)
def test_composite_keys_never_collide(texts, numbers):
    count = min(len(texts), len(numbers))
    numbers = [None if n is None else max(min(n, 2**62), -(2**62)) for n in numbers[:count]]
    keys = values.key_text([pa.array(texts[:count], pa.utf8()), pa.array(numbers, pa.int64())]).to_pylist()
    seen = {}
    for key, text, number in zip(keys, texts, numbers, strict=False):
        if text is None or not text.strip() or number is None:
            assert key is None or text.strip(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0") == "" or text
        else:
            assert seen.setdefault(key, (text, number)) == (text, number)


def test_dictionary_large_and_uuid_columns_are_plain_text():
    import uuid

    value = uuid.UUID("12345678-1234-5678-1234-567812345678")
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value.bytes, None, value.bytes], pa.binary(16)))
    assert one(array, "string")[0] == [str(value), None, str(value)]
    assert one(array.slice(2), "string")[0] == [str(value)]
    assert one(pa.array(["a", "b", "a"]).dictionary_encode(), "string")[0] == ["a", "b", "a"]
    assert one(pa.array(["a"], pa.large_utf8()), "string")[0] == ["a"]
    assert one(pa.array(["a"], pa.string_view()), "string")[0] == ["a"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (pa.utf8(), "double"),
        (pa.utf8(), "boolean"),
        (pa.int64(), "boolean"),
        (pa.utf8(), "date"),
        (pa.binary(), "string"),
        (pa.timestamp("us"), "date"),
        (pa.list_(pa.int64()), "multipicklist"),
        (pa.utf8(), "address"),
        (pa.duration("s"), "string"),
    ],
)
def test_impossible_pairs_are_refused_by_type(source, kind):
    assert values.why_not(source, field(kind))


def test_sliced_arrays_give_the_same_values():
    whole = pa.array(["x", "a\r\nb", "toolong", None, ""])
    assert one(whole.slice(1), "string", length=4) == (["a\nb", None, None, None], [0, Reason.LENGTH, 0, 0])
    numbers = pa.array([1.5, 2.25, None, 3.125])
    assert one(numbers.slice(1), "double")[0] == [Decimal("2.25"), None, Decimal("3.125")]
    moments = pa.array([0, 1_500_000, None], pa.timestamp("us")).slice(1)
    assert values.text(values.canonical(moments, field("datetime"))[0], field("datetime")).to_pylist() == [
        "1970-01-01T00:00:01.500Z",
        None,
    ]


def test_a_keys_text_does_not_depend_on_the_scale_of_its_column():
    numbers = [Decimal(1), Decimal(100), Decimal("2.5"), Decimal(0), Decimal(-10)]
    kinds = [pa.decimal128(10, 2), pa.decimal128(20, 6), pa.decimal128(38, 9), pa.decimal256(40, 1)]
    texts = [values.key_text([pa.array(numbers, kind)]).to_pylist() for kind in kinds]
    assert texts == [["1", "100", "2.5", "0", "-10"]] * len(kinds)
    assert values.key_text([pa.array([1, 100], pa.int64())]).to_pylist() == ["1", "100"]
    assert values.key_text([pa.array(numbers[:2], pa.decimal128(38, 0))]).to_pylist() == ["1", "100"]
