"""A schema as a YAML document, and a document laid over a schema that is there.

    objects:
      Subscription__c:
        label: Subscription
        fields:
          Subscription_Id__c: {type: Text, length: 40, unique: true, external_id: true, required: true}
          Plan__c: {type: Picklist, values: [Basic, Pro], restricted: true}
          Customer__c: {type: Lookup, to: Account, relationship_name: Subscriptions}
        record_types: {Partner: {default: true}}
      Account:
        fields: {Tier__c: {type: Text}, Rating: {access: read}, Fax: {access: none}}

The same document changes a running org: what it names changes, null removes, the rest stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.declared import Document, changed_object, new_object
from dinmo_dbt.emulator.schema.definitions import Schema

_ERRORS_MAX = 20


def read_document(path: Path) -> Document:
    """A YAML file. SchemaError with every problem in it, each by its place."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise SchemaError(f"{path}: can't be read: {error}") from error
    return parsed_document(given, str(path))


def parsed_document(given: Any, where: str) -> Document:
    """A document out of YAML or JSON; SchemaError says where each problem stands."""
    try:
        return Document.model_validate(given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'the document'}: {e['msg']}" for e in error.errors()]
        more = [f"and {len(problems) - _ERRORS_MAX} more"] if len(problems) > _ERRORS_MAX else []
        raise SchemaError("\n".join(f"{where}: {p}" for p in [*problems[:_ERRORS_MAX], *more])) from error


def laid_over(schema: Schema, document: Document) -> Schema:
    """The schema with what the document says. SchemaError names the object and field that can't be so."""
    objects = {o.name.lower(): o for o in schema.every}
    for name, spec in document.objects.items():
        known = objects.get(name.lower())
        if spec is None:
            if known is None or not known.custom:
                raise SchemaError(f"{name}: only a custom object that is there can be removed")
            del objects[name.lower()]
        elif known is None:
            objects[name.lower()] = new_object(name, spec)
        else:
            objects[name.lower()] = changed_object(known, spec)
    return Schema.of(objects.values(), schema.approximate)
