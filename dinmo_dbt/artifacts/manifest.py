"""manifest.json: what dbt built, and the activations its models declare. dbt itself is never imported.

`load_manifest` reads the artifact of dbt-core 1.x or dbt 2 (schema v9 to v13; keys may be absent). `activations`
resolves every `config.meta.dinmo` block of the root project; what is wrong with one activation stops no other.
"""

from __future__ import annotations

import heapq
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.meta import Left, Source, checked_defaults, left_out, resolve
from dinmo_dbt.config.written import is_block
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.text import whole_text

ABSENT = "DB201"
UNREADABLE = "DB202"
NOT_A_MANIFEST = "DB203"
OTHER_SCHEMA = "DB204"

DUPLICATE_NAME = "DB130"
INHERITED = "DB131"
DISABLED = "DB132"
NO_RELATION = "DB133"
NOT_IN_CONTRACT = "DB135"
NOT_DOCUMENTED = "DB136"
SNAPSHOT_HISTORY = "DB137"
CYCLE = "DB141"
NOT_A_MODEL = "DB144"
MISPLACED = "DB147"
OF_A_PACKAGE = "DB150"

SCHEMAS = range(9, 14)
NODES_MAX = 200_000  # far more than any project has: of each a few hundred bytes are kept beside the JSON
REREAD_AFTER_S = 0.3


@dataclass(frozen=True, slots=True)
class Node:
    """One model, seed or snapshot of the root project, as far as we need it."""

    unique_id: str
    resource_type: str
    name: str
    database: str
    schema: str
    relation_name: str
    package: str
    custom_database: str  # `+database` and `+schema` as configured; empty: the target's own
    custom_schema: str
    materialized: str
    fqn: tuple[str, ...]
    tags: tuple[str, ...]
    file: str  # where the model itself is
    yaml_file: str  # where its properties are, else `file`
    columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    contract_enforced: bool
    is_latest: bool
    ran_as: str = ""  # where dbt writes what it runs, in target/run
    current: tuple[str, ...] = ()  # of a snapshot: conditions, the column first, that its current rows meet
    block: Any = None  # the raw `dinmo` value of its meta, as yet unchecked; None: none
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
    """The artifact. `ids` names everything in it, of every package; `disabled` the models dbt was told to leave out."""

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
    strays: tuple[Left, ...]  # `dinmo` blocks where none can work, such as on a source
    ids: frozenset[str]

    @property
    def files(self) -> frozenset[str]:
        """The root project's files that its models, seeds and snapshots are of."""
        every = (*self.nodes.values(), *self.disabled)
        own = [node for node in every if node.package == self.project_name]
        return frozenset(file for node in own for file in (node.file, node.yaml_file) if file)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Every activation of the project, sorted by name; what is declared and is none; and what is worth saying.

    `problems` are of the defaults, and so of every activation. A note is about the activation whose `meta_path` is its
    `where`.
    """

    activations: tuple[Activation, ...]
    left: tuple[Left, ...] = ()
    notes: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def wrong(self) -> tuple[Problem, ...]:
        """All that is wrong, each thing once, at most so many that they can be read."""
        return at_most([*self.problems, *(p for each in self.left if each.is_wrong for p in each.problems)])

    @property
    def names(self) -> tuple[str, ...]:
        """What activations are called, right or not."""
        return (*(each.name for each in self.activations), *(each.name for each in self.left))


def load_manifest(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Manifest:
    """target/manifest.json. A half-written file (dbt is running) is read once more after a moment."""
    try:
        document = read_json(path)
    except ConfigError as error:
        if error.problems[0].code != UNREADABLE:
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
        raise ConfigError(ABSENT, f"{path.name} not found", where=str(path.parent), hint=hint) from None
    except OSError as error:
        raise ConfigError(UNREADABLE, f"{path.name} can't be read: {error.strerror}", where=str(path.parent)) from error
    try:
        found = json.loads(raw)
        return whole_text.whole(found) if whole_text.is_odd(raw) else found
    except (ValueError, RecursionError) as error:
        hint = "is dbt still writing it? else delete it and run `dbt build` again"
        message = f"{path.name} is not whole JSON: {type(error).__name__}"
        raise ConfigError(UNREADABLE, message, where=str(path.parent), hint=hint) from None


def parse_manifest(document: object, where: str) -> Manifest:
    """A manifest from its JSON values. Unknown keys are ignored and missing ones tolerated; dbt 2 omits nulls."""
    metadata = _mapping(_mapping(document).get("metadata"))
    schema = _text(metadata, "dbt_schema_version")
    match = re.search(r"/dbt/manifest/v([0-9]{1,4})\.json$", schema)
    if not match or not isinstance(_mapping(document).get("nodes"), dict):
        raise ConfigError(
            NOT_A_MANIFEST, "not a dbt manifest", where=where, hint="it is written by `dbt build` or `dbt parse`"
        )
    if int(match[1]) not in SCHEMAS:
        age = "newer" if int(match[1]) > SCHEMAS[-1] else "older"
        message = f"manifest schema v{match[1]} is {age} than this version reads (v{SCHEMAS[0]} to v{SCHEMAS[-1]})"
        raise ConfigError(
            OTHER_SCHEMA, message, where=where, hint="update dinmo-dbt" if age == "newer" else "update dbt"
        )

    root = _mapping(document)
    if _size(root) > NODES_MAX:
        raise ConfigError(NOT_A_MANIFEST, f"not a dbt manifest: more than {NODES_MAX:,} nodes", where=where)
    project = _text(metadata, "project_name")
    nodes: dict[str, Node] = {}
    tests: dict[str, Test] = {}
    strays: list[Left] = []
    others: list[Node] = []
    for unique_id, raw in root["nodes"].items():
        kind, package = unique_id.partition(".")[0], _text(_mapping(raw), "package_name")
        if kind in _RELATIONS:
            node = _node(unique_id, kind, _mapping(raw))
            if not project or package == project or node.block is not None:
                nodes[unique_id] = node
            else:
                others.append(node)
        elif kind == "test":
            tests[unique_id] = _test(unique_id, _mapping(raw))
        if package == project:
            strays += _strays(unique_id, kind, _mapping(raw))
    for section in _BESIDE_NODES:
        for unique_id, raw in _mapping(root.get(section)).items():
            if _text(_mapping(raw), "package_name") == project:
                strays += _strays(unique_id, unique_id.partition(".")[0].replace("_", " "), _mapping(raw))
    unit_tests = _mapping(root.get("unit_tests"))
    tests |= {unique_id: _test(unique_id, _mapping(raw)) for unique_id, raw in unit_tests.items()}
    disabled = [
        _node(unique_id, unique_id.partition(".")[0], _mapping(raw))
        for unique_id, versions in _mapping(root.get("disabled")).items()
        if unique_id.partition(".")[0] in _RELATIONS
        for raw in (versions if isinstance(versions, list) else [versions])
        if _text(_mapping(raw), "package_name") == project
    ]
    return Manifest(
        adapter_type=_text(metadata, "adapter_type"),
        invocation_id=_text(metadata, "invocation_id"),
        project_name=project,
        dbt_version=_text(metadata, "dbt_version"),
        nodes=nodes,
        tests=tests,
        disabled=tuple(disabled),
        others=tuple(others),
        has_selectors=bool(_mapping(root.get("selectors"))),
        own_naming=frozenset(
            what
            for name in _mapping(root.get("macros"))
            for what in ("schema", "database")
            if name.endswith(f"generate_{what}_name") and not name.startswith("macro.dbt")
        ),
        strays=tuple(strays),
        ids=frozenset(unique_id for section in _SECTIONS for unique_id in _mapping(root.get(section))),
    )


def activations(
    manifest: Manifest,
    project_defaults: Mapping[str, Any],
    *,
    written_at: Callable[[declaration.Path], str] = lambda path: f"dinmo.yml: {declaration.dotted(path)}",
    placed: Callable[[Node], str] = lambda _: "",
    strays: Sequence[Left] | None = None,
) -> Loaded:
    """Every activation the root project declares, sorted by name, and what keeps others from being one.

    `placed`: where in dbt_project.yml the block of a node stands, '' if it is elsewhere. So the root project gives a
    package's model a block; one that the package brings counts for nothing. `written_at`: where a key of dinmo.yml
    stands. `strays`: of what no activation comes, as
    far as it is known better than from the manifest alone.
    """

    defaults, problems = checked_defaults(project_defaults, lambda path: written_at(("defaults", *path)))
    left = [*(manifest.strays if strays is None else strays), *_disabled(manifest, defaults)]
    declared: list[Node] = []
    for node in sorted(manifest.nodes.values(), key=lambda each: each.unique_id):
        if node.block is None or not node.is_latest:
            continue
        given = placed(node)
        if given or not manifest.project_name or node.package == manifest.project_name:
            declared.append(replace(node, place=given))
            continue
        left += left_out(node.block, source_of(node), defaults, (_of_a_package(node),), is_wrong=False)
    inherited = _inherited(declared)
    found: list[Activation] = []
    for node in declared:
        source = source_of(node)
        if problem := inherited.get(node.unique_id) or _no_relation(node):
            left += left_out(node.block, source, defaults, (problem,))
            continue
        resolved = resolve(node.block, source, defaults)
        found += resolved.activations
        left += resolved.left
    twice = _duplicate_names([*found, *(each for each in left if each.is_wrong)])
    notes: list[Problem] = []
    right: list[Activation] = []
    for activation in found:
        wrong, said = _columns(activation)
        wrong += [twice[activation.name.lower()]] if activation.name.lower() in twice else []
        if wrong:
            left.append(left_activation(activation, tuple(wrong)))
            continue
        right.append(activation)
        notes += [*said, *_history(activation, manifest.nodes[activation.model])]
    return Loaded(
        tuple(sorted(right, key=lambda a: a.name)),
        tuple(left),
        tuple(notes),
        tuple(problems),
    )


def at_most(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, as many as can be read."""
    each = tuple(dict.fromkeys(problems))
    if len(each) <= declaration.PROBLEMS_MAX:
        return each
    shown = each[: declaration.PROBLEMS_MAX]
    return (*shown, Problem(shown[-1].code, f"and {len(each) - len(shown)} more problems"))


def left_activation(activation: Activation, problems: tuple[Problem, ...]) -> Left:
    """An activation that is right by itself, and can't be used."""
    return Left(
        name=activation.name,
        model=activation.model,
        model_name=activation.model_name,
        fqn=activation.fqn,
        tags=activation.tags,
        file=activation.file,
        meta_path=activation.meta_path,
        problems=problems,
        object=activation.object,
        enabled=activation.enabled,
        nearly=activation,
    )


def order(activations: Iterable[Activation], references: Callable[[Activation], set[str]]) -> tuple[Activation, ...]:
    """Parents first: an activation comes after those that write an object it refers to; else sorted by name.

    `references` names the objects behind an activation's lookups, in any case. In a cycle the first by name goes
    first; `cycles` says so.
    """
    return _ordered(activations, references)[0]


def cycles(activations: Iterable[Activation], references: Callable[[Activation], set[str]]) -> tuple[Problem, ...]:
    """A note for each cycle of lookups that `order` had to break."""
    return _ordered(activations, references)[1]


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
    versions = _mapping(root.get("disabled")).values()
    return sum(len(_mapping(root.get(section))) for section in _SECTIONS) + sum(
        len(each) for each in versions if isinstance(each, list)
    )


def _node(unique_id: str, kind: str, raw: Mapping[str, Any]) -> Node:
    config = _mapping(raw.get("config"))
    contract = _mapping(raw.get("contract")) or _mapping(config.get("contract"))
    file = _text(raw, "original_file_path") or _text(raw, "path")
    version, latest = raw.get("version"), raw.get("latest_version")
    name = _text(raw, "name") or unique_id.rpartition(".")[2]
    return Node(
        unique_id=unique_id,
        resource_type=kind,
        name=name,
        package=_text(raw, "package_name"),
        database=_text(raw, "database"),
        schema=_text(raw, "schema"),
        relation_name=_text(raw, "relation_name"),
        custom_database=_text(config, "database"),
        custom_schema=_text(config, "schema") or _text(config, "target_schema"),
        materialized=_text(config, "materialized") or kind,
        fqn=_texts(raw.get("fqn")),
        tags=_texts(raw.get("tags")),
        file=file,
        yaml_file=_text(raw, "patch_path").rpartition("://")[2] or file,
        columns=_columns_of(raw),
        primary_key=_texts(raw.get("primary_key")),
        contract_enforced=contract.get("enforced") is True,
        is_latest=version is None or latest is None or str(version) == str(latest),
        ran_as=_ran_as(raw),
        current=_current(config) if kind == "snapshot" else (),
        block=_block(raw),
    )


def _ran_as(raw: Mapping[str, Any]) -> str:
    """A node's file in target/run, as dbt-core places it (`get_target_write_path`); '' where it can't be told."""
    package, file, path = (_text(raw, name) for name in ("package_name", "original_file_path", "path"))
    if not (package and file and path) or ".." in f"{file}/{path}":
        return ""
    inside = file if file.rpartition("/")[2] == path.rpartition("/")[2] else f"{file}/{path}"
    return f"{package}/{inside}".replace("\\", "/")


def _block(raw: Mapping[str, Any]) -> Any:
    """`config.meta.dinmo`, or `meta.dinmo` of an old manifest. A block that is null is a block: an empty one."""
    for meta in (_mapping(_mapping(raw.get("config")).get("meta")), _mapping(raw.get("meta"))):
        if "dinmo" in meta:
            return {} if meta["dinmo"] is None else meta["dinmo"]
    return None


def _columns_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    columns = _mapping(raw.get("columns"))
    return tuple(_text(_mapping(column), "name") or key for key, column in columns.items())


def _test(unique_id: str, raw: Mapping[str, Any]) -> Test:
    attached = _text(raw, "attached_node")
    depends_on = _texts(_mapping(raw.get("depends_on")).get("nodes"))
    judged = (attached,) if attached else depends_on
    return Test(unique_id, _text(raw, "name") or unique_id, judged, _ran_as(raw))


def _strays(unique_id: str, kind: str, raw: Mapping[str, Any]) -> list[Left]:
    """Blocks in a resource that no activation comes of: at another place, by another name, or of another kind."""
    config = _mapping(raw.get("config"))
    name, file = _text(raw, "name") or unique_id, _text(raw, "original_file_path")
    found: list[tuple[str, Problem]] = []
    ways = [("config.meta", _mapping(config.get("meta")) or _mapping(raw.get("meta")))]
    ways += [("config", {key: value for key, value in config.items() if key != "meta"})]
    for column, said in _mapping(raw.get("columns")).items():
        ways.append((f"columns.{column}.config.meta", _mapping(_mapping(_mapping(said).get("config")).get("meta"))))
    yaml_file = _text(raw, "patch_path").rpartition("://")[2] or file
    for way, values in ways:
        for key, value in values.items():
            activates = kind in _RELATIONS and (way, key) == ("config.meta", "dinmo")
            # An exposure that `dinmo-dbt exposures` wrote carries `meta: {dinmo: {generated: true}}`: no declaration.
            is_generated = isinstance(value, Mapping) and value.get("generated") is True
            if isinstance(key, str) and not activates and not is_generated and is_block(key, value):
                where = f"{yaml_file}: {name}.{way}.{key}"
                found.append((where, _stray(kind, name, way, key, where)))
    fqn, tags = _texts(raw.get("fqn")), _texts(raw.get("tags"))
    return [Left(name, unique_id, name, fqn, tags, file, where, (problem,)) for where, problem in found]


def _stray(kind: str, name: str, way: str, key: str, where: str) -> Problem:
    if kind not in _RELATIONS:
        return Problem(NOT_A_MODEL, f"only models, seeds and snapshots can be activated, not a {kind}", where)
    hint = f"write it at {show(name)}, under config > meta > dinmo"
    if way.startswith("columns"):
        return Problem(MISPLACED, "a column can't be activated, its model can", where, hint)
    misspelt = "" if key == "dinmo" else f": {show(key)} is not `dinmo`"
    return Problem(MISPLACED, f"nothing is read here{misspelt}", where, hint)


def _disabled(manifest: Manifest, defaults: Mapping[str, Any]) -> list[Left]:
    """What dbt leaves out for the target that it ran for: no part of the project there, and no mistake."""
    found: dict[str, Node] = {}
    for node in manifest.disabled:
        if node.block is not None and node.unique_id not in manifest.nodes:
            found.setdefault(node.unique_id, node)
    left: list[Left] = []
    for node in found.values():
        note = Problem(DISABLED, f"{show(node.name)} is disabled in dbt for this target: not synced", node.meta_path)
        left += left_out(node.block, source_of(node), defaults, (note,), is_wrong=False)
    return left


def _of_a_package(node: Node) -> Problem:
    message = f"package {show(node.package)} brings this block: it is ignored"
    hint = (
        f"to activate {node.name}, give the block yourself in dbt_project.yml: models > {' > '.join(node.fqn)} > "
        "+meta > dinmo; or at a model of your own that selects from it"
    )
    return Problem(OF_A_PACKAGE, message, node.meta_path, hint)


def _history(activation: Activation, node: Node) -> list[Problem]:
    """Where rows of the past would be taken for rows of today: the snapshot's own settings say which are current."""
    if not node.current:
        return []
    usual = " and ".join(node.current)
    hint = f'usually: where: "{usual}"'
    if not activation.where:
        message = "a dbt snapshot holds every past version of a row, and all of them would be read"
        return [Problem(SNAPSHOT_HISTORY, message, activation.meta_path, hint)]
    where = activation.where.lower()
    missing = [each for each in node.current if each.partition(" ")[0].lower() not in where]
    ends = node.current[0].partition(" ")[0].lower()
    never_null = "is null" not in node.current[0] and re.search(rf"\b{re.escape(ends)}\b[\"`\]]?\s+is\s+null", where)
    if never_null:
        message = f"the snapshot ends its current rows with a date, so {ends} is never null"
        return [Problem(SNAPSHOT_HISTORY, message, activation.meta_path, hint)]
    if missing and ends in where:
        message = f"`where` takes the last version of a deleted row for a current one: {missing[0]} is missing"
        return [Problem(SNAPSHOT_HISTORY, message, activation.meta_path, hint)]
    return []


def _current(config: Mapping[str, Any]) -> tuple[str, ...]:
    """dbt, "Snapshot configs": `dbt_valid_to_current` stands in the place of null, `hard_deletes: new_record` adds a
    version that says it is deleted, and `snapshot_meta_column_names` renames the columns."""
    names = _mapping(config.get("snapshot_meta_column_names"))
    valid_to = _text(names, "dbt_valid_to") or "dbt_valid_to"
    ends = _text(config, "dbt_valid_to_current")
    current = f"{valid_to} = {ends}" if ends else f"{valid_to} is null"
    if config.get("hard_deletes") != "new_record":
        return (current,)
    return current, f"{_text(names, 'dbt_is_deleted') or 'dbt_is_deleted'} = 'False'"


def _no_relation(node: Node) -> Problem | None:
    if node.materialized == "ephemeral":
        hint = "materialise it as a view or a table"
        return Problem(NO_RELATION, f"{show(node.name)} is ephemeral: it has no relation to read", node.meta_path, hint)
    if not node.relation_name:
        return Problem(
            NO_RELATION, f"{show(node.name)} has no relation in the manifest", node.meta_path, "run `dbt build`"
        )
    return None


def _inherited(declared: list[Node]) -> dict[str, Problem]:
    """Models that carry one and the same block: dbt hands a folder's `+meta` down to each model below it.

    Two models that are meant to carry equal activations tell them apart by `name`, which makes the blocks unequal.
    """
    groups: dict[str, list[Node]] = {}
    for node in declared:
        if isinstance(node.block, Mapping) and (node.block.get("activations") or node.block.get("activation")):
            groups.setdefault(json.dumps(node.block, sort_keys=True, default=str), []).append(node)
    inherited: dict[str, Problem] = {}
    for nodes in groups.values():
        if len(nodes) > 1:
            names = declaration.listed(node.name for node in nodes)
            message = f"{len(nodes)} models carry the same activations: {names}"
            hint = (
                "a folder's +meta reaches every model below it: declare activations on one model, and put what they "
                "share under `defaults` in dinmo.yml. If each is meant, give each activation its own `name`"
            )
            problem = Problem(INHERITED, message, nodes[0].meta_path, hint)
            inherited |= {node.unique_id: problem for node in nodes}
    return inherited


def source_of(node: Node) -> Source:
    """What `meta` needs to know of the node that carries a block."""
    return Source(
        model=node.unique_id,
        model_name=node.name,
        relation_name=node.relation_name,
        resource_type=node.resource_type,
        fqn=node.fqn,
        tags=node.tags,
        file=node.file,
        meta_path=node.meta_path,
        primary_key=node.primary_key,
        documented_columns=node.columns,
        contract_enforced=node.contract_enforced,
    )


def _duplicate_names(found: Sequence[Activation | Left]) -> dict[str, Problem]:
    """By name in lower case: state is kept under the name, on file systems that may not know upper from lower case.
    None of those that have it may run: whose the state is can't be told."""
    problems: dict[str, Problem] = {}
    first: dict[str, Activation | Left] = {}
    for activation in found:
        other = first.setdefault(activation.name.lower(), activation)
        if other is not activation:
            message = f"two activations are called {show(activation.name)}; the other is {other.meta_path}"
            hint = "names are unique in the project, upper and lower case alike: give one its own `name`"
            problem = Problem(DUPLICATE_NAME, message, activation.meta_path, hint)
            problems.setdefault(activation.name.lower(), problem)
    return problems


def _columns(activation: Activation) -> tuple[list[Problem], list[Problem]]:
    """Columns used that the manifest does not list: wrong under an enforced contract, else only worth a note where it
    lists one of nearly that name. Few models list all of their columns."""
    used = [*activation.key, *(f.column for f in activation.fields)]
    if activation.match:
        used.append(activation.match.column)
    documented = {column.lower() for column in activation.documented_columns}
    missing = [column for column in dict.fromkeys(used) if column.lower() not in documented]
    if not missing:
        return [], []
    if activation.contract_enforced:
        return [
            Problem(
                NOT_IN_CONTRACT,
                f"the model's contract has no column {show(column)}"
                + declaration.did_you_mean(column, activation.documented_columns),
                activation.meta_path,
            )
            for column in missing
        ], []
    # Others may well be in the table, unlisted: customer_name is no misspelt customer_id.
    guesses = {
        column: declaration.did_you_mean(column, activation.documented_columns, least=declaration.MISSPELT)
        for column in missing
    }
    message = "; ".join(
        f"the model's YAML lists no column {show(name)}{meant}" for name, meant in guesses.items() if meant
    )
    if not message:
        return [], []
    return [], [
        Problem(NOT_DOCUMENTED, message, activation.meta_path, "validate --online looks at the relation itself")
    ]


def _ordered(
    activations: Iterable[Activation], references: Callable[[Activation], set[str]]
) -> tuple[tuple[Activation, ...], tuple[Problem, ...]]:
    by_name = {activation.name: activation for activation in sorted(activations, key=lambda a: a.name)}
    writers: dict[tuple[str, str], list[str]] = {}
    for activation in by_name.values():
        writers.setdefault((activation.destination, activation.object.lower()), []).append(activation.name)
    # An object that refers to itself orders nothing: its rows are ordered inside each activation.
    waits_for = {
        name: {
            writer
            for reference in references(activation)
            if reference.lower() != activation.object.lower()
            for writer in writers.get((activation.destination, reference.lower()), [])
        }
        for name, activation in by_name.items()
    }
    placed: list[str] = []
    notes: list[Problem] = []
    while waits_for:
        ready = [name for name, parents in waits_for.items() if not parents]
        if not ready:
            cycle = _cycle(waits_for)
            message = f"lookups go in a circle: {' -> '.join([*cycle, cycle[0]])}"
            first = min(cycle)
            hint = f"{first} goes first; rows whose parent is not there yet follow on the next run"
            notes.append(Problem(CYCLE, message, by_name[first].meta_path, hint))
            ready = [first]
        name = heapq.nsmallest(1, ready)[0]
        placed.append(name)
        del waits_for[name]
        for parents in waits_for.values():
            parents.discard(name)
    return tuple(by_name[name] for name in placed), tuple(notes)


def _cycle(waits_for: Mapping[str, set[str]]) -> list[str]:
    """One cycle among activations that all wait for another: follow first parents until one comes again."""
    name, path = min(waits_for), list[str]()
    while name not in path:
        path.append(name)
        name = min(waits_for[name])
    return path[path.index(name) :]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
