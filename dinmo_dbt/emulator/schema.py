"""Objects and fields as Salesforce describes them: the definitions every other module reads.

Knows no file, no store and no wire format. API names are matched without regard to case, as Salesforce does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

TEXT_TYPES = frozenset({"string", "textarea", "email", "phone", "url", "picklist", "multipicklist", "combobox"})
NUMBER_TYPES = frozenset({"double", "currency", "percent"})


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
    child_relationship_name: str | None = None
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
        return self.type in TEXT_TYPES and not (self.unique and self.case_sensitive)

    @property
    def matched_folded(self) -> bool:
        """Whether upsert matches without regard to case: only if unique and case-insensitive."""
        return self.type == "email" or (self.type in TEXT_TYPES and self.unique and not self.case_sensitive)

    @property
    def indexed(self) -> bool:
        """Whether the store keeps an index of this field's values."""
        return self.stored and self.name != "Id" and (self.unique or self.external_id or self.id_lookup)


@dataclass(frozen=True, slots=True, kw_only=True)
class SObject:
    """One object with its fields in describe order."""

    name: str
    label: str
    label_plural: str
    fields: tuple[Field, ...]
    prefix: str | None = None  # custom objects get theirs from the store
    custom: bool = False
    createable: bool = True
    deletable: bool = True
    updateable: bool = True
    _by_name: dict[str, Field] = field(init=False, repr=False, compare=False)
    _by_relationship: dict[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
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
    """Every object of the org, sorted by name."""

    objects: tuple[SObject, ...]
    _by_name: dict[str, SObject] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {o.name.lower(): o for o in self.objects})

    @classmethod
    def of(cls, objects: Iterable[SObject]) -> Schema:
        return cls(tuple(sorted(objects, key=lambda o: o.name)))

    def get(self, name: str) -> SObject | None:
        return self._by_name.get(name.lower())

    def children(self, parent: SObject) -> list[tuple[SObject, Field]]:
        """The reference fields that point to `parent`, with their objects."""
        return [(o, f) for o in self.objects for f in o.fields if parent.name in f.reference_to]
