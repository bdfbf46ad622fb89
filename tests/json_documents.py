"""Whether JSON that we printed or left is what the published schema says, to the key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = json.loads((Path(__file__).parent.parent / "dinmo_dbt" / "documents.schema.json").read_bytes())
_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?[^ ]*")
_SINCE_2001 = range(10**9, 4 * 10**9)


def _closed(schema: Any) -> Any:
    """The schema without room for keys that it does not name: what we print is all there."""
    if isinstance(schema, dict):
        return {
            key: False if key == "additionalProperties" and value is True and "properties" in schema else _closed(value)
            for key, value in schema.items()
        }
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema


def _named(name: str) -> jsonschema.Draft202012Validator:
    closed = _closed(deepcopy(SCHEMA))
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": closed["$defs"]})


VALIDATORS = {name: _named(name) for name in (each["$ref"].rpartition("/")[2] for each in SCHEMA["anyOf"])}


def of_command(command: str) -> str:
    """The name of a command's document in the schema."""
    for name in VALIDATORS:
        told = SCHEMA["$defs"][name]["properties"].get("command", {})
        if command in (told.get("const"), *told.get("enum", ())):
            return name
    raise AssertionError(f"{command} has no document in the schema")


def hold(document: dict[str, Any], name: str = "") -> None:
    """AssertionError where the document is not as published: a key more or less, a value of another type, a time that
    is not in the one form."""
    failed = "exit_code" in document and "problems" in document and "activations" not in document
    validator = VALIDATORS[name or ("Failure" if failed else of_command(document["command"]))]
    wrong = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)]
    assert not wrong, (validator.schema["$ref"], wrong)
    for path, value in _values(document, ""):
        if isinstance(value, str) and not path.endswith(_OF_OTHERS):
            assert not _LIKE_A_TIME.fullmatch(value) or value.endswith("Z"), (path, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert int(value) not in _SINCE_2001, (path, value)


_OF_OTHERS = (".now", ".then", ".model", ".salesforce", ".key", ".old", ".new", ".left", ".came", "]")  # row values


def _values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _values(each, f"{path}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _values(each, f"{path}[{number}]")
    else:
        yield path, value
