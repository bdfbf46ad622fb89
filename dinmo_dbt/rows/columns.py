"""The columns that an activation names, against those of its relation: what no org has to be asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import COLUMNS_DIFFER_IN_CASE, KEY_TYPE, NO_COLUMN
from dinmo_dbt.config import declaration
from dinmo_dbt.errors import Problem
from dinmo_dbt.rows.keys import why_not_key


def unread(activation: Activation, relation: pa.Schema) -> tuple[Problem, ...]:
    """Each column that the relation lacks, and each of the key by which no row is known."""
    columns = Columns(activation, relation)
    for name in activation.key:
        columns.key_column(name)
    if activation.match is not None:
        columns.source_column(activation.match.column, f"match.{activation.match.column}")
    for mapped in activation.fields:
        columns.source_column(mapped.column, f"fields.{mapped.column}")
    return tuple(columns.problems)


@dataclass(frozen=True)
class Columns:
    """`relation` is None where it has not been seen: the declared names stand. All that is wrong is in `problems`."""

    activation: Activation
    relation: pa.Schema | None
    problems: list[Problem] = field(default_factory=list)

    def problem(self, code: str, message: str, key: str, hint: str = "") -> None:
        where = f"{self.activation.meta_path}.{key}" if key else self.activation.meta_path
        self.problems.append(Problem(code, message, where, hint))

    def key_column(self, name: str) -> str | None:
        source = self.source_column(name, "key")
        if source and self.relation is not None:
            reason = why_not_key(self.relation.field(source).type)
            if reason:
                self.problem(KEY_TYPE, f"key column {source}: {reason}", "key")
        return source

    def source_column(self, name: str, key: str) -> str | None:
        """The column in the relation's own case."""
        if self.relation is None:
            return name
        names = self.relation.names
        if name in names:
            return name
        folded = [candidate for candidate in names if candidate.lower() == name.lower()]
        if len(folded) == 1:
            return str(folded[0])
        if folded:
            self.problem(COLUMNS_DIFFER_IN_CASE, f"column {name} fits several columns: {', '.join(folded)}", key)
            return None
        near = declaration.near(name, names)
        hint = f"did you mean {near[0]}?" if near else f"its columns are {', '.join(names)}"
        hint = declaration.unquoted_key(name) or hint
        self.problem(NO_COLUMN, f"{self.activation.model.relation_name} has no column {name}", key, hint)
        return None
