"""The data rules of Salesforce, restated for tests: what a value becomes in a field, or why it is refused.

Written from the API's documents and recorded replies, not from the emulator: plain Python, a value at a time. Two doors
read differently: JSON (`json_verdict`), and the cells of a Bulk file (`cell_verdict`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

BLANKS = "".join(map(chr, range(33)))
TEXTS = ("Text", "TextArea", "LongTextArea", "Url", "Phone", "Email", "Picklist", "MultiselectPicklist")
NUMBERS = ("Number", "Currency", "Percent")
LINKS = ("Lookup", "MasterDetail")
READ_ONLY = ("AutoNumber", "Formula")
LENGTHS = {"TextArea": 255, "Url": 255, "Phone": 40, "Email": 80, "Picklist": 255, "MultiselectPicklist": 4099}
TYPES = {
    "Number": "double", "Currency": "currency", "Percent": "percent", "Checkbox": "boolean", "Date": "date",
    "DateTime": "datetime", "Time": "time",
}  # fmt: skip
XSD = {"Date": "date", "DateTime": "dateTime", "Time": "time"}
CLOSED = (
    "Unable to create/update fields: {}. Please check the security settings of this field and verify that it is "
    "read/write for your profile or permission set."
)


@dataclass(frozen=True)
class Rule:
    """A field as a test declares it, in the words of Salesforce's metadata."""

    name: str
    kind: str
    length: int = 0
    precision: int = 18
    scale: int = 0
    required: bool = False
    unique: bool = False
    case_sensitive: bool = False
    external_id: bool = False
    values: tuple[str, ...] = ()
    inactive: tuple[str, ...] = ()
    restricted: bool = False
    default: Any = None
    closed: bool = False
    shown: str = ""  # its label, where that is not its name

    @property
    def label(self) -> str:
        return self.shown or self.name.removesuffix("__c").replace("_", " ")

    @property
    def read_only(self) -> bool:
        return self.closed or self.kind in READ_ONLY

    @property
    def longest(self) -> int:
        return self.length or LENGTHS.get(self.kind, 0)

    def declared(self) -> dict[str, Any]:
        """The field in a schema document."""
        if self.kind == "Formula":
            return {"type": "Number", "formula": "1 + 1", "precision": 18, "scale": 0}
        spec: dict[str, Any] = {"type": self.kind}
        if self.length:
            spec["length"] = self.length
        if self.kind in NUMBERS:
            spec |= {"precision": self.precision, "scale": self.scale}
        if self.values:
            active = [{"value": v, "default": v == self.default} for v in self.values]
            spec |= {"values": active + [{"value": v, "active": False} for v in self.inactive]}
            spec["restricted"] = self.restricted
        elif self.default is not None:
            spec["default"] = self.default
        for flag in ("required", "unique", "case_sensitive", "external_id"):
            if getattr(self, flag):
                spec[flag] = True
        if self.kind == "Lookup":
            spec |= {"to": "Account", "relationship_name": f"{self.label}s"}
        if self.kind == "MasterDetail":
            spec |= {"to": "Boss__c", "relationship_name": f"{self.label}s"}
        if self.closed:
            spec["access"] = "read"
        return spec


@dataclass(frozen=True)
class Refusal:
    """An error a row may get."""

    code: str
    message: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a value is once stored, or the errors it may get. A value that is not `given` leaves the field alone."""

    stored: Any = None
    refused: tuple[Refusal, ...] = ()
    given: bool = True


@dataclass
class World:
    """The records a lookup may meet: each id's state ("live" or "deleted") by the object it may point to."""

    known: dict[str, dict[str, str]] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)  # accounts by Code__c


def json_verdict(rule: Rule, value: Any, world: World, *, single: bool) -> Verdict:
    """A value of a JSON record. One that can't be read refuses the whole request where that is a single record."""
    if rule.kind in READ_ONLY:
        return Verdict()
    if rule.kind in TEXTS:
        return _text(rule, None if value is None else str(value))
    if rule.kind in LINKS:
        return _link(rule, None if value is None else value.strip() or None, world)
    if value is None:
        return Verdict(False if rule.kind == "Checkbox" else None)
    token = "VALUE_STRING"
    if isinstance(value, bool) and rule.kind != "Checkbox":
        token = f"VALUE_{str(value).upper()}"
    elif not isinstance(value, (bool, str)) and rule.kind not in NUMBERS:
        token = "VALUE_NUMBER_INT" if isinstance(value, int) else "VALUE_NUMBER_FLOAT"
    shown = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
    numeric = rule.kind == "Checkbox" and shown.strip(BLANKS) in ("0", "1")
    if shown.strip(BLANKS) and not numeric and token == "VALUE_STRING":
        verdict = _scalar(rule, shown.strip(BLANKS))
        if verdict is not None:
            return verdict
    if token == "VALUE_STRING" and shown.strip(BLANKS):
        shown = shown.strip(BLANKS)
    place = "[line:1, column:1]" if single else "[Source: N/A; line: -1, column: -1][line:-1, column:-1]"
    message = (
        f"Cannot deserialize instance of {TYPES[rule.kind]} from {token} value {shown} or request may be missing a "
        f"required field at {place}"
    )
    return Verdict(refused=(Refusal("JSON_PARSER_ERROR", message),))


def cell_verdict(rule: Rule, cell: str, world: World, column: int) -> Verdict:
    """A cell of a Bulk file: empty leaves the field alone, `#N/A` clears it."""
    if cell == "":
        return Verdict(given=False)
    text = None if cell == "#N/A" else cell
    if rule.kind in READ_ONLY:
        return Verdict()
    if rule.kind in TEXTS:
        return _text(rule, text)
    if rule.kind in LINKS:
        return _link(rule, text, world)
    if text is None or not text.strip(BLANKS):
        return Verdict(False if rule.kind == "Checkbox" else None)
    text = text.strip(BLANKS)
    verdict = _scalar(rule, text)
    if verdict is not None:
        return verdict
    if rule.kind == "Checkbox":
        reason = f"'{text}' is not valid for type xsd:boolean, should be '0', '1', 'true' or 'false'"
    else:
        reason = f"'{text}' is not a valid value for the type xsd:{XSD.get(rule.kind, 'double')}"
    message = f"Failed to deserialize field at col {column}. Due to, {reason}"
    return Verdict(refused=(Refusal("INVALID_FIELD", message),))


def key_verdict(link: Rule, key: str | None, world: World) -> Verdict:
    """A lookup given by its account's external id, `Link__r.Code__c`."""
    key = (key or "").strip(BLANKS)
    if not key:
        return Verdict(None)
    hits = world.keys.get(key, [])
    if not hits:
        message = f"Foreign key external ID: {key} not found for field Code__c in entity Account"
        return Verdict(refused=(Refusal("INVALID_FIELD", message),))
    if len(hits) > 1:
        message = f"Code__c: more than one record found for external id field: [{', '.join(hits)}]"
        return Verdict(refused=(Refusal("DUPLICATE_EXTERNAL_ID", message, ("Code__c",)),))
    return Verdict(hits[0])


def _text(rule: Rule, text: str | None) -> Verdict:
    text = (text or "").strip(BLANKS)
    if not text:
        return Verdict(None)
    refused = []
    if rule.kind == "Email":
        if re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", text) is None:
            message = f"{rule.label}: invalid email address: {text}"
            refused.append(Refusal("INVALID_EMAIL_ADDRESS", message, (rule.name,)))
        text = text.lower()
    if rule.restricted:
        parts = text.split(";") if rule.kind == "MultiselectPicklist" else [text]
        if not set(parts) <= set(rule.values):
            message = f"{rule.label}: bad value for restricted picklist field: {text}"
            refused.append(Refusal("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, (rule.name,)))
    if len(text) > rule.longest:
        message = f"{rule.label}: data value too large: {text} (max length={rule.longest})"
        refused.append(Refusal("STRING_TOO_LONG", message, (rule.name,)))
    return Verdict(text, tuple(refused))


def _link(rule: Rule, text: str | None, world: World) -> Verdict:
    if text is None:
        return Verdict(None)
    target = "Account" if rule.kind == "Lookup" else "Boss__c"
    short, known = text[:15], {rid[:15]: (rid, state) for rid, state in world.known[target].items()}
    formed = re.fullmatch(r"[A-Za-z0-9]{15}|[A-Za-z0-9]{18}", text) is not None and text[15:] in ("", suffix(short))
    if not formed or text[:3] != world.prefixes[target]:
        message = f"{rule.label}: id value of incorrect type: {text}"
        return Verdict(refused=(Refusal("MALFORMED_ID", message, (rule.name,)),))
    if short not in known:
        return Verdict(refused=(Refusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"),))
    if known[short][1] == "deleted":
        return Verdict(refused=(Refusal("ENTITY_IS_DELETED", "entity is deleted"),))
    return Verdict(known[short][0])


def suffix(short: str) -> str:
    """The three characters behind a 15-character id: one for each five, a bit for each capital."""
    found = ""
    for start in (0, 5, 10):
        bits = "".join("1" if char.isupper() else "0" for char in reversed(short[start : start + 5]))
        found += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[int(bits, 2)]
    return found


def _scalar(rule: Rule, text: str) -> Verdict | None:
    """None where the text can't be read as the field's type."""
    if rule.kind == "Checkbox":
        return {"true": Verdict(True), "1": Verdict(True), "false": Verdict(False), "0": Verdict(False)}.get(
            text.lower()
        )
    if rule.kind in NUMBERS:
        return _number(rule, text)
    if rule.kind == "Time":
        found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,3}))?Z", text, re.A)
        return None if found is None else Verdict(f"{text[:8]}.{(found[4] or '0').ljust(3, '0')}Z")
    try:
        if rule.kind == "Date":
            if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.A) is None:
                return None
            day = date.fromisoformat(text)
            return Verdict(text) if 1700 <= day.year <= 4000 else None
        form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)"
        if re.fullmatch(form, text, re.A) is None:
            return None
        whole = re.sub(r"\.\d+", "", text).replace("Z", "+00:00")
        whole = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", whole)
        moment = datetime.fromisoformat(whole).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return Verdict(moment.strftime("%Y-%m-%dT%H:%M:%S.000+0000")) if 1700 <= moment.year <= 4000 else None


def _number(rule: Rule, text: str) -> Verdict | None:
    if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text, re.A) is None:
        return None
    try:
        exact = Decimal(text)
    except InvalidOperation:
        return None
    stored = float(text)
    if abs(exact) >= Decimal(10) ** (rule.precision - rule.scale):
        shown = text if stored in (float("inf"), float("-inf")) else java(stored)
        message = f"{rule.label}: value outside of valid range on numeric field: {shown}"
        return Verdict(refused=(Refusal("NUMBER_OUTSIDE_VALID_RANGE", message, (rule.name,)),))
    return Verdict(stored)


def compared(rule: Rule, stored: Any) -> Any:
    """A value as uniqueness compares it: without case unless the field regards it."""
    return stored.lower() if isinstance(stored, str) and not rule.case_sensitive else stored


def matched(rule: Rule, stored: Any) -> Any:
    """A value as an upsert finds its record: without case only if unique and case-insensitive."""
    folded = rule.unique and not rule.case_sensitive
    return stored.lower() if isinstance(stored, str) and folded else stored


def csv_says(rule: Rule, stored: Any, text: str) -> bool:
    """Whether a Bulk query's cell is this stored value: Java's doubles, dateTimes with Z, null as nothing."""
    if stored is None:
        return text == ""
    if isinstance(stored, bool):
        return text == str(stored).lower()
    if isinstance(stored, float):
        return text == java(stored)
    return text == (stored.replace("+0000", "Z") if rule.kind == "DateTime" else stored)


def java(number: float) -> str:
    """Java's text of a double: the shortest digits, with an E from 10^7 on and below 10^-3."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    point = len(text) + exponent  # where the point lies in the digits
    if text == "0":
        return "-0.0" if sign else "0.0"
    if -2 <= point <= 7:
        text = "0" * (1 - point) + text if point < 1 else text.ljust(point, "0")
        whole = max(point, 1)
        shown = f"{text[:whole]}.{text[whole:] or '0'}"
    else:
        shown = f"{text[0]}.{text[1:] or '0'}E{point - 1}"
    return "-" * sign + shown
