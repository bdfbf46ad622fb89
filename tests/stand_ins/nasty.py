"""A table that is hard to carry, the same in every warehouse, and what Salesforce holds of it afterwards."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from e2e.lab import EXTERNAL, NUMBER, TEXT

LONG = "<type>LongTextArea</type><length>131072</length><visibleLines>3</visibleLines>"
CHOICES = (
    "<type>MultiselectPicklist</type><visibleLines>3</visibleLines><valueSet><valueSetDefinition><sorted>false</sorted>"
    + "".join(f"<value><fullName>{each}</fullName><label>{each}</label></value>" for each in ("red", "blue"))
    + "</valueSetDefinition></valueSet>"
)
FIELDS = {
    "Key__c": TEXT.format(20) + EXTERNAL,
    "Text__c": LONG,
    "Whole__c": TEXT.format(40),
    "Exact__c": TEXT.format(60),
    "Amount__c": NUMBER.format(9),
    "Ratio__c": TEXT.format(40),
    "Flag__c": "<type>Checkbox</type><defaultValue>true</defaultValue>",
    "Day__c": "<type>Date</type>",
    "Clock__c": "<type>Time</type>",
    "Local__c": "<type>DateTime</type>",
    "Moment__c": "<type>DateTime</type>",
    "Json__c": LONG,
    "Choices__c": CHOICES,
}
COLUMNS = (
    "key",
    "text",
    "whole",
    "exact",
    "amount",
    "ratio",
    "flag",
    "day",
    "clock",
    "local",
    "moment",
    "json",
    "choices",
)
EMPTY = "<empty>"  # a seed has no way to say it
INVALID = "control"  # Salesforce takes no control character
ROWS = (
    ("full", "é 'single' \"double\" \\ back, 日本 😀\u200d; a\tb\r\nc $1 %s {{ x }} -- /* ", "9007199254740993",
     "12345678901234567890.123456789", "-1.5", "0.1", "true", "2024-02-29", "23:59:59.999999",
     "2024-02-29 23:59:59.123999", "2024-02-29 23:59:59.123999", '{"a": [1, null, "é"]}', "red;blue"),
    ("zero", EMPTY, "0", "0", "0", "0", "false", "1970-01-01", "00:00:00", "1969-12-31 23:59:59.999",
     "1969-12-31 23:59:59.999", '"plain"', "red"),
    ("null", *[""] * 12),
    ("edge", " in between ", "-9223372036854775808", "-0.000000001", "999999999", "1e-7", "false", "1700-01-01",
     "00:00:00.001", "4000-12-31 23:59:59.999999", "1700-01-01 00:00:00", "null", "blue"),
    (INVALID, "a\x01b", *[""] * 11),
)  # fmt: skip
# Numbers go as text with the places of their column. Salesforce keeps moments to the second, times to the thousandth.
HELD: dict[str, dict[str, Any]] = {
    "full": {
        "Text__c": "é 'single' \"double\" \\ back, 日本 😀\u200d; a\tb\nc $1 %s {{ x }} -- /*",
        "Whole__c": "9007199254740993",
        "Exact__c": "12345678901234567890.123456789",
        "Amount__c": -1.5,
        "Ratio__c": "0.1",
        "Flag__c": True,
        "Day__c": "2024-02-29",
        "Clock__c": "23:59:59.999Z",
        "Local__c": "2024-02-29T23:59:59.000+0000",
        "Moment__c": "2024-02-29T23:59:59.000+0000",
        "Json__c": {"a": [1, None, "é"]},
        "Choices__c": "red;blue",
    },
    "zero": {
        "Text__c": None,
        "Whole__c": "0",
        "Exact__c": "0",
        "Amount__c": 0,
        "Ratio__c": "0",
        "Flag__c": False,
        "Day__c": "1970-01-01",
        "Clock__c": "00:00:00.000Z",
        "Local__c": "1969-12-31T23:59:59.000+0000",
        "Moment__c": "1969-12-31T23:59:59.000+0000",
        "Json__c": "plain",
        "Choices__c": "red",
    },
    "null": dict.fromkeys([name for name in FIELDS if name not in ("Key__c", "Flag__c")]) | {"Flag__c": False},
    "edge": {
        "Text__c": "in between",
        "Whole__c": "-9223372036854775808",
        "Exact__c": "-0.000000001",
        "Amount__c": 999999999,
        "Ratio__c": "0.0000001",
        "Flag__c": False,
        "Day__c": "1700-01-01",
        "Clock__c": "00:00:00.001Z",
        "Local__c": "4000-12-31T23:59:59.000+0000",
        "Moment__c": "1700-01-01T00:00:00.000+0000",
        "Json__c": None,
        "Choices__c": "blue",
    },
}


def seed() -> str:
    """The rows as a CSV file of text; the model that stands on it gives them their types."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([COLUMNS, *ROWS])
    return written.getvalue()


def upsert(name: str, its_object: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """An activation of all columns but these."""
    fields = {column: f"{column.title()}__c" for column in COLUMNS if column not in ("key", *without)}
    return {
        "name": name, "destination": "crm", "object": its_object, "mode": "upsert", "match": {"key": "Key__c"},
        "fields": fields,
    }  # fmt: skip


def as_held(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as `HELD` has it: JSON by what it means, for each warehouse writes it in its own way."""
    found = {name: record[name] for name in FIELDS if name != "Key__c" and name in record}
    text = found.get("Json__c")
    return found | ({"Json__c": json.loads(text)} if text and text[0] in "{[" else {})
