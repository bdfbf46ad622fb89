"""Values that every row sends, and those that `on_removed` sets, as the field has them. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa

from dinmo_dbt.codes import CONSTANT_DOES_NOT_FIT
from dinmo_dbt.config import declaration
from dinmo_dbt.destination import Field
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.fields import check_writable, missing_field
from dinmo_dbt.rows.mapping import Constant
from dinmo_dbt.rows.reasons import Reason, why_unfit
from dinmo_dbt.rows.resolution import Resolution


def constant_of_removed(work: Resolution, name: str, value: Any) -> Constant | None:
    """A constant for records of rows that left: edited, whatever the mode, and empty if null."""
    field = work.schema.field(name)
    if value is None and field is not None and not field.nillable:
        message = f"{work.schema.name}.{field.name} can't be emptied: it is required, or a checkbox"
        work.problem(CONSTANT_DOES_NOT_FIT, message, f"on_removed.set.{name}")
        return None
    return constant(work, name, value, "on_removed.set")


def constant(work: Resolution, name: str, value: Any, under: str) -> Constant | None:
    key = f"{under}.{name}"
    field = work.schema.field(name)
    if field is None:
        missing_field(work, work.schema, name, key)
        return None
    check_writable(work, work.schema, field, key, edited_only=under != "constants")
    text = work.activation.bare.get(key)
    if (refusal := values.why_not_written(field)) is not None:
        work.problem(CONSTANT_DOES_NOT_FIT, f"{work.schema.name}.{field.name}: {refusal}", key)
        return None
    if not isinstance(value, str | None) and type_of(field).is_written:
        what = f"{declaration.kind(value)} is no text for {work.schema.name}.{field.name} ({field.type})"
        work.problem(CONSTANT_DOES_NOT_FIT, what, key, declaration.unquoted(value, text))
        return None
    if text is not None and _is_other(text, value, field):
        what = f"YAML reads {declaration.show(text)} as {'null' if value is None else declaration.show(value)}"
        hint = "null alone empties a field; put any other text in quotes" if value is None else "put it in quotes"
        work.problem(CONSTANT_DOES_NOT_FIT, what, key, hint)
        return None
    array = _constant_array(value, field)
    if array is None:
        what = f"{value!r} is no value for {work.schema.name}.{field.name} ({field.type})"
        work.problem(CONSTANT_DOES_NOT_FIT, what, key, _in_decimal(value, field))
        return None
    canonical, reasons = values.canonical(array, field)
    if reasons is not None:
        longest = len(value) if isinstance(value, str) else 0
        reason = why_unfit(Reason(int(reasons[0])), field, longest)
        work.problem(CONSTANT_DOES_NOT_FIT, f"{value!r} is no value for {work.schema.name}.{field.name}: {reason}", key)
        return None
    return Constant(field.name, field, canonical)


def _is_other(text: str, value: Any, field: Field) -> bool:
    """Whether a value that YAML made of a bare text is another one to this field than stands there."""
    if value is None:
        return text not in (("null", "") if type_of(field).is_text else ("null", "", "~", "Null", "NULL"))
    meant, read = _constant_array(text, field), _constant_array(value, field)
    return meant is not None and read is not None and bool(meant.to_pylist() != read.to_pylist())


def _in_decimal(value: Any, field: Field) -> str:
    """What to do about a number in a notation that YAML does not read as one, such as 1e3."""
    if type_of(field).form != "number" or not isinstance(value, str):
        return ""
    try:
        number = Decimal(value)
    except ArithmeticError:
        return ""
    if not number.is_finite() or abs(number.adjusted()) > 18:
        return ""
    return f"YAML reads {declaration.show(value)} as text: write the number in decimal, {number:f}"


def _constant_array(value: Any, field: Field) -> pa.Array | None:
    """A one-row array of the constant in a type `canonical` takes for the field; None if it can't be one."""
    return pa.nulls(1) if value is None else type_of(field).constant(value)
