"""An activation against the object's schema: which model column feeds which field, and everything that can't be.

Pure. The resolved `Mapping` is what change detection hashes and what a snapshot's header stores.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import pyarrow as pa

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import (
    COLUMN_TYPE,
    CONSTANT_DOES_NOT_FIT,
    FIELD_COMPUTED,
    FIELD_NOT_WRITABLE,
    INSERT_OF_UNIQUE,
    LABEL_NOT_NAME,
    LOOKUP_TARGET,
    MATCH_NOT_SEARCHABLE,
    NO_FIELD,
    NO_RELATIONSHIP,
    NOT_AN_EXTERNAL_ID,
    OBJECT_NOT_WRITABLE,
    PARENT_NOT_NAMED_BY,
    REQUIRED_FIELD,
)
from dinmo_dbt.config import declaration
from dinmo_dbt.destination import Field, ObjectSchema, PayloadColumn
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.rows import values
from dinmo_dbt.rows.columns import Columns
from dinmo_dbt.rows.forms import in_form, key_form, text_form, type_name
from dinmo_dbt.rows.keys import key_parts, spelling
from dinmo_dbt.rows.numbers import NUMBER_TYPES
from dinmo_dbt.rows.reasons import Reason, why_unfit
from dinmo_dbt.rows.rowhash import HASH_VERSION
from dinmo_dbt.rows.texts import ID_TYPES, TEXT_TYPES

# The canonical kinds a stored mapping names; each stands for all field types with that canonical form.
_KINDS = {"text": "string", "id": "reference", "number": "double"}
# Whose values are written as text: anything else in the manifest is what YAML made of a bare word.
_WRITTEN = TEXT_TYPES | ID_TYPES | {"date", "datetime", "time"}
_AUDIT_FIELDS = frozenset({"CreatedById", "CreatedDate", "LastModifiedById", "LastModifiedDate"})
_KEPT_BY_SALESFORCE = _AUDIT_FIELDS | {
    "Id", "IsDeleted", "LastActivityDate", "LastReferencedDate", "LastViewedDate", "MasterRecordId", "SystemModstamp",
}  # fmt: skip
_EXTERNAL_ID_TYPES = frozenset({"string", "double", "email"})  # describe's words for Text, Number and Email
_DESCRIBED = [field.name for field in dataclasses.fields(Field) if field.name != "label"]


@dataclass(frozen=True, slots=True)
class Column:
    """One model column, in the relation's own case, and the field it feeds under its wire header."""

    source: str
    header: str
    field: Field
    keep_nulls: bool = False
    lookup: Field | None = None  # the lookup field behind a parent path
    form: str = ""  # how the column's type is written as text (`text_form`)

    @property
    def kind(self) -> str:
        if self.field.type in TEXT_TYPES:
            return "text"
        if self.field.type in ID_TYPES:
            return "id"
        return "number" if self.field.type in NUMBER_TYPES else self.field.type

    @property
    def written(self) -> Field:
        """The field of the object itself."""
        return self.lookup or self.field

    def goes(self, makes: bool) -> bool:
        """Whether it is sent with a row that makes a record, or with one whose record is there."""
        return self.written.createable if makes else self.written.updateable

    def payload(self) -> PayloadColumn:
        return PayloadColumn(self.header, self.field, self.keep_nulls)

    def by_id(self) -> PayloadColumn:
        """The same with the parent's record id in the place of what names it."""
        return PayloadColumn(self.written.name, self.written, self.keep_nulls)

    def stored(self) -> list[Any]:
        return [self.source, self.header, self.kind, self.keep_nulls, self.form]


def as_written(arrays: Sequence[pa.Array], columns: Sequence[Column]) -> list[pa.Array] | None:
    """Canonical values as the columns' types of then would have written them; None where one was written to a text
    field, and is to another now."""
    forms = [column.form for column in columns]
    if any(form and not pa.types.is_string(array.type) for array, form in zip(arrays, forms, strict=True)):
        return None
    return [in_form(array, form) if form else array for array, form in zip(arrays, forms, strict=True)]


@dataclass(frozen=True, slots=True)
class Constant:
    """One value that every row sends: a one-element canonical array."""

    header: str
    field: Field
    value: pa.Array

    def goes(self, makes: bool) -> bool:
        """As `Column.goes`."""
        return self.field.createable if makes else self.field.updateable

    def payload(self) -> PayloadColumn:
        return PayloadColumn(self.header, self.field)

    def stored(self) -> list[Any]:
        return [self.header, values.text(self.value, self.field)[0].as_py()]


@dataclass(frozen=True)
class Mapping:
    """Key, match, columns (sorted by header) and constants of one activation, resolved against its object.

    `removed` is what `on_removed: {set: ...}` writes; rows of the segment are not compared by it, so it is not stored.
    `key_forms`: how each key column's type is written (`key_form`). `types`: each source column and its type in
    words (`type_name`), to tell of a change; a type of the same form as before changes no hash.
    """

    key: tuple[str, ...]
    match: Column | None
    columns: tuple[Column, ...]
    constants: tuple[Constant, ...] = ()
    removed: tuple[Constant, ...] = ()
    key_forms: tuple[str, ...] = ()
    types: tuple[tuple[str, str], ...] = ()

    def header(self) -> dict[str, Any]:
        """The stored form: JSON values, from which `from_header` gives a mapping with the same digest."""
        return {**self._hashed(), "types": dict(self.types)}

    def _hashed(self) -> dict[str, Any]:
        return {
            "hash_version": HASH_VERSION,
            "key": list(self.key),
            "match": self.match.stored() if self.match else None,
            "columns": [column.stored() for column in self.columns],
            "constants": [constant.stored() for constant in self.constants],
            "key_forms": list(self.key_forms),
        }

    @cached_property
    def digest(self) -> int:
        """64 bits over the stored form; seeds the check hash, so hashes of two mappings never agree by accident."""
        stored = json.dumps(self._hashed(), sort_keys=True, separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(stored.encode()).digest()[:8], "little")

    def described(self, schema: ObjectSchema) -> str:
        """A digest of what describe says of the mapped fields, and of those a record can't be made without: what a row
        was refused for may have changed once this has."""
        columns = (*((self.match,) if self.match else ()), *self.columns)
        fields = [field for column in columns for field in (column.field, column.lookup) if field is not None]
        fields += [constant.field for constant in self.constants]
        required = sorted(field.name for field in schema.fields.values() if field.required_on_create)
        rights = [schema.createable, schema.updateable, schema.deletable]
        said = [[getattr(field, name) for name in _DESCRIBED] for field in fields]
        return hashlib.sha256(json.dumps([said, required, rights]).encode()).hexdigest()[:16]

    @property
    def sources(self) -> tuple[str, ...]:
        """Every model column that is read, once, in a stable order."""
        match = (self.match.source,) if self.match else ()
        return tuple(dict.fromkeys((*self.key, *match, *(column.source for column in self.columns))))

    @property
    def is_partial(self) -> bool:
        """Whether some fields are written on new records only, or only on those that are there already."""
        return not all(each.goes(True) and each.goes(False) for each in self.sent)

    @property
    def field_of(self) -> dict[str, Field]:
        """The field of each header of a column, the match among them."""
        columns = (*self.columns, *([self.match] if self.match else []))
        return {column.header: column.field for column in columns}

    @property
    def sent(self) -> tuple[Column | Constant, ...]:
        return (*self.columns, *self.constants)

    def added_since(self, older: Mapping) -> tuple[frozenset[str], frozenset[str]]:
        """Headers of the columns, the match among them, and of the constants that `older` did not send in this form, as
        far as a record that is there takes them."""
        known = [column.stored() for column in older.columns]
        columns = frozenset(c.header for c in self.columns if c.goes(False) and c.stored() not in known)
        if self.match and self.match_moved_since(older):
            columns |= {self.match.header}
        known = [constant.stored() for constant in older.constants]
        return columns, frozenset(c.header for c in self.constants if c.goes(False) and c.stored() not in known)

    def match_moved_since(self, older: Mapping) -> bool:
        """Whether the same match values are other texts than they were."""
        return (self.match and self.match.stored()) != (older.match and older.match.stored())

    def spelling(self, keys: pa.Array) -> pa.Array:
        """One text for all spellings of a key, column by column."""
        return spelling(*key_parts(keys, len(self.key)))

    def retyped_since(self, older: Mapping) -> list[tuple[str, str, str]]:
        """Source columns of another type than they had: name, type before, type now."""
        before = dict(older.types)
        return [(name, before[name], now) for name, now in self.types if before.get(name, now) != now]


def from_header(header: dict[str, Any]) -> Mapping:
    """A stored mapping, good for computing its check hashes; its fields know only their kind."""

    def column(stored: list[Any]) -> Column:
        source, name, kind, keep_nulls, form = stored
        field = Field(name=name, label=name, type=_KINDS.get(kind, kind))
        return Column(source, name, field, keep_nulls, form=form)

    def constant(stored: list[Any]) -> Constant:
        name, text = stored
        return Constant(name, Field(name=name, label=name, type="string"), pa.array([text], pa.utf8()))

    return Mapping(
        key=tuple(header["key"]),
        match=column(header["match"]) if header["match"] else None,
        columns=tuple(column(stored) for stored in header["columns"]),
        constants=tuple(constant(stored) for stored in header["constants"]),
        key_forms=tuple(header["key_forms"]),
        types=tuple(header["types"].items()),
    )


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
    work = _Resolution(activation, schema, parent, relation)
    mapping = work.mapping()
    return (None, tuple(work.problems)) if work.problems else (mapping, ())


class _Resolution(Columns):
    def __init__(
        self,
        activation: Activation,
        schema: ObjectSchema,
        parent: Callable[[str], ObjectSchema],
        relation: pa.Schema | None,
    ) -> None:
        super().__init__(activation, relation)
        self.schema, self.parent = schema, parent
        by_id = activation.match is not None and activation.match.field.lower() == "id"  # never makes a record
        self.writes_new = activation.mode is Mode.INSERT or (activation.mode is Mode.UPSERT and not by_id)
        self.writes_known = activation.mode in (Mode.UPDATE, Mode.UPSERT)

    def mapping(self) -> Mapping | None:
        self.object_rights()
        key = tuple(name for name in map(self.key_column, self.activation.key) if name)
        match = self.match_column()
        columns = [self.field_column(m.column, m.field, m.nulls == "keep") for m in self.activation.fields]
        constants = [self.constant(name, value, "constants") for name, value in self.activation.constants]
        removed = [self.removed(name, value) for name, value in self.activation.on_removed_set]
        found = tuple(sorted((c for c in columns if c), key=lambda column: column.header))
        kept = tuple(sorted((c for c in constants if c), key=lambda constant: constant.header))
        self.required_fields(match, found, kept)
        self.unique_fields(found)
        if self.problems:
            return None
        mapping = Mapping(key, match, found, kept, tuple(c for c in removed if c))
        if self.relation is None:
            return mapping
        kinds = {name: self.relation.field(name) for name in mapping.sources}
        return dataclasses.replace(
            mapping,
            key_forms=tuple(key_form(kinds[name]) for name in key),
            types=tuple((name, type_name(kind)) for name, kind in kinds.items()),
        )

    # The object

    def object_rights(self) -> None:
        name, mode = self.schema.name, self.activation.mode
        removed = self.activation.on_removed
        rights = [
            (self.writes_new, self.schema.createable, "create"),
            (self.writes_known or removed == "set", self.schema.updateable, "edit"),
            (mode is Mode.DELETE or removed == "delete", self.schema.deletable, "delete"),
        ]
        for needed, given, right in rights:
            if needed and not given:
                hint = f"Setup > Users > Permission Sets > Object Settings > {self.schema.label}: tick {right.title()}"
                self.problem(OBJECT_NOT_WRITABLE, f"the user may not {right} {name} records", "object", hint)

    # Fields

    def typed(self, source: str | None, field: Field, key: str) -> str | None:
        if source and self.relation is not None:
            reason = values.why_not(self.relation.field(source).type, field)
            if reason:
                self.problem(COLUMN_TYPE, f"{source} -> {self.schema.name}.{field.name}: {reason}", key)
                return None
        return source

    def match_column(self) -> Column | None:
        match = self.activation.match
        if match is None:
            return None
        key = f"match.{match.column}"
        source = self.source_column(match.column, key)
        field = self.schema.field(match.field)
        if field is None:
            self.missing_field(self.schema, match.field, key)
            return None
        by_external_id = field.name == "Id" or field.identifies
        if self.activation.mode is Mode.UPSERT and not match.create and not by_external_id:
            hint = (
                f"{_external_id(self.schema, field)} (and Unique), "
                f"or write match: {{{match.column}: {field.name}, create: true}}"
            )
            self.problem(
                NOT_AN_EXTERNAL_ID,
                f"{self.schema.name}.{field.name} is not an external id, so it can't upsert",
                key,
                hint,
            )
        if field.name != "Id" and not field.filterable:
            self.problem(
                MATCH_NOT_SEARCHABLE, f"{self.schema.name}.{field.name} can't be searched, so it can't match", key
            )
        if self.activation.mode is Mode.UPSERT and field.name != "Id":
            self.writable(self.schema, field, key)
        if self.typed(source, field, key) is None:
            return None
        assert source is not None
        return Column(source, field.name, field, form=self.form(source, field))

    def field_column(self, column: str, target: str, keep_nulls: bool) -> Column | None:
        key = f"fields.{column}"
        source = self.source_column(column, key)
        if "." in target:
            resolved = self.parent_path(target, key)
            if resolved is None:
                return None
            header, field, lookup = resolved
        else:
            found = self.schema.field(target)
            if found is None:
                self.missing_field(self.schema, target, key)
                return None
            self.writable(self.schema, found, key)
            header, field, lookup = found.name, found, None
        source = self.typed(source, field, key)
        return Column(source, header, field, keep_nulls, lookup, self.form(source, field)) if source else None

    def form(self, source: str, field: Field) -> str:
        return text_form(self.relation.field(source), field) if self.relation is not None else ""

    def parent_path(self, target: str, key: str) -> tuple[str, Field, Field] | None:
        """`Customer__r.Customer_Id__c`: its exact header, the parent's field, and our lookup field."""
        path, _, named_by = target.rpartition(".")
        type_name, _, relationship = path.rpartition(":")
        lookup = self.schema.relationship(relationship)
        if lookup is None:
            known = [f.relationship_name for f in self.schema.fields.values() if f.relationship_name]
            near = declaration.near_names(relationship, known)
            hint = "a lookup Parent__c is reached as Parent__r" + (f". Did you mean {near[0]}?" if near else "")
            self.problem(NO_RELATIONSHIP, f"{self.schema.name} has no relationship {relationship}", key, hint)
            return None
        self.writable(self.schema, lookup, key)
        if len(lookup.reference_to) > 1 and not type_name:
            choices = ", ".join(f"{name}:{relationship}.{named_by}" for name in lookup.reference_to[:3])
            self.problem(LOOKUP_TARGET, f"{relationship} may point to several objects: say which, as in {choices}", key)
            return None
        if type_name and len(lookup.reference_to) == 1:
            self.problem(
                LOOKUP_TARGET, f"{relationship} points to one object only: write {relationship}.{named_by}", key
            )
            return None
        parents = {name.lower(): name for name in lookup.reference_to}
        if type_name and type_name.lower() not in parents:
            message = f"{relationship} does not point to {type_name}, but to {', '.join(lookup.reference_to)}"
            self.problem(LOOKUP_TARGET, message, key)
            return None
        type_name = parents[type_name.lower()] if type_name else ""
        try:
            parent = self.parent(type_name or lookup.reference_to[0])
        except ConfigError as error:
            self.problems += [told.at(lambda _: f"{self.activation.meta_path}.{key}") for told in error.problems]
            return None
        field = parent.field(named_by)
        if field is None:
            self.missing_field(parent, named_by, key)
            return None
        if field.name == "Id" or not field.filterable:
            self.problem(
                PARENT_NOT_NAMED_BY,
                f"{parent.name}.{field.name} can't name a parent",
                key,
                _named_by(parent, field, lookup),
            )
            return None
        prefix = f"{type_name}:" if type_name else ""
        return f"{prefix}{lookup.relationship_name}.{field.name}", field, lookup

    def removed(self, name: str, value: Any) -> Constant | None:
        """A constant for records of rows that left: edited, whatever the mode, and empty if null."""
        field = self.schema.field(name)
        if value is None and field is not None and not field.nillable:
            message = f"{self.schema.name}.{field.name} can't be emptied: it is required, or a checkbox"
            self.problem(CONSTANT_DOES_NOT_FIT, message, f"on_removed.set.{name}")
            return None
        return self.constant(name, value, "on_removed.set")

    def constant(self, name: str, value: Any, under: str) -> Constant | None:
        key = f"{under}.{name}"
        field = self.schema.field(name)
        if field is None:
            self.missing_field(self.schema, name, key)
            return None
        self.writable(self.schema, field, key, edited_only=under != "constants")
        text = self.activation.bare.get(key)
        if not isinstance(value, str | None) and field.type in _WRITTEN:
            what = f"{declaration.kind(value)} is no text for {self.schema.name}.{field.name} ({field.type})"
            self.problem(CONSTANT_DOES_NOT_FIT, what, key, declaration.unquoted(value, text))
            return None
        if text is not None and _is_other(text, value, field):
            what = f"YAML reads {declaration.show(text)} as {'null' if value is None else declaration.show(value)}"
            hint = "null alone empties a field; put any other text in quotes" if value is None else "put it in quotes"
            self.problem(CONSTANT_DOES_NOT_FIT, what, key, hint)
            return None
        array = _constant_array(value, field)
        if array is None:
            what = f"{value!r} is no value for {self.schema.name}.{field.name} ({field.type})"
            self.problem(CONSTANT_DOES_NOT_FIT, what, key, _in_decimal(value, field))
            return None
        canonical, reasons = values.canonical(array, field)
        if reasons is not None:
            longest = len(value) if isinstance(value, str) else 0
            reason = why_unfit(Reason(int(reasons[0])), field, longest)
            self.problem(
                CONSTANT_DOES_NOT_FIT, f"{value!r} is no value for {self.schema.name}.{field.name}: {reason}", key
            )
            return None
        return Constant(field.name, field, canonical)

    def missing_field(self, schema: ObjectSchema, name: str, key: str) -> None:
        labelled = [f.name for f in schema.fields.values() if f.label.lower() == name.lower()]
        if labelled:
            self.problem(LABEL_NOT_NAME, f"{name!r} is a label; its API name is {labelled[0]}", key)
            return
        near = declaration.near_names(name, schema.fields)
        hint = f"Setup > Object Manager > {schema.label} > Fields & Relationships > New creates it"
        hint += "; if it exists, the user lacks field-level security on it"
        hint += f". Did you mean {near[0]}?" if near else ""
        hint = declaration.unquoted_key(name) or hint
        self.problem(NO_FIELD, f"{schema.name} has no field {name} that the user may see", key, hint)

    def writable(self, schema: ObjectSchema, field: Field, key: str, *, edited_only: bool = False) -> None:
        """An upsert needs one of the two rights: a field that is written on new records only, or on those alone that
        are there, goes with those rows."""
        name, new, known = f"{schema.name}.{field.name}", self.writes_new and not edited_only, self.writes_known
        known = known or edited_only
        computed = field.calculated or field.auto_number
        if not computed and ((new and field.createable) or (known and field.updateable)):
            return
        if computed:
            what = "an auto-number" if field.auto_number else "a formula or roll-up"
            hint = "take it out of the mapping" + ("" if field.auto_number else ", and map the fields it is made of")
            self.problem(FIELD_COMPUTED, f"{name} is {what}: Salesforce computes it", key, hint)
        elif parts := _parts(schema, field):
            message = f"{name} is put together by Salesforce of {', '.join(parts)}"
            self.problem(FIELD_COMPUTED, message, key, f"map columns to {', '.join(parts)}")
        elif field.name in _KEPT_BY_SALESFORCE:
            hint = "take it out of the mapping" + (
                "; a user with the permission Set Audit Fields upon Record Creation may give it to new records"
                if field.name in _AUDIT_FIELDS
                else ""
            )
            self.problem(FIELD_NOT_WRITABLE, f"{name} is kept by Salesforce itself", key, hint)
        elif field.createable:
            hint = "map it with mode: upsert or insert, which send it with new records"
            if field.is_master and field.name.lower().endswith("__c"):
                hint += f"; or let details move: {_setup(schema, field)} > Edit: tick Allow reparenting"
            what = "a master-detail field: it" if field.is_master else "a field that"
            self.problem(FIELD_NOT_WRITABLE, f"{name} is {what} takes a value on new records only", key, hint)
        elif field.updateable:
            message = f"{name} is a field that takes a value only on records that are there"
            self.problem(
                FIELD_NOT_WRITABLE, message, key, "map it with mode: update or upsert, which send it with known records"
            )
        else:
            rights = " or ".join(word for needed, word in ((new, "created"), (known, "edited")) if needed)
            hint = f"{_setup(schema, field)} > Set Field-Level Security: Visible, not Read-Only"
            self.problem(FIELD_NOT_WRITABLE, f"{name} can't be {rights} by the user", key, hint)

    # The whole row

    def required_fields(
        self, match: Column | None, columns: tuple[Column, ...], constants: tuple[Constant, ...]
    ) -> None:
        if not self.writes_new:
            return
        sent = {column.lookup.name if column.lookup else column.header for column in columns}
        sent |= {constant.header for constant in constants}
        if match:
            sent.add(match.header)
        # What is given and was refused is told by that: it is not missing.
        act = self.activation
        given = [name for name, _ in act.constants] + [mapped.field for mapped in act.fields]
        given += [act.match.field] if act.match else []
        sent |= {field.name for name in given if (field := self.given_field(name)) is not None}
        for field in self.schema.fields.values():
            if field.required_on_create and field.type != "boolean" and field.name not in sent:
                hint = f"map a column to {field.name}, or give it under constants"
                self.problem(
                    REQUIRED_FIELD, f"{self.schema.name}.{field.name} is required to create records", "fields", hint
                )

    def given_field(self, name: str) -> Field | None:
        """The field that a name of the activation's means, or the lookup that its parent path goes by."""
        path, _, _ = name.rpartition(".")
        return self.schema.relationship(path.rpartition(":")[2]) if path else self.schema.field(name)

    def unique_fields(self, columns: tuple[Column, ...]) -> None:
        if self.activation.mode is not Mode.INSERT or self.activation.on_change == "ignore":
            return
        for column in columns:
            if column.field.unique and column.lookup is None:
                message = f"{self.schema.name}.{column.header} is unique, so a changed row can't become a new record"
                self.problem(
                    INSERT_OF_UNIQUE, message, f"fields.{column.source}", "set on_change: ignore, or use mode: upsert"
                )


def _setup(schema: ObjectSchema, field: Field) -> str:
    return f"Setup > Object Manager > {schema.label} > Fields & Relationships > {field.label}"


def _external_id(schema: ObjectSchema, field: Field) -> str:
    """How a field becomes an external id: Salesforce allows that of custom fields of a few types."""
    if field.name.lower().endswith("__c") and field.type in _EXTERNAL_ID_TYPES:
        return f"{_setup(schema, field)} > Edit: tick External ID"
    new = f"Setup > Object Manager > {schema.label} > Fields & Relationships > New"
    return f"{field.name} can't be one; {new} makes a field of type Text, Number or Email: tick External ID"


def _named_by(parent: ObjectSchema, field: Field, lookup: Field) -> str:
    """What to do where parents can't be named by a field: Salesforce can't search by it, or it is the record id."""
    by_id = f"map a column of its record id to {lookup.name}"
    if field.name == "Id":
        return by_id
    known = identifying(parent)
    such = f", such as {', '.join(known[:5])}" if known else ""
    return f"name it by a field that Salesforce can search by{such}; or {by_id}"


def identifying(schema: ObjectSchema) -> list[str]:
    """The fields that tell one record of the object from another, external ids first, as far as describe says so. By
    others a parent can be named too, where no two records hold the same."""
    fields = [field for field in schema.fields.values() if field.filterable and field.name != "Id"]
    names = [f.name for f in fields if f.external_id] + [f.name for f in fields if f.unique and not f.external_id]
    return names + (["DeveloperName"] if schema.name == "RecordType" else [])


def _parts(schema: ObjectSchema, field: Field) -> list[str]:
    """The fields that a compound one, such as a person's Name or an address, is put together of."""
    return [f.name for f in schema.fields.values() if f.compound == field.name != f.name and f.createable]


def _is_other(text: str, value: Any, field: Field) -> bool:
    """Whether a value that YAML made of a bare text is another one to this field than stands there."""
    if value is None:
        return text not in (("null", "") if field.type in TEXT_TYPES else ("null", "", "~", "Null", "NULL"))
    if field.type in TEXT_TYPES | ID_TYPES:
        return bool(text != value)
    if field.type == "boolean":
        return False
    meant, read = _constant_array(text, field), _constant_array(value, field)
    return meant is not None and read is not None and bool(meant.to_pylist() != read.to_pylist())


def _in_decimal(value: Any, field: Field) -> str:
    """What to do about a number in a notation that YAML does not read as one, such as 1e3."""
    if field.type not in NUMBER_TYPES or not isinstance(value, str):
        return ""
    try:
        number = Decimal(value)
    except ArithmeticError:
        return ""
    if not number.is_finite() or abs(number.adjusted()) > 18:
        return ""
    return f"YAML reads {declaration.show(value)} as text: write the number in decimal, {number:f}"


def _constant_array(value: Any, field: Field) -> pa.Array | None:
    """A one-row array of the constant in a type `canonical` takes for the field; None if it can't be one."""
    if value is None:
        return pa.nulls(1)
    if field.type in TEXT_TYPES | ID_TYPES:
        return pa.array([value])
    if field.type == "boolean":
        return pa.array([value]) if isinstance(value, bool) else None
    if field.type in NUMBER_TYPES:
        if isinstance(value, bool):
            return None
        if isinstance(value, float):
            return pa.array([value])
        # Digits that YAML would not keep stand in quotes.
        plain = re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{1,18})?", str(value))
        if plain is None:
            return None
        is_int64 = isinstance(value, int) and abs(value) < 2**63
        return pa.array([value if is_int64 else Decimal(plain[0])])
    parsed = values.from_text(pa.array([value]), field)
    return None if parsed.null_count else parsed


def referenced_objects(schema: ObjectSchema, activation: Activation) -> Iterator[str]:
    """Objects that the activation's mapped lookups point to: they are to be synced first."""
    for mapped in activation.fields:
        path, _, _ = mapped.field.rpartition(".")
        type_name, _, relationship = path.rpartition(":")
        lookup = schema.relationship(relationship) if path else schema.field(mapped.field)
        if lookup is not None:
            yield from ((type_name,) if type_name else lookup.reference_to)
