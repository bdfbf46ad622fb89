"""What a user writes by hand, read strictly: one pydantic base, and its errors in our words.

`activation` and `project` describe their documents as `Strict` models; this module turns every validation error into
a `Problem` with a path, a stable code and the nearest valid key. Nothing here knows a key of either document.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from dinmo_dbt.codes import MISPLACED_KEY, NOT_ALLOWED, REQUIRED_KEY, UNKNOWN_KEY, WRONG_TYPE
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.whole_text import as_yaml

Path = tuple[str | int, ...]
"""Where in a document: mapping keys and list positions from its root."""


PROBLEMS_MAX = 50

_SECRET_KEY = re.compile(
    r"(^|[_\-. ])(pass(word|wd|phrase)?|secret|(api|access|private|security|refresh|auth|bearer|session)[_\-. ]?"
    r"(key|token|id)|client[_\-. ]?secret|credentials?|token)([_\-. ]|$)",
    re.IGNORECASE,
)
# Shapes that are secrets wherever they stand: a PEM key, a Salesforce session id, a Slack token or webhook, a JWT.
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b00D[A-Za-z0-9]{12,15}![A-Za-z0-9_.]{20,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|hooks\.slack\.com/services/\w|\beyJ[\w-]{10,}\.[\w-]{10,}|\bAKIA[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}",
)


class Strict(BaseModel):
    """A mapping with these keys and no others; no value is coerced; an empty value is not the same as none."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, populate_by_name=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_given(cls, value: object) -> object:
        if value is None:
            raise wrong(WRONG_TYPE, "expected a value, got nothing (null)", hint="remove the key, or give it a value")
        return value


def wrong(code: str, message: str, *, hint: str = "") -> PydanticCustomError:
    """An error for a validator to raise; `problems` carries code, message and hint over unchanged."""
    # Through the context: the message may hold braces of the user's, which a template would try to fill.
    return PydanticCustomError("dinmo", "{message}", {"code": code, "message": message, "hint": hint})


def wrong_type(expected: str, value: object) -> PydanticCustomError:
    """The DB111 error for a value of another type; says so when YAML made a boolean or a number of a bare word."""
    return wrong(WRONG_TYPE, _mismatch(expected, value))


def text(value: object) -> str:
    """Text that is not empty and is Unicode."""
    if not isinstance(value, str):
        raise wrong_type("text", value)
    if not value.strip():
        raise wrong(NOT_ALLOWED, "expected text, got empty text")
    if any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in value):
        raise wrong(NOT_ALLOWED, "the text is not valid Unicode")
    return value


def problems(error: ValidationError, *, model: type[BaseModel], where: Callable[[Path], str]) -> list[Problem]:
    """Each validation error as a `Problem`, in the order of the document's keys as pydantic met them."""
    return [_problem(details, model, where) for details in error.errors(include_url=False)]


_CLOSE, MISSPELT = 0.6, 0.8  # how much of two words is the same


def near(word: str, words: Iterable[str], *, count: int = 1, least: float = _CLOSE) -> list[str]:
    """The valid words closest to a mistyped one, best first; the comparison ignores case and punctuation. `least`: how
    close, `MISSPELT` for words that may well both be right."""
    folded: dict[str, str] = {}
    for candidate in words:
        folded.setdefault(_fold(candidate), candidate)
    return [folded[match] for match in difflib.get_close_matches(_fold(word), list(folded), n=count, cutoff=least)]


def near_names(name: str, names: Iterable[str], *, count: int = 1) -> list[str]:
    """The API names that are nearly this one, best first: misspelt, or longer or shorter by an end. What all of them
    end with (`__c`, `__r`) makes none near."""
    word = _without_end(name)
    bare: dict[str, str] = {}
    for candidate in names:
        bare.setdefault(_without_end(candidate), candidate)
    close = difflib.get_close_matches(word, list(bare), n=count, cutoff=0.75)
    longer = [other for other in bare if min(len(other), len(word)) > 3 and _begins(word, other)]
    return [bare[match] for match in dict.fromkeys((*close, *sorted(longer, key=len)))][:count]


def _begins(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)


def _without_end(name: str) -> str:
    return _fold(re.sub("__[a-z]+$", "", name.lower()))


def did_you_mean(word: str, words: Iterable[str], *, least: float = _CLOSE) -> str:
    """` did you mean 'x'?` or, without a near match, an empty text."""
    match = near(word, words, least=least)
    return f"; did you mean {show(match[0])}?" if match else ""


_URL_USER, _URL_QUERY = re.compile(r"://[^/?#\s]*@"), re.compile(r"(://[^?\s]*)\?\S+")


def show(text: object) -> str:
    """Text from outside in quotes, on one line, without control characters, at most 80 characters; a URL without its
    user and its query, which may be secrets."""
    bare = _URL_QUERY.sub(r"\1?‹…›", _URL_USER.sub("://‹…›@", str(text)))
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in bare[:81])
    return f"'{plain[:77]}...'" if len(plain) > 80 else f"'{plain}'"


def listed(words: Iterable[object], *, most: int = 8) -> str:
    """`'a', 'b' and 3 more`."""
    names = [show(word) for word in words]
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def dotted(path: Path) -> str:
    """`activations[0].fields.plan`; a key that would be ambiguous stands in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part if re.fullmatch(r"[\w+-]+", part) else show(part)
            text += f".{plain}" if text else plain
    return text


def looks_secret(key: str) -> bool:
    """Whether a key is named like a secret (`client_secret`, `api-key`, `password`)."""
    return _SECRET_KEY.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)) is not None


def holds_secret(text: str) -> bool:
    """Whether a text has the shape of a well-known kind of secret."""
    return _SECRET_TEXT.search(text) is not None


def kind(value: object) -> str:
    """What a value is, in YAML's words. Shows booleans and numbers, which explain themselves; never text."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"boolean {str(value).lower()}"
        case int():
            return f"whole number {value}" if abs(value) < 10**18 else "a very large whole number"
        case float():
            return f"number {value}"
        case str():
            return "text" if value else "empty text"
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
    return type(value).__name__


def percent(value: object) -> Decimal:
    """`5%` or `0.5%` as a decimal between 0 and 100."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", value)):
        number = Decimal(match[1])
        if number <= 100:
            return number
        raise wrong(NOT_ALLOWED, f"{show(value)} is more than 100%")
    if isinstance(value, str):
        raise wrong(NOT_ALLOWED, "expected a percentage from 0% to 100%, such as 5%")
    raise wrong(WRONG_TYPE, f"expected a percentage such as 5%, got {kind(value)}")


def without_null(schema: Any) -> None:
    """Take `null` out of a generated JSON Schema, in place: here an optional key is absent, never null."""
    if isinstance(schema, dict):
        options = schema.get("anyOf")
        if isinstance(options, list) and {"type": "null"} in options:
            rest = [option for option in options if option != {"type": "null"}]
            del schema["anyOf"]
            schema.update(rest[0] if len(rest) == 1 else {"anyOf": rest})
            if schema.get("default", "") is None:
                del schema["default"]
    inner = list(schema.values()) if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    for value in inner:
        without_null(value)


def _problem(details: ErrorDetails, model: type[BaseModel], where: Callable[[Path], str]) -> Problem:
    path: Path = tuple(part for part in details["loc"] if part != "[key]")
    kind_of_error, context, value = details["type"], details.get("ctx", {}), details.get("input")
    last = path[-1] if path else ""
    match kind_of_error:
        case "dinmo":
            return Problem(str(context["code"]), str(context["message"]), where(path), str(context.get("hint", "")))
        case "extra_forbidden":
            valid = keys_at(model, path[:-1])
            if looks_secret(str(last)):
                message = f"a secret has no place here: {show(last)}{did_you_mean(str(last), valid)}"
                return Problem(MISPLACED_KEY, message, where(path), "secrets come from env_var() in dinmo.yml")
            hint = f"valid keys: {', '.join(valid)}" if valid and not near(str(last), valid) else ""
            return Problem(UNKNOWN_KEY, f"unknown key {show(last)}{did_you_mean(str(last), valid)}", where(path), hint)
        case "missing":
            return Problem(REQUIRED_KEY, f"{show(last)} is required", where(path[:-1]))
        case "literal_error":
            allowed = _allowed(model, path)
            if not isinstance(value, str):
                return Problem(WRONG_TYPE, _mismatch("text", value), where(path))
            hint = f"allowed: {', '.join(allowed)}"
            shown = "this value" if looks_secret(str(last)) else show(value)
            return Problem(NOT_ALLOWED, f"{shown} is not allowed{did_you_mean(value, allowed)}", where(path), hint)
    expected = _EXPECTED.get(kind_of_error)
    if expected:
        return Problem(WRONG_TYPE, _mismatch(expected, value), where(path))
    return Problem(NOT_ALLOWED, str(details["msg"]).removeprefix("Value error, "), where(path))


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def is_another_number(text: str, value: object) -> bool:
    """Whether YAML made a number of a text that isn't that number in decimal: `0755` is 493, `12:30:00` is 45000, and a
    number with a point and 25 digits is the nearest double."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return Decimal(text) != Decimal(str(value))
    except (ArithmeticError, ValueError):
        return True


def misread(text: str, value: object) -> tuple[str, str]:
    """What to say of such a number, and the way out."""
    way = f"put it in quotes, as in '{text[:20]}', if it is text; a number is written in decimal"
    return f"YAML reads {show(text)} as {kind(value)}", way


def unquoted(value: bool | float, text: str | None = None) -> str:
    """What to do about a value that YAML made of a bare word; `text`: that word, where it is known."""
    is_truth = isinstance(value, bool)
    spelled = f": {as_yaml(text)}" if text is not None else ", as in 'NO'" if is_truth else ", as in '0755'"
    if is_truth:
        return f"put the value in quotes{spelled}. YAML reads bare yes, on and true as true, no, off and false as false"
    return f"put the value in quotes{spelled}. YAML reads a bare 0755 as 493, 1.10 as 1.1, 12:30:00 as 45000"


def unquoted_key(name: str) -> str:
    """The same of a key, if it is one that YAML may have made of a bare word: dbt hands it on as text."""
    if name in ("true", "false"):
        return "put the name in quotes, as in 'no': YAML reads bare yes, on, no and off as true and false"
    if re.fullmatch(r"null|-?[0-9][0-9.e+]*", name):
        return "put the name in quotes: YAML reads a bare 0755 as 493, 1.10 as 1.1, ~ as null"
    return ""


def _mismatch(expected: str, value: object) -> str:
    named = expected.startswith(("text", "a column", "a field name"))
    bare_word = named and isinstance(value, bool | int | float)
    return f"expected {expected}, got {kind(value)}" + ("; put the word in quotes" if bare_word else "")


def keys_at(model: type[BaseModel], path: Path) -> tuple[str, ...]:
    """The keys that the mapping at `path` may have; none where keys are the user's own."""
    found = _type_at(model, path)
    if isinstance(found, type) and issubclass(found, BaseModel):
        return tuple(info.alias or name for name, info in found.model_fields.items())
    return ()


def _allowed(model: type[BaseModel], path: Path) -> tuple[str, ...]:
    found = _type_at(model, path)
    return tuple(str(value) for value in get_args(found)) if get_origin(found) is Literal else ()


def _type_at(model: type[BaseModel], path: Path) -> Any:
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {info.alias or name: info.annotation for name, info in current.model_fields.items()}
            current = _bare(fields.get(str(part)))
        elif get_origin(current) is dict:
            current = _bare(get_args(current)[1])
        elif get_origin(current) in (list, tuple):
            current = _bare(get_args(current)[0])
        else:
            return None
    return current


def _bare(annotation: Any) -> Any:
    """The annotation without Annotated; of a union the mapping, else the first member."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            options = [option for option in get_args(annotation) if option is not type(None)]
            annotation = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), options[0])
        else:
            return annotation


def _fold(word: str) -> str:
    return re.sub(r"[^0-9a-z]", "", word[:200].lower())
