"""Describe replies: every key Salesforce sends, in the values of recorded describes (wire reference §2.3, §2.4)."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.emulator.schema import NUMBER_TYPES, TEXT_TYPES, Field, Schema, SObject

_SOAP = {
    "id": "tns:ID", "reference": "tns:ID", "boolean": "xsd:boolean", "int": "xsd:int", "date": "xsd:date",
    "datetime": "xsd:dateTime", "time": "xsd:time",
}  # fmt: skip
_NOT_GROUPABLE = frozenset({"multipicklist", "combobox", "datetime"}) | NUMBER_TYPES
_MASTER_RECORD_TYPE = "012000000000000AAA"


def global_describe(schema: Schema, base: str) -> dict[str, Any]:
    return {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [brief(o, base) for o in schema.objects]}


def brief(sobject: SObject, base: str) -> dict[str, Any]:
    """An object's entry in the global describe: 28 keys."""
    path = f"{base}/sobjects/{sobject.name}"
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
        "urls": {"rowTemplate": f"{path}/{{ID}}", "describe": f"{path}/describe", "sobject": path},
    }  # fmt: skip


def describe(schema: Schema, sobject: SObject, base: str) -> dict[str, Any]:
    """The full describe of one object."""
    path = f"{base}/sobjects/{sobject.name}"
    own = brief(sobject, base)
    own["urls"] = {
        **own["urls"], "layouts": f"{path}/describe/layouts", "uiEditTemplate": "/{ID}/e",
        "uiDetailTemplate": "/{ID}", "uiNewRecord": f"/{sobject.prefix}/e",
    }  # fmt: skip
    full = {
        **own, "actionOverrides": [], "childRelationships": _children(schema, sobject), "compactLayoutable": True,
        "defaultImplementation": None, "extendedBy": None, "extendsInterfaces": None,
        "fields": [describe_field(f) for f in sobject.fields], "implementedBy": None, "implementsInterfaces": None,
        "listviewable": None, "lookupLayoutable": None, "namedLayoutInfos": [], "networkScopeFieldName": None,
        "recordTypeInfos": [{
            "active": True, "available": True, "defaultRecordTypeMapping": True, "developerName": "Master",
            "master": True, "name": "Master", "recordTypeId": _MASTER_RECORD_TYPE,
            "urls": {"layout": f"{path}/describe/layouts/{_MASTER_RECORD_TYPE}"},
        }],
        "searchLayoutable": True, "sobjectDescribeOption": "FULL",
        "supportedScopes": [
            {"label": f"All {sobject.label_plural.lower()}", "name": "everything"},
            {"label": f"My {sobject.label_plural.lower()}", "name": "mine"},
        ],
    }  # fmt: skip
    return dict(sorted(full.items()))


def _children(schema: Schema, sobject: SObject) -> list[dict[str, Any]]:
    return [
        {
            "cascadeDelete": field.cascade_delete, "childSObject": child.name, "deprecatedAndHidden": False,
            "field": field.name, "junctionIdListNames": [], "junctionReferenceTo": [],
            "relationshipName": _child_name(child, field), "restrictedDelete": field.restricted_delete,
        }
        for child, field in schema.children(sobject)
    ]  # fmt: skip


def _child_name(child: SObject, field: Field) -> str | None:
    if field.child_relationship_name is not None:
        return f"{field.child_relationship_name}__r"
    own = ("OwnerId", "CreatedById", "LastModifiedById")
    return child.label_plural if not child.custom and not field.custom and field.name not in own else None


def describe_field(field: Field) -> dict[str, Any]:
    """A field's 57 keys."""
    kind = field.type
    text = kind in TEXT_TYPES
    byte_length = field.length if kind in ("id", "reference", "multipicklist") else field.length * 3
    plain = not field.long_text
    return {
        "aggregatable": plain and kind not in ("boolean", "multipicklist"), "aiPredictionField": False,
        "autoNumber": field.auto_number is not None, "byteLength": byte_length, "calculated": field.calculated,
        "calculatedFormula": field.formula, "cascadeDelete": field.cascade_delete,
        "caseSensitive": field.case_sensitive, "compoundFieldName": None, "controllerName": None,
        "createable": field.createable, "custom": field.custom,
        "defaultValue": bool(field.default) if kind == "boolean" and field.createable else None,
        "defaultValueFormula": field.default_formula, "defaultedOnCreate": field.defaulted_on_create,
        "dependentPicklist": False, "deprecatedAndHidden": False, "digits": field.digits,
        "displayLocationInDecimal": False, "encrypted": False, "externalId": field.external_id,
        "extraTypeInfo": ("richtextarea" if field.html else "plaintextarea") if kind == "textarea" else None,
        "filterable": plain, "filteredLookupInfo": None, "formulaTreatNullNumberAsZero": False,
        "groupable": plain and kind not in _NOT_GROUPABLE and not field.calculated, "highScaleNumber": False,
        "htmlFormatted": field.html, "idLookup": field.id_lookup, "inlineHelpText": field.help,
        "label": field.label, "length": field.length if text or kind in ("id", "reference") else 0,
        "mask": None, "maskType": None, "name": field.name, "nameField": field.name_field,
        "namePointing": field.name_pointing, "nillable": field.nillable,
        "permissionable": field.custom and field.nillable,
        "picklistValues": [
            {"active": v.active, "defaultValue": v.default, "label": v.label, "validFor": None, "value": v.value}
            for v in field.picklist
        ],
        "polymorphicForeignKey": len(field.reference_to) > 1,
        "precision": field.precision, "queryByDistance": False, "referenceTargetField": None,
        "referenceTo": list(field.reference_to), "relationshipName": field.relationship_name,
        "relationshipOrder": field.relationship_order, "restrictedDelete": field.restricted_delete,
        "restrictedPicklist": field.restricted_picklist, "scale": field.scale, "searchPrefilterable": False,
        "soapType": _SOAP.get(kind, "xsd:double" if kind in NUMBER_TYPES else "xsd:string"),
        "sortable": plain and kind != "multipicklist", "type": kind, "unique": field.unique,
        "updateable": field.updateable, "writeRequiresMasterRead": False,
    }  # fmt: skip
