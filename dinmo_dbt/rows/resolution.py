"""An activation on its way to a mapping: what it is held against, and what is wrong with it so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.destination import ObjectSchema
from dinmo_dbt.errors import Problem
from dinmo_dbt.rows.columns import Columns


@dataclass(frozen=True)
class Resolution:
    """An activation's columns against its relation, and the schema of its object; `parent` describes a parent object.
    All that is wrong is in `problems`."""

    columns: Columns
    schema: ObjectSchema
    parent: Callable[[str], ObjectSchema]

    @property
    def activation(self) -> Activation:
        return self.columns.activation

    @property
    def relation(self) -> pa.Schema | None:
        return self.columns.relation

    @property
    def problems(self) -> list[Problem]:
        return self.columns.problems

    def problem(self, code: str, message: str, key: str, hint: str = "") -> None:
        self.columns.problem(code, message, key, hint)

    @property
    def writes_new(self) -> bool:
        """Whether it makes records: an upsert by the record's id never does."""
        match = self.activation.match
        by_id = match is not None and match.field.lower() == "id"
        return self.activation.mode is Mode.INSERT or (self.activation.mode is Mode.UPSERT and not by_id)

    @property
    def writes_known(self) -> bool:
        return self.activation.mode in (Mode.UPDATE, Mode.UPSERT)
