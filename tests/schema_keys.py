"""The keys of a JSON Schema, each with its forms: what a document can say, line by line.

`fields.<name>.nulls: keep` is one; `[]` is any item of a list, `<name>` any name. A form is an enumerated value, true
or false, text, number or null: a key that takes several has a line for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

ALL: Any = object()

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "null": (type(None),),
}
_CALLED = {"string": "text", "number": "number", "integer": "number", "null": "null"}


def lines(node: Any, root: dict[str, Any], path: str = "", *, given: Any = ALL, whole: str = "") -> Iterator[str]:
    """All lines of a schema, or those that a document `given` has. The definition called `whole` is one line."""
    if node is True:
        yield f"{path}: anything"
        return
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name == whole:
            yield f"{path}: {name}"
            return
        node = root["$defs"][name]
    if "anyOf" in node:
        for each in node["anyOf"]:
            yield from lines(each, root, path, given=given, whole=whole)
    elif "enum" in node or "const" in node:
        values = node.get("enum") or [node["const"]]
        equal = [value for value in values if type(value) is type(given) and value == given]  # false is not 0
        yield from (f"{path}: {value}" for value in (values if given is ALL else equal))
    elif node["type"] == "object":
        named, other = node.get("properties", {}), node.get("additionalProperties", True)
        inside: dict[str, Any] = {**named, **({"<name>": other} if other is not False else {})}
        for key, inner in inside.items():
            below = f"{path}.{key}" if path else key
            if given is ALL:
                yield from lines(inner, root, below, whole=whole)
            elif isinstance(given, dict):
                for name in given:
                    if name == key or (key == "<name>" and name not in named):
                        yield from lines(inner, root, below, given=given[name], whole=whole)
    elif node["type"] == "array":
        for item in [ALL] if given is ALL else given if isinstance(given, list) else []:
            yield from lines(node["items"], root, f"{path}[]", given=item, whole=whole)
    else:
        for kind in [node["type"]] if isinstance(node["type"], str) else node["type"]:
            if kind == "boolean":
                for word, value in (("true", True), ("false", False)):
                    if given is ALL or given is value:
                        yield f"{path}: {word}"
            elif given is ALL or _is(given, kind, node.get("pattern", "")):
                yield f"{path}: {_CALLED[kind]}"


def _is(given: Any, kind: str, pattern: str) -> bool:
    fits = isinstance(given, _TYPES[kind]) and not isinstance(given, bool)
    return fits and (not pattern or re.search(pattern, given) is not None)


def put(document: Any, key: str, value: Any) -> Any:
    """The document with that value at a dotted key; `0` is a list with this one item."""
    head, _, rest = key.partition(".")
    if head == "0":
        first = document[0] if isinstance(document, list) else {}
        return [put(first, rest, value) if rest else value]
    kept = document if isinstance(document, dict) else {}
    return {**kept, head: put(kept.get(head), rest, value) if rest else value}
