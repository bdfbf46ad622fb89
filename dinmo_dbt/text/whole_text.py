"""Texts of others as texts that files, databases and terminals take. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_TORN = re.compile("[\0\ud800-\udfff]")
# Two, each of which begins with one octet: a search for that is six times quicker than one for either.
_ODD = (re.compile(rb"\\(?:(?:u|U0000)(?:0000|[dD][89a-fA-F])|x00|0)"), re.compile(rb"\xed[\xa0-\xbf]"))


def is_odd(raw: bytes | bytearray) -> bool:
    """Whether JSON or YAML text may hold what `whole` replaces."""
    return any(odd.search(raw) for odd in _ODD)


def whole(value: Any) -> Any:
    """JSON values without a half of a surrogate pair and without NUL: U+FFFD stands in their place."""
    if isinstance(value, str):
        return _TORN.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, dict):
        return {whole(name): whole(each) for name, each in value.items()}
    return value


def as_yaml(value: Any) -> str:
    """A value as one line of YAML, of characters that can be seen: JSON, but for what YAML can't read of it. JSON has
    two escapes for a character beyond the first 65,536, which YAML takes for two halves of nothing."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def whole_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, those too whose bytes are no UTF-8 text: U+FFFD stands for what is none."""
    return {name: whole(value) for name, value in environment.items()}
