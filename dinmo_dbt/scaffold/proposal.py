"""A first activation for a model, guessed from its columns and the object's fields. Pure; a person looks it over.

Names are compared without case, underscores and `__c`: `customer_name` is Customer_Name__c, and Name of Customer__c.
What is guessed is checked as `validate` and `plan` check it, and what would be refused is left out, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import yaml

from dinmo_dbt.codes import INIT_NO_MATCH_FIELD, REQUIRED_FIELD
from dinmo_dbt.config import meta
from dinmo_dbt.config.declaration import dotted
from dinmo_dbt.destination import Field, ObjectSchema
from dinmo_dbt.errors import ConfigError, Problem
from dinmo_dbt.model import Model
from dinmo_dbt.rows.parent_paths import identifying
from dinmo_dbt.rows.resolve import resolve
from dinmo_dbt.text.whole_text import as_yaml

_PREFIXES = ("dim", "fct", "fact", "mart", "mrt", "stg", "int", "rpt", "obt")


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """A model's columns: their names and, where the relation has been looked at, their types."""

    names: tuple[str, ...]
    types: pa.Schema | None = None


@dataclass(frozen=True)
class Proposal:
    """The `dinmo` block, and what of model and object it leaves out: column or field, and why."""

    block: dict[str, object]
    unmapped: tuple[tuple[str, str], ...]
    required: tuple[str, ...]

    def lines(self) -> list[str]:
        """As YAML, a line each, with a comment on what each key is for."""
        activation = self.block["activation"]
        assert isinstance(activation, dict)
        key = self.block["key"]
        assert isinstance(key, list)
        keys = inline(key[0]) if len(key) == 1 else f"[{', '.join(map(inline, key))}]"
        lines = [
            ("dinmo:", ""),
            (f"  key: {keys}", "what identifies a row from one sync to the next"),
            ("  activation:", ""),
            (f"    destination: {inline(activation['destination'])}", "a destination of dinmo.yml"),
            (f"    object: {activation['object']}", ""),
            (f"    mode: {activation['mode']}", "insert | update | upsert | delete"),
        ]
        if match := activation.get("match"):
            ((column, field),) = match.items()
            lines.append((f"    match: {{{inline(column)}: {field}}}", "column: the field that identifies the record"))
        if where := activation.get("where"):
            lines.append((f"    where: {inline(where)}", "the current version of each row"))
        if activation.get("fields"):
            lines.append(("    fields:", "column: field"))
        lines += [(f"      {inline(column)}: {field}", "") for column, field in activation.get("fields", {}).items()]
        wide = max((len(text) for text, said in lines if said and len(text) <= 40), default=0)
        shown = [f"{text.ljust(wide)}  # {said}" if said else text for text, said in lines]
        shown += [f"      # {inline(column)}: {why}" for column, why in self.unmapped]
        shown += [f"      # {name} is required for new records, and no column has its name" for name in self.required]
        return shown


def propose(
    model: Model,
    place: str,
    columns: ModelColumns,
    schema: ObjectSchema,
    parent: Callable[[str], ObjectSchema],
    *,
    key: Sequence[str],
    destination: str,
    mode: str = "",
    match: Mapping[str, str] | None = None,
    where: str = "",
) -> Proposal:
    """The activation that sends the model to the object. `mode` and `match` are the user's choice, else guessed: an
    upsert by an external id that a column is named like, the key's own first; not by one of several key columns, which
    repeats. `where` holds for the rows that are sent; `place` is where the block will stand.

    ConfigError DB819 where nothing of the object identifies a record by a column, or what the user chose can't be.
    """
    guess = _Names(schema, parent)
    chosen = dict(match or {})
    if not chosen and mode != "insert":
        chosen = guess.match((*key, *columns.names) if len(key) == 1 else [n for n in columns.names if n not in key])
        if not chosen:
            raise _no_match_field(schema, key)
    mode = mode or "upsert"
    fields, unmapped = guess.fields([name for name in columns.names if name not in chosen], set(chosen.values()))
    if mode == "insert":
        chosen = {}
    while True:
        activation: dict[str, object] = {"destination": destination, "object": schema.name, "mode": mode}
        activation |= {"match": dict(chosen)} if chosen else {}
        activation |= {"where": where} if where else {}
        activation |= {"fields": dict(fields)} if fields else {}
        block: dict[str, object] = {"key": list(key), "activation": activation}
        problems = _problems(block, model, place, schema, parent, columns.types)
        refused = {column: problem for column in fields for problem in problems if _is_of(problem, column)}
        if not refused:
            break
        unmapped += [(column, _why(refused[column], schema, column, fields.pop(column))) for column in refused]
    if mode == "insert" and not fields:
        raise ConfigError(
            INIT_NO_MATCH_FIELD,
            f"no column of {model.name} has the name of a field of {schema.name} that may be written",
            hint=f"dinmo-dbt org fields {schema.name} lists them; write the activation by hand (docs/meta.md)",
        )
    others = [problem for problem in problems if problem.code != REQUIRED_FIELD]
    if others:
        raise ConfigError.of(others)
    required = [problem.message.partition(" ")[0] for problem in problems]
    order = {name: number for number, name in enumerate(columns.names)}
    unmapped.sort(key=lambda each: order.get(each[0], 0))
    return Proposal(block, tuple(unmapped), tuple(required))


def object_for(model: str, names: Iterable[str]) -> str | None:
    """The object that the model is named after; None for none or several. `dim_customers` is Customer__c."""
    wanted = _folded_model(model)
    found = [name for name in names if _folded(name) in wanted]
    return found[0] if len(found) == 1 else None


def new_object_for(model: str) -> str:
    """The API name of a custom object of the model's rows: `dim_customers` as Customer__c."""
    words = _words(model)
    return f"{'_'.join(word.title() for word in [*words[:-1], words[-1].removesuffix('s')])}__c"


def _words(model: str) -> list[str]:
    words = [word for word in model.lower().split("_") if word] or [model]
    return words[1:] if len(words) > 1 and words[0] in _PREFIXES else words


def _folded_model(model: str) -> set[str]:
    name = "".join(_words(model))
    endings = {name, name.removesuffix("s"), name.removesuffix("es")}
    return endings | ({name.removesuffix("ies") + "y"} if name.endswith("ies") else set())


def _folded(name: str) -> str:
    """A name without case, underscores, namespace and `__c`."""
    bare = re.sub(r"__(c|pc|r)$", "", name, flags=re.IGNORECASE)
    bare = bare.rpartition("__")[2]
    return re.sub(r"[^a-z0-9]", "", bare.lower())


def parent_paths(field: Field, parent: Callable[[str], ObjectSchema]) -> list[str]:
    """How a row can name the record that a lookup leads to, by the fields that tell one from another:
    `Account__r.Number__c`. None where the lookup may not be written, leads to several objects, or to one that this user
    may not see."""
    if len(field.reference_to) != 1 or not field.relationship_name or not (field.createable or field.updateable):
        return []
    try:
        names = identifying(parent(field.reference_to[0]))
    except ConfigError:
        return []
    return [f"{field.relationship_name}.{name}" for name in names]


class _Names:
    """The object's fields by what a column that feeds them may be called, the likeliest first."""

    def __init__(self, schema: ObjectSchema, parent: Callable[[str], ObjectSchema]) -> None:
        self.schema = schema
        own = [field for field in schema.fields.values() if field.createable or field.updateable]
        plain = [field for field in own if not field.reference_to]
        object_name = _folded(schema.name)
        self.ways: list[dict[str, list[str]]] = [
            _grouped((_folded(field.name), field.name) for field in own),
            _grouped((_folded(field.label), field.name) for field in plain),
            _grouped((object_name + _folded(field.name), field.name) for field in plain),
            _grouped((_folded(path.partition(".")[2]), path) for field in own for path in parent_paths(field, parent)),
            # Nothing can be written there: the check says why.
            _grouped((_folded(f.name), f.name) for f in schema.fields.values() if f not in own and f.type != "id"),
        ]

    def match(self, columns: Sequence[str]) -> dict[str, str]:
        fields = [field for field in self.schema.fields.values() if field.external_id or field.type == "id"]
        for column in columns:
            for field in fields:
                names = {_folded(field.name), _folded(self.schema.name) + _folded(field.name)}
                if field.type == "id":
                    names = {"salesforceid", "sfid", "sfdcid", f"salesforce{_folded(self.schema.name)}id"}
                if _folded(column) in names:
                    return {column: field.name}
        return {}

    def fields(self, columns: Sequence[str], taken: set[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """Columns and their fields; and the columns that are left, with the reason."""
        found: dict[str, str] = {}
        left: list[tuple[str, str]] = []
        for way in self.ways:
            for column in columns:
                names = [name for name in way.get(_folded(column), []) if name not in taken]
                if column not in found and len(names) == 1:
                    found[column] = names[0]
                    taken.add(names[0])
        for column in columns:
            if column not in found:
                several = sorted({name for way in self.ways for name in way.get(_folded(column), [])} - taken)
                left.append(
                    (column, f"{' or '.join(several)}?" if several else f"no field of {self.schema.name} has its name")
                )
        return {column: found[column] for column in columns if column in found}, left


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, field in pairs:
        found.setdefault(name, []).append(field)
    return found


def _problems(
    block: Mapping[str, object],
    model: Model,
    place: str,
    schema: ObjectSchema,
    parent: Callable[[str], ObjectSchema],
    relation: pa.Schema | None,
) -> Sequence[Problem]:
    resolved = meta.resolve(block, model, place, {})
    if resolved.left:
        return [problem for each in resolved.left for problem in each.problems]
    return resolve(resolved.activations[0], schema, parent, relation)[1]


def _is_of(problem: Problem, column: str) -> bool:
    path = f".{dotted(('fields', column))}"
    return problem.where.endswith((path, f"{path}.field"))


def _why(problem: Problem, schema: ObjectSchema, column: str, field: str) -> str:
    return f"{field}: " + problem.message.removeprefix(f"{column} -> {schema.name}.{field}: ")


def _no_match_field(schema: ObjectSchema, key: Sequence[str]) -> ConfigError:
    ids = [field.name for field in schema.fields.values() if field.external_id]
    known = f"external ids of {schema.name}: {', '.join(ids)}" if ids else f"{schema.name} has no external id"
    create = (
        f"create one: Setup > Object Manager > {schema.label} > Fields & Relationships > New: Text, tick Unique and "
        "External ID"
    )
    several = f"each of {' and '.join(key)} repeats: let the model join them to one column, unique\n"
    return ConfigError(
        INIT_NO_MATCH_FIELD,
        f"no external id of {schema.name} has the name of {' or '.join(key)} or of another column; {known}"
        if len(key) == 1
        else f"no external id of {schema.name} has the name of one column that identifies a row; {known}",
        hint=(several if len(key) > 1 else "")
        + (f"name the pair: --match COLUMN={ids[0]}\nor " if ids else "")
        + f"{create}\nor make a record of each row: --mode insert",
    )


def inline(text: object) -> str:
    """A text as a YAML scalar that is read as that text."""
    shown = str(text)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", shown) and yaml.safe_load(shown) == shown
    return shown if plain else as_yaml(shown)
