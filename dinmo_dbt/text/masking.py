"""Salesforce's messages without the values that were sent: hidden however they are written. Pure.

`without_values`: Salesforce's message, with what the row sent replaced by ‹value›, whatever its length, also where the
message shows it changed: trimmed, cut, in another case, escaped, with other spaces or signs, rounded, a date in another
order. A value of up to three characters is replaced where it stands as a word.
"""

from __future__ import annotations

import bisect
import datetime as dt
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation

from dinmo_dbt.text.redaction import TEXT, VALUE

# A value's beginning of so many letters is found where a message cuts it; a shorter one may be any word.
_PART_LETTERS = 8
_WORD_LETTERS = 4
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
_CUT = re.compile(r"\.\.\.|…")
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?")
# Only letters and digits are compared, so one form stands for all that differ in other signs.
_DAY_FORMS = ("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%a %b %d", "%b %d, %Y", "%d %b %Y", "%B %d, %Y", "%d %B %Y",
              "%a, %d %b %Y")  # fmt: skip
_JSON = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_JSON_SIGNS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def without_values(message: str, sent: Iterable[str | None]) -> str:
    """The message, its HTML and JSON escapes undone, without what is in `sent`, the texts of one row's values."""
    text = _plain(message)
    hidden = bytearray(len(text))
    squeezed, places = _squeezed(text)
    for value in {_plain(value).strip() for value in sent if value} - {""}:
        for form in {value, *value.splitlines(), *_days(value)}:
            _hide(form, text, squeezed, places, hidden)
        _hide_numbers(value, text, hidden)
    shown = "".join("\x00" if mark else sign for sign, mark in zip(text, hidden, strict=True))
    return re.sub("\x00+", VALUE, shown)


# What Bulk API 2.0 says of a whole job, in Salesforce's own words; the exceptions are those of its guide.
_JOB_EXCEPTIONS = """
ClientInputError ExceededQuota FeatureNotEnabled InvalidBatch InvalidJob InvalidJobState InvalidOperation
InvalidSessionId InvalidUrl InvalidUser InvalidXML MethodNotAllowed NotFound Timeout TooManyLockFailure Unknown
"""
_JOB_KIND = re.compile(rf"\A((?:(?:{'|'.join(_JOB_EXCEPTIONS.split())}) : )*)")
_JOB_WORDS = re.compile(
    r"(?P<words>Field name not found|Unable to find relationship|Duplicate column|Failed to parse CSV|"
    r"Records not processed|LineEnding is invalid on user data|Exceeded max field size|Unable to create/update fields)"
    r"(?:(?P<between> ?: )(?P<name>[\w.]+?)(?:\.(?: .*)?)?|(?P<more>.*))",
    re.DOTALL,
)


def of_job(message: str, names: Sequence[str]) -> str:
    """What Salesforce says of a whole job, which may quote any row of it: its exception, known words, and a field, an
    object or a relationship of `names`; the rest is ‹text›."""
    kind = _JOB_KIND.match(message)
    rest = message[kind.end() :] if kind else message
    found = _JOB_WORDS.fullmatch(rest)
    if found is None:
        return (kind[1] if kind else "") + TEXT
    known = found["name"] if found["name"] in {part for name in names for part in (name, *name.split("."))} else TEXT
    tail = f"{found['between']}{known}" if found["name"] else f": {TEXT}" if found["more"] else ""
    return (kind[1] if kind else "") + found["words"] + tail


def _plain(text: str) -> str:
    """Without the escapes of HTML and JSON, and without the sign that stands for a value here."""
    text = _JSON.sub(_unescaped, html.unescape(html.unescape(text))).replace("\x00", " ")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # pairs are one sign, halves none


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    return chr(int(sign[1:], 16)) if len(sign) == 5 else _JSON_SIGNS.get(sign, sign)


def _squeezed(text: str) -> tuple[str, list[int]]:
    """The letters and digits alone, in one case, and where in the text each stands."""
    signs, places = [], []
    for place, sign in enumerate(text):
        if sign.isalnum():
            folded = sign.casefold()
            signs.append(folded)
            places += [place] * len(folded)
    return "".join(signs), places


def _hide(form: str, text: str, squeezed: str, places: list[int], hidden: bytearray) -> None:
    wanted = _squeezed(form)[0]
    stripped = form.strip()
    if len(wanted) >= _WORD_LETTERS:
        _hide_parts(wanted, stripped, text, squeezed, places, hidden)
    elif stripped.isalnum() or len(stripped) > 1:
        before, after = (r"(?<!\w)" if stripped[0].isalnum() else "", r"(?!\w)" if stripped[-1].isalnum() else "")
        for found in re.finditer(before + re.escape(stripped) + after, text, re.IGNORECASE):
            hidden[found.start() : found.end()] = b"\x01" * len(found[0])
    for cut in _CUT.finditer(text):
        _hide_before(cut.start(), wanted, squeezed, places, hidden)


def _hide_before(cut: int, wanted: str, squeezed: str, places: list[int], hidden: bytearray) -> None:
    """A beginning of the value, two letters at least, right before the sign that it was cut."""
    known = bisect.bisect_left(places, cut)
    for length in range(min(len(wanted), known), 1, -1):
        if squeezed.startswith(wanted[:length], known - length):
            first = places[known - length]
            hidden[first:cut] = b"\x01" * (cut - first)
            return


def _hide_parts(wanted: str, form: str, text: str, squeezed: str, places: list[int], hidden: bytearray) -> None:
    """All places of the value, and of its beginning as far as it goes where it is cut."""
    least = min(len(wanted), _PART_LETTERS)
    start = squeezed.find(wanted[:least])
    while start >= 0:
        end = start + least
        while end < len(squeezed) and end - start < len(wanted) and squeezed[end] == wanted[end - start]:
            end += 1
        first, last = places[start], places[end - 1] + 1
        # Letters of several words that happen to follow one another are no value of one word.
        if len(form.split()) > 1 or len(text[first:last].split()) == 1 or end - start >= _PART_LETTERS:
            hidden[first:last] = b"\x01" * (last - first)
        start = squeezed.find(wanted[:least], end)


def _days(value: str) -> Iterator[str]:
    """A date or a time as other orders write it."""
    found = _DAY.match(value)
    if found is None:
        return
    try:
        day = dt.date(*(int(part) for part in found.groups()[:3]))
    except ValueError:
        return
    for form in _DAY_FORMS:
        written = day.strftime(form)
        yield written
        yield re.sub(r"\b0(?=\d\b)", "", written)
    yield found[0][:10]
    if found[4]:
        yield f"{found[4]}:{found[5]}"


def _hide_numbers(value: str, text: str, hidden: bytearray) -> None:
    """Numbers in the message that are the value, or the value with fewer digits."""
    number = _number(value)
    if number is None:
        return
    for found in _NUMBER.finditer(text):
        shown = _number(found[0])
        if shown is not None and (shown == number or _is_rounded(number, shown)):
            hidden[found.start() : found.end()] = b"\x01" * len(found[0])


def _number(text: str) -> Decimal | None:
    if not _NUMBER.fullmatch(text) or len(text) > 100:
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def _is_rounded(number: Decimal, shown: Decimal) -> bool:
    """Whether `shown` is the number rounded or cut, with three digits at least: shorter ones are anything's."""
    digits, exponent = len(shown.normalize().as_tuple().digits), shown.as_tuple().exponent
    return digits >= 3 and isinstance(exponent, int) and abs(number - shown) < Decimal(1).scaleb(exponent)
