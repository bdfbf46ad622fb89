"""One model's `config.meta.dinmo` block as activations, or everything that is wrong with it. No file is read here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from dinmo_dbt.activation import Activation, FieldMapping, Guards, Mode
from dinmo_dbt.codes import (
    KEYS_CONFLICT,
    MISPLACED_KEY,
    NO_KEY,
    NOT_ALLOWED,
    NOT_AVAILABLE,
    REQUIRED_KEY,
    UNKNOWN_KEY,
    UNKNOWN_SEGMENT,
    WRONG_TYPE,
)
from dinmo_dbt.config import declaration
from dinmo_dbt.config.block import ACTIVATION_NAME, ActivationSpec, BlockSpec, RemovedSpec, activation_keys
from dinmo_dbt.config.contradictions import contradictions, fields_twice
from dinmo_dbt.config.declaration import Path, Strict, show
from dinmo_dbt.errors import Problem
from dinmo_dbt.model import Model


@dataclass(frozen=True, slots=True)
class NotActivated:
    """What is declared and is no activation here: what selects it, and why. `is_wrong`: it was to be one. `nearly`: the
    activation that it would be without what is wrong, where that can be known: for a look at the rest of it."""

    name: str
    model: Model
    meta_path: str
    problems: tuple[Problem, ...]
    object: str = ""  # as it is written; '' where it can't be known
    enabled: bool = True
    is_wrong: bool = True
    nearly: Activation | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The activations of one block that are right, and those that are not."""

    activations: tuple[Activation, ...]
    left: tuple[NotActivated, ...]


def resolve(block: object, model: Model, place: str, defaults: Mapping[str, Any]) -> Resolved:
    """One model's block as activations, with `defaults` (already checked) below each; every problem at once. What is
    wrong with the block itself is wrong with each of its activations."""

    def where(path: Path) -> str:
        return f"{place}.{declaration.dotted(path)}" if path else place

    if not isinstance(block, Mapping):
        message = f"expected a mapping, got {declaration.kind(block)}"
        return Resolved((), left_out(block, model, place, defaults, (Problem(WRONG_TYPE, message, where(())),)))
    written = _written_activations(block)
    unfit = list(_unfit_texts(block, (), where))
    if unfit:
        return Resolved((), left_out(block, model, place, defaults, tuple(unfit)))

    problems: list[Problem] = []
    outer = {key: value for key, value in block.items() if key not in ("activation", "activations")}
    shorthand = [key for key in outer if key in activation_keys() and key not in BlockSpec.model_fields]
    for key in shorthand:
        hint = f"write it one level down: dinmo: {{activation: {{{key}: ...}}}}"
        problems.append(Problem(UNKNOWN_KEY, f"{show(key)} belongs to an activation", where((key,)), hint))
        del outer[key]
    spec, found = _validated(BlockSpec, outer, (), where)
    problems += found
    if isinstance(written, Problem) and not shorthand:
        problems.append(replace(written, where=where(())))

    activations: list[Activation] = []
    left: list[NotActivated] = []
    resolved = [
        (path, raw, *_resolve_one(raw, spec, model, defaults, _under(where, path)))
        for path, raw in ([] if isinstance(written, Problem) else written)
    ]
    if not problems and not (spec and spec.key) and not model.primary_key:
        hint = "name the unique column or columns: key: customer_id (or give dbt unique and not_null tests on it)"
        problems.append(
            Problem(NO_KEY, f"{show(model.name)} has no `key`, and dbt knows no primary key", where(()), hint)
        )
    for path, raw, activation, found in resolved:
        if activation is None or problems:
            each = _left(raw, model, defaults, where(path), (*problems, *found))
            nearly = activation or _nearly(raw, spec, model, defaults, _under(where, path))
            left.append(replace(each, nearly=nearly if nearly and nearly.key else None))
        else:
            activations.append(activation)
    if problems and not resolved:
        left.append(_left(None, model, defaults, where(()), tuple(problems)))
    return Resolved(tuple(activations), tuple(left))


def left_out(
    block: object,
    model: Model,
    place: str,
    defaults: Mapping[str, Any],
    problems: tuple[Problem, ...],
    *,
    is_wrong: bool = True,
) -> tuple[NotActivated, ...]:
    """Each activation that a block names, as one that is left out for `problems`; at least one."""
    written = _written_activations(block) if isinstance(block, Mapping) else ()
    if isinstance(written, Problem) or not written:
        return (_left(None, model, defaults, place, problems, is_wrong=is_wrong),)
    places = [(f"{place}.{declaration.dotted(path)}", raw) for path, raw in written]
    return tuple(_left(raw, model, defaults, place, problems, is_wrong=is_wrong) for place, raw in places)


def _left(
    raw: object,
    model: Model,
    defaults: Mapping[str, Any],
    meta_path: str,
    problems: tuple[Problem, ...],
    *,
    is_wrong: bool = True,
) -> NotActivated:
    """With the name that it would have, as far as it can be known; else its model's."""
    said = (
        {**defaults, **{key: value for key, value in raw.items() if isinstance(key, str)}}
        if isinstance(raw, Mapping)
        else {}
    )
    given, target = said.get("name"), said.get("object")
    target = target if isinstance(target, str) else ""
    usual = f"{model.name}__{target}" if target else model.name
    return NotActivated(
        name=given if isinstance(given, str) and ACTIVATION_NAME.fullmatch(given) else usual,
        model=model,
        meta_path=meta_path,
        problems=problems,
        object=target,
        enabled=said.get("enabled") is not False,
        is_wrong=is_wrong,
    )


def checked_defaults(defaults: Mapping[str, Any], where: Callable[[Path], str]) -> tuple[dict[str, Any], list[Problem]]:
    """The part of dinmo.yml's `defaults` that can stand below every activation, and what is wrong with the rest."""
    problems = list(_unfit_texts(defaults, (), where))
    if problems:
        return {}, problems
    try:
        ActivationSpec.model_validate(defaults)
    except ValidationError as error:
        wrong_ones = [e for e in error.errors(include_url=False) if e["type"] != "missing" or len(e["loc"]) > 1]
        found = declaration.problems(error, model=ActivationSpec, where=where)
        kept = [
            problem
            for problem, details in zip(found, error.errors(include_url=False), strict=True)
            if details["type"] != "missing" or len(details["loc"]) > 1
        ]
        bad = {str(details["loc"][0]) for details in wrong_ones}
        return {key: value for key, value in defaults.items() if key not in bad}, kept
    return dict(defaults), []


def _written_activations(block: Mapping[str, Any]) -> list[tuple[Path, object]] | Problem:
    single, several = "activation" in block, "activations" in block
    if single and several:
        return Problem(KEYS_CONFLICT, "both `activation` and `activations` are given", hint="keep one of them")
    if single:
        return [(("activation",), block["activation"])]
    if not several:
        return Problem(REQUIRED_KEY, "neither `activation` nor `activations` is given")
    listed = block["activations"]
    if not isinstance(listed, list) or not listed:
        message = "expected a list of activations, got " + (
            "an empty list" if listed == [] else declaration.kind(listed)
        )
        return Problem(WRONG_TYPE, message)
    return [(("activations", i), raw) for i, raw in enumerate(listed)]


def _resolve_one(
    raw: object, block: BlockSpec | None, model: Model, defaults: Mapping[str, Any], where: Callable[[Path], str]
) -> tuple[Activation | None, list[Problem]]:
    if not isinstance(raw, Mapping):
        return None, [Problem(WRONG_TYPE, f"expected a mapping, got {declaration.kind(raw)}", where(()))]
    spec, problems = _validated(ActivationSpec, _with_defaults(raw, defaults), (), where)
    if spec is None:
        return None, problems
    problems += _of_default_mode(contradictions(spec, raw, where), raw)
    problems += _not_yet(spec, where)
    problems += fields_twice(spec, where)
    segments = block.segments if block else {}
    if spec.segment and block and spec.segment not in segments:
        hint = (
            f"segments here: {', '.join(segments)}" if segments else "declare it under `segments`, beside `activations`"
        )
        message = f"no segment {show(spec.segment)}{declaration.did_you_mean(spec.segment, segments)}"
        problems.append(Problem(UNKNOWN_SEGMENT, message, where(("segment",)), hint))
    name = spec.name or f"{model.name}__{spec.object}"
    if not ACTIVATION_NAME.fullmatch(name):
        hint = "letters, digits, dots, dashes and underscores, at most 100"
        problems.append(
            Problem(REQUIRED_KEY, f"{show(name)} can't be a name: give the activation a `name`", where(()), hint)
        )
    if problems or block is None:
        return None, problems
    return _activation(spec, block, model, name, where(())), []


_ONLINE = {"destination", "object", "mode", "match", "fields", "constants", "on_removed", "segment", "where"}


def _nearly(
    raw: object, block: BlockSpec | None, model: Model, defaults: Mapping[str, Any], where: Callable[[Path], str]
) -> Activation | None:
    """The activation without the keys that are wrong, if what the org and the warehouse are asked about is right."""
    if not isinstance(raw, Mapping):
        return None
    try:
        ActivationSpec.model_validate(_with_defaults(raw, defaults))
        return None
    except ValidationError as error:
        wrong = {str(details["loc"][0]) for details in error.errors(include_url=False) if details["loc"]}
    if not wrong or wrong & _ONLINE:
        return None
    rest = {key: value for key, value in raw.items() if key not in wrong}
    return _resolve_one(rest, block, model, {k: v for k, v in defaults.items() if k not in wrong}, where)[0]


def _activation(spec: ActivationSpec, block: BlockSpec, model: Model, name: str, meta_path: str) -> Activation:
    removed = spec.on_removed
    return Activation(
        name=name,
        model=model,
        meta_path=meta_path,
        destination=spec.destination,
        object=spec.object,
        mode=Mode(spec.mode),
        key=tuple(block.key) or model.primary_key,
        match=spec.match,
        fields=tuple(FieldMapping(column, f.field, f.nulls, f.write) for column, _, f in spec.mapped),
        constants=tuple(spec.constants.items()),
        guards=Guards(
            max_delete=spec.guards.max_delete,
            max_change=spec.guards.max_change,
            max_created=spec.guards.max_created,
            max_replaced=spec.guards.max_replaced,
        ),
        segment=spec.segment or None,
        where=block.segments[spec.segment] if spec.segment else spec.where or None,
        on_change=spec.on_change,
        on_removed="set" if isinstance(removed, RemovedSpec) else removed,
        on_removed_set=tuple(removed.set.items()) if isinstance(removed, RemovedSpec) else (),
        schedule=spec.schedule,
        quiet_hours=spec.quiet_hours.resolved() if spec.quiet_hours else None,
        auto_pause=spec.auto_pause,
        warnings=spec.warnings.resolved(),
        mute_until=spec.mute_until.timestamp() if spec.mute_until else None,
        api=spec.api,
        enabled=spec.enabled,
        shares_object_with=tuple(spec.shares_object_with),
        missing_parent=spec.missing_parent,
        give_up_after=spec.give_up_after,
        keep_before_images=spec.keep_before_images,
        audit=spec.audit,
    )


def _not_yet(spec: ActivationSpec, where: Callable[[Path], str]) -> list[Problem]:
    """Values that are known and have no effect in this release: without them a sync would not do what they say."""
    given: list[tuple[Path, str]] = [
        ((*path, "write"), field.write) for _, path, field in spec.mapped if field.write != "always"
    ]
    given += [(("engine",), spec.engine)] if spec.engine != "arrow" else []
    return [
        Problem(NOT_AVAILABLE, f"{show(value)} is not available yet", where(path), "take it out")
        for path, value in given
    ]


def _of_default_mode(problems: list[Problem], raw: Mapping[str, Any]) -> list[Problem]:
    """Who reads the block sees no mode there."""
    if "mode" in raw:
        return problems
    message = "its mode is that of `defaults` in dinmo.yml"
    return [
        replace(each, hint="\n".join(filter(None, (each.hint, message)))) if each.message.startswith("mode ") else each
        for each in problems
    ]


_MERGED = ("guards", "warnings")


def _with_defaults(raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The activation over the defaults. `guards` and `warnings` merge by key; every other key is taken whole.

    A default that its mode has no use for is left out: an organisation-wide `on_change` must not break an upsert.
    """
    merged = dict(raw)
    mode = raw.get("mode", defaults.get("mode"))
    for key, value in defaults.items():
        if (key == "on_change" and mode != "insert") or (key == "match" and mode == "insert"):
            continue
        inserts_changes = mode == "insert" and raw.get("on_change", defaults.get("on_change")) != "ignore"
        if key == "on_removed" and (mode == "delete" or inserts_changes):
            continue
        if (key == "where" and "segment" in raw) or (key == "segment" and "where" in raw):
            continue
        if key not in merged:
            merged[key] = value
        elif key in _MERGED and isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = {**value, **merged[key]}
    return merged


def is_of_defaults(block: object, meta_path: str, way: Sequence[str], defaults: Mapping[str, Any]) -> bool:
    """Whether the activation at that place of a block has the key at that way within it of the defaults."""
    found = re.search(r"\.activations?(?:\[(\d+)\])?$", meta_path)
    listed = _mapping(block).get("activations")
    if found is None or (found[1] and not isinstance(listed, list)):
        return False
    raw = _mapping(
        listed[int(found[1])] if isinstance(listed, list) and found[1] else _mapping(block).get("activation")
    )
    key = way[0].partition("[")[0]
    if key in _MERGED and key in raw and len(way) > 1:
        return way[1] in _mapping(defaults.get(key)) and way[1] not in _mapping(raw[key])
    return key in defaults and key not in raw


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _unfit_texts(value: object, path: Path, where: Callable[[Path], str]) -> list[Problem]:
    """Texts that must not be in a manifest: literal secrets, and what is not Unicode. At most 50 levels deep."""
    if len(path) > 50:
        return [Problem(NOT_ALLOWED, "nested more than 50 levels deep", where(path[:3]))]
    if isinstance(value, Mapping):
        found = []
        for key, inner in value.items():
            if not isinstance(key, str) or any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in key):
                found.append(Problem(WRONG_TYPE, f"expected text as a key, got {show(key)}", where(path)))
                continue
            in_constants = path[-1:] in (("constants",), ("set",))
            if in_constants and isinstance(inner, str) and declaration.looks_secret(key.removesuffix("__c")):
                hint = "the manifest is no place for secrets: dbt writes it to target/ and often to a docs site"
                found.append(
                    Problem(MISPLACED_KEY, f"{show(key)} looks like a secret, as a constant", where((*path, key)), hint)
                )
            found += _unfit_texts(inner, (*path, key), where)
        return found
    if isinstance(value, list):
        return [problem for i, inner in enumerate(value) for problem in _unfit_texts(inner, (*path, i), where)]
    if isinstance(value, str):
        if declaration.holds_secret(value):
            hint = "the manifest is no place for secrets: dbt writes it to target/ and often to a docs site"
            return [Problem(MISPLACED_KEY, "this text looks like a secret", where(path), hint)]
        if any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in value):
            return [Problem(NOT_ALLOWED, "the text is not valid Unicode", where(path))]
    return []


def _under(where: Callable[[Path], str], path: Path) -> Callable[[Path], str]:
    return lambda below: where(path + below)


Spec = TypeVar("Spec", bound=Strict)


def _validated(
    model: type[Spec], raw: Mapping[str, Any], path: Path, where: Callable[[Path], str]
) -> tuple[Spec | None, list[Problem]]:
    try:
        return model.model_validate(dict(raw)), []
    except ValidationError as error:
        return None, declaration.problems(error, model=model, where=_under(where, path))
