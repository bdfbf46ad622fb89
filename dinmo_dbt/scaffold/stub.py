"""An object for the emulator, made after a model's columns: something to sync to before the org has it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as kinds

from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.text.whole_text import as_yaml

_BY_NAME = (("email", "Email", "email", 80), ("phone", "Phone", "phone", 40), ("website", "Url", "url", 255))


@dataclass(frozen=True)
class Stub:
    """The object as describe will tell it, and as the emulator's YAML."""

    schema: ObjectSchema
    text: str


def stub(object_name: str, columns: pa.Schema, match: Mapping[str, str], origin: str) -> Stub:
    """A custom object with a field for each column that one type of Salesforce's fits; that of the matched column is an
    external id. `object_name` ends in `__c`; `origin`: what imports the real org's own."""
    label = object_name.removesuffix("__c").replace("_", " ")
    own_name = re.sub("[^a-z]", "", label.lower()) + "name"
    fields: dict[str, tuple[Field, str]] = {}
    for column in columns:
        if re.sub("[^a-z]", "", column.name.lower()) in ("name", own_name):
            continue  # every custom object has Name
        given = match.get(column.name, "")
        made = _field(column, given if given.endswith("__c") else "", is_key=column.name in match)
        if made is not None and made[0].name not in fields:
            fields[made[0].name] = made
    lines = [
        f"# {object_name} for the local org, after the columns of the model. Where the real org has the object, bring",
        f"# its own fields instead: {origin} --object {object_name}",
        "objects:",
        f"  {object_name}:",
        f"    label: {as_yaml(label)}",
        "    fields:",
        *(f"      {field.name}: {text}" for field, text in fields.values()),
    ]
    every = {"Name": Field("Name", "Name", "string", length=80), **{name: field for name, (field, _) in fields.items()}}
    schema = ObjectSchema(object_name, label, None, True, True, True, True, every)
    return Stub(schema, "\n".join(lines) + "\n")


def api_name(column: str) -> str:
    """`customer_id` as Customer_Id__c; at most 43 characters, as Salesforce has it."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", column) if word]
    name = "_".join(word[:1].upper() + word[1:] for word in words)
    name = name if re.match("[A-Za-z]", name) else f"X{name}"
    return f"{name[:40].rstrip('_')}__c"


def _field(column: pa.Field, given: str, *, is_key: bool) -> tuple[Field, str] | None:
    """The field that a column's values fit, and its YAML; None where none does."""
    name, type_ = given or api_name(column.name), column.type
    label = name.removesuffix("__c").replace("_", " ")
    if is_key:
        key = Field(name, label, "string", length=80, external_id=True, unique=True, nillable=False, id_lookup=True)
        return key, "{type: Text, length: 80, external_id: true, unique: true, required: true}"
    if kinds.is_string(type_) or kinds.is_large_string(type_):
        for word, metadata, described, length in _BY_NAME:
            if word in column.name.lower():
                return Field(name, label, described, length=length), f"{{type: {metadata}}}"
        return Field(name, label, "string", length=255), "{type: Text, length: 255}"
    if kinds.is_boolean(type_):
        return Field(name, label, "boolean", nillable=False, defaulted_on_create=True), "{type: Checkbox}"
    for is_kind, metadata in ((kinds.is_date, "Date"), (kinds.is_timestamp, "DateTime"), (kinds.is_time, "Time")):
        if is_kind(type_):
            return Field(name, label, metadata.lower()), f"{{type: {metadata}}}"
    if kinds.is_decimal(type_):
        precision, scale = min(type_.precision, 18), min(type_.scale, 17)
    elif kinds.is_integer(type_):
        precision, scale = 18, 0
    elif kinds.is_floating(type_):
        precision, scale = 18, 4
    else:
        return None
    number = Field(name, label, "double", precision=precision, scale=scale)
    return number, f"{{type: Number, precision: {precision}, scale: {scale}}}"
