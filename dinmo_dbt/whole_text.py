"""Texts of others as texts that files, databases and terminals take. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TORN = re.compile("[\0\ud800-\udfff]")
_ODD = re.compile(rb"\\(?:(?:u|U0000)(?:0000|[dD][89a-fA-F])|x00|0)|\xed[\xa0-\xbf]")


def is_odd(raw: bytes | bytearray) -> bool:
    """Whether JSON or YAML text may hold what `whole` replaces."""
    return _ODD.search(raw) is not None


def whole(value: Any) -> Any:
    """JSON values without a half of a surrogate pair and without NUL: U+FFFD stands in their place."""
    if isinstance(value, str):
        return _TORN.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, dict):
        return {whole(name): whole(each) for name, each in value.items()}
    return value


def whole_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, those too whose bytes are no UTF-8 text: U+FFFD stands for what is none."""
    return {name: whole(value) for name, value in environment.items()}
