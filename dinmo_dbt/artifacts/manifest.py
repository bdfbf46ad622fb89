"""manifest.json: what dbt built. dbt itself is never imported.

`load_manifest` reads the artifact of dbt-core 1.x or dbt 2 (schema v9 to v13; keys may be absent).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dinmo_dbt.codes import (
    ARTIFACT_UNREADABLE,
    MISPLACED_BLOCK,
    NO_ARTIFACT,
    NOT_A_MANIFEST,
    NOT_A_MODEL,
    OTHER_MANIFEST_VERSION,
)
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.meta import NotActivated
from dinmo_dbt.config.written import is_block
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.model import Model
from dinmo_dbt.text import whole_text

SCHEMAS = range(9, 14)
NODES_MAX = 200_000  # far more than any project has: of each a few hundred bytes are kept beside the JSON
REREAD_AFTER_S = 0.3


@dataclass(frozen=True, slots=True)
class Node(Model):
    """One model, seed or snapshot of the root project, as far as we need it: the model, where dbt builds it, and the
    block that it carries."""

    database: str = ""
    schema: str = ""
    package: str = ""
    custom_database: str = ""  # `+database` and `+schema` as configured; empty: the target's own
    custom_schema: str = ""
    materialized: str = ""
    yaml_file: str = ""  # where its properties are, else `file`
    is_latest: bool = True
    ran_as: str = ""  # where dbt writes what it runs, in target/run
    current: tuple[str, ...] = ()  # of a snapshot: conditions, the column first, that its current rows meet
    block: Any = field(default=None, hash=False)  # the raw `dinmo` value of its meta, unchecked; None: none
    place: str = ""  # of the block, where it is not at the model

    @property
    def meta_path(self) -> str:
        if self.place:
            return self.place
        return f"{self.yaml_file}: {self.name}.config.meta.dinmo"


@dataclass(frozen=True, slots=True)
class Test:
    """A data or unit test, and the nodes whose data it judges."""

    unique_id: str
    name: str
    nodes: tuple[str, ...]
    ran_as: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The artifact. `ids` names everything in it, of every package; `disabled` the models that dbt leaves out."""

    adapter_type: str
    invocation_id: str
    project_name: str
    dbt_version: str
    nodes: Mapping[str, Node]
    tests: Mapping[str, Test]
    disabled: tuple[Node, ...]
    others: tuple[Node, ...]  # models, seeds and snapshots of packages that bring, or are given, no block
    own_naming: frozenset[str]  # `schema`, `database`: those that the project, or a package, names by its own macro
    has_selectors: bool  # selectors.yml: one may be the default, and leave out tests
    strays: tuple[NotActivated, ...]  # `dinmo` blocks where none can work, such as on a source
    ids: frozenset[str]

    @property
    def files(self) -> frozenset[str]:
        """The root project's files that its models, seeds and snapshots are of."""
        every = (*self.nodes.values(), *self.disabled)
        own = [node for node in every if node.package == self.project_name]
        return frozenset(file for node in own for file in (node.file, node.yaml_file) if file)


def load_manifest(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Manifest:
    """target/manifest.json. A half-written file (dbt is running) is read once more after a moment."""
    try:
        document = read_json(path)
    except ConfigError as error:
        if error.problems[0].code != ARTIFACT_UNREADABLE:
            raise
        pause(REREAD_AFTER_S)
        document = read_json(path)
    return parse_manifest(document, str(path.name))


def read_json(path: Path) -> Any:
    """A dbt artifact as JSON values. ConfigError DB201 when it is not there, DB202 when it is not whole."""
    try:
        raw = read_file(path)
    except FileNotFoundError:
        hint = "run `dbt build` (or `dbt parse`) in the project first"
        raise ConfigError(NO_ARTIFACT, f"{path.name} not found", where=str(path.parent), hint=hint) from None
    except OSError as error:
        raise ConfigError(
            ARTIFACT_UNREADABLE, f"{path.name} can't be read: {error.strerror}", where=str(path.parent)
        ) from error
    try:
        is_odd = whole_text.is_odd(raw)
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
        del raw  # tens of megabytes, while what they say is made
        found = json.loads(text)
        return whole_text.whole(found) if is_odd else found
    except (ValueError, RecursionError) as error:
        hint = "is dbt still writing it? else delete it and run `dbt build` again"
        message = f"{path.name} is not whole JSON: {type(error).__name__}"
        raise ConfigError(ARTIFACT_UNREADABLE, message, where=str(path.parent), hint=hint) from None


def parse_manifest(document: object, where: str) -> Manifest:
    """A manifest from its JSON values. Unknown keys are ignored and missing ones tolerated; dbt 2 omits nulls."""
    metadata = mapping_of(mapping_of(document).get("metadata"))
    schema = text_of(metadata, "dbt_schema_version")
    match = re.search(r"/dbt/manifest/v([0-9]{1,4})\.json$", schema)
    if not match or not isinstance(mapping_of(document).get("nodes"), dict):
        raise ConfigError(
            NOT_A_MANIFEST, "not a dbt manifest", where=where, hint="it is written by `dbt build` or `dbt parse`"
        )
    if int(match[1]) not in SCHEMAS:
        age = "newer" if int(match[1]) > SCHEMAS[-1] else "older"
        message = f"manifest schema v{match[1]} is {age} than this version reads (v{SCHEMAS[0]} to v{SCHEMAS[-1]})"
        raise ConfigError(
            OTHER_MANIFEST_VERSION, message, where=where, hint="update dinmo-dbt" if age == "newer" else "update dbt"
        )

    root = mapping_of(document)
    if _size(root) > NODES_MAX:
        raise ConfigError(NOT_A_MANIFEST, f"not a dbt manifest: more than {NODES_MAX:,} nodes", where=where)
    project = text_of(metadata, "project_name")
    nodes: dict[str, Node] = {}
    tests: dict[str, Test] = {}
    strays: list[NotActivated] = []
    others: list[Node] = []
    tested: dict[str, dict[str, set[str]]] = {}
    for unique_id, raw in root["nodes"].items():
        kind, package = unique_id.partition(".")[0], text_of(mapping_of(raw), "package_name")
        if kind in _RELATIONS:
            node = _node(unique_id, kind, mapping_of(raw))
            if not project or package == project or node.block is not None:
                nodes[unique_id] = node
            else:
                others.append(node)
        elif kind == "test":
            tests[unique_id] = _test(unique_id, mapping_of(raw))
            _note_key(tested, mapping_of(raw))
        if package == project:
            strays += _strays(unique_id, kind, mapping_of(raw))
    for section in _BESIDE_NODES:
        for unique_id, raw in mapping_of(root.get(section)).items():
            if text_of(mapping_of(raw), "package_name") == project:
                strays += _strays(unique_id, unique_id.partition(".")[0].replace("_", " "), mapping_of(raw))
    for unique_id in tested.keys() & nodes.keys():
        if not nodes[unique_id].primary_key and len(found := _keys(tested[unique_id])) == 1:
            nodes[unique_id] = replace(nodes[unique_id], primary_key=found)
    unit_tests = mapping_of(root.get("unit_tests"))
    tests |= {unique_id: _test(unique_id, mapping_of(raw)) for unique_id, raw in unit_tests.items()}
    disabled = [
        _node(unique_id, unique_id.partition(".")[0], mapping_of(raw))
        for unique_id, versions in mapping_of(root.get("disabled")).items()
        if unique_id.partition(".")[0] in _RELATIONS
        for raw in (versions if isinstance(versions, list) else [versions])
        if text_of(mapping_of(raw), "package_name") == project
    ]
    return Manifest(
        adapter_type=text_of(metadata, "adapter_type"),
        invocation_id=text_of(metadata, "invocation_id"),
        project_name=project,
        dbt_version=text_of(metadata, "dbt_version"),
        nodes=nodes,
        tests=tests,
        disabled=tuple(disabled),
        others=tuple(others),
        has_selectors=bool(mapping_of(root.get("selectors"))),
        own_naming=frozenset(
            what
            for name in mapping_of(root.get("macros"))
            for what in ("schema", "database")
            if name.endswith(f"generate_{what}_name") and not name.startswith("macro.dbt")
        ),
        strays=tuple(strays),
        ids=frozenset(unique_id for section in _SECTIONS for unique_id in mapping_of(root.get(section))),
    )


_RELATIONS = ("model", "seed", "snapshot")
_BESIDE_NODES = ("sources", "exposures", "macros", "metrics", "semantic_models", "saved_queries", "groups", "functions")
_SECTIONS = (
    "nodes",
    "sources",
    "exposures",
    "metrics",
    "unit_tests",
    "semantic_models",
    "saved_queries",
    "functions",
    "disabled",
)


def _size(root: Mapping[str, Any]) -> int:
    """How many nodes of all kinds there are, each version of a disabled one by itself."""
    versions = mapping_of(root.get("disabled")).values()
    return sum(len(mapping_of(root.get(section))) for section in _SECTIONS) + sum(
        len(each) for each in versions if isinstance(each, list)
    )


def _node(unique_id: str, kind: str, raw: Mapping[str, Any]) -> Node:
    config = mapping_of(raw.get("config"))
    contract = mapping_of(raw.get("contract")) or mapping_of(config.get("contract"))
    file = text_of(raw, "original_file_path") or text_of(raw, "path")
    version, latest = raw.get("version"), raw.get("latest_version")
    name = text_of(raw, "name") or unique_id.rpartition(".")[2]
    return Node(
        unique_id=unique_id,
        resource_type=kind,
        name=name,
        package=text_of(raw, "package_name"),
        database=text_of(raw, "database"),
        schema=text_of(raw, "schema"),
        relation_name=text_of(raw, "relation_name"),
        custom_database=text_of(config, "database"),
        custom_schema=text_of(config, "schema") or text_of(config, "target_schema"),
        materialized=text_of(config, "materialized") or kind,
        fqn=_texts(raw.get("fqn")),
        tags=_texts(raw.get("tags")),
        file=file,
        yaml_file=text_of(raw, "patch_path").rpartition("://")[2] or file,
        columns=_columns_of(raw),
        primary_key=_texts(raw.get("primary_key")) or (_unique_key(config) if kind == "snapshot" else ()),
        contract_enforced=contract.get("enforced") is True,
        is_latest=version is None or latest is None or str(version) == str(latest),
        ran_as=_ran_as(raw),
        current=current_markers(config) if kind == "snapshot" else (),
        block=_block(raw),
    )


def _ran_as(raw: Mapping[str, Any]) -> str:
    """A node's file in target/run, as dbt-core places it (`get_target_write_path`); '' where it can't be known."""
    package, file, path = (text_of(raw, name) for name in ("package_name", "original_file_path", "path"))
    if not (package and file and path) or ".." in f"{file}/{path}":
        return ""
    inside = file if file.rpartition("/")[2] == path.rpartition("/")[2] else f"{file}/{path}"
    return f"{package}/{inside}".replace("\\", "/")


def _block(raw: Mapping[str, Any]) -> Any:
    """`config.meta.dinmo`, or `meta.dinmo` of an old manifest. A block that is null is a block: an empty one."""
    for meta in (mapping_of(mapping_of(raw.get("config")).get("meta")), mapping_of(raw.get("meta"))):
        if "dinmo" in meta:
            return {} if meta["dinmo"] is None else meta["dinmo"]
    return None


def _columns_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    columns = mapping_of(raw.get("columns"))
    return tuple(text_of(mapping_of(column), "name") or key for key, column in columns.items())


def _test(unique_id: str, raw: Mapping[str, Any]) -> Test:
    attached = text_of(raw, "attached_node")
    depends_on = _texts(mapping_of(raw.get("depends_on")).get("nodes"))
    judged = (attached,) if attached else depends_on
    return Test(unique_id, text_of(raw, "name") or unique_id, judged, _ran_as(raw))


_OF_A_KEY = {"unique", "not_null"}


def _note_key(tested: dict[str, dict[str, set[str]]], raw: Mapping[str, Any]) -> None:
    """By seed and column, which of the tests of a key it has, of all rows: dbt tells a primary key of models alone."""
    attached, column = text_of(raw, "attached_node"), text_of(raw, "column_name")
    name = text_of(mapping_of(raw.get("test_metadata")), "name")
    if attached.startswith("seed.") and column and name in _OF_A_KEY and not mapping_of(raw.get("config")).get("where"):
        tested.setdefault(attached, {}).setdefault(column, set()).add(name)


def _keys(columns: Mapping[str, set[str]]) -> tuple[str, ...]:
    return tuple(column for column, names in columns.items() if names == _OF_A_KEY)


def _unique_key(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns by which a snapshot knows its rows; none where it is an expression."""
    given = config.get("unique_key")
    names = given if isinstance(given, list) else [given]
    plain = [name for name in names if isinstance(name, str) and re.fullmatch(r"\w+", name)]
    return tuple(plain) if len(plain) == len(names) else ()


def _strays(unique_id: str, kind: str, raw: Mapping[str, Any]) -> list[NotActivated]:
    """Blocks in a resource that no activation comes of: at another place, by another name, or of another kind."""
    config = mapping_of(raw.get("config"))
    name, file = text_of(raw, "name") or unique_id, text_of(raw, "original_file_path")
    found: list[tuple[str, Problem]] = []
    ways = [("config.meta", mapping_of(config.get("meta")) or mapping_of(raw.get("meta")))]
    ways += [("config", {key: value for key, value in config.items() if key != "meta"})]
    for column, said in mapping_of(raw.get("columns")).items():
        ways.append(
            (f"columns.{column}.config.meta", mapping_of(mapping_of(mapping_of(said).get("config")).get("meta")))
        )
    yaml_file = text_of(raw, "patch_path").rpartition("://")[2] or file
    for way, values in ways:
        for key, value in values.items():
            activates = kind in _RELATIONS and (way, key) == ("config.meta", "dinmo")
            # An exposure that `dinmo-dbt exposures` wrote carries `meta: {dinmo: {generated: true}}`: no declaration.
            is_generated = isinstance(value, Mapping) and value.get("generated") is True
            if isinstance(key, str) and not activates and not is_generated and is_block(key, value):
                where = f"{yaml_file}: {name}.{way}.{key}"
                found.append((where, _stray(kind, name, way, key, where)))
    model = Model(unique_id, name, "", kind, _texts(raw.get("fqn")), _texts(raw.get("tags")), file)
    return [NotActivated(name, model, where, (problem,)) for where, problem in found]


def _stray(kind: str, name: str, way: str, key: str, where: str) -> Problem:
    if kind not in _RELATIONS:
        return Problem(NOT_A_MODEL, f"only models, seeds and snapshots can be activated, not a {kind}", where)
    hint = f"write it at {show(name)}, under config > meta > dinmo"
    if way.startswith("columns"):
        return Problem(MISPLACED_BLOCK, "a column can't be activated, its model can", where, hint)
    misspelt = "" if key == "dinmo" else f": {show(key)} is not `dinmo`"
    return Problem(MISPLACED_BLOCK, f"nothing is read here{misspelt}", where, hint)


def current_markers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """dbt, "Snapshot configs": `dbt_valid_to_current` stands in the place of null, `hard_deletes: new_record` adds a
    version that says it is deleted, and `snapshot_meta_column_names` renames the columns."""
    names = mapping_of(config.get("snapshot_meta_column_names"))
    valid_to = text_of(names, "dbt_valid_to") or "dbt_valid_to"
    ends = text_of(config, "dbt_valid_to_current")
    current = f"{valid_to} = {ends}" if ends else f"{valid_to} is null"
    if config.get("hard_deletes") != "new_record":
        return (current,)
    return current, f"{text_of(names, 'dbt_is_deleted') or 'dbt_is_deleted'} = 'False'"


def mapping_of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def text_of(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
