"""The shape of dinmo.yml, and what holds for any of its values: no literal secret, no template but ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from dinmo_dbt.codes import FLOW_NOT_OFFERED, MISPLACED_KEY, NOT_RENDERED, YAML_MISREAD
from dinmo_dbt.config import declaration, template
from dinmo_dbt.config.declaration import Path as KeyPath
from dinmo_dbt.config.declaration import show
from dinmo_dbt.config.dinmo_yml import SECRET_KEYS, FileSpec
from dinmo_dbt.config.flows import BY_PASSWORD, FLOWS, NOT_OFFERED
from dinmo_dbt.config.reading import TEMPLATE_HINT, Reading


def spec_of(reading: Reading, raw: Mapping[str, Any]) -> FileSpec | None:
    """The file as its spec, without the entries of destinations that are wrong; None when more is wrong."""
    for place, value in _scalars(raw, ()):
        _check_scalar(reading, place, value)
    spec = _shape(reading, raw)
    for place, value in _scalars(raw, ()):
        line = reading.read.where(place).partition(": ")[0]
        is_reported = any(problem.where.startswith(f"{line}:") for problem in reading.found.problems)
        if not is_reported and (text := reading.read.misread.get(place)):
            message, hint = declaration.misread(text, value)
            reading.add(YAML_MISREAD, message, place, hint)
    return spec


def targets_of(raw: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each destination, and the dbt targets that it has an entry for, right or wrong."""
    return {name: tuple(_mapping(_mapping(each).get("targets"))) for name, each in _destinations_of(raw).items()}


def _destinations_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(raw.get("destinations"))


def _check_scalar(reading: Reading, path: KeyPath, value: object) -> None:
    """What holds for any value of the file, rendered or not: no literal secret, no template but ours."""
    text = value if isinstance(value, str) else ""
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    in_defaults = path[:1] == ("defaults",)
    channel = path[:2] == ("warnings", "channels") and key != "only"
    secret = (key in SECRET_KEYS or channel) and not in_defaults
    if secret and value is not None and not template.only_from_environment(text):
        what = "a channel" if channel else show(key)
        hint = "write \"{{ env_var('NAME') }}\" and set NAME where dinmo-dbt runs" + (
            f", or use {key}_path" if key in ("client_secret", "access_token", "refresh_token") else ""
        )
        reading.add(MISPLACED_KEY, f"{what} is a secret: it must come from env_var(), without a default", path, hint)
    elif declaration.holds_secret(text):
        reading.add(MISPLACED_KEY, "this text looks like a secret", path, "write \"{{ env_var('NAME') }}\"")
    elif template.is_template(text) and not in_defaults:
        try:
            template.check(text)
        except template.NotAllowed as error:
            reading.add(NOT_RENDERED, str(error), path, TEMPLATE_HINT)


def _shape(reading: Reading, raw: Mapping[str, Any]) -> FileSpec | None:
    skipped = _by_password(reading, raw)
    try:
        return FileSpec.model_validate(raw)
    except ValidationError as error:
        for details, problem in zip(
            error.errors(include_url=False),
            declaration.problems(error, model=FileSpec, where=reading.read.where),
            strict=True,
        ):
            if not any(details["loc"][: len(path)] == path for path in skipped):
                reading.found.add(problem, details["loc"])
    try:
        return FileSpec.model_validate(_without(raw, set(reading.found.owners)))
    except ValidationError:
        return None


def _by_password(reading: Reading, raw: Mapping[str, Any]) -> list[KeyPath]:
    """Report logins by password, once each; their other keys are then not looked at."""
    found: list[KeyPath] = []
    for name, destination in _destinations_of(raw).items():
        for target, written in _mapping(_mapping(destination).get("targets")).items():
            flow = _mapping(_mapping(written).get("auth")).get("flow")
            path: KeyPath = ("destinations", name, "targets", target, "auth")
            if isinstance(flow, str) and flow in BY_PASSWORD:
                reading.add(FLOW_NOT_OFFERED, NOT_OFFERED, (*path, "flow"), f"use one of: {FLOWS}")
                found.append(path)
    return found


def _without(raw: Mapping[str, Any], owners: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The file without these entries."""
    kept: dict[str, Any] = {}
    for name, destination in _mapping(raw.get("destinations")).items():
        if (name, "") not in owners:
            targets = _mapping(_mapping(destination).get("targets"))
            kept[name] = {**destination, "targets": {t: e for t, e in targets.items() if (name, t) not in owners}}
    return {**raw, "destinations": kept}


def _scalars(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _scalars(inner, (*path, i))
    else:
        yield path, value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
