"""Describe replies: every key Salesforce sends, in the values of recorded describes (wire reference §2.3, §2.4)."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.schema.definitions import (
    MASTER,
    Field,
    Schema,
    SObject,
)

_URLS = ("sobject", "describe", "rowTemplate")


def global_describe(schema: Schema, base: str) -> dict[str, Any]:
    return {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [brief(o, base) for o in schema.objects]}


def brief(sobject: SObject, base: str) -> dict[str, Any]:
    """An object's entry in the global describe: 28 keys."""
    own = _brief_keys(sobject)
    own |= {key: value for key, value in sobject.kept if key in own}
    urls = _urls(sobject, base)
    return {**own, "urls": {key: urls[key] for key in _URLS}}


def describe(schema: Schema, sobject: SObject, base: str) -> dict[str, Any]:
    """The full describe of one object: 45 keys, and those that its source had beside them."""
    full = {
        **own_keys(sobject), **dict(sobject.kept), "childRelationships": _children(schema, sobject),
        "fields": [describe_field(f) for f in sobject.fields],
        "recordTypeInfos": _record_types(sobject, base), "urls": _urls(sobject, base),
    }  # fmt: skip
    return dict(sorted(full.items()))


def own_keys(sobject: SObject) -> dict[str, Any]:
    """The keys that need neither the rest of the schema nor a path, as they are unless a source said otherwise."""
    plural = sobject.label_plural.lower()
    return {
        **_brief_keys(sobject), "actionOverrides": [], "compactLayoutable": True, "defaultImplementation": None,
        "extendedBy": None, "extendsInterfaces": None, "implementedBy": None, "implementsInterfaces": None,
        "listviewable": None, "lookupLayoutable": None, "namedLayoutInfos": [], "networkScopeFieldName": None,
        "searchLayoutable": True, "sobjectDescribeOption": "FULL",
        "supportedScopes": [
            {"label": f"All {plural}", "name": "everything"}, {"label": f"My {plural}", "name": "mine"},
        ],
    }  # fmt: skip


def _brief_keys(sobject: SObject) -> dict[str, Any]:
    return {
        "activateable": False, "associateEntityType": None, "associateParentEntity": None,
        "createable": sobject.createable, "custom": sobject.custom, "customSetting": False,
        "deepCloneable": False, "deletable": sobject.deletable, "deprecatedAndHidden": False,
        "feedEnabled": False, "hasSubtypes": False, "isInterface": False, "isSubtype": False,
        "keyPrefix": sobject.prefix, "label": sobject.label, "labelPlural": sobject.label_plural,
        "layoutable": True, "mergeable": sobject.name in ("Account", "Contact", "Lead", "Case"),
        "mruEnabled": True, "name": sobject.name, "queryable": True, "replicateable": True,
        "retrieveable": True, "searchable": True, "triggerable": True, "undeletable": sobject.deletable,
        "updateable": sobject.updateable,
    }  # fmt: skip


def _urls(sobject: SObject, base: str) -> dict[str, str]:
    path = f"{base}/sobjects/{sobject.name}"
    return {
        "rowTemplate": f"{path}/{{ID}}", "describe": f"{path}/describe", "sobject": path,
        "layouts": f"{path}/describe/layouts", "uiEditTemplate": "/{ID}/e", "uiDetailTemplate": "/{ID}",
        "uiNewRecord": f"/{sobject.prefix}/e",
    }  # fmt: skip


def _children(schema: Schema, sobject: SObject) -> list[dict[str, Any]]:
    """Who refers to this object. Where a describe gave the list, its order and its unknown children stay."""
    own = {
        (child.name, field.name): _child(child, field)
        for child, field in schema.children(sobject)
        if not child.hidden and not field.hidden
    }
    listed = []
    known = {o.name for o in schema.every}
    for given in dict(sobject.kept).get("childRelationships", ()):
        found = own.pop((given["childSObject"], given["field"]), None)
        if found is not None:
            listed.append({**given, "restrictedDelete": found["restrictedDelete"]})
        elif given["childSObject"] not in known:
            listed.append(given)
    return [*listed, *own.values()]


def _child(child: SObject, field: Field) -> dict[str, Any]:
    return {
        "cascadeDelete": field.cascade_delete, "childSObject": child.name, "deprecatedAndHidden": False,
        "field": field.name, "junctionIdListNames": [], "junctionReferenceTo": [],
        "relationshipName": child_name(child, field), "restrictedDelete": field.restricted_delete,
    }  # fmt: skip


def child_name(child: SObject, field: Field) -> str | None:
    """What `field`'s parent calls its children, in describe and in SOQL; None where they have no name."""
    if field.child_relationship_name is not None:
        return field.child_relationship_name
    own = ("OwnerId", "CreatedById", "LastModifiedById", "RecordTypeId")
    return child.label_plural if not child.custom and not field.custom and field.name not in own else None


def _record_types(sobject: SObject, base: str) -> list[dict[str, Any]]:
    kept = dict(sobject.kept).get("recordTypeInfos")
    if kept is not None and not sobject.record_types:
        return list(kept)
    return [
        {
            "active": r.active, "available": r.available, "defaultRecordTypeMapping": r.default,
            "developerName": r.developer_name, "master": r.master, "name": r.name, "recordTypeId": r.id,
            "urls": {"layout": f"{base}/sobjects/{sobject.name}/describe/layouts/{r.id}"},
        }
        for r in sobject.record_types or (MASTER,)
    ]  # fmt: skip


def describe_field(field: Field) -> dict[str, Any]:
    """A field's 57 keys, and those that its source had beside them."""
    keys = field_keys(field)
    return dict(sorted({**keys, **dict(field.kept)}.items())) if field.kept else keys


def field_keys(field: Field) -> dict[str, Any]:
    """The keys as they are unless the field's source said otherwise."""
    kind, name, plain = field.kind, field.type, not field.long_text
    return {
        "aggregatable": plain and kind.aggregatable, "aiPredictionField": False,
        "autoNumber": field.auto_number is not None, "byteLength": field.length * kind.bytes_a_character,
        "calculated": field.calculated,
        "calculatedFormula": field.formula, "cascadeDelete": field.cascade_delete,
        "caseSensitive": field.case_sensitive, "compoundFieldName": None, "controllerName": None,
        "createable": field.createable, "custom": field.custom,
        "defaultValue": bool(field.default) if name == "boolean" else None,
        "defaultValueFormula": field.default_formula, "defaultedOnCreate": field.defaulted_on_create,
        "dependentPicklist": False, "deprecatedAndHidden": False, "digits": field.digits,
        "displayLocationInDecimal": False, "encrypted": False, "externalId": field.external_id,
        "extraTypeInfo": ("richtextarea" if field.html else "plaintextarea") if name == "textarea" else None,
        "filterable": plain and name != "base64", "filteredLookupInfo": None, "formulaTreatNullNumberAsZero": False,
        "groupable": plain and kind.groupable and not field.calculated, "highScaleNumber": False,
        "htmlFormatted": field.html, "idLookup": field.id_lookup, "inlineHelpText": field.help,
        "label": field.label, "length": field.length if kind.is_text or kind.is_id else 0,
        "mask": None, "maskType": None, "name": field.name, "nameField": field.name_field,
        "namePointing": field.name_pointing, "nillable": field.nillable, "permissionable": permissionable(field),
        "picklistValues": [
            {"active": v.active, "defaultValue": v.default, "label": v.label, "validFor": None, "value": v.value}
            for v in field.picklist
        ],
        "polymorphicForeignKey": len(field.reference_to) > 1,
        "precision": field.precision, "queryByDistance": False, "referenceTargetField": None,
        "referenceTo": list(field.reference_to), "relationshipName": field.relationship_name,
        "relationshipOrder": field.relationship_order, "restrictedDelete": field.restricted_delete,
        "restrictedPicklist": field.restricted_picklist, "scale": field.scale, "searchPrefilterable": False,
        "soapType": kind.soap,
        "sortable": plain and kind.sortable, "type": name, "unique": field.unique,
        "updateable": field.updateable, "writeRequiresMasterRead": False,
    }  # fmt: skip


def permissionable(field: Field) -> bool:
    """Whether a profile can open and close the field: not what is required, nor what the system keeps.

    Inferred from a recorded describe of Account: true for its nillable fields but RecordTypeId, false for system
    fields and Name.
    """
    given = dict(field.kept).get("permissionable")
    if isinstance(given, bool):
        return given
    if field.name == "RecordTypeId" or field.name_field:
        return False
    if field.custom:
        return field.nillable or field.type == "boolean" or field.auto_number is not None
    writable = any(field.full_access or (field.createable, field.updateable))
    return writable and (field.nillable or field.type == "boolean")
