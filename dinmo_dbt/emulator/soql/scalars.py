"""Texts of literals in the form in which their field is stored."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

from dinmo_dbt.emulator.soql.syntax import malformed


def number(raw: str) -> float:
    number = float(raw)
    if not math.isfinite(number):  # text unverified
        raise malformed(f"line 1: number out of range: {raw}")
    return number


# What Salesforce says of a day that does not exist is unverified.
def day(raw: str) -> str:
    try:
        return date.fromisoformat(raw).isoformat()
    except ValueError as error:
        raise malformed(f"line 1: invalid date: {raw}") from error


def moment(raw: str) -> str:
    text = raw.upper().replace("Z", "+00:00")
    if re.search(r"[+-]\d{4}$", text):
        text = f"{text[:-2]}:{text[-2:]}"
    text = re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found[1].ljust(6, "0"), text)
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise malformed(f"line 1: invalid dateTime: {raw}") from error
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


def time(raw: str) -> str:
    try:
        moment = datetime.fromisoformat("2000-01-01T" + raw.upper().replace("Z", "")[:12])
    except ValueError as error:
        raise malformed(f"line 1: invalid time: {raw}") from error
    return moment.time().isoformat("milliseconds") + "Z"
