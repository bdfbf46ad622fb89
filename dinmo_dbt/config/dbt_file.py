"""The JSON Schema of a dbt YAML file, for editors: dbt's own keys are free, a `dinmo` block where dbt hands it on is
checked.

One schema for properties files, where `models:` is a list, and for dbt_project.yml, where it is folders.
"""

from __future__ import annotations

from typing import Any

from dinmo_dbt.config import block
from dinmo_dbt.config.written import RESOURCES

# dbt renders these texts itself; only then are they what the block's types ask for.
_RENDERED: dict[str, Any] = {"type": "string", "pattern": r"\{\{|\{%"}


def json_schema() -> dict[str, Any]:
    """JSON Schema of any YAML file of a dbt project."""
    own = block.json_schema()
    inner = own.pop("$defs")
    definitions = {name: _with_rendered(definition) for name, definition in {**inner, "dinmo": own}.items()}
    definitions["dinmo"].pop("$schema")
    held = {"properties": {"meta": {"$ref": "#/$defs/meta"}}}
    definitions |= {
        "meta": {"properties": {"dinmo": _whole_or_rendered({"$ref": "#/$defs/dinmo"})}},
        "resource": {
            "properties": {
                **held["properties"],
                "config": held,
                "versions": {"items": {"properties": {"config": held}}},
            }
        },
        "folder": {
            "properties": {"+meta": {"$ref": "#/$defs/meta"}, "meta": {"$ref": "#/$defs/meta"}},
            "additionalProperties": {"$ref": "#/$defs/folder"},
        },
    }
    section = {"items": {"$ref": "#/$defs/resource"}, **definitions["folder"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A YAML file of a dbt project, with dinmo blocks",
        "properties": dict.fromkeys(RESOURCES, section),
        "$defs": definitions,
    }


def _whole_or_rendered(schema: dict[str, Any]) -> dict[str, Any]:
    """A mapping or list, or a text that becomes one. Said by `if`, so that an editor names the key that is wrong."""
    return {"if": {"type": "string"}, "then": _RENDERED, "else": schema}


def _or_rendered(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that dbt may render: with a text in its place, if it takes none by itself."""
    described = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in described}
    kind = schema.get("type")
    if "enum" in schema or "const" in schema or "pattern" in schema or kind in ("boolean", "integer", "number"):
        return {**described, "anyOf": [bare, _RENDERED]}
    if "anyOf" in schema:
        return {**described, "anyOf": [*map(_or_rendered, schema["anyOf"]), _RENDERED]}
    if "$ref" in schema or kind in ("object", "array"):
        return {**described, **_whole_or_rendered(_with_rendered(bare))}
    return schema


def _with_rendered(schema: dict[str, Any]) -> dict[str, Any]:
    """A mapping's or list's schema, with values that dbt may render."""
    inner = dict(schema)
    if "properties" in schema:
        inner["properties"] = {name: _or_rendered(value) for name, value in schema["properties"].items()}
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            inner[key] = _or_rendered(schema[key])
    return inner
