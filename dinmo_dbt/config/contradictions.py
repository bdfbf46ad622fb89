"""Keys of an activation that contradict each other, or do nothing together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dinmo_dbt.codes import FIELD_TWICE, KEYS_CONFLICT, NOT_ALLOWED, REQUIRED_KEY
from dinmo_dbt.config import declaration
from dinmo_dbt.config.block import ActivationSpec, RemovedSpec
from dinmo_dbt.config.declaration import Path, show
from dinmo_dbt.errors import Problem


def contradictions(spec: ActivationSpec, raw: Mapping[str, Any], where: Callable[[Path], str]) -> list[Problem]:
    """Keys of one activation that can't stand together."""
    found: list[Problem] = []

    def add(code: str, message: str, *path: str, hint: str = "") -> None:
        found.append(Problem(code, message, where(path), hint))

    mode, match = spec.mode, spec.match
    if mode != "insert" and not match:
        add(
            REQUIRED_KEY,
            f"mode {mode} needs `match`: the field that identifies the record",
            hint="match: {id: External_Id__c}",
        )
    if mode == "insert" and match and "match" in raw:
        add(
            KEYS_CONFLICT,
            "mode insert takes no `match`: it never looks for a record",
            "match",
            hint="or use mode: upsert",
        )
    if match and match.create and mode != "upsert":
        add(KEYS_CONFLICT, f"`create: true` is for mode upsert, not {mode}", "match", "create")
    if match and match.create and match.field.lower() == "id":
        add(
            KEYS_CONFLICT,
            "a record can't be created with an Id of ours",
            "match",
            "create",
            hint="match on an external id",
        )
    if mode != "insert" and "on_change" in raw:
        add(KEYS_CONFLICT, f"`on_change` is for mode insert, not {mode}", "on_change")
    if mode == "insert" and spec.on_change == "insert" and spec.on_removed != "ignore":
        hint = "with on_change: insert a row may have several records; on_change: ignore keeps it to one"
        add(KEYS_CONFLICT, "`on_removed` can't be used with on_change: insert", "on_removed", hint=hint)
    if isinstance(spec.on_removed, RemovedSpec):
        for field in spec.on_removed.set:
            if field.lower() == "id":
                add(NOT_ALLOWED, "`Id` identifies a record and can't be written", "on_removed", "set", field)
            elif match and field.lower() == match.field.lower():
                hint = "a key that comes back would not find its record again"
                add(
                    KEYS_CONFLICT,
                    f"{show(field)} is the match field, and can't be set",
                    "on_removed",
                    "set",
                    field,
                    hint=hint,
                )
    if mode == "delete":
        for key, value in (("fields", spec.fields), ("constants", spec.constants)):
            if value:
                add(KEYS_CONFLICT, f"mode delete writes no field: remove `{key}`", key)
        if spec.on_removed != "ignore":
            add(KEYS_CONFLICT, "mode delete takes no `on_removed`", "on_removed")
        if "max_delete" not in spec.guards.model_fields_set:
            add(
                REQUIRED_KEY,
                "mode delete needs `guards.max_delete`, a number of rows",
                "guards",
                hint="guards: {max_delete: 100}",
            )
        elif spec.guards.max_delete.rows is None:
            add(
                NOT_ALLOWED,
                "mode delete needs an absolute number of rows here, not a percentage",
                "guards",
                "max_delete",
            )
    elif not spec.fields and not spec.constants and mode != "upsert":
        add(REQUIRED_KEY, f"nothing to write: mode {mode} needs `fields` or `constants`")
    if spec.segment and spec.where:
        add(
            KEYS_CONFLICT,
            "both `segment` and `where` are given",
            "where",
            hint="put the condition under `segments`, or keep one",
        )
    return found


def fields_twice(spec: ActivationSpec, where: Callable[[Path], str]) -> list[Problem]:
    """Salesforce fields that two things feed. A parent path feeds the lookup behind it."""
    feeds: list[tuple[str, Path]] = []
    if spec.match and spec.mode != "insert":
        feeds.append((spec.match.field, ("match", spec.match.column)))
    feeds += [(field.field, path) for _, path, field in spec.mapped]
    feeds += [(field, ("constants", field)) for field in spec.constants]
    problems = []
    seen: dict[str, Path] = {}
    for field, path in feeds:
        if path[0] != "match" and field.lower() == "id":
            problems.append(
                Problem(NOT_ALLOWED, "`Id` identifies a record and can't be written; use `match`", where(path))
            )
        first = seen.setdefault(_fed(field), path)
        if first != path:
            message = f"{show(field)} is fed twice; the other is {declaration.dotted(first)}"
            problems.append(Problem(FIELD_TWICE, message, where(path)))
    return problems


def _fed(field: str) -> str:
    """The lookup behind a parent path (`Customer__r.X` -> `customer__c`, `Account.X` -> `accountid`), or the field."""
    parent, dot, _ = field.rpartition(":")[2].lower().partition(".")
    if not dot:
        return parent
    return parent[:-1] + "c" if parent.endswith("__r") else parent + "id"
