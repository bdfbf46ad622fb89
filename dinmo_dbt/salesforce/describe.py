"""describe -> ObjectSchema, in the exact case of the org (REST guide, "sObject Describe")."""

from __future__ import annotations

from typing import Any

from dinmo_dbt.codes import NO_FIELD, NO_OBJECT
from dinmo_dbt.config.declaration import near_names
from dinmo_dbt.destination import Field, ListedObject, ObjectSchema
from dinmo_dbt.errors import ConfigError, NotApplied
from dinmo_dbt.salesforce.client import Client
from dinmo_dbt.salesforce.errors import SalesforceRefusal
from dinmo_dbt.salesforce.hosts import is_api_name


def describe(client: Client, object_name: str) -> ObjectSchema:
    """The object's schema; ConfigError DB301, with the nearest names, if the org has no such object for this user."""
    return parse(reply(client, object_name))


def reply(client: Client, object_name: str) -> dict[str, Any]:
    """The describe as Salesforce sends it; ConfigError DB301 as in `describe`."""
    if not is_api_name(object_name):
        raise _unknown(object_name, [])
    try:
        content: dict[str, Any] = client.simple.restful(f"sobjects/{object_name}/describe")
    except SalesforceRefusal as refusal:
        if refusal.status == 404 or refusal.salesforce_code == "INVALID_TYPE":
            raise _unknown(object_name, [listed.name for listed in objects(client)]) from None
        raise
    return content


def parse(content: Any) -> ObjectSchema:
    """describe's JSON as a schema. Picklist values are the active ones."""
    try:
        fields = {entry["name"]: _field(entry) for entry in content["fields"]}
        return ObjectSchema(
            name=_text(content["name"]),
            label=_text(content["label"]),
            key_prefix=content.get("keyPrefix"),
            createable=bool(content["createable"]),
            updateable=bool(content["updateable"]),
            deletable=bool(content["deletable"]),
            custom=bool(content["custom"]),
            fields=fields,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as fault:
        raise NotApplied(NO_FIELD, f"describe has an unknown form ({type(fault).__name__})") from None


def _field(entry: dict[str, Any]) -> Field:
    return Field(
        name=_text(entry["name"]),
        label=_text(entry.get("label") or entry["name"]),
        type=_text(entry["type"]),
        length=int(entry.get("length") or 0),
        precision=int(entry.get("precision") or 0),
        scale=int(entry.get("scale") or 0),
        digits=int(entry.get("digits") or 0),
        createable=bool(entry.get("createable")),
        updateable=bool(entry.get("updateable")),
        nillable=bool(entry.get("nillable")),
        defaulted_on_create=bool(entry.get("defaultedOnCreate")),
        external_id=bool(entry.get("externalId")),
        id_lookup=bool(entry.get("idLookup")),
        unique=bool(entry.get("unique")),
        case_sensitive=bool(entry.get("caseSensitive")),
        restricted_picklist=bool(entry.get("restrictedPicklist")),
        picklist=tuple(_text(value["value"]) for value in entry.get("picklistValues") or () if value.get("active")),
        reference_to=tuple(_text(name) for name in entry.get("referenceTo") or ()),
        relationship_name=entry.get("relationshipName"),
        calculated=bool(entry.get("calculated")),
        auto_number=bool(entry.get("autoNumber")),
        filterable=bool(entry.get("filterable", True)),
        html=bool(entry.get("htmlFormatted")),
        compound=_text(entry.get("compoundFieldName") or ""),
        is_master=entry.get("relationshipOrder") is not None,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def objects(client: Client) -> list[ListedObject]:
    """The org's objects that this user may see, by API name."""
    content = client.simple.restful("sobjects")
    try:
        found = [
            ListedObject(
                name=_text(entry["name"]),
                label=_text(entry.get("label") or entry["name"]),
                custom=bool(entry.get("custom")),
                createable=bool(entry.get("createable")),
                updateable=bool(entry.get("updateable")),
                deletable=bool(entry.get("deletable")),
            )
            for entry in content["sobjects"]
        ]
    except (KeyError, TypeError, AttributeError) as fault:
        raise NotApplied(NO_FIELD, f"the list of objects has an unknown form ({type(fault).__name__})") from None
    return sorted(found, key=lambda listed: listed.name.lower())


def _unknown(object_name: str, names: list[str]) -> ConfigError:
    by_folded = {name.lower(): name for name in names}
    near = near_names(object_name, names, count=3)
    custom = f"{object_name}__c".lower()
    if custom in by_folded and by_folded[custom] not in near:
        near.insert(0, by_folded[custom])
    create = "create it: Setup -> Object Manager -> Create -> Custom Object, and give the user access to it"
    return ConfigError(
        NO_OBJECT,
        f"the org has no object {object_name}, or the user may not see it",
        where=f"object {object_name}",
        hint=create + (f". Did you mean {' or '.join(near)}?" if near else ""),
    )
