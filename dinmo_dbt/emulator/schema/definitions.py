"""Objects and fields as Salesforce describes them: the definitions every other module reads.

Knows no file, no store and no wire format. API names are matched without regard to case, as Salesforce does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dinmo_dbt.emulator.field_types import FieldType, type_named
from dinmo_dbt.emulator.records.rules import Errors, Origin

MASTER_RECORD_TYPE = "012000000000000AAA"
# Keys of describe that this package does not derive, with the values they were given.
Kept = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class PicklistValue:
    """One value of a picklist: `value` is the API name, the only form a restricted picklist accepts."""

    value: str
    label: str
    active: bool = True
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field, in the words of the describe call. `type` is describe's type, not the metadata's."""

    name: str
    label: str
    type: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaulted_on_create: bool = False
    custom: bool = False
    unique: bool = False
    case_sensitive: bool = False
    external_id: bool = False
    id_lookup: bool = False
    name_field: bool = False
    name_pointing: bool = False
    auto_number: str | None = None  # displayFormat
    calculated: bool = False
    formula: str | None = None
    reference_to: tuple[str, ...] = ()
    relationship_name: str | None = None
    relationship_order: int | None = None
    child_relationship_name: str | None = None  # whole, with its __r
    cascade_delete: bool = False
    restricted_delete: bool = False
    picklist: tuple[PicklistValue, ...] = ()
    restricted_picklist: bool = False
    default: str | bool | None = None  # a literal in the CSV form of the type
    default_formula: str | None = None
    help: str | None = None
    long_text: bool = False
    html: bool = False
    sql: str | None = None  # a value computed from other columns, `{t}` is the table's alias
    hidden: bool = False  # the org has the field, its user may not see it
    full_access: tuple[bool, bool] | None = None  # createable and updateable, where a permission narrows them
    kept: Kept = field(default=(), hash=False)

    @property
    def kind(self) -> FieldType:
        """What follows from its type."""
        return type_named(self.type)

    @property
    def stored(self) -> bool:
        """Whether the value has a column of its own."""
        return self.sql is None

    @property
    def required(self) -> bool:
        """The usual client rule: not nillable, createable, not defaulted."""
        return not self.nillable and self.createable and not self.defaulted_on_create

    @property
    def folded(self) -> bool:
        """Whether SOQL and uniqueness compare this text without regard to case.

        SOQL is case-sensitive only for unique case-sensitive fields (SOQL comparison operators).
        """
        return self.kind.is_text and not (self.unique and self.case_sensitive)

    @property
    def matched_folded(self) -> bool:
        """Whether upsert matches without regard to case: only if unique and case-insensitive."""
        return self.kind.folds_always or (self.kind.is_text and self.unique and not self.case_sensitive)

    @property
    def indexed(self) -> bool:
        """Whether the store keeps an index of this field's values."""
        return self.stored and self.name != "Id" and (self.unique or self.external_id or self.id_lookup)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordType:
    """One record type of an object. `id` is given by the store; Master is no record and has a fixed one."""

    developer_name: str
    name: str
    active: bool = True
    available: bool = True
    default: bool = False
    master: bool = False
    id: str | None = None

    @property
    def usable(self) -> bool:
        return self.active and self.available and not self.master


MASTER = RecordType(developer_name="Master", name="Master", default=True, master=True, id=MASTER_RECORD_TYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SObject:
    """One object. `every` field in describe order; `fields` are those its user may see."""

    name: str
    label: str
    label_plural: str
    every: tuple[Field, ...]
    prefix: str | None = None  # custom objects get theirs from the store
    custom: bool = False
    createable: bool = True
    deletable: bool = True
    updateable: bool = True
    hidden: bool = False  # the org has the object, its user may not read it
    full_access: tuple[bool, bool, bool] | None = None  # createable, deletable, updateable before a permission
    record_types: tuple[RecordType, ...] = ()  # with Master; empty where the object has no other
    kept: Kept = field(default=(), hash=False)
    fields: tuple[Field, ...] = field(init=False, repr=False, compare=False)
    _by_name: dict[str, Field] = field(init=False, repr=False, compare=False)
    _by_relationship: dict[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(f for f in self.every if not f.hidden))
        object.__setattr__(self, "_by_name", {f.name.lower(): f for f in self.fields})
        links = {f.relationship_name.lower(): f for f in self.fields if f.relationship_name}
        object.__setattr__(self, "_by_relationship", links)

    def field(self, name: str) -> Field | None:
        return self._by_name.get(name.lower())

    def relationship(self, name: str) -> Field | None:
        """The reference field whose parent is called `name` (`Account`, `Parent__r`)."""
        return self._by_relationship.get(name.lower())


@dataclass(frozen=True, slots=True)
class Schema:
    """Every object of the org, sorted by name; `objects` are those its user may read.

    `approximate` says in sentences what was read but is not imitated.
    """

    every: tuple[SObject, ...]
    approximate: tuple[str, ...] = ()
    objects: tuple[SObject, ...] = field(init=False, repr=False, compare=False)
    _by_name: dict[str, SObject] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(o for o in self.every if not o.hidden))
        object.__setattr__(self, "_by_name", {o.name.lower(): o for o in self.objects})

    @classmethod
    def of(cls, objects: Iterable[SObject], approximate: tuple[str, ...] = ()) -> Schema:
        return cls(tuple(sorted(objects, key=lambda o: o.name)), approximate)

    def get(self, name: str) -> SObject | None:
        return self._by_name.get(name.lower())

    def children(self, parent: SObject) -> list[tuple[SObject, Field]]:
        """The stored reference fields that point to `parent`, with their objects: the hidden ones too."""
        return [(o, f) for o in self.every for f in o.every if parent.name in f.reference_to and f.stored]


_LITERAL = re.compile(
    r"""^\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([-+]?\d+(?:\.\d+)?)|(true|false))\s*$""", re.I
)


def literal(formula: str) -> str | bool | None:
    """What a default value's formula gives, if it is a literal: `"dbt"`, `12.5`, `true`."""
    found = _LITERAL.match(formula)
    if found is None:
        return None
    double, single, number, flag = found.groups()
    if flag is not None:
        return bool(flag.lower() == "true")
    text = double if double is not None else single if single is not None else number
    return re.sub(r"\\(.)", r"\1", text)


def accepted(field: Field, text: pa.Array, origin: Origin, errors: Errors) -> pa.Array:
    """The stored form of a text column. Rows that can't be stored are added to `errors` and become null."""
    accept = field.kind.accept
    assert accept is not None, f"{field.name}: type {field.type} has no storage form"
    return accept(field, text, origin, errors)
