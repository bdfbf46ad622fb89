"""A mapping: which model column feeds which field, resolved. Pure.

It is what change detection hashes and what a snapshot's header stores.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from dinmo_dbt.destination import Field, ObjectSchema, PayloadColumn
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import TYPES, type_of
from dinmo_dbt.rows.forms import in_form
from dinmo_dbt.rows.keys import key_parts, spelling
from dinmo_dbt.rows.rowhash import HASH_VERSION

# By a canonical form's name, which is what a stored mapping has, one of the field types of that form.
_OF_FORM = {kind.form: name for name, kind in reversed(TYPES.items())}
_DESCRIBED = [field.name for field in dataclasses.fields(Field) if field.name != "label"]


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """One model column, in the relation's own case, and the field it feeds under its wire header."""

    source: str
    header: str
    field: Field
    keep_nulls: bool = False
    lookup: Field | None = None  # the lookup field behind a parent path
    form: str = ""  # how the column's type is written as text (`text_form`)

    @property
    def kind(self) -> str:
        """The name of its canonical form."""
        return type_of(self.field).form

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


def as_written(arrays: Sequence[pa.Array], columns: Sequence[MappedColumn]) -> list[pa.Array] | None:
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
        """As `MappedColumn.goes`."""
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
    match: MappedColumn | None
    columns: tuple[MappedColumn, ...]
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
    def sent(self) -> tuple[MappedColumn | Constant, ...]:
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

    def column(stored: list[Any]) -> MappedColumn:
        source, name, kind, keep_nulls, form = stored
        field = Field(name=name, label=name, type=_OF_FORM[kind])
        return MappedColumn(source, name, field, keep_nulls, form=form)

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
