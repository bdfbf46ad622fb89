"""Canonical values: exact, repeatable, and never a value that Salesforce would read as another."""

import datetime as dt
import itertools
import math
import operator
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import values
from dinmo_dbt.rows.arrow import DATETIME, DECIMAL, TIME
from dinmo_dbt.rows.field_types import TYPES
from dinmo_dbt.rows.forms import TYPE_IN_WAREHOUSE, in_form, key_form, text_form, type_name
from dinmo_dbt.rows.keys import key_in_forms, key_text, why_not_key
from dinmo_dbt.rows.numbers import _long_decimal_text, decimal_text, exact_from_text
from dinmo_dbt.rows.numbers import constant as number_constant
from dinmo_dbt.rows.reasons import Reason, unreadable, unreadable_mark, why_unfit
from dinmo_dbt.rows.texts import unix_newlines


def field(kind, **more):
    return Field(name="F__c", label="F", type=kind, **more)


def one(array, kind, **more):
    result, reasons = values.canonical(array, field(kind, **more))
    return result.to_pylist(), [] if reasons is None else reasons.tolist()


@pytest.mark.slow
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


# Doubles so near to the middle between two decimals that the error of a product, and of its parts, decides.
TIES = [430024714.7426825, 72977208.97307014, 46.51290718020725, 4.170488926584155e19, 5.728354535593735e17,
        5.928902249927975e19, 4.018200913214405, 0.5096838095423365, 93.81709384606305, 0.006517247740857525,
        6.999795268964185, 0.9079510970611095]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@example(TIES)
@given(
    st.lists(
        st.builds(lambda k, places: (k + 0.5) / 10**places, st.integers(10**14, 10**15 - 1), st.integers(-4, 17)),
        min_size=1,
    )
)
def test_doubles_between_two_decimals_become_the_nearer(numbers):
    numbers = [*numbers, *(-number for number in numbers)]
    result, reasons = values.canonical(pa.array(numbers), field("double"))
    assert reasons is None
    assert result.to_pylist() == [Decimal(f"{number:.14e}") for number in numbers]


def test_a_double_that_is_rounded_up_to_21_digits_is_too_large():
    most = 99_999_999_999_999_934_464.0
    assert Decimal(f"{most:.14e}") < Decimal(f"{math.nextafter(most, 1e20):.14e}") == 10**20
    large = [math.nextafter(most, 1e20), math.nextafter(1e20, 0), 1e20, 1e300]
    for beside in (0.1 + 0.2, 0.0):
        assert one(pa.array([beside, most, -most, *large, *(-number for number in large)]), "double") == (
            [Decimal(f"{beside:.14e}"), 999999999999999 * 10**5, -999999999999999 * 10**5, *[None] * 8],
            [0, 0, 0, *[Reason.NUMBER_RANGE] * 8],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pa.array([2**53, 2**53 + 1, None, -(2**53) - 1, 10**17, 123456789012345678]), [1, 0, 1, 0, 1, 0]),
        (pa.array([1e17, 1234567890123457.0, 999999999999999.9, 0.1, None]), [1, 0, 1, 1, 1]),
        (pa.array([Decimal("99999999999999.99"), Decimal("9999999999999999.00"), None]), [1, 0, 1]),
        (pa.array([1, None]), [1, 1]),
    ],
)
def test_a_number_that_a_double_changes_is_reported(given, kept):
    canonical, _ = values.canonical(given, field("double"))
    reasons = values.unkept(given, canonical, field("double"))
    assert [0 if all(kept) else Reason.NUMBER_DIGITS * (1 - each) for each in kept] == (
        [0] * len(given) if reasons is None else reasons.tolist()
    )
    text, _ = values.canonical(given, field("string", length=40))
    assert values.unkept(given, text, field("string")) is None


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


@pytest.mark.slow
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


@settings(max_examples=200, deadline=None)
@example([Decimal(0), None, Decimal("-0.000001"), Decimal("0.0000001"), Decimal("-9223372036854.775808")], 0)
@example([Decimal("9223372036854.775807"), Decimal("-9223372036854.775807")], 1)
@example([Decimal("0.014641")], 0)  # 11 to the fourth, as millionths: no hundredths
@example([Decimal("0.1234"), None, Decimal("-12.0305"), Decimal(0)], 0)
@example([Decimal(-3), Decimal(4), None, Decimal(-1), Decimal(0)], 0)
@example([Decimal("-9223372036854.775808"), Decimal(-1)], 0)
@example([Decimal("18446744073709.551617"), Decimal(1)], 0)
@example([Decimal(10**18), Decimal(1)], 0)
@given(
    st.lists(st.none() | st.decimals(-(10**19), 10**19, places=6) | st.decimals(-999, 999, places=2)), st.integers(0, 2)
)
def test_a_number_is_written_alike_whatever_stands_beside_it(numbers, start):
    """The quick way, of columns with up to six places, and the other one."""
    array = pa.array(numbers, DECIMAL)[start:]
    told = [None if n is None else f"{n:f}".rstrip("0").rstrip(".") if "." in f"{n:f}" else f"{n:f}" for n in numbers]
    assert decimal_text(array).to_pylist() == [t and t.replace("-0", "0") if t == "-0" else t for t in told][start:]
    assert decimal_text(array).equals(_long_decimal_text(array))


@settings(max_examples=200, deadline=None)
@example([-(2**63), 2**63 - 1, None, 0, -1], 0, 0)
@example([-(10**17) + 1, 10**17 - 1, None, 5], 18, 1)
@given(st.lists(st.none() | st.integers(-(10**17), 10**17)), st.integers(0, 18), st.integers(0, 2))
def test_whole_numbers_and_decimals_of_any_scale_are_taken_exactly(numbers, scale, start):
    whole = pa.array(numbers, pa.int64())[start:]
    assert values.canonical(whole, field("double"))[0].to_pylist() == numbers[start:]
    scaled = [None if n is None else Decimal(n).scaleb(-scale) for n in numbers if n is None or abs(n) < 10**18]
    decimals = pa.array(scaled, pa.decimal128(18, scale))[start:]
    assert values.canonical(decimals, field("double"))[0].to_pylist() == scaled[start:]


NARROW = [(9, 2), (18, 0), (18, 18), (18, 19), (18, -1), (18, -2), (19, 0), (19, 1), (19, 19), (20, 0), (21, 0),
          (21, 1), (38, 0), (38, 17), (38, 18), (38, 19), (38, 38), (38, -3)]  # fmt: skip
WIDE = [(18, 2), (38, 18), (58, 0), (59, 0), (76, 0), (76, 18), (76, 38), (76, 57), (76, 76), (73, -3)]


@pytest.mark.parametrize(
    ("kind", "precision", "scale"),
    [*((pa.decimal128, *digits) for digits in NARROW), *((pa.decimal256, *digits) for digits in WIDE)],
)
def test_a_decimal_of_any_type_is_taken_exactly_or_refused(kind, precision, scale):
    """By the most and the least digits that its type has room for, and those at the ends of words."""
    edges = [0, 1, *(10**power + more for power in range(1, precision) for more in (0, 1)), 10**precision - 1]
    edges += [edge for edge in (2**53 + 1, 2**63 - 1, 2**63, 2**64) if edge < 10**precision]
    units = [*edges, None, *(-edge for edge in edges)]
    plain = pa.array([None if unit is None else Decimal(unit) for unit in units], kind(precision, 0))
    array = pa.Array.from_buffers(kind(precision, scale), len(units), plain.buffers())

    def expected(unit):
        exact = Fraction(unit or 0) / Fraction(10) ** scale
        reason = Reason.NUMBER_RANGE if abs(exact) >= 10**20 else Reason.NUMBER_SCALE if exact * 10**18 % 1 else 0
        return (None if reason or unit is None else exact), reason

    for start in (0, 3):
        result, reasons = one(array[start:], "double")
        exact = [None if each is None else Fraction(each) for each in result]
        told = zip(exact, reasons or [0] * len(result), strict=True)
        assert list(told) == [expected(unit) for unit in units[start:]]


def test_a_number_s_text_is_read_to_its_last_digit():
    signs, wholes = ("", "-", "+"), ("1234567890" * 2, "0", "9" * 20)
    places = ("", ".5", ".123456789012345678", ".999999999999999999")
    texts = ["".join(parts) for parts in itertools.product(signs, wholes, places)]
    assert exact_from_text(pa.array(texts)).to_pylist() == [Decimal(text) for text in texts]
    others = ["1234567890123456e2", "123456789012345678901", "0.1234567890123456789", "x", "", None]
    assert exact_from_text(pa.array(others)).to_pylist() == [
        Decimal("123456789012346000"), None, Decimal("0.123456789012346"), None, None, None,
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@example([0.1, 16777216.0, 1234.5677490234375, None, -0.30000001192092896])
@given(st.lists(st.none() | st.builds(operator.mul, st.floats(2**-9, 2**66, width=32), st.sampled_from([1, -1]))))
def test_a_narrow_float_is_the_shortest_decimal_that_it_comes_back_from(numbers):
    array = pa.array(numbers, pa.float32())
    told = [None if each is None else Decimal(each) for each in array.cast(pa.utf8()).to_pylist()]
    assert one(array, "double") == (told, [])


def test_a_constant_is_a_number_or_its_digits():
    told = {value: number_constant(value) for value in (7, -2.5, "12.50", "+3", 10**19, "1e3", "", "1,5", True)}
    read = {value: None if array is None else array.to_pylist() for value, array in told.items() if value is not True}
    kept = {7: [7], -2.5: [-2.5], "12.50": [Decimal("12.50")], "+3": [3], 10**19: [10**19]}
    assert read == kept | dict.fromkeys(("1e3", "", "1,5"))
    assert number_constant(True) is None


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
    assert one(pa.array([2**64 - 1, 2**63, None, 0], pa.uint64()), "double")[0] == [2**64 - 1, 2**63, None, 0]


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


@pytest.mark.slow
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


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1),
    st.lists(st.one_of(st.none(), st.integers()), min_size=1),
)
def test_composite_keys_never_collide(texts, numbers):
    count = min(len(texts), len(numbers))
    numbers = [None if n is None else max(min(n, 2**62), -(2**62)) for n in numbers[:count]]
    keys = key_text([pa.array(texts[:count], pa.utf8()), pa.array(numbers, pa.int64())]).to_pylist()
    seen = {}
    for key, text, number in zip(keys, texts, numbers, strict=False):
        if text is None or not text.strip() or number is None:
            assert key is None or text.strip(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0") == "" or text
        else:
            assert seen.setdefault(key, (text, number)) == (text, number)


def test_dictionary_large_and_uuid_columns_are_plain_text():
    import uuid

    value = uuid.UUID("01234567-89ab-cdef-fedc-ba9876543210")
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value.bytes, None, value.bytes], pa.binary(16)))
    assert one(array, "string")[0] == [str(value), None, str(value)]
    assert one(array.slice(2), "string")[0] == [str(value)]
    assert one(array.slice(0, 1), "string")[0] == [str(value)]
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
        (pa.list_(pa.binary()), "multipicklist"),
        (pa.list_(pa.list_(pa.utf8())), "multipicklist"),
        (pa.list_(pa.struct({"a": pa.int8()})), "multipicklist"),
        (pa.map_(pa.utf8(), pa.utf8()), "multipicklist"),
        (pa.list_(pa.utf8()), "string"),
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
    texts = [key_text([pa.array(numbers, kind)]).to_pylist() for kind in kinds]
    assert texts == [["1", "100", "2.5", "0", "-10"]] * len(kinds)
    assert key_text([pa.array([1, 100], pa.int64())]).to_pylist() == ["1", "100"]
    assert key_text([pa.array(numbers[:2], pa.decimal128(38, 0))]).to_pylist() == ["1", "100"]


def test_reasons_have_one_number_code_and_text_each():
    """The state and reports hold the numbers and codes."""
    told = {
        Reason.LENGTH: (1, "V-LENGTH", "the text is longer than the field allows"),
        Reason.CONTROL: (2, "V-CONTROL", "the text holds a control character"),
        Reason.PICKLIST: (3, "V-PICKLIST", "the value is not in the field's restricted picklist"),
        Reason.ID_FORM: (4, "V-ID-FORM", "the value is not a Salesforce id of 15 or 18 characters"),
        Reason.ID_CHECKSUM: (5, "V-ID-CHECKSUM", "the id's last three characters do not fit the first fifteen"),
        Reason.NOT_FINITE: (6, "V-NOT-FINITE", "the number is NaN or infinite"),
        Reason.NUMBER_RANGE: (
            7, "V-NUMBER-RANGE", "the number has more integer digits than the field or the API takes",
        ),
        Reason.NOT_WHOLE: (8, "V-NOT-WHOLE", "the field takes whole numbers only"),
        Reason.DATE_RANGE: (
            9, "V-DATE-RANGE", "the date lies outside 1700-01-01 to 4000-12-31, or as text outside the years 1 to 9999",
        ),
        Reason.BULK_NULL_TEXT: (
            10, "V-BULK-NULL-TEXT", "the text #N/A means null in Bulk API 2.0, and this row can only travel by it",
        ),
        Reason.NUMBER_SCALE: (11, "V-NUMBER-SCALE", "the number has more than 18 decimal places"),
        Reason.ROW_SIZE: (
            12, "V-ROW-SIZE",
            "the row has more than the 400,000 characters of Bulk API 2.0, and can only travel by it",
        ),
        Reason.CHOICE: (
            13, "V-CHOICE",
            "a choice holds a semicolon, or is itself a list: it can't be told from several choices",
        ),
        Reason.TIME_RANGE: (14, "V-TIME-RANGE", "the time lies outside 00:00 to 23:59:59.999"),
        Reason.UNREADABLE: (
            15, "V-UNREADABLE", "the warehouse holds a value that its column's type has no place for here",
        ),
        Reason.NUMBER_DIGITS: (
            16, "V-NUMBER-DIGITS",
            "Salesforce keeps numbers as doubles, and would change this one: an id goes in a text field",
        ),
    }  # fmt: skip
    assert {each: (int(each), each.code, each.message) for each in Reason if each} == told
    assert (int(Reason.OK), Reason.OK.message) == (0, "")


TEXTS = ["string", "textarea", "email", "url", "phone", "picklist", "multipicklist", "combobox"]
IDS, AMOUNTS = ["id", "reference"], ["int", "long", "double", "currency", "percent"]
OTHERS = ["boolean", "date", "datetime", "time"]
STRINGS = [pa.utf8(), pa.large_utf8(), pa.string_view(), pa.dictionary(pa.int32(), pa.utf8()), pa.uuid()]
COUNTS = [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.decimal256(50, 2)]
DATES, MOMENTS = [pa.date32(), pa.date64()], [pa.timestamp("us"), pa.timestamp("ns", "UTC")]
CLOCKS, FLAGS = [pa.time32("s"), pa.time64("ns")], [pa.bool_()]
LISTS = [pa.list_(pa.utf8()), pa.large_list(pa.large_utf8()), pa.list_(pa.dictionary(pa.int8(), pa.utf8())),
         pa.list_(pa.utf8(), 2), pa.list_view(pa.utf8()), pa.large_list_view(pa.utf8()), pa.list_(pa.null()),
         pa.list_(pa.int64()), pa.list_(pa.float32()), pa.list_(pa.decimal128(9, 2)), pa.list_(pa.date32()),
         pa.list_(pa.bool_()), pa.list_(pa.timestamp("us")), pa.list_(pa.time64("us"))]  # fmt: skip
NONE = [pa.null()]
NEVER = [pa.binary(), pa.duration("s"), pa.month_day_nano_interval(), pa.list_(pa.binary()), pa.struct([]),
         pa.list_(pa.list_(pa.utf8())), pa.list_(pa.struct([])), pa.map_(pa.utf8(), pa.utf8()),
         pa.list_(pa.duration("s"))]  # fmt: skip
FEED = (
    dict.fromkeys(TEXTS, STRINGS + COUNTS + DATES + MOMENTS + CLOCKS + FLAGS)
    | {"multipicklist": STRINGS + COUNTS + DATES + MOMENTS + CLOCKS + FLAGS + LISTS}
    | dict.fromkeys(IDS, STRINGS)
    | dict.fromkeys(AMOUNTS, COUNTS)
    | {"boolean": FLAGS, "date": DATES, "datetime": DATES + MOMENTS, "time": CLOCKS}
)


@pytest.mark.parametrize("kind", FEED)
def test_what_may_feed_a_field(kind):
    sources = STRINGS + COUNTS + DATES + MOMENTS + CLOCKS + FLAGS + LISTS + NEVER + NONE
    for source in sources:
        refusal = values.why_not(source, field(kind))
        assert (refusal is None) == (source in FEED[kind] + NONE), source
        plain = pa.utf8() if source in STRINGS[3:] else source
        assert refusal in (
            None, f"a column of type {plain} can't feed a field of type {kind}: cast it in the model's SQL",
        )  # fmt: skip


def test_a_field_of_parts_is_fed_by_nothing():
    assert values.why_not(pa.utf8(), field("address")) == (
        "fields of type address can't be written; map their parts instead"
    )
    assert values.why_not(pa.utf8(), field("base64")) == "fields of type base64 can't be written"
    assert {*FEED} == set(TYPES) == {*TEXTS, *IDS, *AMOUNTS, *OTHERS}


def test_a_field_has_one_type_of_its_values():
    kinds = {kind: pa.utf8() for kind in TEXTS + IDS} | {kind: pa.decimal128(38, 18) for kind in AMOUNTS}
    kinds |= {
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "datetime": pa.timestamp("ms", "UTC"),
        "time": pa.time32("ms"),
    }
    assert {kind: values.canonical_type(field(kind)) for kind in FEED} == kinds
    for kind in FEED:
        assert values.canonical(pa.nulls(2), field(kind), keep_nulls=True)[0].equals(pa.nulls(2, kinds[kind]))


@pytest.mark.parametrize(
    ("source", "name", "key", "text"),
    [
        (pa.utf8(), "text", "text", "text"),
        (pa.large_utf8(), "text", "text", "text"),
        (pa.dictionary(pa.int32(), pa.utf8()), "text", "text", "text"),
        (pa.uuid(), "text", "text", "text"),
        (pa.int32(), "whole number", "number", "number"),
        (pa.uint64(), "whole number", "number", "number"),
        (pa.dictionary(pa.int8(), pa.int64()), "whole number", "number", "number"),
        (pa.float64(), "float", "number", "number"),
        (pa.decimal128(9, 0), "decimal(0)", "number", "number"),
        (pa.decimal128(9, 1), "decimal(1)", "number", "number.1"),
        (pa.decimal256(60, 6), "decimal(6)", "number", "number.6"),
        (pa.decimal128(9, 7), "decimal(7)", "number", "number"),
        (pa.date32(), "date", "date", "date"),
        (pa.date64(), "date", "date", "date"),
        (pa.timestamp("us"), "timestamp", "datetime", "datetime"),
        (pa.timestamp("us", "UTC"), "timestamp with time zone", "datetime", "datetime"),
        (pa.time64("us"), "time", "time", "time"),
        (pa.bool_(), "boolean", "boolean", "boolean"),
        (pa.list_(pa.utf8()), "list", "list", "list"),
        (pa.binary(), "binary", "binary", "binary"),
    ],
)
def test_types_by_name_and_by_how_their_values_are_written(source, name, key, text):
    column = pa.field("c", source)
    assert (type_name(column), key_form(column)) == (name, key)
    assert text_form(column, field("string")) == text
    assert text_form(column, field("date")) == "", "there the field decides"


def test_a_text_that_is_of_another_type_in_the_warehouse_has_that_type_s_name():
    column = pa.field("c", pa.utf8(), metadata={TYPE_IN_WAREHOUSE: "jsonb"})
    names = type_name(column), key_form(column), text_form(column, field("string"))
    assert names == ("jsonb", "jsonb", "jsonb")


def test_what_may_be_a_key():
    for source in [*STRINGS, *COUNTS[:3], *COUNTS[5:], *DATES, *MOMENTS]:
        assert why_not_key(source) is None, source
    for source in [pa.float64(), pa.bool_(), pa.time64("us"), pa.binary(), pa.list_(pa.utf8())]:
        told = f"a key is text, a whole number or a date, not {source}: cast it in the model's SQL"
        assert why_not_key(source) == told


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        ("text", ["2024-01-07 00:00", "007", "TRUE", "", None], ["2024-01-07 00:00", "007", "TRUE", "", None]),
        (
            "date",
            ["2024-01-07", "2024-01-07 00:00", "2024-01-07T00:00:00", "2024-01-07T00:00:00.000Z", "2024-01-07 00:00+00",
             "2024-01-07T00:00:00+00:00", "2024-01-07 00:00+0000", "2024-01-07 00:00:01", "2024-01-07 00:01", "x", None,
             "2024-01-07 00:00:00.001", "x2024-01-07 00:00", "2024-01-07 00:00x", "2024-01-07 00:00+01"],
            ["2024-01-07"] * 7
            + ["2024-01-07 00:00:01", "2024-01-07 00:01", "x", None, "2024-01-07 00:00:00.001", "x2024-01-07 00:00",
               "2024-01-07 00:00x", "2024-01-07 00:00+01"],
        ),
        (
            "datetime",
            ["2024-01-07", "2024-01-07 10:11:12", "2024-01-07T10:11:12.5", "2024-01-07 10:11:12.123456789Z",
             "2024-01-07 10:11:12+00", "2024-01-07 10:11:12+00:00", "2024-01-07 10:11:12+0000", "2024-01-07Z",
             "2024-01-07 10:11:12+01:00", "2024-01-07 10:11", "x", "", None, "2024-01-07 10:11:12.", "x2024-01-07",
             "2024-01-07 10:11:12.1234567890"],
            ["2024-01-07T00:00:00.000Z", "2024-01-07T10:11:12.000Z", "2024-01-07T10:11:12.500Z",
             "2024-01-07T10:11:12.123Z", *["2024-01-07T10:11:12.000Z"] * 3, "2024-01-07T00:00:00.000Z",
             "2024-01-07 10:11:12+01:00", "2024-01-07 10:11", "x", "", None, "2024-01-07 10:11:12.", "x2024-01-07",
             "2024-01-07 10:11:12.1234567890"],
        ),
        (
            "number",
            ["7", "007", "7.", "7.0", "7.50", "-07.10", "0", "000", "0.0", "-0.5", ".5", "7a", "a7", "+7", "1e3", "",
             None],
            ["7", "7", "7", "7", "7.5", "-7.1", "0", "0", "0", "-0.5", ".5", "7a", "a7", "+7", "1e3", "", None],
        ),
        (
            "number.2",
            ["7", "007", "7.", "7.5", "7.50", "7.500", "007.25", "7.505", "-7.1", "0", "x", None],
            ["7.00", "7.00", "7.00", "7.50", "7.50", "7.50", "7.25", "7.505", "-7.10", "0.00", "x", None],
        ),
        ("number.1", ["7.25", "007.25", "007.5"], ["7.25", "007.25", "7.5"]),
        (
            "boolean",
            ["TRUE", "False", "true", "1", "t", "yes", "", None],
            ["true", "false", "true", "1", "t", "yes", "", None],
        ),
    ],
)  # fmt: skip
def test_a_text_as_a_column_of_another_type_would_write_it(form, given, expected):
    assert in_form(pa.array(given, pa.utf8()), form).to_pylist() == expected


def test_keys_as_columns_of_other_types_would_give_them():
    dates = pa.array([dt.date(2024, 1, 7), dt.date(2024, 1, 8)])
    texts, numbers = pa.array(["a:1", "12:"]), pa.array(["007", "1.50"])
    written = key_text([texts, pa.array(["2024-01-07 00:00:00", "2024-01-08"]), numbers])
    as_they_are = key_text([texts, dates, pa.array(["7", "1.5"])])
    assert as_they_are.to_pylist() == ["3:a:110:2024-01-071:7", "3:12:10:2024-01-083:1.5"]
    assert key_in_forms(written, ["text", "date", "number"]).equals(as_they_are)
    two = key_text([texts, numbers])
    assert key_in_forms(two, ["text", "number"]).to_pylist() == ["3:a:11:7", "3:12:3:1.5"]
    assert key_in_forms(numbers, ["number"]).to_pylist() == ["7", "1.5"]
    assert key_text([pa.array(["a", " \t", None, ""]), pa.array([1, 2, 3, 4])]).to_pylist() == [
        "1:a1:1", None, None, None,
    ]  # fmt: skip
    assert key_text([pa.array([" a ", " ", None])]).to_pylist() == [" a ", None, None]


def test_a_decimal_key_of_many_places_is_written_plainly():
    numbers = [Decimal("1.5"), Decimal("0.0000001"), Decimal(100)]
    for kind in (pa.decimal128(38, 7), pa.decimal128(38, 18), pa.decimal256(50, 7)):
        assert key_text([pa.array(numbers, kind)]).to_pylist() == ["1.5", "0.0000001", "100"]
    assert key_text([pa.array([Decimal("1.500000")], pa.decimal128(9, 6))]).to_pylist() == ["1.5"]
    assert key_text([pa.array([Decimal("10.00"), Decimal(0)], pa.decimal128(9, 2))]).to_pylist() == ["10", "0"]


def test_match_values_are_folded_as_salesforce_compares_them():
    given = pa.array([" A b\n", "", "  ", None, "ÄÖ"])
    assert values.fold(given, field("string")).to_pylist() == ["a b", None, None, None, "äö"]
    assert values.fold(given, field("string", case_sensitive=True)).to_pylist() == ["A b", None, None, None, "ÄÖ"]
    assert values.fold(given, field("reference")).to_pylist() == ["A b", None, None, None, "ÄÖ"]
    numbers = pa.array([1, None])
    assert values.fold(numbers, field("double")).equals(numbers)


def test_an_upsert_folds_case_for_emails_and_unique_texts_that_ignore_it():
    folds = {
        (kind, unique, sensitive): values.folds_case(field(kind, unique=unique, case_sensitive=sensitive))
        for kind in ("email", "string") for unique in (True, False) for sensitive in (True, False)
    }  # fmt: skip
    expected = {
        (kind, unique, sensitive): kind == "email" or (unique and not sensitive) for kind, unique, sensitive in folds
    }
    assert folds == expected


def test_every_type_as_salesforce_reads_it():
    moments = pa.array([dt.datetime(2024, 1, 7, 8, tzinfo=dt.UTC), None], DATETIME)
    assert values.text(moments, field("datetime")).to_pylist() == ["2024-01-07T08:00:00.000Z", None]
    assert values.text(pa.array([dt.time(8, 0, 0, 7_000)], TIME), field("time")).to_pylist() == ["08:00:00.007Z"]
    assert values.text(pa.array([dt.date(2024, 1, 7), None]), field("date")).to_pylist() == ["2024-01-07", None]
    assert values.text(pa.array([True, False, None]), field("boolean")).to_pylist() == ["true", "false", None]
    assert values.text(pa.array(["a", None]), field("string")).to_pylist() == ["a", None]


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("string", ["", "#N/A", " a ", None, "A"], [None, None, "a", None, "A"]),
        ("email", [" A@B.c "], ["a@b.c"]),
        ("boolean", ["true", "FALSE", "1", "0", "yes", "", None], [True, False, True, False, None, None, None]),
        ("date", ["2024-01-07", "2024-1-7", "x2024-01-07", "2024-01-07T", ""], [dt.date(2024, 1, 7), *[None] * 4]),
        ("id", ["a00B000000FSjVU", "short", ""], ["a00B000000FSjVUIA1", None, None]),
        ("double", ["+1.5", "-.5", "1.", "1e2", "1E+2", "1e", ".", "1,5"],
         [Decimal("1.5"), Decimal("-0.5"), 1, 100, 100, None, None, None]),
        ("time", ["00:00:00", "19:59:59.5Z", "23:00:00.25", "24:00:00", "9:00:00", "10:60:00", "10:00:60",
                  "10:00:00X"],
         [dt.time(0), dt.time(19, 59, 59, 500_000), dt.time(23, 0, 0, 250_000), *[None] * 5]),
        ("datetime", ["2024-01-07 08:00:00Z", "2024-01-07T08:00:00.1Z", "2024-01-07T08:00:00-01:30",
                      "2024-01-07T08:00:00", "2024-01-07T08:00Z"],
         [dt.datetime(2024, 1, 7, 8, tzinfo=dt.UTC), dt.datetime(2024, 1, 7, 8, 0, 0, 100_000, dt.UTC),
          dt.datetime(2024, 1, 7, 9, 30, tzinfo=dt.UTC), None, None]),
    ],
)  # fmt: skip
def test_salesforces_text_is_read(kind, given, expected):
    assert values.from_text(pa.array(given, pa.utf8()), field(kind)).to_pylist() == expected


def test_what_an_echo_may_change_is_removed():
    texts = pa.array([" A\r\nb\r ", "", " ", None])
    assert values.echo_form(texts, field("textarea")).to_pylist() == ["A\nb", None, None, None]
    assert values.echo_form(texts, field("email")).to_pylist() == ["a\nb", None, None, None]
    ids = pa.array(["a00B000000FSjVUIA1", " x "])
    assert values.echo_form(ids, field("reference")).equals(ids)
    number = pa.array([Decimal("1.234567890123456789"), None], DECIMAL)
    assert values.echo_form(number, field("double")).to_pylist() == [Decimal("1.23456789012346"), None]
    moments = pa.array([1_500, -1_500, None], pa.timestamp("ms", "UTC"))
    assert values.echo_form(moments, field("datetime")).cast(pa.int64()).to_pylist() == [1_000, -2_000, None]
    days = pa.array([dt.date(2024, 1, 7), None])
    assert values.echo_form(days, field("date")).equals(days)


def test_what_salesforce_may_change_when_it_stores_is_removed():
    assert values.held_form(pa.array([True, None]), field("boolean")).to_pylist() == [True, False]
    assert values.held_form(pa.array([" Hot ", None]), field("picklist")).to_pylist() == ["hot", None]
    several = pa.array(["B; a;b", "x", None])
    assert values.held_form(several, field("multipicklist")).to_pylist() == ["a;b", "x", None]
    assert values.held_form(pa.array([" Hot "]), field("string")).to_pylist() == ["Hot"]


def test_every_type_as_text():
    def text_of(array, kind="string"):
        result, reasons = values.canonical(array, field(kind))
        assert reasons is None
        return result.to_pylist()

    assert text_of(pa.array([1, -20, None])) == ["1", "-20", None]
    assert text_of(pa.array([1.5, 100.0, 1e-7, None])) == ["1.5", "100", "0.0000001", None]
    assert text_of(pa.array([Decimal("1.50"), None], pa.decimal128(9, 2))) == ["1.50", None]
    assert text_of(pa.array([Decimal("1.5"), None], pa.decimal128(9, 6))) == ["1.500000", None]
    assert text_of(pa.array([Decimal("1.5"), None], pa.decimal128(9, 7))) == ["1.5", None]
    assert text_of(pa.array([True, False, None])) == ["true", "false", None]
    assert text_of(pa.array([dt.date(2024, 1, 7), None])) == ["2024-01-07", None]
    assert text_of(pa.array([dt.datetime(2024, 1, 7, 8), None])) == ["2024-01-07T08:00:00.000Z", None]
    assert text_of(pa.array([dt.time(8), None])) == ["08:00:00.000Z", None]
    assert text_of(pa.array([["a", "b"], None, []], pa.large_list(pa.large_utf8())), "multipicklist") == [
        "a;b", None, None,
    ]  # fmt: skip


def test_control_characters_are_all_but_tabs_and_newlines():
    for number in range(0x20):
        result, reasons = one(pa.array([f"a{chr(number)}b"]), "string")
        fine = {9: "a\tb", 10: "a\nb", 13: "a\nb"}.get(number)
        assert (result, reasons) == ([fine], [] if fine else [Reason.CONTROL])
    assert one(pa.array(["a\rb", "a\r\rb"]), "string") == (["a\nb", "a\n\nb"], [])
    assert one(pa.array(["\r", "a\r\r\nb"]), "string") == ([None, "a\n\nb"], [])
    assert one(pa.array(["a b\x7f", "c"]), "string") == (["a b\x7f", "c"], [])


def test_lengths_are_of_characters():
    assert one(pa.array(["äöü", None]), "string", length=3) == (["äöü", None], [])
    assert one(pa.array(["abc"]), "string", length=3) == (["abc"], [])
    assert one(pa.array(["abcd"]), "string", length=3) == ([None], [Reason.LENGTH])
    assert one(pa.array(["", ""]), "string", length=3) == ([None, None], [])
    assert one(pa.array(["abcd"]), "string", length=0) == (["abcd"], [])
    assert one(pa.array(["ab\x01d"]), "string", length=3) == ([None], [Reason.CONTROL]), "the first reason is told"


def test_a_listed_value_is_one_of_the_list():
    listed = {"restricted_picklist": True, "picklist": ("A", "B")}
    assert one(pa.array(["A", None]), "picklist", **listed) == (["A", None], [])
    assert one(pa.array(["A;B", "C;A", None, "A;C;B"]), "multipicklist", **listed) == (
        ["A;B", None, None, None], [0, Reason.PICKLIST, 0, Reason.PICKLIST],
    )  # fmt: skip
    assert one(pa.array(["C"]), "picklist", picklist=("A",)) == (["C"], []), "any value is taken there"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcXYZ019", min_size=15, max_size=15), min_size=1, max_size=9))
def test_an_id_of_15_characters_gets_the_three_that_fit(ids):
    def suffix(text):
        bits = [sum(text[5 * n + at].isupper() << at for at in range(5)) for n in range(3)]
        return "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[n] for n in bits)

    full = [text + suffix(text) for text in ids]
    assert one(pa.array(ids), "id") == (full, [])
    assert one(pa.array(full), "id") == (full, [])
    assert one(pa.array([text[:15] + text[15:].lower() for text in full]), "id") == (full, [])
    wrong = [text[:15] + ("B" if text[15] == "A" else "A") + text[16:] for text in full]
    assert one(pa.array(wrong), "id")[1] == [Reason.ID_CHECKSUM] * len(ids)


def test_every_letter_of_an_id_counts_as_it_should():
    letters = "AZaz09@[`{/:"
    given = [each * 15 for each in letters]
    expected = [["555", "555", "AAA", "AAA", "AAA", "AAA"][n] for n in range(6)]
    result, reasons = one(pa.array(given), "id")
    assert result == [text + end for text, end in zip(given[:6], expected, strict=True)] + [None] * 6
    assert reasons == [0] * 6 + [Reason.ID_FORM] * 6
    assert one(pa.array(["A" * 15 + "555", "a" * 15 + "aAa", "a" * 15 + "b[a"]), "id")[1] == [0, 0, Reason.ID_FORM]


@pytest.mark.parametrize(
    ("kind", "more", "fine", "large"),
    [
        ("int", {}, [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
        ("long", {}, [2**63 - 1, -(2**63)], [2**63, -(2**63) - 1]),
        ("int", {"precision": 3}, [9_999], [2**31]),
        ("double", {"precision": 5, "scale": 2}, [999, -999, Decimal("999.99")], [1_000, -1_000]),
        ("currency", {"precision": 18, "scale": 0}, [10**18 - 1], [10**18]),
        ("double", {"precision": 19, "scale": 0}, [10**19 - 1], [10**19]),
        ("double", {"precision": 20, "scale": 0}, [10**20 - 1], [10**20]),
        ("double", {"precision": 2, "scale": 2}, [10**19], [10**20]),
        ("double", {"precision": 3, "scale": 2}, [Decimal("9.99")], [10]),
        ("double", {}, [10**20 - 1, -(10**20) + 1], [10**20, -(10**20)]),
    ],
)
def test_numbers_are_as_large_as_their_field(kind, more, fine, large):
    wide = pa.decimal256(60, 2)
    assert one(pa.array([Decimal(each) for each in fine], wide), kind, **more) == (fine, [])
    expected = ([None] * len(large), [Reason.NUMBER_RANGE] * len(large))
    assert one(pa.array([Decimal(each) for each in large], wide), kind, **more) == expected


@pytest.mark.parametrize("kind", ["int", "long"])
def test_a_whole_number_has_no_places(kind):
    assert one(pa.array([Decimal("1.5"), Decimal(2), None, Decimal("-0.01")], pa.decimal128(9, 2)), kind) == (
        [None, 2, None, None], [Reason.NOT_WHOLE, 0, 0, Reason.NOT_WHOLE],
    )  # fmt: skip


def test_decimals_of_any_scale_are_exact_or_refused():
    fine, fractions = Decimal("0.123456789012345678"), Decimal("0.1234567890123456781")
    assert one(pa.array([fine], pa.decimal128(38, 18)), "double") == ([fine], [])
    assert one(pa.array([fine, fractions], pa.decimal128(38, 19)), "double") == ([fine, None], [0, Reason.NUMBER_SCALE])
    assert one(pa.array([Decimal(-7), None], pa.decimal256(70, 30)), "double") == ([-7, None], [])
    assert one(pa.array([Decimal(10**20 - 1)], pa.decimal128(38, 17)), "double") == ([10**20 - 1], [])
    assert one(pa.array([Decimal(10**20 - 1), Decimal(10**20)], pa.decimal128(38, 10)), "double") == (
        [10**20 - 1, None], [0, Reason.NUMBER_RANGE],
    )  # fmt: skip


def test_a_decimal_that_does_not_fit_is_refused_whatever_its_column_could_hold():
    for scale in (17, 0):
        array = pa.array([Decimal(10**20), Decimal(-(10**20)), Decimal(7)], pa.decimal128(38, scale))
        assert one(array, "double") == ([None, None, 7], [Reason.NUMBER_RANGE, Reason.NUMBER_RANGE, 0])


def test_a_column_of_sixteen_digits_has_fifteen():
    """It would come back from its millionths."""
    assert one(pa.array([1234567890.123457, 999999999.123457]), "double") == (
        [Decimal("1234567890.12346"), Decimal("999999999.123457")], [],
    )  # fmt: skip


def test_decimals_around_the_ends_of_a_word_are_written_whole():
    units = [2**64 - 1, 2**64, 2**63, 2**63 - 1, 10**13, 10**13 - 1, 10**12, 1]
    for unit in [*units, *(-unit for unit in units)]:
        exact = Decimal(unit).scaleb(-18)
        assert values.text(pa.array([exact], DECIMAL), field("double")).to_pylist() == [
            f"{exact:.18f}".rstrip("0").rstrip("."),
        ]  # fmt: skip


def test_a_date_with_a_time_of_day_is_that_day():
    """Arrow's date64 can hold one, though it should not."""
    day = pa.array([86_400_005, None], pa.int64()).view(pa.date64())
    assert one(day, "date")[0] == [dt.date(1970, 1, 2), None]
    assert one(day, "datetime")[0] == [dt.datetime(1970, 1, 2, tzinfo=dt.UTC), None]
    assert one(day, "string")[0] == ["1970-01-02", None]


def test_a_number_whose_lower_word_is_empty_keeps_its_sign():
    """2^46 in units of 10^-18 is a multiple of 2^64."""
    for number in (-(2.0**46), 2.0**46, -0.0):
        assert one(pa.array([number, 0.1 + 0.2]), "double")[0] == [Decimal(number), Decimal("0.3")]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_floats_of_both_widths_are_read(kind):
    assert one(pa.array([0.5, None, -2.25], kind), "double") == ([Decimal("0.5"), None, Decimal("-2.25")], [])


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-5, 18))
def test_a_decimal_of_fifteen_digits_comes_back_from_its_double(digits, places):
    exact = Decimal(digits).scaleb(-places)
    if abs(exact) < Decimal(10) ** 20:
        assert one(pa.array([float(exact), 0.1 + 0.2]), "double") == ([exact, Decimal("0.3")], [])


@pytest.mark.parametrize(("unit", "second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_times_and_moments_of_every_unit(unit, second):
    kind = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    clock = pa.array(
        [8 * 3600 * second, (86_400 * second) - 1, None], pa.int32() if kind.bit_width == 32 else pa.int64()
    )
    last = dt.time(23, 59, 59, 999_000 if unit != "s" else 0)
    assert one(clock.cast(kind), "time") == ([dt.time(8), last, None], [])
    assert one(pa.array([0, *clock.to_pylist()], clock.type).cast(kind).slice(1), "time")[0] == [dt.time(8), last, None]
    moments = pa.array([1_704_614_400 * second, -second, -1, None], pa.int64()).cast(pa.timestamp(unit))
    before = dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert one(moments, "datetime") == (
        [dt.datetime(2024, 1, 7, 8, tzinfo=dt.UTC), before,
         before if unit == "s" else before.replace(microsecond=999_000), None],
        [],
    )  # fmt: skip
    assert one(moments.slice(1), "datetime")[0] == one(moments, "datetime")[0][1:]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_at_the_ends_of_what_arrow_holds_are_refused_not_wrapped(unit):
    ends = pa.array([2**63 - 1, -(2**63), None], pa.int64()).cast(pa.timestamp(unit))
    fine = unit == "ns"  # 1677 to 2262
    assert one(ends, "datetime")[1] == [0 if fine else Reason.DATE_RANGE, Reason.DATE_RANGE, 0]


def test_the_first_and_the_last_moment_of_salesforces_years():
    edges = [-8_520_336_000_000, -8_520_336_000_001, 64_092_211_199_999, 64_092_211_200_000]
    moments = pa.array(edges, pa.int64()).cast(pa.timestamp("ms"))
    assert one(moments, "datetime")[1] == [0, Reason.DATE_RANGE, 0, Reason.DATE_RANGE]
    far = pa.array([2**31 - 1, -(2**31)], pa.int32()).cast(pa.date32())
    for kind in ("date", "datetime"):
        assert one(far, kind)[1] == [Reason.DATE_RANGE] * 2
    days = pa.array([dt.date(2024, 1, 7), None]).cast(pa.date64())
    assert one(days, "date") == ([dt.date(2024, 1, 7), None], [])
    assert one(days, "datetime") == ([dt.datetime(2024, 1, 7, tzinfo=dt.UTC), None], [])


def test_no_rows_are_fine():
    for kind, sources in FEED.items():
        for source in sources:
            empty = pa.array([], source)
            assert values.canonical(empty, field(kind))[0].equals(pa.array([], values.canonical_type(field(kind))))
    for form in ("date", "datetime", "number", "number.2", "boolean", "text"):
        assert len(in_form(pa.array([], pa.utf8()), form)) == 0


def test_chunks_are_one_column():
    chunked = pa.chunked_array([["a"], ["b", None]])
    assert one(chunked, "string") == (["a", "b", None], [])
    assert key_text([chunked]).to_pylist() == ["a", "b", None]


CHOICES = st.one_of(st.none(), st.text(alphabet=" \t\u00a0aB;", max_size=5))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.lists(CHOICES, max_size=5)), max_size=9),
    st.sampled_from([pa.list_(pa.utf8()), pa.large_list(pa.large_utf8()), pa.list_view(pa.utf8())]),
    st.integers(0, 3),
)
def test_the_choices_of_a_list_are_joined_or_their_row_is_invalid(rows, kind, cut):
    """A null, empty or blank element is no choice, and never takes the others with it."""

    def expected(row):
        there = [text for text in ((each or "").strip(" \t") for each in row or ()) if text]
        return (None, Reason.CHOICE) if any(";" in each for each in there) else (";".join(there) or None, 0)

    texts, reasons = one(pa.array(rows, kind).slice(cut), "multipicklist")
    assert list(zip(texts, reasons or [0] * len(texts), strict=True)) == [expected(row) for row in rows[cut:]]


@pytest.mark.parametrize(
    ("rows", "kind", "expected"),
    [
        ([[2023, None, 2024], []], pa.list_(pa.int64()), ["2023;2024", None]),
        ([[0.1, 2.0], [math.nan], [None]], pa.list_(pa.float32()), ["0.1;2", Reason.NOT_FINITE, None]),
        ([[Decimal("1.50")], None], pa.list_(pa.decimal128(9, 2)), ["1.50", None]),
        ([[True, None, False]], pa.list_(pa.bool_()), ["true;false"]),
        ([[dt.date(2024, 1, 7), None]], pa.list_(pa.date32()), ["2024-01-07"]),
        ([["a", None], None, [None, None]], pa.list_(pa.utf8(), 2), ["a", None, None]),
        ([["a", "b", None]], pa.list_(pa.dictionary(pa.int8(), pa.utf8())), ["a;b"]),
        ([[None], [], None], pa.list_(pa.null()), [None, None, None]),
        (
            ["a; b ;;c", ";", " ;a;", "a", None, "a;\u00a0b"],
            pa.utf8(),
            ["a;b;c", None, "a", "a", None, "a;\u00a0b"],
        ),
        (["X;a;X", "XX;", None], pa.utf8(), ["X;a;X", "XX", None]),
        (
            ['["a", null, " b "]', "[]", "[1.50, true, null]", '["a;b"]', '[["a"]]', '[{"a": 1}]', '{"a": 1}', "[a]",
             '["a"', "x", "[" * 10_000 + "]", None],
            pa.utf8(),
            ["a;b", None, "1.50;true", Reason.CHOICE, Reason.CHOICE, Reason.CHOICE, Reason.CHOICE, "[a]", '["a"', "x",
             "[" * 10_000 + "]", None],
        ),
    ],
)  # fmt: skip
def test_choices_of_every_kind_of_list(rows, kind, expected):
    array = pa.array(rows, kind)
    texts, reasons = one(array, "multipicklist")
    told = [Reason(reason) if reason else text for text, reason in zip(texts, reasons or [0] * len(texts), strict=True)]
    assert told == expected


TRIMMED = " \t\n\r"


def test_only_blanks_are_trimmed():
    texts = [f"{chr(sign)}a {chr(sign)}" for sign in (*range(0x21, 0x180), 0x2003, 0x200B, 0x3000, 0xFEFF)]
    for kind in ("string", "multipicklist"):
        kept = [text for text in texts if kind == "string" or ";" not in text]
        assert one(pa.array([f"{text}\t \n" for text in kept]), kind) == (kept, [])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet=" \t\n\r\u00a0ab", max_size=6)), max_size=9),
    st.sampled_from(["string", "textarea", "picklist", "phone", "url", "multipicklist"]),
    st.integers(0, 3),
)
def test_a_text_is_judged_as_salesforce_saves_it(texts, kind, cut):
    """Blanks at its ends are no part of it: neither its length nor a picklist's value."""
    listed = {"picklist": ("a", "b", "ab"), "restricted_picklist": True} if "picklist" in kind else {}
    given_texts = pa.array(texts, pa.utf8()).slice(cut)
    saved = [(text or "").replace("\r\n", "\n").replace("\r", "\n").strip(TRIMMED) or None for text in texts[cut:]]
    result, reasons = one(given_texts, kind, length=2, **listed)
    for text, came, reason in zip(saved, result, reasons or [0] * len(saved), strict=True):
        fits = text is None or (len(text) <= 2 and (not listed or text in listed["picklist"]))
        assert (came, bool(reason)) == (text if fits else None, not fits)


@pytest.mark.parametrize("kind", ["string", "multipicklist"])
@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.array([math.nan]), Reason.NOT_FINITE),
        (pa.array([-math.inf], pa.float32()), Reason.NOT_FINITE),
        (pa.array([1e20]), Reason.NUMBER_RANGE),
        (pa.array([Decimal(10**20)], pa.decimal128(38, 7)), Reason.NUMBER_RANGE),
        (pa.array([Decimal("1e-19")], pa.decimal128(38, 19)), Reason.NUMBER_SCALE),
        (pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), Reason.DATE_RANGE),
        (pa.array([2_932_897], pa.int32()).cast(pa.date32()), Reason.DATE_RANGE),
        (pa.array([-719_163], pa.int32()).cast(pa.date32()), Reason.DATE_RANGE),
        (pa.array([2**63 - 1]).cast(pa.timestamp("us")), Reason.DATE_RANGE),
        (pa.array([253_402_300_800_000]).cast(pa.timestamp("ms", "UTC")), Reason.DATE_RANGE),
        (pa.array([-62_135_596_800_001]).cast(pa.timestamp("ms")), Reason.DATE_RANGE),
        (pa.array([86_400_000_000]).cast(pa.time64("us")), Reason.TIME_RANGE),
        (pa.array([-1], pa.int32()).cast(pa.time32("s")), Reason.TIME_RANGE),
    ],
)
def test_a_value_that_has_no_text_is_invalid_and_not_empty(kind, array, reason):
    assert one(array, kind) == ([None], [reason])
    assert one(pa.concat_arrays([array, pa.nulls(1, array.type)]), kind) == ([None, None], [reason, 0])


def test_dates_and_moments_of_four_digits_have_a_text():
    days = pa.array([-719_162, 2_932_896], pa.int32()).cast(pa.date32())
    assert one(days, "string") == (["0001-01-01", "9999-12-31"], [])
    moments = pa.array([-62_135_596_800_000, 253_402_300_799_999]).cast(pa.timestamp("ms"))
    assert one(moments, "string") == (["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"], [])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_end_of_the_day_is_no_time_of_it(unit):
    second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    kind = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    ticks = [86_400 * second, 86_400 * second - 1, -1, None, 0]
    clock = pa.array(ticks, pa.int32() if kind.bit_width == 32 else pa.int64())
    result, reasons = values.canonical(clock.cast(kind), field("time"))
    assert reasons.tolist() == [Reason.TIME_RANGE, 0, Reason.TIME_RANGE, 0, 0]
    assert values.text(result, field("time")).to_pylist()[1].startswith("23:59:59.")


@pytest.mark.parametrize("kind", ["double", "string"])
def test_a_narrow_float_is_its_shortest_decimal(kind):
    """0.1 of 32 bits is 0.100000001490116 of 64: a number that nobody wrote."""
    narrow = pa.array([0.1, 16777216.0, 3.4e20, None], pa.float32())
    texts = values.text(values.canonical(narrow, field(kind))[0], field(kind)).to_pylist()
    assert texts == ["0.1", "16777216", None, None]


def test_every_return_is_a_newline_also_where_there_is_nothing_else():
    texts = pa.array(["\r\r", "\r\n", None, "\r"])
    assert unix_newlines(texts).to_pylist() == ["\n\n", "\n", None, "\n"]
    assert unix_newlines(texts.slice(3)).to_pylist() == ["\n"]


def test_a_value_that_its_type_has_no_place_for_is_marked_beside_its_column():
    marks = pa.array([False, True, None])
    batch = pa.record_batch({"v": pa.array([1, None, None]), "w": pa.array([1, 2, 3]), unreadable_mark("v"): marks})
    assert unreadable(batch, "v").tolist() == [0, Reason.UNREADABLE, 0]
    assert unreadable(batch, "w") is None
    assert unreadable_mark("v") != unreadable_mark("w")
    assert unreadable_mark("v").startswith("\0"), "no database has such a name"


def test_a_reason_says_what_its_field_takes() -> None:
    text, choice = field("string", length=1_300), field("picklist", picklist=("Hot", "Cold"))
    length, picklist, unreadable = Reason.LENGTH.message, Reason.PICKLIST.message, Reason.UNREADABLE.message
    assert {why_unfit(Reason.UNREADABLE, each, 9) for each in (text, choice, None)} == {unreadable}
    assert why_unfit(Reason.LENGTH, text, 2_000) == f"{length}: it takes 1,300 characters, and the longest has 2,000"
    assert why_unfit(Reason.LENGTH, text) == f"{length}: it takes 1,300 characters"
    assert {why_unfit(Reason.LENGTH, each, 9) for each in (field("textarea"), None)} == {length}
    assert why_unfit(Reason.PICKLIST, choice) == f"{picklist}: 'Hot', 'Cold'"
    many = field("picklist", picklist=tuple("abcdef"))
    assert why_unfit(Reason.PICKLIST, many) == f"{picklist}: 'a', 'b', 'c', 'd', 'e' and 1 more"
    assert {why_unfit(Reason.PICKLIST, each) for each in (text, None)} == {picklist}
