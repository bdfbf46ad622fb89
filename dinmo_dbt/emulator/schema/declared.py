"""Objects and fields as a person declares them, in the words of Salesforce's metadata, and what they become.

An SFDX tree and a YAML document both come through here, so one word has one meaning in both. Source: Metadata API
Developer Guide, CustomObject, CustomField, RecordType.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from dinmo_dbt.emulator import field_types
from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema import definitions
from dinmo_dbt.emulator.schema.definitions import PicklistValue, RecordType, SObject, literal
from dinmo_dbt.emulator.schema.describe import permissionable
from dinmo_dbt.emulator.schema.standard import record_type_id, system_fields

TYPES = {metadata: name for name, kind in field_types.TYPES.items() for metadata in kind.metadata}
_LENGTHS = {
    "Text": 255, "Email": 80, "Url": 255, "Phone": 40, "TextArea": 255, "Picklist": 255, "AutoNumber": 30,
    "MultiselectPicklist": 4099, "LongTextArea": 32768, "Html": 32768,
}  # fmt: skip
_NUMBERS = ("Number", "Currency", "Percent", "Summary")
_LINKS = ("Lookup", "MasterDetail", "Hierarchy")
_FIXED = tuple(f.name for f in system_fields(custom=True))


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True)


class Value(_Declared):
    """One value of a picklist; a bare text in YAML is its own label."""

    value: str
    label: str | None = None
    active: bool = True
    default: bool = False

    def picklist_value(self) -> PicklistValue:
        return PicklistValue(self.value, self.label or self.value, self.active, self.default)


def _value(given: Any) -> Any:
    return {"value": given} if isinstance(given, str) else given


def _literal(given: Any) -> Any:
    """A default as text in the CSV form of its type."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return given
    return str(given)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]\w{0,79}$")]
Access = Literal["none", "read", "edit"]


class FieldSpec(_Declared):
    """A field, or what changes in a field that is there: what is not given stays as it is.

    `access` is what the org's user may do with it. `on_delete` is what a lookup does when its record is deleted.
    """

    type: str | None = None
    label: str | None = None
    help: str | None = None
    length: int | None = Field(default=None, gt=0)
    precision: int | None = Field(default=None, gt=0, le=18)
    scale: int | None = Field(default=None, ge=0, le=17)
    required: bool | None = None
    unique: bool | None = None
    case_sensitive: bool | None = None
    external_id: bool | None = None
    values: tuple[Annotated[Value, BeforeValidator(_value)], ...] | None = Field(default=None, strict=False)
    restricted: bool | None = None
    default: Annotated[str | bool | None, BeforeValidator(_literal)] = None
    default_formula: str | None = None
    formula: str | None = None
    format: str | None = None
    to: str | None = None
    relationship_name: str | None = None
    on_delete: Literal["clear", "restrict", "cascade"] | None = None
    reparentable: bool | None = None
    relationship_order: int | None = None
    access: Access | None = None


class NameSpec(_Declared):
    """A custom object's Name: text, or a number that Salesforce counts."""

    type: Literal["Text", "AutoNumber"] = "Text"
    label: str | None = None
    format: str | None = None


class RecordTypeSpec(_Declared):
    """A record type, by its developer name. `available` to the org's user, `default` where none is given."""

    label: str | None = None
    active: bool = True
    available: bool = True
    default: bool = False


class AccessSpec(_Declared):
    """What the org's user may do with an object's records."""

    read: bool = True
    create: bool = True
    edit: bool = True
    delete: bool = True


class ObjectSpec(_Declared):
    """An object, or what changes in an object that is there. A field or record type that is null is removed."""

    label: str | None = None
    plural_label: str | None = None
    name_field: NameSpec | None = None
    fields: dict[Name, FieldSpec | None] = Field(default_factory=dict)
    record_types: dict[Name, RecordTypeSpec | None] = Field(default_factory=dict)
    access: AccessSpec | None = None


class Document(_Declared):
    """A schema document: objects by API name. A custom object that is null is removed."""

    objects: dict[Name, ObjectSpec | None]


def new_field(object_name: str, name: str, spec: FieldSpec) -> definitions.Field:
    """A custom field. SchemaError for a type that is not emulated, or one that lacks what it needs."""
    kind = spec.type or ""
    where = f"{object_name}.{name}"
    if kind not in TYPES:
        raise SchemaError(f"field type {spec.type} of {where} is not emulated")
    if not name.endswith("__c"):
        raise SchemaError(f"{where}: a new field's API name ends in __c")
    calculated = spec.formula is not None or kind == "Summary"
    unique, external = bool(spec.unique), bool(spec.external_id)
    made: dict[str, Any] = {
        "name": name, "label": spec.label or name.removesuffix("__c").replace("_", " "), "type": TYPES[kind],
        "custom": True, "unique": unique, "case_sensitive": unique and bool(spec.case_sensitive),
        "external_id": external, "id_lookup": external, "nillable": not spec.required, "help": spec.help,
        "length": spec.length or _LENGTHS.get(kind, 0), "formula": spec.formula,
    }  # fmt: skip
    if kind in _NUMBERS:
        made |= {"precision": spec.precision or 18, "scale": spec.scale or 0, "length": 0}
    elif kind == "Checkbox":
        made |= {"nillable": False, "defaulted_on_create": True, "length": 0}
    elif kind in ("LongTextArea", "Html"):
        made |= {"long_text": True, "html": kind == "Html"}
    elif kind in ("Picklist", "MultiselectPicklist"):
        if spec.values is None:
            raise SchemaError(f"{where}: a picklist needs values")
        made |= _picklist(spec.values, bool(spec.restricted))
        if kind == "MultiselectPicklist":
            made["precision"] = 4  # visible lines
    elif kind == "AutoNumber":
        made |= {
            "auto_number": spec.format or "{0}", "createable": False, "updateable": False,
            "defaulted_on_create": True, "nillable": False,
        }  # fmt: skip
    elif kind in _LINKS:
        made |= _link(object_name, name, kind, spec)
    if calculated:
        made |= {"calculated": True, "createable": False, "updateable": False, "nillable": True,
                 "defaulted_on_create": False, "sql": "NULL"}  # fmt: skip
    elif "picklist" not in made or spec.default is not None:
        made |= _default(made["type"], spec)
    return _with_access(definitions.Field(**made), spec.access, where)


def _picklist(values: tuple[Value, ...], restricted: bool) -> dict[str, Any]:
    listed = tuple(v.picklist_value() for v in values)
    default = next((v.value for v in listed if v.default and v.active), None)
    return {"picklist": listed, "restricted_picklist": restricted, "default": default}


def _default(kind: str, spec: FieldSpec) -> dict[str, Any]:
    if spec.default_formula is None:
        return {"default": bool(spec.default) if kind == "boolean" else spec.default}
    found = literal(spec.default_formula)
    if found is not None:
        return {"default": found}
    return {"default": False if kind == "boolean" else None, "default_formula": spec.default_formula}


def _link(object_name: str, name: str, kind: str, spec: FieldSpec) -> dict[str, Any]:
    to = object_name if kind == "Hierarchy" else spec.to
    if not to:
        raise SchemaError(f"{object_name}.{name}: a {kind} field needs the object it refers to")
    children, detail = spec.relationship_name, kind == "MasterDetail"
    made: dict[str, Any] = {
        "length": 18, "reference_to": (to,), "relationship_name": name.removesuffix("__c") + "__r",
        "child_relationship_name": f"{children}__r" if children else None,
        "cascade_delete": detail or spec.on_delete == "cascade", "restricted_delete": spec.on_delete == "restrict",
    }  # fmt: skip
    if detail:
        made |= {
            "nillable": False, "updateable": bool(spec.reparentable),
            "relationship_order": spec.relationship_order or 0,
        }  # fmt: skip
    return made


def changed_field(object_name: str, field: definitions.Field, spec: FieldSpec) -> definitions.Field:
    """A field that is there, with what `spec` gives. Its type stays: a new one is a new field."""
    where = f"{object_name}.{field.name}"
    if spec.type is not None and field.custom:
        return new_field(object_name, field.name, spec)
    frozen = {"type", "formula", "format", "to", "relationship_name", "reparentable", "relationship_order"}
    given = spec.model_fields_set
    if given & frozen:
        raise SchemaError(f"{where}: {', '.join(sorted(given & frozen))} can't be changed")
    if field.name in _FIXED and given - {"label", "help"}:
        raise SchemaError(f"{where} is a system field")
    simple = {"label": "label", "help": "help", "length": "length", "precision": "precision", "scale": "scale",
              "unique": "unique", "case_sensitive": "case_sensitive", "restricted": "restricted_picklist"}  # fmt: skip
    changes: dict[str, Any] = {simple[key]: getattr(spec, key) for key in given & simple.keys()}
    if spec.external_id is not None:
        changes |= {"external_id": spec.external_id, "id_lookup": spec.external_id}
    if spec.required is not None and field.type != "boolean":
        changes["nillable"] = not spec.required
    if spec.values is not None:
        changes |= _picklist(spec.values, field.restricted_picklist if spec.restricted is None else spec.restricted)
    if given & {"default", "default_formula"}:
        changes |= {"default_formula": None, **_default(field.type, spec)}
    if spec.on_delete is not None:
        changes |= {"cascade_delete": spec.on_delete == "cascade", "restricted_delete": spec.on_delete == "restrict"}
    kept = tuple((k, v) for k, v in field.kept if k not in _described(given))
    return _with_access(replace(field, **changes, kept=kept), spec.access, where)


def _described(given: set[str]) -> set[str]:
    """The keys of describe that a change makes stale where a source had given them."""
    stale = {"length": {"length", "byteLength"}, "required": {"nillable"}, "values": {"picklistValues"},
             "access": {"createable", "updateable"}}  # fmt: skip
    return set().union(*(stale.get(key, {key}) for key in given))


def _with_access(field: definitions.Field, access: Access | None, where: str) -> definitions.Field:
    if access is None:
        return field
    full = field.full_access or (field.createable, field.updateable)
    if access == "edit":
        return replace(field, hidden=False, createable=full[0], updateable=full[1], full_access=None)
    if not permissionable(field):
        raise SchemaError(f"{where}: a permission can't close a required or system field")
    return replace(field, hidden=access == "none", createable=False, updateable=False, full_access=full)


def new_object(name: str, spec: ObjectSpec) -> SObject:
    """A custom object with its system fields, a detail without an owner of its own."""
    if not name.endswith("__c"):
        raise SchemaError(f"{name}: a new object's API name ends in __c (the standard ones are built in)")
    label = spec.label or name.removesuffix("__c").replace("_", " ")
    fields = tuple(new_field(name, key, f) for key, f in spec.fields.items() if f is not None)
    masters = [f for f in fields if f.relationship_order is not None]
    head, deleted, *rest = system_fields(custom=True, owner=not masters)
    ordered = (head, *(f for f in rest if f.name == "OwnerId"), deleted, _name(spec.name_field or NameSpec(), label))
    tail = tuple(f for f in rest if f.name != "OwnerId")
    plain = SObject(
        name=name, label=label, label_plural=spec.plural_label or f"{label}s", every=ordered + tail + fields,
        custom=True,
    )  # fmt: skip
    return _with_object_access(_with_record_types(plain, spec.record_types), spec.access)


def _name(spec: NameSpec, label: str) -> definitions.Field:
    common: dict[str, Any] = {
        "name": "Name", "label": spec.label or f"{label} Name", "type": "string", "length": 80, "name_field": True,
        "id_lookup": True, "defaulted_on_create": True,
    }  # fmt: skip
    if spec.type == "AutoNumber":
        return definitions.Field(
            **common, nillable=False, createable=False, updateable=False, auto_number=spec.format or "{0}"
        )
    # A custom object's text Name may be left empty through the API: Salesforce then puts the record id.
    return definitions.Field(**common)


def changed_object(sobject: SObject, spec: ObjectSpec) -> SObject:
    """An object that is there, with what `spec` gives."""
    if spec.name_field is not None:
        raise SchemaError(f"{sobject.name}: the name field of an object that is there can't be changed")
    fields = {f.name.lower(): f for f in sobject.every}
    for name, given in spec.fields.items():
        known = fields.get(name.lower())
        if given is None:
            if known is None:
                raise SchemaError(f"{sobject.name} has no field {name} to remove")
            if not known.custom:
                raise SchemaError(
                    f"{sobject.name}.{known.name}: a standard field can't be removed (access: none hides it)"
                )
            del fields[name.lower()]
        elif known is None:
            fields[name.lower()] = new_field(sobject.name, name, given)
        else:
            fields[name.lower()] = changed_field(sobject.name, known, given)
    changed = replace(
        sobject, every=tuple(fields.values()), label=spec.label or sobject.label,
        label_plural=spec.plural_label or sobject.label_plural,
    )  # fmt: skip
    return _with_object_access(_with_record_types(changed, spec.record_types), spec.access)


def _with_record_types(sobject: SObject, given: dict[str, RecordTypeSpec | None]) -> SObject:
    if not given:
        return sobject
    types = {r.developer_name: r for r in sobject.record_types if not r.master}
    for name, spec in given.items():
        if spec is None:
            if name not in types:
                raise SchemaError(f"{sobject.name} has no record type {name} to remove")
            del types[name]
            continue
        types[name] = RecordType(
            developer_name=name, name=spec.label or name.replace("_", " "), active=spec.active,
            available=spec.available, default=spec.default,
        )  # fmt: skip
    if sum(r.default for r in types.values()) > 1:
        raise SchemaError(f"{sobject.name}: one record type at most is the default")
    return with_record_types(sobject, tuple(types.values()))


def with_record_types(sobject: SObject, types: tuple[RecordType, ...]) -> SObject:
    """The object with these record types, Master behind them, and the field that holds a record's."""
    every = sobject.every
    if not any(f.name == "RecordTypeId" for f in every):
        every = (*every, record_type_id())
    master = replace(definitions.MASTER, default=not any(r.default for r in types))
    return replace(sobject, every=every, record_types=(*types, master) if types else ())


def _with_object_access(sobject: SObject, access: AccessSpec | None) -> SObject:
    if access is None:
        return sobject
    full = sobject.full_access or (sobject.createable, sobject.deletable, sobject.updateable)
    return replace(
        sobject, hidden=not access.read, createable=full[0] and access.create, deletable=full[1] and access.delete,
        updateable=full[2] and access.edit, full_access=full,
    )  # fmt: skip
