"""Parents that an activation names by a value, as in `Customer__r.Customer_Id__c`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import LOOKUP_TARGET, NO_RELATIONSHIP, PARENT_NOT_NAMED_BY
from dinmo_dbt.config import declaration
from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.errors import ConfigError
from dinmo_dbt.rows.fields import check_writable, missing_field
from dinmo_dbt.rows.resolution import Resolution


def parent_path(work: Resolution, target: str, key: str) -> tuple[str, Field, Field] | None:
    """`Customer__r.Customer_Id__c`: its exact header, the parent's field, and our lookup field."""
    path, _, named_by = target.rpartition(".")
    type_name, _, relationship = path.rpartition(":")
    lookup = work.schema.relationship(relationship)
    if lookup is None:
        known = [f.relationship_name for f in work.schema.fields.values() if f.relationship_name]
        near = declaration.near_names(relationship, known)
        hint = "a lookup Parent__c is reached as Parent__r" + (f". Did you mean {near[0]}?" if near else "")
        work.problem(NO_RELATIONSHIP, f"{work.schema.name} has no relationship {relationship}", key, hint)
        return None
    check_writable(work, work.schema, lookup, key)
    if len(lookup.reference_to) > 1 and not type_name:
        choices = ", ".join(f"{name}:{relationship}.{named_by}" for name in lookup.reference_to[:3])
        work.problem(LOOKUP_TARGET, f"{relationship} may point to several objects: say which, as in {choices}", key)
        return None
    if type_name and len(lookup.reference_to) == 1:
        work.problem(LOOKUP_TARGET, f"{relationship} points to one object only: write {relationship}.{named_by}", key)
        return None
    parents = {name.lower(): name for name in lookup.reference_to}
    if type_name and type_name.lower() not in parents:
        message = f"{relationship} does not point to {type_name}, but to {', '.join(lookup.reference_to)}"
        work.problem(LOOKUP_TARGET, message, key)
        return None
    type_name = parents[type_name.lower()] if type_name else ""
    try:
        parent = work.parent(type_name or lookup.reference_to[0])
    except ConfigError as error:
        work.problems.extend(each.at(lambda _: f"{work.activation.meta_path}.{key}") for each in error.problems)
        return None
    field = parent.field(named_by)
    if field is None:
        missing_field(work, parent, named_by, key)
        return None
    if field.name == "Id" or not field.filterable:
        work.problem(
            PARENT_NOT_NAMED_BY,
            f"{parent.name}.{field.name} can't name a parent",
            key,
            _named_by(parent, field, lookup),
        )
        return None
    prefix = f"{type_name}:" if type_name else ""
    return f"{prefix}{lookup.relationship_name}.{field.name}", field, lookup


def _named_by(parent: ObjectSchema, field: Field, lookup: Field) -> str:
    """What to do where parents can't be named by a field: Salesforce can't search by it, or it is the record id."""
    by_id = f"map a column of its record id to {lookup.name}"
    if field.name == "Id":
        return by_id
    known = identifying(parent)
    such = f", such as {', '.join(known[:5])}" if known else ""
    return f"name it by a field that Salesforce can search by{such}; or {by_id}"


def identifying(schema: ObjectSchema) -> list[str]:
    """The fields that tell one record of the object from another, external ids first, as far as describe says so. By
    others a parent can be named too, where no two records hold the same."""
    fields = [field for field in schema.fields.values() if field.filterable and field.name != "Id"]
    names = [f.name for f in fields if f.external_id] + [f.name for f in fields if f.unique and not f.external_id]
    return names + (["DeveloperName"] if schema.name == "RecordType" else [])


def referenced_objects(schema: ObjectSchema, activation: Activation) -> Iterator[str]:
    """Objects that the activation's mapped lookups point to: they are to be synced first."""
    for mapped in activation.fields:
        path, _, _ = mapped.field.rpartition(".")
        type_name, _, relationship = path.rpartition(":")
        lookup = schema.relationship(relationship) if path else schema.field(mapped.field)
        if lookup is not None:
            yield from ((type_name,) if type_name else lookup.reference_to)
