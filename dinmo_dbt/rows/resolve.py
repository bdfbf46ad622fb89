"""An activation against the object's schema: which column feeds which field, and everything that can't be. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyarrow as pa

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import (
    COLUMN_TYPE,
    INSERT_OF_UNIQUE,
    MATCH_NOT_SEARCHABLE,
    NOT_AN_EXTERNAL_ID,
    OBJECT_NOT_WRITABLE,
    REQUIRED_FIELD,
)
from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.rows import values
from dinmo_dbt.rows.columns import Columns
from dinmo_dbt.rows.constants import constant, constant_of_removed
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.fields import check_writable, missing_field, setup_of
from dinmo_dbt.rows.forms import key_form, text_form, type_name
from dinmo_dbt.rows.mapping import Constant, MappedColumn, Mapping
from dinmo_dbt.rows.parent_paths import parent_path
from dinmo_dbt.rows.resolution import Resolution


def object_of(activation: Activation, describe: Callable[[str], ObjectSchema]) -> ObjectSchema:
    """The activation's object. ConfigError, at its place in the activation, if the org lacks it."""
    try:
        return describe(activation.object)
    except ConfigError as error:
        error.put(lambda _: f"{activation.meta_path}.object")
        raise


def resolve(
    activation: Activation, schema: ObjectSchema, parent: Callable[[str], ObjectSchema], relation: pa.Schema | None
) -> tuple[Mapping | None, tuple[Problem, ...]]:
    """The activation's mapping, or every problem that keeps it from being one.

    `parent` describes a parent object. `relation` is the model's real schema; None when it has not been seen
    (`validate --online`), in which case the declared column names stand.
    """
    work = Resolution(Columns(activation, relation), schema, parent)
    mapping = _mapping(work)
    return (None, tuple(work.problems)) if work.problems else (mapping, ())


def _mapping(work: Resolution) -> Mapping | None:
    _check_rights(work)
    key = tuple(name for name in map(work.columns.key_column, work.activation.key) if name)
    match = _match_column(work)
    columns = [_field_column(work, m.column, m.field, m.nulls == "keep") for m in work.activation.fields]
    constants = [constant(work, name, value, "constants") for name, value in work.activation.constants]
    removed = [constant_of_removed(work, name, value) for name, value in work.activation.on_removed_set]
    found = tuple(sorted((c for c in columns if c), key=lambda column: column.header))
    kept = tuple(sorted((c for c in constants if c), key=lambda constant: constant.header))
    _check_required(work, match, found, kept)
    _check_unique(work, found)
    if work.problems:
        return None
    mapping = Mapping(key, match, found, kept, tuple(c for c in removed if c))
    if work.relation is None:
        return mapping
    kinds = {name: work.relation.field(name) for name in mapping.sources}
    return dataclasses.replace(
        mapping,
        key_forms=tuple(key_form(kinds[name]) for name in key),
        types=tuple((name, type_name(kind)) for name, kind in kinds.items()),
    )


def _check_rights(work: Resolution) -> None:
    name, mode = work.schema.name, work.activation.mode
    removed = work.activation.on_removed
    rights = [
        (work.writes_new, work.schema.createable, "create"),
        (work.writes_known or removed == "set", work.schema.updateable, "edit"),
        (mode is Mode.DELETE or removed == "delete", work.schema.deletable, "delete"),
    ]
    for needed, given, right in rights:
        if needed and not given:
            hint = f"Setup > Users > Permission Sets > Object Settings > {work.schema.label}: tick {right.title()}"
            work.problem(OBJECT_NOT_WRITABLE, f"the user may not {right} {name} records", "object", hint)


def _match_column(work: Resolution) -> MappedColumn | None:
    match = work.activation.match
    if match is None:
        return None
    key = f"match.{match.column}"
    source = work.columns.source_column(match.column, key)
    field = work.schema.field(match.field)
    if field is None:
        missing_field(work, work.schema, match.field, key)
        return None
    by_external_id = field.name == "Id" or field.identifies
    if work.activation.mode is Mode.UPSERT and not match.create and not by_external_id:
        hint = (
            f"{_external_id(work.schema, field)} (and Unique), "
            f"or write match: {{{match.column}: {field.name}, create: true}}"
        )
        work.problem(
            NOT_AN_EXTERNAL_ID,
            f"{work.schema.name}.{field.name} is not an external id, so it can't upsert",
            key,
            hint,
        )
    if field.name != "Id" and not field.filterable:
        work.problem(MATCH_NOT_SEARCHABLE, f"{work.schema.name}.{field.name} can't be searched, so it can't match", key)
    if work.activation.mode is Mode.UPSERT and field.name != "Id":
        check_writable(work, work.schema, field, key)
    if _typed(work, source, field, key) is None:
        return None
    assert source is not None
    return MappedColumn(source, field.name, field, form=_form(work, source, field))


def _external_id(schema: ObjectSchema, field: Field) -> str:
    """How a field becomes an external id: Salesforce allows that of custom fields of a few types."""
    if field.name.lower().endswith("__c") and type_of(field).can_be_external_id:
        return f"{setup_of(schema, field)} > Edit: tick External ID"
    new = f"Setup > Object Manager > {schema.label} > Fields & Relationships > New"
    return f"{field.name} can't be one; {new} makes a field of type Text, Number or Email: tick External ID"


def _field_column(work: Resolution, column: str, target: str, keep_nulls: bool) -> MappedColumn | None:
    key = f"fields.{column}"
    source = work.columns.source_column(column, key)
    if "." in target:
        resolved = parent_path(work, target, key)
        if resolved is None:
            return None
        header, field, lookup = resolved
    else:
        found = work.schema.field(target)
        if found is None:
            missing_field(work, work.schema, target, key)
            return None
        check_writable(work, work.schema, found, key)
        header, field, lookup = found.name, found, None
    source = _typed(work, source, field, key)
    return MappedColumn(source, header, field, keep_nulls, lookup, _form(work, source, field)) if source else None


def _check_required(
    work: Resolution, match: MappedColumn | None, columns: tuple[MappedColumn, ...], constants: tuple[Constant, ...]
) -> None:
    if not work.writes_new:
        return
    sent = {column.lookup.name if column.lookup else column.header for column in columns}
    sent |= {constant.header for constant in constants}
    if match:
        sent.add(match.header)
    # A field that is given and was refused is reported by that: it is not missing.
    act = work.activation
    given = [name for name, _ in act.constants] + [mapped.field for mapped in act.fields]
    given += [act.match.field] if act.match else []
    sent |= {field.name for name in given if (field := _given_field(work, name)) is not None}
    for field in work.schema.fields.values():
        if field.required_on_create and not type_of(field).is_checkbox and field.name not in sent:
            hint = f"map a column to {field.name}, or give it under constants"
            work.problem(
                REQUIRED_FIELD, f"{work.schema.name}.{field.name} is required to create records", "fields", hint
            )


def _given_field(work: Resolution, name: str) -> Field | None:
    """The field that a name of the activation's means, or the lookup that its parent path goes by."""
    path, _, _ = name.rpartition(".")
    return work.schema.relationship(path.rpartition(":")[2]) if path else work.schema.field(name)


def _check_unique(work: Resolution, columns: tuple[MappedColumn, ...]) -> None:
    if work.activation.mode is not Mode.INSERT or work.activation.on_change == "ignore":
        return
    for column in columns:
        if column.field.unique and column.lookup is None:
            message = f"{work.schema.name}.{column.header} is unique, so a changed row can't become a new record"
            work.problem(
                INSERT_OF_UNIQUE, message, f"fields.{column.source}", "set on_change: ignore, or use mode: upsert"
            )


def _typed(work: Resolution, source: str | None, field: Field, key: str) -> str | None:
    if source and work.relation is not None:
        reason = values.why_not(work.relation.field(source).type, field)
        if reason:
            work.problem(COLUMN_TYPE, f"{source} -> {work.schema.name}.{field.name}: {reason}", key)
            return None
    return source


def _form(work: Resolution, source: str, field: Field) -> str:
    return text_form(work.relation.field(source), field) if work.relation is not None else ""
