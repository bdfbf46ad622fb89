"""Why a value can't be sent: a number a row, and its words. Pure."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.config.declaration import listed
from dinmo_dbt.destination import Field

Reasons = npt.NDArray[np.uint8]


class Reason(IntEnum):
    """Why a value can't be sent; stored as a number, shown by its code."""

    OK = 0
    LENGTH = 1
    CONTROL = 2
    PICKLIST = 3
    ID_FORM = 4
    ID_CHECKSUM = 5
    NOT_FINITE = 6
    NUMBER_RANGE = 7
    NOT_WHOLE = 8
    DATE_RANGE = 9
    BULK_NULL_TEXT = 10
    NUMBER_SCALE = 11
    ROW_SIZE = 12
    CHOICE = 13
    TIME_RANGE = 14
    UNREADABLE = 15
    NUMBER_DIGITS = 16

    @property
    def code(self) -> str:
        return "V-" + self.name.replace("_", "-")

    @property
    def message(self) -> str:
        return _REASON_TEXT[self]


_REASON_TEXT = {
    Reason.OK: "",
    Reason.LENGTH: "the text is longer than the field allows",
    Reason.CONTROL: "the text holds a control character",
    Reason.PICKLIST: "the value is not in the field's restricted picklist",
    Reason.ID_FORM: "the value is not a Salesforce id of 15 or 18 characters",
    Reason.ID_CHECKSUM: "the id's last three characters do not fit the first fifteen",
    Reason.NOT_FINITE: "the number is NaN or infinite",
    Reason.NUMBER_RANGE: "the number has more integer digits than the field or the API takes",
    Reason.NOT_WHOLE: "the field takes whole numbers only",
    Reason.DATE_RANGE: "the date lies outside 1700-01-01 to 4000-12-31, or as text outside the years 1 to 9999",
    Reason.BULK_NULL_TEXT: "the text #N/A means null in Bulk API 2.0, and this row can only travel by it",
    Reason.NUMBER_SCALE: "the number has more than 18 decimal places",
    Reason.ROW_SIZE: "the row has more than the 400,000 characters of Bulk API 2.0, and can only travel by it",
    Reason.CHOICE: "a choice holds a semicolon, or is itself a list: it can't be told from several choices",
    Reason.TIME_RANGE: "the time lies outside 00:00 to 23:59:59.999",
    Reason.NUMBER_DIGITS: "Salesforce keeps numbers as doubles, and would change this one: an id goes in a text field",
    Reason.UNREADABLE: "the warehouse holds a value that its column's type has no place for here",
}


def why_unfit(reason: Reason, field: Field | None, longest: int = 0) -> str:
    """A reason's message with what the field takes, and with the length of the longest text that it refused."""
    if reason is Reason.LENGTH and field is not None and field.length:
        longest_is = f", and the longest has {longest:,}" if longest else ""
        return f"{reason.message}: it takes {field.length:,} characters{longest_is}"
    if reason is Reason.PICKLIST and field is not None and field.picklist:
        return f"{reason.message}: {listed(field.picklist, most=5)}"
    return reason.message


def unreadable_mark(column: str) -> str:
    """The name of the boolean column that a batch of a model's rows has beside `column` where the warehouse holds a
    value that the column's Arrow type has no place for: true there, and `column` is null. No database has such a name.
    """
    return f"\0unreadable {column}"


def unreadable(batch: pa.RecordBatch, column: str) -> Reasons | None:
    """The rows of the batch whose value of `column` can't be read, as `canonical` gives reasons."""
    mark = unreadable_mark(column)
    return reasons_of(batch.column(mark), Reason.UNREADABLE) if mark in batch.schema.names else None


def reasons_of(bad: pa.Array | npt.NDArray[np.bool_], reason: Reason) -> Reasons | None:
    flags = bad if isinstance(bad, np.ndarray) else pc.fill_null(bad, False).to_numpy(zero_copy_only=False)
    return flags.astype(np.uint8) * np.uint8(reason) if flags.any() else None


def merge(first: Reasons | None, second: Reasons | None) -> Reasons | None:
    if first is None or second is None:
        return second if first is None else first
    return np.where(first != 0, first, second)


def without(array: pa.Array, reasons: Reasons | None) -> tuple[pa.Array, Reasons | None]:
    if reasons is None:
        return array, None
    return pc.if_else(pa.array(reasons == 0), array, pa.scalar(None, array.type)), reasons
