"""Where an org's schema comes from: the built-in objects, and over them an SFDX tree, describe JSON, YAML documents.

A source is a file, or a folder in which they may lie side by side: `objects/` anywhere in it, `*.json` and `*.yml`
directly in it. Describes come first, then the tree, then the documents, each over what came before.
"""

from __future__ import annotations

from pathlib import Path

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.definitions import Schema
from dinmo_dbt.emulator.schema.described import described_object, read_describes
from dinmo_dbt.emulator.schema.document import laid_over, read_document
from dinmo_dbt.emulator.schema.sfdx import with_tree
from dinmo_dbt.emulator.schema.standard import standard_objects

_YAML = (".yml", ".yaml")


def read_schema(source: Path | None) -> Schema:
    """The built-in objects plus what `source` declares; without one, the built-in ones alone.

    SchemaError names the file and the element that can't be used.
    """
    objects = {o.name: o for o in standard_objects()}
    if source is None:
        return Schema.of(objects.values())
    if not source.exists():
        raise SchemaError(f"{source}: no such file or folder (an SFDX source tree, describe JSON or YAML)")
    describes, documents = schema_files(source)
    notes: list[str] = []
    described: set[str] = set()
    for path in describes:
        for each in read_describes(path):
            name = each["name"]
            objects[name], more = described_object(each, objects.get(name), str(path))
            described.add(name)
            notes += more
    if source.is_dir():
        objects = with_tree(objects, source)
    schema = Schema.of(objects.values(), tuple(notes))
    if source.is_file() and not (documents or describes):
        raise SchemaError(f"{source}: a schema file is describe JSON (.json) or YAML (.yml, .yaml)")
    for path in documents:
        try:
            schema = laid_over(schema, read_document(path))
        except SchemaError as error:
            raise error if str(error).startswith(str(path)) else SchemaError(f"{path}: {error}") from error
    return _with_parents(schema, described)


def schema_files(source: Path) -> tuple[list[Path], list[Path]]:
    """The describe JSON and the YAML documents of a source, which is one of these or the folder that they lie in."""
    files = [path for path in (sorted(source.iterdir()) if source.is_dir() else [source]) if path.is_file()]
    return [p for p in files if p.suffix == ".json"], [p for p in files if p.suffix in _YAML]


def _with_parents(schema: Schema, described: set[str]) -> Schema:
    """Every lookup must lead somewhere. A describe names more parents than anybody pulls: there it is noted."""
    notes = []
    known = {o.name for o in schema.every}
    for each in schema.every:
        for field in each.every:
            missing = [p for p in field.reference_to if p not in known and p != "Group"]
            if not missing:
                continue
            if each.name not in described:
                raise SchemaError(
                    f"{each.name}.{field.name} refers to {', '.join(missing)}, which this emulator does not have: "
                    "add its object to the schema"
                )
            if field.createable and len(missing) == len(field.reference_to):
                listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                notes.append(f"{each.name}.{field.name} refers to {listed}, not in the schema: it takes no value")
    return Schema.of(schema.every, (*schema.approximate, *notes))
