"""An SFDX source tree (`force-app/**/objects/...`) to objects and fields.

Reads what a sync can meet; elements it does not know are ignored, a field type it does not know stops the
start by name. Source: Metadata API Developer Guide, CustomObject and CustomField.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.definitions import Field, PicklistValue, Schema, SObject, literal
from dinmo_dbt.emulator.schema.standard import standard_objects, system_fields

_TYPES = {
    "Text": "string", "TextArea": "textarea", "LongTextArea": "textarea", "Html": "textarea",
    "Email": "email", "Url": "url", "Phone": "phone", "Picklist": "picklist",
    "MultiselectPicklist": "multipicklist", "Checkbox": "boolean", "Number": "double", "Currency": "currency",
    "Percent": "percent", "Date": "date", "DateTime": "datetime", "Time": "time", "Lookup": "reference",
    "MasterDetail": "reference", "AutoNumber": "string", "Hierarchy": "reference", "Summary": "double",
}  # fmt: skip
_LENGTHS = {"Email": 80, "Url": 255, "Phone": 40, "TextArea": 255, "Picklist": 255, "AutoNumber": 30,
            "MultiselectPicklist": 4099}  # fmt: skip
_NOT_RECORDS = ("__mdt", "__e", "__b", "__x")  # metadata, events, big and external objects hold no rows here


def read_schema(folder: Path | None) -> Schema:
    """The built-in objects plus what `folder` declares; without a folder, the built-in ones alone."""
    objects = {o.name: o for o in standard_objects()}
    if folder is None:
        return Schema.of(objects.values())
    if not folder.is_dir():
        raise SchemaError(f"{folder}: no such folder (the schema is an SFDX source tree, such as force-app)")
    value_sets = _global_value_sets(folder)
    directories = sorted(p for p in folder.rglob("objects/*") if p.is_dir())
    if folder.name == "objects":
        directories = sorted(p for p in folder.iterdir() if p.is_dir())
    for directory in directories:
        name = directory.name
        if name.endswith(_NOT_RECORDS) or (not name.endswith("__c") and name not in objects):
            continue
        fields = tuple(
            field
            for path in sorted((directory / "fields").glob("*.field-meta.xml"))
            if (field := _field(path, name, value_sets)) is not None
        )
        known = objects.get(name)
        if known is None:
            objects[name] = _custom_object(directory, fields)
        else:
            names = {f.name.lower() for f in fields}
            kept = tuple(f for f in known.every if f.name.lower() not in names)
            objects[name] = replace(known, every=kept + fields)
    schema = Schema.of(objects.values())
    for each in schema.objects:
        for field in each.fields:
            missing = [p for p in field.reference_to if schema.get(p) is None and p != "Group"]
            if missing:
                raise SchemaError(
                    f"{each.name}.{field.name} refers to {', '.join(missing)}, which this emulator does not have: "
                    "add its object to the schema folder"
                )
    return schema


def _custom_object(directory: Path, fields: tuple[Field, ...]) -> SObject:
    path = directory / f"{directory.name}.object-meta.xml"
    if not path.is_file():
        raise SchemaError(f"{path}: missing, but {directory.name} has fields")
    root = _parse(path)
    label = _get(root, "label") or directory.name.removesuffix("__c").replace("_", " ")
    name_node = next((c for c in root if c.tag == "nameField"), None)
    kind = _get(name_node, "type") if name_node is not None else "Text"
    name_label = (_get(name_node, "label") if name_node is not None else None) or f"{label} Name"
    if kind == "AutoNumber":
        name_field = Field(
            name="Name", label=name_label, type="string", length=80, name_field=True, nillable=False,
            createable=False, updateable=False, defaulted_on_create=True, id_lookup=True,
            auto_number=(_get(name_node, "displayFormat") if name_node is not None else None) or "{0}",
        )  # fmt: skip
    elif kind in (None, "Text"):
        # A custom object's text Name may be left empty through the API: Salesforce then puts the record id.
        name_field = Field(name="Name", label=name_label, type="string", length=80, name_field=True,
                           id_lookup=True, defaulted_on_create=True)  # fmt: skip
    else:
        raise SchemaError(f"{path}: nameField type {kind} is not emulated (Text and AutoNumber are)")
    masters = [f for f in fields if f.relationship_order is not None]
    head, deleted, *rest = system_fields(custom=True, owner=not masters)
    ordered = (head, *(f for f in rest if f.name == "OwnerId"), deleted, name_field)
    tail = tuple(f for f in rest if f.name != "OwnerId")
    return SObject(
        name=directory.name, label=label, label_plural=_get(root, "pluralLabel") or f"{label}s",
        every=ordered + tail + fields, custom=True,
    )  # fmt: skip


def _field(path: Path, object_name: str, value_sets: dict[str, tuple[PicklistValue, ...]]) -> Field | None:
    """The custom field in `path`; None for a standard field's overrides, which change nothing here."""
    root = _parse(path)
    name = _get(root, "fullName") or path.name.removesuffix(".field-meta.xml")
    if not name.endswith("__c"):
        return None
    kind = _get(root, "type")
    if kind not in _TYPES:
        raise SchemaError(f"{path}: field type {kind} of {object_name}.{name} is not emulated")
    formula = _get(root, "formula")
    calculated = formula is not None or kind == "Summary"
    unique = _yes(root, "unique")
    external = _yes(root, "externalId")
    spec: dict[str, Any] = {
        "name": name,
        "label": _get(root, "label") or name.removesuffix("__c").replace("_", " "),
        "type": _TYPES[kind],
        "custom": True,
        "unique": unique,
        "case_sensitive": unique and _yes(root, "caseSensitive"),
        "external_id": external,
        "id_lookup": external,
        "nillable": not _yes(root, "required"),
        "help": _get(root, "inlineHelpText"),
        "length": int(_get(root, "length") or _LENGTHS.get(kind, 0)),
        "formula": formula,
    }
    match kind:
        case "Number" | "Currency" | "Percent" | "Summary":
            spec["precision"] = int(_get(root, "precision") or 18)
            spec["scale"] = int(_get(root, "scale") or 0)
        case "Checkbox":
            spec |= {"nillable": False, "defaulted_on_create": True, "length": 0}
        case "LongTextArea" | "Html":
            spec["length"] = spec["length"] or 32768
            spec["long_text"] = True
            spec["html"] = kind == "Html"
        case "Text":
            spec["length"] = spec["length"] or 255
        case "Picklist" | "MultiselectPicklist":
            _picklist(root, path, value_sets, spec)
        case "AutoNumber":
            spec |= {
                "auto_number": _get(root, "displayFormat") or "{0}", "createable": False, "updateable": False,
                "defaulted_on_create": True, "nillable": False,
            }  # fmt: skip
        case "Lookup" | "MasterDetail" | "Hierarchy":
            _reference(root, kind, object_name, spec)
        case _:
            pass
    if calculated:
        spec |= {"calculated": True, "createable": False, "updateable": False, "nillable": True,
                 "defaulted_on_create": False, "sql": "NULL"}  # fmt: skip
    elif kind not in ("Picklist", "MultiselectPicklist"):
        _default(root, spec)
    return Field(**spec)


def _picklist(
    root: Element, path: Path, value_sets: dict[str, tuple[PicklistValue, ...]], spec: dict[str, Any]
) -> None:
    node = next((c for c in root if c.tag == "valueSet"), None)
    if node is None:
        raise SchemaError(f"{path}: a picklist needs a valueSet")
    named = _get(node, "valueSetName")
    if named is not None:
        if named not in value_sets:
            raise SchemaError(f"{path}: no globalValueSets/{named}.globalValueSet-meta.xml in the schema folder")
        values = value_sets[named]
        restricted = True  # a field on a global value set is always restricted
    else:
        definition = next((c for c in node if c.tag == "valueSetDefinition"), None)
        values = tuple(_values(definition, "value")) if definition is not None else ()
        restricted = _yes(node, "restricted")
    spec |= {"picklist": values, "restricted_picklist": restricted}
    spec["default"] = next((v.value for v in values if v.default and v.active), None)
    if spec["type"] == "multipicklist":
        spec["precision"] = int(_get(root, "visibleLines") or 4)


def _reference(root: Element, kind: str, object_name: str, spec: dict[str, Any]) -> None:
    name: str = spec["name"]
    detail = kind == "MasterDetail"
    constraint = _get(root, "deleteConstraint")
    children = _get(root, "relationshipName")
    spec |= {
        "length": 18,
        "reference_to": (object_name if kind == "Hierarchy" else _get(root, "referenceTo") or "",),
        "relationship_name": name.removesuffix("__c") + "__r",
        "child_relationship_name": f"{children}__r" if children else None,
        "cascade_delete": detail or constraint == "Cascade",
        "restricted_delete": constraint == "Restrict",
    }
    if detail:
        spec |= {
            "nillable": False,
            "updateable": _yes(root, "reparentableMasterDetail"),
            "relationship_order": int(_get(root, "relationshipOrder") or 0),
        }


def _default(root: Element, spec: dict[str, Any]) -> None:
    """`defaultValue` is a formula: literals are evaluated, anything else is kept as a formula by name."""
    text = _get(root, "defaultValue")
    if spec["type"] == "boolean":
        spec["default"] = False
    if text is None:
        return
    spec["default"] = literal(text)
    if spec["default"] is None:
        spec["default_formula"] = text


def _global_value_sets(folder: Path) -> dict[str, tuple[PicklistValue, ...]]:
    suffix = ".globalValueSet-meta.xml"
    return {
        path.name.removesuffix(suffix): tuple(_values(_parse(path), "customValue"))
        for path in sorted(folder.rglob(f"*{suffix}"))
    }


def _values(node: Element, tag: str) -> Iterator[PicklistValue]:
    for each in node:
        if each.tag == tag:
            value = _get(each, "fullName") or ""
            active = _get(each, "isActive") != "false"
            yield PicklistValue(value, _get(each, "label") or value, active, _yes(each, "default"))


def _get(node: Element | None, tag: str) -> str | None:
    """The text of the first child `tag`; None if there is none or it is empty."""
    if node is None:
        return None
    child = next((c for c in node if c.tag == tag), None)
    return child.text if child is not None and child.text else None


def _yes(node: Element, tag: str) -> bool:
    return (_get(node, tag) or "").strip().lower() == "true"


def _parse(path: Path) -> Element:
    """The document without its namespace. A document type is refused: no entity is ever expanded."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SchemaError(f"{path}: a document type declaration is not allowed")
        root = fromstring(text.encode())  # noqa: S314 (no document type, so no entities)
    except (ParseError, UnicodeDecodeError, OSError) as error:
        raise SchemaError(f"{path}: can't be read: {error}") from error
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root
