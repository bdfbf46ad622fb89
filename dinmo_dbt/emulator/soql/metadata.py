"""The reply to `columns=true`, which `sf data query` asks for: what each column of a query is.

Source: the replies in the tests of @salesforce/plugin-data.
"""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.schema.definitions import Field
from dinmo_dbt.emulator.soql.query import Child, Item, Output, Query, TypeOf

Column = dict[str, Any]


def column_metadata(query: Query) -> Column:
    sobject = query.table.sobject
    groups = query.groups
    return {
        "columnMetadata": [_output(o) for o in groups.outputs] if groups is not None else _columns(query),
        "entityName": sobject.name, "groupBy": groups is not None and groups.keys is not None,
        "idSelected": any(i.path == ("Id",) for i in query.items), "keyPrefix": sobject.prefix,
    }  # fmt: skip


def _columns(query: Query) -> list[Column]:
    columns: list[Column] = []
    links = {p.path: p.link.name for p in query.parents}
    for selected in query.selected:
        if isinstance(selected, Child):
            child = {**_blank(selected.name), "aggregate": True, "joinColumns": _columns(selected.query)}
            columns.append(child)
            continue
        for item in (selected,) if isinstance(selected, Item) else _distinct(selected):
            _parent(columns, item.path[:-1], links).append(_metadata(item.path[-1], item.field))
    return columns


def _distinct(selected: TypeOf) -> list[Item]:
    return list({item.path: item for item in selected.items}.values())


def _parent(columns: list[Column], path: tuple[str, ...], links: dict[tuple[str, ...], str]) -> list[Column]:
    """The columns of a parent; each relationship is one column that joins them."""
    for depth, name in enumerate(path, 1):
        joined = next((c for c in columns if c["columnName"] == name and not c["aggregate"]), None)
        if joined is None:
            joined = {**_blank(name), "foreignKeyName": links[path[:depth]]}
            columns.append(joined)
        columns = joined["joinColumns"]
    return columns


def _blank(name: str) -> Column:
    return {
        "aggregate": False, "apexType": None, "booleanType": False, "columnName": name,
        "custom": name.endswith("__r"), "displayName": name, "foreignKeyName": None, "insertable": False,
        "joinColumns": [], "numberType": False, "textType": False, "updatable": False,
    }  # fmt: skip


def _metadata(name: str, field: Field) -> Column:
    return {
        **_blank(name), "apexType": field.kind.apex, "booleanType": field.type == "boolean",
        "custom": field.custom, "insertable": field.createable, "numberType": field.kind.is_number,
        "textType": field.kind.is_text, "updatable": field.updateable,
    }  # fmt: skip


def _output(output: Output) -> Column:
    if not output.aggregate:
        return _metadata(output.name, output.field)
    number = output.field.kind.is_number
    return {**_blank(output.name), "aggregate": True, "displayName": output.shown, "numberType": number}
