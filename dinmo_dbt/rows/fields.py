"""Fields of the object that an activation names: whether they are there, and take a value. Pure."""

from __future__ import annotations

from dinmo_dbt.codes import FIELD_COMPUTED, FIELD_NOT_WRITABLE, LABEL_NOT_NAME, NO_FIELD
from dinmo_dbt.config import declaration
from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.rows.resolution import Resolution

_AUDIT_FIELDS = frozenset({"CreatedById", "CreatedDate", "LastModifiedById", "LastModifiedDate"})
_KEPT_BY_SALESFORCE = _AUDIT_FIELDS | {
    "Id", "IsDeleted", "LastActivityDate", "LastReferencedDate", "LastViewedDate", "MasterRecordId", "SystemModstamp",
}  # fmt: skip


def missing_field(work: Resolution, schema: ObjectSchema, name: str, key: str) -> None:
    labelled = [f.name for f in schema.fields.values() if f.label.lower() == name.lower()]
    if labelled:
        work.problem(LABEL_NOT_NAME, f"{name!r} is a label; its API name is {labelled[0]}", key)
        return
    near = declaration.near_names(name, schema.fields)
    hint = f"Setup > Object Manager > {schema.label} > Fields & Relationships > New creates it"
    hint += "; if it exists, the user lacks field-level security on it"
    hint += f". Did you mean {near[0]}?" if near else ""
    hint = declaration.unquoted_key(name) or hint
    work.problem(NO_FIELD, f"{schema.name} has no field {name} that the user may see", key, hint)


def check_writable(
    work: Resolution, schema: ObjectSchema, field: Field, key: str, *, edited_only: bool = False
) -> None:
    """An upsert needs one of the two rights: a field that is written on new records only, or on those alone that
    are there, goes with those rows."""
    name, new, known = f"{schema.name}.{field.name}", work.writes_new and not edited_only, work.writes_known
    known = known or edited_only
    computed = field.calculated or field.auto_number
    if not computed and ((new and field.createable) or (known and field.updateable)):
        return
    if computed:
        what = "an auto-number" if field.auto_number else "a formula or roll-up"
        hint = "take it out of the mapping" + ("" if field.auto_number else ", and map the fields it is made of")
        work.problem(FIELD_COMPUTED, f"{name} is {what}: Salesforce computes it", key, hint)
    elif parts := _parts(schema, field):
        message = f"{name} is put together by Salesforce of {', '.join(parts)}"
        work.problem(FIELD_COMPUTED, message, key, f"map columns to {', '.join(parts)}")
    elif field.name in _KEPT_BY_SALESFORCE:
        hint = "take it out of the mapping" + (
            "; a user with the permission Set Audit Fields upon Record Creation may give it to new records"
            if field.name in _AUDIT_FIELDS
            else ""
        )
        work.problem(FIELD_NOT_WRITABLE, f"{name} is kept by Salesforce itself", key, hint)
    elif field.createable:
        hint = "map it with mode: upsert or insert, which send it with new records"
        if field.is_master and field.name.lower().endswith("__c"):
            hint += f"; or let details move: {setup_of(schema, field)} > Edit: tick Allow reparenting"
        what = "a master-detail field: it" if field.is_master else "a field that"
        work.problem(FIELD_NOT_WRITABLE, f"{name} is {what} takes a value on new records only", key, hint)
    elif field.updateable:
        message = f"{name} is a field that takes a value only on records that are there"
        work.problem(
            FIELD_NOT_WRITABLE, message, key, "map it with mode: update or upsert, which send it with known records"
        )
    else:
        rights = " or ".join(word for needed, word in ((new, "created"), (known, "edited")) if needed)
        hint = f"{setup_of(schema, field)} > Set Field-Level Security: Visible, not Read-Only"
        work.problem(FIELD_NOT_WRITABLE, f"{name} can't be {rights} by the user", key, hint)


def setup_of(schema: ObjectSchema, field: Field) -> str:
    return f"Setup > Object Manager > {schema.label} > Fields & Relationships > {field.label}"


def _parts(schema: ObjectSchema, field: Field) -> list[str]:
    """The fields that a compound one, such as a person's Name or an address, is put together of."""
    return [f.name for f in schema.fields.values() if f.compound == field.name != f.name and f.createable]
