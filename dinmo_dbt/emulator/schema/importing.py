"""Bringing a real org's schema into a project: describe replies, documents and trees into a schema folder, or nothing.

They are tried in a copy of the folder first, so that what replaces it is a folder that the emulator can serve.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.schema.described import read_describes
from dinmo_dbt.emulator.schema.document import read_document
from dinmo_dbt.emulator.schema.sfdx import VALUE_SETS, object_folders
from dinmo_dbt.emulator.schema.source import read_schema, schema_files


@dataclass(frozen=True, slots=True)
class Imported:
    """`objects` by API name, sorted; `approximate` says in sentences what of them is not imitated."""

    objects: tuple[str, ...]
    approximate: tuple[str, ...]


def import_source(source: Path, folder: Path) -> Imported:
    """Copy a schema into `folder`: describe JSON, a YAML document, or a folder of these and of an SFDX tree.

    Files of the same name are replaced, others stay. SchemaError, and `folder` as it was, when the result can't be
    used or `source` holds no schema.
    """
    if not source.exists():
        raise SchemaError(f"{source}: no such file or folder")
    replies, documents = schema_files(source)
    describes = [describe for path in replies for describe in read_describes(path)]
    trees = object_folders(source) if source.is_dir() else []
    if not (describes or documents or trees):
        raise SchemaError(f"{source}: holds no describe JSON, no YAML document and no SFDX objects folder")
    value_sets = list(source.rglob(f"*{VALUE_SETS}")) if trees else []

    def lay(trial: Path) -> None:
        for tree in trees:
            shutil.copytree(tree, trial / "objects" / tree.name, dirs_exist_ok=True)
        for path in value_sets:
            (trial / "globalValueSets").mkdir(exist_ok=True)
            shutil.copyfile(path, trial / "globalValueSets" / path.name)
        for path in documents:
            shutil.copyfile(path, trial / path.name)
        _write(describes, trial)

    named = {d["name"] for d in describes} | {t.name for t in trees}
    return _imported(folder, lay, named.union(*(read_document(p).objects for p in documents)))


def import_describes(describes: Sequence[Mapping[str, Any]], folder: Path) -> Imported:
    """Write describe replies into `folder`, one file an object, as `import_source` does."""
    return _imported(folder, lambda trial: _write(describes, trial), {d["name"] for d in describes})


def _write(describes: Sequence[Mapping[str, Any]], folder: Path) -> None:
    for each in describes:
        text = json.dumps(each, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{each['name']}.describe.json").write_text(text, encoding="utf-8")


def _imported(folder: Path, lay: Callable[[Path], None], named: set[str]) -> Imported:
    if folder.is_file():
        raise SchemaError(f"{folder}: is a file; a schema is brought into a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        trial = Path(scratch) / folder.name
        if folder.exists():
            shutil.copytree(folder, trial)
        trial.mkdir(exist_ok=True)
        lay(trial)
        try:
            schema = read_schema(trial)
        except SchemaError as error:
            raise SchemaError(str(error).replace(f"{trial}/", "")) from error
        if folder.exists():
            folder.rename(Path(scratch) / "before")
        trial.rename(folder)
    wanted = {n.lower() for n in named}
    objects = tuple(sorted(o.name for o in schema.every if o.name.lower() in wanted))
    return Imported(objects, tuple(n for n in schema.approximate if n.partition(".")[0] in objects))
