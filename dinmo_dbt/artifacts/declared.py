"""The activations that the models of a manifest declare, and those that can't be run.

`activations` resolves every `config.meta.dinmo` block of the root project; what is wrong with one stops no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dinmo_dbt.activation import Activation
from dinmo_dbt.artifacts.manifest import Manifest, Node
from dinmo_dbt.codes import (
    BLOCK_OF_A_PACKAGE,
    DUPLICATE_NAME,
    INHERITED_BLOCK,
    MODEL_DISABLED,
    NO_RELATION,
    NOT_DOCUMENTED,
    NOT_IN_CONTRACT,
    SNAPSHOT_HISTORY,
)
from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.meta import NotActivated, checked_defaults, left_out, resolve
from dinmo_dbt.errors import Problem


@dataclass(frozen=True, slots=True)
class Loaded:
    """Every activation of the project, sorted by name; what is declared and is none; and what is worth saying.

    `problems` are of the defaults, and so of every activation. A note is about the activation whose `meta_path` is its
    `where`.
    """

    activations: tuple[Activation, ...]
    left: tuple[NotActivated, ...] = ()
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


def activations(
    manifest: Manifest,
    project_defaults: Mapping[str, Any],
    *,
    written_at: Callable[[declaration.Path], str] = lambda path: f"dinmo.yml: {declaration.dotted(path)}",
    placed: Callable[[Node], str] = lambda _: "",
    strays: Sequence[NotActivated] | None = None,
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
        left += left_out(node.block, node, node.meta_path, defaults, (_of_a_package(node),), is_wrong=False)
    inherited = _inherited(declared)
    found: list[Activation] = []
    for node in declared:
        if problem := inherited.get(node.unique_id) or _no_relation(node):
            left += left_out(node.block, node, node.meta_path, defaults, (problem,))
            continue
        resolved = resolve(node.block, node, node.meta_path, defaults)
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
        notes += [*said, *_history(activation, manifest.nodes[activation.model.unique_id])]
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


def left_activation(activation: Activation, problems: tuple[Problem, ...]) -> NotActivated:
    """An activation that is right by itself, and can't be used."""
    return NotActivated(
        name=activation.name,
        model=activation.model,
        meta_path=activation.meta_path,
        problems=problems,
        object=activation.object,
        enabled=activation.enabled,
        nearly=activation,
    )


def _disabled(manifest: Manifest, defaults: Mapping[str, Any]) -> list[NotActivated]:
    """What dbt leaves out for the target that it ran for: no part of the project there, and no mistake."""
    found: dict[str, Node] = {}
    for node in manifest.disabled:
        if node.block is not None and node.unique_id not in manifest.nodes:
            found.setdefault(node.unique_id, node)
    left: list[NotActivated] = []
    for node in found.values():
        note = Problem(
            MODEL_DISABLED, f"{show(node.name)} is disabled in dbt for this target: not synced", node.meta_path
        )
        left += left_out(node.block, node, node.meta_path, defaults, (note,), is_wrong=False)
    return left


def _of_a_package(node: Node) -> Problem:
    message = f"package {show(node.package)} brings this block: it is ignored"
    hint = (
        f"to activate {node.name}, give the block yourself in dbt_project.yml: models > {' > '.join(node.fqn)} > "
        "+meta > dinmo; or at a model of your own that selects from it"
    )
    return Problem(BLOCK_OF_A_PACKAGE, message, node.meta_path, hint)


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
            problem = Problem(INHERITED_BLOCK, message, nodes[0].meta_path, hint)
            inherited |= {node.unique_id: problem for node in nodes}
    return inherited


def _duplicate_names(found: Sequence[Activation | NotActivated]) -> dict[str, Problem]:
    """By name in lower case: state is kept under the name, on file systems that may not know upper from lower case.
    None of those that have it may run: whose the state is can't be known."""
    problems: dict[str, Problem] = {}
    first: dict[str, Activation | NotActivated] = {}
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
    documented = {column.lower() for column in activation.model.columns}
    missing = [column for column in dict.fromkeys(used) if column.lower() not in documented]
    if not missing:
        return [], []
    if activation.model.contract_enforced:
        return [
            Problem(
                NOT_IN_CONTRACT,
                f"the model's contract has no column {show(column)}"
                + declaration.did_you_mean(column, activation.model.columns),
                activation.meta_path,
            )
            for column in missing
        ], []
    # Others may well be in the table, unlisted: customer_name is no misspelt customer_id.
    guesses = {
        column: declaration.did_you_mean(column, activation.model.columns, least=declaration.MISSPELT)
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
