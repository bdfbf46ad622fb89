"""An SFDX source tree (`force-app/**/objects/...`) to objects and fields.

Reads what a sync can meet; elements it does not know are ignored, a field type it does not know stops the
start by name. Source: Metadata API Developer Guide, CustomObject, CustomField and RecordType.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from pydantic import ValidationError

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.declared import (
    FieldSpec,
    NameSpec,
    ObjectSpec,
    RecordTypeSpec,
    Value,
    changed_object,
    new_object,
)
from dinmo_dbt.emulator.schema.definitions import SObject

VALUE_SETS = ".globalValueSet-meta.xml"
_NOT_RECORDS = ("__mdt", "__e", "__b", "__x")  # metadata, events, big and external objects hold no rows here
_ON_DELETE = {"Cascade": "cascade", "Restrict": "restrict"}


def with_tree(objects: dict[str, SObject], folder: Path) -> dict[str, SObject]:
    """`objects` with what the tree declares; standard objects that are not among them are skipped."""
    value_sets = _global_value_sets(folder)
    objects = dict(objects)
    for directory in object_folders(folder):
        name = directory.name
        if name.endswith(_NOT_RECORDS) or (not name.endswith("__c") and name not in objects):
            continue
        try:
            known = objects.get(name)
            if known is None:
                objects[name] = new_object(name, _object(directory, name, value_sets))
            else:
                objects[name] = changed_object(known, ObjectSpec(**_parts(directory, value_sets)))
        except SchemaError as error:
            raise error if str(error).startswith(str(folder)) else SchemaError(f"{directory}: {error}") from error
    return objects


def object_folders(folder: Path) -> list[Path]:
    """The tree's `objects/<Object>` folders; `folder` may be such an `objects` itself."""
    if folder.name == "objects":
        return sorted(p for p in folder.iterdir() if p.is_dir())
    return sorted(p for p in folder.rglob("objects/*") if p.is_dir())


def _parts(directory: Path, value_sets: dict[str, tuple[Value, ...]]) -> dict[str, Any]:
    fields: dict[str, FieldSpec] = {}
    for path in sorted((directory / "fields").glob("*.field-meta.xml")):
        root = _parse(path)
        field = _get(root, "fullName") or path.name.removesuffix(".field-meta.xml")
        if field.endswith("__c"):  # a standard field's overrides change nothing here
            try:
                fields[field] = _field(root, path, value_sets)
            except (ValidationError, ValueError) as error:
                raise SchemaError(f"{path}: {field}: {error}") from error
    types = {}
    for path in sorted((directory / "recordTypes").glob("*.recordType-meta.xml")):
        root = _parse(path)
        called = _get(root, "fullName") or path.name.removesuffix(".recordType-meta.xml")
        types[called] = RecordTypeSpec(label=_get(root, "label"), active=_get(root, "active") != "false")
    return {"fields": fields, "record_types": types}


def _object(directory: Path, name: str, value_sets: dict[str, tuple[Value, ...]]) -> ObjectSpec:
    path = directory / f"{name}.object-meta.xml"
    if not path.is_file():
        raise SchemaError(f"{path}: missing, but {name} has fields")
    root = _parse(path)
    node = next((c for c in root if c.tag == "nameField"), None)
    kind = (_get(node, "type") if node is not None else None) or "Text"
    if kind not in ("Text", "AutoNumber"):
        raise SchemaError(f"{path}: nameField type {kind} is not emulated (Text and AutoNumber are)")
    called = NameSpec(
        type="AutoNumber" if kind == "AutoNumber" else "Text", label=_get(node, "label"),
        format=_get(node, "displayFormat"),
    )  # fmt: skip
    return ObjectSpec(
        label=_get(root, "label"), plural_label=_get(root, "pluralLabel"), name_field=called,
        **_parts(directory, value_sets),
    )  # fmt: skip


def _field(root: Element, path: Path, value_sets: dict[str, tuple[Value, ...]]) -> FieldSpec:
    kind = _get(root, "type")
    spec: dict[str, Any] = {
        "type": kind, "label": _get(root, "label"), "help": _get(root, "inlineHelpText"),
        "length": _whole(root, "length"), "precision": _whole(root, "precision"), "scale": _whole(root, "scale"),
        "required": _yes(root, "required"), "unique": _yes(root, "unique"),
        "case_sensitive": _yes(root, "caseSensitive"), "external_id": _yes(root, "externalId"),
        "formula": _get(root, "formula"), "format": _get(root, "displayFormat"), "to": _get(root, "referenceTo"),
        "relationship_name": _get(root, "relationshipName"), "reparentable": _yes(root, "reparentableMasterDetail"),
        "relationship_order": _whole(root, "relationshipOrder"), "default_formula": _get(root, "defaultValue"),
        "on_delete": _ON_DELETE.get(_get(root, "deleteConstraint") or ""),
    }  # fmt: skip
    if kind in ("Picklist", "MultiselectPicklist"):
        spec |= {**_picklist(root, path, value_sets), "default_formula": None}
    return FieldSpec(**spec)


def _picklist(root: Element, path: Path, value_sets: dict[str, tuple[Value, ...]]) -> dict[str, Any]:
    node = next((c for c in root if c.tag == "valueSet"), None)
    if node is None:
        raise SchemaError(f"{path}: a picklist needs a valueSet")
    named = _get(node, "valueSetName")
    if named is not None:
        if named not in value_sets:
            raise SchemaError(f"{path}: no globalValueSets/{named}.globalValueSet-meta.xml in the schema folder")
        return {"values": value_sets[named], "restricted": True}  # a field on a global value set always is
    definition = next((c for c in node if c.tag == "valueSetDefinition"), None)
    values = tuple(_values(definition, "value")) if definition is not None else ()
    return {"values": values, "restricted": _yes(node, "restricted")}


def _global_value_sets(folder: Path) -> dict[str, tuple[Value, ...]]:
    return {
        path.name.removesuffix(VALUE_SETS): tuple(_values(_parse(path), "customValue"))
        for path in sorted(folder.rglob(f"*{VALUE_SETS}"))
    }


def _values(node: Element, tag: str) -> Iterator[Value]:
    for each in node:
        if each.tag == tag:
            value = _get(each, "fullName") or ""
            active = _get(each, "isActive") != "false"
            yield Value(value=value, label=_get(each, "label"), active=active, default=_yes(each, "default"))


def _get(node: Element | None, tag: str) -> str | None:
    """The text of the first child `tag`; None if there is none or it is empty."""
    if node is None:
        return None
    child = next((c for c in node if c.tag == tag), None)
    return child.text if child is not None and child.text else None


def _whole(node: Element, tag: str) -> int | None:
    text = _get(node, tag)
    return int(text) if text is not None else None


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
