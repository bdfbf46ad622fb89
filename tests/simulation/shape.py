"""How a simulated model writes its keys and one of its columns: the same rows in other types and spellings."""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa

_FIRST_DAY = dt.date(2020, 1, 1)
_NUMBER = re.compile(r"\s*k?(\d+)(?:\.0+)?\s*", re.IGNORECASE)
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ][0:.]+Z?)?")


@dataclass(frozen=True)
class Keys:
    """One way to write row number n's key. Two of one `text` give the same text."""

    said: str
    text: str
    type: pa.DataType
    write: Callable[[int], object]


def _day(number: int) -> dt.date:
    return _FIRST_DAY + dt.timedelta(days=number)


_LETTERS = (
    Keys("text", "k7", pa.utf8(), lambda n: f"k{n}"),
    Keys("text in capitals", "K7", pa.utf8(), lambda n: f"K{n}"),
    Keys("text with blanks", " k7 ", pa.utf8(), lambda n: f" k{n} "),
    Keys("wide letters", "ｋ7", pa.utf8(), lambda n: f"ｋ{n}"),
    Keys("text in another layout", "k7", pa.large_utf8(), lambda n: f"k{n}"),
)
_NUMBERS = (
    Keys("whole numbers", "7", pa.int64(), lambda n: n),
    Keys("narrow numbers", "7", pa.int16(), lambda n: n),
    Keys("numbers as text", "7", pa.utf8(), str),
    Keys("decimals", "7", pa.decimal128(12, 2), Decimal),
    Keys("text with zeros before", "0007", pa.utf8(), lambda n: f"{n:04}"),
    Keys("text with zeros after", "7.00", pa.utf8(), lambda n: f"{n}.00"),
)
_DAYS = (
    Keys("dates", "day", pa.date32(), _day),
    Keys("dates as text", "day", pa.utf8(), lambda n: f"{_day(n)}"),
    Keys("timestamps", "moment", pa.timestamp("us"), lambda n: dt.datetime.combine(_day(n), dt.time())),
    Keys("timestamps as text", "moment as text", pa.utf8(), lambda n: f"{_day(n)} 00:00:00"),
)


@dataclass(frozen=True)
class Digits:
    """One way to write column b, eight digits. Types of one `form` are taken for one; the texts end in `tail`."""

    said: str
    form: str
    type: pa.DataType
    write: Callable[[str], object]
    tail: str = ""

    def is_told_from(self, before: Digits) -> bool:
        """Whether the values of before can be written in this type. What a text meant can't be."""
        return self.form == before.form or before.form != "text" or not self.tail


_DIGITS = (
    Digits("text", "text", pa.utf8(), str),
    Digits("whole numbers", "whole", pa.int64(), int),
    Digits("narrow numbers", "whole", pa.int32(), int),
    Digits("decimals without a scale", "whole", pa.decimal128(10, 0), Decimal),
    Digits("decimals", "scaled", pa.decimal128(12, 2), Decimal, ".00"),
)


class Shape:
    """What the model looks like now. Each seed draws by a stream of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"shape {seed}")
        self._family = self.random.choice((_LETTERS, _LETTERS, _NUMBERS, _DAYS))
        self.keys = self._family[0]
        self._digits = _DIGITS[0]

    def table(self, rows: list[dict[str, str | None]]) -> pa.Table:
        """Rows of the auditor as the model has them: its column names and the types of now."""
        texts = ("ext", "code", "a", "c", "p", "up")
        made = {name: pa.array([row[name] for row in rows], pa.utf8()) for name in texts}
        written = [self.keys.write(int((row["id"] or "")[1:])) for row in rows]
        made["id"] = pa.array(written, self.keys.type)
        digits = [None if row["b"] is None else self._digits.write(row["b"]) for row in rows]
        made["b"] = pa.array(digits, self._digits.type)
        return pa.table(made)

    def other_keys(self) -> Keys:
        return self.random.choice([keys for keys in self._family if keys is not self.keys])

    def change_digits(self) -> tuple[str, bool, bool]:
        """Another type of column b: how it is called, whether nothing is to be sent for it, and whether it can be known
        that the values are the same."""
        before = self._digits
        self._digits = now = self.random.choice([each for each in _DIGITS if each is not before])
        return now.said, now.form == before.form, now.is_told_from(before)

    def sent(self, b: str | None) -> str | None:
        """Column b's text, as it is written now."""
        return b if b is None else b + self._digits.tail


def key_of(text: str) -> str:
    """The auditor's key for a key in any of these spellings."""
    if day := _DAY.fullmatch(text):
        return f"k{(dt.date.fromisoformat(day[1]) - _FIRST_DAY).days}"
    number = _NUMBER.fullmatch(text.replace("ｋ", "k"))
    assert number, f"a key that the model never had: {text}"
    return f"k{int(number[1])}"
